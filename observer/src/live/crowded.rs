//! Whether so many connections' first bytes are waited for that some push out others, which the
//! kernel's map does without a word.

use observer_ebpf::WAITING_MAX;

use crate::observation::Moment;

/// At least as long as any first bytes are waited for.
const WINDOW_NS: u64 = 4_000_000_000;
/// More than fit within the time that one waits are more than half of it in this window or the next.
const MANY: u64 = WAITING_MAX as u64 / 2;

/// How many were to be waited for lately.
#[derive(Debug)]
pub(super) struct Crowded {
    since: Moment,
    /// By then, of all.
    written: u64,
}

impl Crowded {
    pub(super) const fn new() -> Self {
        Self {
            since: Moment(0),
            written: 0,
        }
    }

    /// Whether some may have been pushed out by `now`, when so many were ever to be waited for.
    pub(super) const fn may_push_out(&mut self, now: Moment, written: u64) -> bool {
        let many = written.saturating_sub(self.written) > MANY;
        if now.nanoseconds_since(self.since) >= WINDOW_NS {
            self.since = now;
            self.written = written;
        }
        many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many looks, a tick apart, some may have been pushed out, at so many a second.
    fn looks(rate: u64) -> usize {
        let mut crowded = Crowded::new();
        let ticks = (1..200_u64).map(|tick| (Moment(tick * 100_000_000), tick * rate / 10));
        ticks
            .filter(|&(now, written)| crowded.may_push_out(now, written))
            .count()
    }

    #[test]
    fn few_push_out_nobody_and_many_are_noticed_again_and_again() {
        assert_eq!(looks(2_000), 0);
        assert!(looks(4_100) > 4);
        assert!(looks(100_000) > 150);
    }
}
