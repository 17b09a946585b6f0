//! What observing costs: measured here, side by side and alternating, against nothing, against the
//! least that a program on a hook can cost, and against what else people run.
//!
//! The same traffic flows under each condition, and without it right before and right after; a round
//! in which these two differ does not count. All of it is in the namespaces of one lab.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{command, observer_process::binary};

use self::{
    compare::Plan,
    ground::Ground,
    load::{Load, PACE},
    results::{Results, Setting},
};

pub mod chart;
pub mod cluster;
pub mod compare;
pub mod condition;
pub mod document;
pub mod ground;
pub mod growth;
pub mod kernel;
pub mod live;
pub mod load;
pub mod machine;
pub mod packets;
pub mod place;
pub mod rest;
pub mod results;
mod server;
pub mod statistics;
pub mod table;
pub mod targets;
pub mod userspace;
pub mod yardstick;

/// The parts that are no load.
const PARTS: [&str; 5] = ["kernel", "live", "growth", "rest", "userspace"];

/// After so long comparisons are repeated no more than they must be.
const ENOUGH: Duration = Duration::from_mins(15);
/// What a quick run tries: one load of each kind.
const QUICK: [Load; 3] = [Load::Bulk(1), Load::Requests, Load::Paced(PACE)];

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each comparison is made.
    pub rounds: usize,
    /// For how many seconds traffic flows at a time.
    pub seconds: u32,
    /// Only these loads and parts; all if there are none.
    pub only: Vec<String>,
    /// As little of everything as shows that it works: its figures say nothing.
    pub quick: bool,
    /// The bench of userspace, if it is there.
    pub userspace: Option<PathBuf>,
}

impl Options {
    /// Whether a load or a part is wanted.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Refuses names that are none.
    fn check(&self) -> Result<()> {
        let names: Vec<&str> = Load::ALL.into_iter().map(Load::name).chain(PARTS).collect();
        for only in &self.only {
            ensure!(
                names.contains(&&**only),
                "there is no {only}; there are {}",
                names.join(", ")
            );
        }
        Ok(())
    }
}

/// Measures; `say` hears of progress.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Results> {
    options.check()?;
    let start = Instant::now();
    let version = command::run(Command::new(binary()?).arg("--version"))?;
    say("raising the cluster");
    let ground = Ground::raise()?;
    let mut results = Results {
        setting: Setting {
            kernel: machine::kernel()?,
            processors: machine::processors()?,
            observer: version.trim().to_owned(),
            rounds: options.rounds,
            seconds: options.seconds,
            took_seconds: 0.0,
        },
        ..Results::default()
    };
    let quick = options.quick && options.only.is_empty();
    let loads: Vec<Load> = Load::ALL
        .into_iter()
        .filter(|load| options.wants(load.name()) && (!quick || QUICK.contains(load)))
        .collect();
    if options.wants("rest") {
        say("at rest");
        results.rest = Some(rest::measure(&ground)?);
    }
    if let Some(program) = options
        .userspace
        .as_ref()
        .filter(|_| options.wants("userspace"))
    {
        say("userspace");
        results.userspace = Some(userspace::measure(program, options.quick)?);
    }
    if options.wants("kernel") {
        for payload in [false, true] {
            say("packets of each class, run in the kernel");
            let rows = kernel::measure(&ground, kernel_plan(options), payload)?;
            results.kernel.extend(rows);
        }
    }
    if options.wants("live") {
        let loads = [
            Load::Openings,
            Load::Connections,
            Load::Bulk(1),
            Load::Requests,
            Load::Datagrams,
        ];
        let (number, rounds) = if options.quick { (2, 1) } else { (5, 3) };
        for load in &loads[..number] {
            say(&format!("programs under traffic: {}", load.name()));
            let rows = live::measure(&ground, *load, rounds, options.seconds)?;
            results.live.extend(rows);
        }
    }
    if options.wants("growth") {
        results.growth = growth::measure(&ground, &growth_plan(options), say)?;
    }
    if !loads.is_empty() {
        let plan = Plan {
            loads,
            rounds: options.rounds,
            enough: if options.quick {
                Duration::ZERO
            } else {
                ENOUGH.saturating_sub(start.elapsed())
            },
            seconds: options.seconds,
        };
        results.compared = compare::compare(&ground, &plan, say)?;
    }
    results.measures = results.measures();
    results.noisy = results.noisy();
    results.targets = targets::judge(targets::targets()?, &results.measures, &results.noisy);
    results.setting.took_seconds = start.elapsed().as_secs_f64();
    Ok(results)
}

const fn kernel_plan(options: &Options) -> kernel::Plan {
    if options.quick {
        kernel::Plan {
            repeat: 10_000,
            stretches: 3,
            different: 500,
        }
    } else {
        kernel::Plan {
            repeat: 100_000,
            stretches: 25,
            different: 10_000,
        }
    }
}

fn growth_plan(options: &Options) -> growth::Plan {
    if options.quick {
        growth::Plan {
            rates: vec![300],
            services: vec![10, 1_000],
            interfaces: vec![13],
            seconds: 1,
        }
    } else {
        growth::Plan {
            rates: vec![100, 300, 1_000, 3_000],
            services: vec![10, 1_000, 5_000],
            interfaces: vec![13, 32, 128],
            seconds: 2,
        }
    }
}
