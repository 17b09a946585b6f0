//! Texts taken apart into documents: by lines of `---`, as `kubectl` does
//! (`k8s.io/apimachinery`, `pkg/util/yaml/decoder.go`), so that one broken document does not hide
//! what is wrong with the next.

use std::cell::OnceCell;

use serde_json::Value;
use serde_saphyr::{Options, UserMessageFormatter};

use super::Source;
use super::problem::{Place, Problem};
use super::spans::Places;
use crate::cluster::Step;

/// Events and values of one document: many times what any cluster's objects have. Aliases have
/// limits of their own, far below.
const EVENTS_MAX: usize = 20_000_000;

/// A document with something in it.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// Its file.
    pub(super) file: &'a str,
    /// Which of the file's it is, from 1.
    pub(super) number: usize,
    /// How many lines there are above it.
    lines_above: usize,
    text: &'a str,
    /// The places of its values, once something is wrong with one.
    places: OnceCell<Option<Places>>,
    pub(super) value: Value,
}

/// A document as it is found: not yet read.
#[derive(Clone, Copy)]
struct Piece<'a> {
    file: &'a str,
    number: usize,
    lines_above: usize,
    text: &'a str,
}

/// Adds the documents of a text, and what is wrong with it.
pub(super) fn of<'a>(
    source: &'a Source,
    documents: &mut Vec<Document<'a>>,
    problems: &mut Vec<Problem>,
) {
    let bytes = source
        .bytes
        .strip_prefix("\u{feff}".as_bytes())
        .unwrap_or(&source.bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|b| *b == b'\n').count();
            let what = format!("is not text: line {line} is not UTF-8");
            problems.push(Problem::of_file(&source.name, what));
            return;
        }
    };
    let mut number = 0;
    let mut is_template = false;
    for (lines_above, text) in pieces(text) {
        number += 1;
        let piece = Piece {
            file: &source.name,
            number,
            lines_above,
            text,
        };
        match piece.read() {
            Ok(read) => {
                // A stream of JSON has several in one piece.
                number += read.len().saturating_sub(1);
                documents.extend(read);
            }
            Err(problem) if problem.what.contains(TEMPLATE) => {
                // Once a file: the rest of it is one too.
                if !std::mem::replace(&mut is_template, true) {
                    problems.push(problem);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
}

/// What a template of Helm's is told by.
const TEMPLATE: &str = "{{";

/// The pieces of a text that have something in them, and how many lines there are above each.
fn pieces(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    // Of the piece that is read: the line and the byte that it begins at, whether there is
    // something in it, and whether directives are, which belong to what is below the next marker.
    let (mut first, mut start) = (0, 0);
    let (mut has_content, mut has_directives) = (false, false);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let ends = is_marker(line, "...");
        let begins = is_marker(line, "---");
        if begins || ends {
            if has_content {
                all.push((first, &text[start..at]));
            }
            if has_content || ends || !has_directives {
                (first, start) = (number, at);
            }
            (has_content, has_directives) = (begins && is_content(&line[3..]), false);
        } else if line.starts_with('%') && !has_content {
            has_directives = true;
        } else {
            has_content |= is_content(line);
        }
        at += line.len();
        if ends {
            (first, start) = (number + 1, at);
        }
    }
    if has_content {
        all.push((first, &text[start..]));
    }
    all
}

fn is_marker(line: &str, marker: &str) -> bool {
    let rest = line.strip_prefix(marker);
    rest.is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

impl<'a> Piece<'a> {
    fn read(self) -> Result<Vec<Document<'a>>, Problem> {
        let text = self.text.trim_start();
        if !text.starts_with('{') {
            return self.yaml();
        }
        let mut inside = text.chars().skip(1).skip_while(|c| c.is_whitespace());
        if matches!(inside.next(), Some('"' | '}')) {
            return self.json();
        }
        // YAML may begin so too, but not for kubectl.
        self.json().or_else(|_| self.yaml())
    }

    fn yaml(self) -> Result<Vec<Document<'a>>, Problem> {
        match serde_saphyr::from_str_with_options(self.text, options()) {
            Ok(Value::Null) => Ok(Vec::new()),
            Ok(value) => Ok(vec![self.document(value)]),
            Err(error) => Err(self
                .template()
                .unwrap_or_else(|| self.broken_yaml(error.without_snippet()))),
        }
    }

    /// JSON after JSON, as a stream.
    fn json(self) -> Result<Vec<Document<'a>>, Problem> {
        let mut documents = Vec::new();
        let mut stream = serde_json::Deserializer::from_str(self.text).into_iter::<Value>();
        let mut start = 0;
        let mut piece = self;
        while let Some(value) = stream.next() {
            let value = value.map_err(|error| {
                if let Some(problem) = self.template() {
                    return problem;
                }
                let text = error.to_string();
                let what = text.split(" at line ").next().unwrap_or_default();
                let place = Place {
                    line: error.line(),
                    column: error.column().max(1),
                };
                self.problem(Some(place), format!("is not JSON: {what}"))
            })?;
            let end = stream.byte_offset();
            piece.text = &self.text[start..end];
            documents.push(piece.document(value));
            piece.lines_above += piece.text.matches('\n').count();
            piece.number += 1;
            start = end;
        }
        Ok(documents)
    }

    fn document(self, value: Value) -> Document<'a> {
        let Self {
            file,
            number,
            lines_above,
            text,
        } = self;
        Document {
            file,
            number,
            lines_above,
            text,
            places: OnceCell::new(),
            value,
        }
    }

    /// The first mark of a template, if that is why it cannot be read.
    fn template(self) -> Option<Problem> {
        let above = &self.text[..self.text.find(TEMPLATE)?];
        let column = above.rsplit('\n').next().unwrap_or(above).chars().count() + 1;
        let place = Place {
            line: above.matches('\n').count() + 1,
            column,
        };
        let what = format!(
            "is a template (`{TEMPLATE}`), not a manifest; render it first: helm template … | \
             observer explain -f -"
        );
        Some(self.problem(Some(place), what))
    }

    fn broken_yaml(self, error: &serde_saphyr::Error) -> Problem {
        let place = error.location().and_then(|location| {
            Some(Place {
                line: usize::try_from(location.line()).ok()?,
                column: usize::try_from(location.column()).ok()?,
            })
        });
        let text = error.render_with_formatter(&UserMessageFormatter);
        let what = text.lines().next().unwrap_or_default();
        let what = what.split(" at line ").next().unwrap_or_default();
        self.problem(
            place.filter(|place| place.line > 0),
            format!("is not YAML: {what}"),
        )
    }

    /// What is wrong at a place of the piece.
    fn problem(self, place: Option<Place>, what: impl Into<Box<str>>) -> Problem {
        Problem {
            file: self.file.into(),
            document: Some(self.number),
            place: place.map(|place| below(place, self.lines_above)),
            object: None,
            field: None,
            what: what.into(),
        }
    }
}

impl Document<'_> {
    /// Where it is, in words.
    pub(super) fn place(&self) -> String {
        format!("{}, document {}", self.file.escape_debug(), self.number)
    }

    /// The place of what is at the end of a path, or of what comes nearest to it.
    pub(super) fn place_of(&self, path: &[Step]) -> Option<Place> {
        let places = self.places.get_or_init(|| Places::of(self.text));
        let place = places.as_ref()?.find(path)?;
        Some(below(place, self.lines_above))
    }

    /// Something wrong with it that no object has.
    pub(super) fn problem(&self, path: &[Step], what: impl Into<Box<str>>) -> Problem {
        Problem {
            file: self.file.into(),
            document: Some(self.number),
            place: self.place_of(path),
            object: None,
            field: None,
            what: what.into(),
        }
    }
}

/// A place of a document, as one of its file.
const fn below(place: Place, lines_above: usize) -> Place {
    Place {
        line: place.line + lines_above,
        column: place.column,
    }
}

/// How YAML is read: as kubectl's library does, which knows the booleans and octal numbers of
/// YAML 1.1 (`sigs.k8s.io/yaml`).
pub(super) fn options() -> Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_events: EVENTS_MAX,
            max_nodes: EVENTS_MAX,
        },
    }
}
