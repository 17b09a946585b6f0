//! How often the ring buffer is read: at once while little comes, for many at a time when much does.
//!
//! A reading costs some microseconds whatever is read: the wake-up, the look at what else there is,
//! the writing. So readings are rationed. A few may follow upon each other at once, which is all
//! that a quiet node needs; a busy one waits a little and reads more.

use std::time::Duration;

use tokio::time::Instant;

/// From one reading to the next, on a busy node. A record is late by so much at most. The ring
/// buffer holds what comes in ten times as long at 30,000 connections a second.
const PAUSE: Duration = Duration::from_millis(10);
/// So many readings may come at once after quiet.
const AT_ONCE: u32 = 8;

/// When the next reading may be.
#[derive(Debug)]
pub(super) struct Pace {
    /// Up to when readings are used up: each takes a pause.
    used: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { used: now }
    }

    /// When the next reading may be; a time that is over: at once.
    pub(super) fn next(&self) -> Instant {
        let ahead = PAUSE * (AT_ONCE - 1);
        self.used.checked_sub(ahead).unwrap_or(self.used)
    }

    /// One is done.
    pub(super) fn read(&mut self, now: Instant) {
        self.used = self.used.max(now) + PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many readings there are in a second, if something comes after each of these times.
    fn readings(interval: Duration) -> u32 {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut number = 0;
        let mut now = start;
        while now < start + Duration::from_secs(1) {
            now = now.max(pace.next());
            pace.read(now);
            number += 1;
            now += interval;
        }
        number
    }

    #[test]
    fn a_quiet_node_waits_for_nothing_and_a_busy_one_reads_a_hundred_times_a_second() {
        assert_eq!(readings(Duration::from_millis(100)), 10);
        assert_eq!(readings(Duration::from_millis(20)), 50);
        let busy = readings(Duration::from_micros(10));
        assert!((100..=100 + AT_ONCE + 1).contains(&busy), "{busy}");
    }

    #[test]
    fn after_quiet_a_few_readings_follow_upon_each_other() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..AT_ONCE {
            assert!(pace.next() <= start);
            pace.read(start);
        }
        assert_eq!(pace.next(), start + PAUSE);
        let later = start + Duration::from_secs(9);
        pace.read(later);
        assert!(pace.next() <= later);
    }
}
