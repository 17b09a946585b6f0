//! The record, `observer.connection/v1`: one connection as people and programs get it.
//!
//! `schema/observer.connection.v1.json` is its contract; fields are only ever added. Names that many
//! records have are shared by them.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::{FrontDoorKind, Protocol, TrafficPolicy};
use crate::payload::{Carrier, Reason};
use crate::verdict::advice::ChangeCode;
use crate::verdict::{
    Beyond, Cause, ClientKind, Expected, Finding, Outcome, OutcomeCause, RewriteOwner, SourceIp,
};
use crate::words;

mod anonymize;
mod fate;
pub mod filter;
mod join;
mod line;
mod through;

pub use anonymize::anonymize;
pub(crate) use fate::{ByFate, Fate};
pub use join::{Key, half, join, node_of_other_half};
pub use line::write_line;
pub use through::{Confidence, Proxy, Through, ThroughClient};

/// The value of [`Record::schema`].
pub const SCHEMA: Schema = Schema::Version1;

/// Which contract a record keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schema {
    /// The first, and the only one.
    #[serde(rename = "observer.connection/v1")]
    Version1,
}

/// How a connection became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// Its opening packet was seen.
    Start,
    /// Conntrack held it when the observation began.
    Conntrack,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// RFC 5952 text, never v4-mapped.
    pub ip: IpAddr,
    /// Transport port.
    pub port: u16,
}

/// The Service of the front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The port's name, if it has one.
    pub port: Option<Arc<str>>,
    /// Its external traffic policy; `None` if neither its type has one nor `externalIPs`.
    #[serde(default)]
    pub external_traffic_policy: Option<TrafficPolicy>,
}

/// Where the connection entered: always the original destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontDoor {
    /// `None` without cluster state, or if it is none of the cluster's.
    pub kind: Option<FrontDoorKind>,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// Who opened the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// As it arrived at this node.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// What the address is.
    pub kind: ClientKind,
    /// The client's own address, from a PROXY protocol header or the header fields of the first
    /// HTTP request; `None` if none was read, or it is not believed.
    pub recovered: Option<IpAddr>,
    /// From which.
    #[serde(default)]
    pub recovered_from: Option<Carrier>,
    /// How many addresses that header lists, believed or not.
    #[serde(default)]
    pub hops_listed: Option<u16>,
    /// Why none was recovered; `None` if one was, or nobody asked.
    #[serde(default)]
    pub not_recovered: Option<Reason>,
    /// Which server a client of TLS asks for.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// The endpoint that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Its pod's name.
    pub pod: Option<Arc<str>>,
    /// Its node's name.
    pub node: Option<Arc<str>>,
}

/// Where the client's address was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostAt {
    /// The node; `None` for what stands before any node of the cluster, or where it is not known
    /// which.
    pub node: Option<Arc<str>>,
    /// The interface by which the rewritten packet left, if that is the node that observed.
    pub interface: Option<Arc<str>>,
    /// Whose rule.
    pub by: RewriteOwner,
}

/// A stage of the way at which the address was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Where, and by whom.
    pub at: LostAt,
    /// Why.
    pub cause: Cause,
}

/// What one node saw of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The node.
    pub node: Arc<str>,
    /// Interface of arrival; `None` for a client on the node.
    pub r#in: Option<Arc<str>>,
    /// Interface of the last egress; `None` if delivered to the host.
    pub out: Option<Arc<str>>,
    /// TTL on arrival.
    pub ttl_in: Option<u8>,
    /// TTL at the last egress.
    pub ttl_out: Option<u8>,
    /// TTL with which the first reply arrived.
    pub reply_ttl_in: Option<u8>,
    /// Nanoseconds from arrival to the last egress.
    pub forward_ns: Option<u64>,
    /// Nanoseconds from the last egress to the arrival of the first reply: what lies beyond this
    /// node.
    pub reply_ns: Option<u64>,
}

/// How often the opening packet was forwarded, by two nodes' records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopCheck {
    /// What TTLs count: on arrival at the first node, less when it left the last.
    pub forwards: i16,
    /// Once by each of the two nodes that it came to and left. More forwards are routers between
    /// them; anything else is a rule that changes TTLs, or another way than the one observed.
    pub expected: u8,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What.
    pub change: Cow<'static, str>,
    /// At what price.
    pub trade_off: Cow<'static, str>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: Schema,
    /// The opening packet, UTC, microseconds; `None` if that was before the observation.
    pub observed_at: Option<String>,
    /// The node that observed.
    pub node: Arc<str>,
    /// How it became known.
    pub from: From,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The Service of the front door.
    pub service: Option<Service>,
    /// Where it entered.
    pub front_door: FrontDoor,
    /// Who opened it.
    pub client: Client,
    /// By which connection that one, a proxy on the observing node, got what it hands on by this
    /// one; `None` if it is no proxy, or which it was is not known.
    #[serde(default)]
    pub through: Option<Through>,
    /// Who got it; `None` only if no endpoint was chosen.
    pub backend: Option<Backend>,
    /// The source address and port that the backend gets.
    pub source_seen: Option<Endpoint>,
    /// What became of the client's address.
    pub source_ip: SourceIp,
    /// Where it was lost: the first of `losses`.
    pub lost_at: Option<LostAt>,
    /// Why it is what it is; `None` also when preserved.
    pub cause: Option<Cause>,
    /// Every stage at which it is known to have been replaced, in the order of the way: the client's
    /// own address was lost at the first, and at each the one that the stage before put there.
    #[serde(default)]
    pub losses: Vec<Loss>,
    /// What becomes of it within the backend's pod, where no node sees it.
    #[serde(default)]
    pub beyond: Option<Beyond>,
    /// What became of the opening packet.
    pub outcome: Outcome,
    /// Why.
    pub outcome_cause: Option<OutcomeCause>,
    /// Nodes on the way beyond the first.
    pub extra_hops: Option<u8>,
    /// What those nodes cost, in nanoseconds; known with both nodes' records only.
    pub extra_hop_ns: Option<u64>,
    /// Whether TTLs agree with the path; known with both nodes' records only.
    pub hop_check: Option<HopCheck>,
    /// One entry per node that observed; none if it existed before.
    pub path: Vec<Step>,
    /// Nanoseconds from the opening packet first seen to the first reply leaving (for a client on
    /// this node: arriving).
    pub round_trip_ns: Option<u64>,
    /// What should have happened; `None` while nothing predicts.
    pub expected: Option<Expected>,
    /// Whether it did.
    pub as_expected: Option<bool>,
    /// How long the API of the cluster's objects had not been heard when the opening packet came,
    /// in seconds: they may have changed unnoticed. `None` if they were current, or from a file.
    #[serde(default)]
    pub cluster_stale_s: Option<u64>,
    /// What to change.
    pub advice: Vec<Advice>,
    /// What does not fit together on its way.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

impl Record {
    /// The stages at which the address was replaced; of a record by a version that told only the
    /// first, that one.
    pub fn stages(&self) -> Cow<'_, [Loss]> {
        match (&self.lost_at, &self.cause) {
            (Some(at), Some(cause)) if self.losses.is_empty() => Cow::Owned(vec![Loss {
                at: at.clone(),
                cause: cause.clone(),
            }]),
            _ => Cow::Borrowed(&self.losses),
        }
    }

    /// Why the address was lost by this connection, which is its own Service's affair: where a proxy
    /// on the node opened it, not what came before that proxy. `cause` for all others.
    pub fn own_cause(&self) -> Option<&Cause> {
        let is_lost_before = |through: &Through| through.source_ip == SourceIp::Lost;
        if !self.through.as_ref().is_some_and(is_lost_before) {
            return self.cause.as_ref();
        }
        // Such a connection is lost at its proxy first.
        let at = self.losses.iter().rposition(Loss::is_in_front)?;
        self.losses.get(at).map(|loss| &loss.cause)
    }

    /// Why the nodes replaced the address that came to them, whatever became of it before.
    pub fn node_cause(&self) -> Option<&Cause> {
        let losses = self.stages().len();
        if self.losses.len() < losses {
            let is_nodes = self.lost_at.as_ref().is_some_and(|at| !at.is_in_front());
            return self.cause.as_ref().filter(|_| is_nodes);
        }
        let behind = self.losses.iter().rposition(Loss::is_in_front);
        let first = behind.map_or(0, |before| before + 1);
        self.losses.get(first).map(|loss| &loss.cause)
    }
}

impl LostAt {
    /// Whether it is at a load balancer or a proxy.
    const fn is_in_front(&self) -> bool {
        matches!(self.by, RewriteOwner::LoadBalancer | RewriteOwner::Proxy)
    }
}

impl Loss {
    const fn is_in_front(&self) -> bool {
        self.at.is_in_front()
    }
}

impl Advice {
    /// A change in words: English, as all that is in a record.
    pub(crate) fn of(change: ChangeCode) -> Self {
        let (change, trade_off) = words::change(change);
        Self {
            change: change.into(),
            trade_off: trade_off.into(),
        }
    }
}

impl std::convert::From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip().to_canonical(),
            port: address.port(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
