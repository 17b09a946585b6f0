//! What a verdict is made of, and what it is made from.

use std::net::SocketAddr;
use std::sync::Arc;

use super::advice::ChangeCode;
use super::before::Before;
use super::vocabulary::{
    Beyond, Cause, ClientKind, Expected, Finding, Outcome, OutcomeCause, RewriteOwner, SourceIp,
};
use crate::cluster::proxy::HeaderReader;
use crate::cluster::{
    FrontDoorKind, Index, KubeProxy, LocalAddresses, PodRef, ServicePort, TrafficPolicy,
};
use crate::observation::IfIndex;

/// What is known besides the connection.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The cluster's objects, as of the opening packet; `None` without cluster state.
    pub index: Option<&'a Index>,
    /// kube-proxy's configuration, if it is known.
    pub kube_proxy: Option<&'a KubeProxy>,
    /// This node: its name and its own addresses.
    pub local: &'a LocalAddresses,
    /// Whether connections that nobody asks about are judged too.
    pub all: bool,
    /// What may stand before this node.
    pub before: Before<'a>,
    /// What proxies in the cluster make of PROXY headers, as far as objects tell.
    pub readers: &'a [HeaderReader],
}

/// Where the connection entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDoor {
    /// `None` without cluster state, or if the destination is none of the cluster's.
    pub kind: Option<FrontDoorKind>,
    /// The original destination.
    pub address: SocketAddr,
}

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// As it arrived.
    pub address: SocketAddr,
    /// What that address is.
    pub kind: ClientKind,
}

/// The endpoint that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where.
    pub address: SocketAddr,
    /// Its pod.
    pub pod: Option<PodRef>,
    /// The node it lives on.
    pub node: Option<Arc<str>>,
}

/// Where a source address was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// On which node; `None` for what stands before any, or where it is not known on which.
    pub node: Option<Arc<str>>,
    /// By which interface of this node the rewritten packet left; `None` if it did not leave, or
    /// was not rewritten here.
    pub interface: Option<IfIndex>,
    /// Whose rule.
    pub by: RewriteOwner,
}

/// A stage of the way at which the source address was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub at: Lost,
    /// Why.
    pub cause: Cause,
}

/// What happened to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The Service and its port, if exactly one has this front door.
    pub service: Option<ServicePort>,
    /// Its external traffic policy, if its type has one, or `externalIPs` do.
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Where it entered.
    pub front_door: FrontDoor,
    /// Who opened it.
    pub client: Client,
    /// Who got it; `None` if no endpoint was chosen. Then so are the next four but `source_ip`.
    pub backend: Option<Backend>,
    /// The source that the backend sees.
    pub source_seen: Option<SocketAddr>,
    /// What became of the client's address.
    pub source_ip: SourceIp,
    /// Where it is known to have been replaced, in the order of the way.
    pub losses: Vec<Loss>,
    /// Why it is what it is, of the first loss if there is one; `None` if it was preserved.
    pub cause: Option<Cause>,
    /// What became of the opening packet.
    pub outcome: Outcome,
    /// Why.
    pub outcome_cause: Option<OutcomeCause>,
    /// Nodes on the way beyond the first; `None` if that cannot be told.
    pub extra_hops: Option<u8>,
    /// What the objects promise of it; `None` if they promise nothing.
    pub expected: Option<Expected>,
    /// Whether this node kept that, whatever stood before it.
    pub as_expected: Option<bool>,
    /// What would keep the client's address, or let it in, best first.
    pub advice: Vec<ChangeCode>,
    /// What becomes of the source where no node sees it.
    pub beyond: Option<Beyond>,
    /// What does not fit together on its way.
    pub findings: Vec<Finding>,
}
