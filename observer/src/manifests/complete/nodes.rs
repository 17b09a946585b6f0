//! Nodes, where none are given; and what they lack.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Assumption;
use super::addresses::{self, Addresses};
use crate::cluster::around::assumed;
use crate::cluster::{Family, Objects};

/// The nodes of a cluster of which nothing is known.
const NAMES: [&str; 2] = ["node-a", "node-b"];
/// The first of them has this address of its network.
const FIRST: u32 = 11;
const INTERNAL_IP: &str = "InternalIP";

/// Adds Nodes if there are none, and addresses where one has none.
pub(super) fn add(objects: &mut Objects, addresses: &mut Addresses, assumed: &mut Vec<Assumption>) {
    if objects.nodes.is_empty() {
        let names = names(objects);
        assumed.push(Assumption::Nodes {
            nodes: names.iter().cloned().collect::<Vec<_>>().join(", "),
        });
        let families = wanted(objects);
        for (number, name) in (0..).zip(names) {
            objects.nodes.push(node(name, number, &families, addresses));
        }
        return;
    }
    let given = families(&objects.nodes);
    for node in &mut objects.nodes {
        if !own_addresses(node).is_empty() {
            continue;
        }
        let all: Vec<_> = given
            .iter()
            .filter_map(|family| address(*family, addresses))
            .collect();
        for ip in &all {
            assumed.push(Assumption::NodeAddress {
                node: node.metadata.name.clone().unwrap_or_default(),
                ip: ip.to_string(),
            });
        }
        let status = node.status.get_or_insert_default();
        status.addresses = Some(all.into_iter().map(internal).collect());
    }
}

/// Those that other objects name, and at least two.
fn names(objects: &Objects) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for slice in &objects.endpoint_slices {
        let endpoints = slice.endpoints.iter().flatten();
        names.extend(endpoints.filter_map(|endpoint| endpoint.node_name.clone()));
    }
    for pod in &objects.pods {
        names.extend(pod.spec.iter().filter_map(|spec| spec.node_name.clone()));
    }
    names.retain(|name| !name.is_empty());
    for name in NAMES {
        if names.len() < NAMES.len() {
            names.insert(name.to_owned());
        }
    }
    names
}

fn node(name: String, number: u16, families: &[Family], addresses: &mut Addresses) -> Node {
    let all = families
        .iter()
        .filter_map(|family| address(*family, addresses));
    let all: Vec<_> = all.map(internal).collect();
    let pods = families
        .iter()
        .map(|family| addresses::of_pods(*family, number).to_string());
    let pods: Vec<_> = pods.collect();
    Node {
        metadata: assumed(ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec {
            pod_cidr: pods.first().cloned(),
            pod_cidrs: Some(pods),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            addresses: Some(all),
            ..NodeStatus::default()
        }),
    }
}

fn internal(ip: IpAddr) -> NodeAddress {
    NodeAddress {
        address: ip.to_string(),
        type_: INTERNAL_IP.to_owned(),
    }
}

fn address(family: Family, addresses: &mut Addresses) -> Option<IpAddr> {
    addresses
        .take(addresses::of_nodes(family), FIRST)
        .or_else(|| addresses.take(addresses::of_more_nodes(family), 1))
}

/// IPv4, and IPv6 too if a Service asks for it.
fn wanted(objects: &Objects) -> Vec<Family> {
    let asks = |spec: &ServiceSpec| {
        let families = spec.ip_families.iter().flatten();
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        families.into_iter().any(|family| family == "IPv6")
            || spec.ip_family_policy.as_deref() == Some("RequireDualStack")
            || ips.into_iter().any(|ip| ip.contains(':'))
    };
    let services = objects.services.iter();
    let mut specs = services.filter_map(|service| service.spec.as_ref());
    if specs.any(asks) {
        vec![Family::V4, Family::V6]
    } else {
        vec![Family::V4]
    }
}

/// The families of nodes' addresses; IPv4 if they have none.
pub(super) fn families(nodes: &[Node]) -> Vec<Family> {
    let all = nodes.iter().flat_map(own_addresses).map(Family::of);
    let families: BTreeSet<_> = all.collect();
    if families.is_empty() {
        return vec![Family::V4];
    }
    families.into_iter().collect()
}

/// A Node's addresses, those inside the cluster first.
pub(super) fn own_addresses(node: &Node) -> Vec<IpAddr> {
    let status = node.status.iter();
    let mut all: Vec<_> = status
        .flat_map(|status| status.addresses.iter().flatten())
        .collect();
    all.sort_by_key(|address| address.type_ != INTERNAL_IP);
    let all = all.into_iter();
    all.filter_map(|address| address.address.parse().ok())
        .collect()
}
