//! Lines for people, on stderr.

use std::error::Error;
use std::io::{self, Write as _};
use std::iter;

/// What does not work, and what follows from that.
pub(crate) fn warn(error: &(dyn Error + 'static), so: &str) {
    say(&format!("warning: {}: {so}", chain(error)));
}

/// A line to stderr; where stderr is closed, nobody reads it.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
