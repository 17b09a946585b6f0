//! A virtual machine: booted, waited for, and asked what came of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::image::Image;
use crate::process::{say, status};

/// The exit code of `timeout` when the time is over.
const TIMED_OUT: i32 = 124;

/// What the kernel is told. A lockup, an oops and a warning end the machine as a panic does, and
/// a panic by a reboot, which QEMU is told not to do. Words that the kernel does not know become
/// the environment of the first program.
const COMMAND_LINE: [&str; 7] = [
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    "panic_on_warn=1",
    "PATH=/sbin",
];

/// How much of the console is shown of a machine that failed.
const LINES_SHOWN: usize = 100;

/// What came of one check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The check.
    pub(super) check: String,
    /// Whether it passed.
    pub(super) passed: bool,
    /// How long it took, as the machine prints it.
    pub(super) seconds: String,
    /// What it tells beside.
    pub(super) note: String,
}

impl Outcome {
    /// Of a check that never told how long it took.
    pub(super) fn failed(check: &str, note: &str) -> Self {
        Self {
            check: check.to_owned(),
            passed: false,
            seconds: String::new(),
            note: note.to_owned(),
        }
    }
}

/// A machine that is about to boot.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// Its kernel.
    pub(super) image: &'a Image,
    /// Its root file system.
    pub(super) initramfs: &'a Path,
    /// Where its console and its results go.
    pub(super) folder: &'a Path,
    /// The environment of its first program: `NAME=VALUE`.
    pub(super) environment: &'a [String],
    /// Most that it may take.
    pub(super) deadline_seconds: usize,
}

impl Machine<'_> {
    /// Runs it until it turns itself off, or for as long as it may take.
    pub(super) fn run(&self) -> anyhow::Result<Vec<Outcome>> {
        let Self {
            image: Image {
                release, vmlinuz, ..
            },
            initramfs,
            folder,
            environment,
            deadline_seconds,
        } = self;
        let mut words = COMMAND_LINE.to_vec();
        words.extend(environment.iter().map(String::as_str));
        let console = folder.join(format!("{release}.console"));
        let results = folder.join(format!("{release}.results"));
        let serial = |path: &Path| format!("file:{}", path.display());
        let mut command = Command::new("timeout");
        command
            // In our own process group, so that Ctrl-C ends it too.
            .args(["--foreground", "--kill-after=5"])
            .arg(deadline_seconds.to_string())
            // Emulated: it runs where there is no /dev/kvm, and inside other machines.
            .args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"])
            .args(["-smp", "2", "-m", "1G", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-kernel"])
            .arg(vmlinuz)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &words.join(" ")])
            .args(["-serial", &serial(&console), "-serial", &serial(&results)]);
        let status = status(&mut command)?;
        let died = match status.code() {
            Some(0) => "it died".to_owned(),
            Some(TIMED_OUT) => format!("it did not end within {deadline_seconds} s"),
            _ => bail!("QEMU failed ({status})"),
        };
        let outcomes = outcomes(&read(&results)?, &died)?;
        if outcomes.iter().any(|outcome| !outcome.passed) {
            let console_text = read(&console)?;
            let lines: Vec<_> = console_text.lines().collect();
            let hidden = lines.len().saturating_sub(LINES_SHOWN);
            say(&lines.get(hidden..).unwrap_or_default().join("\n"));
            say(&format!("the whole console is in {}", console.display()));
        }
        Ok(outcomes)
    }
}

/// What the second serial port carried: `passed|FAILED SECONDS CHECK NOTE` for each check, and
/// `done`. `died` is what to say where that is missing.
fn outcomes(results: &str, died: &str) -> anyhow::Result<Vec<Outcome>> {
    let mut lines: Vec<_> = results.lines().collect();
    let done = lines.pop_if(|line| *line == "done").is_some();
    let parse = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().map(str::to_owned);
        let passed = match word()?.as_str() {
            "passed" => true,
            "FAILED" => false,
            _ => return None,
        };
        Some(Outcome {
            passed,
            seconds: word()?,
            check: word()?,
            note: word().unwrap_or_default(),
        })
    };
    let mut outcomes = lines
        .into_iter()
        .map(|line| parse(line).with_context(|| format!("the machine says {line:?}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if !done {
        outcomes.push(Outcome::failed("end", died));
    }
    Ok(outcomes)
}

/// What came over a serial line.
fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(check: &str, passed: bool, seconds: &str, note: &str) -> Outcome {
        Outcome {
            check: check.to_owned(),
            passed,
            seconds: seconds.to_owned(),
            note: note.to_owned(),
        }
    }

    #[test]
    fn every_check_has_its_line() {
        let results = "passed 3.1 boot\npassed 1.9 load by clsact\nFAILED 9.0 trace \ndone\n";
        assert_eq!(
            outcomes(results, "it died").unwrap(),
            [
                outcome("boot", true, "3.1", ""),
                outcome("load", true, "1.9", "by clsact"),
                outcome("trace", false, "9.0", ""),
            ]
        );
    }

    #[test]
    fn a_machine_that_dies_has_failed() {
        for results in ["", "passed 3.1 boot\n"] {
            let outcomes = outcomes(results, "it died").unwrap();
            assert_eq!(outcomes.last(), Some(&outcome("end", false, "", "it died")));
        }
        outcomes("passed 3.1 bo", "").unwrap();
        outcomes("garbage", "").unwrap_err();
    }
}
