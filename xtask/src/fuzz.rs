//! `cargo xtask fuzz`: libFuzzer on the targets of the package `observer-fuzz`.
//!
//! By this workspace's own cargo and compiler: what libFuzzer needs of a compiler, stable ones
//! have. Whoever has cargo-fuzz can use that (`cargo fuzz run btf --features libfuzzer`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::{process, setup, workspace};

/// What `cargo xtask fuzz` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to fuzz [default: one after the other].
    target: Option<Target>,
    /// How long to fuzz each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// A target: what reads bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The kernel's description of its own types, and a module's on top of it.
    Btf,
    /// The cluster's objects, as kubectl prints them.
    Cluster,
    /// Manifests, as somebody wrote them.
    Manifests,
    /// What comes up the ring buffer, and the verdicts on it.
    Observations,
    /// The first bytes of a connection, and whom they name.
    Payload,
    /// A row of the decision table, as somebody wrote it.
    Scenario,
}

/// What is compiled in for libFuzzer: which code runs, and what it compares.
const INSTRUMENTATION: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Longer on one input is as bad as a panic. Most take microseconds.
const SECONDS_PER_INPUT: u32 = 10;

/// Builds the targets and runs them.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    setup::toolchain()?;
    let targets = options
        .target
        .as_ref()
        .map_or(Target::value_variants(), std::slice::from_ref);
    fuzz(targets, options.seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Each target for so many seconds; a finding is an error.
pub(crate) fn step(seconds: u32) -> anyhow::Result<()> {
    fuzz(Target::value_variants(), seconds)
}

fn fuzz(targets: &[Target], seconds: u32) -> anyhow::Result<()> {
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    process::run(
        process::cargo("build")
            .args(["--package", "observer-fuzz", "--features", "libfuzzer"])
            // A target is named so that build scripts are not instrumented.
            .args(["--profile", "fuzz", "--bins", "--target", &host])
            .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}")),
    )?;
    let programs = workspace::target()?.join(host).join("fuzz");
    let work = workspace::target()?.join("fuzzing");
    for target in targets {
        run_one(*target, &programs, &work, seconds)?;
    }
    Ok(())
}

/// Runs one target on what it has found interesting so far, and on its seeds.
fn run_one(target: Target, programs: &Path, work: &Path, seconds: u32) -> anyhow::Result<()> {
    let name = target.name();
    let corpus = work.join("corpus").join(name);
    let findings = work.join("findings").join(name);
    for directory in [&corpus, &findings] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let seeds = workspace::root().join(target.seeds());
    let status = process::status(
        Command::new(programs.join(name))
            .args([&corpus, &seeds])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={SECONDS_PER_INPUT}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .args(["-print_final_stats=1", "-verbosity=0"]),
    )?;
    if !status.success() {
        bail!(
            "{name} broke ({status}); the bytes are in {}: fix it, and keep them in {}",
            findings.display(),
            seeds.display()
        );
    }
    Ok(())
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Cluster => "cluster",
            Self::Manifests => "manifests",
            Self::Observations => "observations",
            Self::Payload => "payload",
            Self::Scenario => "scenario",
        }
    }

    /// What it starts from, below the workspace.
    fn seeds(self) -> PathBuf {
        match self {
            Self::Scenario => PathBuf::from("tests/scenarios"),
            Self::Btf | Self::Cluster | Self::Manifests | Self::Observations | Self::Payload => {
                Path::new("fuzz/seeds").join(self.name())
            }
        }
    }
}
