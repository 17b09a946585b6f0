//! `cargo xtask test`: everything that must hold, and where the time went.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use crate::toolchain::Toolchain;
use crate::{bench, deny, deploy, fuzz, kernels, process, setup, tidy, workspace};

/// What `cargo xtask test` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A test that cannot run here fails; without this it is skipped, aloud [default: if CI is
    /// set].
    #[arg(long)]
    no_skips: bool,
    /// Ask for security advisories too, which are fetched from the network.
    #[arg(long)]
    online: bool,
    /// Take the time for everything: every kernel, with more on each, and the fuzzers.
    #[arg(long)]
    all: bool,
    /// Run only these steps.
    #[arg(value_name = "STEP")]
    only: Vec<String>,
}

/// How long each fuzz target is run in the step `fuzz`.
const FUZZ_SECONDS: u32 = 20;

/// The suites whose tests can run beside each other.
const WAITING: [&str; 2] = ["agent", "kubernetes"];
/// So many at a time.
const WAITING_THREADS: u32 = 4;

type Step<'a> = (&'static str, Box<dyn Fn() -> anyhow::Result<()> + 'a>);

/// What one step came to.
struct Outcome {
    step: &'static str,
    took: Duration,
    passed: bool,
}

/// Runs every step, also after one has failed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    // Without this no step can do its work.
    let toolchain = setup::all()?;
    let mut outcomes = vec![Outcome {
        step: "setup",
        took: start.elapsed(),
        passed: true,
    }];
    let steps = steps(options, &toolchain);
    if let Some(unknown) = options
        .only
        .iter()
        .find(|only| steps.iter().all(|(step, _)| step != only))
    {
        let names: Vec<_> = steps.iter().map(|(step, _)| *step).collect();
        bail!("there is no step {unknown}; there are {}", names.join(", "));
    }
    for (step, check) in steps {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == step) {
            continue;
        }
        process::say(&format!("\n=== {step}"));
        let start = Instant::now();
        let result = check();
        if let Err(error) = &result {
            process::say(&format!("{step}: {error:#}"));
        }
        outcomes.push(Outcome {
            step,
            took: start.elapsed(),
            passed: result.is_ok(),
        });
    }
    process::say(&table(&outcomes, start.elapsed()).to_string());
    Ok(if outcomes.iter().all(|outcome| outcome.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn steps<'a>(options: &'a Options, toolchain: &'a Toolchain) -> Vec<Step<'a>> {
    let no_skips = options.no_skips || env::var_os("CI").is_some();
    let mut steps: Vec<Step<'_>> = vec![
        (
            "format",
            Box::new(|| process::run(process::cargo("fmt").args(["--all", "--check"]))),
        ),
        (
            "clippy",
            Box::new(|| {
                process::run(process::cargo("clippy").args([
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]))
            }),
        ),
        (
            "clippy-bpf",
            Box::new(|| {
                let target = workspace::target()?.join("ebpf");
                process::run(
                    toolchain
                        .cargo("clippy", workspace::root(), &target)
                        .args(["--", "-D", "warnings"]),
                )
            }),
        ),
        ("tidy", Box::new(tidy::check)),
        (
            "unit",
            Box::new(move || {
                let mut command = process::cargo("test");
                command.args(["--workspace", "--exclude", "tests"]);
                process::run(with_skips(&mut command, no_skips))
            }),
        ),
        (
            "build",
            Box::new(|| {
                process::run(process::cargo("build").args(["--release", "--package", "observer"]))
            }),
        ),
        ("bench-check", Box::new(bench::check::step)),
        ("lab", Box::new(move || lab(no_skips))),
        ("waiting", Box::new(move || waiting(no_skips))),
        ("deploy-setup", Box::new(deploy::install)),
        ("deploy", Box::new(move || deploy::step(no_skips))),
        (
            "kernels",
            Box::new(move || kernels::step(options.all, no_skips)),
        ),
        (
            "documentation",
            Box::new(|| {
                process::run(
                    process::cargo("doc")
                        .args(["--workspace", "--no-deps", "--document-private-items"])
                        .env("RUSTDOCFLAGS", "-D warnings"),
                )
            }),
        ),
        ("deny-setup", Box::new(deny::install)),
        ("deny", Box::new(|| deny::check(options.online))),
    ];
    if options.all || options.only.iter().any(|only| only == "fuzz") {
        steps.push(("fuzz", Box::new(|| fuzz::step(FUZZ_SECONDS))));
    }
    steps
}

/// Every suite of the lab; at its end the decision table, as it came out.
fn lab(no_skips: bool) -> anyhow::Result<()> {
    let table = workspace::target()?.join("scenarios.txt");
    if table.exists() {
        fs::remove_file(&table).context("cannot remove the table of an earlier run")?;
    }
    let mut command = process::cargo("test");
    command
        .env("OBSERVER_BIN", workspace::observer()?)
        .env("SCENARIO_TABLE", &table)
        .args(["--package", "tests", "--no-fail-fast", "--lib", "--bins"]);
    for suite in suites()? {
        if !WAITING.contains(&&*suite) && !deploy::SUITES.contains(&&*suite) {
            command.args(["--test", &suite]);
        }
    }
    // The suites count what they left in the kernel: one at a time.
    command.args(["--", "--test-threads=1"]);
    let result = process::run(with_skips(&mut command, no_skips));
    if let Ok(table) = fs::read_to_string(&table) {
        process::say(&format!(
            "what is predicted, what was observed and what the sockets saw:\n{table}"
        ));
    }
    result
}

/// The suites that mostly wait: for time-outs, for servers that are slow on purpose.
fn waiting(no_skips: bool) -> anyhow::Result<()> {
    let mut command = process::cargo("test");
    command.env("OBSERVER_BIN", workspace::observer()?).args([
        "--package",
        "tests",
        "--no-fail-fast",
    ]);
    for suite in WAITING {
        command.args(["--test", suite]);
    }
    command.args(["--", &format!("--test-threads={WAITING_THREADS}")]);
    process::run(with_skips(&mut command, no_skips))
}

/// The names of all suites.
fn suites() -> anyhow::Result<Vec<String>> {
    let folder = workspace::root().join("tests/tests");
    let read = || {
        let mut suites = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_suite =
                path.join("main.rs").is_file() || path.extension().is_some_and(|end| end == "rs");
            let name = path.file_stem().and_then(|name| name.to_str());
            suites.extend(name.filter(|_| is_suite).map(str::to_owned));
        }
        Ok::<_, std::io::Error>(suites)
    };
    let mut suites = read().with_context(|| format!("cannot read {}", folder.display()))?;
    suites.sort();
    Ok(suites)
}

/// Whether a test that cannot run here may be skipped, or fails.
pub(crate) fn with_skips(tests: &mut Command, no_skips: bool) -> &mut Command {
    if no_skips {
        tests.env("OBSERVER_REQUIRE_PRIVILEGED", "1");
    }
    tests
}

fn table(outcomes: &[Outcome], total: Duration) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["step", "result", "seconds"]);
    let seconds = |took: Duration| format!("{:.1}", took.as_secs_f64());
    for outcome in outcomes {
        let result = if outcome.passed { "passed" } else { "FAILED" };
        table.add_row([outcome.step, result, &seconds(outcome.took)]);
    }
    table.add_row(["all", "", &seconds(total)]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
