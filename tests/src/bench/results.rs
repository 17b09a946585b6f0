//! All that a run found, as its file has it; and the figures that targets are about.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{
    compare::Compared,
    condition::Condition,
    growth::Curve,
    kernel, live,
    load::{Load, Metric, PACE},
    packets::Class,
    rest::Rest,
    targets::Judged,
    userspace,
};

/// What adds less to the machine's work is not told from noise.
const BEYOND_MIN: f64 = 0.01;
/// No program is told from the floor by less: what is below counts as so much.
const NET_NS_MIN: f64 = 0.5;

/// Where and how it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setting {
    /// The kernel's release.
    pub kernel: String,
    /// How many processors.
    pub processors: usize,
    /// What the observer says of its version.
    pub observer: String,
    /// How many rounds.
    pub rounds: usize,
    /// For how many seconds at a time.
    pub seconds: u32,
    /// How long all took, in seconds.
    pub took_seconds: f64,
}

/// All that a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// Where and how.
    pub setting: Setting,
    /// Traffic under conditions.
    pub compared: Compared,
    /// Packets by class.
    pub kernel: Vec<kernel::Row>,
    /// Programs under traffic.
    pub live: Vec<live::Row>,
    /// How it grows.
    pub growth: Vec<Curve>,
    /// At rest.
    pub rest: Option<Rest>,
    /// What the bench of userspace printed: its core, and a whole observer fed through its ring
    /// buffer.
    pub userspace: Option<Value>,
    /// The figures that targets are about, by name.
    pub measures: BTreeMap<String, f64>,
    /// Those of them that rest on comparisons of which too few rounds count.
    pub noisy: BTreeSet<String>,
    /// What became of the targets.
    pub targets: Vec<Judged>,
}

impl Results {
    /// The figures that targets are about, of what was measured.
    pub fn measures(&self) -> BTreeMap<String, f64> {
        let derived = [
            ("established_net_ns", self.established_net_ns()),
            ("opening_ns", self.opening_ns()),
            ("connection_kernel_ns", self.connection_kernel_ns()),
            ("bulk_core_percent", self.bulk_core_percent()),
            ("requests_of_floor", self.rate_of_floor(Load::Requests)),
            ("requests_cost_of_floor", self.requests_cost_of_floor()),
            ("connections_of_nothing", self.connections_of_nothing()),
            ("flooded_of_floor", self.rate_of_floor(Load::Flooded)),
            ("naive_times", self.naive_times()),
            (
                "trace_of_conntrack",
                self.cost_of_conntrack(Condition::Trace),
            ),
            (
                "agent_of_conntrack",
                self.cost_of_conntrack(Condition::Agent),
            ),
        ];
        let mut measures: BTreeMap<String, f64> = derived
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        if let Some(rest) = &self.rest {
            measures.insert("rest_start_ms".to_owned(), rest.start_ms);
            measures.insert("rest_resident_mib".to_owned(), rest.resident_mib);
            measures.insert("maps_mib".to_owned(), rest.maps_mib);
        }
        if let Some(userspace) = &self.userspace {
            measures.extend(userspace::measures(userspace));
        }
        measures
    }

    /// The names of those that rest on comparisons of which too few rounds count.
    pub fn noisy(&self) -> BTreeSet<String> {
        let rests_on = [
            ("requests_of_floor", Load::Requests, Metric::Rate),
            ("requests_cost_of_floor", Load::Requests, Metric::Cost),
            ("connections_of_nothing", Load::Connections, Metric::Rate),
            ("flooded_of_floor", Load::Flooded, Metric::Rate),
            ("trace_of_conntrack", Load::Paced(PACE), Metric::Cost),
            ("agent_of_conntrack", Load::Paced(PACE), Metric::Cost),
        ];
        let is_noisy = |load: Load, metric: Metric| {
            let mut rows = self.compared.rows.iter();
            rows.any(|row| {
                (row.load, row.metric) == (load.name(), metric.name()) && row.comparison.noisy
            })
        };
        rests_on
            .into_iter()
            .filter(|(_, load, metric)| is_noisy(*load, *metric))
            .map(|(name, _, _)| name.to_owned())
            .collect()
    }

    fn kernel_net(&self, class: Class, program: &str) -> Option<f64> {
        let row = self
            .kernel
            .iter()
            .find(|row| (row.class, row.program, row.payload) == (class.name(), program, false));
        row.map(|row| row.net_ns)
    }

    /// The worst of both hooks and families.
    fn established_net_ns(&self) -> Option<f64> {
        let classes = [Class::Established, Class::EstablishedV6];
        let nets = classes
            .into_iter()
            .flat_map(|class| kernel::HOOKS.map(|(hook, _)| self.kernel_net(class, hook)));
        nets.collect::<Option<Vec<f64>>>()?
            .into_iter()
            .reduce(f64::max)
    }

    fn live(&self, load: Load, program: &str) -> Option<&live::Row> {
        let mut rows = self.live.iter();
        rows.find(|row| (row.load, row.program) == (load.name(), program))
    }

    /// Ingress by a test run, egress live, where openings leave by devices that nothing else leaves by.
    fn opening_ns(&self) -> Option<f64> {
        let egress = self.live(Load::Openings, kernel::HOOKS[1].0)?;
        let ingress = self.kernel_net(Class::Opening, kernel::HOOKS[0].0)?;
        Some(ingress + egress.net_ns_per_run.median)
    }

    /// All packets of a connection at both hooks, live.
    fn connection_kernel_ns(&self) -> Option<f64> {
        let of_hook = |(hook, _): (&str, &str)| {
            let row = self.live(Load::Connections, hook)?;
            Some(row.net_ns_per_work.median)
        };
        kernel::HOOKS.into_iter().map(of_hook).sum()
    }

    /// What established segments cost above the floor, times as many as pass.
    fn bulk_core_percent(&self) -> Option<f64> {
        let net = self.established_net_ns()?.max(NET_NS_MIN);
        let rates = [Load::Bulk(1), Load::Bulk(8)].into_iter();
        let rates = rates.filter_map(|load| self.compared.packets_per_second.get(load.name()));
        let rate = rates.copied().reduce(f64::max)?;
        Some(net * rate / 1e9 * 100.0)
    }

    fn ratio(&self, load: Load, condition: Condition, metric: Metric) -> Option<f64> {
        let row = self.compared.row(load, condition, metric)?;
        Some(row.comparison.ratio.median)
    }

    fn rate_of_floor(&self, load: Load) -> Option<f64> {
        let of = |condition| self.ratio(load, condition, Metric::Rate);
        let floor = of(Condition::Floor)?;
        Some(of(Condition::Trace)?.min(of(Condition::Agent)?) / floor)
    }

    /// The CPU of a request, the floor's as a share of the observer's.
    fn requests_cost_of_floor(&self) -> Option<f64> {
        let of = |condition| self.ratio(Load::Requests, condition, Metric::Cost);
        let floor = of(Condition::Floor)?;
        Some(floor / of(Condition::Trace)?.max(of(Condition::Agent)?))
    }

    fn connections_of_nothing(&self) -> Option<f64> {
        let of = |condition| self.ratio(Load::Connections, condition, Metric::Rate);
        Some(of(Condition::Trace)?.min(of(Condition::Agent)?))
    }

    /// How many times the worst established segment the naive counter costs, both net of the floor.
    fn naive_times(&self) -> Option<f64> {
        let naive = self.kernel_net(Class::Established, Condition::Naive.name())?;
        Some(naive / self.established_net_ns()?.max(NET_NS_MIN))
    }

    /// What a condition costs the machine beyond nothing, for each connection at the same rate, as
    /// a share of what `conntrack -E` does.
    fn cost_of_conntrack(&self, condition: Condition) -> Option<f64> {
        let beyond = |condition| {
            let ratio = self.ratio(Load::Paced(PACE), condition, Metric::Cost)?;
            Some(ratio - 1.0)
        };
        let conntrack = beyond(Condition::Conntrack)?;
        // Else noise is all there is.
        (conntrack >= BEYOND_MIN).then_some(())?;
        Some(beyond(condition)? / conntrack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::compare::Row;
    use crate::bench::statistics::{Comparison, Round};

    fn row(load: Load, condition: Condition, metric: Metric, figure: f64) -> Row {
        let round = Round {
            references: [100.0, 100.0],
            figure,
        };
        Row {
            load: load.name(),
            condition: condition.name(),
            metric: metric.name(),
            unit: load.unit(metric),
            reference: 100.0,
            comparison: Comparison::of(&[round]).expect("a round"),
        }
    }

    #[test]
    fn targets_are_about_what_is_worse_of_trace_and_agent() {
        let mut results = Results::default();
        for (condition, rate) in [
            (Condition::Floor, 98.0),
            (Condition::Trace, 97.0),
            (Condition::Agent, 49.0),
        ] {
            let row = row(Load::Requests, condition, Metric::Rate, rate);
            results.compared.rows.push(row);
        }
        let measured = results.measures()["requests_of_floor"];
        assert!((measured - 0.5).abs() < 1e-9, "{measured}");
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        assert!(Results::default().measures().is_empty());
    }
}
