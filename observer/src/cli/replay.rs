//! `observer replay`: the same verdicts again, from a recording. Needs no privilege.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::report::Report;
use crate::cluster::Index;
use crate::observe::{Observer, Output};
use crate::output::Format;
use crate::recording::Reader;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// What `observer trace --record FILE` wrote.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Stop after this many connections.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) fn run(options: Options) -> anyhow::Result<()> {
    let Options {
        recording,
        output,
        count,
    } = options;
    let (header, events) = Reader::open(&recording)?;
    let objects = header
        .cluster_state
        .map(|list| events.objects(&list))
        .transpose()?;
    let index = objects.map(|objects| Arc::new(Index::build(&objects)));
    let mut observer = Observer::new(header.settings, index, header.kube_proxy);
    let mut report = Report::new(output, count);
    for event in events {
        for output in observer.handle(event?) {
            match output {
                Output::Record(record) => report.take(&record)?,
                // The answer is in the recording.
                Output::Ask(_) => {}
            }
        }
        if report.is_done() {
            break;
        }
    }
    Ok(())
}
