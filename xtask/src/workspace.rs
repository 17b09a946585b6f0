//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where cargo puts this workspace's artefacts: this program is one of them.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where xtask runs from")?;
    let target = program.parent().and_then(Path::parent);
    target
        .map(Path::to_owned)
        .context("xtask does not run from cargo's target directory")
}

/// The release binary.
pub(crate) fn observer() -> anyhow::Result<PathBuf> {
    Ok(target()?.join("release/observer"))
}
