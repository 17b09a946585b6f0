//! Every developer command: `cargo xtask --help`.

mod bench;
mod build;
mod debian;
mod demo;
mod deny;
mod deploy;
mod folders;
mod fuzz;
mod kernels;
mod process;
mod setup;
mod soak;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Source IP Observer. Each installs what it needs first.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what builds the BPF programs and what the lab runs (root, Debian).
    Setup,
    /// Build the release binary: target/release/observer.
    Build,
    /// Measure what observing costs, beside nothing, the least there can be, and other tools (root).
    Bench(bench::Options),
    /// Raise a two-node cluster, make connections, and compare each verdict with what the pod's
    /// own socket saw (root).
    Demo,
    /// Try the observer on Debian's kernels, each in a virtual machine: does it load, are its
    /// verdicts right, does it clean up.
    Kernels(kernels::Options),
    /// Give any bytes to what reads them, until one breaks what must hold (a C++ compiler).
    Fuzz(fuzz::Options),
    /// Keep an agent busy for minutes, a thousand new connections a second: none may be missing, and
    /// its memory must stay where it is (root).
    Soak(soak::Options),
    /// Check everything: format, lints, tests, lab, documentation, dependencies (root).
    Test(test::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Setup => setup::all().map(|_| ExitCode::SUCCESS),
        Command::Build => build::run().map(|()| ExitCode::SUCCESS),
        Command::Bench(options) => bench::run(&options),
        Command::Demo => demo::run(),
        Command::Kernels(options) => kernels::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Test(options) => test::run(&options),
    }
}
