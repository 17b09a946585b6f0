//! The commands, one file each.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod replay;
mod report;
mod trace;

/// Where was the client's address lost, by whom, because of which setting.
#[derive(Debug, Parser)]
#[command(name = "observer", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow connections live on this node.
    Trace(trace::Options),
    /// Judge again what `trace --record` recorded.
    Replay(replay::Options),
}

/// Runs a command. Exit codes: 0 done, 1 error (2, wrong use, is clap's).
pub fn run(Cli { command }: Cli) -> ExitCode {
    let done = match command {
        Command::Trace(options) => trace::run(options),
        Command::Replay(options) => replay::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr is closed too.
            drop(writeln!(io::stderr(), "observer: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
