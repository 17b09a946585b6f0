//! What a live run missed, and how full what it keeps in the kernel is.

use observer_ebpf::Counter;

use super::Sampled;
use crate::kernel::programs::{Counters, Usage};

/// What userspace could not keep or find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Connections let go because too many waited for their answer.
    pub pending_full: u64,
    /// Observations that no version of the programs writes.
    pub undecodable: u64,
    /// Arrivals that the full map let go to make room.
    pub evicted: u64,
    /// UDP flows that the full map forgot to make room.
    pub flows_evicted: u64,
    /// Connections that were judged before anything was known of the cluster, or of its change: too
    /// many waited for that.
    pub waiting_full: u64,
    /// Connections whose outcome conntrack was not asked for, or did not tell: too many at once.
    pub not_looked_up: u64,
}

/// What a live run missed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed {
    /// In the kernel.
    pub counters: Counters,
    /// In userspace.
    pub lost: Lost,
    /// Of how many openings one was followed.
    pub sampled: Sampled,
}

/// How a run stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What was missed so far.
    pub missed: Missed,
    /// How full the maps are.
    pub usage: Usage,
    /// The most that was found in the ring buffer at one reading since the last time, in bytes.
    pub ring_buffer_used: u64,
    /// The names of the interfaces that are observed.
    pub interfaces: Vec<String>,
}

/// One way in which observations are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// As metrics name it.
    pub reason: &'static str,
    /// For people.
    pub text: &'static str,
    /// How many were lost so.
    pub count: u64,
}

impl Missed {
    /// Every way in which observations can be lost.
    pub fn losses(&self) -> [Loss; 15] {
        let Lost {
            pending_full,
            undecodable,
            evicted,
            // Nothing is lost by that, unless the flow goes on.
            flows_evicted: _,
            waiting_full,
            not_looked_up,
        } = self.lost;
        let count = |counter| self.counters.get(counter);
        [
            (
                "ring_buffer_full",
                "ring buffer full",
                count(Counter::OpeningsLost),
            ),
            (
                "answer_ring_buffer_full",
                "ring buffer full for an answer",
                count(Counter::AnswersLost),
            ),
            (
                "not_followed",
                "not followed, of too many",
                count(Counter::NotFollowed),
            ),
            (
                "arrivals_refused",
                "arrivals refused by the map",
                count(Counter::ArrivalsLost),
            ),
            (
                "arrivals_evicted",
                "arrivals let go by the full map",
                evicted,
            ),
            (
                "flows_refused",
                "UDP flows refused by the map",
                count(Counter::FlowsLost),
            ),
            (
                "headers_cut_short",
                "headers cut short",
                count(Counter::Truncated),
            ),
            (
                "kernel_reads_failed",
                "kernel reads failed",
                count(Counter::ReadsFailed),
            ),
            (
                "suspended",
                "observer suspended",
                count(Counter::Unattended),
            ),
            (
                "first_bytes_ring_buffer_full",
                "ring buffer full for first bytes",
                count(Counter::SegmentsLost),
            ),
            (
                "first_bytes_refused",
                "first bytes not waited for",
                count(Counter::WaitingLost),
            ),
            ("pending_full", "too many pending", pending_full),
            (
                "waiting_full",
                "judged without waiting for the cluster",
                waiting_full,
            ),
            ("undecodable", "undecodable", undecodable),
            ("not_looked_up", "not looked up", not_looked_up),
        ]
        .map(|(reason, text, count)| Loss {
            reason,
            text,
            count,
        })
    }
}
