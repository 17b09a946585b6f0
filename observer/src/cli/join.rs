//! `observer join`: the halves of connections that two nodes saw, joined. Needs no privilege.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::report::{Report, ReportOptions};
use super::{Ending, say};
use crate::output::Format;
use crate::record::{self, Record};

/// Stands for stdin.
const STDIN: &str = "-";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// What `observer trace -o json` or `observer replay -o json` printed, of several nodes; `-`
    /// is stdin.
    #[arg(value_name = "FILE", required = true)]
    records: Vec<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    let Options {
        records: files,
        output,
    } = options;
    let mut records = Vec::new();
    for file in &files {
        read(file, &mut records)?;
    }
    let read = records.len();
    let joined = record::join(records);
    say(&format!(
        "{read} records, {} of them halves of {} connections",
        2 * (read - joined.len()),
        read - joined.len()
    ));
    let mut report = Report::new(ReportOptions::all(output));
    for record in &joined {
        report.take(record)?;
        if report.is_done() {
            break;
        }
    }
    report.flush()?;
    say(&report.summary(None));
    Ok(report.ending())
}

fn read(file: &Path, records: &mut Vec<Record>) -> anyhow::Result<()> {
    if file == Path::new(STDIN) {
        return lines(io::stdin().lock(), "stdin", records);
    }
    let name = file.display().to_string();
    let opened = File::open(file).with_context(|| format!("cannot read {name}"))?;
    lines(BufReader::new(opened), &name, records)
}

/// One record a line; empty lines are passed over.
fn lines(from: impl BufRead, name: &str, records: &mut Vec<Record>) -> anyhow::Result<()> {
    for (number, line) in from.lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line)
            .with_context(|| format!("{name}, line {}: no record", number + 1))?;
        records.push(record);
    }
    Ok(())
}
