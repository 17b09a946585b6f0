//! Measures what observing costs, on this machine: `cargo xtask bench` builds and runs it.

#![expect(
    clippy::print_stdout,
    reason = "the table is the output of this command"
)]
#![expect(clippy::print_stderr, reason = "progress is shown beside the output")]

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::bench::{self, Options, chart, document, table};

/// Measures what observing costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each comparison is made.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// For how many seconds traffic flows at a time.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// Only this load or part; may be repeated: bulk-1 bulk-8 requests connections
    /// connections-paced datagrams flooded kernel live growth rest userspace.
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// As little of everything as shows that it works.
    #[arg(long)]
    quick: bool,
    /// The bench of userspace (`observer-bench`).
    #[arg(long)]
    userspace: Option<PathBuf>,
    /// Where to write all figures.
    #[arg(long)]
    json: PathBuf,
    /// Where to write the picture.
    #[arg(long)]
    svg: PathBuf,
    /// Write the tables and the picture into the documents of the project here, too.
    #[arg(long)]
    document: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        seconds: arguments.seconds,
        only: arguments.only,
        quick: arguments.quick,
        userspace: arguments.userspace,
    };
    let start = Instant::now();
    let results = bench::run(&options, &mut |what| {
        eprintln!("[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    })?;
    let json = serde_json::to_string_pretty(&results)?;
    for (path, text) in [
        (&arguments.json, json + "\n"),
        (&arguments.svg, chart::svg(&results)?),
    ] {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context("failed to make a folder")?;
        }
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    if let Some(root) = &arguments.document {
        document::write(root, &results)?;
    }
    println!("{}", table::text(&results));
    println!("{}", table::setting(&results));
    if options.quick {
        println!("A quick run: it shows that everything works, and its figures say nothing.");
    }
    Ok(())
}
