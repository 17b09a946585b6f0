//! Manifests, as `kubectl` takes them by `-f`: YAML with many documents, JSON, Lists.
//!
//! From text to objects, and everything that is wrong with them: [`read()`]. What the API server
//! and the controllers of a cluster would add to them: [`complete()`].
//!
//! Pure, but for [`mod@files`], which reads files and builds nothing. Whatever is in the text, no
//! more is said of it than lines: one [`Problem`] each, all of them.

mod check;
mod complete;
mod document;
pub mod files;
mod item;
mod problem;
mod spans;
#[cfg(test)]
mod tests;
mod types;

pub use check::missing;
pub use complete::{Assumption, complete};
pub use problem::{Place, Problem, Problems};

use std::collections::BTreeMap;

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

/// Reads the objects of manifests. What names no namespace is in `namespace`. All that is wrong
/// with them comes back at once.
pub fn read(sources: &[Source], namespace: &str) -> Result<Objects, Problems> {
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    for source in sources {
        document::of(source, &mut documents, &mut problems);
    }
    let mut objects = Objects::default();
    let mut origins: BTreeMap<Key, Origin<'_>> = BTreeMap::new();
    for document in &documents {
        for item in item::of(document, &mut problems) {
            take(item, namespace, &mut objects, &mut origins, &mut problems);
        }
    }
    for fault in check::faults(&objects) {
        problems.push(told(&fault, origins.get(&fault.object)));
    }
    if problems.is_empty() {
        Ok(objects)
    } else {
        Err(Problems::of(problems, sources))
    }
}

fn take<'a>(
    mut item: Item<'a>,
    namespace: &str,
    objects: &mut Objects,
    origins: &mut BTreeMap<Key, Origin<'a>>,
    problems: &mut Vec<Problem>,
) {
    item.put_into(namespace);
    let wrong = types::take(&mut item.value, objects);
    let Some(key) = item.key() else {
        problems.extend(item.without_name());
        return;
    };
    for (path, what) in wrong {
        let fault = Fault {
            object: key.clone(),
            path,
            what,
        };
        problems.push(told(&fault, Some(&item.origin)));
    }
    if !item.is_read {
        return;
    }
    if let Some(first) = origins.get(&key) {
        let fault = Fault {
            what: format!(
                "the same object is in {} already; keep one of them",
                first.document.place()
            ),
            object: key,
            path: FieldPath::default(),
        };
        problems.push(told(&fault, Some(&item.origin)));
    } else {
        origins.insert(key, item.origin);
    }
}

/// A fault with the place where it was written.
fn told(fault: &Fault, origin: Option<&Origin<'_>>) -> Problem {
    let Fault { object, path, what } = fault;
    let place = origin.and_then(|origin| origin.place(path));
    Problem {
        file: origin.map_or("", |origin| origin.document.file).into(),
        document: origin.map(|origin| origin.document.number),
        place,
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
