//! Processes that end with their owner.

use std::{
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often a wait looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A child process that is killed and waited for when it is dropped.
#[derive(Debug)]
pub struct ChildGuard(Child);

impl ChildGuard {
    /// Takes charge of a child.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal; one that has ended already needs none.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // A child that was waited for may have left its number to someone else.
        if self
            .0
            .try_wait()
            .context("failed to ask for a child's state")?
            .is_some()
        {
            return Ok(());
        }
        let pid = i32::try_from(self.0.id()).context("a process id is too large")?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("failed to send {signal} to {pid}"))
    }

    /// Waits for its end, at most for `timeout`; none if it still runs then.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let child = &mut self.0;
        let mut failed = None;
        let ended = poll_until(timeout, || match child.try_wait() {
            Ok(status) => status,
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        match failed {
            Some(error) if ended.is_none() => Err(error).context("failed to wait for a child"),
            _ => Ok(ended),
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ended_already = self.0.kill();
        let _waited_already = self.0.wait();
    }
}

/// Asks again and again until there is an answer or the time is over.
pub fn poll_until<T>(timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let child = ChildGuard::new(Command::new("sleep").arg("60").spawn().expect("sleeps"));
        let process = format!("/proc/{}", child.id());
        assert!(Path::new(&process).exists());
        drop(child);
        assert!(!Path::new(&process).exists());
    }

    #[test]
    fn a_wait_ends_with_its_time_or_with_the_child() {
        let mut child = ChildGuard::new(Command::new("sleep").arg("60").spawn().expect("sleeps"));
        assert_eq!(child.wait(Duration::from_millis(20)).expect("waits"), None);
        child.signal(Signal::SIGINT).expect("signals");
        let status = child
            .wait(Duration::from_secs(5))
            .expect("waits")
            .expect("ended");
        assert!(!status.success());
        child
            .signal(Signal::SIGINT)
            .expect("one that ended needs no signal");
    }
}
