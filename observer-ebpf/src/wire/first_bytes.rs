//! What clients send first, on its way to userspace.

use crate::{Identity, Tuple};

/// So many bytes of what a client sends first are handed to userspace, at most.
pub const PAYLOAD_MAX: u32 = 2_048;

/// So many segments of them: a client that sends byte by byte is not followed to the end.
pub const SEGMENTS_MAX: u32 = 128;

/// Connections whose first bytes are waited for at once: 2 MiB of kernel memory. Those that wait
/// longest make room.
pub const WAITING_MAX: u32 = 1 << 14;

/// The size of the ring buffer of [`Segment`]s in bytes: 500 whole heads between two reads.
pub const SEGMENTS_SIZE: u32 = 1 << 20;

/// Networks whose connections' first bytes may be asked for.
pub const SOURCES_MAX: u32 = 1 << 12;

/// An address in the trie of those networks; its prefix counts the family's bits, too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceKey {
    /// [`crate::FAMILY_IPV4`] or [`crate::FAMILY_IPV6`].
    pub family: u8,
    /// In the form of [`Tuple::source`].
    pub address: [u8; 16],
}

/// Key of the map of connections whose first bytes are waited for: their tuple as one side of the
/// node sees it, before NAT or after.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaitingKey {
    /// As in the header.
    pub tuple: Tuple,
    /// [`crate::FAMILY_IPV4`] or [`crate::FAMILY_IPV6`].
    pub family: u8,
    /// One of the `SIDE_` constants.
    pub side: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// A connection whose first bytes are waited for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which; without its zone.
    pub identity: Identity,
    /// How many bytes were handed on without a gap.
    pub next: u32,
    /// In how many segments.
    pub segments: u32,
}

/// What precedes the bytes of a segment in their ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// By what its connection waits.
    pub key: WaitingKey,
    /// Of which connection; without its zone.
    pub identity: Identity,
    /// Where its bytes belong: 0 is the first that the client sends.
    pub offset: u32,
    /// When it arrived, as [`crate::Arrival::time_ns`].
    pub time_ns: u64,
    /// How many bytes follow: those of the segment that lie within [`PAYLOAD_MAX`].
    pub length: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = {
    assert!(size_of::<SourceKey>() == 17 && align_of::<SourceKey>() == 1);
    assert!(size_of::<WaitingKey>() == 40 && align_of::<WaitingKey>() == 4);
    assert!(size_of::<Waiting>() == 52 && align_of::<Waiting>() == 4);
    assert!(size_of::<Segment>() == 104 && align_of::<Segment>() == 8);
};
