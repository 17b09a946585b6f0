//! The observer, run on a node of the lab as an operator would run it.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    child::{ChildGuard, poll_until},
    command,
    lab::LabNode,
    threads::at_once,
};

/// The variable that names the observer to run.
pub const OBSERVER_BIN: &str = "OBSERVER_BIN";
/// The start of the line by which the observer says that it misses nothing from now on.
pub const READY: &str = "observing";
/// How long it may take to get there. It promises two seconds; an emulated one on a busy machine gets more.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to end after Ctrl-C.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the records of what is over may take to come. They take milliseconds; a busy machine
/// gets more.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The observer to run: `OBSERVER_BIN`, else the release build of this workspace.
pub fn binary() -> Result<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/observer");
    let path = env::var_os(OBSERVER_BIN).map_or_else(built, PathBuf::from);
    path.canonicalize().with_context(|| {
        format!(
            "there is no observer at {}: build it in release mode, or set {OBSERVER_BIN}",
            path.display()
        )
    })
}

/// An observer at work on a node. Dropped without [`stop`](Self::stop) it is killed.
#[derive(Debug)]
pub struct ObserverProcess {
    child: ChildGuard,
    /// How many lines it has printed.
    printed: Arc<AtomicUsize>,
    stdout: JoinHandle<Vec<String>>,
    stderr: JoinHandle<Vec<String>>,
}

/// What an observer left behind.
#[derive(Debug)]
pub struct Finished {
    /// What it printed.
    pub stdout: String,
    /// The same, one value for each line.
    pub records: Vec<Value>,
    /// What it said beside.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl ObserverProcess {
    /// Runs `observer trace -o json` in the namespace of a node, and returns once it observes.
    pub fn start(node: &LabNode, cluster_state: &Path, more: &[&str]) -> Result<Self> {
        let cluster_state = ["--cluster-state".as_ref(), cluster_state.as_os_str()];
        let more = more.iter().map(OsStr::new);
        Self::trace(node, cluster_state.into_iter().chain(more))
    }

    /// One on each of these nodes, all started at once.
    pub fn start_on_each(
        nodes: &[LabNode],
        cluster_state: &Path,
        more: &[&str],
    ) -> Result<Vec<Self>> {
        let started = at_once(nodes, |node| Self::start(node, cluster_state, more));
        started.into_iter().collect()
    }

    /// Runs `observer agent` in the namespace of a node, and returns once it observes.
    pub fn start_agent(node: &LabNode, more: &[&str]) -> Result<Self> {
        let agent = ["agent", "--node", &node.plan.name];
        Self::spawn(node, agent.iter().chain(more).map(OsStr::new))
    }

    /// The same with these arguments alone.
    pub fn start_with(node: &LabNode, arguments: &[&str]) -> Result<Self> {
        Self::trace(node, arguments.iter().map(OsStr::new))
    }

    fn trace<'arg>(
        node: &'arg LabNode,
        more: impl IntoIterator<Item = &'arg OsStr>,
    ) -> Result<Self> {
        let trace = ["trace", "-o", "json", "--node", &node.plan.name].map(OsStr::new);
        Self::spawn(node, trace.into_iter().chain(more))
    }

    fn spawn<'arg>(node: &LabNode, more: impl IntoIterator<Item = &'arg OsStr>) -> Result<Self> {
        let mut command = node.namespace.command(binary()?);
        command.args(more);
        Self::by(command)
    }

    /// Runs `observer trace --cluster -o json`, which is on no node, and returns once it follows
    /// agents.
    pub fn start_across(kubeconfig: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command
            .args(["trace", "--cluster", "-o", "json", "--kubeconfig"])
            .arg(kubeconfig)
            .args(more);
        Self::by(command)
    }

    /// Runs an observer by a command that ends as the observer does and hands on its signals and
    /// what it says; returns once it observes.
    pub fn by(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let (ready, when_ready) = mpsc::channel();
        let mut ready = Some(ready);
        let printed = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&printed);
        let stdout = child.stdout.take().context("the observer has no stdout")?;
        let stdout = collect(stdout, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let stderr = child.stderr.take().context("the observer has no stderr")?;
        let stderr = collect(stderr, move |line| {
            if let Some(ready) = ready.take_if(|_| line.starts_with(READY)) {
                let _gave_up_waiting = ready.send(());
            }
        });
        let mut child = ChildGuard::new(child);
        let why = match when_ready.recv_timeout(READY_TIMEOUT) {
            Ok(()) => {
                return Ok(Self {
                    child,
                    printed,
                    stdout,
                    stderr,
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                child.signal(Signal::SIGKILL)?;
                format!("it did not observe within {READY_TIMEOUT:?}")
            }
            Err(RecvTimeoutError::Disconnected) => "it ended before it observed".to_owned(),
        };
        let status = child.wait(STOP_TIMEOUT)?;
        drop(child);
        bail!(
            "{command:?}: {why} ({status:?}); it said:\n{}",
            text(stderr)?.join("\n")
        );
    }

    /// The process id of the observer.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has printed so many records.
    pub fn wait_for_records(&self, number: usize) -> Result<()> {
        let printed = || self.printed.load(Ordering::Relaxed);
        poll_until(RECORDS_TIMEOUT, || (printed() >= number).then_some(())).with_context(|| {
            format!(
                "it printed {} records of {number} within {RECORDS_TIMEOUT:?}",
                printed()
            )
        })
    }

    /// Kills it, so that it can clean up nothing, and returns what it had printed.
    pub fn kill(self) -> Result<Vec<Value>> {
        let Self { child, stdout, .. } = self;
        drop(child);
        records(&text(stdout)?)
    }

    /// Ends it as Ctrl-C would and returns all it said.
    pub fn stop(self) -> Result<Finished> {
        self.stop_by(Signal::SIGINT)
    }

    /// Asks it by a signal to end, and returns all it said.
    pub fn stop_by(mut self, signal: Signal) -> Result<Finished> {
        self.child.signal(signal)?;
        self.wait()
            .with_context(|| format!("the observer got the signal {signal}"))
    }

    /// Waits until it ends by itself, and returns all it said.
    pub fn wait(self) -> Result<Finished> {
        let Self {
            mut child,
            printed: _,
            stdout,
            stderr,
        } = self;
        let Some(status) = child.wait(STOP_TIMEOUT)? else {
            drop(child);
            bail!(
                "the observer did not end within {STOP_TIMEOUT:?}; it said:\n{}",
                text(stderr)?.join("\n")
            );
        };
        let stderr = text(stderr)?.join("\n");
        let lines = text(stdout)?;
        Ok(Finished {
            stdout: lines.iter().flat_map(|line| [line, "\n"]).collect(),
            records: records(&lines)?,
            stderr,
            status,
        })
    }
}

/// What `observer replay` prints of a recording.
pub fn replay(recording: &Path, arguments: &[&str]) -> Result<String> {
    command::run(
        Command::new(binary()?)
            .arg("replay")
            .args(arguments)
            .arg(recording),
    )
}

/// Joins the records in `files` by `observer join`, and returns what it printed.
pub fn join(files: &[PathBuf], arguments: &[&str]) -> Result<String> {
    command::run(
        Command::new(binary()?)
            .arg("join")
            .args(arguments)
            .args(files),
    )
}

/// Collects lines until the other end is closed; shows each to `look`.
fn collect(
    from: impl Read + Send + 'static,
    mut look: impl FnMut(&str) + Send + 'static,
) -> JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            look(&line);
            lines.push(line);
        }
        lines
    })
}

fn records(lines: &[String]) -> Result<Vec<Value>> {
    let parse = |line: &String| {
        serde_json::from_str(line)
            .with_context(|| format!("the observer printed what is no record: {line:?}"))
    };
    lines.iter().map(parse).collect()
}

fn text(lines: JoinHandle<Vec<String>>) -> Result<Vec<String>> {
    lines
        .join()
        .ok()
        .context("the thread that read what the observer said has died")
}
