//! `cargo xtask kernels`: the observer on Debian's kernels, each in a virtual machine.
//!
//! A machine has one of Debian's kernels with its modules, the observer, the tools of the lab,
//! and the suites of the package `tests` that a kernel can make fail. Its first program, `guest`,
//! runs them; see there.

mod image;
mod initramfs;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use self::image::Image;
use self::initramfs::Initramfs;
use self::machine::{Machine, Outcome};
use crate::bench::check::{self, Counts};
use crate::process::{cargo, find, output, say};
use crate::{build, folders, setup, workspace};

/// What `cargo xtask kernels` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Fetch the kernels anew: Debian mends them now and then.
    #[arg(long)]
    update: bool,
    /// Run only this suite; may be repeated.
    #[arg(long = "suite", value_name = "SUITE", value_parser = PossibleValuesParser::new(SUITES.map(|(suite, _)| suite)))]
    suites: Vec<String>,
    /// Try only these.
    #[arg(value_enum, value_name = "KERNEL")]
    only: Vec<Kernel>,
}

/// A kernel that Debian ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 11's.
    #[value(name = "5.10")]
    Bullseye,
    /// Debian 12's.
    #[value(name = "6.1")]
    Bookworm,
    /// Debian 13's.
    #[value(name = "6.12")]
    Trixie,
    /// The newest that Debian has built.
    #[value(name = "newest")]
    Sid,
}

/// The suites that a kernel can make fail: they load, attach, read and leave the kernel.
const SUITES: [Suite; 11] = [
    ("attach", None),
    ("cleanup", None),
    ("conntrack", None),
    ("ipvs", None),
    ("networks", None),
    ("outcomes", None),
    ("packets", None),
    ("payload", None),
    ("protocols", None),
    ("scenarios", Some(IN_MACHINES)),
    ("trace", None),
];

/// In the names of scenarios' tests that need what hosts may lack; the others say nothing of a
/// kernel that the suites do not.
const IN_MACHINES: &str = "where_the_kernel_has";

/// What every change is tried with: verdicts, and of the wirings those that only these machines
/// have.
const QUICK: [Suite; 3] = [
    ("trace", None),
    ("networks", Some("stacked")),
    ("scenarios", Some(IN_MACHINES)),
];

/// The check that tells what the verifier walked of each program.
const VERIFIED: &str = "verified";

/// Most that a machine may take for all but the suites, and for a suite: many times what they
/// take.
const BOOT_SECONDS: usize = 120;
const SUITE_SECONDS: usize = 600;

/// What the suites read of the workspace, where they were built to look for it.
const DATA: [&str; 3] = ["observer/schema", "tests/clusters", "tests/scenarios"];

/// Names of tools that the lab runs, beside those that setup knows.
const TOOLS: [&str; 8] = [
    "bridge",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
    "iptables",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-nft-save",
    "modprobe",
];
/// The extensions that iptables loads by name.
const EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// What a machine may load of its kernel: all that networks may need.
const MODULES: [&str; 5] = ["arch", "crypto", "drivers/net", "lib", "net"];

impl Kernel {
    /// The Debian release it is in.
    fn debian(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// A suite, and what the names of its tests must have in them to be run.
type Suite = (&'static str, Option<&'static str>);

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Options {
        update,
        suites,
        only,
    } = options;
    let kernels = match only.as_slice() {
        [] => Kernel::value_variants(),
        only => only,
    };
    let mut wanted = SUITES.to_vec();
    wanted.retain(|(suite, _)| suites.is_empty() || suites.iter().any(|only| only == suite));
    Ok(if try_on(kernels, &wanted, *update, None)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A step of `cargo xtask test`: every suite on every kernel if `all`, about a quarter of an hour
/// for each; else, in about two minutes, [`QUICK`] on one that is older than what most develop on.
/// Skipped, aloud, where there can be no such machines, unless `no_skips`.
pub(crate) fn step(all: bool, no_skips: bool) -> anyhow::Result<()> {
    let (kernels, suites) = if all {
        (Kernel::value_variants(), SUITES.to_vec())
    } else {
        (&[Kernel::Bookworm][..], QUICK.to_vec())
    };
    match possible() {
        Err(lack) if no_skips => Err(lack),
        Err(lack) => {
            say(&format!("SKIPPED: kernels: {lack}"));
            Ok(())
        }
        Ok(()) if try_on(kernels, &suites, false, None)? => Ok(()),
        Ok(()) => bail!("a check failed on a kernel; see the table above"),
    }
}

/// Whether this machine can make such machines.
fn possible() -> anyhow::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the virtual machines are x86_64 machines with programs of this one");
    }
    if find("apt-get").is_none() {
        bail!("Debian's kernels are fetched by apt-get, which is not here");
    }
    Ok(())
}

/// Boots the kernels one by one, prints what came of it, and tells whether all passed.
/// `keep`: where what the verifier walked goes, instead of being compared.
fn try_on(
    kernels: &[Kernel],
    suites: &[Suite],
    update: bool,
    mut keep: Option<&mut Counts>,
) -> anyhow::Result<bool> {
    possible()?;
    setup::machines()?;
    build::run()?;
    let binaries = Binaries::build(suites)?;
    let folder = workspace::target()?.join("kernels");
    let _held_to_the_end = folders::lock(&folder)?;
    let initramfs = folder.join("initramfs");
    let mut environment = vec!["OBSERVER_BIN=/sbin/observer".to_owned()];
    for (suite, only) in suites {
        // The guest reads it.
        environment.extend(only.map(|only| format!("ONLY_{suite}={only}")));
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["kernel", "check", "result", "seconds", ""]);
    if let Some(seconds) = table.column_mut(3) {
        seconds.set_cell_alignment(CellAlignment::Right);
    }
    let mut passed = true;
    for kernel in kernels {
        let debian = kernel.debian();
        let start = Instant::now();
        let try_it = || {
            let image = Image::of(debian, update)?;
            fill(&initramfs, &image, &binaries)?;
            let machine = Machine {
                image: &image,
                initramfs: &initramfs,
                folder: &folder,
                environment: &environment,
                deadline_seconds: BOOT_SECONDS + SUITE_SECONDS * suites.len(),
            };
            anyhow::Ok((machine.run()?, image.release))
        };
        let (outcomes, release) = try_it().unwrap_or_else(|error| {
            say(&format!("{debian}: {error:#}"));
            (vec![Outcome::failed("boot", "")], debian.to_owned())
        });
        for outcome in outcomes {
            let Outcome {
                check,
                passed: check_passed,
                seconds,
                note,
            } = judged(outcome, &release, keep.as_deref_mut());
            passed &= check_passed;
            let result = if check_passed { "passed" } else { "FAILED" };
            table.add_row([&release, &check, result, &seconds, &note]);
        }
        let seconds = format!("{:.1}", start.elapsed().as_secs_f64());
        table.add_row([&release, "all", "", &seconds, ""]);
    }
    say(&table.to_string());
    Ok(passed)
}

/// What the verifier walked of each program, on the kernel that is pinned for that.
pub(crate) fn verified() -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    if !try_on(&[Kernel::Bookworm], &[], false, Some(&mut counts))? {
        bail!("the programs do not pass on the pinned kernel; see the table above");
    }
    Ok(counts)
}

/// What the verifier walked is compared with the baseline, or only kept.
fn judged(outcome: Outcome, release: &str, keep: Option<&mut Counts>) -> Outcome {
    if outcome.check != VERIFIED || !outcome.passed {
        return outcome;
    }
    let counts = counted(&outcome.note);
    if let Some(keep) = keep {
        keep.extend(counts);
        return outcome;
    }
    match check::compare_verified(release, &counts) {
        Ok(None) => outcome,
        Ok(Some(told)) => {
            say(&told);
            outcome
        }
        Err(error) => {
            say(&format!("{release}: {error:#}"));
            Outcome {
                passed: false,
                ..outcome
            }
        }
    }
}

/// The note of [`VERIFIED`]: `PROGRAM=COUNT`, with spaces between.
fn counted(note: &str) -> Counts {
    let pairs = note.split(' ').filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(program, count)| Some((program.to_owned(), count.parse().ok()?)))
        .collect()
}

/// Fills the root file system of a machine.
fn fill(path: &Path, image: &Image, binaries: &Binaries) -> anyhow::Result<()> {
    let mut initramfs = Initramfs::create(path)?;
    initramfs.program(&binaries.guest, Path::new("/init"))?;
    initramfs.program(&workspace::observer()?, Path::new("/sbin/observer"))?;
    for (name, suite) in &binaries.suites {
        initramfs.program(suite, &Path::new("/suites").join(name))?;
    }
    for tool in setup::LAB.iter().map(|(tool, _)| *tool).chain(TOOLS) {
        let from = find(tool).with_context(|| format!("there is no {tool}"))?;
        initramfs.program(&from, &Path::new("/sbin").join(tool))?;
    }
    for extension in folders::entries(Path::new(EXTENSIONS))? {
        initramfs.program(&extension, &extension)?;
    }
    for data in DATA.map(|data| workspace::root().join(data)) {
        initramfs.folder(&data, &data)?;
    }
    let modules = Path::new("/lib/modules").join(&image.release);
    for index in folders::entries(&image.modules)?
        .iter()
        .filter(|entry| entry.is_file())
    {
        initramfs.file(index, &modules.join(index.file_name().unwrap_or_default()))?;
    }
    for part in MODULES.map(|part| Path::new("kernel").join(part)) {
        initramfs.folder(&image.modules.join(&part), &modules.join(&part))?;
    }
    initramfs.finish()
}

/// What runs in a machine.
struct Binaries {
    guest: PathBuf,
    /// By name.
    suites: Vec<(String, PathBuf)>,
}

impl Binaries {
    /// Builds them as the step `lab` does, and asks cargo where they are.
    fn build(suites: &[Suite]) -> anyhow::Result<Self> {
        let printed = output(cargo("test").args([
            "--quiet",
            "--package",
            "tests",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]))?;
        let artifacts = printed
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()
            .context("cargo printed no JSON")?;
        let executable = |kind: &str, name: &str| {
            let is = |artifact: &&Value| {
                artifact.pointer("/target/kind/0").and_then(Value::as_str) == Some(kind)
                    && artifact.pointer("/target/name").and_then(Value::as_str) == Some(name)
                    && artifact.pointer("/profile/test") == Some(&Value::Bool(kind == "test"))
            };
            let artifact = artifacts.iter().find(is);
            let path = artifact.and_then(|artifact| artifact.get("executable")?.as_str());
            path.map(PathBuf::from)
                .with_context(|| format!("cargo built no {name}"))
        };
        let suites = suites
            .iter()
            .map(|(name, _)| Ok(((*name).to_owned(), executable("test", name)?)));
        Ok(Self {
            guest: executable("bin", "guest")?,
            suites: suites.collect::<anyhow::Result<_>>()?,
        })
    }
}
