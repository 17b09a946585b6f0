//! The binary `observer`: parses and calls, nothing else.

use std::process::ExitCode;

use clap::Parser as _;
use observer::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
