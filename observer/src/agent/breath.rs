//! When an agent last observed, kept across restarts of its container: by that the next one knows
//! what was missed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::observation::Moment;

const FILE: &str = "last-breath.json";
/// The kernel's name for this boot: moments of another mean nothing.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) struct Breath {
    path: PathBuf,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    at: Moment,
}

impl Breath {
    /// In a directory, which must exist.
    pub(super) fn in_directory(directory: &Path) -> io::Result<Self> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            path: directory.join(FILE),
            boot: fs::read_to_string(BOOT_ID)?.trim().to_owned(),
        })
    }

    /// The last one since this boot, if there was any.
    pub(super) fn last(&self) -> Option<Moment> {
        let text = fs::read(&self.path).ok()?;
        let Kept { boot, at } = serde_json::from_slice(&text).ok()?;
        (boot == self.boot).then_some(at)
    }

    /// Keeps that there is an agent at this moment.
    pub(super) fn keep(&self, at: Moment) -> io::Result<()> {
        let kept = Kept {
            boot: self.boot.clone(),
            at,
        };
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&kept)?)?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_was_kept_is_found_in_the_same_boot_only() {
        let directory = TempDir::new().expect("a directory");
        let breath = Breath::in_directory(directory.path()).expect("a boot");
        assert_eq!(breath.last(), None);
        breath.keep(Moment(42)).expect("kept");
        assert_eq!(breath.last(), Some(Moment(42)));
        let boot = "another".to_owned();
        assert_eq!(Breath { boot, ..breath }.last(), None);
    }

    #[test]
    fn what_makes_no_sense_is_none() {
        let directory = TempDir::new().expect("a directory");
        fs::write(directory.path().join(FILE), "{\"at\":").expect("written");
        let breath = Breath::in_directory(directory.path()).expect("a boot");
        assert_eq!(breath.last(), None);
    }
}
