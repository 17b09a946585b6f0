//! Running other programs, in the open.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail};

use crate::workspace;

/// Where the lab's tools are; not everyone's `PATH` has it.
const SYSTEM_BIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The cargo that runs us, in the workspace, its lock file kept.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace::root()).arg(subcommand);
    if subcommand != "fmt" {
        command.arg("--locked");
    }
    command
}

/// Runs a command to its end, on our own terminal; a failure is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command to its end, on our own terminal.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    say(&format!("$ {}", line(command)));
    command
        .env("PATH", path())
        .status()
        .with_context(|| format!("cannot start {}", line(command)))
}

/// Runs a command to its end and gives what it printed; a failure is an error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .env("PATH", path())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", line(command)))
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    directories()
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// One line of progress.
pub(crate) fn say(line: &str) {
    // Who closed stderr wants no progress.
    let _nobody_reads = writeln!(io::stderr(), "{line}");
}

fn directories() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let given: Vec<_> = env::split_paths(&path).collect();
    given.into_iter().chain(SYSTEM_BIN.map(PathBuf::from))
}

fn path() -> OsString {
    // A directory with a colon in its name cannot have come out of a PATH.
    env::join_paths(directories()).unwrap_or_default()
}

/// The command as one would type it, without its environment.
fn line(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
