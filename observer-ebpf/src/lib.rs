//! The wire types that the TC programs and userspace share.
//!
//! Everything here crosses the kernel boundary as bytes: map keys, map values, ring buffer
//! records and the globals that userspace sets before it loads the object. So every type is
//! `repr(C)`, `Copy`, and free of implicit padding (asserted below, in both builds), holds no
//! enum and no `bool`, and keeps addresses and ports exactly as described at each field.
//!
//! Protocols are IANA numbers throughout: TCP (6), UDP (17) and SCTP (132). TCP and SCTP tell an
//! opening packet by its flags or chunk; of UDP the first datagram of a flow opens it, and
//! [`FlowKey`] is what tells a first one from a later one.

#![no_std]

use core::mem::offset_of;

mod wire {
    pub(crate) mod counter;
    pub(crate) mod first_bytes;
    pub(crate) mod kernel;
}

pub use wire::counter::Counter;
pub use wire::first_bytes::{
    PAYLOAD_MAX, SEGMENTS_MAX, SEGMENTS_SIZE, SOURCES_MAX, Segment, SourceKey, WAITING_MAX,
    Waiting, WaitingKey,
};
pub use wire::kernel::{
    DropLayout, KernelLayout, LAYOUT_KEY, NO_ZONES, NfConn, NfConntrackTuple, NfConntrackZone,
};

/// One direction of a connection: who sends to whom.
///
/// The twin of the kernel's `nf_conntrack_tuple` without its family and protocol, which
/// [`Identity`] holds once for both directions. Aligned so that the programs copy words, not bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address in network order; an IPv4 address fills the first four bytes, the rest is zero.
    pub source: [u8; 16],
    /// Destination address, in the form of `source`.
    pub destination: [u8; 16],
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
}

impl Tuple {
    /// The same connection as its other end sends it.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// [`Identity::family`] of IPv4.
pub const FAMILY_IPV4: u8 = 4;
/// [`Identity::family`] of IPv6.
pub const FAMILY_IPV6: u8 = 6;

/// What makes a connection itself: retransmissions of its opening packet share it, a new
/// connection on the same addresses and ports does not.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The conntrack original tuple, or the packet's own where conntrack has no entry.
    pub original: Tuple,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Conntrack zone of the original direction; zero for most. Only what egress reports has it:
    /// see [`ArrivalKey`].
    pub zone: u16,
    /// TCP: the client's initial sequence number; SCTP: its initiate tag; host order. NAT changes
    /// neither. UDP has nothing of the kind: zero.
    pub sequence: u32,
}

/// [`ArrivalKey::role`]: a packet that opens a connection; of UDP, the first of a flow.
pub const ROLE_OPENING: u32 = 0;
/// [`ArrivalKey::role`]: a packet that accepts a connection.
pub const ROLE_ACCEPT: u32 = 1;
/// [`ArrivalKey::role`]: a RST (SCTP: an ABORT) that answers an opening packet.
pub const ROLE_RESET: u32 = 2;
/// [`ArrivalKey::role`]: an ICMP error about an opening packet.
pub const ROLE_ICMP_ERROR: u32 = 3;

/// Key of the map of arrivals.
///
/// Its zone is always zero. A rule gives a packet its zone, after the ingress hook: an arrival
/// cannot know it, and a key that held it would never be found again. TCP and SCTP lose nothing by
/// that: two packets of one tuple and one initial sequence number are the same packet, in whatever
/// zones. Two UDP flows of one tuple, in two zones at once, are taken for one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrivalKey {
    /// Of an opening packet: the connection's identity. Of an answer, which arrives before
    /// conntrack knows it: the tuple of what the backend sends (an ICMP error quotes its
    /// reverse), and the client's sequence number that it acknowledges or quotes.
    pub identity: Identity,
    /// One of the `ROLE_` constants.
    pub role: u32,
}

/// The ring buffer's size in bytes, unless userspace sets another: room for 7,700 observations between
/// two reads of userspace.
pub const OBSERVATIONS_SIZE: u32 = 1 << 20;

/// Connections whose opening packet or answer arrived and has not left: those under way, and
/// those to the host itself until userspace takes them out. 8 MiB of kernel memory, unless userspace
/// sets another number.
pub const ARRIVALS_MAX: u32 = 1 << 16;

/// A packet seen at the ingress of an observed interface. All zero means none was.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Nanoseconds since boot, suspend not counted (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// Interface index, in the network namespace of the program.
    pub ifindex: u32,
    /// TTL (IPv4) or hop limit (IPv6) on arrival.
    pub ttl: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Key of the map of known UDP flows: what one hook sees of one.
///
/// A flow has up to four: its datagrams and its replies, each as they arrive, before NAT, and as
/// they leave, after it. So a later datagram is known by its header alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// As in the header, at this hook.
    pub tuple: Tuple,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// One of the `SIDE_` constants.
    pub side: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Of what leaves towards a backend: the interface, since the first datagram is looked at on
    /// every device that it passes. Else zero.
    pub ifindex: u32,
}

/// [`FlowKey::side`]: ingress.
pub const SIDE_IN: u8 = 1;
/// [`FlowKey::side`]: egress.
pub const SIDE_OUT: u8 = 2;

/// The last datagram that a hook saw of a UDP flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// When, as [`Arrival::time_ns`].
    pub time_ns: u64,
    /// The interface.
    pub ifindex: u32,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// One of the `FLOW_` constants.
    pub state: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// [`Flow::state`]: it is one towards a backend, and the datagram has left, if it did not come to
/// stay.
pub const FLOW_OPENED: u8 = 1;
/// [`Flow::state`]: the same, and a later one has arrived since.
pub const FLOW_CONTINUED: u8 = 2;
/// [`Flow::state`]: replies are expected here, and none has come.
pub const FLOW_AWAITED: u8 = 3;
/// [`Flow::state`]: replies pass here.
pub const FLOW_REPLIED: u8 = 4;

/// Entries of the map of known UDP flows: sixteen thousand flows. What it lets go is the longest
/// silent, mostly over. 8 MiB of kernel memory, unless userspace sets another number.
pub const FLOWS_MAX: u32 = 1 << 16;

/// Entries that a UDP flow has, at most: see [`FlowKey`].
pub const FLOW_ENTRIES: u32 = 4;

/// A UDP flow that was silent in both directions for so long is over: the next datagram opens
/// another. This is how long conntrack keeps an entry without replies
/// (`net/netfilter/nf_conntrack_proto_udp.c`, `udp_timeouts`; `nf_conntrack_udp_timeout`). One
/// with replies it may keep longer, and what it still holds is never called new.
pub const FLOW_IDLE_NS: u64 = 30_000_000_000;

/// The only element of the map `SAMPLING`, as one number so that it changes at once: how many
/// openings are followed, while there are too many.
///
/// Of all openings one in 2^shift is followed, chosen by what both hooks read in the header of
/// every packet of its handshake: so both follow a connection, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// The shift at ingress: 0 to [`Sampling::SHIFT_MAX`].
    pub ingress: u8,
    /// The shift at egress: for a moment after a change the lesser of before and after.
    pub egress: u8,
    /// Whether the shift changed a moment ago: then what came by an interface and has no arrival is
    /// one that ingress did not follow.
    pub changing: bool,
}

impl Sampling {
    /// One in 65,536 openings.
    pub const SHIFT_MAX: u8 = 16;

    /// As the map has it.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.ingress as u64 | (self.egress as u64) << 8 | (self.changing as u64) << 16
    }

    /// The reverse of [`Sampling::to_word`].
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "byte by byte")]
    pub const fn from_word(word: u64) -> Self {
        Self {
            ingress: word as u8,
            egress: (word >> 8) as u8,
            changing: word >> 16 & 1 != 0,
        }
    }
}

/// Openings that arrive find a ring buffer of so many bytes full when so much of it is used: the rest is
/// for the answers to those that are followed, and for what this node sends itself.
#[must_use]
pub const fn openings_mark(size: u32) -> u64 {
    size as u64 / 4 * 3
}

/// Userspace is woken by an answer, which ends a connection's wait, and by an opening only when so
/// much of a ring buffer of so many bytes is used; else it looks by itself, soon enough.
#[must_use]
pub const fn wake_mark(size: u32) -> u64 {
    size as u64 / 4
}

/// And no more often than this: waking costs more than all else that becomes of a connection.
pub const WAKE_NS: u64 = 10_000_000;

/// So long after an arrival was refused, what leaves without one may be it.
pub const REFUSED_NS: u64 = 1_000_000_000;

/// The only element of the map `REFUSED`, written at ingress while the ring buffer is full.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When an arrival was last refused, as [`Arrival::time_ns`].
    pub refused_ns: u64,
    /// When one was last noted, within [`REFUSED_NS`] of a refusal.
    pub noted_ns: u64,
}

/// Words of the map of UDP ports that are observed: one bit for each of the 65536.
pub const PORT_WORDS: u32 = 1 << 10;

/// [`Observation::kind`]: an opening packet left by an observed interface.
pub const KIND_FORWARD: u8 = 1;
/// [`Observation::kind`]: the first answer that accepts a connection (SYN+ACK, INIT ACK, the
/// first reply datagram) left this node.
pub const KIND_REPLY: u8 = 2;
/// [`Observation::kind`]: a RST or an ABORT that answers an opening packet left this node.
pub const KIND_RESET: u8 = 3;
/// [`Observation::kind`]: an ICMP error about an opening packet left this node.
pub const KIND_ICMP_ERROR: u8 = 4;

/// [`Observation::conntrack`]: `skb->_nfct` was empty; the tuples are the packet's own.
pub const CONNTRACK_NONE: u8 = 0;
/// [`Observation::conntrack`]: the tuples are those of the conntrack entry.
pub const CONNTRACK_ENTRY: u8 = 1;
/// [`Observation::conntrack`]: the packet was exempted (NOTRACK); the tuples are the packet's own.
pub const CONNTRACK_UNTRACKED: u8 = 2;

/// One record of the ring buffer: what the egress program saw, with the arrival it joined.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    /// The connection.
    pub identity: Identity,
    /// The conntrack reply tuple: backend → source that the backend sees.
    pub reply: Tuple,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// One of the `CONNTRACK_` constants.
    pub conntrack: u8,
    /// TTL or hop limit with which the packet left; of an ICMP error, its own.
    pub ttl: u8,
    /// Zero.
    pub padding: u8,
    /// The interface by which it left.
    pub ifindex: u32,
    /// When it left: nanoseconds since boot, as [`Arrival::time_ns`].
    pub time_ns: u64,
    /// The arrival of this very packet; of a forward, that is the opening packet's. All zero if
    /// it never arrived: this node sent it.
    pub arrival: Arrival,
    /// Of a reply or refusal that this node sent: the arrival of the opening packet, if that was
    /// never forwarded. Else zero.
    pub opening: Arrival,
}

/// Entries of the map of drop reasons, each there until its connection's silence is judged. Half a
/// MiB of kernel memory.
pub const DROPS_MAX: u32 = 1 << 12;

/// How long after its last heartbeat an observer is taken for dead: its programs stop, and the
/// next observer removes their filters.
pub const SILENCE_NS: u64 = 10_000_000_000;

const _: () = {
    assert!(size_of::<Tuple>() == 36 && align_of::<Tuple>() == 4);
    assert!(size_of::<Identity>() == 44 && align_of::<Identity>() == 4);
    // The programs write these as words: which bytes of them are which field must not change.
    assert!(offset_of!(Tuple, destination) == 16);
    assert!(offset_of!(Tuple, source_port) == 32 && offset_of!(Tuple, destination_port) == 34);
    assert!(offset_of!(Identity, family) == 36 && offset_of!(Identity, protocol) == 37);
    assert!(offset_of!(Identity, zone) == 38 && offset_of!(Identity, sequence) == 40);
    assert!(size_of::<ArrivalKey>() == 48 && align_of::<ArrivalKey>() == 4);
    assert!(size_of::<Arrival>() == 16 && align_of::<Arrival>() == 8);
    assert!(size_of::<FlowKey>() == 44 && align_of::<FlowKey>() == 4);
    assert!(size_of::<Flow>() == 16 && align_of::<Flow>() == 8);
    assert!(size_of::<Observation>() == 128 && align_of::<Observation>() == 8);
    assert!(size_of::<Refused>() == 16 && align_of::<Refused>() == 8);
};

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "aya::Pod is the promise that any bytes are a value"
)]
mod user {
    // SAFETY: repr(C), Copy, integers only, no padding (asserted above).
    unsafe impl aya::Pod for super::ArrivalKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Arrival {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Observation {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::KernelLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::DropLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SourceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::WaitingKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Waiting {}
}
