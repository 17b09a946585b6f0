//! `cargo xtask build`: the release binary.

use crate::{process, setup, workspace};

/// Builds it.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::toolchain()?;
    process::run(process::cargo("build").args(["--release", "--package", "observer"]))?;
    process::say(&format!("built {}", workspace::observer()?.display()));
    Ok(())
}
