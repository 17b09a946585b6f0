//! Whose first bytes the programs are asked for: for so many sources there is room.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use observer_ebpf::SOURCES_MAX;

use super::first_bytes::Asking;
use crate::cluster::{Index, LocalAddresses};

/// What a source is asked for as: where there is no room for all, those that come first are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    LoadBalancer,
    ThisNode,
    OtherNode,
    Pod,
}

/// The sources that are asked for, and those that there is no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The programs are told of these.
    pub asked: BTreeSet<IpNet>,
    /// Not of these.
    pub left_out: BTreeSet<IpNet>,
}

impl Sources {
    /// As many as the programs have room for.
    pub fn of(asking: &Asking, index: Option<&Index>, local: &LocalAddresses) -> Self {
        Self::within(asking, index, local, SOURCES_MAX as usize)
    }

    fn within(asking: &Asking, index: Option<&Index>, local: &LocalAddresses, room: usize) -> Self {
        let sources = asking.sources(index, local);
        if sources.len() <= room {
            return Self {
                asked: sources,
                left_out: BTreeSet::new(),
            };
        }
        let nowhere = LocalAddresses::new(local.node(), []);
        let named = asking.sources(None, &nowhere);
        let mut ordered: Vec<_> = sources.into_iter().collect();
        ordered.sort_by_key(|source| rank(source, &named, index, local));
        let left_out = ordered.split_off(room);
        Self {
            asked: ordered.into_iter().collect(),
            left_out: left_out.into_iter().collect(),
        }
    }
}

fn rank(
    source: &IpNet,
    named: &BTreeSet<IpNet>,
    index: Option<&Index>,
    local: &LocalAddresses,
) -> Rank {
    let ip = source.addr();
    match index {
        Some(index) if !named.contains(source) => {
            let own = index.node(local.node());
            if local.contains(ip) || own.is_some_and(|own| own.addresses.contains(&ip)) {
                Rank::ThisNode
            } else if index.has_node_address(ip) {
                Rank::OtherNode
            } else if index.is_pod(ip) {
                Rank::Pod
            } else {
                Rank::LoadBalancer
            }
        }
        None if local.contains(ip) && !named.contains(source) => Rank::ThisNode,
        _ => Rank::Named,
    }
}

/// The sources that there is no room for; there mostly are none.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    left_out: Networks,
    asked: Networks,
}

/// Networks, most of which are single addresses.
#[derive(Debug, Default)]
struct Networks {
    addresses: HashSet<IpAddr>,
    wide: Vec<IpNet>,
}

impl LeftOut {
    pub(super) fn of(asking: &Asking, index: Option<&Index>, local: &LocalAddresses) -> Self {
        Sources::of(asking, index, local).into()
    }

    /// Whether nobody asks for what this address sends first, for want of room.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.left_out.contains(address) && !self.asked.contains(address)
    }
}

impl From<Sources> for LeftOut {
    fn from(Sources { asked, left_out }: Sources) -> Self {
        if left_out.is_empty() {
            return Self::default();
        }
        Self {
            left_out: left_out.into_iter().collect(),
            asked: asked.into_iter().collect(),
        }
    }
}

impl Networks {
    fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.wide.iter().any(|wide| wide.contains(&address))
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        let is_single = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        let (single, wide): (Vec<_>, _) = networks.into_iter().partition(is_single);
        Self {
            addresses: single.into_iter().map(|single| single.addr()).collect(),
            wide,
        }
    }
}

#[cfg(test)]
mod tests;
