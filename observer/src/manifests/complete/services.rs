//! What the API server adds to a Service: defaults (`pkg/apis/core/v1/defaults.go`), cluster IPs,
//! node ports (`pkg/registry/core/service/storage/alloc.go`); and what a load balancer's
//! controller adds: an address.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses::{self, Addresses};
use super::{Assumption, name_of};
use crate::cluster::{Family, Objects};

/// The first node port (`--service-node-port-range`).
const FIRST_NODE_PORT: u16 = 30_000;
/// The first cluster IP is the API server's, and the tenth by custom DNS'.
const FIRST_CLUSTER_IP: u32 = 11;
const FIRST_LOAD_BALANCER: u32 = 7;

/// Completes all Services, in a cluster of these families.
pub(super) fn complete(
    objects: &mut Objects,
    families: &[Family],
    addresses: &mut Addresses,
    assumed: &mut Vec<Assumption>,
) {
    let mut ports = NodePorts::of(&objects.services);
    for service in &mut objects.services {
        let name = name_of(&service.metadata);
        let Some(spec) = &mut service.spec else {
            continue;
        };
        defaults(spec);
        if spec.type_.as_deref() == Some("ExternalName") {
            continue;
        }
        let families = families_of(spec, families);
        cluster_ips(&name, spec, &families, addresses, assumed);
        node_ports(&name, spec, &mut ports, assumed);
        load_balancer(&name, service, &families, addresses, assumed);
    }
}

/// Gives node ports to what has become a Service that has them.
pub(super) fn allocate(objects: &mut Objects) -> Vec<Assumption> {
    let mut assumed = Vec::new();
    let mut ports = NodePorts::of(&objects.services);
    for service in &mut objects.services {
        let name = name_of(&service.metadata);
        if let Some(spec) = &mut service.spec {
            node_ports(&name, spec, &mut ports, &mut assumed);
        }
    }
    assumed
}

fn is(value: Option<&String>, word: &str) -> bool {
    value.is_some_and(|value| value == word)
}

/// Sets a word that is not there.
fn or_else(value: &mut Option<String>, word: &str) {
    if value.as_ref().is_none_or(String::is_empty) {
        *value = Some(word.to_owned());
    }
}

fn defaults(spec: &mut ServiceSpec) {
    or_else(&mut spec.type_, "ClusterIP");
    or_else(&mut spec.session_affinity, "None");
    let kind = spec.type_.clone().unwrap_or_default();
    let has_external_ips = spec.external_ips.iter().flatten().next().is_some();
    if matches!(&*kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && has_external_ips {
        or_else(&mut spec.external_traffic_policy, "Cluster");
    }
    if kind != "ExternalName" {
        or_else(&mut spec.internal_traffic_policy, "Cluster");
    }
    for port in spec.ports.iter_mut().flatten() {
        or_else(&mut port.protocol, "TCP");
        let is_unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::Int(_)) => false,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        if is_unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
}

/// The families that a Service will be in.
fn families_of(spec: &ServiceSpec, of_cluster: &[Family]) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let mut families: Vec<_> = named
        .filter_map(|family| match &**family {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let ips = ips.filter_map(|ip| ip.parse().ok());
        families = ips.map(Family::of).collect();
    }
    let mut seen = HashSet::new();
    families.retain(|family| seen.insert(*family));
    let is_dual = matches!(
        spec.ip_family_policy.as_deref(),
        Some("PreferDualStack" | "RequireDualStack")
    );
    for family in of_cluster {
        if (is_dual || families.is_empty()) && !families.contains(family) {
            families.push(*family);
        }
    }
    families
}

fn cluster_ips(
    name: &str,
    spec: &mut ServiceSpec,
    families: &[Family],
    addresses: &mut Addresses,
    assumed: &mut Vec<Assumption>,
) {
    let words = families.iter().map(ToString::to_string).collect();
    spec.ip_families.get_or_insert(words);
    let given: Vec<String> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter(|ip| !ip.is_empty())
        .cloned()
        .collect();
    if given.iter().any(|ip| ip == "None") {
        spec.cluster_ip = Some("None".to_owned());
        return;
    }
    let mut all: Vec<IpAddr> = given.iter().filter_map(|ip| ip.parse().ok()).collect();
    let mut seen = HashSet::new();
    all.retain(|ip| seen.insert(*ip));
    let mut added = Vec::new();
    for family in families {
        if all.iter().any(|ip| Family::of(*ip) == *family) {
            continue;
        }
        let network = addresses::of_services(*family);
        if let Some(ip) = addresses.take(network, FIRST_CLUSTER_IP) {
            all.push(ip);
            added.push(ip.to_string());
        }
    }
    if !added.is_empty() {
        assumed.push(Assumption::ClusterIp {
            service: name.to_owned(),
            ips: added.join(", "),
        });
    }
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    spec.cluster_ip = all.first().cloned();
    spec.cluster_ips = Some(all);
}

/// Node ports that are taken.
struct NodePorts(HashSet<u16>);

impl NodePorts {
    fn of(services: &[Service]) -> Self {
        let specs = services.iter().filter_map(|service| service.spec.as_ref());
        let ports = specs.flat_map(|spec| {
            let ports = spec.ports.iter().flatten();
            let ports = ports.filter_map(|port| port.node_port);
            ports.chain(spec.health_check_node_port)
        });
        Self(ports.filter_map(|port| u16::try_from(port).ok()).collect())
    }

    fn take(&mut self) -> Option<i32> {
        let port = (FIRST_NODE_PORT..=u16::MAX).find(|port| !self.0.contains(port))?;
        self.0.insert(port);
        Some(i32::from(port))
    }
}

fn node_ports(
    name: &str,
    spec: &mut ServiceSpec,
    taken: &mut NodePorts,
    assumed: &mut Vec<Assumption>,
) {
    let is_load_balancer = is(spec.type_.as_ref(), "LoadBalancer");
    let gets_them = is(spec.type_.as_ref(), "NodePort")
        || is_load_balancer && spec.allocate_load_balancer_node_ports != Some(false);
    let is_without = |port: &&mut ServicePort| port.node_port.unwrap_or_default() == 0;
    let ports = spec.ports.iter_mut().flatten();
    for port in ports.filter(is_without).filter(|_| gets_them) {
        let Some(node_port) = taken.take() else { break };
        port.node_port = Some(node_port);
        assumed.push(Assumption::NodePort {
            service: name.to_owned(),
            port: port
                .name
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| port.port.to_string()),
            node_port: node_port.to_string(),
        });
    }
    let is_checked = is_load_balancer && is(spec.external_traffic_policy.as_ref(), "Local");
    if is_checked
        && spec.health_check_node_port.unwrap_or_default() == 0
        && let Some(node_port) = taken.take()
    {
        spec.health_check_node_port = Some(node_port);
        assumed.push(Assumption::HealthCheckNodePort {
            service: name.to_owned(),
            node_port: node_port.to_string(),
        });
    }
}

fn load_balancer(
    name: &str,
    service: &mut Service,
    families: &[Family],
    addresses: &mut Addresses,
    assumed: &mut Vec<Assumption>,
) {
    let Some(spec) = &service.spec else { return };
    if !is(spec.type_.as_ref(), "LoadBalancer") {
        return;
    }
    let status = service.status.get_or_insert_default();
    let status = status
        .load_balancer
        .get_or_insert_with(LoadBalancerStatus::default);
    if status.ingress.iter().flatten().next().is_some() {
        return;
    }
    let asked_for: Option<IpAddr> = spec
        .load_balancer_ip
        .as_ref()
        .and_then(|ip| ip.parse().ok());
    let mut all = Vec::from_iter(asked_for);
    for family in families {
        if asked_for.is_none() {
            let first = addresses.take(addresses::of_load_balancers(*family), FIRST_LOAD_BALANCER);
            let more = addresses::of_more_load_balancers(*family);
            all.extend(first.or_else(|| addresses.take(more, 1)));
        }
    }
    for ip in &all {
        assumed.push(Assumption::LoadBalancerAddress {
            service: name.to_owned(),
            ip: ip.to_string(),
        });
    }
    let ingress = |ip: IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ..LoadBalancerIngress::default()
    };
    status.ingress = Some(all.into_iter().map(ingress).collect());
}
