//! The binary `observer`: parses and calls, nothing else.

use std::env;
use std::process::ExitCode;

use clap::Parser as _;
use observer::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse_from(cli::said_in_full(env::args_os())))
}
