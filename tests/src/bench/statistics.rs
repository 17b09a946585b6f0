//! Medians and spreads, slopes, and which rounds count. Pure.

use serde::Serialize;

/// The two references of a round may differ by so much, as a share of their mean; otherwise
/// something else was at work, and the round does not count.
pub const REFERENCES_DIFFER_MAX: f64 = 0.03;
/// Fewer rounds than this say nothing.
pub const ROUNDS_MIN: usize = 3;

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub low: f64,
    /// The third quartile.
    pub high: f64,
}

impl Spread {
    /// Of any figures; none of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|one| one.is_finite()).collect();
        figures.sort_unstable_by(f64::total_cmp);
        Some(Self {
            median: quantile(&figures, 0.5)?,
            low: quantile(&figures, 0.25)?,
            high: quantile(&figures, 0.75)?,
        })
    }

    /// The distance of the quartiles.
    pub fn range(&self) -> f64 {
        self.high - self.low
    }
}

/// A quantile of sorted figures, between two of them by their distance.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = last as f64 * share.clamp(0.0, 1.0);
    let below = place.floor() as usize;
    let above = place.ceil() as usize;
    let part = place - place.floor();
    Some(sorted[below] + (sorted[above] - sorted[below]) * part)
}

/// The median of any figures; none of none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(figures).map(|spread| spread.median)
}

/// By how much `y` grows with each `x`, by least squares; none if `x` does not change.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "few points")]
    let number = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / number;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let product: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    (square > 0.0).then(|| product / square)
}

/// One figure of a round: under a condition, and without it right before and right after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Before and after.
    pub references: [f64; 2],
    /// In between.
    pub figure: f64,
}

/// What some rounds say of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The figure itself.
    pub figure: Spread,
    /// The figure as a multiple of the mean of its references.
    pub ratio: Spread,
    /// By how much the two references of a round differ, as a share of their mean.
    pub references_differ: Spread,
    /// How many rounds there were.
    pub rounds: usize,
    /// In how many of them the references were alike.
    pub counted: usize,
    /// Too few of them were: the figures are of all rounds, and worth as much.
    pub noisy: bool,
}

impl Round {
    fn mean(&self) -> f64 {
        self.references.iter().sum::<f64>() / 2.0
    }

    /// As a share of their mean.
    fn references_differ(&self) -> f64 {
        (self.references[0] - self.references[1]).abs() / self.mean()
    }

    fn counts(&self) -> bool {
        self.references_differ() <= REFERENCES_DIFFER_MAX
    }

    fn ratio(&self) -> f64 {
        self.figure / self.mean()
    }
}

impl Comparison {
    /// Of the rounds that count; of all if too few do, which is said. None of none.
    pub fn of(rounds: &[Round]) -> Option<Self> {
        let counted = rounds.iter().filter(|round| round.counts()).count();
        let noisy = counted < ROUNDS_MIN;
        let taken: Vec<&Round> = rounds
            .iter()
            .filter(|round| noisy || round.counts())
            .collect();
        Some(Self {
            figure: Spread::of(taken.iter().map(|round| round.figure))?,
            ratio: Spread::of(taken.iter().map(|round| round.ratio()))?,
            references_differ: Spread::of(rounds.iter().map(Round::references_differ))?,
            rounds: rounds.len(),
            counted,
            noisy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(before: f64, figure: f64, after: f64) -> Round {
        Round {
            references: [before, after],
            figure,
        }
    }

    /// Close enough for sums of a few figures.
    fn assert_near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-9, "{one} is not {other}");
    }

    #[test]
    fn a_median_lies_in_the_middle_and_quartiles_around_it() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("some");
        assert_near(spread.median, 2.5);
        assert_near(spread.low, 1.75);
        assert_near(spread.high, 3.25);
        assert_near(spread.range(), 1.5);
        assert_eq!(Spread::of([]), None);
        assert_near(
            median([7.0, f64::NAN]).expect("what is no number is none"),
            7.0,
        );
    }

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert_near(
            slope(&[(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)]).expect("a line"),
            2.0,
        );
        assert_eq!(slope(&[(1.0, 5.0), (1.0, 7.0)]), None);
        assert_eq!(slope(&[]), None);
    }

    #[test]
    fn a_round_counts_if_its_references_are_alike() {
        let quiet = [
            round(100.0, 50.0, 102.0),
            round(100.0, 51.0, 100.0),
            round(99.0, 49.0, 101.0),
        ];
        let disturbed = round(100.0, 90.0, 200.0);
        let rounds = [&quiet[..], &[disturbed]].concat();
        let comparison = Comparison::of(&rounds).expect("some");
        assert_eq!((comparison.rounds, comparison.counted), (4, 3));
        assert!(!comparison.noisy);
        assert_near(comparison.figure.median, 50.0);
        assert_near(comparison.ratio.median, 50.0 / 101.0);
    }

    #[test]
    fn too_few_rounds_that_count_are_said_aloud_and_none_is_hidden() {
        let rounds = [
            round(100.0, 50.0, 100.0),
            round(100.0, 50.0, 100.0),
            round(100.0, 90.0, 200.0),
        ];
        let comparison = Comparison::of(&rounds).expect("some");
        assert!(comparison.noisy);
        assert_eq!(comparison.counted, 2);
        assert_near(comparison.figure.high, 70.0);
        assert_eq!(Comparison::of(&[]), None);
    }
}
