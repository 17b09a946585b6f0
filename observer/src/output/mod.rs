//! One connection in, something to look at out.

mod explanation;
mod paint;
mod printer;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod through;
mod wide;

pub use explanation::{Ground, Picture, SCHEMA as EXPLANATION, Style, Writer};
pub use paint::{Page, Tone};
pub use printer::{Format, Printer, print};
pub use summary::Summary;

use serde::Serialize;
use serde_json::Value;

/// A word of the vocabulary as a record spells it.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("a word of the vocabulary is a string, not {other:?}"),
    }
}

/// With one digit after the point.
fn microseconds(nanoseconds: u64) -> String {
    format!("{}.{}", nanoseconds / 1_000, nanoseconds % 1_000 / 100)
}
