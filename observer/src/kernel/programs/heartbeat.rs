//! The sign of life that an observer gives to its programs, and to the observers beside it.
//!
//! It lies in a map of the programs, so whoever finds a filter finds the heartbeat of its owner.
//! A thread keeps it, not the loop that reads observations: that one waits while a reader of
//! stdout waits, and is alive all the same.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};
use nix::time::{ClockId, clock_gettime};
use observer_ebpf::SILENCE_NS;

/// The name of the map.
pub(super) const MAP: &str = "HEARTBEAT";

/// How often a sign of life is given: some may be late before silence is taken for death.
const BEAT: Duration = Duration::from_secs(1);

/// Beats until it is dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Beats once, and from then on from a thread. `after_silence` runs there, as soon as whoever
    /// died before this start has been silent for long enough.
    pub(super) fn start(
        mut map: Array<MapData, u64>,
        after_silence: impl FnOnce() + Send + 'static,
    ) -> Result<Self, MapError> {
        map.set(0, now_ns(), 0)?;
        let known_dead_ns = now_ns().saturating_add(SILENCE_NS);
        let mut after_silence = Some(after_silence);
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    // A beat that fails shows as any silence does: the programs stop, and count.
                    let _silent = map.set(0, now_ns(), 0);
                    if now_ns() > known_dead_ns
                        && let Some(after_silence) = after_silence.take()
                    {
                        after_silence();
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Nothing in it panics; and if it did, it has said so.
            let _panicked = thread.join();
        }
    }
}

/// Those of `programs` that have a heartbeat, and an owner who has been silent for too long.
///
/// Needs `CAP_SYS_ADMIN`: the kernel gives programs and maps by their ids to nobody else.
pub(super) fn silent(programs: &BTreeSet<u32>) -> Result<BTreeSet<u32>, ProgramError> {
    let mut silent = BTreeSet::new();
    for program in loaded_programs() {
        let program = match program {
            Ok(program) if programs.contains(&program.id()) => program,
            Ok(_) => continue,
            // It ended while this list was made.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if last_beat_ns(&program).is_some_and(|beat| now_ns().saturating_sub(beat) >= SILENCE_NS) {
            silent.insert(program.id());
        }
    }
    Ok(silent)
}

fn last_beat_ns(program: &ProgramInfo) -> Option<u64> {
    let maps = program.map_ids().ok()??;
    let is_heartbeat =
        |id: &u32| MapInfo::from_id(*id).is_ok_and(|map| map.name_as_str() == Some(MAP));
    let map = MapData::from_id(maps.into_iter().find(is_heartbeat)?).ok()?;
    let beats = Array::<_, u64>::try_from(Map::from_map_data(map).ok()?).ok()?;
    beats.get(&0, 0).ok()
}

fn is_gone(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.kind() == std::io::ErrorKind::NotFound)
}

/// On the clock of `bpf_ktime_get_ns`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("the monotonic clock exists and its time fits");
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}
