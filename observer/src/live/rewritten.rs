//! Connections whose source the node had rewritten before they were heard of. A proxy may speak for
//! any of them.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Protocol;
use crate::kernel::conntrack;
use crate::kernel::netfilter::NetfilterError;
use crate::observation::{Identity, Tuple};

/// What is more is not told: then no client is named by who else is not there.
const REWRITTEN_MAX: usize = 1 << 14;
/// Entries that are looked at: nothing else is observed meanwhile, and one takes a few microseconds.
const ENTRIES_MAX: usize = 1 << 16;
/// How often conntrack's table is read at most.
const AGAIN: Duration = Duration::from_mins(1);
/// The same after it could not be read, or held too much.
const AFTER_FAILURE: Duration = Duration::from_mins(30);

/// When they are to be read.
#[derive(Debug)]
pub(super) struct Rewritten {
    may_be_read: bool,
    is_asked: bool,
    /// Not before.
    not_before: Option<Instant>,
}

impl Rewritten {
    /// `may_be_read`: whether proxies' headers are read, and all that comes is seen.
    pub(super) const fn new(may_be_read: bool) -> Self {
        Self {
            may_be_read,
            is_asked: false,
            not_before: None,
        }
    }

    /// The observer asks for them.
    pub(super) const fn ask(&mut self) {
        self.is_asked = self.may_be_read;
    }

    /// Whether it is time to read them; then it is no longer.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.is_asked && self.not_before.is_none_or(|moment| now >= moment);
        if is_due {
            self.is_asked = false;
            self.not_before = Some(now + AGAIN);
        }
        is_due
    }

    /// They could not be read: to be tried again much later.
    pub(super) fn failed(&mut self) {
        self.is_asked = true;
        self.not_before = Some(Instant::now() + AFTER_FAILURE);
    }
}

/// All that conntrack holds; `None` if that cannot be read, or is too much.
pub(super) fn rewritten() -> Option<Vec<(Identity, Tuple)>> {
    let mut rewritten = Vec::new();
    let mut entries = 0..ENTRIES_MAX;
    let mut is_too_much = false;
    let read = conntrack::existing(|identity, reply, replied| {
        let is_rewritten = reply.destination.ip() != identity.original.source.ip();
        let is_asked = identity.protocol == Protocol::Tcp && replied && is_rewritten;
        is_too_much |= entries.next().is_none() || (is_asked && rewritten.len() == REWRITTEN_MAX);
        if is_too_much {
            return Ok(ControlFlow::Break(()));
        }
        if is_asked {
            rewritten.push((identity, reply));
        }
        Ok::<_, NetfilterError>(ControlFlow::Continue(()))
    });
    (read.is_ok() && !is_too_much).then_some(rewritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_are_read_when_asked_for_and_not_too_often() {
        let mut rewritten = Rewritten::new(true);
        assert!(!rewritten.is_due());
        rewritten.ask();
        assert!(rewritten.is_due() && !rewritten.is_due());
        rewritten.ask();
        assert!(!rewritten.is_due());
        tokio::time::advance(AGAIN).await;
        assert!(rewritten.is_due());
        rewritten.failed();
        rewritten.ask();
        tokio::time::advance(AGAIN).await;
        assert!(!rewritten.is_due());
        tokio::time::advance(AFTER_FAILURE).await;
        assert!(rewritten.is_due());
    }

    #[test]
    fn where_headers_are_not_read_they_are_not_either() {
        let mut rewritten = Rewritten::new(false);
        rewritten.ask();
        assert!(!rewritten.is_due());
    }
}
