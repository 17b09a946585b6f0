//! The IPVS mode: the kernel's virtual servers choose the endpoint and rewrite the destination;
//! netfilter only marks what is to be masqueraded, by sets of addresses and ports. As
//! `pkg/proxy/ipvs/proxier.go` of 1.33 sets it up, but for comments.
//!
//! What differs from the other modes: policy Local marks nothing, spares nobody, and where a node
//! has no endpoint falls back on those of the others; every Service address is the node's own, on
//! a device that is down, so that what the node sends there has it as source, too; the loopback
//! address serves no `NodePort`s. Needs the kernel's modules `ip_vs`, `ip_vs_rr`, `ip_set`,
//! `xt_set`, `xt_ipvs` and `dummy`.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use ipnet::IpNet;

use super::{Backend, Family, iptables, services::Protocol};
use crate::{command, netns::Namespace};

mod render;
mod sets;

pub use render::render;

use sets::Sets;

/// The device that has every address of a Service.
const DEVICE: &str = "kube-ipvs0";
/// What the rules go through: kube-proxy takes what `iptables` stands for.
const RULES: Backend = Backend::Nft;
/// Below `/proc/sys/net`; there once the module is.
const PARAMETERS: [(&str, &str); 3] = [
    // Without it a virtual server's connections leave conntrack, and are never masqueraded.
    ("ipv4/vs/conntrack", "1"),
    ("ipv4/vs/expire_nodest_conn", "1"),
    ("ipv4/vs/expire_quiescent_template", "1"),
];

/// What makes a node of one family serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    sets: Sets,
    rules: iptables::Ruleset,
    servers: Vec<VirtualServer>,
    /// Of the device.
    addresses: Vec<IpAddr>,
}

/// An address and a port, and where its connections go in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct VirtualServer {
    protocol: Protocol,
    at: SocketAddr,
    /// Seconds for which a client keeps its endpoint.
    affinity: Option<i32>,
    endpoints: Vec<SocketAddr>,
}

/// Makes a namespace fit for the mode, before the program of either family.
pub fn prepare(node: &Namespace) -> Result<()> {
    // Loads the module, too.
    command::run(node.command("ipvsadm").arg("--clear"))?;
    node.set_parameters(&PARAMETERS)?;
    node.ip(&format!("link add {DEVICE} type dummy\n"))
}

/// Programs a prepared namespace.
pub fn load(node: &Namespace, family: Family, program: &Program) -> Result<()> {
    let Program {
        sets,
        rules,
        servers,
        addresses,
    } = program;
    let restore = |tool: &str, argument: &str, input: &str| {
        command::run_with_input(node.command(tool).arg(argument), input)
    };
    restore("ipset", "restore", &sets.to_string())?;
    iptables::restore(node, RULES, family, rules)?;
    let mut script = String::new();
    for address in addresses {
        let address = IpNet::from(*address);
        writeln!(script, "address add {address} dev {DEVICE}")?;
    }
    node.ip(&script)?;
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    restore("ipvsadm", "--restore", &servers.concat())?;
    Ok(())
}

/// The input of `ipvsadm --restore`: round robin, by rewriting, all endpoints alike.
impl fmt::Display for VirtualServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            at,
            affinity,
            endpoints,
        } = self;
        let service = match protocol {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
            Protocol::Sctp => "--sctp-service",
        };
        write!(formatter, "-A {service} {at} -s rr")?;
        if let Some(seconds) = affinity {
            write!(formatter, " -p {seconds}")?;
        }
        writeln!(formatter)?;
        for endpoint in endpoints {
            writeln!(formatter, "-a {service} {at} -r {endpoint} -m -w 1")?;
        }
        Ok(())
    }
}
