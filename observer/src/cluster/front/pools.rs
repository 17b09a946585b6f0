//! `MetalLB`'s pools of addresses, and who announces them.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::around::Around;
use super::super::around::custom::{AdvertisementSpec, IpAddressPool, ServiceAllocation};
use super::super::convert::parse_ip;
use super::asked::Asked;
use super::labels::selects;

/// A pool, and what announces it.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    pub(super) name: &'a str,
    ranges: Vec<(IpAddr, IpAddr)>,
    /// Whether a Service gets an address of it without asking.
    is_for_all: bool,
    allocation: Option<&'a ServiceAllocation>,
    layer2: Vec<Advertisement<'a>>,
    bgp: Vec<Advertisement<'a>>,
}

/// One of either kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertisement<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    namespace: Option<&'a str>,
    spec: &'a AdvertisementSpec,
}

/// All pools.
pub(super) fn of(around: &Around) -> Vec<Pool<'_>> {
    let layer2: Vec<_> = around
        .l2_advertisements
        .iter()
        .map(|it| advertisement("L2Advertisement", &it.metadata, &it.spec))
        .collect();
    let bgp: Vec<_> = around
        .bgp_advertisements
        .iter()
        .map(|it| advertisement("BGPAdvertisement", &it.metadata, &it.spec))
        .collect();
    let pools = around.ip_address_pools.iter();
    pools
        .map(|pool| Pool {
            name: pool.metadata.name.as_deref().unwrap_or_default(),
            ranges: pool
                .spec
                .addresses
                .iter()
                .filter_map(|it| range(it))
                .collect(),
            is_for_all: pool.spec.auto_assign.unwrap_or(true),
            allocation: pool.spec.service_allocation.as_ref(),
            layer2: covering(&layer2, pool),
            bgp: covering(&bgp, pool),
        })
        .collect()
}

impl Advertisement<'_> {
    /// Whether no node is chosen (website, `content/configuration/_advanced_l2_configuration.md`,
    /// "Limiting the set of nodes where the service can be announced from").
    pub(super) const fn is_by_all_nodes(&self) -> bool {
        self.spec.node_selectors.is_empty()
    }

    /// Whether a node that is chosen may announce.
    pub(super) fn is_by(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        let selectors = &self.spec.node_selectors;
        selectors.iter().any(|selector| selects(selector, labels))
    }
}

fn covering<'a>(all: &[Advertisement<'a>], pool: &IpAddressPool) -> Vec<Advertisement<'a>> {
    all.iter().filter(|it| it.covers(pool)).copied().collect()
}

fn advertisement<'a>(
    kind: &'static str,
    metadata: &'a ObjectMeta,
    spec: &'a AdvertisementSpec,
) -> Advertisement<'a> {
    Advertisement {
        kind,
        name: metadata.name.as_deref().unwrap_or_default(),
        namespace: metadata.namespace.as_deref(),
        spec,
    }
}

impl Advertisement<'_> {
    /// Whether it announces a pool: named, selected by its labels, or because it names and selects
    /// none (`internal/config/config.go`, `setL2AdvertisementsToPools`).
    fn covers(&self, pool: &IpAddressPool) -> bool {
        let spec = self.spec;
        // MetalLB reads those of its own namespace only.
        let is_near = match (self.namespace, pool.metadata.namespace.as_deref()) {
            (Some(its), Some(pools)) => its == pools,
            _ => true,
        };
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let labels = pool.metadata.labels.as_ref();
        let is_meant = (spec.ip_address_pools.is_empty()
            && spec.ip_address_pool_selectors.is_empty())
            || spec.ip_address_pools.iter().any(|its| its == name)
            || spec
                .ip_address_pool_selectors
                .iter()
                .any(|it| selects(it, labels));
        is_near && is_meant
    }

    fn is_for(&self, asked: Asked<'_>) -> bool {
        let selectors = &self.spec.service_selectors;
        let labels = asked.service().metadata.labels.as_ref();
        selectors.is_empty() || selectors.iter().any(|it| selects(it, labels))
    }
}

impl Pool<'_> {
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        // Addresses of another family are smaller or greater as a whole.
        ranges
            .any(|(first, last)| (*first..=*last).contains(&ip) && first.is_ipv4() == ip.is_ipv4())
    }

    /// Whether a Service that asks for none may get an address of it.
    pub(super) fn may_serve(&self, asked: Asked<'_>) -> bool {
        self.is_for_all && self.allocation.is_none_or(|it| may_serve(it, asked))
    }

    /// Who announces the Service's address by layer 2.
    pub(super) fn layer2(&self, asked: Asked<'_>) -> impl Iterator<Item = &Advertisement<'_>> {
        self.layer2.iter().filter(move |it| it.is_for(asked))
    }

    /// Who announces it by BGP.
    pub(super) fn bgp(&self, asked: Asked<'_>) -> impl Iterator<Item = &Advertisement<'_>> {
        self.bgp.iter().filter(move |it| it.is_for(asked))
    }
}

/// Whether a pool may be for a Service. Which namespaces selectors take is not looked up.
fn may_serve(allocation: &ServiceAllocation, asked: Asked<'_>) -> bool {
    let ServiceAllocation {
        namespaces,
        namespace_selectors,
        service_selectors,
    } = allocation;
    let (namespace, _) = asked.key();
    let labels = asked.service().metadata.labels.as_ref();
    let is_elsewhere = !namespaces.is_empty()
        && namespace_selectors.is_empty()
        && !namespaces.iter().any(|its| its == namespace);
    let is_another =
        !service_selectors.is_empty() && !service_selectors.iter().any(|it| selects(it, labels));
    !is_elsewhere && !is_another
}

/// The first and the last address of a CIDR, or of a range with a hyphen.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        return Some((parse_ip(first)?, parse_ip(last)?));
    }
    let net: IpNet = text.trim().parse().ok()?;
    let first = net.network();
    Some((first, net.broadcast()))
}
