//! Of how many openings one is followed, while there are too many.
//!
//! A flood must neither take the node's processors nor leave everything else unreported. So where
//! more opens than can be followed, the programs are told to follow one in 2^k, and the rest costs a
//! look at its header. Which those are is the programs' affair ([`observer_ebpf::Sampling`]).
//!
//! PURE: what was counted and what time it is are passed in.

use observer_ebpf::Sampling;

use crate::observation::Moment;

/// Packets of handshakes a second that are no flood: 50,000 connections with their answers, and
/// some that are repeated.
const LIMIT: u64 = 120_000;
/// Those a second that are followed of a flood: a hundredth of a processor.
const BUDGET: u64 = 2_000;
/// A limit is not lowered further: what so few overwhelm was held up by something else.
const LIMIT_MIN: u64 = 2 * BUDGET;
/// How often it is looked.
const LOOK_NS: u64 = 90_000_000;
/// What was done shows in the ring buffer only when that was read.
const RAISE_NS: u64 = 300_000_000;
/// The shift is lowered by one, so long after its last change.
const LOWER_NS: u64 = 500_000_000;
/// So long after a change a packet may lie between both hooks.
const CHANGING_NS: u64 = 1_000_000_000;
/// After so long without need a limit that was lowered is raised again.
const FORGIVE_NS: u64 = 30_000_000_000;

/// What the kernel's side counted so far, and what was found in its ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Packets of handshakes that it looked at, followed or not.
    pub(super) packets: u64,
    /// Observations that found the ring buffer full.
    pub(super) lost: u64,
    /// The most bytes that one reading found since the last time.
    pub(super) used: u64,
}

/// What was sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Of 2^`shift` openings one is followed now.
    pub shift: u8,
    /// Since when it is more than one.
    pub since: Option<Moment>,
    /// The greatest shift that there was.
    pub most: u8,
    /// For how long it was more than one, all in all.
    pub for_ns: u64,
}

impl Sampled {
    /// Of so many openings one is followed now.
    pub const fn one_in(&self) -> u32 {
        1 << self.shift
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// For the programs.
    pub(super) sampling: Sampling,
    /// For people: from now on one in so many is followed.
    pub(super) told: Option<u32>,
}

/// Decides.
#[derive(Debug)]
pub(super) struct Sampler {
    /// A ring buffer found so full is read too slowly.
    full: u64,
    sampled: Sampled,
    sampling: Sampling,
    changed_at: Moment,
    last: Option<(Moment, Load)>,
    limit: u64,
}

impl Sampler {
    /// Of a ring buffer of so many bytes.
    pub(super) fn new(ring_buffer: u32) -> Self {
        Self {
            full: u64::from(ring_buffer) / 2,
            sampled: Sampled::default(),
            sampling: Sampling::default(),
            changed_at: Moment(0),
            last: None,
            limit: LIMIT,
        }
    }

    /// How it stands at `now`.
    pub(super) fn sampled(&self, now: Moment) -> Sampled {
        let until_now = self.sampled.since.map(|since| now.nanoseconds_since(since));
        Sampled {
            for_ns: self.sampled.for_ns + until_now.unwrap_or(0),
            ..self.sampled
        }
    }

    /// Whether it is time to look at what was counted.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.last
            .is_none_or(|(last, _)| now.nanoseconds_since(last) >= LOOK_NS)
    }

    /// What follows from what was counted by `now`.
    pub(super) fn step(&mut self, now: Moment, load: Load) -> Option<Change> {
        let (then, before) = self.last.replace((now, load))?;
        let elapsed = now.nanoseconds_since(then).max(1);
        let packets = load.packets.saturating_sub(before.packets);
        let rate = u128::from(packets) * 1_000_000_000 / u128::from(elapsed);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let is_late = load.lost > before.lost || load.used > self.full;
        let shift = self.shift(now, rate, is_late);
        if shift == self.sampled.shift {
            return self.settle(now);
        }
        let told = self.set(now, shift);
        Some(Change {
            sampling: self.sampling,
            told,
        })
    }

    /// The shift that holds from `now` on.
    fn shift(&mut self, now: Moment, rate: u64, is_late: bool) -> u8 {
        let shift = self.sampled.shift;
        let since = now.nanoseconds_since(self.changed_at);
        let enough = shift_for(rate);
        if shift == 0 {
            if is_late && enough > 0 {
                // It cannot take what it should, on this machine.
                self.limit = (rate / 2).clamp(LIMIT_MIN, self.limit.max(LIMIT_MIN));
            } else if since >= FORGIVE_NS && self.limit < LIMIT {
                self.limit = (self.limit * 2).min(LIMIT);
                self.changed_at = now;
            }
            return if is_late || rate > self.limit {
                enough
            } else {
                0
            };
        }
        if enough > shift + 1 {
            return enough;
        }
        if is_late {
            let more = since >= RAISE_NS && enough >= shift;
            return if more {
                (shift + 1).min(Sampling::SHIFT_MAX)
            } else {
                shift
            };
        }
        let is_over = rate < self.limit / 4 * 3;
        if since >= LOWER_NS && (is_over || enough < shift) {
            shift - 1
        } else {
            shift
        }
    }

    fn set(&mut self, now: Moment, shift: u8) -> Option<u32> {
        let Sampled {
            shift: before,
            since,
            most,
            for_ns,
        } = &mut self.sampled;
        let begins_or_ends = *before == 0 || shift == 0;
        *before = shift;
        *most = (*most).max(shift);
        if shift == 0 {
            let since = since.take().unwrap_or(now);
            *for_ns += now.nanoseconds_since(since);
        } else {
            since.get_or_insert(now);
        }
        self.changed_at = now;
        self.sampling = Sampling {
            ingress: shift,
            egress: if self.sampling.changing {
                self.sampling.egress.min(shift)
            } else {
                self.sampling.ingress.min(shift)
            },
            changing: true,
        };
        begins_or_ends.then_some(1 << shift)
    }

    /// Both hooks do alike again.
    fn settle(&mut self, now: Moment) -> Option<Change> {
        if !self.sampling.changing || now.nanoseconds_since(self.changed_at) < CHANGING_NS {
            return None;
        }
        self.sampling = Sampling {
            egress: self.sampling.ingress,
            changing: false,
            ..self.sampling
        };
        Some(Change {
            sampling: self.sampling,
            told: None,
        })
    }
}

/// The least shift by which so many packets a second are no more than [`BUDGET`].
fn shift_for(rate: u64) -> u8 {
    (0..Sampling::SHIFT_MAX)
        .find(|shift| rate >> shift <= BUDGET)
        .unwrap_or(Sampling::SHIFT_MAX)
}

#[cfg(test)]
mod tests {
    use observer_ebpf::OBSERVATIONS_SIZE;

    use super::*;

    const TICK_NS: u64 = 100_000_000;

    /// A sampler that is told of a rate for some ticks.
    struct Run {
        sampler: Sampler,
        now: Moment,
        load: Load,
    }

    impl Run {
        fn new() -> Self {
            let mut run = Self {
                sampler: Sampler::new(OBSERVATIONS_SIZE),
                now: Moment(TICK_NS),
                load: Load::default(),
            };
            assert_eq!(run.tick(0, 0, 0), None);
            run
        }

        /// A tick with so many packets a second.
        fn tick(&mut self, rate: u64, lost: u64, used: u64) -> Option<Change> {
            self.now.0 += TICK_NS;
            self.load.packets += rate / 10;
            self.load.lost += lost;
            self.load.used = used;
            self.sampler.step(self.now, self.load)
        }

        fn ticks(&mut self, ticks: u32, rate: u64) -> Vec<Sampling> {
            let changes = (0..ticks).filter_map(|_| self.tick(rate, 0, 0));
            changes.map(|change| change.sampling).collect()
        }

        fn shift(&self) -> u8 {
            self.sampler.sampled.shift
        }
    }

    #[test]
    fn what_can_be_followed_is() {
        let mut run = Run::new();
        assert_eq!(run.ticks(100, LIMIT), []);
        // Held up, and not by too many.
        assert_eq!(run.tick(BUDGET, 1_000, u64::from(OBSERVATIONS_SIZE)), None);
        assert_eq!(run.ticks(100, 100), []);
        assert_eq!(run.sampler.sampled, Sampled::default());
    }

    #[test]
    fn a_flood_is_sampled_at_once_and_both_hooks_agree_after_a_while() {
        let mut run = Run::new();
        let change = run.tick(256_000, 0, 0).expect("sampled");
        assert_eq!(
            change,
            Change {
                sampling: Sampling {
                    ingress: 7,
                    egress: 0,
                    changing: true
                },
                told: Some(128),
            }
        );
        let settled = Sampling {
            ingress: 7,
            egress: 7,
            changing: false,
        };
        assert_eq!(run.ticks(50, 256_000), [settled]);
        assert_eq!(run.sampler.sampled.since, Some(Moment(3 * TICK_NS)));
    }

    #[test]
    fn after_the_flood_everything_is_followed_within_seconds() {
        let mut run = Run::new();
        run.ticks(50, 256_000);
        assert_eq!(run.shift(), 7);
        let changes = run.ticks(50, 100);
        let lowered: Vec<_> = changes.iter().map(|sampling| sampling.ingress).collect();
        assert_eq!(lowered, [6, 5, 4, 3, 2, 1, 0, 0]);
        assert_eq!(changes.last(), Some(&Sampling::default()));
        let Sampled {
            shift,
            since,
            most,
            for_ns,
        } = run.sampler.sampled(run.now);
        assert_eq!((shift, since, most), (0, None, 7));
        assert_eq!(for_ns, 50 * TICK_NS + 6 * LOWER_NS);
    }

    #[test]
    fn what_overwhelms_a_slow_machine_is_a_flood_there() {
        let mut run = Run::new();
        let change = run
            .tick(40_000, 1, u64::from(OBSERVATIONS_SIZE))
            .expect("sampled");
        assert_eq!(change.told, Some(32));
        // Though it is less than what others can take.
        run.ticks(100, 40_000);
        assert_eq!(run.shift(), 5);
        run.ticks(50, 1_000);
        assert_eq!(run.shift(), 0);
        // Half a minute later it may try again.
        run.ticks(1_000, 1_000);
        assert_eq!(run.ticks(10, 60_000), []);
    }

    #[test]
    fn a_ring_buffer_that_stays_full_raises_it_further() {
        let mut run = Run::new();
        for _ in 0..20 {
            run.tick(200_000, 10, u64::from(OBSERVATIONS_SIZE));
        }
        assert!(run.shift() > 7, "{}", run.shift());
        assert!(run.shift() <= Sampling::SHIFT_MAX);
    }

    #[test]
    fn a_growing_flood_is_met_at_once() {
        let mut run = Run::new();
        run.ticks(1, 130_000);
        assert_eq!(run.shift(), 7);
        run.ticks(1, 2_000_000);
        assert_eq!(run.shift(), 10);
    }
}
