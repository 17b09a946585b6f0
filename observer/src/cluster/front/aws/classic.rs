//! AWS' Classic Load Balancer: it opens connections of its own.

use super::super::super::Protocol;
use super::super::super::finding::Reason;
use super::super::asked::{Asked, Port};
use super::super::{
    Answer, Carrier, Delivers, Finding, Keeps, LoadBalancer, OfPort, Setting, System,
};
use super::{
    ATTRIBUTES, BACKEND_PROTOCOL, CERTIFICATE, IN_TREE, IP_ADDRESS_TYPE, PROXY_PROTOCOL, SCHEME,
    TARGET_TYPE, TLS_PORTS, TYPE,
};

const HEADERS: &str = "Elastic Load Balancing, Classic Load Balancers, x-forwarded-headers";
const PROXY: &str = "Elastic Load Balancing, Classic Load Balancers, enable-proxy-protocol";

/// What the in-tree controller makes where nothing else is asked for.
pub(super) fn answer(asked: Asked<'_>, setting: Setting) -> Answer {
    let sends_header = asked.annotation(PROXY_PROTOCOL) == Some("*");
    let ports = asked.each_port(|port| {
        let http = is_http(asked, port).then_some(Carrier::XForwardedFor);
        let proxy = sends_header.then_some(Carrier::ProxyV1);
        OfPort {
            port: port.number,
            protocol: port.protocol,
            delivers: Delivers::NodePort,
            keeps: Keeps::Own,
            adds: http.into_iter().chain(proxy).collect(),
        }
    });
    let settings = [
        asked.if_set(PROXY_PROTOCOL, PROXY),
        asked.if_set(BACKEND_PROTOCOL, IN_TREE),
        asked.if_set(CERTIFICATE, IN_TREE),
        asked.if_set(TLS_PORTS, IN_TREE),
    ];
    let kind = asked.setting(TYPE, "", IN_TREE);
    let own = Setting::default_of("source address", "the load balancer's", HEADERS);
    let load_balancer = LoadBalancer::new(System::AwsClassic, Delivers::NodePort, Keeps::Own)
        // Its check is at the health check node port under policy Local.
        .leaves_out(Some(true))
        .with_ports(ports)
        .because([setting])
        .because(settings.into_iter().flatten())
        .because([kind, own]);
    let unread = [ATTRIBUTES, TARGET_TYPE, SCHEME, IP_ADDRESS_TYPE];
    let mut findings: Vec<_> = unread
        .iter()
        .filter_map(|name| asked.ignored(name, Reason::ClassicLoadBalancer))
        .collect();
    let proxy = asked.annotation(PROXY_PROTOCOL);
    let proxy = proxy.filter(|value| !matches!(*value, "" | "*"));
    findings.extend(proxy.map(|value| asked.not_understood(PROXY_PROTOCOL, value)));
    let backend = asked.annotation(BACKEND_PROTOCOL);
    let backend = backend.filter(|value| !matches!(*value, "" | "http" | "https" | "ssl" | "tcp"));
    findings.extend(backend.map(|value| asked.not_understood(BACKEND_PROTOCOL, value)));
    Answer {
        load_balancer,
        findings,
    }
    .unless(refused(asked, System::AwsClassic, &[Protocol::Tcp]))
}

/// Whether a port's listener speaks HTTP, and so adds headers: with a certificate for the port,
/// where the backends speak HTTP or HTTPS; without, where they speak HTTP
/// (`pkg/providers/v1/aws.go`, `buildListener`).
fn is_http(asked: Asked<'_>, port: Port<'_>) -> bool {
    let backend = asked.annotation(BACKEND_PROTOCOL).unwrap_or_default();
    let has_certificate = asked
        .annotation(CERTIFICATE)
        .is_some_and(|it| !it.is_empty());
    let is_its_port = match asked.annotation(TLS_PORTS) {
        None | Some("" | "*") => true,
        Some(list) => port.is_in(list),
    };
    match backend {
        "http" => true,
        "https" => has_certificate && is_its_port,
        _ => false,
    }
}

/// For what the in-tree controller makes no load balancer (`pkg/providers/v1/aws.go`,
/// `EnsureLoadBalancer`).
pub(super) fn refused(asked: Asked<'_>, system: System, protocols: &[Protocol]) -> Vec<Finding> {
    let mut found = Vec::new();
    if asked.has_affinity() {
        found.push(asked.refused(system, "spec.sessionAffinity", "ClientIP"));
    }
    let mut its: Vec<_> = asked.ports().map(|port| port.protocol).collect();
    its.sort_unstable();
    its.dedup();
    let is_mixed = its.len() > 1;
    if is_mixed || its.iter().any(|protocol| !protocols.contains(protocol)) {
        let names: Vec<_> = its.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        found.push(asked.refused(system, "spec.ports[].protocol", &names));
    }
    found
}
