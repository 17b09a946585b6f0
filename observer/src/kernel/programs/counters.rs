//! What the programs counted, and how full their maps are.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::IterableMap as _;
use observer_ebpf::{Arrival, ArrivalKey, Counter, Flow, FlowKey};

use super::{Memory, Programs, ProgramsError, Rings};
use crate::kernel::batch;

/// What counts packets that were passed over: an answer that is waited for may be among them.
const LOST: [Counter; 3] = [
    Counter::OpeningsLost,
    Counter::AnswersLost,
    Counter::Unattended,
];
/// What counts packets of which nothing comes out: those that could not be read, which anybody can
/// send, and the openings that are left aside at a flood. That an answer is missing is not put down
/// to them.
const UNSEEN: [Counter; 3] = [
    Counter::Truncated,
    Counter::ReadsFailed,
    Counter::NotFollowed,
];

/// What counts first bytes that are not handed on although they are asked for.
const FIRST_BYTES_LOST: [Counter; 3] = [
    Counter::SegmentsLost,
    Counter::WaitingLost,
    Counter::Unattended,
];

/// What counts packets of handshakes.
const HANDSHAKES: [Counter; 4] = [
    Counter::ArrivalsWritten,
    Counter::ArrivalsLost,
    Counter::OpeningsLost,
    Counter::NotFollowed,
];

/// What the programs counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; Counter::COUNT as usize]);

/// How full the maps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Arrivals that wait for their egress, of [`super::Sizes::pending`].
    pub arrivals: u64,
    /// Arrivals that the full map let go to make room: written, and neither joined, expired nor
    /// present.
    pub arrivals_evicted: u64,
    /// Entries of UDP flows that are known, of [`super::Sizes::flow_entries`].
    pub flows: u64,
    /// UDP flows that the full map forgot to make room.
    pub flows_evicted: u64,
}

/// Packets that were not told of: connections may have come or been answered unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotTold {
    /// Those that were passed over.
    pub lost: u64,
    /// Those of which nothing comes out.
    pub unseen: u64,
    /// Those with what clients send first, and openings after which nobody looks for it.
    pub first_bytes: u64,
}

impl Programs {
    /// What the maps take of the kernel's memory, as it tells (`kernel/bpf/syscall.c`,
    /// `bpf_map_show_fdinfo`); with the ring buffer that was loaded along.
    pub fn memory(&self, rings: &Rings) -> io::Result<Memory> {
        Memory::of([
            self.arrivals.map().fd().as_fd(),
            self.flows.map().fd().as_fd(),
            rings.observations.as_fd(),
        ])
    }

    /// What the programs counted so far, over all CPUs.
    pub fn counters(&self) -> Result<Counters, ProgramsError> {
        self.counters.read().map_err(|source| ProgramsError::Map {
            map: "COUNTERS",
            source,
        })
    }

    /// How full the maps are, and what they let go. Walks both maps.
    pub fn usage(&self) -> Result<Usage, ProgramsError> {
        // In this order, so that what happens meanwhile makes the evicted less, never more.
        let counters = self.counters()?;
        let written = counters.get(Counter::ArrivalsWritten);
        let joined = counters.get(Counter::ArrivalsJoined);
        let mut arrivals = 0;
        self.walk_arrivals(|_, _| arrivals += 1)?;
        let flows_written = self.counters()?.get(Counter::FlowsWritten);
        let mut flows = 0;
        batch::walk(self.flows.map(), |_: FlowKey, _: Flow| flows += 1).map_err(|source| {
            ProgramsError::Walk {
                map: "FLOWS",
                source,
            }
        })?;
        Ok(Usage {
            arrivals,
            arrivals_evicted: written.saturating_sub(joined + self.expired + arrivals),
            flows,
            flows_evicted: flows_written.saturating_sub(flows),
        })
    }

    pub(super) fn walk_arrivals(
        &self,
        visit: impl FnMut(ArrivalKey, Arrival),
    ) -> Result<(), ProgramsError> {
        batch::walk(self.arrivals.map(), visit).map_err(|source| ProgramsError::Walk {
            map: "ARRIVALS",
            source,
        })
    }

    /// How many packets were not told of so far, though they should have been.
    pub fn not_told(&self, counters: &Counters) -> NotTold {
        NotTold {
            lost: counters.sum(&LOST),
            unseen: counters.sum(&UNSEEN),
            first_bytes: match self.payload {
                Some(_) => counters.sum(&FIRST_BYTES_LOST),
                None => 0,
            },
        }
    }
}

impl Counters {
    /// One of them.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// How many packets of handshakes the programs had to do with so far, beside those that this
    /// node sent.
    pub fn handshakes(&self) -> u64 {
        self.sum(&HANDSHAKES)
    }

    pub(super) const fn of(counters: [u64; Counter::COUNT as usize]) -> Self {
        Self(counters)
    }

    pub(super) const fn all(&mut self) -> &mut [u64; Counter::COUNT as usize] {
        &mut self.0
    }

    fn sum(&self, counters: &[Counter]) -> u64 {
        counters.iter().map(|&counter| self.get(counter)).sum()
    }
}
