//! The first program of a virtual machine of `cargo xtask kernels`: tries the observer on the
//! kernel that booted, tells what came of it, and turns the machine off.
//!
//! The machine holds programs of the host at their own paths, the kernel's own modules, which
//! the kernel loads as on any node, when something asks for them, and under `/suites` the suites
//! to run. What the checks say goes to the console. What came of them goes to the second serial
//! port, where the kernel writes nothing, one line a check, `passed|FAILED SECONDS CHECK NOTE`,
//! and `done` at the end: a machine that dies on the way never says it.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        termios::tcdrain,
    },
};
use tests::{
    command,
    observer_process::{self, ObserverProcess, READY},
    privilege::{REQUIRE_PRIVILEGED, WHOLE_KERNEL},
};

const RESULTS: &str = "/dev/ttyS1";
const SUITES: &str = "/suites";
/// The variable, followed by the name of a suite, that says by which part of their names its tests
/// are chosen; else all are run.
const ONLY: &str = "ONLY_";

/// How the names of the observer's programs begin.
const OURS: &str = "observer_";

/// What kube-proxy's rules have loaded on a node, what kubeadm and the lab's tunnels ask for, and
/// nothing loads by itself.
const MODULES: [&str; 3] = ["nf_conntrack", "br_netfilter", "tun"];

/// What is mounted where.
const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

fn main() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this is the first program of a virtual machine: run `cargo xtask kernels`"
    );
    for (kind, at) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("failed to make {at}"))?;
        mount(None::<&str>, at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount {at}"))?;
    }
    command::run(Command::new("modprobe").arg("--all").args(MODULES))?;
    let mut results = File::options()
        .write(true)
        .open(RESULTS)
        .with_context(|| format!("failed to open {RESULTS}"))?;
    writeln!(results, "passed {:.1} boot", since_boot()?.as_secs_f64())?;
    check(&mut results, "load", load)?;
    check(&mut results, "verified", verified)?;
    for suite in suites()? {
        let name = suite.file_name().unwrap_or_default().to_string_lossy();
        let only = env::var(format!("{ONLY}{name}")).ok();
        check(&mut results, &name, || run_suite(&suite, only))?;
    }
    writeln!(results, "done")?;
    // What is still on its way would be lost with the machine.
    tcdrain(&results)?;
    tcdrain(io::stdout())?;
    match reboot(RebootMode::RB_POWER_OFF)? {}
}

/// Runs one check, which gives a note for the table, and tells what came of it.
fn check(results: &mut File, name: &str, check: impl FnOnce() -> Result<String>) -> Result<()> {
    say(&format!("=== {name}"));
    let start = Instant::now();
    let result = check();
    let took = start.elapsed().as_secs_f64();
    let (result, note) = match result {
        Ok(note) => ("passed", note),
        Err(error) => {
            say(&format!("{name}: {error:#}"));
            ("FAILED", String::new())
        }
    };
    writeln!(results, "{result} {took:.1} {name} {note}")?;
    Ok(())
}

/// The programs pass the verifier, attach, and come off again; the note says how they attached.
fn load() -> Result<String> {
    let mut observer = Command::new(observer_process::binary()?);
    observer.args(["trace", "--interface", "lo", "--duration", "1s"]);
    let output = observer.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    say(&said);
    ensure!(output.status.success(), "{observer:?}: {}", output.status);
    ensure!(!said.contains("warning"), "it warns");
    let ready = said.lines().find(|line| line.starts_with(READY));
    let ready = ready.context("it never observed")?;
    let (_, how) = ready.rsplit_once(' ').context("it does not say how")?;
    Ok(format!("by {how}"))
}

/// How many instructions the verifier walked of each program, as `cargo xtask` reads them; kernels
/// before 5.16 do not tell (`bpf_prog_info.verified_insns`).
fn verified() -> Result<String> {
    let mut command = Command::new(observer_process::binary()?);
    command.args(["trace", "--interface", "lo"]);
    let observer = ObserverProcess::by(command)?;
    let mut counts = Vec::new();
    for program in loaded_programs() {
        let program = program.context("failed to list the programs")?;
        let name = program.name_as_str().unwrap_or_default();
        if name.starts_with(OURS) {
            let count = program.verified_instruction_count();
            counts.extend(count.map(|count| format!("{name}={count}")));
        }
    }
    observer.stop()?;
    counts.sort();
    Ok(counts.join(" "))
}

/// Runs the tests of a suite, or those whose names have `only` in them, which the note says.
fn run_suite(suite: &Path, only: Option<String>) -> Result<String> {
    let mut tests = Command::new(suite);
    tests.args(&only);
    let listed = tests.args(["--list", "--format", "terse"]);
    ensure!(
        !command::run(listed)?.is_empty(),
        "it has no such tests: {only:?}"
    );
    let status = Command::new(suite)
        .args(&only)
        .arg("--test-threads=1")
        .env(REQUIRE_PRIVILEGED, "1")
        .env(WHOLE_KERNEL, "1")
        .status()
        .with_context(|| format!("failed to start {}", suite.display()))?;
    ensure!(status.success(), "{status}");
    Ok(only.map_or_else(String::new, |only| format!("only {only}")))
}

fn suites() -> Result<Vec<PathBuf>> {
    // A machine may have none.
    if !Path::new(SUITES).exists() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(SUITES).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    let mut suites = listed.with_context(|| format!("failed to list {SUITES}"))?;
    suites.sort();
    Ok(suites)
}

fn since_boot() -> Result<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").context("failed to read the uptime")?;
    let seconds = uptime.split_whitespace().next().unwrap_or_default();
    let seconds = seconds
        .parse()
        .with_context(|| format!("the uptime is {uptime:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// A line on the console.
fn say(line: &str) {
    let _nobody_else_to_tell = writeln!(io::stdout(), "{line}");
}
