//! How much was found in the ring buffer: who finds much is late.

use std::mem;

/// Bytes that readings found; each may be one of several up to the buffer's end.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Since the end was last reached: so much waited at the same time, or came meanwhile.
    stretch: u64,
    has_ended: bool,
    /// The most since [`Found::most`] was last asked.
    most: u64,
    /// The same of [`Found::most_in_tick`].
    in_tick: u64,
}

impl Found {
    /// A reading found so many bytes; `is_whole`: up to the end.
    pub(super) fn add(&mut self, bytes: u64, is_whole: bool) {
        if mem::replace(&mut self.has_ended, is_whole) {
            self.stretch = 0;
        }
        self.stretch += bytes;
        self.most = self.most.max(self.stretch);
        self.in_tick = self.in_tick.max(self.stretch);
    }

    /// By the last reading and those right before it.
    pub(super) const fn last(&self) -> u64 {
        self.stretch
    }

    /// The most since this was last asked.
    pub(super) const fn most(&mut self) -> u64 {
        mem::replace(&mut self.most, 0)
    }

    /// The most since this was last asked.
    pub(super) const fn most_in_tick(&mut self) -> u64 {
        mem::replace(&mut self.in_tick, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_up_to_the_end_are_one() {
        let mut found = Found::default();
        found.add(100, true);
        assert_eq!(found.last(), 100);
        found.add(1_000, false);
        found.add(1_000, false);
        found.add(10, true);
        assert_eq!(found.last(), 2_010);
        found.add(1, true);
        assert_eq!(found.last(), 1);
        assert_eq!((found.most(), found.most()), (2_010, 0));
        assert_eq!((found.most_in_tick(), found.most_in_tick()), (2_010, 0));
    }
}
