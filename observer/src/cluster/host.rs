//! Ports of nodes that lead to pods past any Service: pods in their node's network, and host
//! ports.
//!
//! A pod in its node's network has the node's addresses: nothing rewrites a packet to it. A host
//! port is a rule of the network plugin (`portmap`), which changes the destination and, for
//! clients outside, no source (CNI plugins, `plugins/meta/portmap/README`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ContainerPort;
use serde::Serialize;

use super::finding::Finding;
use super::workload::{Runs, Workload, label, name};
use super::{Objects, Protocol};

mod conflict;
mod room;

use super::convert::{container_ports, parse_ip, parse_port, parse_protocol};
use room::Room;

/// The label by which a namespace's Pods are refused (Kubernetes, Pod Security Admission).
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// A port of nodes that leads to a workload's pods past any Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostDoor {
    /// The workload: `DaemonSet ingress/nginx`.
    pub workload: String,
    /// Whether its pods are in their node's network; else it is a host port.
    pub host_network: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the node.
    pub port: u16,
    /// The port in the pod: the same in the node's network.
    pub container_port: u16,
    /// The only address of the node that has it; `None` for all.
    pub address: Option<IpAddr>,
    /// The nodes where its pods are or, of a `DaemonSet` without Pods, will be. Empty if no object
    /// tells.
    pub nodes: Vec<String>,
}

/// Those ports, and what is wrong with them.
pub fn doors(objects: &Objects) -> (Vec<HostDoor>, Vec<Finding>) {
    let room = Room::of(objects);
    let workloads = Workload::all(objects);
    let on_nodes: Vec<_> = workloads
        .iter()
        .filter_map(|workload| {
            // Scaled down, it takes nothing.
            if matches!(workload.runs, Runs::Replicas(..=0)) && workload.pods.is_empty() {
                return None;
            }
            let ports = ports(workload);
            (workload.host_network() || !ports.is_empty()).then_some((workload, ports))
        })
        .collect();
    let mut doors: Vec<_> = on_nodes
        .iter()
        .flat_map(|(workload, ports)| {
            let nodes = room.nodes_of(workload);
            ports.iter().map(move |port| HostDoor {
                workload: workload.to_string(),
                host_network: workload.host_network(),
                protocol: port.protocol,
                port: port.port,
                container_port: port.container_port,
                address: port.address,
                nodes: nodes.clone(),
            })
        })
        .collect();
    doors.sort_unstable();
    doors.dedup();
    let mut findings = conflict::conflicts(&on_nodes, &room);
    findings.extend(on_nodes.iter().filter_map(|(workload, _)| dns(workload)));
    findings.extend(forbidden(objects, &on_nodes));
    findings.sort_unstable();
    findings.dedup();
    (doors, findings)
}

/// A port of a node that a workload's pods take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostPort {
    protocol: Protocol,
    port: u16,
    container_port: u16,
    /// `None` for every address of the node.
    address: Option<IpAddr>,
}

impl HostPort {
    /// Of a container's port, if it takes one. In the node's network every port that is declared
    /// is one (`core/v1` `ContainerPort.hostPort`, which must then be the same).
    fn of(port: &ContainerPort, host_network: bool) -> Option<Self> {
        let container_port = parse_port(port.container_port)?;
        let on_node = port.host_port.and_then(parse_port);
        let address = port.host_ip.as_deref().and_then(parse_ip);
        Some(Self {
            protocol: parse_protocol(port.protocol.as_deref())?,
            port: if host_network {
                container_port
            } else {
                on_node?
            },
            container_port,
            address: address.filter(|address| !address.is_unspecified()),
        })
    }

    /// Whether both cannot be on one node (Kubernetes, `pkg/scheduler/framework/types.go`,
    /// `HostPortInfo.CheckConflict`).
    fn clashes(self, other: Self) -> bool {
        let overlap = match (self.address, other.address) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        overlap && (self.protocol, self.port) == (other.protocol, other.port)
    }
}

fn ports(workload: &Workload<'_>) -> Vec<HostPort> {
    container_ports(workload.spec)
        .filter_map(|port| HostPort::of(port, workload.host_network()))
        .collect()
}

/// A pod in its node's network that does not say otherwise asks the node's name servers
/// (Kubernetes, concepts/services-networking/dns-pod-service, "Pod's DNS Policy").
fn dns(workload: &Workload<'_>) -> Option<Finding> {
    let policy = workload.spec.dns_policy.as_deref();
    let falls_back = matches!(policy, None | Some("" | "ClusterFirst"));
    (workload.host_network() && falls_back).then(|| Finding::HostNetworkDnsPolicy {
        workload: workload.to_string(),
    })
}

/// Levels `baseline` and `restricted` refuse both (Kubernetes, Pod Security Standards, "Host
/// Namespaces" and "Host Ports").
fn forbidden(objects: &Objects, on_nodes: &[(&Workload<'_>, Vec<HostPort>)]) -> Vec<Finding> {
    let levels: std::collections::HashMap<_, _> = objects
        .around
        .namespaces
        .iter()
        .filter_map(|it| Some((name(&it.metadata), label(&it.metadata, ENFORCE)?)))
        .filter(|(_, level)| matches!(*level, "baseline" | "restricted"))
        .collect();
    let forbidden = |(workload, _): &(&Workload<'_>, Vec<HostPort>)| {
        let level = levels.get(workload.namespace)?;
        let what = if workload.host_network() {
            "hostNetwork"
        } else {
            "hostPort"
        };
        Some(Finding::PodSecurityForbids {
            namespace: workload.namespace.to_owned(),
            level: (*level).to_owned(),
            workload: workload.to_string(),
            what: what.to_owned(),
        })
    };
    on_nodes.iter().filter_map(forbidden).collect()
}
