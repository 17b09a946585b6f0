//! The node's interfaces, and which of them to observe.
//!
//! Chosen by addresses and routes, never by name or kind: the uplink carries a default route or
//! a Node address; a pod-facing interface has a host route through it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{RouteMessageBuilder, new_connection};

use crate::observation::IfIndex;

/// The kernel would not tell of its interfaces.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// No netlink socket.
    #[error("cannot open a route netlink socket")]
    Socket(#[source] std::io::Error),
    /// A dump failed.
    #[error("cannot list the {what} of this network namespace")]
    Dump {
        /// Of what.
        what: &'static str,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
}

/// Why an interface is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Towards clients and other nodes.
    Uplink,
    /// Towards a pod.
    PodFacing,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether a default route leads through it.
    pub default_route: bool,
    /// Whether a route to a single address leads through it, to a neighbour on it.
    pub host_route: bool,
}

/// All interfaces of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<IfIndex, Link>);

impl Links {
    /// Reads those of the calling thread's network namespace.
    pub async fn read() -> Result<Self, LinksError> {
        let (connection, handle, _) = new_connection().map_err(LinksError::Socket)?;
        let task = tokio::spawn(connection);
        let links = Self::dump(&handle).await;
        task.abort();
        links
    }

    async fn dump(handle: &rtnetlink::Handle) -> Result<Self, LinksError> {
        let failed = |what| {
            move |source| LinksError::Dump {
                what,
                source: Box::new(source),
            }
        };
        let mut links = BTreeMap::<IfIndex, Link>::new();
        let messages: Vec<_> = handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("interfaces"))?;
        for message in messages {
            let link = links.entry(IfIndex(message.header.index)).or_default();
            link.loopback = message.header.flags.contains(LinkFlags::Loopback);
            for attribute in message.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    link.name = name;
                }
            }
        }
        let messages: Vec<_> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("addresses"))?;
        for message in messages {
            let Some(link) = links.get_mut(&IfIndex(message.header.index)) else {
                continue;
            };
            // Of a point-to-point interface, `Address` is the peer's and `Local` its own.
            let own = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            };
            let only = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            };
            let attributes = &message.attributes;
            let address = attributes.iter().find_map(own);
            link.addresses
                .extend(address.or_else(|| attributes.iter().find_map(only)));
        }
        for family in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let messages: Vec<_> = handle
                .route()
                .get(family)
                .execute()
                .try_collect()
                .await
                .map_err(failed("routes"))?;
            for message in &messages {
                add_route(&mut links, message);
            }
        }
        Ok(Self(links))
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (IfIndex, &Link)> {
        self.0.iter().map(|(index, link)| (*index, link))
    }

    /// Their names.
    pub fn names(&self) -> HashMap<IfIndex, String> {
        self.iter()
            .map(|(index, link)| (index, link.name.clone()))
            .collect()
    }

    /// The addresses of all.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0
            .values()
            .flat_map(|link| link.addresses.iter().copied())
    }

    /// Those to observe, and why, uplinks first. `node_addresses`: what the cluster calls nodes.
    pub fn chosen(&self, node_addresses: impl Fn(IpAddr) -> bool) -> Vec<(&str, Role)> {
        let mut chosen: Vec<_> = self
            .0
            .values()
            .filter_map(|link| Some((link.name.as_str(), link.role(&node_addresses)?)))
            .collect();
        chosen.sort_by_key(|(_, role)| *role);
        chosen
    }

    /// Whether one has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.values().any(|link| link.name == name)
    }
}

impl Link {
    fn role(&self, is_node_address: impl Fn(IpAddr) -> bool) -> Option<Role> {
        if self.loopback {
            None
        } else if self.default_route || self.addresses.iter().any(|ip| is_node_address(*ip)) {
            Some(Role::Uplink)
        } else {
            self.host_route.then_some(Role::PodFacing)
        }
    }
}

fn add_route(links: &mut BTreeMap<IfIndex, Link>, message: &RouteMessage) {
    // Local and broadcast addresses have routes too, in a table of their own.
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return;
    }
    let mut link = None;
    let mut gateway = false;
    let mut destination = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(IfIndex(*index)),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = true,
            RouteAttribute::Destination(address) => destination = Some(address),
            _ => {}
        }
    }
    let Some(link) = link.and_then(|index| links.get_mut(&index)) else {
        return;
    };
    let whole = match destination {
        Some(RouteAddress::Inet(_)) => 32,
        Some(RouteAddress::Inet6(_)) => 128,
        _ => 0,
    };
    let length = message.header.destination_prefix_length;
    if length == 0 {
        link.default_route = true;
    }
    link.host_route |= whole != 0 && length == whole && !gateway;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Link {
        Link {
            name: name.to_owned(),
            ..Link::default()
        }
    }

    fn links(links: impl IntoIterator<Item = Link>) -> Links {
        Links((1..).map(IfIndex).zip(links).collect())
    }

    #[test]
    fn roles_come_from_addresses_and_routes() {
        let node: IpAddr = "172.31.0.11".parse().unwrap();
        let links = links([
            Link {
                loopback: true,
                default_route: true,
                ..link("lo")
            },
            Link {
                host_route: true,
                ..link("cali1")
            },
            Link {
                addresses: vec![node],
                ..link("ens5")
            },
            Link {
                default_route: true,
                ..link("ens6")
            },
            link("spare"),
        ]);
        assert_eq!(
            links.chosen(|ip| ip == node),
            [
                ("ens5", Role::Uplink),
                ("ens6", Role::Uplink),
                ("cali1", Role::PodFacing)
            ]
        );
    }
}
