//! How often the ring buffer is read: at once while little comes, for many at a time when much does.
//!
//! A reading costs some ten microseconds whatever is read: the wake-up, the look at what else there
//! is, the writing. So readings are rationed. A few may follow upon each other at once, which is all
//! that a quiet node needs; a busy one waits a little and reads more.

use std::thread;
use std::time::{Duration, Instant};

/// From one reading to the next, on a busy node. A record is late by so much at most. The ring
/// buffer, at its usual size, holds what comes meanwhile at 140,000 connections a second.
const PAUSE: Duration = Duration::from_millis(20);
/// The same on one so busy that a reading finds much.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
/// Much is such a part of the ring buffer.
const MUCH: u64 = 8;
/// So many readings may come at once after quiet.
const AT_ONCE: u32 = 8;

/// When the next reading may be.
#[derive(Debug)]
pub(super) struct Pace {
    /// So many bytes are much.
    much: u64,
    pause: Duration,
    /// Up to when readings are used up: each takes a pause.
    used: Option<Instant>,
}

impl Pace {
    /// `ring_buffer`: its size in bytes.
    pub(super) fn new(ring_buffer: u32) -> Self {
        Self {
            much: u64::from(ring_buffer) / MUCH,
            pause: PAUSE,
            used: None,
        }
    }

    /// One is done, which found so many bytes.
    pub(super) fn read(&mut self, bytes: u64) {
        self.read_at(Instant::now(), bytes);
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

    fn read_at(&mut self, now: Instant, bytes: u64) {
        self.pause = if bytes > self.much {
            SHORT_PAUSE
        } else {
            PAUSE
        };
        let used = self.used.map_or(now, |used| used.max(now));
        // A pause that is shorter now is so at once.
        self.used = Some(used.min(now + self.ahead()) + self.pause);
    }

    fn pause_at(&self, now: Instant) -> Duration {
        self.used
            .map_or(Duration::ZERO, |used| used.saturating_duration_since(now))
            .saturating_sub(self.ahead())
    }

    /// So far ahead of now may readings be used up without a wait.
    fn ahead(&self) -> Duration {
        self.pause * (AT_ONCE - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u32 = 1 << 20;
    const MANY: u64 = 1 << 18;

    /// How many readings there are in a second, if something comes so long after each and each finds
    /// so many bytes.
    fn readings(interval: Duration, bytes: u64) -> u32 {
        let start = Instant::now();
        let mut pace = Pace::new(RING);
        let mut number = 0;
        let mut now = start;
        while now < start + Duration::from_secs(1) {
            pace.read_at(now, bytes);
            now += pace.pause_at(now) + interval;
            number += 1;
        }
        number
    }

    #[test]
    fn a_quiet_node_waits_for_nothing_and_a_busy_one_reads_fifty_times_a_second() {
        assert_eq!(readings(Duration::from_millis(100), 1), 10);
        assert_eq!(readings(Duration::from_millis(25), 1), 40);
        let busy = readings(Duration::from_micros(10), 1);
        assert!((45..=50 + AT_ONCE).contains(&busy), "{busy}");
    }

    #[test]
    fn the_more_is_found_the_oftener_it_is_looked() {
        let busy = readings(Duration::from_micros(10), MANY);
        assert!((95..=100 + AT_ONCE).contains(&busy), "{busy}");
    }

    #[test]
    fn what_was_quiet_does_not_wait_longer_when_much_comes() {
        let mut now = Instant::now();
        let mut pace = Pace::new(RING);
        for number in 0..200 {
            let bytes = if number < 100 { 1 } else { MANY };
            pace.read_at(now, bytes);
            let waits = pace.pause_at(now);
            assert!(waits <= if number < 100 { PAUSE } else { SHORT_PAUSE });
            now += waits;
        }
    }

    #[test]
    fn after_quiet_a_few_readings_follow_upon_each_other() {
        let start = Instant::now();
        let mut pace = Pace::new(RING);
        for _ in 1..AT_ONCE {
            pace.read_at(start, 1);
            assert_eq!(pace.pause_at(start), Duration::ZERO);
        }
        pace.read_at(start, 1);
        assert_eq!(pace.pause_at(start), PAUSE);
        let later = start + Duration::from_secs(9);
        pace.read_at(later, 1);
        assert_eq!(pace.pause_at(later), Duration::ZERO);
    }
}
