//! What the cluster's objects say: Services, `EndpointSlices`, Nodes and Pods as one immutable
//! [`Index`] that answers questions about addresses.
//!
//! Pure: [`Objects`] in, [`Index`] out. Nothing here reads a clock, a socket or the environment;
//! [`mod@file`] alone reads files, and builds nothing.
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

use foldhash::fast::RandomState;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

pub mod around;
mod build;
pub mod configz;
mod convert;
mod dns;
pub mod facts;
pub mod file;
pub mod finding;
pub mod front;
pub mod host;
mod index;
mod kube_proxy;
mod lookup;
mod objects;
pub mod patch;
pub mod plane;
pub mod proxy;
mod service;
mod settings;
mod slice;
mod snapshot;
#[cfg(test)]
mod tests;
mod trim;
mod workload;

pub(crate) use convert::container_ports;
pub use dns::{is_dns_label, is_dns_subdomain};
pub use index::{AddressKind, Backend, FrontDoor, Index};
pub use kube_proxy::{
    DetectLocal, IPVS_DEVICE, KubeProxy, KubeProxyError, NodePortAddresses, ProxyMode,
};
pub use objects::{FieldPath, Objects, ObjectsError, SliceRef, Step, Unreadable, View};
pub use service::{
    Endpoint, Hints, Service, ServiceEntry, ServiceType, SessionAffinity, TrafficPolicy,
};

pub use slice::Slice;
pub use snapshot::Snapshot;
pub use trim::Trim;

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

/// What the index knows of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Those of `status.addresses` that are addresses, internal ones before external ones.
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
    node: Arc<str>,
    addresses: HashSet<IpAddr, RandomState>,
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

impl ServiceRef {
    /// The Service that an object's metadata names. Only a file written by hand leaves the
    /// namespace out.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.as_deref().unwrap_or("default").into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        }
    }
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

impl Node {
    /// The address that kube-proxy takes for the node's own in a family: the first.
    pub fn primary_address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
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

impl LocalAddresses {
    /// The observing node's name and its own addresses, of all its interfaces.
    pub fn new(node: impl Into<Arc<str>>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            node: node.into(),
            addresses: addresses.into_iter().collect(),
        }
    }

    /// The observing node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The same, to be kept.
    pub fn shared_node(&self) -> Arc<str> {
        Arc::clone(&self.node)
    }

    /// Its addresses but those of loopback.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().copied();
        addresses.filter(|address| !address.is_loopback())
    }

    /// Whether `address` is the observing node's own.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }
}
