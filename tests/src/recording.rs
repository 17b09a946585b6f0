//! The recordings of a real kube-proxy, which belong to the developers' tree and not to a
//! user's.

use std::path::{Path, PathBuf};

use crate::privilege;

/// Where the recordings are; without them `test` is skipped, aloud.
pub fn captures(test: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if directory.is_dir() {
        return Some(directory);
    }
    let why = format!("there are no recordings at {}", directory.display());
    privilege::skipped(test, &why);
    None
}
