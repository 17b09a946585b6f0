//! Traffic under each condition, between two references without.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{
    condition::{Condition, Holding},
    ground::Ground,
    load::{Load, Metric, Sample},
    statistics::{Comparison, Round, median},
};

/// How it is compared.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Under which conditions.
    pub conditions: Vec<Condition>,
    /// Which traffic.
    pub loads: Vec<Load>,
    /// How often.
    pub rounds: usize,
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
    let mut all: BTreeMap<(Load, Condition), Samples> = BTreeMap::new();
    let mut compared = Compared::default();
    for load in &plan.loads {
        // The first of its kind finds nothing where it will be from now on.
        load.run(ground, plan.seconds)?;
    }
    for round in 1..=plan.rounds {
        for &load in &plan.loads {
            say(&format!("round {round} of {}: {}", plan.rounds, load.name()));
            let mut before = load.run(ground, plan.seconds)?;
            for &condition in &plan.conditions {
                let holding = Holding::start(condition, ground, false)?;
                let during = load.run(ground, plan.seconds)?;
                let told = holding.stop()?;
                let after = load.run(ground, plan.seconds)?;
                let samples = all.entry((load, condition)).or_default();
                samples.0.push([before, during, after]);
                let lost = compared.lost.entry(load.name()).or_default();
                *lost.entry(condition.name()).or_default() += told.lost;
                *compared.failed.entry(load.name()).or_default() += during.done.failed;
                before = after;
            }
        }
    }
    for (&(load, condition), samples) in &all {
        let rows = Metric::ALL.iter();
        let rows = rows.filter_map(|&metric| samples.row(load, condition, metric));
        compared.rows.extend(rows);
        if let Some(rate) = samples.packets_per_second() {
            compared.packets_per_second.insert(load.name(), rate);
        }
    }
    Ok(compared)
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

    /// Without anything attached.
    fn packets_per_second(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = |sample: &Sample| sample.packets as f64 / sample.done.seconds;
        median(self.0.iter().flat_map(|[before, _, after]| [rate(before), rate(after)]))
    }
}

impl Compared {
    /// The line of a load, condition and figure.
    pub fn row(&self, load: Load, condition: Condition, metric: Metric) -> Option<&Row> {
        self.rows.iter().find(|row| {
            (row.load, row.condition, row.metric)
                == (load.name(), condition.name(), metric.name())
        })
    }
}
