//! A kube-proxy of our own: programs a node as kube-proxy 1.36 programs it in iptables mode.
//!
//! The same chains by the same names, the same rules in the same order, with the same comments.
//! Rendering is pure; a test compares it, rule by rule, with what a real kube-proxy left in the
//! kernel of two nodes. Rules are written in the form in which iptables-save prints them, so
//! that this comparison needs no understanding of rules.

use std::{net::IpAddr, process::Command};

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use crate::{cluster::Cluster, command, netns::Namespace, plan::Plan};

mod accounting;
mod endpoints;
mod names;
mod render;
mod ruleset;
mod services;

pub use render::render;
pub use ruleset::{Ruleset, differences};

/// The part of a `KubeProxyConfiguration` that shapes rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `clusterCIDR`, at most one of a family: what counts as a pod (detect-local mode
    /// `ClusterCIDR`). Without one for a family, nothing does (no detector).
    pub cluster_cidrs: Vec<IpNet>,
    /// `iptables.masqueradeAll`: masquerade whatever goes to a cluster IP.
    pub masquerade_all: bool,
    /// `nodePortAddresses`: on which addresses of a node its `NodePort`s are served.
    pub node_port_addresses: NodePortAddresses,
    /// `iptables.localhostNodePorts`: also at 127.0.0.1.
    pub localhost_node_ports: bool,
}

/// `nodePortAddresses` of a `KubeProxyConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The default of iptables mode: on every local address.
    All,
    /// `["primary"]`: on the node's addresses in its Node object.
    Primary,
    /// On the node's addresses within these ranges.
    Within(Vec<IpNet>),
}

impl Default for Settings {
    /// kube-proxy's defaults, and the cluster CIDRs of the demo cluster.
    fn default() -> Self {
        let cidrs = ["10.244.0.0/16", "fd00:10:244::/48"];
        Self {
            cluster_cidrs: cidrs
                .map(|cidr| cidr.parse().expect("a literal range"))
                .to_vec(),
            masquerade_all: false,
            node_port_addresses: NodePortAddresses::All,
            localhost_node_ports: true,
        }
    }
}

/// One of the two families, which kube-proxy programs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether an address is of this family.
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// What restores and saves rules of this family, through the kernel's nftables, as Debian's
    /// own default and kube-proxy on it do.
    fn tool(self) -> &'static str {
        match self {
            Self::V4 => "iptables-nft",
            Self::V6 => "ip6tables-nft",
        }
    }
}

/// Programs a node, in both families of its addresses.
pub fn program(node: &Namespace, cluster: &Cluster, name: &str, settings: &Settings) -> Result<()> {
    node.run(accounting::create)??;
    let plan = Plan::of(cluster)?;
    let addresses = plan
        .nodes
        .iter()
        .find(|planned| planned.name == name)
        .map(|node| node.addresses.clone());
    for family in Family::ALL {
        if addresses
            .iter()
            .flatten()
            .any(|address| family.holds(*address))
        {
            let rules = render(cluster, name, family, settings)?;
            restore(node, family, &rules)?;
        }
    }
    Ok(())
}

/// Replaces the tables of a namespace that `rules` speaks of.
pub fn restore(node: &Namespace, family: Family, rules: &Ruleset) -> Result<()> {
    let mut command = node.command(format!("{}-restore", family.tool()));
    command::run_with_input(&mut command, &rules.to_string())?;
    Ok(())
}

/// The rules of a namespace as the kernel has them.
pub fn save(node: &Namespace, family: Family) -> Result<Ruleset> {
    let mut command: Command = node.command(format!("{}-save", family.tool()));
    let text = command::run(&mut command)?;
    text.parse()
        .with_context(|| format!("{command:?} printed what is no rule set"))
}
