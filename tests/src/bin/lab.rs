//! Raises a lab and holds it until Ctrl-C, for trying things by hand.

#![expect(
    clippy::print_stdout,
    reason = "what is where is the output of this command"
)]

use std::{net::IpAddr, path::PathBuf, thread};

use anyhow::Result;
use clap::Parser;
use ipnet::IpNet;
use tests::{
    cluster::Cluster,
    kubeproxy::{Backend, Mode, Settings},
    lab::{Lab, Options},
};

/// Raises a cluster of network namespaces with kube-proxy's rules and a backend in every pod,
/// and holds it until Ctrl-C.
#[derive(Parser)]
struct Arguments {
    /// The objects: a List as `kubectl get services,endpointslices,nodes -A -o json` prints it.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/clusters/demo.json"))]
    cluster: PathBuf,
    /// kube-proxy's clusterCIDR; once for each family.
    #[arg(long = "cluster-cidr", default_values = ["10.244.0.0/16", "fd00:10:244::/48"])]
    cluster_cidrs: Vec<IpNet>,
    /// kube-proxy's mode: `iptables`, `iptables-legacy` (by the kernel's old tables), `ipvs` or
    /// `nftables`.
    #[arg(long, default_value = "iptables", value_parser = mode)]
    mode: Mode,
    /// Masquerade whatever goes to a cluster IP.
    #[arg(long)]
    masquerade_all: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "iptables" => Ok(Mode::Iptables(Backend::Nft)),
        "iptables-legacy" => Ok(Mode::Iptables(Backend::Legacy)),
        "ipvs" => Ok(Mode::Ipvs),
        "nftables" => Ok(Mode::Nftables),
        other => Err(format!("there is no mode {other}")),
    }
}

fn main() -> Result<()> {
    let Arguments {
        cluster,
        cluster_cidrs,
        mode,
        masquerade_all,
    } = Arguments::parse();
    let kube_proxy = Settings {
        cluster_cidrs,
        masquerade_all,
        ..Settings::of(mode)
    };
    let lab = Lab::raise(
        Cluster::read(&cluster)?,
        Options {
            kube_proxy,
            ..Options::default()
        },
    )?;
    describe(&lab);
    // The handler of the namespaces cleans up and ends the process.
    loop {
        thread::park();
    }
}

fn describe(lab: &Lab) {
    let row = |what: &str, addresses: &[IpAddr], namespace: &str, more: &str| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        println!("{what:28} {:38} {namespace:40} {more}", addresses.join(" "));
    };
    row("client", &lab.client_addresses(), lab.client().name(), "");
    for node in lab.nodes() {
        row(
            &node.plan.name,
            &node.plan.addresses,
            node.namespace.name(),
            "eth0",
        );
        for pod in lab
            .pods()
            .iter()
            .filter(|pod| pod.plan.node == node.plan.name)
        {
            let ports: Vec<String> = pod.plan.ports.iter().map(ToString::to_string).collect();
            let more = format!(
                "{} on {}, listens on {}",
                pod.interface(),
                pod.plan.node,
                ports.join(" ")
            );
            row(
                &format!("  {}", pod.plan.name),
                &pod.plan.addresses,
                pod.namespace.name(),
                &more,
            );
        }
    }
    println!(
        "\nTry: ip netns exec {} nc -N 172.31.0.11 30080",
        lab.client().name()
    );
    println!("ready; Ctrl-C ends the lab");
}
