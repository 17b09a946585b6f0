//! Interfaces as route netlink tells them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteVia,
};
use rtnetlink::{RouteMessageBuilder, new_connection};

use super::{Link, LinkHeader, LinkKind, Links};
use crate::observation::IfIndex;

/// The kernel would not tell of its interfaces.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// No netlink socket.
    #[error("cannot open a route netlink socket")]
    Socket(#[source] io::Error),
    /// A dump failed.
    #[error("cannot list the {what} of this network namespace")]
    Dump {
        /// Of what.
        what: &'static str,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
}

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
        let messages: Vec<_> = handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("interfaces"))?;
        let mut links: BTreeMap<_, _> = messages
            .into_iter()
            .map(|message| (IfIndex(message.header.index), link(message)))
            .collect();
        let messages: Vec<_> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("addresses"))?;
        for message in &messages {
            if let Some(link) = links.get_mut(&IfIndex(message.header.index)) {
                link.addresses.extend(address(message));
            }
        }
        for family in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
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
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        up: message.header.flags.contains(LinkFlags::Up),
        header: header(message.header.link_layer_type),
        ..Link::default()
    };
    if message.header.flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    }
    // The number of an interface in another network namespace says nothing here.
    let mut lower_is_elsewhere = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.master = Some(IfIndex(index)),
            LinkAttribute::Link(index) => link.lower = Some(IfIndex(index)),
            LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = self::kind(&kind);
                    }
                }
            }
            _ => {}
        }
    }
    if lower_is_elsewhere {
        link.lower = None;
    }
    link
}

fn kind(kind: &InfoKind) -> LinkKind {
    match kind {
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Bond | InfoKind::Team => LinkKind::Aggregate,
        InfoKind::Vlan
        | InfoKind::MacVlan
        | InfoKind::MacVtap
        | InfoKind::IpVlan
        | InfoKind::IpVtap
        | InfoKind::MacSec => LinkKind::Stacked,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::Wireguard => LinkKind::Tunnel,
        InfoKind::Dummy => LinkKind::Dummy,
        _ => LinkKind::Plain,
    }
}

fn header(kind: LinkLayerType) -> LinkHeader {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => LinkHeader::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre => LinkHeader::None,
        other => LinkHeader::Other(other.into()),
    }
}

fn address(message: &AddressMessage) -> Option<IpNet> {
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
    let address: IpAddr = address.or_else(|| attributes.iter().find_map(only))?;
    IpNet::new(address, message.header.prefix_len).ok()
}

/// The address of the next hop; one of the other family too (RFC 5549).
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address))
        | RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn add_route(links: &mut BTreeMap<IfIndex, Link>, message: &RouteMessage) {
    // Local and broadcast addresses have routes too, in a table of their own.
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return;
    }
    let mut hops = Vec::new();
    let mut gateway = false;
    let mut via = None;
    let mut destination = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => hops.push((IfIndex(*index), None)),
            RouteAttribute::MultiPath(paths) => {
                gateway = true;
                hops.extend(paths.iter().map(|path| {
                    let via = path.attributes.iter().find_map(self::gateway);
                    (IfIndex(path.interface_index), via)
                }));
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => {
                gateway = true;
                via = self::gateway(attribute);
            }
            RouteAttribute::Destination(address) => destination = Some(address),
            _ => {}
        }
    }
    let whole = match destination {
        Some(RouteAddress::Inet(_)) => 32,
        Some(RouteAddress::Inet6(_)) => 128,
        _ => 0,
    };
    let length = message.header.destination_prefix_length;
    for (hop, its) in hops {
        if let Some(link) = links.get_mut(&hop) {
            if length == 0 {
                link.default_route = true;
                link.gateways.extend(its.or(via));
            }
            link.host_route |= whole != 0 && length == whole && !gateway;
        }
    }
}
