//! The whole way of a connection, not only kube-proxy's part of it: client → load balancer → node
//! → (proxy →) pod. After each stage: whose source address it has, who changed it, by what else
//! the client can still be found, and how many nodes it has passed.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use strum::{Display, VariantNames};

use super::predict::Prediction;
use super::vocabulary::{CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};
use crate::cluster::front::{Carrier, Setting, System};
use crate::cluster::{FrontDoorKind, Protocol, ServiceEntry, ServiceRef};

mod doors;
mod service;
mod verdict;
mod walk;
mod ways;

pub use service::{Explained, Explainer, Health};
pub use verdict::{Verdict, Word};

/// Whose address a packet comes with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Seen {
    /// The client's own.
    Client,
    /// A load balancer's in front of the cluster.
    LoadBalancer,
    /// One of the node that it entered by: which one is the network plugin's affair, since a
    /// masquerade takes the address of the interface that leads to the endpoint
    /// (`net/netfilter/nf_nat_masquerade.c`): a bridge's, a tunnel's, or the node's own.
    EntryNode,
    /// That of a pod which only passes on, as k3s' servicelb does.
    Relay,
    /// A proxy's: its pod's, or its node's where it is in the node's network.
    Proxy,
    /// The pod's own loopback, by a sidecar.
    Loopback,
    /// Not known whose.
    Unknown,
}

/// Who takes the client's address away.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Loser {
    /// A load balancer that opens connections of its own, or translates.
    LoadBalancer,
    /// kube-proxy's masquerade.
    KubeProxy,
    /// The network plugin, in kube-proxy's place.
    Cni,
    /// A proxy in the cluster.
    Proxy,
    /// A sidecar in the pod.
    Mesh,
}

/// By what a client enters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
pub enum Door {
    /// The Service's load balancer, or its address.
    LoadBalancer,
    /// An Ingress or a Gateway.
    Proxy,
    /// A node's address and the Service's node port.
    NodePort,
    /// One of the Service's `externalIPs`.
    ExternalIP,
    /// The Service's cluster address.
    ClusterIP,
    /// A pod's own address.
    Pod,
}

/// What a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum StageKind {
    /// Who opens the connection.
    Client,
    /// A load balancer.
    LoadBalancer,
    /// A pod that passes on to the cluster address.
    Relay,
    /// The first node, with kube-proxy or what stands in its place.
    Node,
    /// A proxy that opens a connection of its own.
    Proxy,
    /// A sidecar.
    Mesh,
    /// The pod that answers.
    Pod,
}

/// A stage of a way, and how things are after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// What it is.
    pub kind: StageKind,
    /// Its name: a system's word, a node's name, an Ingress.
    pub who: String,
    /// Whose source address comes out.
    pub source: Seen,
    /// Who changed that here.
    pub changed_by: Option<Loser>,
    /// By what the client can be found, besides its address.
    pub recoverable: Vec<Carrier>,
    /// Nodes that it adds to the way, at least and at most.
    #[serde(serialize_with = "as_range")]
    pub hops: Option<RangeInclusive<u8>>,
    /// Why.
    pub because: Vec<Setting>,
}

/// A way to a Service port, from a kind of client by nodes that are alike.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// The Service port.
    pub entry: &'a ServiceEntry,
    /// By what it enters.
    pub door: Door,
    /// The object that leads to it, through a proxy: `Ingress shop/web`.
    pub by: Option<String>,
    /// The load balancer on it.
    pub system: Option<System>,
    /// Where the client connects to. Empty if that is not known.
    pub addresses: Arc<[IpAddr]>,
    /// At which port.
    pub to_port: Option<u16>,
    /// The nodes by which it may enter, all alike; none if no node decides.
    pub nodes: Arc<[Arc<str>]>,
    /// Who comes.
    pub client: ClientKind,
    /// The stages, from the client to the pod, or to where it ends.
    pub stages: Vec<Stage>,
    /// What becomes of the client's address.
    pub source_ip: SourceIp,
    /// Whose address the pod sees; `None` if no pod is reached.
    pub seen: Option<Seen>,
    /// Who lost the client's first.
    pub lost_by: Option<Loser>,
    /// Why kube-proxy masquerades, if it does.
    pub cause: Option<CauseCode>,
    /// What becomes of the opening packet.
    pub outcome: Outcome,
    /// Why.
    pub outcome_cause: Option<OutcomeCauseCode>,
    /// Nodes beyond the first, at least and at most; `None` if no pod is reached, or where it
    /// lives is not known.
    pub extra_hops: Option<RangeInclusive<u8>>,
    /// By what the pod can find a client whose address it does not see.
    pub recoverable: Vec<Carrier>,
    /// Whether the load balancer leaves these nodes out, because they say that they have no
    /// endpoint.
    pub left_out: bool,
    /// The Service whose rule lost the address, or let nothing through: this one, or that of a
    /// proxy on the way.
    pub decided_by: Option<ServiceRef>,
    /// Whether all of it is known; else what came before a proxy is not.
    pub is_whole: bool,
    /// What kube-proxy does where it loses the address.
    pub lost_with: Option<Prediction>,
    /// What kube-proxy does, where it last has a part in it.
    pub prediction: Option<Prediction>,
}

impl Way<'_> {
    /// All who changed the source on it, first to last.
    pub fn losers(&self) -> impl Iterator<Item = Loser> {
        self.stages.iter().filter_map(|stage| stage.changed_by)
    }

    /// Whether a client comes through by it.
    pub fn is_open(&self) -> bool {
        !self.left_out
            && matches!(self.outcome, Outcome::Answered | Outcome::Unknown)
            && self.seen.is_some()
    }

    /// Takes another one in that differs in the hops only.
    fn widen(&mut self, other: &Self) {
        let wider = |one: &Option<RangeInclusive<u8>>, other: &Option<RangeInclusive<u8>>| {
            let (one, other) = one.as_ref().zip(other.as_ref())?;
            Some(*one.start().min(other.start())..=*one.end().max(other.end()))
        };
        self.extra_hops = wider(&self.extra_hops, &other.extra_hops);
        for (stage, same) in self.stages.iter_mut().zip(&other.stages) {
            stage.hops = wider(&stage.hops, &same.hops);
            if stage.who != same.who {
                stage.who = stage.kind.to_string();
            }
        }
    }

    /// Whether another way is the same but for nodes, and for how many hops it is from there.
    pub fn differs_in_hops_only(&self, other: &Self) -> bool {
        let fate = |way: &Self| {
            (
                (way.door, way.client, way.to_port, way.system),
                (way.source_ip, way.seen, way.lost_by, way.cause),
                (way.outcome, way.outcome_cause, way.left_out),
            )
        };
        std::ptr::eq(self.entry, other.entry)
            && fate(self) == fate(other)
            && self.by == other.by
            && self.recoverable == other.recoverable
            && (self.door == Door::NodePort || self.addresses == other.addresses)
    }

    /// Takes in another that [`Way::differs_in_hops_only`].
    pub fn take_in(&mut self, other: &Self) {
        self.widen(other);
        let both = |one: &[Arc<str>], other: &[Arc<str>]| [one, other].concat();
        self.nodes = both(&self.nodes, &other.nodes).into();
        if self.addresses != other.addresses {
            self.addresses = [&*self.addresses, &*other.addresses].concat().into();
        }
    }

    /// Its protocol.
    pub const fn protocol(&self) -> Protocol {
        self.entry.protocol
    }
}

impl Door {
    /// The kind of front door that kube-proxy has for it.
    const fn of(kind: FrontDoorKind) -> Self {
        match kind {
            FrontDoorKind::LoadBalancer => Self::LoadBalancer,
            FrontDoorKind::NodePort | FrontDoorKind::HostPort => Self::NodePort,
            FrontDoorKind::ExternalIP => Self::ExternalIP,
            FrontDoorKind::ClusterIP => Self::ClusterIP,
            FrontDoorKind::Pod => Self::Pod,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde's `serialize_with` passes it so")]
fn as_range<S: serde::Serializer>(
    range: &Option<RangeInclusive<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Range {
        least: u8,
        most: u8,
    }
    let range = range.as_ref().map(|range| Range {
        least: *range.start(),
        most: *range.end(),
    });
    range.serialize(serializer)
}
