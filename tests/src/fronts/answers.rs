//! What came of the rows: what each answered, and what is wrong.

use std::collections::BTreeSet;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{judge::losses, rows::Row, stage::Stage};
use crate::manifest::Carrier;

/// So many examples of what is wrong in a row are enough.
const EXAMPLES: usize = 3;

/// What is to be said of a run.
#[derive(Debug)]
pub struct Report {
    /// What is wrong, row by row; empty if nothing is.
    pub complaints: Vec<String>,
    /// What each row came to.
    pub answers: Vec<Answers>,
}

/// Whatever was answered in one row: one thing, if all is right.
#[derive(Debug, Default)]
pub struct Answers {
    /// By the sockets.
    pub sockets: BTreeSet<String>,
    /// By `trace`.
    pub trace: BTreeSet<String>,
    /// By `explain`.
    pub explain: BTreeSet<String>,
}

impl Report {
    /// With some examples.
    pub(super) fn complain(&mut self, row: &Row, mut wrong: Vec<String>) {
        let more = wrong.len().saturating_sub(EXAMPLES);
        wrong.truncate(EXAMPLES);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        let name = row.name();
        self.complaints
            .extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
    }

    /// A line for each row, with what each answered.
    pub fn table(&self, stage: &Stage) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let columns = ["row", "explain", "trace", "the sockets"];
        table.set_header(columns);
        for (row, answers) in stage.rows().zip(&self.answers) {
            let Answers {
                sockets,
                trace,
                explain,
            } = answers;
            let all = |answers: &BTreeSet<String>| -> String {
                let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
                answers.join("\n")
            };
            table.add_row([row.name(), all(explain), all(trace), all(sockets)]);
        }
        table
    }
}

/// In the words of `explain`.
pub(super) fn seen_and_read(seen: &str, carrier: Option<Carrier>) -> String {
    let carrier = json!(carrier);
    match carrier.as_str() {
        None => seen.to_owned(),
        Some(carrier) => format!("{seen}, {carrier}"),
    }
}

/// What a record says of the source, in short.
pub(super) fn recorded(record: &Value) -> String {
    let text = |place: &str| record.pointer(place).and_then(Value::as_str);
    let causes = losses(record);
    let causes = causes.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let source = match causes[..] {
        [] => text("/source_ip").unwrap_or("?").to_owned(),
        _ => causes.join(", "),
    };
    match (
        text("/client/recovered_from"),
        text("/client/not_recovered"),
    ) {
        (Some(from), _) => format!("{source}; {from}"),
        (None, Some(why)) => format!("{source}; not recovered: {why}"),
        (None, None) => source,
    }
}
