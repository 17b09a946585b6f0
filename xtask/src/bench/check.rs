//! `cargo xtask bench --check`: whether what observing costs has grown, told by counts that do not
//! depend on how busy a machine is.
//!
//! Two are kept in `xtask/bench-baseline.json`: the instructions that userspace takes for a fixed
//! work, as callgrind counts them, and those that the verifier walks of each program on a kernel
//! that is pinned, in the virtual machine of `cargo xtask kernels`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::process::{cargo, output, run as run_to_end, say};
use crate::{kernels, setup, workspace};

/// What may be more than before, in hundredths of that.
const TOLERANCE: u64 = 5;
/// How a count is accepted.
const ACCEPT: &str = "if it is worth that: cargo xtask bench --check --accept";
/// The function whose work is counted.
const COUNTED: &str = "*fixed_work*";
/// What the baseline's file calls things.
const RUSTC: &str = "rustc";
const USERSPACE: &str = "userspace_instructions";
const VERIFIED: &str = "verified_instructions";
/// The kernel on which programs are compared: the beginning of its release.
const KERNEL: &str = "6.1.";

/// What was counted, by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts and compares, or keeps.
pub(crate) fn run(accept: bool) -> anyhow::Result<ExitCode> {
    if accept {
        let verified = kernels::verified()?;
        let baseline = json!({
            RUSTC: rustc()?,
            USERSPACE: userspace()?,
            VERIFIED: verified,
        });
        let text = format!("{baseline:#}\n");
        fs::write(path(), text).context("the baseline cannot be written")?;
        say(&format!("kept in {}", path().display()));
        return Ok(ExitCode::SUCCESS);
    }
    step().map(|()| ExitCode::SUCCESS)
}

/// A step of `cargo xtask test`: the part that needs no virtual machine.
pub(crate) fn step() -> anyhow::Result<()> {
    let baseline = baseline()?;
    let (rustc, pinned) = (rustc()?, baseline.get(RUSTC).and_then(Value::as_str));
    if pinned != Some(&rustc) {
        say(&format!(
            "NOT JUDGED: userspace: {rustc} makes other instructions than {}, by which the baseline \
             was counted",
            pinned.unwrap_or("no compiler")
        ));
        return Ok(());
    }
    let before = baseline.get(USERSPACE).and_then(Value::as_u64);
    let before = before.context("the baseline has no count of userspace")?;
    let told = compare("userspace, for 5,000 connections", before, userspace()?)?;
    say(&told);
    Ok(())
}

/// Compares what the verifier walked on a kernel; what is to be said of it. Of a kernel that is not
/// the pinned one nothing is compared.
pub(crate) fn compare_verified(release: &str, counts: &Counts) -> anyhow::Result<Option<String>> {
    if !release.starts_with(KERNEL) {
        return Ok(None);
    }
    let baseline = baseline()?;
    let known = baseline.get(VERIFIED).and_then(Value::as_object);
    let known = known.context("the baseline has no programs")?;
    let mut told = Vec::new();
    for (program, now) in counts {
        let before = known.get(program).and_then(Value::as_u64);
        let Some(before) = before else {
            bail!("the program {program} is new to the baseline; {ACCEPT}");
        };
        told.push(compare(program, before, *now)?);
    }
    if let Some(gone) = known.keys().find(|program| !counts.contains_key(*program)) {
        bail!("the program {gone} of the baseline is not loaded; {ACCEPT}");
    }
    Ok(Some(told.join("; ")))
}

/// One sentence; an error if it is too much.
fn compare(what: &str, before: u64, now: u64) -> anyhow::Result<String> {
    let change = || {
        let hundredths = i128::from(now).abs_diff(i128::from(before)) * 10_000;
        let hundredths = hundredths / u128::from(before.max(1));
        format!("{}.{:02} %", hundredths / 100, hundredths % 100)
    };
    if now.saturating_mul(100) > before.saturating_mul(100 + TOLERANCE) {
        bail!(
            "{what}: {now} instructions, {} more than the {before} of the baseline; {ACCEPT}",
            change()
        );
    }
    let word = if now > before { "more" } else { "fewer" };
    let mut told = format!("{what}: {now} instructions, {} {word}", change());
    if now.saturating_mul(100) < before.saturating_mul(100 - TOLERANCE) {
        told += " (cargo xtask bench --check --accept keeps that)";
    }
    Ok(told)
}

/// What callgrind counts of the core's fixed work.
fn userspace() -> anyhow::Result<u64> {
    setup::counting()?;
    run_to_end(cargo("build").args(["--release", "--package", "observer-bench"]))?;
    let target = workspace::target()?;
    let counted = target.join("bench.callgrind");
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", counted.display()))
        .arg(target.join("release/core_bench"))
        .arg("--fixed");
    run_to_end(&mut command)?;
    let text = fs::read_to_string(&counted).context("callgrind wrote nothing")?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    match total.context("callgrind's file has no total")? {
        0 => bail!("callgrind found no function like {COUNTED}"),
        total => Ok(total),
    }
}

/// The compiler that makes what is counted.
fn rustc() -> anyhow::Result<String> {
    let version = output(Command::new("rustc").arg("--version"))?;
    Ok(version.trim().to_owned())
}

fn path() -> PathBuf {
    workspace::root().join("xtask/bench-baseline.json")
}

fn baseline() -> anyhow::Result<Value> {
    let text = fs::read_to_string(path()).with_context(|| {
        format!(
            "there is no baseline at {}: cargo xtask bench --check --accept makes one",
            path().display()
        )
    })?;
    serde_json::from_str(&text).context("the baseline is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_by_more_than_a_twentieth_fails_with_a_sentence() {
        assert_eq!(
            compare("userspace", 1_000, 1_050).unwrap(),
            "userspace: 1050 instructions, 5.00 % more"
        );
        assert_eq!(
            compare("userspace", 1_000, 1_051).unwrap_err().to_string(),
            "userspace: 1051 instructions, 5.10 % more than the 1000 of the baseline; if it is worth \
             that: cargo xtask bench --check --accept"
        );
        assert_eq!(
            compare("observer_in", 1_000, 1_000).unwrap(),
            "observer_in: 1000 instructions, 0.00 % fewer"
        );
        let better = compare("observer_in", 1_000, 900).unwrap();
        assert!(better.ends_with("keeps that)"), "{better}");
    }

    #[test]
    fn only_the_pinned_kernel_is_compared() {
        let counts = Counts::from([("observer_in".to_owned(), u64::MAX)]);
        assert_eq!(compare_verified("6.12.1-amd64", &counts).unwrap(), None);
        compare_verified("6.1.0-40-amd64", &counts).unwrap_err();
    }
}
