//! The connection that a proxy on the node had, where the record is of the one that it made for it.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{FrontDoor, LostAt, Service};
use crate::verdict::{Cause, ClientKind, SourceIp};

/// How sure it is which connection a proxy speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Its header names the address and the port that the proxy's socket saw: no other connection
    /// to the proxy has both at one time.
    Exact,
    /// Its header names the address only, and one connection came to the proxy from it.
    Likely,
    /// Several came from it. What is told is what all of them have in common.
    Ambiguous,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// A proxy on the observing node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// By which address it speaks.
    pub ip: IpAddr,
    /// Its pod's name; `None` too if it is in its node's network and nothing tells which it is.
    pub pod: Option<Arc<str>>,
    /// Its node.
    pub node: Arc<str>,
}

/// Who came to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThroughClient {
    /// As it arrived at this node.
    pub ip: IpAddr,
    /// `None` if there are several candidates.
    pub port: Option<u16>,
    /// What the address is.
    pub kind: ClientKind,
}

/// By which connection a proxy on this node got what it hands on: the first part of the way. What
/// is `None` is not known, or not the same for all candidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Through {
    /// Whose two connections they are.
    pub proxy: Proxy,
    /// Who opened the first; never one that it could not be.
    pub client: Option<ThroughClient>,
    /// Where that entered.
    pub front_door: Option<FrontDoor>,
    /// The Service of that front door.
    pub service: Option<Service>,
    /// What became of the client's address on the way to the proxy.
    pub source_ip: SourceIp,
    /// Where it was lost on that way.
    pub lost_at: Option<LostAt>,
    /// Why.
    pub cause: Option<Cause>,
    /// Nodes on that way beyond the first.
    pub extra_hops: Option<u8>,
    /// How long before this connection it was opened; `None` if there are several candidates.
    pub opened_before_ns: Option<u64>,
    /// How sure that is.
    pub confidence: Confidence,
    /// How many connections it may have been.
    pub candidates: u64,
}
