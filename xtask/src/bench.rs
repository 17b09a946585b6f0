//! `cargo xtask bench`: what observing costs on this machine.

pub(crate) mod check;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{build, process, setup, workspace};

/// The bench of userspace: its package and its binary.
const USERSPACE: (&str, &str) = ("observer-bench", "core_bench");

/// What `cargo xtask bench` takes.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line"
)]
pub(crate) struct Options {
    /// How often each comparison is made.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For how many seconds traffic flows at a time.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// Only these: bulk-1 bulk-8 requests connections connections-paced datagrams flooded (traffic),
    /// kernel live growth rest userspace.
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// As little of everything as shows that it works; the figures then say nothing.
    #[arg(long)]
    quick: bool,
    /// Measure nothing, but compare counts of instructions with those that are kept: times are too
    /// noisy for that.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "only", "quick", "json", "svg"])]
    check: bool,
    /// Keep what is counted now as what is compared with; a virtual machine runs for that too.
    #[arg(long, requires = "check")]
    accept: bool,
    /// Where to write all figures [default: bench/bench.json in cargo's target directory].
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the picture [default: bench/bench.svg in cargo's target directory].
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write what was found into README.md and docs/cost.md, which quote it.
    #[arg(long, conflicts_with_all = ["only", "quick", "check"])]
    document: bool,
}

/// Builds what is measured and what measures, and runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.check {
        return check::run(options.accept);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench makes network namespaces and loads BPF programs: run it as root");
    }
    setup::all()?;
    // One by one: what is measured is what is shipped, without what others would have of a crate.
    build::run()?;
    for (package, binary) in [("tests", "bench"), USERSPACE] {
        process::run(
            process::cargo("build")
                .args(["--release", "--package", package])
                .args(["--bin", binary]),
        )?;
    }
    let folder = workspace::target()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut bench = Command::new(workspace::target()?.join("release/bench"));
    bench
        .current_dir(workspace::root())
        .env("OBSERVER_BIN", workspace::observer()?)
        .args(["--rounds", &options.rounds.to_string()])
        .args(["--seconds", &options.seconds.to_string()]);
    for (option, given, default) in [
        ("--json", &options.json, "bench.json"),
        ("--svg", &options.svg, "bench.svg"),
    ] {
        let file = match given {
            Some(given) => std::path::absolute(given).context("the path of a result")?,
            None => folder.join(default),
        };
        bench.arg(option).arg(file);
    }
    if options.quick {
        bench.arg("--quick");
    }
    if options.document {
        bench.arg("--document").arg(workspace::root());
    }
    bench
        .arg("--userspace")
        .arg(workspace::target()?.join("release").join(USERSPACE.1));
    if !options.only.is_empty() {
        bench.arg("--only").args(&options.only);
    }
    let status = process::status(&mut bench)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
