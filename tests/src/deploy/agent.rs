//! An agent on a node of the lab.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    child::{ChildGuard, poll_until},
    http::{self, Answer},
    netns::Namespace,
};

/// Where it serves its API, if it is told nothing else.
pub const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9807);
/// The same of metrics.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9808);

/// How long it may take until it observes, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// An agent at work. Dropped, it is killed.
#[derive(Debug)]
pub struct Agent<'a> {
    namespace: &'a Namespace,
    child: ChildGuard,
}

impl<'a> Agent<'a> {
    /// Starts it by `command`, which runs it in `namespace`, and returns once it is ready.
    pub fn start(namespace: &'a Namespace, mut command: Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let mut agent = Self {
            namespace,
            child: ChildGuard::new(child),
        };
        let is_ready = || {
            let ready = agent.get(API, "/readyz").ok()?;
            (ready.status == 200).then_some(())
        };
        if poll_until(PATIENCE, is_ready).is_none() {
            let ended = agent.child.wait(Duration::ZERO)?;
            let ready = agent.get(API, "/readyz");
            anyhow::bail!("{command:?} is not ready (ended: {ended:?}): {ready:?}");
        }
        Ok(agent)
    }

    /// What it answers.
    pub fn get(&self, server: SocketAddr, path: &str) -> Result<Answer> {
        http::get(self.namespace, server, path, &[])
    }

    /// The connections that it remembers, oldest first.
    pub fn connections(&self) -> Result<Vec<Value>> {
        let answer = self.get(API, "/v1/connections")?;
        ensure!(answer.status == 200, "{answer:?}");
        let parse = |line| serde_json::from_str(line).with_context(|| format!("no record: {line}"));
        answer.body.lines().map(parse).collect()
    }

    /// Asks it by SIGTERM to end, as a kubelet does, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.child.signal(Signal::SIGTERM)?;
        let status = self.child.wait(PATIENCE)?;
        let status = status.context("it did not end")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}
