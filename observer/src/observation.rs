//! What the kernel side saw, in userspace's own types: the first station of the data flow.
//!
//! [`Observation::decode`] and [`Observation::expired`] are total: whatever bytes come up, they
//! give an observation or an error, and never panic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use observer_ebpf::WaitingKey;
use serde::{Deserialize, Serialize};

use crate::cluster::Protocol;

mod wire;

pub use wire::DecodeError;

/// A moment of the kernel's monotonic clock: nanoseconds since boot, suspend not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Nanoseconds from `earlier` to this moment; 0 if it was not earlier, as two CPUs' clocks
    /// may disagree by a little.
    pub const fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The kernel's number for a network interface, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IfIndex(pub u32);

/// The node's interfaces, as far as verdicts and records need them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    /// Their names.
    pub names: BTreeMap<IfIndex, String>,
    /// The addresses of all.
    pub addresses: BTreeSet<IpAddr>,
    /// The default gateways that have a private address (RFC 1918, RFC 4193) in a network of the
    /// node's own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<IpAddr>,
}

/// TTL of IPv4, hop limit of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl(pub u8);

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
}

/// One connection, told from an earlier one on the same addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Conntrack zone of the original direction; 0 for most, and of an arrival, which has none yet.
    pub zone: u16,
    /// As the client sent it: client → front door.
    pub original: Tuple,
    /// TCP: the client's initial sequence number. SCTP: its initiate tag. UDP: 0.
    pub sequence: u32,
}

impl Identity {
    /// What an arrival knows of it: all but the zone, which a rule gives the packet later.
    #[must_use]
    pub const fn on_arrival(self) -> Self {
        Self { zone: 0, ..self }
    }
}

/// A packet came in by an observed interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// When.
    pub at: Moment,
    /// By which interface.
    pub interface: IfIndex,
    /// With which TTL.
    pub ttl: Ttl,
}

/// A packet left by an observed interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// When.
    pub at: Moment,
    /// By which interface.
    pub interface: IfIndex,
    /// With which TTL.
    pub ttl: Ttl,
}

/// Where an observation's tuples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conntrack {
    /// The packet had no entry: nothing on this node rewrites it.
    None,
    /// The entry of the packet.
    Entry,
    /// The packet was exempted from connection tracking (NOTRACK).
    Untracked,
}

/// What conntrack holds of an original tuple. It confirms an entry only after a packet's last
/// hook (`net/netfilter/nf_conntrack_core.c`, `__nf_conntrack_confirm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// None: the opening packet died in a hook, or conntrack had no room for it.
    Absent {
        /// Whether the table was full when this was asked (`nf_conntrack_max`).
        table_full: bool,
    },
    /// An entry: the opening packet passed every hook.
    Present {
        /// Backend → source that the backend sees.
        reply: Tuple,
        /// Whether a reply was seen.
        replied: bool,
    },
}

/// Why the kernel dropped a packet, in its own word: `NETFILTER_DROP`
/// (`include/net/dropreason-core.h`, without the prefix).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReason(pub String);

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It opens it.
    Forward,
    /// The first reply, which accepts the connection.
    Reply,
    /// A RST, or SCTP's ABORT, that answers the opening packet.
    Reset,
    /// An ICMP error about the opening packet.
    IcmpError,
}

/// A packet that left, joined with its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Which kind of packet.
    pub kind: Kind,
    /// Of which connection.
    pub identity: Identity,
    /// Backend → source that the backend sees.
    pub reply: Tuple,
    /// Where the tuples come from.
    pub conntrack: Conntrack,
    /// The packet's own arrival; `None` if this node sent it.
    pub arrival: Option<Arrival>,
    /// How it left.
    pub departure: Departure,
    /// Of an answer that this node sent: the arrival of the opening packet, if that was never
    /// forwarded.
    pub opening: Option<Arrival>,
}

/// One record from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// A packet that left.
    Passage(Passage),
    /// An opening packet that came and never left.
    Arrival {
        /// The connection it wanted to open.
        identity: Identity,
        /// How it came.
        arrival: Arrival,
    },
    /// An answer that came and never left: for a client on this node, or astray.
    AnswerArrival {
        /// Which kind of answer.
        kind: Kind,
        /// The transport protocol. Older recordings hold none but TCP, and do not say so.
        #[serde(default = "tcp")]
        protocol: Protocol,
        /// Who answers → whom; of an ICMP error, as of the answer it stands for.
        reply: Tuple,
        /// As [`Identity::sequence`]: what it acknowledges or quotes.
        sequence: u32,
        /// How it came.
        arrival: Arrival,
    },
}

/// A part of what a client sends first. It goes to the parser, and nowhere else: it is no
/// [`Observation`], and is never recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment<'ring> {
    /// By what the programs know its connection.
    pub key: WaitingKey,
    /// Of which connection; without its zone.
    pub identity: Identity,
    /// Where its bytes belong: 0 is the first that the client sends.
    pub offset: u32,
    /// They.
    pub bytes: &'ring [u8],
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}
