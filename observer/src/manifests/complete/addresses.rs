//! Addresses that nothing has yet, of networks that nobody has.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::cluster::{Family, Objects};

/// The addresses that are taken.
pub(super) struct Addresses {
    taken: HashSet<IpAddr>,
    /// Of each network, how many of its first addresses were looked at.
    looked_at: HashMap<IpNet, u32>,
}

/// More of one network are not looked at.
const LOOKED_AT_MAX: u32 = 1 << 20;

impl Addresses {
    /// Those that the objects have.
    pub(super) fn of(objects: &Objects) -> Self {
        let mut texts: Vec<&str> = Vec::new();
        for node in &objects.nodes {
            let status = node.status.iter();
            let addresses = status.flat_map(|status| status.addresses.iter().flatten());
            texts.extend(addresses.map(|address| &*address.address));
        }
        for pod in &objects.pods {
            let status = pod.status.iter();
            let ips = status.flat_map(|status| status.pod_ips.iter().flatten());
            texts.extend(ips.map(|ip| &*ip.ip));
            texts.extend(
                pod.status
                    .iter()
                    .filter_map(|status| status.pod_ip.as_deref()),
            );
        }
        for slice in &objects.endpoint_slices {
            let endpoints = slice.endpoints.iter().flatten();
            texts.extend(endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(|ip| &**ip)));
        }
        for service in &objects.services {
            let Some(spec) = &service.spec else { continue };
            texts.extend(spec.cluster_ip.as_deref());
            texts.extend(spec.load_balancer_ip.as_deref());
            let lists = [&spec.cluster_ips, &spec.external_ips];
            texts.extend(lists.into_iter().flatten().flatten().map(|ip| &**ip));
            let status = service.status.iter();
            let ingress = status
                .filter_map(|status| status.load_balancer.as_ref())
                .flat_map(|status| status.ingress.iter().flatten());
            texts.extend(ingress.filter_map(|ingress| ingress.ip.as_deref()));
        }
        Self {
            taken: texts.into_iter().filter_map(|ip| ip.parse().ok()).collect(),
            looked_at: HashMap::new(),
        }
    }

    /// The first free one of a network, from this place in it on. None if it is full.
    pub(super) fn take(&mut self, network: IpNet, from: u32) -> Option<IpAddr> {
        let looked_at = self.looked_at.entry(network).or_insert(from);
        while *looked_at < LOOKED_AT_MAX {
            let ip = nth(network, *looked_at)?;
            *looked_at += 1;
            if self.taken.insert(ip) {
                return Some(ip);
            }
        }
        None
    }
}

/// An address of a network, from 0 on.
fn nth(network: IpNet, place: u32) -> Option<IpAddr> {
    let ip = match network.network() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip).checked_add(place)?)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip).checked_add(place.into())?)),
    };
    network.contains(&ip).then_some(ip)
}

/// A network written in this file's neighbours.
pub(super) fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length)
        .unwrap_or(IpNet::from(address))
        .trunc()
}

/// Nodes': of documentation (RFC 5737, RFC 3849).
pub(super) fn of_nodes(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(192, 0, 2, 0).into(), 24),
        Family::V6 => network(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).into(), 64),
    }
}

/// Nodes', if the first are all taken: of benchmarks (RFC 2544), and of documentation.
pub(super) fn of_more_nodes(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(198, 18, 0, 0).into(), 16),
        Family::V6 => network(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0).into(), 64),
    }
}

/// Services': kubeadm's own, and its like.
pub(super) fn of_services(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(10, 96, 0, 0).into(), 12),
        Family::V6 => network(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0).into(), 108),
    }
}

/// Load balancers': of documentation.
pub(super) fn of_load_balancers(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(198, 51, 100, 0).into(), 24),
        Family::V6 => network(
            Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0).into(),
            64,
        ),
    }
}

/// Load balancers', if the first are all taken: of benchmarks.
pub(super) fn of_more_load_balancers(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(198, 19, 0, 0).into(), 16),
        Family::V6 => of_load_balancers(family),
    }
}

/// The pods' of a node of which none is said.
pub(super) fn of_pods(family: Family, node: u16) -> IpNet {
    let [high, low] = node.to_be_bytes();
    match family {
        Family::V4 => network(
            Ipv4Addr::new(10, 244_u8.wrapping_add(high), low, 0).into(),
            24,
        ),
        Family::V6 => network(Ipv6Addr::new(0xfd00, 0x244, 0, node, 0, 0, 0, 0).into(), 64),
    }
}
