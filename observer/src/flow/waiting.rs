//! The connections that wait for their answer: each once, found by its identity or by its answer.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use slab::Slab;

use super::Translation;
use super::packed::PackedIdentity;
use super::pending::{AnswerKey, Pending};
use crate::observation::Moment;

/// So much room is kept when nothing waits.
const KEPT: usize = 4_096;

/// A place among those that wait.
pub(super) type Place = usize;

/// Connections that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    slots: Slab<Pending>,
    by_identity: HashTable<Place>,
    /// Of two that are known by one answer, the later.
    by_answer: HashTable<Place>,
    /// None was opened before; unless none waits.
    oldest: Moment,
    hasher: RandomState,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            slots: Slab::new(),
            by_identity: HashTable::new(),
            by_answer: HashTable::new(),
            oldest: Moment(u64::MAX),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.slots.iter().map(|(_, pending)| pending)
    }

    /// Whether one may have been opened at this moment or before.
    pub(super) fn may_be_as_old_as(&self, moment: Moment) -> bool {
        self.oldest <= moment
    }

    pub(super) fn find(&self, key: &PackedIdentity) -> Option<Place> {
        let slots = &self.slots;
        let hash = self.hasher.hash_one(key);
        let is_it = |place: &Place| slots[*place].key == *key;
        self.by_identity.find(hash, is_it).copied()
    }

    pub(super) fn find_by_answer(&self, answer: &AnswerKey) -> Option<Place> {
        let slots = &self.slots;
        let hash = self.hasher.hash_one(answer);
        let is_it = |place: &Place| slots[*place].answer() == *answer;
        self.by_answer.find(hash, is_it).copied()
    }

    pub(super) fn get(&self, place: Place) -> &Pending {
        &self.slots[place]
    }

    /// To change what it is not known by; see [`Waiting::translate`].
    pub(super) fn get_mut(&mut self, place: Place) -> &mut Pending {
        &mut self.slots[place]
    }

    /// Adds one whose identity none has.
    pub(super) fn insert(&mut self, pending: Pending) {
        self.oldest = self.oldest.min(pending.opened_at);
        let hash = self.hasher.hash_one(pending.key);
        let place = self.slots.insert(pending);
        let Self {
            slots,
            by_identity,
            hasher,
            ..
        } = self;
        let hash_of = |place: &Place| hasher.hash_one(slots[*place].key);
        by_identity.insert_unique(hash, place, hash_of);
        self.know_by_answer(place);
    }

    /// One was translated anew: it is known by another answer.
    pub(super) fn translate(&mut self, place: Place, zone: u16, translation: Translation) {
        self.forget_answer(place);
        self.slots[place].translate(zone, translation);
        self.know_by_answer(place);
    }

    pub(super) fn remove(&mut self, place: Place) -> Pending {
        self.forget_answer(place);
        let hash = self.hasher.hash_one(self.slots[place].key);
        if let Ok(found) = self.by_identity.find_entry(hash, |other| *other == place) {
            found.remove();
        }
        let pending = self.slots.remove(place);
        if self.slots.is_empty() {
            self.oldest = Moment(u64::MAX);
        }
        pending
    }

    /// The places of those that were opened at this moment or before, oldest first.
    pub(super) fn as_old_as(&mut self, moment: Moment) -> Vec<Place> {
        if !self.may_be_as_old_as(moment) {
            self.shrink();
            return Vec::new();
        }
        let mut others = Moment(u64::MAX);
        let mut old = Vec::new();
        for (place, Pending { opened_at, .. }) in &self.slots {
            if *opened_at <= moment {
                old.push((*opened_at, place));
            } else {
                others = others.min(*opened_at);
            }
        }
        // Those that are found are about to be removed.
        self.oldest = old.iter().fold(others, |oldest, (at, _)| oldest.min(*at));
        old.sort_unstable();
        old.into_iter().map(|(_, place)| place).collect()
    }

    /// After a flood its room is given back.
    fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            *self = Self::new();
        }
    }

    fn know_by_answer(&mut self, place: Place) {
        let Self {
            slots,
            by_answer,
            hasher,
            ..
        } = self;
        let answer = slots[place].answer();
        let hash = hasher.hash_one(answer);
        if let Some(other) = by_answer.find_mut(hash, |other| slots[*other].answer() == answer) {
            *other = place;
        } else {
            let hash_of = |place: &Place| hasher.hash_one(slots[*place].answer());
            by_answer.insert_unique(hash, place, hash_of);
        }
    }

    /// The later one of two is forgotten too.
    fn forget_answer(&mut self, place: Place) {
        let slots = &self.slots;
        let answer = slots[place].answer();
        let hash = self.hasher.hash_one(answer);
        let is_it = |other: &Place| slots[*other].answer() == answer;
        if let Ok(found) = self.by_answer.find_entry(hash, is_it) {
            found.remove();
        }
    }
}
