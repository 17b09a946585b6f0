//! What a packet costs in the kernel (`BPF_PROG_TEST_RUN`): the programs of the very observer that
//! runs, beside the floor and the naive counter, in turns.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, loaded_programs};
use serde::Serialize;

use super::{
    condition::Holding,
    ground::Ground,
    packets::Class,
    statistics::Spread,
    yardstick::{Kind, Yardstick},
};
use crate::attached;

/// Where the observer's programs are, by the side.
pub const HOOKS: [(&str, &str); 2] = [("ingress", "observer_in"), ("egress", "observer_out")];
/// What the other two are called, whose side makes no difference.
const YARDSTICKS: [&str; 2] = ["floor", "naive"];

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many times each packet is run at a stretch.
    pub repeat: u32,
    /// How many stretches there are.
    pub stretches: u32,
    /// How many packets of which each must be another.
    pub different: u32,
}

/// What a class of packets costs at a hook.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The class.
    pub class: &'static str,
    /// `ingress`, `egress`, `floor` or `naive`.
    pub program: &'static str,
    /// Whether first bytes were asked for.
    pub payload: bool,
    /// Whether each was run alone: then the stopwatch is most of it.
    pub alone: bool,
    /// Nanoseconds of a run; the spread is that of the stretches.
    pub ns: Spread,
    /// The least of the stretches, which nothing disturbed.
    pub ns_min: f64,
    /// What is left of the least without the floor's least in the same turn.
    pub net_ns: f64,
}

/// A program to run packets on.
struct Subject<'a> {
    name: &'static str,
    program: &'a SchedClassifier,
}

/// The programs of the observer that is attached to the node, by side.
pub fn programs(ground: &Ground) -> Result<Vec<(&'static str, ProgramInfo)>> {
    let attached = attached::programs(&ground.node().namespace)?;
    let mut found = Vec::new();
    for program in loaded_programs() {
        // One that ends while they are listed is none of ours.
        let Ok(program) = program else { continue };
        if !attached.contains(&program.id()) {
            continue;
        }
        let name = program.name_as_str().unwrap_or_default();
        if let Some((side, _)) = HOOKS.iter().find(|(_, of)| *of == name) {
            found.push((*side, program));
        }
    }
    ensure!(
        found.len() == HOOKS.len(),
        "{} programs of the observer are attached",
        found.len()
    );
    found.sort_by_key(|(side, _)| *side != HOOKS[0].0);
    Ok(found)
}

/// Measures all classes with first bytes asked for or not.
pub fn measure(ground: &Ground, plan: Plan, payload: bool) -> Result<Vec<Row>> {
    let more: &[&str] = if payload { &["--payload", "on"] } else { &[] };
    let holding = Holding::trace(ground, &ground.objects(), more)?;
    let yardsticks = [Yardstick::load(Kind::Floor)?, Yardstick::load(Kind::Naive)?];
    let mut observers = Vec::new();
    for (side, info) in programs(ground)? {
        let program = SchedClassifier::from_program_info(info, side.into());
        observers.push((
            side,
            program.with_context(|| format!("the program at {side}"))?,
        ));
    }
    let mut subjects = Vec::new();
    for (name, yardstick) in YARDSTICKS.iter().zip(&yardsticks) {
        let program = yardstick.program()?;
        subjects.push(Subject { name, program });
    }
    subjects.extend(
        observers
            .iter()
            .map(|(name, program)| Subject { name, program }),
    );
    let mut rows = Vec::new();
    for class in Class::SAME {
        rows.extend(same(class, &subjects, plan, payload)?);
    }
    for class in Class::DIFFERENT {
        rows.extend(different(class, &subjects, plan, payload)?);
    }
    holding.stop()?;
    Ok(rows)
}

/// Nanoseconds of a run. The kernel's own stopwatch knows whole ones only, so of many runs the call
/// is timed.
fn run(subject: &Subject<'_>, packet: &[u8], repeat: u32) -> Result<f64> {
    let start = Instant::now();
    let result = subject
        .program
        .test_run(TestRunOptions {
            data_in: Some(packet),
            repeat,
            ..TestRunOptions::new()
        })
        .with_context(|| format!("failed to run a packet on {}", subject.name))?;
    Ok(if repeat > 1 {
        start.elapsed().as_secs_f64() * 1e9 / f64::from(repeat)
    } else {
        result.duration.as_secs_f64() * 1e9
    })
}

/// One packet over and over, on each program in turn.
fn same(class: Class, subjects: &[Subject<'_>], plan: Plan, payload: bool) -> Result<Vec<Row>> {
    let packet = class.packet(0)?;
    let mut stretches: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..plan.stretches {
        for subject in subjects {
            let ns = run(subject, &packet, plan.repeat)?;
            stretches.entry(subject.name).or_default().push(ns);
        }
    }
    rows(class, subjects, &stretches, payload, false)
}

/// Packets of which each is another, each run once on every program; a stretch is a tenth of them,
/// and its figure their median.
fn different(
    class: Class,
    subjects: &[Subject<'_>],
    plan: Plan,
    payload: bool,
) -> Result<Vec<Row>> {
    const STRETCHES: u32 = 10;
    let mut stretches: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for stretch in 0..STRETCHES {
        let numbers = (0..plan.different / STRETCHES).map(|number| number * STRETCHES + stretch);
        let packets = numbers
            .map(|number| class.packet(number + u32::from(payload) * plan.different))
            .collect::<Result<Vec<_>>>()?;
        for subject in subjects {
            let mut each = Vec::with_capacity(packets.len());
            for packet in &packets {
                each.push(run(subject, packet, 1)?);
            }
            let spread = Spread::of(each).context("no packets")?;
            stretches
                .entry(subject.name)
                .or_default()
                .push(spread.median);
        }
    }
    rows(class, subjects, &stretches, payload, true)
}

fn rows(
    class: Class,
    subjects: &[Subject<'_>],
    stretches: &BTreeMap<&str, Vec<f64>>,
    payload: bool,
    alone: bool,
) -> Result<Vec<Row>> {
    let least = |name: &str| -> Result<f64> {
        let stretches = stretches.get(name).context("a program was not run")?;
        Ok(stretches.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let floor = least(YARDSTICKS[0])?;
    subjects
        .iter()
        .map(|subject| {
            let all = stretches.get(subject.name).context("not run")?;
            let ns_min = least(subject.name)?;
            Ok(Row {
                class: class.name(),
                program: subject.name,
                payload,
                alone,
                ns: Spread::of(all.iter().copied()).context("no stretches")?,
                ns_min,
                net_ns: ns_min - floor,
            })
        })
        .collect()
}
