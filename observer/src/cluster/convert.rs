//! From the API's strings and integers to types, one value at a time. What does not convert is
//! left out.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use super::index::HostAddress;
use super::lookup::Agreed;
use super::{
    Endpoint, Family, Hints, PodRef, Protocol, Service, ServiceRef, ServiceType, SessionAffinity,
    TrafficPolicy,
};

/// For how long affinity by client address lasts by default (`core/v1`
/// `DefaultClientIPServiceAffinitySeconds`).
const AFFINITY: Duration = Duration::from_hours(3);

/// Names occur many times over; each is kept once.
#[derive(Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(super) fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.0.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// An address in its own family.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A network without host bits. Validation let white space around source ranges pass
/// (`pkg/proxy/serviceport.go`).
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    text.trim().parse().ok().map(|net: IpNet| net.trunc())
}

pub(super) fn parse_port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// A port's protocol; TCP if it names none.
pub(super) fn parse_protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The addresses among `texts`, each once.
pub(super) fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = texts
        .into_iter()
        .filter_map(|text| parse_ip(text))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The addresses of a node at which a container port is; `None` if `host_ip` is no address.
pub(super) fn host_address(host_ip: Option<&str>) -> Option<HostAddress> {
    match host_ip {
        None | Some("") => Some(HostAddress::Any),
        Some(text) => parse_ip(text).map(|ip| {
            let every = ip.is_unspecified();
            if every {
                HostAddress::AnyOf(Family::of(ip))
            } else {
                HostAddress::Only(ip)
            }
        }),
    }
}

/// The ports of all containers that run as long as the Pod does: sidecars too (KEP-753).
pub(crate) fn container_ports(spec: &core::PodSpec) -> impl Iterator<Item = &core::ContainerPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
}

/// A Service without its ports; `None` for one that has no addresses (`ExternalName`), and for
/// types of the future.
pub(super) fn service(reference: ServiceRef, service: &core::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    let service_type = match spec.type_.as_deref() {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIP,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some(_) => return None,
    };
    let cluster_ips = cluster_ips(spec);
    let in_its_families = |mut ips: Vec<IpAddr>| -> Box<[IpAddr]> {
        ips.retain(|&ip| {
            cluster_ips
                .iter()
                .any(|&its| Family::of(its) == Family::of(ip))
        });
        ips.into()
    };

    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = || {
        status
            .into_iter()
            .flat_map(|status| status.ingress.iter().flatten())
    };
    // kube-proxy programs what has no mode, or the mode VIP (`pkg/proxy/util/utils.go`).
    let vips = ingress().filter(|i| matches!(i.ip_mode.as_deref(), None | Some("VIP")));
    let proxies = ingress().filter(|i| i.ip_mode.as_deref() == Some("Proxy"));

    let externally_accessible =
        service_type != ServiceType::ClusterIP || spec.external_ips.iter().flatten().count() > 0;
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    Some(Service {
        reference,
        service_type,
        external_traffic_policy: policy(
            spec.external_traffic_policy
                .as_deref()
                .filter(|_| externally_accessible),
        ),
        internal_traffic_policy: policy(spec.internal_traffic_policy.as_deref()),
        session_affinity: session_affinity(spec),
        traffic_distribution: spec.traffic_distribution.as_deref().map(Box::from),
        load_balancer_source_ranges: ranges.filter_map(|range| parse_net(range)).collect(),
        load_balancer: None,
        health_check_node_port: spec.health_check_node_port.and_then(parse_port),
        external_ips: in_its_families(addresses(spec.external_ips.iter().flatten())),
        load_balancer_vips: in_its_families(addresses(vips.filter_map(|i| i.ip.as_ref()))),
        load_balancer_proxies: addresses(proxies.filter_map(|i| i.ip.as_ref())).into(),
        cluster_ips,
    })
}

/// At most one address a family, in the families that the Service is in. A headless Service
/// (`None`) has none.
fn cluster_ips(spec: &core::ServiceSpec) -> Box<[IpAddr]> {
    // Older API servers know only the single field; newer ones fill both.
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let families: Option<Vec<_>> = spec
        .ip_families
        .as_ref()
        .filter(|f| !f.is_empty())
        .map(|f| {
            f.iter()
                .filter_map(|family| match family.as_str() {
                    "IPv4" => Some(Family::V4),
                    "IPv6" => Some(Family::V6),
                    _ => None,
                })
                .collect()
        });
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in all.filter_map(|ip| parse_ip(ip)) {
        let family = Family::of(ip);
        let taken = ips.iter().any(|&other| Family::of(other) == family);
        if !taken
            && families
                .as_ref()
                .is_none_or(|families| families.contains(&family))
        {
            ips.push(ip);
        }
    }
    ips.into()
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") {
        TrafficPolicy::Local
    } else {
        TrafficPolicy::Cluster
    }
}

fn session_affinity(spec: &core::ServiceSpec) -> SessionAffinity {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return SessionAffinity::None;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|c| c.client_ip.as_ref());
    let seconds = config
        .and_then(|c| c.timeout_seconds)
        .and_then(|s| u64::try_from(s).ok());
    SessionAffinity::ClientIp(seconds.map_or(AFFINITY, Duration::from_secs))
}

/// An endpoint without its port, in a slice of `namespace`.
pub(super) fn endpoint_of(
    endpoint: &discovery::Endpoint,
    address: IpAddr,
    namespace: &Arc<str>,
    names: &mut Names,
) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let target = endpoint.target_ref.as_ref();
    let pod = target
        .filter(|target| target.kind.as_deref() == Some("Pod"))
        .and_then(|pod| {
            let name = names.intern(pod.name.as_deref()?);
            let namespace = pod
                .namespace
                .as_deref()
                .map_or_else(|| Arc::clone(namespace), |n| names.intern(n));
            Some(PodRef { namespace, name })
        });
    let hints = endpoint.hints.as_ref().map(|hints| Hints {
        zones: hints
            .for_zones
            .iter()
            .flatten()
            .map(|zone| names.intern(&zone.name))
            .collect(),
        nodes: hints
            .for_nodes
            .iter()
            .flatten()
            .map(|node| names.intern(&node.name))
            .collect(),
    });
    Endpoint {
        address,
        port: 0,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.as_deref().map(|node| names.intern(node)),
        pod,
        zone: endpoint.zone.as_deref().map(|zone| names.intern(zone)),
        hints: hints
            .filter(|hints| *hints != Hints::default())
            .map(Box::new),
    }
}

/// Sorts endpoints and makes one of those that several slices name, as an endpoint that moves
/// from slice to slice is for a moment. It is as usable as any of them says, and where it is and
/// what it is remains if they agree.
pub(super) fn merge(mut endpoints: Vec<Endpoint>) -> Arc<[Endpoint]> {
    endpoints.sort_by_key(|endpoint| (endpoint.address, endpoint.port));
    endpoints
        .chunk_by(|a, b| (a.address, a.port) == (b.address, b.port))
        .map(|same| match same {
            [single] => single.clone(),
            same => Endpoint {
                address: same[0].address,
                port: same[0].port,
                ready: same.iter().any(|e| e.ready),
                serving: same.iter().any(|e| e.serving),
                terminating: same.iter().all(|e| e.terminating),
                node: Agreed::of(same.iter().map(|e| e.node.clone())),
                pod: Agreed::of(same.iter().map(|e| e.pod.clone())),
                zone: Agreed::of(same.iter().map(|e| e.zone.clone())),
                hints: Agreed::of(same.iter().map(|e| Some(e.hints.clone()))).flatten(),
            },
        })
        .collect()
}
