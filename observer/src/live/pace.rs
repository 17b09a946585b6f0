//! How often the ring buffer is read: at once while little comes, for many at a time when much does.
//!
//! A reading costs some ten microseconds whatever is read: the wake-up, the look at what else there
//! is, the writing. So readings are rationed. A few may follow upon each other at once, which is all
//! that a quiet node needs; a busy one waits a little and reads more.

use std::thread;
use std::time::{Duration, Instant};

/// From one reading to the next, on a busy node. A record is late by so much at most. The ring
/// buffer holds what comes within seven pauses at 50,000 connections a second.
const PAUSE: Duration = Duration::from_millis(10);
/// So many readings may come at once after quiet.
const AT_ONCE: u32 = 8;

/// When the next reading may be.
#[derive(Debug)]
pub(super) struct Pace {
    /// Up to when readings are used up: each takes a pause.
    used: Option<Instant>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { used: None }
    }

    /// One is done.
    pub(super) fn read(&mut self) {
        self.read_at(Instant::now());
    }

    /// Waits until the next may be.
    ///
    /// The thread sleeps, and with it all that it does, which can wait for so long. A timer of the
    /// runtime would wake it thrice: for itself, for having been set, and for the first observation
    /// that comes meanwhile.
    pub(super) fn wait(&self) {
        let pause = self.pause_at(Instant::now());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }

    fn read_at(&mut self, now: Instant) {
        self.used = Some(self.used.map_or(now, |used| used.max(now)) + PAUSE);
    }

    fn pause_at(&self, now: Instant) -> Duration {
        let ahead = PAUSE * (AT_ONCE - 1);
        self.used
            .map_or(Duration::ZERO, |used| used.saturating_duration_since(now))
            .saturating_sub(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many readings there are in a second, if something comes so long after each.
    fn readings(interval: Duration) -> u32 {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut number = 0;
        let mut now = start;
        while now < start + Duration::from_secs(1) {
            pace.read_at(now);
            now += pace.pause_at(now) + interval;
            number += 1;
        }
        number
    }

    #[test]
    fn a_quiet_node_waits_for_nothing_and_a_busy_one_reads_a_hundred_times_a_second() {
        assert_eq!(readings(Duration::from_millis(100)), 10);
        assert_eq!(readings(Duration::from_millis(20)), 50);
        let busy = readings(Duration::from_micros(10));
        assert!((95..=100 + AT_ONCE).contains(&busy), "{busy}");
    }

    #[test]
    fn after_quiet_a_few_readings_follow_upon_each_other() {
        let start = Instant::now();
        let mut pace = Pace::new();
        for _ in 1..AT_ONCE {
            pace.read_at(start);
            assert_eq!(pace.pause_at(start), Duration::ZERO);
        }
        pace.read_at(start);
        assert_eq!(pace.pause_at(start), PAUSE);
        let later = start + Duration::from_secs(9);
        pace.read_at(later);
        assert_eq!(pace.pause_at(later), Duration::ZERO);
    }
}
