//! Where the thread that observes leaves its records, for those who ask for them.
//!
//! Nobody there waits for a reader: what is recent is kept in a ring, and whoever follows has a queue
//! of its own, which is bounded. Who falls behind has missed something, and is told so.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::followed::{Batch, Followed, Teller, follow};
use super::handover::Succession;
use super::metrics::SharedMetrics;
use crate::live::{Sink, Standing};
use crate::observation::Moment;
use crate::record::filter::Filter;
use crate::record::{self, Record};

/// Recent records that are kept.
const RECENT: usize = 1_024;
/// Records that are counted before they go to the hub, at most: a hundred kilobytes or two of lines,
/// which each who follows may hold while it is written.
const COUNTED: usize = 128;
/// Records that wait for the word of the agent before this one.
const HELD: usize = 16_384;
/// How often maps are counted, which walks them.
const STANDING: Duration = Duration::from_secs(5);

/// What both threads hold.
#[derive(Debug)]
pub(super) struct Hub {
    told: Mutex<Told>,
    standing: watch::Sender<Standing>,
}

#[derive(Debug, Default)]
struct Told {
    recent: VecDeque<Arc<Record>>,
    followers: Vec<Teller>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            told: Mutex::default(),
            standing: watch::Sender::default(),
        }
    }

    /// The recent records, the oldest first.
    pub(super) fn recent(&self) -> Vec<Arc<Record>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.recent.iter().cloned().collect()
    }

    /// The same, and all from then on.
    pub(super) fn follow(&self, filter: &Filter) -> (Vec<Arc<Record>>, Followed) {
        let (teller, followed) = follow(filter);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nothing comes they would only grow in number.
        told.followers.retain(Teller::is_there);
        // While nothing is added.
        told.followers.push(teller);
        (told.recent.iter().cloned().collect(), followed)
    }

    /// How the run stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Adds what came at once, at once: whoever follows is woken for all of it.
    fn add(&self, records: &mut Vec<Arc<Record>>) {
        if records.is_empty() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { recent, followers } = &mut *told;
        followers.retain(Teller::is_there);
        if !followers.is_empty() {
            let in_parts = followers.iter().any(Teller::in_parts);
            let batch = Arc::new(Batch::of(records, in_parts));
            for follower in followers {
                follower.tell(&batch);
            }
        }
        let room = RECENT.saturating_sub(records.len());
        let old = recent.len().saturating_sub(room);
        recent.drain(..old);
        recent.extend(records.drain(..));
    }
}

/// From when on connections are this agent's to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Another agent still counts; when it ends it says up to when it did.
    NotYet,
    /// From this one on: those opened before are the other's.
    From(Moment),
}

/// Takes the records of a run.
#[derive(Debug)]
pub(super) struct Counting {
    hub: Arc<Hub>,
    metrics: SharedMetrics,
    anonymize: bool,
    turn: watch::Receiver<Turn>,
    succession: Option<Succession>,
    /// When the agent before this one last observed, as far as that was kept.
    last_breath: Option<Moment>,
    attached_at: Option<Moment>,
    is_gap_told: bool,
    held: VecDeque<(Option<Moment>, Arc<Record>)>,
    /// What is counted and not in the hub yet.
    counted: Vec<Arc<Record>>,
    /// What is opened from then on is the next agent's.
    until: Option<Moment>,
}

impl Counting {
    pub(super) fn new(
        hub: Arc<Hub>,
        metrics: SharedMetrics,
        anonymize: bool,
        (succession, turn): (Succession, watch::Receiver<Turn>),
        last_breath: Option<Moment>,
    ) -> Self {
        Self {
            hub,
            metrics,
            anonymize,
            turn,
            succession: Some(succession),
            last_breath,
            attached_at: None,
            is_gap_told: false,
            held: VecDeque::new(),
            counted: Vec::new(),
            until: None,
        }
    }

    fn count(&mut self, mut record: Arc<Record>) {
        self.metrics.count(&record);
        if self.anonymize {
            record::anonymize(Arc::make_mut(&mut record));
        }
        self.counted.push(record);
        if self.counted.len() >= COUNTED {
            self.hub.add(&mut self.counted);
        }
    }

    /// Once it is this agent's turn, what was held is counted, but for what the one before has.
    fn take_turn(&mut self) -> Option<Moment> {
        let Turn::From(from) = *self.turn.borrow() else {
            return None;
        };
        self.tell_gap(from);
        for (opened_at, record) in mem::take(&mut self.held) {
            if opened_at >= Some(from) {
                self.count(record);
            }
        }
        Some(from)
    }

    /// From the other's last word on, or from the last breath of one that is gone; not known if
    /// there was neither.
    fn tell_gap(&mut self, from: Moment) {
        let Some(attached_at) = self.attached_at.filter(|_| !self.is_gap_told) else {
            return;
        };
        self.is_gap_told = true;
        let last = if from == Moment(0) {
            self.last_breath
        } else {
            Some(from)
        };
        if let Some(last) = last {
            self.metrics.gap(attached_at.nanoseconds_since(last));
        }
    }
}

impl Sink for Counting {
    fn take(&mut self, opened_at: Option<Moment>, record: Arc<Record>) -> anyhow::Result<()> {
        if self.until.is_some_and(|until| opened_at >= Some(until)) {
            return Ok(());
        }
        match self.take_turn() {
            None => {
                // The oldest are the likeliest to be counted by the other.
                if self.held.len() == HELD {
                    self.held.pop_front();
                }
                self.held.push_back((opened_at, record));
            }
            Some(from) if opened_at < Some(from) => {}
            Some(_) => self.count(record),
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.hub.add(&mut self.counted);
        Ok(())
    }

    fn is_done(&self) -> bool {
        false
    }

    fn attached(&mut self, at: Moment) {
        self.attached_at = Some(at);
        self.take_turn();
    }

    fn ends(&mut self, at: Moment) -> bool {
        self.until = Some(at);
        let succession = self.succession.take();
        succession.is_some_and(|succession| succession.hand_over(at))
    }

    fn standing_interval(&self) -> Option<Duration> {
        Some(STANDING)
    }

    fn standing(&mut self, standing: &Standing) {
        self.take_turn();
        self.metrics.stands(standing);
        self.hub.standing.send_replace(standing.clone());
    }
}
