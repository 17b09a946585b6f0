//! Records to stdout, each at once.

use std::io::{self, ErrorKind, Write as _};

use clap::ValueEnum;

use super::table;
use crate::record::Record;

/// How connections are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object a line (`observer.connection/v1`).
    Json,
}

/// Prints records as they come.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    open: bool,
}

impl Printer {
    /// A printer to stdout.
    pub const fn new(format: Format) -> Self {
        Self { format, open: true }
    }

    /// Whether somebody still reads.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Prints one record and flushes. A reader that went away (`| head`) is no error: it has had
    /// enough, and [`Printer::is_open`] says so.
    pub fn print(&mut self, record: &Record) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let line = match self.format {
            Format::Json => serde_json::to_string(record)?,
            Format::Table => table::render(record),
        };
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.open = false;
                Ok(())
            }
            done => done,
        }
    }
}
