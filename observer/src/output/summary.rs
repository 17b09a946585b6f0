//! What a run saw, by service, and what it lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::Table;
use observer_ebpf::Counter;
use serde_json::Value;

use crate::kernel::programs::Counters;
use crate::record::Record;

/// What userspace could not keep or find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Connections let go because too many waited for their answer.
    pub pending_full: u64,
    /// Observations that no version of the programs writes.
    pub undecodable: u64,
    /// Connections whose outcome conntrack was not asked for, or did not tell: too many at once.
    pub not_looked_up: u64,
}

/// Counts records.
#[derive(Debug, Default)]
pub struct Summary {
    connections: u64,
    rows: BTreeMap<[String; 4], u64>,
}

impl Summary {
    /// Counts one.
    pub fn add(&mut self, record: &Record) {
        self.connections += 1;
        let service = record.service.as_ref().map_or_else(
            || "none".to_owned(),
            |service| format!("{}/{}", service.namespace, service.name),
        );
        let cause = record
            .cause
            .as_ref()
            .map_or_else(|| "-".to_owned(), |cause| word(&cause.code));
        let row = [
            service,
            word(&record.source_ip),
            cause,
            word(&record.outcome),
        ];
        *self.rows.entry(row).or_default() += 1;
    }

    /// The table, then one line of losses.
    pub fn render(&self, counters: &Counters, lost: Lost) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING);
            table.set_header(["SERVICE", "SOURCE IP", "CAUSE", "OUTCOME", "CONNECTIONS"]);
            for (row, count) in &self.rows {
                let mut cells = row.to_vec();
                cells.push(count.to_string());
                table.add_row(cells);
            }
            text = format!("{table}\n");
        }
        let Lost {
            pending_full,
            undecodable,
            not_looked_up,
        } = lost;
        let lost = [
            ("ring buffer full", counters.get(Counter::OpeningsLost)),
            (
                "ring buffer full for an answer",
                counters.get(Counter::AnswersLost),
            ),
            (
                "arrivals refused by the map",
                counters.get(Counter::ArrivalsLost),
            ),
            ("kernel reads failed", counters.get(Counter::ReadsFailed)),
            ("observer suspended", counters.get(Counter::Unattended)),
            ("too many pending", pending_full),
            ("undecodable", undecodable),
            ("not looked up", not_looked_up),
        ];
        let total: u64 = lost.iter().map(|(_, count)| count).sum();
        let plural = if self.connections == 1 { "" } else { "s" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{} connection{plural}, {total} observations lost",
            self.connections
        );
        for (reason, count) in lost.into_iter().filter(|(_, count)| *count > 0) {
            let _ = write!(text, ", {reason}: {count}");
        }
        text
    }
}

/// A word of the vocabulary as a record spells it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("a word of the vocabulary is a string, not {other:?}"),
    }
}
