//! What is wrong with manifests, in lines.

use std::fmt;

use super::Source;

/// More of them help nobody; the others are counted.
const SHOWN_MAX: usize = 1_000;

/// A line and a column of a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One thing that is wrong. One line: `web.yaml, document 3, line 41, column 7: Service shop/web:
/// spec.ports[0].port: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: Box<str>,
    /// The document in it, from 1; none if it is about the file.
    pub document: Option<usize>,
    /// Where in the file.
    pub place: Option<Place>,
    /// The object: `Service shop/web`.
    pub object: Option<Box<str>>,
    /// The field of it.
    pub field: Option<Box<str>>,
    /// What is wrong, and what to do.
    pub what: Box<str>,
}

/// All that is wrong with manifests, in the order of the files. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// Each is a line.
    pub shown: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl Problem {
    /// What is wrong with a file as a whole.
    pub(super) fn of_file(file: &str, what: impl Into<Box<str>>) -> Self {
        Self {
            file: file.into(),
            document: None,
            place: None,
            object: None,
            field: None,
            what: what.into(),
        }
    }
}

impl Problems {
    /// These, and before them others.
    pub(super) fn after(mut self, others: Vec<Problem>) -> Self {
        self.shown.splice(0..0, others);
        self
    }

    pub(super) fn of(mut problems: Vec<Problem>, sources: &[Source]) -> Self {
        let place = |file: &str| sources.iter().position(|source| source.name == file);
        problems
            .sort_by_cached_key(|problem| (place(&problem.file), problem.document, problem.place));
        // Two files may be one, given twice.
        problems.dedup();
        let more = problems.len().saturating_sub(SHOWN_MAX);
        problems.truncate(SHOWN_MAX);
        Self {
            shown: problems,
            more,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.escape_debug())?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(Place { line, column }) = self.place {
            write!(f, ", line {line}, column {column}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.shown.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
