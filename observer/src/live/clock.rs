//! The clocks that observations and records go by.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use crate::observation::Moment;
use crate::observe::Epoch;

/// The kernel's monotonic clock, by which the programs tell time.
pub fn now() -> anyhow::Result<Moment> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(Moment(nanoseconds(Duration::from(now))))
}

/// The same moment by that clock.
pub(super) fn moment(instant: Instant) -> anyhow::Result<Moment> {
    let Moment(now) = now()?;
    Ok(Moment(now.saturating_sub(nanoseconds(instant.elapsed()))))
}

/// The wall clock at the kernel's moment 0.
pub fn epoch() -> anyhow::Result<Epoch> {
    let Moment(monotonic) = now()?;
    let elapsed = SignedDuration::from_nanos(i64::try_from(monotonic).unwrap_or(i64::MAX));
    let epoch = Timestamp::now()
        .checked_sub(elapsed)
        .context("the clock reads before 1970")?;
    Ok(Epoch(epoch))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
