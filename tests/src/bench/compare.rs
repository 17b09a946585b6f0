//! Traffic under each condition, between two references without.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{
    condition::{Condition, Holding},
    ground::Ground,
    load::{Load, Metric, Sample},
    machine::processors,
    statistics::{Comparison, ROUNDS_MIN, Round, median},
};

/// What starts and ends has work of its own then, and leaves some to the kernel: of maps, of programs.
const SETTLED: Duration = Duration::from_millis(200);

/// How it is compared.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which traffic.
    pub loads: Vec<Load>,
    /// How often; twice as often where too few rounds count.
    pub rounds: usize,
    /// After so long there are no more rounds than must be.
    pub enough: Duration,
    /// For how long at a time.
    pub seconds: u32,
}

/// One figure of one load under one condition.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which load.
    pub load: &'static str,
    /// Under which condition.
    pub condition: &'static str,
    /// Which figure.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The figure without anything attached: the median of all references.
    pub reference: f64,
    /// What the rounds say.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// What was compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compared {
    /// A line for each load, condition and figure.
    pub rows: Vec<Row>,
    /// Packets a second at the hooks of the node, with nothing attached, by load.
    pub packets_per_second: BTreeMap<&'static str, f64>,
    /// What anything else on this machine used of its processors meanwhile, in percent, by load.
    pub others_percent: BTreeMap<&'static str, f64>,
    /// What could not be done in all samples of a load.
    pub failed: BTreeMap<&'static str, u64>,
    /// What each condition said that it lost, by load.
    pub lost: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

/// The samples of one load and condition, with the references of each.
#[derive(Default)]
struct Samples(Vec<[Sample; 3]>);

/// Compares; `say` hears of progress.
pub fn compare(ground: &Ground, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Compared> {
    let start = Instant::now();
    let mut work = Work {
        ground,
        seconds: plan.seconds,
        all: BTreeMap::new(),
        compared: Compared::default(),
    };
    for load in &plan.loads {
        // The first of its kind finds nothing where it will be from now on.
        load.run(ground, plan.seconds)?;
    }
    for round in 1..=plan.rounds {
        if round > ROUNDS_MIN && start.elapsed() >= plan.enough {
            say("no time for more rounds");
            return work.done();
        }
        for &load in &plan.loads {
            say(&format!(
                "round {round} of {}: {}",
                plan.rounds,
                load.name()
            ));
            work.round(load, &load.conditions())?;
        }
    }
    for round in 1..=plan.rounds {
        let noisy = work.noisy();
        for (load, conditions) in noisy {
            if start.elapsed() >= plan.enough {
                return work.done();
            }
            let names: Vec<&str> = conditions.iter().map(|one| one.name()).collect();
            let names = names.join(", ");
            say(&format!(
                "too few count, round {round} more: {}, {names}",
                load.name()
            ));
            work.round(load, &conditions)?;
        }
    }
    work.done()
}

/// What was measured so far.
struct Work<'a> {
    ground: &'a Ground,
    seconds: u32,
    all: BTreeMap<(Load, Condition), Samples>,
    compared: Compared,
}

impl Work<'_> {
    /// Each reference is that of the condition before it and of the one after it.
    fn round(&mut self, load: Load, conditions: &[Condition]) -> Result<()> {
        let mut before = load.run(self.ground, self.seconds)?;
        for &condition in conditions {
            let holding = Holding::start(condition, self.ground, false)?;
            thread::sleep(SETTLED);
            let during = load.run(self.ground, self.seconds)?;
            let told = holding.stop()?;
            thread::sleep(SETTLED);
            let after = load.run(self.ground, self.seconds)?;
            let lost = told.lost + untold(load, condition, &during, told.told);
            let of_load = self.compared.lost.entry(load.name()).or_default();
            *of_load.entry(condition.name()).or_default() += lost;
            *self.compared.failed.entry(load.name()).or_default() += during.done.failed;
            let samples = self.all.entry((load, condition)).or_default();
            samples.0.push([before, during, after]);
            before = after;
        }
        Ok(())
    }

    /// Where too few rounds count, by load.
    fn noisy(&self) -> BTreeMap<Load, Vec<Condition>> {
        let mut noisy: BTreeMap<Load, Vec<Condition>> = BTreeMap::new();
        for (&(load, condition), samples) in &self.all {
            let counted = [Metric::Rate, Metric::Cost].map(|metric| {
                let row = samples.row(load, condition, metric);
                row.map_or(0, |row| row.comparison.counted)
            });
            if counted.into_iter().any(|counted| counted < ROUNDS_MIN) {
                noisy.entry(load).or_default().push(condition);
            }
        }
        noisy
    }

    fn done(self) -> Result<Compared> {
        let mut compared = self.compared;
        for (&(load, condition), samples) in &self.all {
            let rows = Metric::ALL.iter();
            let rows = rows.filter_map(|&metric| samples.row(load, condition, metric));
            compared.rows.extend(rows);
            if let Some(rate) = samples.packets_per_second() {
                compared.packets_per_second.insert(load.name(), rate);
            }
            if let Some(percent) = samples.others_percent(processors()?) {
                compared.others_percent.insert(load.name(), percent);
            }
        }
        Ok(compared)
    }
}

/// How many connections an agent did not tell who follows.
fn untold(load: Load, condition: Condition, sample: &Sample, told: Option<u64>) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let opened = sample.done.work as u64;
    match (load, condition) {
        (Load::Connections | Load::Paced(_), Condition::Agent) => {
            opened.saturating_sub(told.unwrap_or(0))
        }
        _ => 0,
    }
}

impl Samples {
    fn row(&self, load: Load, condition: Condition, metric: Metric) -> Option<Row> {
        let figure = |sample: &Sample| sample.figure(load, metric);
        let rounds: Vec<Round> = self
            .0
            .iter()
            .map(|[before, during, after]| {
                Some(Round {
                    references: [figure(before)?, figure(after)?],
                    figure: figure(during)?,
                })
            })
            .collect::<Option<_>>()?;
        let references = rounds.iter().flat_map(|round| round.references);
        Some(Row {
            load: load.name(),
            condition: condition.name(),
            metric: metric.name(),
            unit: load.unit(metric),
            reference: median(references)?,
            comparison: Comparison::of(&rounds)?,
        })
    }

    /// What was busy and none of ours.
    #[expect(clippy::cast_precision_loss, reason = "a few processors")]
    fn others_percent(&self, processors: usize) -> Option<f64> {
        let percent = |sample: &Sample| {
            let all = sample.done.seconds * processors as f64;
            (sample.used.busy - sample.used.own).max(0.0) / all * 100.0
        };
        median(self.0.iter().flatten().map(percent))
    }

    /// Without anything attached.
    fn packets_per_second(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = |sample: &Sample| sample.packets as f64 / sample.done.seconds;
        median(
            self.0
                .iter()
                .flat_map(|[before, _, after]| [rate(before), rate(after)]),
        )
    }
}

impl Compared {
    /// The line of a load, condition and figure.
    pub fn row(&self, load: Load, condition: Condition, metric: Metric) -> Option<&Row> {
        self.rows.iter().find(|row| {
            (row.load, row.condition, row.metric) == (load.name(), condition.name(), metric.name())
        })
    }
}
