//! Connections whose source the node had rewritten before they were heard of. A proxy may speak for
//! any of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Protocol;
use crate::kernel::conntrack;
use crate::kernel::netfilter::NetfilterError;
use crate::observation::{Identity, Tuple};

/// What is more is not told: then no client is named by who else is not there.
const REWRITTEN_MAX: usize = 1 << 14;
/// How often conntrack's whole table is read at most.
const AGAIN: Duration = Duration::from_mins(1);

/// When they are to be read.
#[derive(Debug)]
pub(super) struct Rewritten {
    is_due: bool,
    read_at: Option<Instant>,
}

impl Rewritten {
    /// `is_asked`: whether proxies' headers are read.
    pub(super) const fn new(is_asked: bool) -> Self {
        Self {
            is_due: is_asked,
            read_at: None,
        }
    }

    /// Some may have come unnoticed.
    pub(super) const fn lost(&mut self) {
        // Who never read them need not.
        self.is_due = self.read_at.is_some();
    }

    /// Whether it is time to read them; then it is no longer.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.is_due
            && self
                .read_at
                .is_none_or(|at| now.duration_since(at) >= AGAIN);
        if is_due {
            self.is_due = false;
            self.read_at = Some(now);
        }
        is_due
    }
}

/// All that conntrack holds; `None` if that cannot be read, or is too much.
pub(super) fn rewritten() -> Option<Vec<(Identity, Tuple)>> {
    let mut rewritten = Vec::new();
    let mut number: usize = 0;
    let read = conntrack::existing(|identity, reply, replied| {
        let is_rewritten = reply.destination.ip() != identity.original.source.ip();
        if identity.protocol == Protocol::Tcp && replied && is_rewritten {
            number += 1;
            if number <= REWRITTEN_MAX {
                rewritten.push((identity, reply));
            }
        }
        Ok::<_, NetfilterError>(())
    });
    (read.is_ok() && number <= REWRITTEN_MAX).then_some(rewritten)
}
