//! One connection in, something to look at out.

mod printer;
mod summary;
mod table;

pub use printer::{Format, Printer};
pub use summary::{Lost, Summary};
