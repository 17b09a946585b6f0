//! The root file system of the image, made as its Dockerfile makes it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::file;
use crate::{command, observer_process};

/// Makes it of the observer that is tested.
pub fn root() -> Result<TempDir> {
    let folder = TempDir::new().context("failed to make a directory")?;
    make(folder.path())?;
    Ok(folder)
}

fn make(folder: &Path) -> Result<()> {
    let binary = observer_process::binary()?;
    command::run(Command::new(file("rootfs.sh")).args([&binary, folder]))?;
    Ok(())
}
