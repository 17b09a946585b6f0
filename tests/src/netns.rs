//! Network namespaces that end with their owner.
//!
//! Each is named `sipo-<pid>-<n>-<role>` after the process that made it, so two labs never
//! meet, and a sweep can tell what a dead process left behind. A namespace goes away
//!
//! - when its [`Namespace`] is dropped, also while a panic unwinds;
//! - on Ctrl-C, SIGTERM and SIGHUP, by a handler installed with the first namespace;
//! - after SIGKILL, by [`sweep`], which the next start runs.
//!
//! Deleting a namespace deletes its interfaces, rules and attached programs, so nothing else
//! needs to be undone.

use std::{
    collections::BTreeSet,
    fs::File,
    net::IpAddr,
    panic,
    path::Path,
    process::Command,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
};

use crate::command;

mod cleanup;

pub use cleanup::sweep;

/// What every name begins with.
const PREFIX: &str = "sipo";
/// Where `ip netns` keeps the names.
const DIRECTORY: &str = "/run/netns";

/// The namespaces of this process that still exist, for the Ctrl-C handler.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A network namespace of this process.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up. `role` is what people will read: `client`,
    /// `node-node1`, `pod-web-0`.
    pub fn create(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static PREPARE: Once = Once::new();
        PREPARE.call_once(cleanup::install);

        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{role}", std::process::id());
        // Registered first: a Ctrl-C in between finds a name too many rather than one too few.
        live().insert(name.clone());
        let namespace = Self { name };
        command::run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside, in a thread of its own, and returns what it returned. A panic in
    /// `work` is a panic here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(&self.name, work)
    }

    /// Starts a thread that lives inside. `prepare` runs there first and its error comes back;
    /// then the thread goes on with what `prepare` returned.
    pub fn spawn<P, W>(&self, prepare: P) -> Result<JoinHandle<()>>
    where
        P: FnOnce() -> Result<W> + Send + 'static,
        W: FnOnce() + 'static,
    {
        let (ready, when_ready) = std::sync::mpsc::channel();
        let here = Self::handle(&self.name)?;
        let thread = thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let prepared = enter(&here).and_then(|()| prepare());
                match prepared {
                    Ok(work) => {
                        let _starter_gave_up = ready.send(Ok(()));
                        work();
                    }
                    Err(error) => {
                        let _starter_gave_up = ready.send(Err(error));
                    }
                }
            })
            .with_context(|| format!("failed to start a thread for the namespace {}", self.name))?;
        when_ready.recv().with_context(|| {
            format!(
                "the thread in the namespace {} died at its start",
                self.name
            )
        })??;
        Ok(thread)
    }

    /// A command that will run inside, with a `/sys` that belongs to the namespace. `ip` only
    /// enters and then becomes the program, so the child's pid is the program's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs lines of `ip` commands inside, as one batch.
    pub fn ip(&self, lines: &str) -> Result<()> {
        command::run_with_input(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        )?;
        Ok(())
    }

    /// The addresses that an interface inside has, without those of the link alone.
    pub fn addresses(&self, interface: &str) -> Result<Vec<IpAddr>> {
        self.run(|| {
            let all = getifaddrs().context("failed to ask for the addresses of interfaces")?;
            let of_interface = all.filter(|entry| entry.interface_name == interface);
            let addresses = of_interface.filter_map(|entry| entry.address);
            let addresses = addresses.filter_map(|address| {
                let v4 = address
                    .as_sockaddr_in()
                    .map(|address| IpAddr::V4(address.ip()));
                let v6 = address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()));
                v4.or(v6)
            });
            let is_of_the_link =
                |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            Ok(addresses
                .filter(|address| !is_of_the_link(address))
                .collect())
        })?
    }

    /// Sets kernel parameters of the namespace: pairs of a path below `/proc/sys/net` and a value.
    pub fn set_parameters<P: AsRef<str>>(&self, parameters: &[(P, &str)]) -> Result<()> {
        let parameters: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(path, value)| (path.as_ref(), *value))
            .collect();
        self.run(|| {
            for (path, value) in parameters {
                let path = Path::new("/proc/sys/net").join(path);
                std::fs::write(&path, value)
                    .with_context(|| format!("failed to write {value} to {}", path.display()))?;
            }
            Ok(())
        })?
    }

    fn handle(name: &str) -> Result<File> {
        let path = Path::new(DIRECTORY).join(name);
        File::open(&path)
            .with_context(|| format!("failed to open the network namespace {}", path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = cleanup::delete(&self.name);
        live().remove(&self.name);
        match deleted {
            Err(error) if !thread::panicking() => panic!("failed to clean up: {error:#}"),
            // A second panic would abort and leave the other namespaces behind; the sweep of
            // the next start takes this one.
            Err(_) | Ok(()) => {}
        }
    }
}

/// The same as [`Namespace::run`], for one who only knows the name.
pub fn run_in<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let here = Namespace::handle(name)?;
    // The thread ends with the work, because a thread that once moved must never serve anyone
    // who believes to be in the namespace of the process.
    thread::scope(|scope| {
        scope
            .spawn(|| {
                enter(&here)?;
                Ok(work())
            })
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// Moves the calling thread into a namespace.
fn enter(namespace: &File) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("failed to enter the network namespace")
}

/// The set of live namespaces; a panic elsewhere cannot have left it half changed.
fn live() -> MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
