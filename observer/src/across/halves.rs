//! Records that wait for their other half.
//!
//! PURE: records and moments in, records out; the joining itself is [`record::join`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::record::{self, Key, Record};

/// Records that wait at a time.
const WAITING_MAX: usize = 10_000;
/// Records that wait under one key: what fits so often is none of a connection's halves.
const OF_KEY_MAX: usize = 8;
/// Deadlines that are remembered, those of what was joined since included.
const DEADLINES_MAX: usize = 10 * WAITING_MAX;

/// What waits.
#[derive(Debug)]
pub struct Halves {
    /// How long a record waits.
    patience: Duration,
    waiting: HashMap<Key, Waiting>,
    /// Oldest first; some need wait no longer.
    deadlines: VecDeque<(Instant, Key)>,
    /// How many records wait.
    number: usize,
    /// How many could not wait, since too many did.
    impatient: u64,
    /// How many waited in vain.
    alone: u64,
}

/// Records that may be halves of one connection.
#[derive(Debug)]
struct Waiting {
    /// Of the oldest of them; the others are from about then, or ports are used again.
    until: Instant,
    records: Vec<Record>,
}

impl Halves {
    /// `patience`: how long the other half may take.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting: HashMap::new(),
            deadlines: VecDeque::new(),
            number: 0,
            impatient: 0,
            alone: 0,
        }
    }

    /// Takes a record; gives those that are whole now: it with its other half, or itself if it has
    /// none to wait for. `nodes`: those that are followed.
    pub fn add(&mut self, now: Instant, record: Record, nodes: &HashSet<String>) -> Vec<Record> {
        let Some(key) = record::half(&record).filter(|_| may_come(&record, nodes)) else {
            return vec![record];
        };
        let until = now + self.patience;
        let waiting = self.waiting.entry(key).or_insert_with(|| {
            self.deadlines.push_back((until, key));
            Waiting {
                until,
                records: Vec::new(),
            }
        });
        if waiting.records.len() == OF_KEY_MAX {
            return vec![record];
        }
        waiting.records.push(record);
        self.number += 1;
        let mut whole = Vec::new();
        if waiting.records.len() > 1 {
            let before = waiting.records.len();
            let (joined, halves) = record::join(std::mem::take(&mut waiting.records))
                .into_iter()
                .partition(|record| record.path.len() > 1);
            whole = joined;
            waiting.records = halves;
            self.number -= before - waiting.records.len();
            if waiting.records.is_empty() {
                self.waiting.remove(&key);
            }
        }
        while self.number > WAITING_MAX || self.deadlines.len() > DEADLINES_MAX {
            let before = self.number;
            whole.extend(self.next_due(None));
            self.impatient += u64::try_from(before - self.number).unwrap_or(u64::MAX);
        }
        whole
    }

    /// Those that have waited in vain.
    pub fn due(&mut self, now: Instant) -> Vec<Record> {
        let mut due = Vec::new();
        while self.next_deadline().is_some_and(|until| until <= now) {
            due.extend(self.next_due(Some(now)));
        }
        self.alone += due.len() as u64;
        due
    }

    /// All that wait.
    pub fn end(&mut self) -> Vec<Record> {
        let mut rest = Vec::new();
        while !self.deadlines.is_empty() {
            rest.extend(self.next_due(None));
        }
        rest
    }

    /// When the next may be due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(until, _)| *until)
    }

    /// How many did not wait, since too many did.
    pub fn impatient(&self) -> u64 {
        self.impatient
    }

    /// How many waited in vain: their other half was not told although its node is followed, or
    /// fits more than one.
    pub fn alone(&self) -> u64 {
        self.alone
    }

    /// Those of the next deadline, if that has come.
    fn next_due(&mut self, now: Option<Instant>) -> Vec<Record> {
        let Some((_, key)) = self.deadlines.pop_front() else {
            return Vec::new();
        };
        // What was joined is gone, and others may wait under its key by now.
        let is_due = |waiting: &Waiting| now.is_none_or(|now| waiting.until <= now);
        if !self.waiting.get(&key).is_some_and(is_due) {
            return Vec::new();
        }
        let records = self.waiting.remove(&key).map(|waiting| waiting.records);
        let records = records.unwrap_or_default();
        self.number -= records.len();
        records
    }
}

/// Whether a node that is followed may have the other half.
fn may_come(record: &Record, nodes: &HashSet<String>) -> bool {
    match record::node_of_other_half(record) {
        Some(node) => nodes.contains(node),
        None => nodes.iter().any(|node| **node != *record.node),
    }
}

#[cfg(test)]
mod tests;
