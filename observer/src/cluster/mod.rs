//! What the cluster's objects say: Services, `EndpointSlices`, Nodes and Pods as one immutable
//! [`Index`] that answers questions about addresses.
//!
//! Pure: [`Objects`] in, [`Index`] out. Nothing here reads a clock, a socket or the environment;
//! [`file`](crate::cluster::file) alone reads a file, and builds nothing.
//!
//! Three rules hold throughout:
//! - Kinds may be missing. What they would have told is `None` or `Unknown`, never an error.
//! - What several objects say of one thing counts when they agree. When they do not, the answer
//!   is `None`: unknown beats a guess.
//! - A value that the API server would have refused (a port of 70000, an address that is none)
//!   is skipped, and the rest of its object still counts.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod build;
mod convert;
pub mod file;
mod index;
mod lookup;
mod objects;
#[cfg(test)]
mod tests;

pub use index::{AddressKind, Backend, FrontDoor, Index};
pub use objects::{Objects, ObjectsError};

/// A transport protocol that a Service port can have (`core/v1` `Protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// IANA number 6; what a port without a protocol means.
    Tcp,
    /// IANA number 17.
    Udp,
    /// IANA number 132.
    Sctp,
}

/// The IANA number of a protocol that no Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("IP protocol {0} is none that a Service can have (6 TCP, 17 UDP, 132 SCTP)")]
pub struct UnknownProtocol(pub u8);

/// An address family. Services, node ports and endpoints live in each separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// By which address and port traffic enters a Service: the `kind` of a front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontDoorKind {
    /// An address of a node, at the Service's node port.
    NodePort,
    /// An ingress address of a load balancer that hands packets on unchanged (`ipMode: VIP`).
    LoadBalancer,
    /// One of the Service's `externalIPs`.
    ExternalIP,
    /// The Service's own virtual address.
    ClusterIP,
    /// An address of a node, at the `hostPort` of a Pod's container.
    HostPort,
    /// Straight to an endpoint: a load balancer in IP mode, or the second node of a path.
    Pod,
}

/// A Service's external or internal traffic policy. Unset means `Cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Any usable endpoint.
    Cluster,
    /// Usable endpoints of the receiving node only.
    Local,
}

/// A Service's type. `ExternalName` is missing: such a Service is a DNS alias and has no address,
/// so it is never in an [`Index`].
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

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A port of a Service, as kube-proxy names it: `namespace/name:port`, or `namespace/name` when
/// the port has no name (`pkg/proxy/types.go`, `ServicePortName`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service.
    pub service: ServiceRef,
    /// The port's name; only a Service with a single port may leave it out.
    pub name: Option<Arc<str>>,
}

/// Namespace and name of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
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
#[derive(Debug)]
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
    endpoints: Box<[Endpoint]>,
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

/// What the index knows of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Those of `status.addresses` that are addresses: internal and external.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`. A network plugin with an address management of its own ignores them.
    pub pod_cidrs: Vec<IpNet>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
}

/// The observing node and the addresses it has itself: more than its Node object holds, because
/// bridges, tunnels and veths have addresses too. Loopback addresses always belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    node: Box<str>,
    addresses: HashSet<IpAddr>,
}

/// How many objects of each kind an [`Index`] was built from, duplicates counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services.
    pub services: usize,
    /// `EndpointSlices`.
    pub endpoint_slices: usize,
    /// Nodes.
    pub nodes: usize,
    /// Pods.
    pub pods: usize,
    /// Objects of kinds that the index has no use for.
    pub others: usize,
}

impl Protocol {
    /// Its IANA number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl TryFrom<u8> for Protocol {
    type Error = UnknownProtocol;

    fn try_from(number: u8) -> Result<Self, UnknownProtocol> {
        match number {
            6 => Ok(Self::Tcp),
            17 => Ok(Self::Udp),
            132 => Ok(Self::Sctp),
            other => Err(UnknownProtocol(other)),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl fmt::Display for FrontDoorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIP => "ExternalIP",
            Self::ClusterIP => "ClusterIP",
            Self::HostPort => "HostPort",
            Self::Pod => "Pod",
        })
    }
}

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}:{name}", self.service),
            None => self.service.fmt(f),
        }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
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
    /// are left to the caller.
    pub fn usable_endpoints(&self, family: Family) -> Vec<&Endpoint> {
        usable(self.endpoints(family).iter())
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

impl LocalAddresses {
    /// The observing node's name and its own addresses, of all its interfaces.
    pub fn new(node: impl Into<Box<str>>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            node: node.into(),
            addresses: addresses.into_iter().collect(),
        }
    }

    /// The observing node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether `address` is the observing node's own.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }
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
