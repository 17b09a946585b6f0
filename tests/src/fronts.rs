//! What people put in front of a cluster, by the real programs: `HAProxy`, nginx, and the kernel's
//! own NAT as a load balancer that keeps addresses.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    child::{ChildGuard, poll_until},
    netns::Namespace,
};

pub mod announced;
pub mod answers;
mod forwarder;
mod haproxy;
pub mod judge;
mod nginx;
mod objects;
mod predicted;
pub mod rows;
pub mod stage;
mod through;

pub use forwarder::forward;
pub use haproxy::{Haproxy, haproxy};
pub use nginx::{Listen, Server, nginx, nginx_at};

const READY: Duration = Duration::from_secs(10);

/// From where to where a front passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Where it listens.
    pub at: SocketAddr,
    /// Where it leads.
    pub to: SocketAddr,
}

/// A program at work, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    _child: ChildGuard,
    directory: TempDir,
}

impl Proxy {
    /// Starts a program that reads a configuration, in which `DIRECTORY` stands for a directory of
    /// its own; returns once it listens everywhere.
    fn start(
        namespace: &Namespace,
        listens: &[SocketAddr],
        configuration: &str,
        program: &[&str],
    ) -> Result<Self> {
        let directory = TempDir::new().context("failed to make a temporary directory")?;
        Self::start_in(directory, namespace, listens, configuration, program)
    }

    fn start_in(
        directory: TempDir,
        namespace: &Namespace,
        listens: &[SocketAddr],
        configuration: &str,
        program: &[&str],
    ) -> Result<Self> {
        let file = directory.path().join("configuration");
        let path = directory.path().to_str().context("its path is no text")?;
        fs::write(&file, configuration.replace("DIRECTORY", path))?;
        let (program, arguments) = program.split_first().context("no program")?;
        let mut command = namespace.command(program);
        command
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let child = ChildGuard::new(child);
        // It listens everywhere before it serves anyone.
        if let Some(at) = listens.first() {
            let is_there = || {
                let connected = namespace.run(|| TcpStream::connect_timeout(at, READY));
                matches!(connected, Ok(Ok(_))).then_some(())
            };
            poll_until(READY, is_there).with_context(|| {
                format!("{command:?} does not listen at {at}:\n{configuration}")
            })?;
        }
        Ok(Self {
            _child: child,
            directory,
        })
    }
}
