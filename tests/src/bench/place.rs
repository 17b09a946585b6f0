//! Where traffic is made: clients on one processor, servers on another. Left to the scheduler, where
//! they run by chance is most of what two samples differ by. Who observes runs where it likes.

use std::thread;

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::machine;

/// A processor of the two that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of clients, where the node's softirqs run, too: a veth's packets are received where
    /// they were sent (`drivers/net/veth.c`).
    Clients,
    /// That of servers.
    Servers,
}

impl Place {
    /// The calling thread, and what it starts from now on, stays there.
    pub fn stay(self) -> Result<()> {
        let processor = match self {
            Self::Clients => 0,
            Self::Servers => machine::processors()? - 1,
        };
        let mut set = CpuSet::new();
        set.set(processor)
            .with_context(|| format!("processor {processor}"))?;
        sched_setaffinity(Pid::from_raw(0), &set)
            .with_context(|| format!("failed to stay on processor {processor}"))
    }

    /// Does something there.
    pub fn run<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let there = || {
            self.stay()?;
            work()
        };
        thread::scope(|scope| scope.spawn(there).join())
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    }
}
