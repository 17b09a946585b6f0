//! What the API server refuses of Services (`pkg/apis/core/validation/validation.go`,
//! `ValidateService`), and of several together (`pkg/registry/core/service/portallocator`,
//! `ipallocator`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::{Fault, Key};
use super::{Report, is_dns_label, is_network, port_name, quoted};
use crate::cluster::FieldPath;

const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const FAMILY_POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];

/// What a field that only load balancers have is told of elsewhere.
const ONLY_LOAD_BALANCERS: &str = "only a Service of type LoadBalancer may have it; remove it";

/// Checks one Service.
pub(super) fn check(service: &Service, faults: &mut Vec<Fault>) {
    let mut report = Report {
        object: Key::of("Service", &service.metadata),
        faults,
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    if !is_dns_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        let what = format!(
            "{}: a Service's name has at most 63 characters, a-z, 0-9 and hyphens, and begins \
             with a letter",
            quoted(name)
        );
        report.field("metadata.name", what);
    }
    let Some(spec) = &service.spec else {
        report.field("spec", "is missing; a Service needs ports");
        return;
    };
    words(spec, &mut report);
    let kind = spec.type_.as_deref().filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or("ClusterIP");
    for_its_type(kind, spec, &mut report);
    addresses(spec, &mut report);
    ports(kind, spec, &mut report);
}

fn words(spec: &ServiceSpec, report: &mut Report<'_>) {
    let mut word = |name: &str, value: &Option<String>, known: &[&str]| {
        report.word(FieldPath::fields(name), value.as_deref(), known);
    };
    word("spec.type", &spec.type_, &TYPES);
    word(
        "spec.externalTrafficPolicy",
        &spec.external_traffic_policy,
        &POLICIES,
    );
    word(
        "spec.internalTrafficPolicy",
        &spec.internal_traffic_policy,
        &POLICIES,
    );
    word(
        "spec.sessionAffinity",
        &spec.session_affinity,
        &["ClientIP", "None"],
    );
    word(
        "spec.trafficDistribution",
        &spec.traffic_distribution,
        &DISTRIBUTIONS,
    );
    word(
        "spec.ipFamilyPolicy",
        &spec.ip_family_policy,
        &FAMILY_POLICIES,
    );
    let families = FieldPath::fields("spec.ipFamilies");
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        report.word(families.item(index), Some(family), &["IPv4", "IPv6"]);
    }
}

/// What a Service may have because of its type, and what it must.
fn for_its_type(kind: &str, spec: &ServiceSpec, report: &mut Report<'_>) {
    let has_external_ips = spec.external_ips.iter().flatten().next().is_some();
    let is_accessible =
        matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && has_external_ips;
    let policy = spec.external_traffic_policy.as_deref().unwrap_or_default();
    if !is_accessible && !policy.is_empty() && TYPES.contains(&kind) {
        let what = if kind == "ExternalName" {
            "the API refuses it on type ExternalName; remove it"
        } else {
            "the API refuses it on type ClusterIP without externalIPs, where nobody comes from \
             outside; remove it, or make the type NodePort or LoadBalancer"
        };
        report.field("spec.externalTrafficPolicy", what);
    }
    let needs_health_check = kind == "LoadBalancer" && policy == "Local";
    match spec.health_check_node_port {
        Some(0) | None => {}
        Some(port) if needs_health_check => {
            report.port(FieldPath::fields("spec.healthCheckNodePort"), port);
        }
        Some(_) => report.field(
            "spec.healthCheckNodePort",
            "only type LoadBalancer with externalTrafficPolicy Local may have it; remove it",
        ),
    }
    if kind != "LoadBalancer" {
        let ranges = spec.load_balancer_source_ranges.as_ref();
        let has = [
            (
                "spec.loadBalancerSourceRanges",
                ranges.is_some_and(|r| !r.is_empty()),
            ),
            (
                "spec.allocateLoadBalancerNodePorts",
                spec.allocate_load_balancer_node_ports.is_some(),
            ),
            ("spec.loadBalancerClass", spec.load_balancer_class.is_some()),
        ];
        for (name, _) in has.into_iter().filter(|(_, has)| *has) {
            report.field(name, ONLY_LOAD_BALANCERS);
        }
    }
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    if is_headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let what = format!("may not be None on type {kind}");
        report.field("spec.clusterIP", what);
    }
    if kind == "ExternalName" {
        if spec.external_name.as_deref().unwrap_or_default().is_empty() {
            report.field(
                "spec.externalName",
                "is missing; type ExternalName needs it",
            );
        }
        if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
            report.field(
                "spec.clusterIP",
                "type ExternalName may not have it; remove it",
            );
        }
    } else if !is_headless && spec.ports.iter().flatten().next().is_none() {
        report.field(
            "spec.ports",
            "is missing; a Service needs at least one port",
        );
    }
}

fn addresses(spec: &ServiceSpec, report: &mut Report<'_>) {
    let ips = FieldPath::fields("spec.externalIPs");
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        if let Some(why) = special(ip) {
            report.at(ips.item(index), format!("{} {why}", quoted(ip)));
        }
    }
    let ranges = FieldPath::fields("spec.loadBalancerSourceRanges");
    for (index, range) in spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .enumerate()
    {
        if !is_network(range.trim()) {
            let what = format!("{} is no network such as 192.0.2.0/24", quoted(range));
            report.at(ranges.item(index), what);
        }
    }
    let is_address = |ip: &str| matches!(ip, "" | "None") || ip.parse::<IpAddr>().is_ok();
    if let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !is_address(ip)) {
        let what = format!("{} is no address", quoted(ip));
        report.field("spec.clusterIP", what);
    }
    if let Some(ip) = spec
        .load_balancer_ip
        .as_deref()
        .filter(|ip| !is_address(ip))
    {
        let what = format!("{} is no address", quoted(ip));
        report.field("spec.loadBalancerIP", what);
    }
}

/// Why an address may not be external (`ValidateNonSpecialIP`).
fn special(text: &str) -> Option<&'static str> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Some("is no address");
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[0] & 0xff0f == 0xff02,
    };
    if ip.is_unspecified() {
        Some("is no address that anything can have")
    } else if ip.is_loopback() {
        Some("is a loopback address; the API refuses it")
    } else if is_link_local {
        Some("is a link-local address; the API refuses it")
    } else {
        None
    }
}

fn ports(kind: &str, spec: &ServiceSpec, report: &mut Report<'_>) {
    let ports: Vec<_> = spec.ports.iter().flatten().collect();
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut node_ports = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = FieldPath::fields("spec.ports").item(index);
        let protocol = protocol(port);
        report.port(path.field("port"), port.port);
        report.word(path.field("protocol"), port.protocol.as_deref(), &PROTOCOLS);
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => report.at(
                path.field("name"),
                "is missing; with several ports each needs a name",
            ),
            "" => {}
            name if !is_dns_label(name) => {
                let what = format!(
                    "{}: a port's name has at most 63 characters, a-z, 0-9 and hyphens",
                    quoted(name)
                );
                report.at(path.field("name"), what);
            }
            name if !names.insert(name) => {
                report.at(
                    path.field("name"),
                    format!("{} is there twice", quoted(name)),
                );
            }
            _ => {}
        }
        if !numbers.insert((protocol, port.port)) {
            report.at(
                path.field("port"),
                format!("{protocol} {} is there twice", port.port),
            );
        }
        target_port(port, &path, report);
        let Some(node_port) = port.node_port.filter(|port| *port != 0) else {
            continue;
        };
        let path = path.field("nodePort");
        report.port(path.clone(), node_port);
        if kind == "ClusterIP" {
            let what = "type ClusterIP may not have it; remove it, or make the type NodePort";
            report.at(path, what);
        } else if !node_ports.insert((protocol, node_port)) {
            report.at(path, format!("{protocol} {node_port} is there twice"));
        }
    }
}

fn protocol(port: &ServicePort) -> &str {
    let protocol = port.protocol.as_deref();
    protocol
        .filter(|protocol| !protocol.is_empty())
        .unwrap_or("TCP")
}

fn target_port(port: &ServicePort, path: &FieldPath, report: &mut Report<'_>) {
    let path = path.field("targetPort");
    match &port.target_port {
        // The API takes 0 for none.
        None | Some(IntOrString::Int(0)) => {}
        Some(IntOrString::Int(number)) => report.port(path, *number),
        Some(IntOrString::String(name)) if name.is_empty() => {}
        Some(IntOrString::String(name)) => {
            if let Err(why) = port_name(name) {
                let hint = if name.parse::<u16>().is_ok() {
                    "; a number is written without quotes"
                } else {
                    ""
                };
                report.at(path, format!("{why}{hint}"));
            }
        }
    }
}

/// What only one Service of a cluster can have. A node port is one's for all protocols
/// (`portallocator` knows only numbers), and so is that of the health check.
pub(super) fn check_together(services: &[Service], faults: &mut Vec<Fault>) {
    let mut node_ports: BTreeMap<i32, Key> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, Key> = BTreeMap::new();
    for service in services {
        let key = Key::of("Service", &service.metadata);
        let mut report = Report {
            object: key.clone(),
            faults,
        };
        for (path, port) in node_ports_of(service) {
            let first = node_ports.entry(port).or_insert_with(|| key.clone());
            if *first != key {
                let what = format!("node port {port} is {first}'s already; give it another");
                report.at(path, what);
            }
        }
        let ip = service
            .spec
            .as_ref()
            .and_then(|spec| spec.cluster_ip.as_ref());
        if let Some(ip) = ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
            let first = addresses.entry(ip).or_insert_with(|| key.clone());
            if *first != key {
                let what = format!("{ip} is {first}'s already; leave it out, or give it another");
                report.field("spec.clusterIP", what);
            }
        }
    }
}

fn node_ports_of(service: &Service) -> Vec<(FieldPath, i32)> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let path = FieldPath::fields("spec.ports");
    let ports = spec.ports.iter().flatten().enumerate();
    let ports = ports
        .filter_map(|(index, port)| Some((path.item(index).field("nodePort"), port.node_port?)));
    let check = spec.health_check_node_port;
    let check = check.map(|port| (FieldPath::fields("spec.healthCheckNodePort"), port));
    ports.chain(check).filter(|(_, port)| *port != 0).collect()
}
