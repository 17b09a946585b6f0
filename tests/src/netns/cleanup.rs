//! Deleting namespaces: one, all of this process on a signal, all of dead processes at a start.

use std::{fs, io, path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{DIRECTORY, PREFIX, live};
use crate::command;

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Sweeps what dead processes left, and from now on cleans up on Ctrl-C, SIGTERM and SIGHUP.
pub(super) fn install() {
    // Leftovers hinder nobody, their names are their own: a sweep that fails is no reason to stop.
    let _leftovers = sweep();
    // A program with a handler of its own keeps it; then the sweep of the next start cleans up.
    let _already_handled = ctrlc::set_handler(|| {
        let namespaces = live().clone();
        for name in &namespaces {
            let _next_sweep_retries = delete(name);
        }
        std::process::exit(EXIT_INTERRUPTED);
    });
}

/// Deletes the namespaces whose process is dead, with the processes that still run in them, and
/// returns their names.
///
/// What runs there was started by a lab whose process was killed before it could end it.
pub fn sweep() -> Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("failed to list {DIRECTORY}")),
    };
    let mut swept = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("failed to list {DIRECTORY}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(is_dead) {
            delete(&name)?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// Ends the processes inside a namespace and removes it. One that is gone already is fine: two
/// sweeps may meet.
pub(super) fn delete(name: &str) -> Result<()> {
    let path = Path::new(DIRECTORY).join(name);
    if !path.exists() {
        return Ok(());
    }
    for pid in processes(name)? {
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(errno)
                    .with_context(|| format!("failed to kill {pid}, which runs in {name}"));
            }
        }
    }
    let deleted = command::run(Command::new("ip").args(["netns", "delete", name]));
    if path.exists() {
        deleted.map(drop)
    } else {
        Ok(())
    }
}

/// The processes inside a namespace, without this one: its threads may be there, it is not.
fn processes(name: &str) -> Result<Vec<Pid>> {
    let listed = command::run(Command::new("ip").args(["netns", "pids", name]))?;
    Ok(listed
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != Pid::this())
        .collect())
}

/// The pid in a name of ours.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    (parts.next()? == PREFIX).then_some(())?;
    parts.next()?.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_have_an_owner() {
        assert_eq!(owner("sipo-4711-3-pod-web-0"), Some(4711));
        for foreign in [
            "sipo",
            "sipo-x-1-client",
            "kind-4711-3",
            "siponode-4711-1-client",
            "cni-0af3",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn this_process_is_alive_and_an_impossible_one_is_dead() {
        assert!(!is_dead(std::process::id()));
        assert!(is_dead(u32::MAX));
    }
}
