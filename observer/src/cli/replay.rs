//! `observer replay`: the same verdicts again, from a recording. Needs no privilege.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;

use super::report::{Report, ReportOptions};
use super::{Ending, say};
use crate::cluster::{Index, Snapshot};
use crate::observe::network;
use crate::observe::{Observer, Output};
use crate::recording::Reader;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// What `observer trace --record FILE` wrote.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// More networks or addresses of load balancers, beside those of the recorded run (`trace
    /// --load-balancer`).
    #[arg(
        long = "load-balancer",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network
    )]
    load_balancers: Vec<IpNet>,
    #[command(flatten)]
    report: ReportOptions,
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    let Options {
        recording,
        load_balancers,
        report,
    } = options;
    let (header, events) = Reader::open(&recording)?;
    let mut settings = header.settings;
    settings.first_bytes.load_balancers.extend(load_balancers);
    let objects = header
        .cluster_state
        .map(|list| events.objects(&list))
        .transpose()?;
    if let Some(but) = report.unusual_service(objects.as_ref())? {
        say(&format!("warning: {but}"));
    }
    let cluster = objects.map(|objects| {
        Arc::new(Snapshot {
            index: Index::build(&objects),
            kube_proxy: header.kube_proxy,
            readers: header.readers,
            objects: None,
        })
    });
    let mut observer = Observer::new(settings, cluster);
    let mut report = Report::new(report);
    for event in events {
        for output in observer.handle(event?) {
            match output {
                Output::Record(_, record) => report.take(&record)?,
                // The answer is in the recording.
                Output::Ask(_) => {}
            }
        }
        if report.is_done() {
            break;
        }
    }
    report.flush()?;
    say(&report.summary(None));
    Ok(report.ending())
}
