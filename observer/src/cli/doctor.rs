//! `observer doctor`: what this kernel and node can do, what is missing, what to do about it.
//!
//! Looks first ([`facts`]), then judges ([`checks`]), so that every judgement is a function of
//! what was seen, and a bug report ([`bundle`]) holds both. Changes nothing; without privilege it
//! says what it could not see.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::cluster::ClusterSeen;
use self::facts::Facts;
use self::report::Report;
use super::sizes::SizeOptions;
use super::source::ClusterSource;
use super::{Ending, block_on};
use crate::output::{self, Page};

mod bundle;
mod checks;
mod cluster;
mod dataplanes;
mod facts;
mod kube_proxy;
mod report;
#[cfg(test)]
mod tests;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of this node, as the cluster calls it [default: the host name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    source: ClusterSource,
    #[command(flatten)]
    sizes: SizeOptions,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Write all that was seen to this file too, as JSON for a bug report. It holds no addresses.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object (`observer.doctor/v1`).
    Json,
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    let Options {
        node,
        source,
        sizes,
        output,
        bundle,
    } = options;
    let facts = block_on(async {
        let cluster = ClusterSeen::by(&source).await?;
        Ok(Facts::gather(node, cluster, sizes.into()).await)
    })?;
    let report = Report::new(checks::all(&facts));
    if let Some(path) = bundle {
        bundle::write(&path, &facts, &report)?;
    }
    let text = match output {
        Format::Table => report.table(Page::stdout()),
        Format::Json => serde_json::to_string_pretty(&report).context("cannot write JSON")?,
    };
    output::print(&text).context("cannot write to stdout")?;
    Ok(if report.can_observe() {
        Ending::Done
    } else {
        Ending::Unable
    })
}
