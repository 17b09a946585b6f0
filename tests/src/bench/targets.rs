//! What was to be reached (`tests/bench/targets.json`), and whether it was.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

static TARGETS: &str = include_str!("../../bench/targets.json");

/// A target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// What it is about, for people.
    pub what: String,
    /// The name of its figure among [`super::results::Results::measures`].
    pub measure: String,
    /// The unit of the figure.
    pub unit: String,
    /// The limit.
    #[serde(flatten)]
    pub limit: Limit,
}

/// On which side of the limit the figure should be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// What became of a target.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// What was reached; none if this run did not measure it.
    pub reached: Option<f64>,
    /// Whether that is within the limit.
    pub verdict: Verdict,
    /// Too few rounds counted for the figure to say much.
    pub noisy: bool,
}

/// Whether a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// This run did not look.
    NotMeasured,
}

impl Limit {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

/// All of them.
pub fn targets() -> Result<Vec<Target>> {
    serde_json::from_str(TARGETS).context("the targets are not as they should be")
}

/// Holds figures against targets.
pub fn judge(
    targets: Vec<Target>,
    measures: &BTreeMap<String, f64>,
    noisy: &BTreeSet<String>,
) -> Vec<Judged> {
    let judge = |target: Target| {
        let reached = measures.get(&target.measure).copied();
        let verdict = match reached {
            None => Verdict::NotMeasured,
            Some(figure) if target.limit.holds(figure) => Verdict::Met,
            Some(_) => Verdict::Missed,
        };
        Judged {
            noisy: reached.is_some() && noisy.contains(&target.measure),
            target,
            reached,
            verdict,
        }
    };
    targets.into_iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(limit: Limit) -> Target {
        Target {
            what: "so".to_owned(),
            measure: "m".to_owned(),
            unit: "ns".to_owned(),
            limit,
        }
    }

    #[test]
    fn a_figure_at_the_limit_meets_it_and_one_beyond_does_not() {
        let verdict = |limit, figure| {
            let measures = BTreeMap::from([("m".to_owned(), figure)]);
            judge(vec![target(limit)], &measures, &BTreeSet::new())[0].verdict
        };
        assert_eq!(verdict(Limit::AtMost(6.0), 6.0), Verdict::Met);
        assert_eq!(verdict(Limit::AtMost(6.0), 6.1), Verdict::Missed);
        assert_eq!(verdict(Limit::AtLeast(0.95), 0.95), Verdict::Met);
        assert_eq!(verdict(Limit::AtLeast(0.95), 0.94), Verdict::Missed);
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let judged = judge(
            vec![target(Limit::AtMost(6.0))],
            &BTreeMap::new(),
            &BTreeSet::from(["m".to_owned()]),
        );
        assert_eq!(judged[0].verdict, Verdict::NotMeasured);
        assert!(!judged[0].noisy);
    }

    #[test]
    fn the_targets_parse_and_each_is_there_once() {
        let targets = targets().expect("parsed");
        let mut measures: Vec<&str> = targets.iter().map(|target| &*target.measure).collect();
        measures.sort_unstable();
        let all = measures.len();
        measures.dedup();
        assert!(all >= 10 && measures.len() == all, "{measures:?}");
    }
}
