//! `cargo xtask soak`: a busy node for minutes, as the lab's suite has it for seconds.

use std::process::ExitCode;

use clap::Args;

use crate::{build, process, setup, workspace};

/// What `cargo xtask soak` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// Runs it, and prints what it cost.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    setup::lab()?;
    build::run()?;
    process::run(
        process::cargo("test")
            .env("OBSERVER_BIN", workspace::observer()?)
            .env("SOAK_SECONDS", options.seconds.to_string())
            .env("OBSERVER_REQUIRE_PRIVILEGED", "1")
            .args(["--package", "tests", "--test", "agent"])
            .args(["--", "--nocapture", "soak"]),
    )?;
    Ok(ExitCode::SUCCESS)
}
