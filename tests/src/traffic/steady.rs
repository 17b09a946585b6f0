//! Many connections, one after the other, at a steady rate.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Opened, Way, lead_client};
use crate::{lab::Lab, threads::at_once};

/// How many connections are under way at once at most: far more than a steady rate needs on a
/// machine that keeps up with it.
const WORKERS: usize = 8;

/// How many connections, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many in all.
    pub connections: usize,
    /// From the start of one to the start of the next.
    pub interval: Duration,
}

/// Opens connections by each of `ways` in turn. A virtual address among them must be led to one
/// node only.
pub fn steadily(lab: &Lab, ways: &[Way], pace: Pace) -> Result<Vec<Opened>> {
    let Pace {
        connections,
        interval,
    } = pace;
    lead_client(lab, &ways.iter().collect::<Vec<_>>())?;
    let start = Instant::now();
    let work = |worker: usize| -> Result<Vec<(u32, Opened)>> {
        let numbers = (worker..connections).step_by(WORKERS);
        let ways = ways.iter().cycle().skip(worker).step_by(WORKERS);
        numbers
            .zip(ways)
            .map(|(number, way)| {
                let number = u32::try_from(number)?;
                thread::sleep(
                    (start + interval * number).saturating_duration_since(Instant::now()),
                );
                Ok((number, way.connect(lab)?))
            })
            .collect()
    };
    let mut opened = Vec::new();
    for worker in at_once(0..WORKERS, work) {
        opened.extend(worker?);
    }
    // In the order of time, since a port may be used again.
    opened.sort_by_key(|(number, _)| *number);
    Ok(opened.into_iter().map(|(_, opened)| opened).collect())
}
