//! Pods: those that workloads would make, on nodes that would take them; and what Pods lack until
//! they run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{
    HostIP, Node, Pod, PodCondition, PodIP, PodSpec, PodStatus, Service, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::addresses::{self, Addresses};
use super::endpoints::services_with_slices;
use super::nodes::{families, own_addresses};
use super::{Assumption, Workload, has, name_of, selects, workloads};
use crate::cluster::{Family, Objects};

/// An address of a node's network from which on pods get theirs.
const FIRST: u32 = 10;

/// Adds the Pods of workloads, and lets given ones run.
pub(super) fn add(objects: &mut Objects, addresses: &mut Addresses, assumed: &mut Vec<Assumption>) {
    let mut made = Vec::new();
    let with_slices = services_with_slices(objects);
    let known: Vec<&Service> = objects
        .services
        .iter()
        .filter(|service| with_slices.contains(&name_of(&service.metadata)))
        .collect();
    for workload in workloads(objects) {
        let its = workload.metadata.namespace.as_deref();
        let is_known = known
            .iter()
            .any(|service| selects(service, its, workload.labels()));
        if is_known || has_pods(&workload, &objects.pods) {
            continue;
        }
        let pods = pods_of(&workload, &objects.nodes);
        let nodes: Vec<_> = pods
            .iter()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .collect();
        if !nodes.is_empty() {
            assumed.push(Assumption::Pods {
                workload: format!("{} {}", workload.kind, name_of(workload.metadata)),
                nodes: nodes.join(", "),
            });
        }
        made.extend(pods);
    }
    let mut pods = std::mem::take(&mut objects.pods);
    for pod in pods.iter_mut().filter(|pod| is_manifest(pod)) {
        let spec = pod.spec.get_or_insert_default();
        if spec.node_name.is_none()
            && let Some(node) = fitting(spec, &objects.nodes).first()
        {
            spec.node_name = node.metadata.name.clone();
            assumed.push(Assumption::Pods {
                workload: format!("Pod {}", name_of(&pod.metadata)),
                nodes: node.metadata.name.clone().unwrap_or_default(),
            });
        }
    }
    pods.extend(made);
    run(&mut pods, &objects.nodes, addresses);
    objects.pods = pods;
}

/// Lets Pods run that nothing is known of but where.
pub(super) fn run(pods: &mut [Pod], nodes: &[Node], addresses: &mut Addresses) {
    let families = families(nodes);
    let by_name: BTreeMap<_, _> = nodes
        .iter()
        .zip(0..)
        .map(|(node, number)| (node.metadata.name.as_deref(), (node, number)))
        .collect();
    for pod in pods.iter_mut().filter(|pod| is_manifest(pod)) {
        let Some(spec) = &pod.spec else { continue };
        let Some(&(node, number)) = by_name.get(&spec.node_name.as_deref()) else {
            continue;
        };
        let host = of_families(&own_addresses(node), &families);
        let ips = if spec.host_network == Some(true) {
            host.clone()
        } else {
            let networks = families
                .iter()
                .map(|family| pod_network(node, number, *family));
            let networks: Vec<_> = networks.collect();
            networks
                .into_iter()
                .filter_map(|network| addresses.take(network, FIRST))
                .collect()
        };
        pod.status = Some(running(&ips, &host));
    }
}

/// Whether it is a Pod of which the cluster has said nothing yet.
fn is_manifest(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_none_or(|status| status.phase.is_none() && status.pod_ip.is_none())
}

fn of_families(all: &[IpAddr], families: &[Family]) -> Vec<IpAddr> {
    let first = |family: &Family| all.iter().copied().find(|ip| Family::of(*ip) == *family);
    families.iter().filter_map(first).collect()
}

/// The network of a node's pods in a family: its own, or one that nobody has.
fn pod_network(node: &Node, number: u16, family: Family) -> IpNet {
    let spec = node.spec.iter();
    let mut own = spec
        .flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr))
        .filter_map(|network| network.parse::<IpNet>().ok())
        .filter(|network| Family::of(network.addr()) == family);
    own.next().map_or_else(
        || addresses::of_pods(family, number),
        |network| network.trunc(),
    )
}

fn running(ips: &[IpAddr], host: &[IpAddr]) -> PodStatus {
    let ip = |ip: &IpAddr| PodIP { ip: ip.to_string() };
    let host_ip = |ip: &IpAddr| HostIP { ip: ip.to_string() };
    PodStatus {
        phase: Some("Running".to_owned()),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: Some(ips.iter().map(ip).collect()),
        host_ip: host.first().map(ToString::to_string),
        host_ips: Some(host.iter().map(host_ip).collect()),
        conditions: Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    }
}

/// Whether Pods of a workload are given: it selects them, or they say that they are its.
fn has_pods(workload: &Workload<'_>, pods: &[Pod]) -> bool {
    let no_labels = BTreeMap::new();
    let wanted = workload
        .selector
        .match_labels
        .as_ref()
        .unwrap_or(&no_labels);
    let is_its = |pod: &Pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let is_owner = |owner: &OwnerReference| {
            owner.kind == workload.kind && Some(&owner.name) == workload.metadata.name.as_ref()
        };
        !wanted.is_empty() && has(pod.metadata.labels.as_ref(), wanted) || owners.any(is_owner)
    };
    pods.iter()
        .any(|pod| pod.metadata.namespace == workload.metadata.namespace && is_its(pod))
}

/// The Pods that a workload would make: a `DaemonSet` one on each node that takes it, the others
/// on the first half of those nodes, so that there are nodes without one.
fn pods_of(workload: &Workload<'_>, nodes: &[Node]) -> Vec<Pod> {
    let spec = workload.template.spec.clone().unwrap_or_default();
    let nodes = fitting(&spec, nodes);
    let number = match workload.replicas {
        None => nodes.len(),
        Some(replicas) => replicas.min((nodes.len() / 2).max(1)),
    };
    let place = |(number, node): (usize, &&Node)| {
        let mut spec = spec.clone();
        spec.node_name.clone_from(&node.metadata.name);
        pod(workload, number, spec)
    };
    (1..).zip(&nodes).take(number).map(place).collect()
}

fn pod(workload: &Workload<'_>, number: usize, spec: PodSpec) -> Pod {
    let name = workload.metadata.name.as_deref().unwrap_or_default();
    let template = workload.template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(assumed_name(name, number)),
            namespace: workload.metadata.namespace.clone(),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: workload.kind.to_owned(),
                name: name.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            labels: template.labels,
            annotations: template.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The name of a Pod that is assumed.
pub(super) fn assumed_name(of: &str, number: usize) -> String {
    format!("{of}-assumed-{number}")
}

/// The nodes that would take a Pod: by name, by labels, by taints. If none would, all: manifests
/// say little of nodes.
fn fitting<'a>(spec: &PodSpec, nodes: &'a [Node]) -> Vec<&'a Node> {
    let no_labels = BTreeMap::new();
    let wanted = spec.node_selector.as_ref().unwrap_or(&no_labels);
    let is_named = |node: &Node| {
        let name = spec.node_name.as_deref().filter(|name| !name.is_empty());
        name.is_none() || name == node.metadata.name.as_deref()
    };
    let fits = |node: &&Node| {
        is_named(node) && has(node.metadata.labels.as_ref(), wanted) && tolerates(spec, node)
    };
    let fitting: Vec<_> = nodes.iter().filter(fits).collect();
    if !fitting.is_empty() {
        return fitting;
    }
    let mut seen = BTreeSet::new();
    let named = nodes.iter().filter(|node| is_named(node));
    named
        .filter(|node| seen.insert(&node.metadata.name))
        .collect()
}

/// Whether a Pod bears the taints of a node that keep Pods away.
fn tolerates(spec: &PodSpec, node: &Node) -> bool {
    let taints = node.spec.iter();
    let mut taints = taints.flat_map(|spec| spec.taints.iter().flatten());
    taints.all(|taint| {
        taint.effect == "PreferNoSchedule"
            || spec
                .tolerations
                .iter()
                .flatten()
                .any(|toleration| bears(toleration, taint))
    })
}

/// `k8s.io/api/core/v1`, `Toleration.ToleratesTaint`.
fn bears(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    let is_any = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() && is_any || key == taint.key)
        && (is_any || text(&toleration.value) == text(&taint.value))
}
