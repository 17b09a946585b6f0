//! How large the maps are that grow with traffic, and what they take of the kernel's memory.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::EbpfLoader;
use observer_ebpf::{
    ARRIVALS_MAX, FLOW_ENTRIES, FLOWS_MAX, OBSERVATIONS_SIZE, openings_mark, wake_mark,
};
use serde::Serialize;

use crate::kernel::memory;

/// How large the maps are that grow with traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Packets that open or answer connections and have arrived, and not left.
    pub pending: u32,
    /// UDP flows that are known.
    pub udp_flows: u32,
    /// Of the ring buffer, in bytes: a power of two, and whole pages (`kernel/bpf/ringbuf.c`,
    /// `ringbuf_map_alloc`).
    pub ring_buffer: u32,
}

/// What the maps take of the kernel's memory, in bytes, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of them.
    pub all: u64,
    /// That of what is pending.
    pub pending: u64,
    /// That of UDP flows.
    pub udp_flows: u64,
    /// The ring buffer.
    pub ring_buffer: u64,
}

/// What a ring buffer's size makes of the programs' globals, which must live as long as the loader.
pub(super) struct Marks {
    openings: u64,
    wake: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pending: ARRIVALS_MAX,
            udp_flows: FLOWS_MAX / FLOW_ENTRIES,
            ring_buffer: OBSERVATIONS_SIZE,
        }
    }
}

impl Sizes {
    /// Entries of the map of UDP flows.
    pub const fn flow_entries(&self) -> u32 {
        self.udp_flows.saturating_mul(FLOW_ENTRIES)
    }

    pub(super) const fn marks(&self) -> Marks {
        Marks {
            openings: openings_mark(self.ring_buffer),
            wake: wake_mark(self.ring_buffer),
        }
    }

    /// Has the maps made so large.
    pub(super) fn set<'a>(&self, marks: &'a Marks, loader: &mut EbpfLoader<'a>) {
        loader
            .map_max_entries("ARRIVALS", self.pending)
            .map_max_entries("FLOWS", self.flow_entries())
            .map_max_entries("OBSERVATIONS", self.ring_buffer)
            .override_global("OPENINGS_MARK", &marks.openings, true)
            .override_global("WAKE_MARK", &marks.wake, true);
    }
}

impl Memory {
    /// That of these maps, and of all that this process holds.
    pub(super) fn of([pending, udp_flows, ring_buffer]: [BorrowedFd<'_>; 3]) -> io::Result<Self> {
        let of = |map: BorrowedFd<'_>| {
            let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
            let (_, bytes) = memory::map(&fs::read_to_string(path)?)
                .ok_or_else(|| io::Error::other("the kernel does not tell what a map takes"))?;
            Ok::<_, io::Error>(bytes)
        };
        Ok(Self {
            all: memory::of_maps()?,
            pending: of(pending)?,
            udp_flows: of(udp_flows)?,
            ring_buffer: of(ring_buffer)?,
        })
    }
}
