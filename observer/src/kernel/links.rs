//! The node's interfaces, and which of them to observe.
//!
//! Chosen by addresses, routes and masters, never by name: a node's uplink may be a veth, a bond
//! or a bridge. A packet may pass several of the chosen ones (a bridge and its port, a VLAN and
//! its parent); the flow takes its first arrival and its last egress.

mod read;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use read::LinksError;
pub use watch::Watch;

use crate::observation::{IfIndex, Interfaces};

/// What the cluster's objects say of addresses, to tell roles by.
pub trait Addresses {
    /// Whether a Node has this address.
    fn is_node(&self, address: IpAddr) -> bool;
    /// Whether pods have this one.
    fn is_pod(&self, address: IpAddr) -> bool;
}

/// Why an interface is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Towards clients and other nodes: it carries a default route or a Node's address.
    Uplink,
    /// Towards a pod: a host route leads there, or it is a port of a bridge among pods.
    PodFacing,
    /// It wraps packets between nodes; inside are those of connections.
    Tunnel,
    /// Nothing speaks against it.
    Other,
}

/// Why an interface is not observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unobserved {
    /// What a host sends to itself.
    Loopback,
    /// It carries no packet: it only holds addresses.
    Dummy,
    /// It is down; when it comes up, it is looked at again.
    Down,
    /// A bridge that is no uplink: its ports are observed.
    Bridge,
    /// All its packets pass an observed interface above it too: this one.
    Below(String),
    /// Its packets begin with a link header that is not read: its ARPHRD number
    /// (`include/uapi/linux/if_arp.h`).
    LinkHeader(u16),
}

/// What stands in front of the IP header of an interface's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkHeader {
    /// Fourteen bytes of Ethernet.
    #[default]
    Ethernet,
    /// Nothing: IP in IP, WireGuard, tun.
    None,
    /// Something else: an ARPHRD number.
    Other(u16),
}

/// What the kernel makes of an interface, where it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// Hardware, a veth, or anything else.
    #[default]
    Plain,
    /// A bridge.
    Bridge,
    /// A bond or a team: its packets pass its members.
    Aggregate,
    /// On another interface: a VLAN, macvlan, ipvlan.
    Stacked,
    /// VXLAN, GENEVE, IP in IP, SIT, GRE, WireGuard.
    Tunnel,
    /// A dummy.
    Dummy,
    /// What a host sends to itself.
    Loopback,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: LinkKind,
    /// In front of its packets.
    pub header: LinkHeader,
    /// Whether it is up.
    pub up: bool,
    /// Of which bridge, bond or team it is a port or member.
    pub master: Option<IfIndex>,
    /// On which interface of this network namespace it is stacked.
    pub lower: Option<IfIndex>,
    /// Its own addresses, with the networks they are in.
    pub addresses: Vec<IpNet>,
    /// Whether a default route leads through it.
    pub default_route: bool,
    /// The gateways of those.
    pub gateways: Vec<IpAddr>,
    /// Whether a route to a single address leads through it, to a neighbour on it.
    pub host_route: bool,
}

/// All interfaces of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<IfIndex, Link>);

impl Links {
    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (IfIndex, &Link)> {
        self.0.iter().map(|(index, link)| (*index, link))
    }

    /// Their names, addresses and private gateways.
    pub fn interfaces(&self) -> Interfaces {
        let addresses = self.0.values().flat_map(|link| &link.addresses);
        let gateways = self.0.values().flat_map(Link::neighbours);
        Interfaces {
            names: self
                .iter()
                .map(|(index, link)| (index, link.name.clone()))
                .collect(),
            addresses: addresses.map(IpNet::addr).collect(),
            gateways: gateways.collect(),
        }
    }

    /// What becomes of each, by number: observed in a role, or not and why.
    pub fn choose(
        &self,
        addresses: &impl Addresses,
    ) -> BTreeMap<IfIndex, Result<Role, Unobserved>> {
        let mut chosen: BTreeMap<_, _> = self
            .iter()
            .map(|(index, link)| (index, self.role(link, addresses)))
            .collect();
        let below: Vec<_> = chosen
            .iter()
            .filter(|(_, role)| **role == Ok(Role::Other))
            .filter_map(|(index, _)| Some((*index, self.observed_above(*index, &chosen)?)))
            .collect();
        for (index, above) in below {
            chosen.insert(index, Err(Unobserved::Below(above)));
        }
        chosen
    }

    /// The number of the one that has this name.
    pub fn find(&self, name: &str) -> Option<IfIndex> {
        self.iter()
            .find(|(_, link)| link.name == name)
            .map(|(index, _)| index)
    }

    /// The one of this number.
    pub fn get(&self, index: IfIndex) -> Option<&Link> {
        self.0.get(&index)
    }

    fn role(&self, link: &Link, addresses: &impl Addresses) -> Result<Role, Unobserved> {
        let is_uplink = link.is_uplink(addresses);
        match link {
            Link {
                kind: LinkKind::Loopback,
                ..
            } => Err(Unobserved::Loopback),
            Link {
                kind: LinkKind::Dummy,
                ..
            } => Err(Unobserved::Dummy),
            Link { up: false, .. } => Err(Unobserved::Down),
            Link {
                header: LinkHeader::Other(number),
                ..
            } => Err(Unobserved::LinkHeader(*number)),
            _ if is_uplink => Ok(Role::Uplink),
            Link {
                kind: LinkKind::Bridge,
                ..
            } => Err(Unobserved::Bridge),
            Link {
                kind: LinkKind::Tunnel,
                ..
            } => Ok(Role::Tunnel),
            Link {
                host_route: true, ..
            } => Ok(Role::PodFacing),
            _ if self.is_port_among_pods(link, addresses) => Ok(Role::PodFacing),
            _ => Ok(Role::Other),
        }
    }

    fn is_port_among_pods(&self, link: &Link, addresses: &impl Addresses) -> bool {
        let master = link.master.and_then(|master| self.get(master));
        master.is_some_and(|master| {
            master.kind == LinkKind::Bridge
                && master
                    .addresses
                    .iter()
                    .any(|network| addresses.is_pod(network.addr()))
        })
    }

    /// The name of an observed interface that all packets of this one pass too. The kernel lets
    /// interfaces be stacked eight high, and in no circle (`net/core/dev.c`, `MAX_NEST_DEV`).
    fn observed_above(
        &self,
        index: IfIndex,
        chosen: &BTreeMap<IfIndex, Result<Role, Unobserved>>,
    ) -> Option<String> {
        self.above(index)
            .find_map(|(above, link)| match chosen.get(&above) {
                Some(Ok(_)) => Some(link.name.clone()),
                Some(Err(_)) | None => self.observed_above(above, chosen),
            })
    }

    /// The bond or team that it is a member of, and what is stacked on it.
    fn above(&self, index: IfIndex) -> impl Iterator<Item = (IfIndex, &Link)> {
        let master = self.get(index).and_then(|link| link.master);
        self.iter().filter(move |(above, link)| match link.kind {
            LinkKind::Aggregate => master == Some(*above),
            LinkKind::Stacked => link.lower == Some(index),
            LinkKind::Plain
            | LinkKind::Bridge
            | LinkKind::Tunnel
            | LinkKind::Dummy
            | LinkKind::Loopback => false,
        })
    }
}

impl Link {
    /// The gateways that have a private address in a network of its own.
    fn neighbours(&self) -> impl Iterator<Item = IpAddr> {
        let is_private = |gateway: &IpAddr| match gateway {
            IpAddr::V4(gateway) => gateway.is_private(),
            IpAddr::V6(gateway) => gateway.is_unique_local(),
        };
        let is_near = |gateway: &IpAddr| self.addresses.iter().any(|its| its.contains(gateway));
        let gateways = self.gateways.iter().copied();
        gateways.filter(move |gateway| is_private(gateway) && is_near(gateway))
    }

    fn is_uplink(&self, addresses: &impl Addresses) -> bool {
        self.default_route
            || self
                .addresses
                .iter()
                .any(|network| addresses.is_node(network.addr()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink: it carries a default route or a Node's address",
            Self::PodFacing => "towards a pod: a host route or a bridge among pods leads there",
            Self::Tunnel => "tunnel: packets between nodes are wrapped here",
            Self::Other => "nothing speaks against it",
        })
    }
}

impl fmt::Display for Unobserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Dummy => f.write_str("a dummy carries no packets"),
            Self::Down => f.write_str("it is down"),
            Self::Bridge => f.write_str("a bridge that is no uplink: its ports are observed"),
            Self::Below(above) => write!(f, "its packets pass {above}, which is observed"),
            Self::LinkHeader(number) => {
                write!(f, "its link header (ARPHRD {number}) is not understood")
            }
        }
    }
}
