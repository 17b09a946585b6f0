//! What the programs cost while traffic flows, by the kernel's own statistics
//! (`BPF_ENABLE_STATS`, which end with the file descriptor). Their clock is most of a short run, so
//! it is measured by the floor under the same traffic and subtracted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    programs::ProgramInfo,
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use super::{
    condition::{Condition, Holding},
    ground::Ground,
    kernel,
    load::Load,
    statistics::Spread,
};

/// What a program did under some traffic.
#[derive(Clone, Copy, Debug)]
struct Ran {
    ns: f64,
    runs: f64,
}

/// What a load costs at a hook.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The load.
    pub load: &'static str,
    /// `ingress`, `egress`, `floor` or `naive`.
    pub program: &'static str,
    /// Nanoseconds of a run, the statistics' clock included.
    pub ns_per_run: Spread,
    /// What is left without the floor's run of the same round.
    pub net_ns_per_run: Spread,
    /// The same of a unit of work: all its packets at this hook.
    pub net_ns_per_work: Spread,
    /// Runs a second.
    pub runs_per_second: f64,
    /// Units of work in all rounds.
    pub work: f64,
}

/// The figures of the rounds, by program.
#[derive(Default)]
struct Rounds {
    ns: Vec<f64>,
    net: Vec<f64>,
    net_of_work: Vec<f64>,
    rate: Vec<f64>,
    work: f64,
}

/// Measures the floor, the observer and the naive counter in turns.
pub fn measure(ground: &Ground, load: Load, rounds: usize, seconds: u32) -> Result<Vec<Row>> {
    let _until_the_end = enable_stats(Stats::RunTime).context("failed to enable statistics")?;
    let mut all: BTreeMap<&'static str, Rounds> = BTreeMap::new();
    for _ in 0..rounds {
        let mut clock = None;
        for condition in [Condition::Floor, Condition::Trace, Condition::Naive] {
            let holding = Holding::start(condition, ground, false)?;
            let before = programs(ground, condition, &holding)?;
            let sample = load.run(ground, seconds)?;
            let after = programs(ground, condition, &holding)?;
            holding.stop()?;
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                let ran = Ran::between(before, after);
                let ns = ran.ns / ran.runs;
                let clock = *clock.get_or_insert(ns);
                let rounds = all.entry(name).or_default();
                rounds.ns.push(ns);
                rounds.net.push(ns - clock);
                let net = (ran.ns - clock * ran.runs) / sample.done.work;
                rounds.net_of_work.push(net);
                rounds.rate.push(ran.runs / sample.done.seconds);
                rounds.work += sample.done.work;
            }
        }
    }
    all.into_iter()
        .map(|(program, rounds)| rounds.row(load, program))
        .collect()
}

impl Ran {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn between(before: &ProgramInfo, after: &ProgramInfo) -> Self {
        let time = after.run_time().saturating_sub(before.run_time());
        Self {
            ns: time.as_secs_f64() * 1e9,
            runs: after.run_count().saturating_sub(before.run_count()) as f64,
        }
    }
}

impl Rounds {
    fn row(self, load: Load, program: &'static str) -> Result<Row> {
        let spread =
            |figures: Vec<f64>| Spread::of(figures).with_context(|| format!("{program} never ran"));
        Ok(Row {
            load: load.name(),
            program,
            ns_per_run: spread(self.ns)?,
            net_ns_per_run: spread(self.net)?,
            net_ns_per_work: spread(self.net_of_work)?,
            runs_per_second: spread(self.rate)?.median,
            work: self.work,
        })
    }
}

/// The programs of a condition, as they are now.
fn programs(
    ground: &Ground,
    condition: Condition,
    holding: &Holding,
) -> Result<Vec<(&'static str, ProgramInfo)>> {
    match holding.program() {
        Some(program) => Ok(vec![(condition.name(), program.program()?.info()?)]),
        None => kernel::programs(ground),
    }
}
