//! The cluster's objects from a file: `--cluster-state FILE`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Objects, ObjectsError};

/// Why a file gives no objects. One line each, which names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is missing, or may not be read.
    #[error("cluster state {}: cannot be read: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It holds something else.
    #[error("cluster state {}: {reason}", path.display())]
    Objects {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ObjectsError,
    },
}

/// Reads a `List` of objects, as kubectl prints it, from a file.
pub fn read(path: &Path) -> Result<Objects, FileError> {
    let document = fs::read(path).map_err(|reason| FileError::Read {
        path: path.to_owned(),
        reason,
    })?;
    Objects::from_list(&document).map_err(|reason| FileError::Objects {
        path: path.to_owned(),
        reason,
    })
}
