//! Where in an object something is.

use std::fmt;

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// One step into an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A field, by its name.
    Field(String),
    /// An item of a list, from 0.
    Item(usize),
}

/// The way to a field: `spec.ports[0].port`. A name that is not only letters, digits and hyphens
/// is in brackets: `metadata.annotations[example.com/name]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The same from a list of names, as they are written with points; no list is on the way.
    pub fn fields(names: &str) -> Self {
        let names = names.split('.');
        Self(names.map(|name| Step::Field(name.to_owned())).collect())
    }

    /// A field of what is there.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.then(Step::Field(name.to_owned()))
    }

    /// An item of the list that is there.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.then(Step::Item(index))
    }

    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Whether it is the object itself.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is at this place, or below it.
    pub fn is_in(&self, place: &Self) -> bool {
        self.0.starts_with(&place.0)
    }

    /// What is there in an object.
    pub fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Item(index) => value.get(index),
        })
    }

    /// The same, to change it.
    pub fn of_mut<'a>(&self, object: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().try_fold(object, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Item(index) => value.get_mut(index),
        })
    }
}

impl From<&Path> for FieldPath {
    fn from(path: &Path) -> Self {
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Item(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if is_plain(name) && place > 0 => write!(f, ".{name}")?,
                Step::Field(name) if is_plain(name) => f.write_str(name)?,
                Step::Field(name) => write!(f, "[{}]", name.escape_debug())?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
