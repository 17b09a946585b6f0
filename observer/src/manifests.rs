//! Manifests, as `kubectl` takes them by `-f`: YAML with many documents, JSON, Lists.
//!
//! From text to objects, and everything that is wrong with them: [`read()`]. What the API server
//! and the controllers of a cluster would add to them: [`complete()`].
//!
//! Pure, but for its file `files.rs`, which reads files and builds nothing. Whatever is in the text, no
//! more is said of it than lines: one [`Problem`] each, all of them.

mod check;
mod complete;
mod document;
mod files;
mod item;
mod problem;
mod spans;
#[cfg(test)]
mod tests;
mod types;

pub use check::missing;
pub use complete::{Assumption, allocate, complete};
pub use problem::{Place, Problem, Problems};

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cluster::{FieldPath, Objects};

use document::Document;
use item::Item;

/// The namespace of what names none, unless another is asked for.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A text with manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is called: a path, or `stdin`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An object by its kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: String,
    /// Of what has none in the cluster, none.
    namespace: Option<String>,
    name: String,
}

/// Something that is wrong with an object: what, and at which field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    object: Key,
    path: FieldPath,
    what: String,
}

/// Where an object was written.
#[derive(Clone, Debug)]
struct Origin<'a> {
    document: &'a Document<'a>,
    /// From the document's root: a List has its objects further down.
    path: FieldPath,
}

/// What has been read.
#[derive(Default)]
struct Reading<'a> {
    objects: Objects,
    origins: BTreeMap<Key, Origin<'a>>,
    /// Fields of the wrong type. Nothing else is said of them.
    wrong: BTreeMap<Key, Vec<FieldPath>>,
    problems: Vec<Problem>,
}

/// Reads the objects of manifests in files, in directories (`recursive`: and below them) and, for
/// `-`, in the standard input: see [`read()`].
pub fn read_files(
    paths: &[PathBuf],
    recursive: bool,
    namespace: &str,
) -> Result<Objects, Problems> {
    let (sources, unread) = files::read(paths, recursive);
    match read(&sources, namespace) {
        result if unread.is_empty() => result,
        Ok(_) => Err(Problems::of(unread, &sources)),
        Err(problems) => Err(problems.after(unread)),
    }
}

/// Reads the objects of manifests. What names no namespace is in `namespace`. All that is wrong
/// with them comes back at once.
pub fn read(sources: &[Source], namespace: &str) -> Result<Objects, Problems> {
    let mut reading = Reading::default();
    let mut documents = Vec::new();
    for source in sources {
        document::of(source, &mut documents, &mut reading.problems);
    }
    for document in &documents {
        for item in item::of(document, &mut reading.problems) {
            reading.take(item, namespace);
        }
    }
    reading.check();
    let Reading {
        objects, problems, ..
    } = reading;
    if problems.is_empty() {
        Ok(objects)
    } else {
        Err(Problems::of(problems, sources))
    }
}

impl<'a> Reading<'a> {
    fn take(&mut self, mut item: Item<'a>, namespace: &str) {
        item.put_into(namespace);
        let wrong = types::take(&mut item.value, &mut self.objects);
        let Some(key) = item.key() else {
            self.problems.extend(item.without_name(&wrong));
            return;
        };
        for (path, what) in wrong {
            let wrong = self.wrong.entry(key.clone()).or_default();
            wrong.push(path.clone());
            let object = key.clone();
            let fault = Fault { object, path, what };
            self.problems.push(told(&fault, &item.origin));
        }
        if !item.is_read {
            return;
        }
        if let Some(first) = self.origins.get(&key) {
            let what = format!(
                "the same object is in {} already; keep one of them",
                first.document.place()
            );
            let fault = Fault {
                object: key,
                path: FieldPath::default(),
                what,
            };
            self.problems.push(told(&fault, &item.origin));
        } else {
            self.origins.insert(key, item.origin);
        }
    }

    fn check(&mut self) {
        for fault in check::faults(&self.objects) {
            let wrong = self.wrong.get(&fault.object).into_iter().flatten();
            if wrong.into_iter().any(|wrong| fault.path.is_in(wrong)) {
                continue;
            }
            // Of what has no name that alone is told.
            if let Some(origin) = self.origins.get(&fault.object) {
                self.problems.push(told(&fault, origin));
            }
        }
    }
}

/// A fault with the place where it was written.
fn told(fault: &Fault, origin: &Origin<'_>) -> Problem {
    let Fault { object, path, what } = fault;
    Problem {
        file: origin.document.file.into(),
        document: Some(origin.document.number),
        place: origin.place(path),
        object: Some(object.to_string().into()),
        field: (!path.is_empty()).then(|| path.to_string().into()),
        what: what.as_str().into(),
    }
}

impl Origin<'_> {
    /// The line and column of a field of the object, or of what comes nearest to it.
    fn place(&self, field: &FieldPath) -> Option<Place> {
        let steps = self.path.0.iter().chain(&field.0);
        self.document.place_of(&steps.cloned().collect::<Vec<_>>())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No name breaks the line.
        let (kind, name) = (self.kind.escape_debug(), self.name.escape_debug());
        match &self.namespace {
            Some(namespace) => write!(f, "{kind} {}/{name}", namespace.escape_debug()),
            None => write!(f, "{kind} {name}"),
        }
    }
}
