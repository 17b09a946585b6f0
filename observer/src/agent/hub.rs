//! Where the thread that observes leaves its records, for those who ask for them.
//!
//! It never waits for a reader: what is recent is kept in a ring, and whoever follows reads from
//! another one. Who falls a whole ring behind has missed something, and is told so.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::metrics::SharedMetrics;
use crate::live::{Sink, Standing};
use crate::observation::Moment;
use crate::record::{self, Record};

/// Recent records that are kept.
const RECENT: usize = 1_024;
/// Records that a follower may be behind; held only while somebody follows.
const FOLLOWED: usize = 8_192;
/// Records that wait for the word of the agent before this one.
const HELD: usize = 16_384;
/// How often maps are counted, which walks them.
const STANDING: Duration = Duration::from_secs(5);

/// What both threads hold.
#[derive(Debug)]
pub(super) struct Hub {
    recent: Mutex<VecDeque<Arc<Record>>>,
    followed: broadcast::Sender<Arc<Record>>,
    standing: watch::Sender<Standing>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            recent: Mutex::default(),
            followed: broadcast::Sender::new(FOLLOWED),
            standing: watch::Sender::default(),
        }
    }

    /// The recent records, the oldest first, and all from then on.
    pub(super) fn records(&self) -> (Vec<Arc<Record>>, broadcast::Receiver<Arc<Record>>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // While nothing is added.
        let followed = self.followed.subscribe();
        (recent.iter().cloned().collect(), followed)
    }

    /// How the run stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    fn add(&self, record: Arc<Record>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&record));
        // Nobody follows: no error.
        let _followers = self.followed.send(record);
    }
}

/// From when on connections are this agent's to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Another agent still counts; when it ends it says up to when it did.
    NotYet,
    /// From this one on: those opened before are the other's.
    From(Moment),
    /// The other ended without a word: what came out by then is its own.
    Found,
}

/// Takes the records of a run.
#[derive(Debug)]
pub(super) struct Counting {
    hub: Arc<Hub>,
    metrics: SharedMetrics,
    anonymize: bool,
    turn: watch::Receiver<Turn>,
    held: VecDeque<(Option<Moment>, Box<Record>)>,
    /// What is opened from then on is the next agent's.
    until: Option<Moment>,
}

impl Counting {
    pub(super) fn new(
        hub: Arc<Hub>,
        metrics: SharedMetrics,
        anonymize: bool,
        turn: watch::Receiver<Turn>,
    ) -> Self {
        Self {
            hub,
            metrics,
            anonymize,
            turn,
            held: VecDeque::new(),
            until: None,
        }
    }

    fn count(&self, mut record: Box<Record>) {
        self.metrics.count(&record);
        if self.anonymize {
            record::anonymize(&mut record);
        }
        self.hub.add(Arc::from(record));
    }

    /// Once it is this agent's turn, what was held is counted, but for what the one before has.
    fn let_go(&mut self, turn: Turn) {
        let from = match turn {
            Turn::NotYet => return,
            Turn::From(from) => Some(from),
            Turn::Found => None,
        };
        for (opened_at, record) in mem::take(&mut self.held) {
            if from.is_some() && opened_at >= from {
                self.count(record);
            }
        }
    }
}

impl Sink for Counting {
    fn take(&mut self, opened_at: Option<Moment>, record: Box<Record>) -> anyhow::Result<()> {
        let turn = *self.turn.borrow();
        self.let_go(turn);
        if self.until.is_some_and(|until| opened_at >= Some(until)) {
            return Ok(());
        }
        match turn {
            Turn::NotYet => {
                // The oldest are the likeliest to be counted by the other.
                if self.held.len() == HELD {
                    self.held.pop_front();
                }
                self.held.push_back((opened_at, record));
            }
            Turn::From(from) if opened_at < Some(from) => {}
            Turn::From(_) | Turn::Found => self.count(record),
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        false
    }

    fn ends(&mut self, at: Moment) {
        self.until = Some(at);
    }

    fn standing_interval(&self) -> Option<Duration> {
        Some(STANDING)
    }

    fn standing(&mut self, standing: &Standing) {
        let turn = *self.turn.borrow();
        self.let_go(turn);
        self.metrics.stands(standing);
        self.hub.standing.send_replace(standing.clone());
    }
}
