//! What the observer needs before anything happens: time to start, memory, maps in the kernel.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::{condition::Holding, ground::Ground, machine, statistics::median};
use crate::{attached, command, demo};

/// How often it is started.
const STARTS: usize = 5;
/// Objects are read and interfaces looked at by then.
const SETTLED: Duration = Duration::from_secs(2);

/// At rest.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// The objects that were read: those of the recorded cluster, where there are recordings.
    pub objects: String,
    /// Milliseconds until it observes: the median of some starts.
    pub start_ms: f64,
    /// Its resident memory, in MiB.
    pub resident_mib: f64,
    /// Milliseconds of processor time in a second in which nothing happens.
    pub idle_ms_per_s: f64,
    /// What its maps take in the kernel, in MiB.
    pub maps_mib: f64,
}

/// Measures an observer that has nothing to do.
pub fn measure(ground: &Ground) -> Result<Rest> {
    let objects = objects();
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let holding = Holding::trace(ground, &objects, &[])?;
        starts.push(start.elapsed().as_secs_f64() * 1e3);
        holding.stop()?;
    }
    let holding = Holding::trace(ground, &objects, &[])?;
    let process = holding.observer().context("trace is an observer")?;
    std::thread::sleep(SETTLED);
    let (since, used) = (Instant::now(), machine::process_time(process)?);
    std::thread::sleep(SETTLED);
    let used = machine::process_time(process)?.saturating_sub(used);
    let idle_ms_per_s = used.as_secs_f64() * 1e3 / since.elapsed().as_secs_f64();
    let programs = attached::programs(&ground.node().namespace)?;
    let maps = maps_bytes(&attached::maps(&programs)?)?;
    let resident = machine::resident_bytes(process)?;
    holding.stop()?;
    let name = objects.file_name().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let [resident, maps] = [resident, maps].map(|bytes| bytes as f64 / 1_048_576.0);
    Ok(Rest {
        objects: name.to_string_lossy().into_owned(),
        start_ms: median(starts).context("it was started")?,
        resident_mib: resident,
        idle_ms_per_s,
        maps_mib: maps,
    })
}

/// Those of the recorded cluster belong to the developers' tree.
fn objects() -> PathBuf {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures/objects.json");
    if recorded.is_file() {
        recorded
    } else {
        demo::cluster_file()
    }
}

/// As the kernel accounts them.
fn maps_bytes(maps: &BTreeSet<u32>) -> Result<u64> {
    let mut bytes = 0;
    for id in maps {
        let mut bpftool = std::process::Command::new("bpftool");
        let printed = command::run(bpftool.args(["--json", "map", "show", "id", &id.to_string()]))?;
        let map: Value = serde_json::from_str(&printed).context("bpftool printed no JSON")?;
        let of_map = &map["bytes_memlock"];
        bytes += of_map
            .as_u64()
            .with_context(|| format!("no size in {map}"))?;
    }
    Ok(bytes)
}
