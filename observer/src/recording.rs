//! A run's events and settings in a file, from which the same records follow again.
//!
//! One JSON object a line: the [`Header`], then each [`Event`] in its order, the last one
//! [`Event::End`]. Fields and events are only ever added. The file holds clients' addresses, so
//! only its owner may read it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::proxy::HeaderReader;
use crate::cluster::{KubeProxy, Objects, ObjectsError};
use crate::observe::{Event, Settings};

/// The value of [`Header::schema`].
pub const SCHEMA: &str = "observer.recording/v1";

/// More than the objects of any cluster take, which the header has, and events may.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// Its owner's, to read and write.
const MODE: u32 = 0o600;

/// What a run was set up with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of the observer that wrote it.
    pub version: String,
    /// The observer's settings.
    pub settings: Settings,
    /// kube-proxy's configuration, if it was known.
    pub kube_proxy: Option<KubeProxy>,
    /// The cluster's objects as a `List`, if they were known.
    pub cluster_state: Option<Value>,
    /// What proxies make of PROXY headers: what stands around the Services is not in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<HeaderReader>,
}

impl Header {
    /// The header of a run by this version.
    pub fn new(
        settings: Settings,
        kube_proxy: Option<KubeProxy>,
        objects: Option<&Objects>,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings,
            kube_proxy,
            cluster_state: objects.map(Objects::to_list),
            readers: Vec::new(),
        }
    }
}

/// Why a recording cannot be written or read. One line each, which names the file.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be made, or written.
    #[error("recording {}: cannot be written: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The file is missing, or may not be read.
    #[error("recording {}: cannot be read: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It does not begin like one.
    #[error(
        "{} is no recording: {reason}; `observer trace --record FILE` makes one",
        path.display()
    )]
    NoRecording {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first line.
        reason: String,
    },
    /// A line in it is no event.
    #[error("recording {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It ends before its end.
    #[error(
        "recording {}: ends after line {lines} without its last event: it was cut short",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Whole lines in it.
        lines: u64,
    },
    /// The objects in it make no sense.
    #[error("recording {}: the cluster state in it {reason}", path.display())]
    Objects {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: ObjectsError,
    },
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Makes the file, or empties it.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let file = owners_only(path).map_err(|reason| RecordingError::Write {
            path: path.to_owned(),
            reason,
        })?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        };
        writer.line(header)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds an event.
    pub fn event(&mut self, event: &Event) -> Result<(), RecordingError> {
        self.line(event)
    }

    /// Hands what is buffered to the system.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        self.file.flush().map_err(|reason| self.failed(reason))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), RecordingError> {
        serde_json::to_writer(&mut self.file, value)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|reason| self.failed(reason))
    }

    fn failed(&self, reason: io::Error) -> RecordingError {
        RecordingError::Write {
            path: self.path.clone(),
            reason,
        }
    }
}

/// Opens a file that only its owner may read, also where it was another's reading before.
fn owners_only(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// Reads a recording, event by event. After an error there is nothing more.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    lines: u64,
    /// Whether the last event was read, or an error was given.
    ended: bool,
}

impl Reader {
    /// Opens a recording and reads its header.
    pub fn open(path: &Path) -> Result<(Header, Self), RecordingError> {
        let failed = |reason| RecordingError::Read {
            path: path.to_owned(),
            reason,
        };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let no_recording = |reason: String| RecordingError::NoRecording {
            path: path.to_owned(),
            reason,
        };
        let mut line = Vec::new();
        io::Read::take(&mut file, LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if line.trim_ascii().is_empty() {
            return Err(no_recording("it is empty".to_owned()));
        }
        let header: Value =
            serde_json::from_slice(&line).map_err(|error| no_recording(error.to_string()))?;
        match header.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(no_recording(format!(
                    "its schema is {}, not {SCHEMA}",
                    other.escape_debug()
                )));
            }
            None => return Err(no_recording("it has no schema".to_owned())),
        }
        let header =
            serde_json::from_value(header).map_err(|error| no_recording(error.to_string()))?;
        let reader = Self {
            path: path.to_owned(),
            file,
            lines: 1,
            ended: false,
        };
        Ok((header, reader))
    }

    /// The objects that a header of this recording holds.
    pub fn objects(&self, list: &Value) -> Result<Objects, RecordingError> {
        Objects::from_list(list.to_string().as_bytes()).map_err(|reason| RecordingError::Objects {
            path: self.path.clone(),
            reason,
        })
    }

    fn event(&mut self) -> Result<Event, RecordingError> {
        let mut line = Vec::new();
        io::Read::take(&mut self.file, LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|reason| RecordingError::Read {
                path: self.path.clone(),
                reason,
            })?;
        if !line.ends_with(b"\n") {
            return Err(RecordingError::Truncated {
                path: self.path.clone(),
                lines: self.lines,
            });
        }
        self.lines += 1;
        serde_json::from_slice(&line).map_err(|error| RecordingError::Line {
            path: self.path.clone(),
            line: self.lines,
            reason: error.to_string(),
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Event, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.event();
        self.ended = matches!(event, Ok(Event::End) | Err(_));
        Some(event)
    }
}

#[cfg(test)]
mod tests;
