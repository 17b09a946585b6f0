//! What traffic is measured under.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{
    ground::Ground,
    yardstick::{self, Yardstick},
};
use crate::{
    child::{ChildGuard, poll_until},
    http::Follower,
    observer_process::{ObserverProcess, binary},
};

/// Where an agent is asked by default.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_807);
/// How a record begins.
const RECORD: &str = r#"{"schema":"observer.connection/"#;
/// How long a tool may take to start or to end.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);
/// `conntrack` does not say when it listens; it takes milliseconds.
const SETTLED: Duration = Duration::from_millis(100);

/// One of the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing attached.
    Nothing,
    /// A program that returns at once.
    Floor,
    /// `observer trace -o json`.
    Trace,
    /// `observer agent`, and one who follows.
    Agent,
    /// `conntrack -E`.
    Conntrack,
    /// `tcpdump -w /dev/null`.
    Tcpdump,
    /// A program that counts every packet by its flow.
    Naive,
}

impl Condition {
    /// All that something is attached under.
    pub const ALL: [Self; 6] = [
        Self::Floor,
        Self::Trace,
        Self::Agent,
        Self::Conntrack,
        Self::Tcpdump,
        Self::Naive,
    ];

    /// As tables and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Floor => "floor",
            Self::Trace => "trace",
            Self::Agent => "agent",
            Self::Conntrack => "conntrack",
            Self::Tcpdump => "tcpdump",
            Self::Naive => "naive",
        }
    }
}

/// A condition that holds, until it is dropped.
#[derive(Debug)]
pub struct Holding(Kind);

#[derive(Debug)]
enum Kind {
    Nothing,
    Program(Box<Yardstick>),
    Observer {
        process: ObserverProcess,
        /// Its standard output, unless nobody wants it.
        output: Option<PathBuf>,
        followed: Option<(Follower, Arc<AtomicU64>)>,
    },
    Tool(Tool),
}

/// What was told under a condition.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// How many packets, connections or events it told or counted, where it says so.
    pub told: Option<u64>,
    /// How many it lost by its own account; more than none, if it does not say how many.
    pub lost: u64,
    /// What it said beside.
    pub said: String,
}

impl Holding {
    /// Makes a condition hold. What it tells is counted if `kept`, and else thrown away.
    pub fn start(condition: Condition, ground: &Ground, kept: bool) -> Result<Self> {
        let start = || -> Result<Kind> {
            Ok(match condition {
                Condition::Nothing => Kind::Nothing,
                Condition::Floor => program(yardstick::Kind::Floor, ground)?,
                Condition::Naive => program(yardstick::Kind::Naive, ground)?,
                Condition::Trace => trace(ground, &ground.objects(), &[], kept)?,
                Condition::Agent => agent(ground, &ground.objects(), &[])?,
                Condition::Conntrack => {
                    let arguments = ["--event", "--output", "extended"];
                    let tool = Tool::start(ground, "conntrack", &arguments, kept)?;
                    thread::sleep(SETTLED);
                    Kind::Tool(tool)
                }
                Condition::Tcpdump => {
                    let arguments = ["-i", "any", "-w", "/dev/null"];
                    let tool = Tool::start(ground, "tcpdump", &arguments, false)?;
                    tool.wait_for("listening on")?;
                    Kind::Tool(tool)
                }
            })
        };
        let kind = start().with_context(|| format!("the condition {}", condition.name()))?;
        Ok(Self(kind))
    }

    /// `observer trace` with other objects or options.
    pub fn trace(ground: &Ground, objects: &Path, more: &[&str]) -> Result<Self> {
        trace(ground, objects, more, false).map(Self)
    }

    /// `observer agent` with other objects or options, and one who follows.
    pub fn agent(ground: &Ground, objects: &Path) -> Result<Self> {
        agent(ground, objects, &[]).map(Self)
    }

    /// The process of the observer, if it is one.
    pub fn observer(&self) -> Option<u32> {
        match &self.0 {
            Kind::Observer { process, .. } => Some(process.id()),
            Kind::Nothing | Kind::Program(_) | Kind::Tool(_) => None,
        }
    }

    /// The program of our own, if it is one.
    pub fn program(&self) -> Option<&Yardstick> {
        match &self.0 {
            Kind::Program(program) => Some(program),
            Kind::Nothing | Kind::Observer { .. } | Kind::Tool(_) => None,
        }
    }

    /// How many lines who follows has got.
    pub fn followed(&self) -> Option<u64> {
        match &self.0 {
            Kind::Observer {
                followed: Some((_, lines)),
                ..
            } => Some(lines.load(Ordering::Relaxed)),
            _ => None,
        }
    }

    /// Ends it; what it told.
    pub fn stop(self) -> Result<Told> {
        match self.0 {
            Kind::Nothing => Ok(Told::default()),
            Kind::Program(program) => Ok(Told {
                told: Some(program.packets()?),
                ..Told::default()
            }),
            Kind::Observer {
                process,
                output,
                followed,
            } => {
                let finished = process.stop()?;
                let told = match (output, followed) {
                    (_, Some((follower, lines))) => {
                        follower.stop()?;
                        Some(lines.load(Ordering::Relaxed))
                    }
                    (Some(output), None) => Some(lines_of(&output)?),
                    (None, None) => None,
                };
                Ok(Told {
                    told,
                    lost: observations_lost(&finished.stderr),
                    said: finished.stderr,
                })
            }
            Kind::Tool(tool) => tool.stop(),
        }
    }
}

fn lines_of(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("failed to read {}", file.display()))?;
    Ok(u64::try_from(text.lines().count())?)
}

/// The last line of an observer's summary: `0 observations lost`.
fn observations_lost(summary: &str) -> u64 {
    let of_line = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        rest.starts_with("observations lost")
            .then(|| number.replace(',', "").parse().ok())?
    };
    // Where it does not say it is no secret: what was said beside is in the results.
    summary.lines().rev().find_map(of_line).unwrap_or(0)
}

fn program(kind: yardstick::Kind, ground: &Ground) -> Result<Kind> {
    let mut yardstick = Yardstick::load(kind)?;
    yardstick.attach(&ground.node().namespace, &ground.interfaces())?;
    Ok(Kind::Program(Box::new(yardstick)))
}

fn trace(ground: &Ground, objects: &Path, more: &[&str], kept: bool) -> Result<Kind> {
    let output = kept.then(|| ground.folder().join("trace.json"));
    let to = output.as_deref().unwrap_or(Path::new("/dev/null"));
    let node = ground.node();
    // A shell only leads the output elsewhere, and becomes the observer.
    let mut command = node.namespace.command("sh");
    command
        .args(["-c", r#"exec "$@" >"$0""#])
        .arg(to)
        .arg(binary()?)
        .args(["trace", "-o", "json", "--node", &node.plan.name])
        .arg("--cluster-state")
        .arg(objects)
        .args(more);
    Ok(Kind::Observer {
        process: ObserverProcess::by(command)?,
        output,
        followed: None,
    })
}

fn agent(ground: &Ground, objects: &Path, more: &[&str]) -> Result<Kind> {
    let node = ground.node();
    let objects = objects.to_str().context("a path is not UTF-8")?;
    let arguments = [&["--cluster-state", objects], more].concat();
    let process = ObserverProcess::start_agent(node, &arguments)?;
    let lines = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&lines);
    let follow = "/v1/connections?follow=1";
    let follower = Follower::start_with(&node.namespace, API, follow, move |line| {
        // Not its last line, which is about the stream.
        if line.starts_with(RECORD) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    Ok(Kind::Observer {
        process,
        output: None,
        followed: Some((follower, lines)),
    })
}

/// Another tool, at work on the node.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    child: ChildGuard,
    output: Option<PathBuf>,
    stderr: PathBuf,
}

impl Tool {
    fn start(ground: &Ground, name: &'static str, arguments: &[&str], kept: bool) -> Result<Self> {
        let stderr = ground.folder().join(format!("{name}.stderr"));
        let output = kept.then(|| ground.folder().join(format!("{name}.stdout")));
        let file = |path: &Path| {
            File::create(path).with_context(|| format!("failed to make {}", path.display()))
        };
        let child = ground
            .node()
            .namespace
            .command(name)
            .args(arguments.iter().map(OsStr::new))
            .stdin(Stdio::null())
            .stdout(match &output {
                Some(output) => file(output)?.into(),
                None => Stdio::null(),
            })
            .stderr(file(&stderr)?)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self {
            name,
            child: ChildGuard::new(child),
            output,
            stderr,
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn wait_for(&self, word: &str) -> Result<()> {
        poll_until(TOOL_TIMEOUT, || self.said().contains(word).then_some(()))
            .with_context(|| format!("{} did not start: {}", self.name, self.said()))
    }

    fn stop(mut self) -> Result<Told> {
        self.child.signal(Signal::SIGINT)?;
        if self.child.wait(TOOL_TIMEOUT)?.is_none() {
            bail!("{} did not end", self.name);
        }
        let said = self.said();
        let told = match &self.output {
            Some(output) => Some(lines_of(output)?),
            None => number_before(&said, "packets captured"),
        };
        let dropped = number_before(&said, "packets dropped by kernel").unwrap_or(0);
        let lost_events = said.matches("ENOBUFS").count();
        Ok(Told {
            told,
            lost: dropped + u64::try_from(lost_events)?,
            said,
        })
    }
}

/// The number at the start of the line that goes on with these words.
fn number_before(said: &str, words: &str) -> Option<u64> {
    let of_line = |line: &str| line.strip_suffix(words)?.trim().parse().ok();
    said.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_at_its_end_is_read() {
        let said = "listening on any\n12 packets captured\n14 packets received by filter\n\
            2 packets dropped by kernel\n";
        assert_eq!(number_before(said, "packets captured"), Some(12));
        assert_eq!(number_before(said, "packets dropped by kernel"), Some(2));
        assert_eq!(number_before(said, "packets eaten"), None);
        assert_eq!(
            observations_lost("3 connections\n17 observations lost: so\n"),
            17
        );
    }
}
