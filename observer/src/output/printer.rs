//! Records to stdout, as many at once as come at once.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::paint::Page;
use super::table;
use super::wide::Rows;
use crate::record::{Record, write_line};

/// How connections are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: the way and the verdict, two lines each.
    Table,
    /// One connection a row, in aligned columns.
    Wide,
    /// One JSON object a line (`observer.connection/v1`).
    Json,
}

/// Prints records as they come.
#[derive(Debug)]
pub struct Printer {
    style: Style,
    open: bool,
    /// What is not written yet.
    pending: Vec<u8>,
}

/// What is pending is written then in any case.
const PENDING_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum Style {
    Table(Page),
    Wide(Box<Rows>),
    Json,
}

impl Printer {
    /// A printer to stdout.
    pub fn new(format: Format) -> Self {
        Self {
            style: match format {
                Format::Table => Style::Table(Page::stdout()),
                Format::Wide => Style::Wide(Box::new(Rows::new(Page::stdout()))),
                Format::Json => Style::Json,
            },
            open: true,
            pending: Vec::new(),
        }
    }

    /// Whether somebody still reads. Asks the kernel: a reader that went away (`| head -1`) would
    /// else be noticed only when the next connection comes.
    pub fn is_open(&self) -> bool {
        self.open && !hung_up()
    }

    /// Prints one record; it is written by [`Printer::flush`] at the latest. A reader that went away
    /// is no error: it has had enough, and [`Printer::is_open`] says so.
    pub fn print(&mut self, record: &Record) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let text = match &mut self.style {
            Style::Table(page) => table::render(record, *page),
            Style::Wide(rows) => rows.render(record),
            Style::Json => {
                write_line(&mut self.pending, record)?;
                return self.flush_if_full();
            }
        };
        self.pending.extend_from_slice(text.as_bytes());
        self.pending.push(b'\n');
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.pending.len() < PENDING_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes what is pending.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.open && !self.pending.is_empty() {
            self.open = write_out(&self.pending)?;
        }
        self.pending.clear();
        Ok(())
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        // However it ends, what came before is printed.
        let _nobody_to_tell = self.flush();
    }
}

/// Prints `text` and a line end to stdout; where nobody reads, that is no error.
pub fn print(text: &str) -> io::Result<()> {
    write_out(format!("{text}\n").as_bytes()).map(drop)
}

/// Whether somebody read it.
fn write_out(bytes: &[u8]) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the other end of stdout is closed: of a pipe `POLLERR`, of a socket or terminal
/// `POLLHUP` (poll(2)).
fn hung_up() -> bool {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let told = poll(&mut asked, PollTimeout::ZERO);
    let [answer] = asked;
    told.is_ok()
        && answer
            .revents()
            .is_some_and(|told| told.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}
