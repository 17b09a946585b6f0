//! What the kernel would not do.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use super::attach::AttachError;

/// Something the kernel would not do.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// Loading the object failed.
    #[error("the kernel does not take the BPF object")]
    Load(#[from] EbpfError),
    /// A program was refused.
    #[error("the kernel refuses the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program could not be put on an interface.
    #[error("cannot attach to interface {interface}")]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        source: AttachError,
    },
    /// The programs could not be taken off an interface.
    #[error("cannot detach from interface {interface}")]
    Detach {
        /// The interface.
        interface: String,
        /// Why.
        source: AttachError,
    },
    /// A map could not be used.
    #[error("cannot use the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map could not be walked.
    #[error("cannot walk the map {map}")]
    Walk {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The object is not what this program was built with.
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
}
