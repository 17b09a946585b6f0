//! A kube-proxy of our own: programs a node as kube-proxy 1.36 programs it, and in mode nftables
//! also as older ones did.
//!
//! The same chains by the same names, the same rules in the same order, with the same comments.
//! Rendering is pure; a test compares it, rule by rule, with what a real kube-proxy left in the
//! kernel of two nodes. Rules are written in the form in which the kernel's tools print them, so
//! that this comparison needs no understanding of rules.
//!
//! The modes differ in more than their language: in nftables mode `NodePort`s are served on the
//! node's primary addresses only and never at 127.0.0.1, ports of a cluster IP that no Service
//! has are refused, addresses that no Service has are dropped, and a packet that conntrack finds
//! invalid is left alone. What IPVS mode does otherwise is in [`ipvs`].

use std::net::IpAddr;

use anyhow::Result;

use crate::{cluster::Cluster, netns::Namespace, plan::Plan};

pub mod doors;
mod endpoints;
mod hash;
pub mod iptables;
pub mod ipvs;
pub mod nftables;
mod services;
mod settings;
mod site;

pub use settings::{
    Backend, DetectLocal, Mode, NftablesLayout, NodePortAddresses, Served, Settings,
};

/// One of the two families, which kube-proxy programs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether an address is of this family.
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// Programs a node, in both families of its addresses.
pub fn program(node: &Namespace, cluster: &Cluster, name: &str, settings: &Settings) -> Result<()> {
    let plan = Plan::of(cluster)?;
    let addresses: Vec<IpAddr> = plan
        .nodes
        .iter()
        .filter(|planned| planned.name == name)
        .flat_map(|planned| planned.addresses.iter().copied())
        .collect();
    if settings.mode == Mode::Ipvs {
        ipvs::prepare(node)?;
    }
    for family in Family::ALL {
        if !addresses.iter().any(|address| family.holds(*address)) {
            continue;
        }
        match settings.mode {
            Mode::Iptables(backend) => {
                let rules = iptables::render(cluster, name, family, settings)?;
                iptables::restore(node, backend, family, &rules)?;
            }
            Mode::Ipvs => {
                let program = ipvs::render(cluster, name, family, settings)?;
                ipvs::load(node, family, &program)?;
            }
            Mode::Nftables => {
                let rules = nftables::render(cluster, name, family, settings)?;
                nftables::load(node, &rules)?;
            }
        }
    }
    Ok(())
}
