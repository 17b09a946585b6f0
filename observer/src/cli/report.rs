//! What becomes of a record: filtered, counted and printed, the same for live ones and replayed
//! ones.

use anyhow::Context as _;
use clap::{Args, value_parser};

use super::Ending;
use super::filter::{FailOn, Filter};
use super::names::{self, NameError};
use crate::cluster::Objects;
use crate::live::Missed;
use crate::output::{Format, Page, Printer, Summary};
use crate::record::Record;

/// What to report, how, and until when.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportOptions {
    #[command(flatten)]
    filter: Filter,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Stop after this many printed connections.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End with exit code 3 if such a connection was printed; may be repeated, or be a list:
    /// `lost,dropped`.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    fail_on: Vec<FailOn>,
}

/// Where a command's records go.
#[derive(Debug)]
pub(super) struct Report {
    filter: Filter,
    printer: Printer,
    summary: Summary,
    fail_on: Vec<FailOn>,
    found: bool,
    remaining: Option<u64>,
    unpredicted: u64,
}

impl ReportOptions {
    /// Everything, and no failing.
    pub(super) fn all(output: Format) -> Self {
        Self {
            filter: Filter::default(),
            output,
            count: None,
            fail_on: Vec::new(),
        }
    }

    /// Whether the Service that is asked for exists and can be entered; what is unusual about it,
    /// if anything.
    pub(super) fn unusual_service(
        &self,
        objects: Option<&Objects>,
    ) -> Result<Option<String>, NameError> {
        match &self.filter.service {
            Some(wanted) => names::service(wanted, objects),
            None => Ok(None),
        }
    }
}

impl Report {
    /// Goes to stdout.
    pub(super) fn new(options: ReportOptions) -> Self {
        let ReportOptions {
            filter,
            output,
            count,
            fail_on,
        } = options;
        Self {
            filter,
            printer: Printer::new(output),
            summary: Summary::default(),
            fail_on,
            found: false,
            remaining: count,
            unpredicted: 0,
        }
    }

    /// Whether nobody wants more: the count is reached, or stdout is closed.
    pub(super) fn is_done(&self) -> bool {
        self.remaining == Some(0) || !self.printer.is_open()
    }

    /// Takes one record: prints it, if it is asked for; it is written by [`Report::flush`].
    pub(super) fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        if self.remaining == Some(0) {
            return Ok(());
        }
        if self.filter.passes_unpredicted(record) {
            self.unpredicted += u64::from(record.as_expected.is_none());
        }
        if !self.filter.passes(record) {
            self.summary.pass_over();
            return Ok(());
        }
        self.remaining = self.remaining.map(|remaining| remaining - 1);
        self.summary.add(record);
        self.found |= self.fail_on.iter().any(|fail_on| fail_on.is_met(record));
        self.printer.print(record).context("cannot write to stdout")
    }

    /// Writes what was printed.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.printer.flush().context("cannot write to stdout")
    }

    /// What came by, as a whole, for stderr. `missed`: `None` if nothing could be.
    pub(super) fn summary(&self, missed: Option<Missed>) -> String {
        let summary = self.summary.render(missed, Page::stderr());
        let asked =
            self.filter.asks_for_predictions() || self.fail_on.contains(&FailOn::Unexpected);
        if asked && self.unpredicted > 0 {
            format!(
                "{summary}\nwarning: for {} connections nothing was predicted, so that none of those \
                 counts as unexpected",
                self.unpredicted
            )
        } else {
            summary
        }
    }

    /// How the command ends.
    pub(super) fn ending(&self) -> Ending {
        if self.found {
            Ending::Found
        } else {
            Ending::Done
        }
    }
}
