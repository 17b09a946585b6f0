//! What people put in front of a cluster, by the real programs: `HAProxy`, nginx, and the kernel's
//! own NAT as a load balancer that keeps addresses.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
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
mod logged;
mod nginx;
mod objects;
mod predicted;
pub mod rows;
pub mod stage;
mod through;

pub use forwarder::forward;
pub use haproxy::{Haproxy, haproxy};
pub use logged::Logged;
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
    /// its own; returns once it listens everywhere. What it prints is in the file `log` there.
    fn start(
        namespace: &Namespace,
        listens: &[SocketAddr],
        configuration: &str,
        program: &[&str],
    ) -> Result<Self> {
        let directory = TempDir::new().context("failed to make a temporary directory")?;
        Self::start_in(directory, namespace, listens, configuration, program)
    }

    /// `HAProxy` with what its defaults and its proxies have; returns once it listens. It logs each
    /// connection as [`Logged`]: whom it saw, and its own end of the other side.
    pub fn haproxy(namespace: &Namespace, listens: &[SocketAddr], proxies: &str) -> Result<Self> {
        let configuration = format!(
            "global\n  maxconn 1000\n  log stdout format raw local0\n\
             defaults\n  log global\n  timeout connect 2s\n  timeout client 9s\n  \
             timeout server 9s\n  log-format \"told [%ci]:%cp [%bi]:%bp\"\n{proxies}"
        );
        Self::start(namespace, listens, &configuration, &haproxy::PROGRAM)
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
        let log = File::create(directory.path().join("log"))?;
        let (program, arguments) = program.split_first().context("no program")?;
        let mut command = namespace.command(program);
        command
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log);
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
