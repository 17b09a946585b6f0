//! A record as one row of aligned columns, for `grep`, `sort` and `awk`: every cell is one word,
//! and what is not known is `-`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::paint::{Page, Tone, clean};
use super::{microseconds, word};
use crate::record::{Record, Step};
use crate::verdict::SourceIp;

/// The columns, and the least room each gets, so that rows line up before all widths are known.
const COLUMNS: [(&str, usize); 25] = [
    ("TIME", 27),
    ("PROTO", 5),
    ("CLIENT", 21),
    ("CLIENT-KIND", 11),
    ("DOOR", 12),
    ("FRONT-DOOR", 21),
    ("SERVICE", 20),
    ("BACKEND", 21),
    ("POD", 20),
    ("POD-NODE", 8),
    ("SOURCE-SEEN", 21),
    ("SOURCE-IP", 9),
    ("CAUSE", 31),
    ("BY", 10),
    ("OUTCOME", 10),
    ("OUTCOME-CAUSE", 18),
    ("HOPS", 4),
    ("NODE", 8),
    ("IN", 8),
    ("OUT", 8),
    ("FORWARD-US", 10),
    ("ROUND-TRIP-US", 13),
    ("EXTRA-HOP-US", 12),
    ("RECOVERED", 15),
    ("FINDINGS", 8),
];

/// The column that is coloured.
const SOURCE_IP: usize = 11;

const ABSENT: &str = "-";

/// Rows that line up: a column never gets narrower than it was.
#[derive(Debug)]
pub(super) struct Rows {
    page: Page,
    widths: [usize; COLUMNS.len()],
    started: bool,
}

impl Rows {
    pub(super) fn new(page: Page) -> Self {
        Self {
            page,
            widths: COLUMNS.map(|(_, width)| width),
            started: false,
        }
    }

    /// A record's row; before the first, the names of the columns.
    pub(super) fn render(&mut self, record: &Record) -> String {
        let cells = cells(record);
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        let tone = match record.source_ip {
            SourceIp::Preserved => Tone::Good,
            SourceIp::Lost => Tone::Bad,
            SourceIp::Unknown => Tone::Doubt,
        };
        let row = self.row(&cells, Some(tone));
        if self.started {
            return row;
        }
        self.started = true;
        let names = COLUMNS.map(|(name, _)| name.to_owned());
        format!("{}\n{row}", self.row(&names, None))
    }

    fn row(&self, cells: &[String; COLUMNS.len()], tone: Option<Tone>) -> String {
        let mut row = String::new();
        for (column, (cell, &width)) in cells.iter().zip(&self.widths).enumerate() {
            let gap = width.saturating_sub(cell.chars().count());
            let cell = match tone {
                Some(tone) if column == SOURCE_IP => self.page.paint(tone, cell),
                _ => cell.clone(),
            };
            let between = if column == 0 { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = write!(row, "{between}{cell}{:gap$}", "");
        }
        row.truncate(row.trim_end().len());
        row
    }
}

fn cells(record: &Record) -> [String; COLUMNS.len()] {
    let socket = |ip, port| SocketAddr::new(ip, port).to_string();
    let backend = record.backend.as_ref();
    let step: Option<&Step> = record.path.first();
    [
        cell(record.observed_at.as_ref()),
        record.protocol.to_string(),
        socket(record.client.ip, record.client.port),
        word(&record.client.kind),
        cell(record.front_door.kind),
        socket(record.front_door.ip, record.front_door.port),
        cell(record.service.as_ref().map(|service| {
            let port = service.port.as_ref();
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            format!("{}/{}{port}", service.namespace, service.name)
        })),
        cell(backend.map(|backend| socket(backend.ip, backend.port))),
        cell(backend.and_then(|backend| backend.pod.as_ref())),
        cell(backend.and_then(|backend| backend.node.as_ref())),
        cell(record.source_seen.map(|seen| socket(seen.ip, seen.port))),
        word(&record.source_ip),
        cell(causes(record)),
        list(record.stages().iter().map(|loss| word(&loss.at.by))),
        word(&record.outcome),
        cell(record.outcome_cause.as_ref().map(|cause| word(&cause.code))),
        cell(record.extra_hops),
        cell(Some(&record.node)),
        cell(step.and_then(|step| step.r#in.as_ref())),
        cell(step.and_then(|step| step.out.as_ref())),
        cell(step.and_then(|step| step.forward_ns).map(microseconds)),
        cell(record.round_trip_ns.map(microseconds)),
        cell(record.extra_hop_ns.map(microseconds)),
        cell(record.client.recovered),
        list(record.findings.iter().map(|finding| word(&finding.code))),
    ]
}

/// Of every stage at which the address was replaced; else why it is not known.
fn causes(record: &Record) -> Option<String> {
    let stages = record.stages();
    let lost = (!stages.is_empty()).then(|| list(stages.iter().map(|it| word(&it.cause.code))));
    lost.or_else(|| Some(word(&record.cause.as_ref()?.code)))
}

/// One word of several, between commas.
fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    cell((!words.is_empty()).then(|| words.join(",")))
}

/// One word: names of objects have no spaces, but a file may hold anything.
fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(
        || ABSENT.to_owned(),
        |value| clean(&value.to_string()).replace(' ', "_"),
    )
}
