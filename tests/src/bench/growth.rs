//! How cost grows: with connections a second, with Services, with interfaces.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    programs::ProgramInfo,
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use super::{
    cluster,
    condition::Holding,
    ground::Ground,
    kernel,
    load::{Load, PACE},
    machine,
    statistics::slope,
};
use crate::netns::Namespace;

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections a second; after them as many as the machine gives.
    pub rates: Vec<u32>,
    /// Services in the cluster's state.
    pub services: Vec<u16>,
    /// Interfaces of the node.
    pub interfaces: Vec<u8>,
    /// For how long at a time.
    pub seconds: u32,
}

/// What an agent and one who follows cost at one point of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Connections a second, Services, or interfaces.
    pub x: f64,
    /// Milliseconds of the agent's processor time in a second.
    pub agent_ms_per_s: f64,
    /// Microseconds of it for each connection.
    pub agent_us: f64,
    /// Nanoseconds in its programs for each connection, the statistics' clock included.
    pub kernel_ns: f64,
    /// Connections a second that were opened.
    pub rate: f64,
    /// Of those, in a hundred, that who follows was told of.
    pub told_percent: f64,
    /// Milliseconds from its start until it observed.
    pub start_ms: f64,
    /// Its resident memory, in MiB.
    pub resident_mib: f64,
}

/// One curve.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// What grows.
    pub with: &'static str,
    /// In its order.
    pub points: Vec<Point>,
    /// Microseconds of the agent in a second, by each one more: of one more connection a second,
    /// what it costs without what the agent costs at rest.
    pub agent_us_per_s_slope: Option<f64>,
    /// Nanoseconds in the kernel for each connection, by each one more.
    pub kernel_ns_slope: Option<f64>,
    /// Milliseconds until it observes, by each one more.
    pub start_ms_slope: Option<f64>,
    /// KiB of memory, by each one more.
    pub resident_kib_slope: Option<f64>,
}

/// All three curves; `say` hears of progress.
pub fn measure(ground: &Ground, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Vec<Curve>> {
    let _until_the_end = enable_stats(Stats::RunTime).context("failed to enable statistics")?;
    say("growth with connections a second");
    let mut points = Vec::new();
    let loads = plan.rates.iter().map(|&rate| Load::Paced(rate));
    for load in loads.chain([Load::Connections]) {
        let mut point = point(ground, 0, load, plan.seconds)?;
        point.x = point.rate;
        points.push(point);
    }
    let rates = Curve::of("connections/s", points);
    let paced = Load::Paced(PACE);
    let mut points = Vec::new();
    for &services in &plan.services {
        say(&format!("growth with Services: {services}"));
        let mut point = point(ground, services, paced, plan.seconds)?;
        point.x = services.into();
        points.push(point);
    }
    let services = Curve::of("Services", points);
    let mut points = Vec::new();
    let mut wires = Wires::none(ground)?;
    for &interfaces in &plan.interfaces {
        say(&format!("growth with interfaces: {interfaces}"));
        wires.raise(ground, interfaces)?;
        let mut point = point(ground, 0, paced, plan.seconds)?;
        point.x = interfaces.into();
        points.push(point);
    }
    wires.remove(ground)?;
    let interfaces = Curve::of("interfaces", points);
    Ok(vec![rates, services, interfaces])
}

impl Curve {
    fn of(with: &'static str, points: Vec<Point>) -> Self {
        let along = |y: fn(&Point) -> f64| {
            let points: Vec<(f64, f64)> = points.iter().map(|point| (point.x, y(point))).collect();
            slope(&points)
        };
        Self {
            with,
            agent_us_per_s_slope: along(|point| point.agent_ms_per_s * 1e3),
            kernel_ns_slope: along(|point| point.kernel_ns),
            start_ms_slope: along(|point| point.start_ms),
            resident_kib_slope: along(|point| point.resident_mib * 1_024.0),
            points,
        }
    }
}

/// An agent with so many Services, under a load; `x` is the caller's.
fn point(ground: &Ground, services: u16, load: Load, seconds: u32) -> Result<Point> {
    let objects = ground.folder().join("more.json");
    fs::write(&objects, cluster::objects(services).to_string())
        .context("failed to write the objects")?;
    let start = Instant::now();
    let agent = Holding::agent(ground, &objects)?;
    let started = start.elapsed();
    let process = agent.observer().context("an agent is an observer")?;
    // The first second is the start's: objects are read, interfaces looked at.
    std::thread::sleep(Duration::from_secs(1));
    let programs = || -> Result<Vec<ProgramInfo>> {
        let programs = kernel::programs(ground)?;
        Ok(programs.into_iter().map(|(_, program)| program).collect())
    };
    let (before, used) = (programs()?, machine::process_time(process)?);
    let told = agent.followed().unwrap_or(0);
    let since = Instant::now();
    let sample = load.run(ground, seconds)?;
    // The last ones are still on their way.
    std::thread::sleep(Duration::from_millis(200));
    let used = machine::process_time(process)?.saturating_sub(used);
    let watched = since.elapsed();
    let told = agent.followed().unwrap_or(0).saturating_sub(told);
    let in_kernel: Duration = programs()?
        .iter()
        .zip(&before)
        .map(|(after, before)| after.run_time().saturating_sub(before.run_time()))
        .sum();
    let resident = machine::resident_bytes(process)?;
    agent.stop()?;
    let connections = sample.done.work;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let [told, resident] = [told as f64, resident as f64];
    Ok(Point {
        x: 0.0,
        agent_ms_per_s: used.as_secs_f64() * 1e3 / watched.as_secs_f64(),
        agent_us: used.as_secs_f64() * 1e6 / connections,
        kernel_ns: in_kernel.as_secs_f64() * 1e9 / connections,
        rate: connections / sample.done.seconds,
        told_percent: told * 100.0 / connections,
        start_ms: started.as_secs_f64() * 1e3,
        resident_mib: resident / 1_048_576.0,
    })
}

/// More pods' veths on the node, whose other ends are in a namespace of their own.
struct Wires {
    ends: Namespace,
    own: u8,
    raised: u8,
}

impl Wires {
    fn none(ground: &Ground) -> Result<Self> {
        Ok(Self {
            ends: Namespace::create("ends")?,
            own: u8::try_from(ground.interfaces().len())?,
            raised: 0,
        })
    }

    /// Until the node has so many interfaces in all.
    fn raise(&mut self, ground: &Ground, interfaces: u8) -> Result<()> {
        let node = &ground.node().namespace;
        let ends = self.ends.name();
        while self.own + self.raised < interfaces {
            let number = self.raised;
            node.ip(&format!(
                "link add more{number} type veth peer name end{number} netns {ends}\n\
                 link set more{number} up\n\
                 route add 10.244.1.{} dev more{number}\n",
                100 + number
            ))?;
            self.raised += 1;
        }
        Ok(())
    }

    fn remove(self, ground: &Ground) -> Result<()> {
        let node = &ground.node().namespace;
        for number in 0..self.raised {
            node.ip(&format!("link delete more{number}\n"))?;
        }
        Ok(())
    }
}
