//! `observer explain`: what every front door does to the client's address, from the cluster's
//! objects alone. Needs no privilege and no kernel.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::filter::ServiceName;
use super::source::{Given, WholeSource};
use super::{Ending, block_on, names, say};
use crate::cluster::{Index, KubeProxy};
use crate::output;
use crate::verdict::Explainer;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only this Service, or this port of it: `shop/web`, `shop/web:http`.
    #[arg(value_name = "NAMESPACE/SERVICE")]
    service: Option<ServiceName>,
    #[command(flatten)]
    source: WholeSource,
    /// Only this client: a pod's address, a node's, or any other for one from outside. What goes
    /// by addresses (`loadBalancerSourceRanges`, the cluster CIDR, hairpins) is told then, too.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: what is the same by several nodes in one row.
    Table,
    /// An array, with an object for each front door, node and kind of client.
    Json,
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    let Options {
        service,
        source,
        client,
        output,
    } = options;
    let Given {
        objects,
        assumed: _,
        findings: _,
    } = block_on(source.whole())?;
    if let Some(service) = &service
        && let Some(but) = names::service(service, Some(&objects))?
    {
        say(&format!("warning: {but}"));
    }
    let kube_proxy = match source.cluster.kube_proxy()? {
        Some(given) => Some(given),
        None => KubeProxy::of_cluster(&objects.config_maps)
            .context("the ConfigMap of kube-proxy; give --kube-proxy-config")?,
    };
    let index = Index::build(&objects);
    if index.nodes().next().is_none() {
        bail!(
            "there are no Nodes among the objects: what happens depends on the node one enters by"
        );
    }
    let entries = index.entries().iter().filter(|entry| {
        service
            .as_ref()
            .is_none_or(|service| service.names(&entry.service_port()))
    });
    let cells = Explainer {
        index: &index,
        kube_proxy: kube_proxy.as_ref(),
        client,
    }
    .explain(entries);
    let text = match output {
        Format::Table => output::matrix(&cells),
        Format::Json => output::matrix_json(&cells).to_string(),
    };
    output::print(&text).context("cannot write to stdout")?;
    if kube_proxy.is_none() {
        say(
            "kube-proxy's configuration is not known: taken to be as kubeadm sets it up, in mode \
             iptables",
        );
    }
    Ok(Ending::Done)
}
