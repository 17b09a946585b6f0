//! What the cluster says, from files: `--cluster-state FILE` and `--kube-proxy-config FILE`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{KubeProxy, KubeProxyError, Objects, ObjectsError};

/// Why a file gives nothing. One line each, which names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is missing, or may not be read.
    #[error("{what} {}: cannot be read: {reason}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It holds something else than objects.
    #[error("{CLUSTER_STATE} {}: {reason}", path.display())]
    Objects {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ObjectsError,
    },
    /// It holds something else than a configuration.
    #[error("{KUBE_PROXY} {}: {reason}", path.display())]
    KubeProxy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: KubeProxyError,
    },
}

/// More than the objects of any cluster take.
const BYTES_MAX: u64 = 1 << 30;

const CLUSTER_STATE: &str = "cluster state";
const KUBE_PROXY: &str = "kube-proxy configuration";

/// Reads a `List` of objects, as kubectl prints it.
pub fn objects(path: &Path) -> Result<Objects, FileError> {
    objects_noting(path).map(|(objects, _)| objects)
}

/// The same, with a line for each object around the Services that was only counted because it is
/// not what its kind promises.
pub fn objects_noting(path: &Path) -> Result<(Objects, Vec<String>), FileError> {
    let list = Objects::from_list_noting(&bytes(CLUSTER_STATE, path)?);
    list.map_err(|reason| FileError::Objects {
        path: path.to_owned(),
        reason,
    })
}

/// Reads a `KubeProxyConfiguration`.
pub fn kube_proxy(path: &Path) -> Result<KubeProxy, FileError> {
    let text = bytes(KUBE_PROXY, path)?;
    KubeProxy::parse(&String::from_utf8_lossy(&text)).map_err(|reason| FileError::KubeProxy {
        path: path.to_owned(),
        reason,
    })
}

fn bytes(what: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?.take(BYTES_MAX);
        file.read_to_end(&mut bytes)?;
        if file.limit() == 0 {
            return Err(io::Error::other("it is larger than 1 GiB"));
        }
        Ok(bytes)
    };
    read().map_err(|reason| FileError::Read {
        what,
        path: path.to_owned(),
        reason,
    })
}
