//! What a whole observer costs, fed through its own ring buffer: `-- --absorb` (root).

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::libc;
use serde_json::{Value, json};

use crate::cluster;
use crate::feed::Feed;
use crate::wire::Answered;

/// Connections a second.
const RATES: [u32; 4] = [1_000, 10_000, 50_000, 100_000];
const SECONDS: u32 = 4;
/// What the flow keeps at most.
const TRACKED: u32 = 100_000;
const SERVICES: usize = 1_000;
/// So often connections are made.
const GRAIN: Duration = Duration::from_millis(1);
/// Until what was fed has come out.
const SOON: Duration = Duration::from_millis(1_500);
const API: &str = "127.0.0.1:9807";
const READY: &str = "observing";

/// Only what is resident while connections wait: `-- --tracked`.
pub(crate) fn only_tracked() -> anyhow::Result<Value> {
    let objects = tempfile::NamedTempFile::new()?;
    fs::write(objects.path(), cluster::list(SERVICES).to_string())?;
    tracked(&binary(), objects.path())
}

/// The observer that is tried.
fn binary() -> PathBuf {
    env::var_os("OBSERVER_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/observer"),
        PathBuf::from,
    )
}

/// Each rate, through `trace` and through an `agent` with one who follows.
pub(crate) fn absorb() -> anyhow::Result<Value> {
    let objects = tempfile::NamedTempFile::new()?;
    fs::write(objects.path(), cluster::list(SERVICES).to_string())?;
    let observer = binary();
    let trace: anyhow::Result<Vec<_>> = RATES
        .iter()
        .map(|rate| trace(&observer, objects.path(), *rate))
        .collect();
    let agent: anyhow::Result<Vec<_>> = RATES
        .iter()
        .map(|rate| agent(&observer, objects.path(), *rate))
        .collect();
    Ok(json!({
        "trace": trace?,
        "agent": agent?,
        "tracked": tracked(&observer, objects.path())?,
    }))
}

/// An observer of the loopback device of a network namespace of its own; killed when dropped.
struct Observed(Child);

impl Drop for Observed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Observed {
    fn start(observer: &Path, objects: &Path, arguments: &[&str]) -> anyhow::Result<(Self, Said)> {
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c"])
            .arg("ip link set lo up && exec \"$0\" \"$@\"")
            .arg(observer)
            .args(arguments)
            .args(["--node", "node1", "--interface", "lo", "--cluster-state"])
            .arg(objects)
            .stdin(Stdio::null())
            .stdout(File::create("/dev/null")?)
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare cannot be started")?;
        let mut said = BufReader::new(child.stderr.take().context("stderr is a pipe")?);
        let process = Self(child);
        let mut text = String::new();
        while !text.lines().any(|line| line.starts_with(READY)) {
            if said.read_line(&mut text)? == 0 {
                bail!("the observer does not observe; it said:\n{text}");
            }
        }
        Ok((process, said))
    }

    /// What its threads ran for so far, in nanoseconds (proc(5), `/proc/pid/task/tid/schedstat`).
    fn spent_ns(&self) -> anyhow::Result<u64> {
        let mut spent = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().unwrap_or_default();
            spent += first.parse::<u64>()?;
        }
        Ok(spent)
    }

    fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kibibytes.context("there is no VmRSS")? << 10)
    }

    fn end(mut self, mut said: Said) -> anyhow::Result<String> {
        let id = self.0.id().to_string();
        let killed = Command::new("kill").arg(&id).status()?;
        if !killed.success() {
            bail!("the observer cannot be ended");
        }
        let mut text = String::new();
        said.read_to_string(&mut text)?;
        self.0.wait()?;
        Ok(text)
    }
}

type Said = BufReader<std::process::ChildStderr>;

/// What was fed, and what that took.
struct Fed {
    connections: u32,
    refused: u32,
    took: Duration,
    spent_ns: u64,
    rest_bytes: u64,
    resident_bytes: u64,
}

/// Feeds an observer at this rate, until all of it has come out.
fn feed(process: &Observed, rate: u32) -> anyhow::Result<Fed> {
    let mut feed = Feed::into(process.0.id(), SERVICES, Answered::Yes)?;
    // What is done once is not counted.
    feed.connections(100)?;
    thread::sleep(SOON);
    let rest_bytes = process.resident_bytes()?;
    let before = process.spent_ns()?;
    let start = Instant::now();
    let all = rate * SECONDS;
    let (mut connections, mut refused) = (0, 0);
    while connections < all {
        let elapsed = start.elapsed().as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of a few seconds is small and positive"
        )]
        let due = ((elapsed * f64::from(rate)) as u32).min(all);
        refused += feed.connections(due - connections)?;
        connections = due;
        thread::sleep(GRAIN);
    }
    let took = start.elapsed();
    let resident_bytes = process.resident_bytes()?;
    thread::sleep(SOON);
    Ok(Fed {
        connections,
        refused,
        took,
        spent_ns: process.spent_ns()? - before,
        rest_bytes,
        resident_bytes,
    })
}

impl Fed {
    fn told(&self, told: u64) -> Value {
        let spent_us = f64::from(u32::try_from(self.spent_ns / 1_000).unwrap_or(u32::MAX));
        let rounded = |figure: f64| (figure * 100.0).round() / 100.0;
        json!({
            "rate": (f64::from(self.connections) / self.took.as_secs_f64()).round(),
            "connections": self.connections,
            "told": told,
            "observations_refused": self.refused,
            "cpu_us_each": rounded(spent_us / f64::from(u32::try_from(told).unwrap_or(u32::MAX))),
            "cpu_share": rounded(spent_us / 1e6 / self.took.as_secs_f64()),
            "rest_bytes": self.rest_bytes,
            "resident_bytes": self.resident_bytes,
        })
    }
}

/// What is resident while as many connections wait as are tracked, and after all were told.
fn tracked(observer: &Path, objects: &Path) -> anyhow::Result<Value> {
    let arguments = ["trace", "-o", "json", "--answer-timeout", "6s"];
    let (process, said) = Observed::start(observer, objects, &arguments)?;
    let rest = process.resident_bytes()?;
    let mut feed = Feed::into(process.0.id(), SERVICES, Answered::No)?;
    let mut refused = 0;
    for _ in 0..TRACKED / 1_000 {
        refused += feed.connections(1_000)?;
        thread::sleep(20 * GRAIN);
    }
    thread::sleep(SOON);
    let tracked = process.resident_bytes()?;
    thread::sleep(Duration::from_secs(8));
    let after = process.resident_bytes()?;
    process.end(said)?;
    Ok(json!({
        "connections": TRACKED - refused,
        "rest_bytes": rest,
        "resident_bytes": tracked,
        "after_bytes": after,
    }))
}

/// Connections made before those that count.
const FIRST: u64 = 100;

fn trace(observer: &Path, objects: &Path, rate: u32) -> anyhow::Result<Value> {
    let (process, said) = Observed::start(observer, objects, &["trace", "-o", "json"])?;
    let fed = feed(&process, rate)?;
    let said = process.end(said)?;
    let mut lines = said.lines();
    let told = lines.find_map(|line| {
        let (number, _) = line.split_once(" connections: ")?;
        number.parse::<u64>().ok()
    });
    Ok(fed.told(told.context("there is no summary")?.saturating_sub(FIRST)))
}

fn agent(observer: &Path, objects: &Path, rate: u32) -> anyhow::Result<Value> {
    let (process, said) = Observed::start(observer, objects, &["agent"])?;
    let told = Arc::new(AtomicU64::new(0));
    let follower = follow(&process, Arc::clone(&told))?;
    let fed = feed(&process, rate)?;
    process.end(said)?;
    if follower.join().is_err() {
        bail!("the follower died");
    }
    Ok(fed.told(told.load(Ordering::Relaxed).saturating_sub(FIRST)))
}

/// Counts the records that an agent tells.
fn follow(process: &Observed, told: Arc<AtomicU64>) -> anyhow::Result<thread::JoinHandle<()>> {
    let namespace = File::open(format!("/proc/{}/ns/net", process.0.id()))?;
    let connect = move || -> anyhow::Result<TcpStream> {
        enter(&namespace)?;
        let mut stream = TcpStream::connect(API)?;
        stream.write_all(b"GET /v1/connections?follow=1 HTTP/1.0\r\n\r\n")?;
        Ok(stream)
    };
    // Only this thread is there.
    let stream = thread::spawn(connect).join();
    let Ok(stream) = stream else {
        bail!("the thread that connects died");
    };
    let mut stream = stream?;
    // The answer's head: from now on it follows.
    let mut bytes = vec![0; 1 << 16];
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut bytes)?;
        head.extend_from_slice(&bytes[..read]);
    }
    Ok(thread::spawn(move || {
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            // An empty line is a sign of life.
            let ends = bytes[..read].windows(2).filter(|two| *two == b"}\n");
            told.fetch_add(ends.count() as u64, Ordering::Relaxed);
        }
    }))
}

/// Puts this thread into a network namespace.
#[expect(unsafe_code, reason = "setns(2)")]
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: takes numbers only; the descriptor is open.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
