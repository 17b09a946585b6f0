//! A flood of openings from clients that are nobody, as fast as one thread can pour it.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::Done;
use crate::bench::{ground::Ground, place::Place};

/// Until what is attached knows that it is a flood, and follows few of it.
const SETTLED: Duration = Duration::from_millis(2_500);
/// How often it is asked whether it is over.
const BATCH: u32 = 64;

/// Openings at once, which the ring buffer holds many times, and how often: all are followed.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Sends openings, each from the device to a pod; what answers them goes the other way.
pub(super) fn openings(ground: &Ground, seconds: u32) -> Result<Done> {
    let flood = ground.flood();
    let mut flood = flood.lock().unwrap_or_else(PoisonError::into_inner);
    let (start, before) = (Instant::now(), flood.sent());
    while start.elapsed() < Duration::from_secs(seconds.into()) {
        flood.send(AT_ONCE)?;
        thread::sleep(PAUSE);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let work = (flood.sent() - before) as f64;
    Ok(Done {
        work,
        seconds: start.elapsed().as_secs_f64(),
        ..Done::default()
    })
}

/// A flood, until it is dropped.
pub(super) struct Pouring {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pouring {
    /// Begins, and waits until what is attached has settled.
    pub(super) fn start(ground: &Ground) -> Result<Self> {
        let is_over = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&is_over);
        let flood = ground.flood();
        let pour = move || {
            // Beside the stream's clients, whose processor has most to do, it would only slow them.
            Place::Servers.stay()?;
            // A device that takes no more ends the flood, and the rate tells.
            Ok(move || {
                let mut flood = flood.lock().unwrap_or_else(PoisonError::into_inner);
                while !ends.load(Ordering::Relaxed) && flood.send(BATCH).is_ok() {}
            })
        };
        let thread = ground.node().namespace.spawn(pour)?;
        thread::sleep(SETTLED);
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Pouring {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever it died of, the flood is over.
            let _died = thread.join();
        }
    }
}
