//! What a run saw, by service and cause, and what it missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};

use super::paint::{Page, Tone, clean};
use super::word;
use crate::live::{Missed, Sampled};
use crate::record::{Advice, ByFate, Fate, Record};
use crate::verdict::{Finding, FindingCode, SourceIp};

/// Services named beside a change.
const SERVICES_MAX: usize = 4;

/// Counts records.
#[derive(Debug, Default)]
pub struct Summary {
    fates: ByFate<Row>,
    passed_over: u64,
    /// What does not fit together, once for each Service, and of how many connections.
    findings: BTreeMap<(FindingCode, String), (Finding, u64)>,
}

/// What there is of one Service's connections of one fate.
#[derive(Debug, Default)]
struct Row {
    count: u64,
    /// What was advised; one of the changes that there are, each.
    advice: Vec<Advice>,
}

impl Summary {
    /// Counts one that was printed.
    pub fn add(&mut self, record: &Record) {
        let row = self.fates.of(record, Row::default);
        row.count += 1;
        for advice in &record.advice {
            if !row.advice.contains(advice) {
                row.advice.push(advice.clone());
            }
        }
        for finding in &record.findings {
            let service = record.service.as_ref();
            let name = service.map(|service| format!("{}/{}", service.namespace, service.name));
            let of_service = (finding.code, shown(&name.unwrap_or_default()));
            let known = self.findings.entry(of_service);
            let (_, count) = known.or_insert_with(|| (finding.clone(), 0));
            *count += 1;
        }
    }

    /// Counts one that the filters kept back.
    pub fn pass_over(&mut self) {
        self.passed_over += 1;
    }

    /// The table, a line of sums, and a line of what was missed; `None` if nothing could be.
    pub fn render(&self, missed: Option<Missed>, page: Page) -> String {
        let mut text = self.table();
        text += &self.found(page);
        text += &self.advised(page);
        let mut sources = BTreeMap::<_, u64>::new();
        for (_, fate, row) in self.fates.iter() {
            *sources.entry(fate.source_ip).or_default() += row.count;
        }
        let connections: u64 = sources.values().sum();
        let plural = if connections == 1 { "" } else { "s" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{connections} connection{plural}");
        let fates = [
            (SourceIp::Lost, "lost", Tone::Bad),
            (SourceIp::Preserved, "preserved", Tone::Good),
            (SourceIp::Unknown, "unknown", Tone::Doubt),
        ];
        let mut before = ": source ";
        for (source, fate, tone) in fates {
            if let Some(count) = sources.get(&source) {
                let _ = write!(text, "{before}{} in {count}", page.paint(tone, fate));
                before = ", ";
            }
        }
        if self.passed_over > 0 {
            let _ = write!(text, "; {} more not asked for", self.passed_over);
        }
        if let Some(missed) = missed {
            text.push('\n');
            text.push_str(&missed_line(missed, page));
        }
        text
    }

    /// What does not fit together, and the change that mends it.
    fn found(&self, page: Page) -> String {
        let found = self
            .findings
            .iter()
            .map(|((_, service), (finding, count))| {
                let Finding {
                    explanation,
                    change,
                    ..
                } = finding;
                let plural = if *count == 1 { "" } else { "s" };
                let text = format!(
                    "{service}, {count} connection{plural}: {explanation}. Mend: {change}."
                );
                page.list("! ", &clean(&text))
            });
        found.collect()
    }

    /// What to change, with its price, and for which Services.
    fn advised(&self, page: Page) -> String {
        let mut of = BTreeMap::<_, BTreeSet<_>>::new();
        for (service, _, row) in self.fates.iter() {
            for Advice { change, trade_off } in &row.advice {
                of.entry((change, trade_off))
                    .or_default()
                    .insert(shown(service));
            }
        }
        let advised = of.into_iter().map(|((change, trade_off), services)| {
            let mut named: Vec<_> = services.iter().take(SERVICES_MAX).cloned().collect();
            if services.len() > SERVICES_MAX {
                named.push(format!("and {} others", services.len() - SERVICES_MAX));
            }
            let text = format!("{change} ({}). Price: {trade_off}.", named.join(", "));
            page.list("→ ", &text)
        });
        advised.collect()
    }

    fn table(&self) -> String {
        let mut rows = BTreeMap::<_, u64>::new();
        for (service, fate, row) in self.fates.iter() {
            *rows.entry(told(service, *fate)).or_default() += row.count;
        }
        if rows.is_empty() {
            return String::new();
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["SERVICE", "SOURCE IP", "CAUSE", "OUTCOME", "CONNECTIONS"]);
        let mut above = None;
        for (row, count) in &rows {
            let [service, rest @ ..] = row;
            // A Service is named once, above what became of its connections.
            let name = if above == Some(service) { "" } else { service };
            above = Some(service);
            let mut cells = vec![name.to_owned()];
            cells.extend(rest.iter().cloned());
            cells.push(count.to_string());
            table.add_row(cells);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if let Some(column) = table.column_mut(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let lines: Vec<_> = table.lines().collect();
        let lines = lines.iter().map(|line| format!("{}\n", line.trim_end()));
        lines.collect()
    }
}

/// By service, source, cause and outcome.
fn told(service: &str, fate: Fate) -> [String; 4] {
    let cause = fate
        .cause
        .map_or_else(|| "-".to_owned(), |cause| word(&cause));
    let outcome = word(&fate.outcome);
    let outcome = match fate.outcome_cause {
        Some(cause) => format!("{outcome}: {}", word(&cause)),
        None => outcome,
    };
    [shown(service), word(&fate.source_ip), cause, outcome]
}

fn shown(service: &str) -> String {
    if service.is_empty() {
        return "(no Service)".to_owned();
    }
    clean(service)
}

fn missed_line(missed: Missed, page: Page) -> String {
    let losses = missed.losses();
    let total: u64 = losses.iter().map(|loss| loss.count).sum();
    let tone = if total == 0 { Tone::Good } else { Tone::Bad };
    let mut text = page.paint(tone, &format!("{total} observations lost"));
    for loss in losses.into_iter().filter(|loss| loss.count > 0) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {}: {}", loss.text, loss.count);
    }
    let Sampled { most, for_ns, .. } = missed.sampled;
    if most > 0 {
        let tenths = for_ns.div_ceil(100_000_000);
        let _ = write!(
            text,
            "; for {}.{} s only one connection in {} was followed, or more",
            tenths / 10,
            tenths % 10,
            1_u32 << most
        );
    }
    // Nothing is lost by that, unless the flow goes on.
    let forgotten = missed.lost.flows_evicted;
    if forgotten > 0 {
        let _ = write!(text, "; forgotten for newer UDP flows: {forgotten} entries");
    }
    text
}
