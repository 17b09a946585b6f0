//! What the cluster was, when.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::observation::Moment;

/// How many snapshots are kept at most: there is one a second. They share what did not change.
const KEPT: usize = 32;
/// How many times away from the API are remembered.
const AWAYS_KEPT: usize = 8;
/// kube-proxy follows a change of the objects within this time, before or after the observer has
/// heard of it (`pkg/proxy/runner`: it programs once a second at most, and large rule sets take
/// their time).
const SETTLING_NS: u64 = 5_000_000_000;

/// The snapshots of the cluster that connections may still have gone by.
#[derive(Debug, Default)]
pub(super) struct History {
    /// With the moment since when each holds; the newest last.
    snapshots: VecDeque<(Moment, Arc<Snapshot>)>,
    /// How long one is needed after another took its place.
    needed_ns: u64,
    /// When the API was not heard: from, and up to; the last may go on.
    aways: VecDeque<(Moment, Option<Moment>)>,
}

impl History {
    /// The cluster as it was from the beginning. `oldest_ns`: how old a connection may be when it
    /// is judged.
    pub(super) fn new(snapshot: Option<Arc<Snapshot>>, oldest_ns: u64) -> Self {
        Self {
            snapshots: snapshot
                .map(|first| (Moment(0), first))
                .into_iter()
                .collect(),
            needed_ns: oldest_ns.saturating_add(SETTLING_NS),
            aways: VecDeque::new(),
        }
    }

    /// From this moment on it is another.
    pub(super) fn add(&mut self, since: Moment, snapshot: Arc<Snapshot>) {
        // The first tells of before, too: there is nothing else that does.
        let since = if self.is_empty() { Moment(0) } else { since };
        self.snapshots.push_back((since, snapshot));
        // The second in line took the place of the first.
        while self.snapshots.len() > KEPT
            || self
                .snapshots
                .get(1)
                .is_some_and(|(replaced, _)| since.nanoseconds_since(*replaced) > self.needed_ns)
        {
            self.snapshots.pop_front();
        }
    }

    /// The objects are current as of now, or were last known to be at this moment.
    pub(super) fn heard(&mut self, now: Moment, away_since: Option<Moment>) {
        let goes_on = self.aways.back_mut().filter(|(_, until)| until.is_none());
        match (away_since, goes_on) {
            (Some(since), None) => {
                self.aways.push_back((since, None));
                if self.aways.len() > AWAYS_KEPT {
                    self.aways.pop_front();
                }
            }
            (Some(since), Some(away)) => away.0 = away.0.min(since),
            (None, Some(away)) => away.1 = Some(now),
            (None, None) => {}
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.snapshots.len()
    }

    /// Whether nothing is known of the cluster.
    pub(super) fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// What holds now.
    pub(super) fn latest(&self) -> Option<&Snapshot> {
        self.snapshots.back().map(|(_, snapshot)| &**snapshot)
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
        let mut aways = self.aways.iter();
        let (since, _) = aways
            .find(|(since, until)| *since <= moment && until.is_none_or(|until| moment < until))?;
        Some(moment.nanoseconds_since(*since) / 1_000_000_000)
    }

    fn place(&self, moment: Moment) -> usize {
        let later = self
            .snapshots
            .partition_point(|(since, _)| *since <= moment);
        later.saturating_sub(1)
    }
}
