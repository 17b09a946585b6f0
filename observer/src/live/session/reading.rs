//! What is read: observations, first bytes, what never left; and what the observer makes of it.

use std::collections::VecDeque;
use std::mem;

use aya::maps::{MapData, RingBuf};
use observer_ebpf::{ArrivalKey, Counter, ROLE_OPENING};

use super::{Read, Segments, Session};
use crate::kernel::programs::Counters;
use crate::live::Sink;
use crate::live::clock::now;
use crate::live::first_bytes::Told;
use crate::live::sampling::Load;
use crate::notice::say;
use crate::observation::Conntrack::Untracked;
use crate::observation::{Entry, Identity, Moment, Observation, Segment};
use crate::observe::{Event, Output, Whose};
use crate::payload::Reading;

/// After this long an answer that arrived and did not leave is taken as meant for this node: the
/// way through a node takes microseconds, mostly. One that leaves later is told all the same.
const ANSWER_DELIVERED_NS: u64 = 50_000_000;
/// Observations read at a stretch, so that a flood of them keeps nothing else waiting: a whole
/// ring buffer of the usual size.
const READ_MAX: u32 = 8_192;
/// Of each item in a ring buffer, beside what is in it (`BPF_RINGBUF_HDR_SZ`).
const ITEM_HEADER_BYTES: u64 = 8;

impl<S: Sink> Session<S> {
    /// Before the silence of a connection is judged: its answer may be among what was lost.
    pub(super) fn notice_losses(&mut self) -> anyhow::Result<Counters> {
        let counters = self.parts.programs.counters()?;
        let not_told = self.parts.programs.not_told(&counters);
        let before = mem::replace(&mut self.not_told, not_told);
        let undecodable = mem::replace(&mut self.undecodable, self.lost.undecodable);
        let now = now()?;
        let written = counters.get(Counter::WaitingWritten);
        if not_told.first_bytes > before.first_bytes || self.crowded.may_push_out(now, written) {
            self.feed(Event::FirstBytesLost(now))?;
        }
        if not_told.lost > before.lost {
            self.feed(Event::Lost(now))?;
        } else if self.parts.asking.whose != Whose::Off
            && (not_told.unseen > before.unseen || self.lost.undecodable > undecodable)
        {
            self.feed(Event::Unseen)?;
        }
        Ok(counters)
    }

    /// Follows fewer openings of too many, and all again after that. Beside the tick, which a flood
    /// of observations keeps waiting.
    pub(super) fn sample(&mut self) -> anyhow::Result<()> {
        let now = now()?;
        if !self.sampler.is_due(now) {
            return Ok(());
        }
        let counters = self.notice_losses()?;
        let load = Load {
            packets: counters.handshakes(),
            lost: self.not_told.lost,
            used: self.found.most_in_tick(),
        };
        let Some(change) = self.sampler.step(now, load) else {
            return Ok(());
        };
        self.parts.programs.sample(change.sampling)?;
        match change.told {
            None => {}
            Some(1) => say("every connection is followed again"),
            Some(one_in) => say(&format!(
                "warning: more connections open than can be followed: now one in {one_in} is"
            )),
        }
        // Of one that was followed the answer may not be.
        self.feed(Event::Lost(now))
    }

    /// Reads observations, [`READ_MAX`] at most; before them what clients sent first so far.
    pub(super) fn read(
        &mut self,
        ring: &mut RingBuf<MapData>,
        segments: &mut Segments,
    ) -> anyhow::Result<Read> {
        if self.parts.asking.whose != Whose::Off {
            // Before what came after it: a whole ring is more than is read at a stretch, and a proxy
            // may speak for one that was lost.
            self.notice_losses()?;
        }
        let mut until = now()?;
        let whole = Read::Whole(until);
        let mut bytes = 0;
        // A proxy speaks for what came shortly before, and of one client a few hundred are remembered:
        // where much waits to be read, what it said must not wait for all of that.
        self.read_segments(segments)?;
        for _ in 0..READ_MAX {
            let Some(item) = ring.next() else {
                self.found.add(bytes, true);
                self.sample()?;
                return Ok(whole);
            };
            bytes += ITEM_HEADER_BYTES + item.len() as u64;
            match Observation::decode(&item) {
                Ok(observation) => {
                    if let Observation::Passage(passage) = observation {
                        until = passage.departure.at;
                    }
                    self.feed(Event::Observation(observation))?;
                }
                Err(_) => self.lost.undecodable += 1,
            }
        }
        self.found.add(bytes, false);
        self.sample()?;
        Ok(Read::Until(until))
    }

    /// Reads what clients sent first, [`READ_MAX`] segments at most.
    pub(super) fn read_segments(&mut self, segments: &mut Segments) -> anyhow::Result<()> {
        let Some(segments) = segments else {
            return Ok(());
        };
        for _ in 0..READ_MAX {
            let Some(item) = segments.get_mut().next() else {
                return Ok(());
            };
            let Ok(segment) = Segment::decode(&item) else {
                self.lost.undecodable += 1;
                continue;
            };
            let Segment { key, identity, .. } = segment;
            let reading = match self.first_bytes.segment(segment) {
                Told::Nothing => continue,
                Told::SoFar(reason) => Reading::Nothing(reason),
                Told::All(reading) => {
                    self.parts.programs.let_go(&key);
                    reading
                }
            };
            // Before anything is done that may wait.
            drop(item);
            self.feed(Event::FirstBytes(identity, reading))?;
        }
        Ok(())
    }

    /// Hands on what arrived at least `answer_timeout_ns` before `now` and never left.
    pub(super) fn expire(
        &mut self,
        Moment(now): Moment,
        answer_timeout_ns: u64,
    ) -> anyhow::Result<()> {
        let until = |key: &ArrivalKey| {
            let age = if key.role == ROLE_OPENING {
                answer_timeout_ns
            } else {
                ANSWER_DELIVERED_NS.min(answer_timeout_ns)
            };
            Moment(now.saturating_sub(age))
        };
        for observation in self.parts.programs.expire(until)? {
            match observation {
                Ok(observation) => self.feed(Event::Observation(observation))?,
                Err(_) => self.lost.undecodable += 1,
            }
        }
        Ok(())
    }

    /// Hands an event to the observer, and what conntrack answers to what that asks.
    pub(super) fn feed(&mut self, event: Event) -> anyhow::Result<()> {
        // Mostly one, and nothing is asked.
        let mut events = VecDeque::new();
        let mut next = Some(event);
        while let Some(event) = next {
            if let Some(recorder) = &mut self.parts.recorder {
                recorder.event(&event)?;
            }
            if let Event::Observation(Observation::Passage(passage)) = &event
                && (passage.identity.zone != 0 || passage.conntrack == Untracked)
                && let Some(conntrack) = &mut self.conntrack
            {
                conntrack.tracks_partly();
            }
            for output in self.parts.observer.handle(event) {
                match output {
                    Output::Record(opened_at, record) => self.parts.sink.take(opened_at, record)?,
                    Output::Ask(identity) => {
                        let entry = self.look_up(&identity);
                        // Taken out in any case: it is of this connection only.
                        let reason = self.parts.programs.drop_reason(&identity);
                        let reason = reason.filter(|_| matches!(entry, Some(Entry::Absent { .. })));
                        events.push_back(Event::LookedUp(identity, entry, reason));
                    }
                }
            }
            next = events.pop_front();
        }
        Ok(())
    }

    pub(super) fn look_up(&mut self, identity: &Identity) -> Option<Entry> {
        let conntrack = self.conntrack.as_mut()?;
        if self.look_ups_left == 0 {
            self.lost.not_looked_up += 1;
            return None;
        }
        self.look_ups_left -= 1;
        let answer = conntrack.look_up(identity);
        self.lost.not_looked_up += u64::from(answer.is_err());
        answer.ok().flatten()
    }
}
