//! `cargo xtask demo`: the observer at work on a cluster of network namespaces.

use std::process::{Command, ExitCode};

use anyhow::bail;

use crate::{process, setup, workspace};

/// Builds and runs it; fails unless every verdict agrees with what the pods' sockets saw.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    setup::all()?;
    process::run(
        process::cargo("build")
            .args(["--release", "--package", "observer", "--package", "tests"])
            .args(["--bin", "observer", "--bin", "demo"]),
    )?;
    let demo = workspace::target()?.join("release/demo");
    let status = process::status(
        Command::new(demo)
            .current_dir(workspace::root())
            .env("OBSERVER_BIN", workspace::observer()?),
    )?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
