//! Shows the observer at work on a cluster of network namespaces, and proves every verdict.

#![expect(
    clippy::print_stdout,
    reason = "the table is the output of this command"
)]
#![expect(clippy::print_stderr, reason = "progress is shown beside the output")]

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use tests::{demo, observer_process::replay};

/// Connections shown as an operator sees them.
const SHOWN: usize = 8;
/// Of those that passed two nodes.
const SHOWN_JOINED: usize = 3;

fn main() -> Result<ExitCode> {
    let start = Instant::now();
    let step = |what: &str| eprintln!("[{:4.1} s] {what}", start.elapsed().as_secs_f64());

    step(
        "raising the cluster: an external client, two nodes and their pods, each a network namespace",
    );
    let lab = demo::raise()?;
    let ways = demo::ways_from_outside(&lab)?;
    step(&format!(
        "observing both nodes; opening {} connections through every front door",
        ways.len()
    ));
    let run = demo::observe(&lab, &ways)?;
    let report = run.judged(&lab);
    step("done");

    let (node, _) = run
        .printed
        .first_key_value()
        .context("a node was observed")?;
    println!("What `observer trace` says on {node}, the first {SHOWN} connections:\n");
    let shown = SHOWN.to_string();
    println!("{}", replay(&run.recording(node), &["--count", &shown])?);
    println!("What two nodes saw, joined by `observer join`, the first {SHOWN_JOINED}:\n");
    println!("{}", demo::joined(&run, SHOWN_JOINED)?);
    println!("What it says of each connection, beside what the pod's own socket saw:\n");
    println!("{}", demo::table(&report));
    let complaints = report.complaints();
    if complaints.is_empty() {
        println!(
            "All {} verdicts agree with what the pods' own sockets saw.",
            report.findings.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("The observer is WRONG on {} points:", complaints.len());
    for complaint in complaints {
        println!("  {complaint}");
    }
    for (node, stderr) in run.stderr {
        eprintln!("--- what the observer of {node} said beside:\n{stderr}");
    }
    Ok(ExitCode::FAILURE)
}
