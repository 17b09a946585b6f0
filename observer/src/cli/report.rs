//! What becomes of a record: counted and printed, the same for live ones and replayed ones.

use anyhow::Context as _;

use crate::output::{Format, Printer, Summary};
use crate::record::Record;

/// Where a command's records go.
#[derive(Debug)]
pub(super) struct Report {
    printer: Printer,
    summary: Summary,
    remaining: Option<u64>,
}

impl Report {
    /// `count`: how many records to print at most.
    pub(super) fn new(format: Format, count: Option<u64>) -> Self {
        Self {
            printer: Printer::new(format),
            summary: Summary::default(),
            remaining: count,
        }
    }

    /// Whether nobody wants more: the count is reached, or stdout is closed.
    pub(super) fn is_done(&self) -> bool {
        self.remaining == Some(0) || !self.printer.is_open()
    }

    /// Takes one record.
    pub(super) fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        if self.is_done() {
            return Ok(());
        }
        self.remaining = self.remaining.map(|remaining| remaining - 1);
        self.summary.add(record);
        self.printer.print(record).context("cannot write to stdout")
    }

    /// What came by, as a whole.
    pub(super) const fn summary(&self) -> &Summary {
        &self.summary
    }
}
