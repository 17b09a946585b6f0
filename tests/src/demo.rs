//! The demonstration: a whole cluster, its front doors tried one by one, and what the observer
//! says of each beside what the pod's own socket saw.

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    kubeproxy::doors::{FrontDoor, Kind, Policy, front_doors},
    lab::{Lab, Options},
    observer_process::join,
    oracle::{Finding, Report, nodes},
    run::{self, Run},
    scene::Scene,
    traffic::{Way, from_outside},
};

/// How many connections go through a door behind which chance decides.
const CONNECTIONS_OF_CHANCE: usize = 2;

/// The objects of the demo cluster.
pub fn cluster_file() -> PathBuf {
    Scene::demo().objects
}

/// The ways of the demo: the external client through every front door that is meant for it, by
/// every node, in both families, and twice where the policy leaves the choice of the pod to chance.
pub fn ways_from_outside(lab: &Lab) -> Result<Vec<Way>> {
    let doors = front_doors(lab.cluster(), lab.kube_proxy())?;
    let times = |door: &FrontDoor| match door.policy {
        Policy::Cluster => CONNECTIONS_OF_CHANCE,
        Policy::Local => 1,
    };
    let doors: Vec<FrontDoor> = doors
        .into_iter()
        .filter(|door| door.kind != Kind::ClusterIp)
        .flat_map(|door| vec![door.clone(); times(&door)])
        .collect();
    Ok(from_outside(lab, &doors))
}

/// Raises the demo cluster.
pub fn raise() -> Result<Lab> {
    raise_with(Options::default())
}

/// Raises the demo cluster with other wiring or rules.
pub fn raise_with(options: Options) -> Result<Lab> {
    Lab::raise(Scene::demo().cluster()?, options)
}

/// Observes every node while connections are opened.
pub fn observe(lab: &Lab, ways: &[Way]) -> Result<Run> {
    run::observe(lab, &cluster_file(), ways)
}

/// The first connections that two nodes saw, as `observer join` shows them.
pub fn joined(run: &Run, number: usize) -> Result<String> {
    let whole = run.joined()?;
    let whole = whole.iter().filter(|record| nodes(record).len() == 2);
    let whole: Vec<&Value> = whole.take(number).collect();
    let mut file = NamedTempFile::new().context("failed to make a temporary file")?;
    for record in &whole {
        writeln!(file, "{record}").context("failed to write a temporary file")?;
    }
    // What is joined already stays so.
    join(&[file.path().to_owned()], &[])
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
    let door = &opened.way.door;
    let by = if door.kind.is_routed() {
        format!("\nby {}", door.entry)
    } else {
        String::new()
    };
    [
        opened.client.to_string(),
        format!("{door}{by}"),
        door.service_port(),
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
