//! For a merge request or a wiki.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

use super::table::{COLUMNS, cells, folded};
use super::{Ground, sentences};
use crate::cluster::finding::Finding;
use crate::output::word;
use crate::verdict::chain::Explained;
use crate::words::Words;

/// What comes below the Services.
pub(super) fn tail(ground: Ground<'_>, words: &Words) -> String {
    let Ground {
        facts,
        assumed,
        whole,
        ..
    } = ground;
    let mut text = String::new();
    if whole && !facts.findings.is_empty() {
        let _ = writeln!(text, "\n## {}\n", words.say("label-findings", &[]));
        findings(&facts.findings, words, &mut text);
    }
    if !assumed.is_empty() {
        let _ = writeln!(text, "\n## {}\n", words.say("label-assumed", &[]));
        for line in assumed {
            let _ = writeln!(text, "- {}", escaped(line));
        }
    }
    text
}

/// A heading, a verdict and a table.
pub(super) fn service(explained: &Explained<'_>, words: &Words) -> String {
    let mut text = format!("## {}\n\n", escaped(&sentences::heading(explained, words)));
    let verdict = sentences::verdict(explained, words);
    let _ = writeln!(text, "**{}**\n", escaped(&verdict));
    if !explained.ways.is_empty() {
        let _ = writeln!(text, "{}\n", matrix(explained, words));
    }
    if let Some(health) = &explained.health {
        let port = health.port.to_string();
        let _ = writeln!(text, "{}\n", words.say("label-health", &[("port", &port)]));
        for line in sentences::health(health, words) {
            let _ = writeln!(text, "- {}", escaped(&line));
        }
        text.push('\n');
    }
    findings(&explained.findings, words, &mut text);
    if !explained.advice.is_empty() {
        let _ = writeln!(text, "### {}\n", words.say("label-advice", &[]));
    }
    for change in &explained.advice {
        let name = format!("change-{}", change.code);
        let price = words.say("label-price", &[("price", &words.price(&name))]);
        let _ = writeln!(text, "- {}. {price}.", words.say(&name, &[]));
        for patch in &change.patches {
            let _ = writeln!(
                text,
                "\n      {}",
                patch.command().replace(['\n', '\r'], " ")
            );
        }
    }
    if !explained.advice.is_empty() {
        text.push('\n');
    }
    text
}

fn matrix(explained: &Explained<'_>, words: &Words) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(COLUMNS);
    for way in folded(&explained.ways) {
        let cells = cells(&way, explained.all_nodes, words);
        table.add_row(cells.map(|cell| escaped(&cell).replace('\n', ", ")));
    }
    table
}

fn findings(findings: &[Finding], words: &Words, text: &mut String) {
    for finding in findings {
        let severity = words.say(&format!("severity-{}", word(&finding.severity())), &[]);
        let told = escaped(&words.tell("finding", finding));
        let _ = writeln!(text, "- **{severity}**: {told}");
    }
    if !findings.is_empty() {
        text.push('\n');
    }
}

/// Names are what an object's author chose: no character of one is Markdown's, or HTML's
/// (`CommonMark` 0.31, 2.4).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(
            character,
            '|' | '<' | '>' | '`' | '*' | '[' | ']' | '\\' | '_' | '&' | '~'
        ) {
            escaped.push('\\');
        }
        if !character.is_control() || character == '\n' {
            escaped.push(character);
        }
    }
    escaped
}
