//! The traffic: what a second of it achieves, and what it costs the machine.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use self::flooded::Pouring;
use super::{
    cluster::{BULK, WEB},
    condition::Condition,
    ground::Ground,
    machine::{self, Processors, Used},
    place::Place,
    statistics::quantile,
};
use crate::command;

mod connections;
mod datagrams;
mod flooded;

/// How often iperf3's server is asked again, which serves one at a time.
const BULK_TRIES: u32 = 3;
/// Connections that are kept alive.
const KEPT_ALIVE: &str = "8";
/// Prints what wrk measured, in microseconds.
const WRK_REPORT: &str = r#"done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// TCP as fast as it goes, over so many streams.
    Bulk(u8),
    /// Small requests over connections that are kept alive.
    Requests,
    /// New connections with NAT, as many as the machine gives.
    Connections,
    /// So many new connections a second.
    Paced(u32),
    /// Datagrams that are sent back.
    Datagrams,
    /// Opening packets from clients that are nobody, few enough at a time that all are followed.
    Openings,
    /// TCP as fast as it goes, over one stream, while a flood of openings is poured into the node.
    Flooded,
}

/// New connections a second at which costs are compared.
pub const PACE: u32 = 2_000;

/// What was achieved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// In the unit of the load.
    pub work: f64,
    /// In so many seconds.
    pub seconds: f64,
    /// What could not be done.
    pub failed: u64,
    /// How long one took, in microseconds: the median, and 99 of 100.
    pub latency_us: Option<[f64; 2]>,
}

/// What was achieved, and at what cost.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What was achieved.
    pub done: Done,
    /// Seconds of processors.
    pub used: Used,
    /// Packets at the hooks.
    pub packets: u64,
}

/// A figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Work in a second.
    Rate,
    /// Processors' time for one unit of work, of all that takes part.
    Cost,
    /// Half take no longer.
    P50,
    /// 99 of 100 take no longer.
    P99,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rate, Self::Cost, Self::P50, Self::P99];

    /// As tables and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cost => "cost",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
}

impl Load {
    /// All that conditions are compared by.
    pub const ALL: [Self; 7] = [
        Self::Bulk(1),
        Self::Bulk(8),
        Self::Requests,
        Self::Connections,
        Self::Paced(PACE),
        Self::Datagrams,
        // Last: of what a flood leaves nothing should be there when something else is measured.
        Self::Flooded,
    ];

    /// As tables and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk(1) => "bulk-1",
            Self::Bulk(_) => "bulk-8",
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Paced(_) => "connections-paced",
            Self::Datagrams => "datagrams",
            Self::Openings => "openings",
            Self::Flooded => "flooded",
        }
    }

    /// What it is compared under. In a flood other tools lose nearly all that they tell of it.
    pub fn conditions(self) -> Vec<Condition> {
        match self {
            Self::Flooded => vec![Condition::Floor, Condition::Trace, Condition::Agent],
            _ => Condition::ALL.to_vec(),
        }
    }

    /// What is worked, and the unit of a metric.
    pub const fn unit(self, metric: Metric) -> &'static str {
        match (metric, self) {
            (Metric::Rate, Self::Bulk(_) | Self::Flooded) => "GB/s",
            (Metric::Rate, Self::Requests) => "requests/s",
            (Metric::Rate, Self::Connections | Self::Paced(_)) => "connections/s",
            (Metric::Rate, Self::Datagrams) => "datagrams/s",
            (Metric::Rate, Self::Openings) => "openings/s",
            (Metric::Cost, Self::Bulk(_) | Self::Flooded) => "CPU ms/GB",
            (Metric::Cost, Self::Requests) => "CPU µs/request",
            (Metric::Cost, Self::Connections | Self::Paced(_)) => "CPU µs/connection",
            (Metric::Cost, Self::Datagrams) => "CPU µs/datagram",
            (Metric::Cost, Self::Openings) => "CPU µs/opening",
            (Metric::P50 | Metric::P99, _) => "µs",
        }
    }

    /// Lets it flow for some seconds.
    pub fn run(self, ground: &Ground, seconds: u32) -> Result<Sample> {
        let _until_the_end = match self {
            Self::Flooded => Some(Pouring::start(ground)?),
            _ => None,
        };
        let run = || -> Result<Sample> {
            let node = &ground.node().namespace;
            let interfaces = ground.interfaces();
            let packets = machine::packets(node, &interfaces)?;
            let before = Processors::now()?;
            let done = match self {
                Self::Bulk(streams) => bulk(ground, streams, seconds)?,
                Self::Openings => flooded::openings(ground, seconds)?,
                Self::Flooded => bulk(ground, 1, seconds)?,
                Self::Requests => requests(ground, seconds)?,
                Self::Connections => connections::open(ground, seconds, None)?,
                Self::Paced(rate) => connections::open(ground, seconds, Some(rate))?,
                Self::Datagrams => datagrams::exchange(ground, seconds)?,
            };
            let used = before.used_since()?;
            ensure!(done.work > 0.0, "nothing came through");
            Ok(Sample {
                done,
                used,
                packets: machine::packets(node, &interfaces)? - packets,
            })
        };
        run().with_context(|| format!("the load {}", self.name()))
    }
}

impl Sample {
    /// One of its figures, in the unit of [`Load::unit`].
    pub fn figure(&self, load: Load, metric: Metric) -> Option<f64> {
        let per_unit = match load {
            Load::Bulk(_) | Load::Flooded => 1e3,
            Load::Requests
            | Load::Connections
            | Load::Paced(_)
            | Load::Datagrams
            | Load::Openings => 1e6,
        };
        match metric {
            Metric::Rate => Some(self.done.work / self.done.seconds),
            Metric::Cost => Some(self.used.own * per_unit / self.done.work),
            Metric::P50 => Some(self.done.latency_us?[0]),
            Metric::P99 => Some(self.done.latency_us?[1]),
        }
    }
}

/// The median and the 99th percentile of durations, in microseconds.
fn latencies(mut took: Vec<Duration>) -> Option<[f64; 2]> {
    took.sort_unstable();
    let micros: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e6).collect();
    Some([quantile(&micros, 0.5)?, quantile(&micros, 0.99)?])
}

#[derive(Deserialize)]
struct Iperf {
    end: IperfEnd,
}

#[derive(Deserialize)]
struct IperfEnd {
    sum_received: IperfSum,
}

#[derive(Deserialize)]
struct IperfSum {
    bytes: f64,
    seconds: f64,
}

fn bulk(ground: &Ground, streams: u8, seconds: u32) -> Result<Done> {
    let to = BULK.address();
    let run = || -> Result<Done> {
        let mut iperf3 = ground.client().command("iperf3");
        iperf3
            .args(["--json", "--client", &to.ip().to_string()])
            .args(["--port", &to.port().to_string()])
            .args(["--parallel", &streams.to_string()])
            .args(["--time", &seconds.to_string()]);
        let Iperf { end } =
            serde_json::from_str(&Place::Clients.run(|| command::run(&mut iperf3))?)
                .context("iperf3 printed something else")?;
        Ok(Done {
            work: end.sum_received.bytes / 1e9,
            seconds: end.sum_received.seconds,
            ..Done::default()
        })
    };
    let mut result = run();
    for _ in 1..BULK_TRIES {
        if result.is_err() {
            std::thread::sleep(Duration::from_millis(200));
            result = run();
        }
    }
    result
}

#[derive(Deserialize)]
struct Wrk {
    requests: f64,
    duration_us: f64,
    p50_us: f64,
    p99_us: f64,
    errors: u64,
}

fn requests(ground: &Ground, seconds: u32) -> Result<Done> {
    let script = ground.folder().join("report.lua");
    std::fs::write(&script, WRK_REPORT).context("failed to write wrk's script")?;
    let mut wrk: Command = ground.client().command("wrk");
    wrk.args(["--threads", "1", "--connections", KEPT_ALIVE])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(&script)
        .arg(format!("http://{}/", WEB.address()));
    let printed = Place::Clients.run(|| command::run(&mut wrk))?;
    let line = printed.lines().find(|line| line.starts_with('{'));
    let report: Wrk = serde_json::from_str(line.context("wrk printed no report")?)
        .with_context(|| format!("wrk printed {printed:?}"))?;
    Ok(Done {
        work: report.requests,
        seconds: report.duration_us / 1e6,
        failed: report.errors,
        latency_us: Some([report.p50_us, report.p99_us]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_in_the_unit_that_it_is_said_to_be_in() {
        let sample = Sample {
            done: Done {
                work: 4.0,
                seconds: 2.0,
                failed: 0,
                latency_us: Some([10.0, 20.0]),
            },
            used: Used {
                own: 1.0,
                busy: 1.5,
            },
            packets: 0,
        };
        let figure = |load, metric| sample.figure(load, metric).expect("there");
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{one}");
        near(figure(Load::Bulk(1), Metric::Rate), 2.0);
        near(figure(Load::Bulk(1), Metric::Cost), 250.0);
        near(figure(Load::Requests, Metric::Cost), 250_000.0);
        near(figure(Load::Requests, Metric::P99), 20.0);
    }

    #[test]
    fn half_take_no_longer_than_the_median() {
        let took = (1..=101).map(Duration::from_micros).collect();
        let [p50, p99] = latencies(took).expect("some");
        assert!((p50 - 51.0).abs() < 1e-6 && (p99 - 100.0).abs() < 1e-6);
        assert_eq!(latencies(Vec::new()), None);
    }
}
