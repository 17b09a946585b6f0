//! The demonstration: a whole cluster, its front doors tried one by one, and what the observer
//! says of each beside what the pod's own socket saw.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    doors::{FrontDoor, front_doors},
    lab::{Lab, LabNode, Options},
    observer_process::{Finished, ObserverProcess},
    oracle::{Finding, Records, Report, judge},
    traffic::{self, Opened},
};

/// How many connections go through a door behind which chance decides.
const CONNECTIONS_OF_CHANCE: usize = 2;

/// The objects of the demo cluster.
pub fn cluster_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters/demo.json")
}

/// What a run of observers over a lab came to.
#[derive(Debug)]
pub struct Run {
    /// What was opened.
    pub opened: Vec<Opened>,
    /// What was reported of it.
    pub records: Records,
    /// What each observer printed, by node.
    pub printed: BTreeMap<String, String>,
    /// Where each observer recorded, by node; see [`Run::recording`].
    recordings: TempDir,
    /// What each observer said beside, by node.
    pub stderr: Vec<(String, String)>,
}

impl Run {
    /// The recording of a node.
    pub fn recording(&self, node: &str) -> PathBuf {
        self.recordings.path().join(node)
    }
}

/// The connections of the demo: every front door by every node, in both families, and twice
/// where the policy leaves the choice of the pod to chance.
pub fn doors(cluster: &Cluster) -> Result<Vec<FrontDoor>> {
    let doors = front_doors(cluster)?;
    let times = |door: &FrontDoor| {
        if door.masquerades {
            CONNECTIONS_OF_CHANCE
        } else {
            1
        }
    };
    Ok(doors
        .into_iter()
        .flat_map(|door| vec![door.clone(); times(&door)])
        .collect())
}

/// Raises the demo cluster.
pub fn raise() -> Result<Lab> {
    raise_with(Options::default())
}

/// Raises the demo cluster with other wiring or rules.
pub fn raise_with(options: Options) -> Result<Lab> {
    Lab::raise(Cluster::read(&cluster_file())?, options)
}

/// Observes every node while connections are opened through `doors`.
pub fn observe(lab: &Lab, doors: &[FrontDoor]) -> Result<Run> {
    let mut run = Run {
        opened: Vec::new(),
        records: Records::new(),
        printed: BTreeMap::new(),
        recordings: TempDir::new().context("failed to make a directory for recordings")?,
        stderr: Vec::new(),
    };
    let start = |node: &LabNode| {
        let recording = run.recording(&node.plan.name);
        let recording = recording.to_str().context("the directory is not UTF-8")?;
        ObserverProcess::start(node, &cluster_file(), &["--record", recording])
    };
    let observers = lab.nodes().iter().map(start).collect::<Result<Vec<_>>>()?;
    run.opened = traffic::open(lab, doors)?;
    for (node, observer) in lab.nodes().iter().zip(observers) {
        let node = &node.plan.name;
        let Finished {
            stdout,
            records,
            stderr,
            status,
        } = observer.stop()?;
        ensure!(
            status.success(),
            "the observer of {node} ended with {status}; it said:\n{stderr}"
        );
        run.printed.insert(node.clone(), stdout);
        run.records.insert(node.clone(), records);
        run.stderr.push((node.clone(), stderr));
    }
    Ok(run)
}

/// The two views of every connection, side by side.
pub fn table(report: &Report<'_>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    // On a terminal long cells are broken; in a file or a pipe each connection keeps to its lines.
    if let Some((width, _)) = terminal_size::terminal_size() {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width.0);
    }
    table.set_header([
        "client",
        "front door",
        "service",
        "backend",
        "the observer says",
        "the pod's socket saw",
        "agrees",
    ]);
    for finding in &report.findings {
        table.add_row(row(finding));
    }
    table
}

fn row(finding: &Finding<'_>) -> [String; 7] {
    let Finding {
        opened,
        record,
        disagreements,
    } = finding;
    let (backend, saw) = match &opened.result {
        Ok(answer) => (answer.pod.clone(), answer.peer_seen.to_string()),
        Err(failure) => ("-".to_owned(), format!("nothing: {failure}")),
    };
    let agrees = if disagreements.is_empty() {
        "yes"
    } else {
        "NO"
    };
    let door = &opened.door;
    let by = if door.kind.is_routed() {
        format!("\nby {}", door.entry)
    } else {
        String::new()
    };
    [
        opened.client.to_string(),
        format!("{door}{by}"),
        opened.door.service_port(),
        backend,
        record
            .as_ref()
            .map_or_else(|| "(not reported)".to_owned(), verdict),
        saw,
        agrees.to_owned(),
    ]
}

/// A record in short: what became of the source and where, and on a second line why and at what
/// cost.
fn verdict(record: &Value) -> String {
    let text = |field: &str| record.pointer(field).and_then(Value::as_str);
    let outcome = text("/outcome").unwrap_or("?");
    let Some(source) = text("/source_ip").filter(|_| outcome == "answered") else {
        let cause =
            text("/outcome_cause/code").map_or_else(String::new, |cause| format!(": {cause}"));
        return format!("{outcome}{cause}");
    };
    let hops = match record.pointer("/extra_hops").and_then(Value::as_u64) {
        Some(1) => "1 extra hop".to_owned(),
        Some(hops) => format!("{hops} extra hops"),
        None => "extra hops unknown".to_owned(),
    };
    match (
        text("/lost_at/node"),
        text("/lost_at/interface"),
        text("/cause/code"),
    ) {
        (Some(node), Some(interface), Some(cause)) => {
            format!("{source} at {node}, {interface}, {hops}\n{cause}")
        }
        _ => format!("{source}, {hops}"),
    }
}

/// Judges a run; see [`oracle`](crate::oracle).
pub fn judged<'run>(lab: &Lab, run: &'run Run) -> Report<'run> {
    judge(lab, &run.opened, run.records.clone())
}
