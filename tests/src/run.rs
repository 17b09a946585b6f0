//! Observers on every node of a lab while connections are opened in it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::{
    lab::{Lab, LabNode},
    observer_process::{Finished, ObserverProcess, join, replay},
    oracle::{self, Complaint, Crossing, Records, Report},
    traffic::{self, Opened, Way},
};

/// What is wrong once is mostly wrong often; so many examples are enough.
const SHOWN_OF_A_KIND: usize = 5;

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

/// Observers at work on every node of a lab.
#[derive(Debug)]
pub struct Observers<'lab> {
    lab: &'lab Lab,
    running: Vec<ObserverProcess>,
    /// Where each records, by node.
    recordings: TempDir,
    /// Held for as long as they run.
    _kube_proxy_config: NamedTempFile,
}

impl<'lab> Observers<'lab> {
    /// Starts one on each node. `cluster_state`: the file that the lab was raised from.
    pub fn start(lab: &'lab Lab, cluster_state: &Path) -> Result<Self> {
        let mut config = NamedTempFile::new().context("failed to make a temporary file")?;
        write!(config, "{}", lab.kube_proxy()).context("failed to write a temporary file")?;
        let recordings = TempDir::new().context("failed to make a directory for recordings")?;
        let start = |node: &LabNode| {
            let recording = recordings.path().join(&node.plan.name);
            let record = ["--record", utf8(&recording)?];
            let config = ["--kube-proxy-config", utf8(config.path())?];
            ObserverProcess::start(node, cluster_state, &[record, config].concat())
        };
        let running = lab.nodes().iter().map(start).collect::<Result<_>>()?;
        Ok(Self {
            lab,
            running,
            recordings,
            _kube_proxy_config: config,
        })
    }

    /// Their process ids, in the order of the nodes.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.running.iter().map(ObserverProcess::id)
    }

    /// Ends them and collects what they said of what was `opened`.
    pub fn stop(self, opened: Vec<Opened>) -> Result<Run> {
        let Self {
            lab,
            running,
            recordings,
            _kube_proxy_config,
        } = self;
        let mut run = Run {
            opened,
            records: Records::new(),
            printed: BTreeMap::new(),
            recordings,
            stderr: Vec::new(),
        };
        for (node, observer) in lab.nodes().iter().zip(running) {
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
}

impl Run {
    /// The recording of a node.
    pub fn recording(&self, node: &str) -> PathBuf {
        self.recordings.path().join(node)
    }

    /// Demands that from the recordings the same records follow, byte for byte, for which nobody
    /// need be root.
    ///
    /// # Panics
    /// With the node whose recording does not.
    pub fn assert_replayed(&self) {
        for (node, printed) in &self.printed {
            let replayed = replay(&self.recording(node), &["-o", "json"]);
            let replayed = replayed.unwrap_or_else(|error| panic!("{node}: {error:#}"));
            let mut lines = replayed.lines().zip(printed.lines());
            let different = lines.find(|(replayed, printed)| replayed != printed);
            assert!(
                replayed == *printed,
                "{node}: the replay printed another {different:?}, or another number of records"
            );
        }
    }

    /// The records of all nodes, joined by `observer join`.
    pub fn joined(&self) -> Result<Vec<Value>> {
        joined(&self.printed)
    }

    /// Demands that those connections are joined that two nodes must have seen, and no others, with
    /// both on the path, the cost of the hop, and TTLs that agree; and that nothing else is changed.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn assert_joined(&self, lab: &Lab) {
        let records = self.joined().expect("joined");
        let (whole, halves): (Vec<&Value>, Vec<&Value>) = records
            .iter()
            .partition(|record| oracle::nodes(record).len() == 2);
        let number: usize = self.records.values().map(Vec::len).sum();
        assert_eq!(2 * whole.len() + halves.len(), number, "records were lost");
        let mut joined: Vec<Crossing> = whole
            .iter()
            .map(|record| {
                Crossing::of(record).unwrap_or_else(|| panic!("who and where is in {record}"))
            })
            .collect();
        joined.sort();
        assert_eq!(joined, oracle::crossings(lab, &self.opened));
        for record in whole {
            let check = |field: &str| record.pointer(&format!("/hop_check/{field}"));
            // The nodes of a lab are on one link: nothing but themselves forwards.
            assert_eq!(check("forwards"), check("expected"), "{record}");
            for known in ["/extra_hop_ns", "/hop_check/forwards"] {
                let known = record.pointer(known).and_then(Value::as_u64);
                assert!(known.is_some(), "{record}");
            }
        }
    }

    /// What the observers said beside.
    pub(crate) fn beside(&self) -> String {
        let said: Vec<String> = self
            .stderr
            .iter()
            .map(|(node, stderr)| format!("{node}: {stderr}"))
            .collect();
        said.join("\n")
    }

    /// Compares what was reported with what was opened; see [`oracle`].
    pub fn judged(&self, lab: &Lab) -> Report<'_> {
        oracle::judge(lab, &self.opened, self.records.clone())
    }

    /// Demands that everything is reported, once, and as the oracle says.
    ///
    /// # Panics
    /// With all that is wrong.
    pub fn assert_right(&self, lab: &Lab) {
        let complaints = self.judged(lab).complaints();
        assert!(
            complaints.is_empty(),
            "{} complaints about {} connections:\n{}\nthe observers said beside:\n{}",
            complaints.len(),
            self.opened.len(),
            some_of_each_kind(&complaints),
            self.beside()
        );
    }
}

/// What observers printed, by node, joined by `observer join`.
pub fn joined(printed: &BTreeMap<String, String>) -> Result<Vec<Value>> {
    let folder = TempDir::new().context("failed to make a directory for records")?;
    let files = printed
        .iter()
        .map(|(node, records)| {
            let file = folder.path().join(node);
            fs::write(&file, records).context("failed to write records")?;
            Ok(file)
        })
        .collect::<Result<Vec<_>>>()?;
    let joined = join(&files, &["-o", "json"])?;
    let parse = |line| serde_json::from_str(line).with_context(|| format!("no record: {line}"));
    joined.lines().map(parse).collect()
}

/// The first complaints of each kind, and how many there are.
fn some_of_each_kind(complaints: &[Complaint]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Complaint>> = BTreeMap::new();
    for complaint in complaints {
        kinds.entry(complaint.kind()).or_default().push(complaint);
    }
    let mut text = String::new();
    for (kind, complaints) in kinds {
        let shown = complaints.iter().take(SHOWN_OF_A_KIND);
        let shown: Vec<String> = shown.map(ToString::to_string).collect();
        let more = complaints.len().saturating_sub(SHOWN_OF_A_KIND);
        writeln!(
            text,
            "{kind}: {}\n  {}",
            complaints.len(),
            shown.join("\n  ")
        )
        .expect("writing to a string cannot fail");
        if more > 0 {
            writeln!(text, "  and {more} more").expect("writing to a string cannot fail");
        }
    }
    text
}

/// Observes every node while connections are opened by `ways`.
pub fn observe(lab: &Lab, cluster_state: &Path, ways: &[Way]) -> Result<Run> {
    let observers = Observers::start(lab, cluster_state)?;
    let opened = traffic::open(lab, ways)?;
    observers.stop(opened)
}

fn utf8(path: &Path) -> Result<&str> {
    let path_is_text = || format!("the path {} is not UTF-8", path.display());
    path.to_str().with_context(path_is_text)
}
