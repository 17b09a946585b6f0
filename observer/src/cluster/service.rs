//! Services, their ports and their endpoints.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::front::LoadBalancer;
use super::{Family, Node, PodRef, Protocol, ServicePort, ServiceRef};

/// A Service's external or internal traffic policy. Unset means `Cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Any usable endpoint.
    Cluster,
    /// Usable endpoints of the receiving node only.
    Local,
}

/// A Service's type. `ExternalName` is missing: such a Service is a DNS alias and has no address,
/// so it is never in an [`Index`](super::Index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reached by its cluster address, if it has one, and its `externalIPs`.
    ClusterIP,
    /// Reached by a port of every node too.
    NodePort,
    /// Reached by the addresses of a load balancer too.
    LoadBalancer,
}

/// How a Service sends the connections of one client to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionAffinity {
    /// It does not.
    None,
    /// By the source address as it enters a node, until it was idle for this long.
    ClientIp(Duration),
}

/// A Service without its ports. All its [`ServiceEntry`]s share one.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// Which Service.
    pub reference: ServiceRef,
    /// Its type.
    pub service_type: ServiceType,
    /// For node ports, load balancer and external addresses. `Cluster` where none can be, as
    /// kube-proxy takes it (`pkg/api/v1/service/util.go`, `ExternalPolicyLocal`).
    pub external_traffic_policy: TrafficPolicy,
    /// For the cluster address.
    pub internal_traffic_policy: TrafficPolicy,
    /// How it keeps a client with an endpoint.
    pub session_affinity: SessionAffinity,
    /// `spec.trafficDistribution`, verbatim.
    pub traffic_distribution: Option<Box<str>>,
    /// Who may come by the load balancer's addresses, both families together; see
    /// [`Service::source_ranges`].
    pub load_balancer_source_ranges: Box<[IpNet]>,
    /// What stands in front of it, as far as it and the Nodes tell.
    pub load_balancer: Option<Arc<LoadBalancer>>,
    /// Where each node tells a load balancer whether it has local endpoints.
    pub health_check_node_port: Option<u16>,
    /// Its cluster addresses, at most one a family. Empty when it is headless, or when none is
    /// allocated yet; kube-proxy then programs nothing for it.
    pub cluster_ips: Box<[IpAddr]>,
    /// Its `externalIPs`, in the families of `cluster_ips`.
    pub external_ips: Box<[IpAddr]>,
    /// Ingress addresses in mode `VIP` or without a mode, in the families of `cluster_ips`.
    pub load_balancer_vips: Box<[IpAddr]>,
    /// Ingress addresses in mode `Proxy` (KEP-1860), of any family: kube-proxy ignores them, and
    /// no packet to them reaches a node.
    pub load_balancer_proxies: Box<[IpAddr]>,
}

/// One port of a Service, with its endpoints.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The Service it is a port of.
    pub service: Arc<Service>,
    /// The port's name.
    pub name: Option<Arc<str>>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The port at the cluster, external and load balancer addresses.
    pub port: u16,
    /// The port at the nodes' addresses, in the families of [`Service::cluster_ips`].
    pub node_port: Option<u16>,
    /// Sorted by address and port, each once; so IPv4 comes before IPv6.
    pub(super) endpoints: Arc<[Endpoint]>,
}

/// Where a Service port's connections can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its first address. kube-proxy looks at no other (`discovery/v1` `Endpoint.addresses`).
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Takes connections. Unset means true.
    pub ready: bool,
    /// Takes connections, terminating or not. Unset means true, as in kube-proxy
    /// (`pkg/proxy/endpointslicecache.go`) and the API documentation of 1.36; older ones deferred to `ready`.
    pub serving: bool,
    /// On its way out. Unset means false.
    pub terminating: bool,
    /// The endpoint's `nodeName`; not resolved by address, because kube-proxy goes by this alone
    /// when it decides what is local.
    pub node: Option<Arc<str>>,
    /// The endpoint's `targetRef`, if that is a Pod.
    pub pod: Option<PodRef>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// For whom it is meant; none means for everyone.
    pub hints: Option<Box<Hints>>,
}

/// For which zones and nodes an endpoint is meant (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `hints.forZones`.
    pub zones: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub nodes: Vec<Arc<str>>,
}

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

impl Service {
    /// Whether kube-proxy serves it in `family`: whether it has a cluster address there
    /// (`pkg/proxy/servicechangetracker.go`). Its node ports, external and load balancer
    /// addresses exist in no other family.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|&ip| Family::of(ip) == family)
    }

    /// Those of [`Service::load_balancer_source_ranges`] that apply in `family`. None means that
    /// everyone may come.
    pub fn source_ranges(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.load_balancer_source_ranges
            .iter()
            .filter(move |range| Family::of(range.addr()) == family)
    }
}

impl ServiceEntry {
    /// Its name: the Service and the port.
    pub fn service_port(&self) -> ServicePort {
        ServicePort {
            service: self.service.reference.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether anything but its cluster address leads here in `family`: only then may policy
    /// `Cluster` be followed by some although `internalTrafficPolicy` is `Local`
    /// (`pkg/proxy/serviceport.go`, `ExternallyAccessible`, `UsesClusterEndpoints`).
    pub fn is_externally_accessible(&self, family: Family) -> bool {
        let of_family = |ips: &[IpAddr]| ips.iter().any(|ip| Family::of(*ip) == family);
        self.node_port.is_some()
            || of_family(&self.service.load_balancer_vips)
            || of_family(&self.service.external_ips)
    }

    /// Whether it is for requests, if a proxy is behind it: a webhook's port or that of metrics expects
    /// no PROXY header.
    pub fn is_for_requests(&self) -> bool {
        let named = matches!(
            self.name.as_deref(),
            Some("http" | "https" | "web" | "websecure")
        );
        self.protocol == Protocol::Tcp && (named || matches!(self.port, 80 | 443))
    }

    /// Its endpoints in one family, usable or not, sorted by address and port.
    pub fn endpoints(&self, family: Family) -> &[Endpoint] {
        // `IpAddr` orders every IPv4 address before every IPv6 address.
        let (v4, v6) = self
            .endpoints
            .split_at(self.endpoints.partition_point(|e| e.address.is_ipv4()));
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The endpoints that policy `Cluster` may choose from on any node: the ready ones; if there
    /// are none, those that terminate and still serve (`pkg/proxy/topology.go`,
    /// `CategorizeEndpoints`). Hints, which may narrow the choice on a node but never to nothing,
    /// are left to [`ServiceEntry::cluster_endpoints`].
    pub fn usable_endpoints(&self, family: Family) -> Vec<&Endpoint> {
        usable(self.endpoints(family).iter())
    }

    /// Those of [`ServiceEntry::usable_endpoints`] that policy `Cluster` chooses from on `node`: for
    /// which topology hints mean them, if every ready one has a hint and one means this node, or
    /// else its zone (`pkg/proxy/topology.go`, `topologyModeFromHints`; KEP-2433, KEP-3015).
    pub fn cluster_endpoints(&self, family: Family, node: &Node) -> Vec<&Endpoint> {
        let usable = self.usable_endpoints(family);
        let by_node = |endpoint: &Endpoint| {
            let hints = endpoint.hints.as_deref();
            hints.map(|hints| (!hints.nodes.is_empty(), hints.nodes.contains(&node.name)))
        };
        let by_zone = |endpoint: &Endpoint| {
            let hints = endpoint.hints.as_deref();
            hints.map(|hints| {
                let here = node.zone.as_ref();
                (
                    !hints.zones.is_empty(),
                    here.is_some_and(|zone| hints.zones.contains(zone)),
                )
            })
        };
        narrowed(&usable, by_node)
            .or_else(|| narrowed(&usable, by_zone))
            .unwrap_or(usable)
    }

    /// The endpoints that policy `Local` may choose from on `node`: as
    /// [`ServiceEntry::usable_endpoints`], among those of the node, whatever the others are.
    pub fn usable_local_endpoints(&self, family: Family, node: &str) -> Vec<&Endpoint> {
        usable(
            self.endpoints(family)
                .iter()
                .filter(|e| e.node.as_deref() == Some(node)),
        )
    }

    /// Whether [`ServiceEntry::usable_endpoints`] has any. Without, kube-proxy refuses
    /// connections on every node.
    pub fn has_usable_endpoint(&self, family: Family) -> bool {
        self.endpoints(family).iter().any(Endpoint::is_usable)
    }

    /// Whether [`ServiceEntry::usable_local_endpoints`] has any. Without, policy `Local` drops
    /// connections on `node`.
    pub fn has_local_endpoint(&self, family: Family, node: &str) -> bool {
        self.endpoints(family)
            .iter()
            .any(|e| e.node.as_deref() == Some(node) && e.is_usable())
    }
}

impl Endpoint {
    /// Ready, or terminating and still serving: what kube-proxy can be brought to choose.
    fn is_usable(&self) -> bool {
        self.ready || (self.serving && self.terminating)
    }
}

/// Those that are meant, if each of `endpoints` is ready and has a hint and one is meant. `hint`:
/// whether one has a hint, and whether that means here.
fn narrowed<'a>(
    endpoints: &[&'a Endpoint],
    hint: impl Fn(&Endpoint) -> Option<(bool, bool)>,
) -> Option<Vec<&'a Endpoint>> {
    let is_hinted = |endpoint: &&Endpoint| {
        endpoint.ready && hint(endpoint).is_some_and(|(is_hinted, _)| is_hinted)
    };
    let meant: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| hint(endpoint).is_some_and(|(_, is_meant)| is_meant))
        .collect();
    (endpoints.iter().all(is_hinted) && !meant.is_empty()).then_some(meant)
}

/// The ready ones of `endpoints`; if there are none, those that terminate and still serve.
fn usable<'a>(endpoints: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<&'a Endpoint> {
    let ready: Vec<_> = endpoints.clone().filter(|e| e.ready).collect();
    if ready.is_empty() {
        endpoints.filter(|e| e.is_usable()).collect()
    } else {
        ready
    }
}
