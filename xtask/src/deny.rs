//! cargo-deny: which licences, sources and duplicates the dependencies may have.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::process::{cargo, run};
use crate::{toolchain, workspace};

const VERSION: &str = "0.20.2";

/// Builds cargo-deny into the cache folder, unless it is there.
pub(crate) fn install() -> anyhow::Result<()> {
    let program = program()?;
    let version = Command::new(&program)
        .arg("--version")
        .stderr(Stdio::null())
        .output();
    let wanted = format!("cargo-deny {VERSION}");
    if version.is_ok_and(|output| output.stdout.trim_ascii() == wanted.as_bytes()) {
        return Ok(());
    }
    // Unoptimised: it checks one small graph, and builds in half the time.
    run(cargo("install")
        .args(["--quiet", "--debug", "--force", "cargo-deny"])
        .args(["--version", VERSION, "--no-default-features", "--root"])
        .arg(root()?))
}

/// Checks the workspace against `deny.toml`. Advisories need a database from the network and are
/// asked for by `online` only.
pub(crate) fn check(online: bool) -> anyhow::Result<()> {
    let mut command = Command::new(program()?);
    command
        .current_dir(workspace::root())
        .args(["--locked", "check", "bans", "licenses", "sources"]);
    if online {
        command.arg("advisories");
    }
    run(&mut command)
}

fn root() -> anyhow::Result<PathBuf> {
    let cache = toolchain::cache().context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join(format!("cargo-deny-{VERSION}")))
}

fn program() -> anyhow::Result<PathBuf> {
    Ok(root()?.join("bin/cargo-deny"))
}
