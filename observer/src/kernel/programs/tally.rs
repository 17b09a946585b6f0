//! How counters are read, and what they save.

use std::cell::Cell;
use std::time::{Duration, Instant};

use aya::maps::{IterableMap as _, MapData, MapError, PerCpuArray};
use aya::util::nr_cpus;
use observer_ebpf::Counter;

use super::Counters;
use crate::kernel::batch;

/// However sure it is that nothing waits, the map is looked at after so long.
const LOOK: Duration = Duration::from_secs(1);

/// Reads them.
pub(super) struct Reader {
    map: PerCpuArray<MapData, u64>,
    cpus: usize,
    /// Whether the kernel reads all at once.
    at_once: Cell<bool>,
}

impl Reader {
    pub(super) fn new(map: PerCpuArray<MapData, u64>) -> Self {
        let cpus = nr_cpus().ok();
        Self {
            map,
            cpus: cpus.unwrap_or_default(),
            at_once: Cell::new(cpus.is_some()),
        }
    }

    /// Over all CPUs.
    pub(super) fn read(&self) -> Result<Counters, MapError> {
        if self.at_once.get() {
            match batch::sums(self.map.map(), self.cpus) {
                Ok(sums) => return Ok(Counters::of(sums)),
                // As kernels before 5.13.
                Err(_) => self.at_once.set(false),
            }
        }
        let mut counters = Counters::default();
        for (index, counter) in (0..Counter::COUNT).zip(counters.all()) {
            *counter = self.map.get(&index, 0)?.iter().sum();
        }
        Ok(counters)
    }
}

/// Whether anything is in the map of arrivals: to walk it costs the more the larger it is, however
/// empty, and on a quiet node that would be most of what there is to do.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// Arrivals that the full map let go, when it was last known.
    evicted: u64,
    walked_at: Option<Instant>,
}

impl Outstanding {
    /// Whether the map is to be walked. `expired`: how many were taken out so far.
    pub(super) fn is_due(&mut self, counters: &Counters, expired: u64, now: Instant) -> bool {
        let is_long_ago = |at: Instant| now.saturating_duration_since(at) >= LOOK;
        let is_due =
            outside(counters, expired) != self.evicted || self.walked_at.is_none_or(is_long_ago);
        if is_due {
            self.walked_at = Some(now);
        }
        is_due
    }

    /// So many were found, before any was taken out, between these two readings.
    pub(super) fn walked(&mut self, [before, after]: [&Counters; 2], expired: u64, present: u64) {
        let outside = outside(before, expired);
        if outside == self::outside(after, expired)
            && before.get(Counter::ArrivalsWritten) == after.get(Counter::ArrivalsWritten)
        {
            self.evicted = outside.saturating_sub(present);
        }
    }
}

/// Arrivals that were written, and neither joined nor taken out: present or evicted.
fn outside(counters: &Counters, expired: u64) -> u64 {
    let written = counters.get(Counter::ArrivalsWritten);
    let joined = counters.get(Counter::ArrivalsJoined);
    written.saturating_sub(joined + expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(written: u64, joined: u64) -> Counters {
        let mut counters = Counters::default();
        counters.all()[Counter::ArrivalsWritten as usize] = written;
        counters.all()[Counter::ArrivalsJoined as usize] = joined;
        counters
    }

    #[test]
    fn an_empty_map_is_looked_at_once_a_second_and_another_at_every_tick() {
        let mut outstanding = Outstanding::default();
        let start = Instant::now();
        let mut walks = |written, joined, expired| {
            let ticks = (0..20).map(|tick| start + Duration::from_millis(100) * tick);
            let counters = counters(written, joined);
            ticks
                .filter(|now| outstanding.is_due(&counters, expired, *now))
                .count()
        };
        assert_eq!(walks(0, 0, 0), 2);
        assert_eq!(walks(9, 8, 0), 20);
        assert_eq!(walks(9, 8, 1), 0);
    }

    #[test]
    fn what_the_full_map_let_go_is_not_waited_for() {
        let mut outstanding = Outstanding::default();
        let now = Instant::now();
        let many = counters(100, 40);
        assert!(outstanding.is_due(&many, 10, now));
        // Another came in between: nothing is known.
        outstanding.walked([&many, &counters(101, 40)], 10, 20);
        assert!(outstanding.is_due(&many, 10, now));
        outstanding.walked([&many, &many], 10, 20);
        // The twenty are still there.
        assert!(outstanding.is_due(&many, 10, now));
        assert!(!outstanding.is_due(&many, 30, now));
        assert!(outstanding.is_due(&counters(101, 40), 30, now));
    }
}
