//! What the cluster was, when.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::observation::Moment;

/// How many snapshots are kept: each may be as large as the cluster.
const KEPT: usize = 3;
/// kube-proxy follows a change of the objects within this time, before or after the observer has
/// heard of it (`pkg/proxy/runner`: it programs once a second at most, and large rule sets take
/// their time).
const SETTLING_NS: u64 = 5_000_000_000;

/// The last few snapshots of the cluster.
#[derive(Debug, Default)]
pub(super) struct History {
    /// With the moment since when each holds; the newest last.
    snapshots: VecDeque<(Moment, Arc<Snapshot>)>,
    /// Since when the objects may have changed unnoticed.
    away_since: Option<Moment>,
}

impl History {
    /// The cluster as it was from the beginning.
    pub(super) fn new(snapshot: Option<Arc<Snapshot>>) -> Self {
        Self {
            snapshots: snapshot
                .map(|first| (Moment(0), first))
                .into_iter()
                .collect(),
            away_since: None,
        }
    }

    /// From this moment on it is another.
    pub(super) fn add(&mut self, since: Moment, snapshot: Arc<Snapshot>) {
        // The first tells of before, too: there is nothing else that does.
        let since = if self.is_empty() { Moment(0) } else { since };
        self.snapshots.push_back((since, snapshot));
        while self.snapshots.len() > KEPT {
            self.snapshots.pop_front();
        }
    }

    /// The objects are current, or were last known to be at this moment.
    pub(super) fn heard(&mut self, away_since: Option<Moment>) {
        self.away_since = away_since;
    }

    /// Whether nothing is known of the cluster.
    pub(super) fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// What held at a moment; of before all that are kept, the oldest.
    pub(super) fn at(&self, moment: Moment) -> Option<&Snapshot> {
        let place = self.place(moment);
        self.snapshots.get(place).map(|(_, snapshot)| &**snapshot)
    }

    /// What kube-proxy may have gone by at a moment instead, the nearest first: what held shortly
    /// before, and what held soon after.
    pub(super) fn around(&self, moment: Moment) -> impl Iterator<Item = &Snapshot> {
        let place = self.place(moment);
        let before = (1..=place).rev().map_while(move |place| {
            let (ended, _) = self.snapshots.get(place)?;
            (moment.nanoseconds_since(*ended) <= SETTLING_NS).then_some(place - 1)
        });
        let after = (place + 1..self.snapshots.len()).take_while(move |place| {
            let began = self.snapshots.get(*place).map(|(began, _)| *began);
            began.is_some_and(|began| began.nanoseconds_since(moment) <= SETTLING_NS)
        });
        before
            .chain(after)
            .filter_map(|place| self.snapshots.get(place))
            .map(|(_, snapshot)| &**snapshot)
    }

    /// How old the objects' last sign of life was at a moment, in seconds; `None` if they were
    /// current.
    pub(super) fn stale_s(&self, moment: Moment) -> Option<u64> {
        let since = self.away_since.filter(|since| *since <= moment)?;
        Some(moment.nanoseconds_since(since) / 1_000_000_000)
    }

    fn place(&self, moment: Moment) -> usize {
        let later = self
            .snapshots
            .partition_point(|(since, _)| *since <= moment);
        later.saturating_sub(1)
    }
}
