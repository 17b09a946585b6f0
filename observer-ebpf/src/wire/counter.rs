//! What the programs count.

/// Index into the per-CPU array of counters. Each only ever grows.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Arrivals written to the map.
    ArrivalsWritten = 0,
    /// Arrivals that an egress found and took out.
    ArrivalsJoined = 1,
    /// Retransmissions: an arrival of the same identity was there already.
    ArrivalsRepeated = 2,
    /// Arrivals the map refused.
    ArrivalsLost = 3,
    /// Observations handed to userspace.
    ObservationsSent = 4,
    /// Opening packets, or this node's own answers to them, that found the ring buffer full, or as
    /// they arrived [`crate::openings_mark`] of it used: a connection each, unless the packet passed several
    /// devices, or comes again.
    OpeningsLost = 5,
    /// Packets whose headers ended early.
    Truncated = 6,
    /// Reads of kernel memory that failed.
    ReadsFailed = 7,
    /// Packets not looked at, because userspace had been silent for [`crate::SILENCE_NS`].
    Unattended = 8,
    /// Answers to forwarded opening packets that found the ring buffer full.
    AnswersLost = 9,
    /// Entries added to the map of known UDP flows.
    FlowsWritten = 10,
    /// Entries that the map of known UDP flows refused.
    FlowsLost = 11,
    /// Connections whose first bytes were to be waited for.
    WaitingWritten = 12,
    /// Those that the map refused.
    WaitingLost = 13,
    /// Segments handed to userspace.
    SegmentsSent = 14,
    /// Segments that found their ring buffer full.
    SegmentsLost = 15,
    /// Opening packets that were not followed, by [`crate::Sampling`]: as they arrived, or, if this node
    /// sent them, as they left. Of UDP each datagram of such a flow.
    NotFollowed = 16,
}

impl Counter {
    /// How many there are: the size of the array.
    pub const COUNT: u32 = 17;
}
