//! Whose first bytes the programs are asked for.

use observer_ebpf::SOURCES_MAX;

use crate::cluster::{LocalAddresses, Protocol, Snapshot};
use crate::kernel::programs::{FirstBytes, Ports};
use crate::notice::say;
use crate::observe::{Asking, Sources};

/// What the programs are told, and what they have no room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) first_bytes: FirstBytes,
    /// Sources of which they are not told.
    pub(super) left_out: usize,
}

impl Asked {
    /// The connections to front doors, and to what they lead to.
    pub(super) fn of(
        asking: &Asking,
        cluster: Option<&Snapshot>,
        all: bool,
        local: &LocalAddresses,
    ) -> Self {
        let index = cluster.map(|cluster| &cluster.index);
        let ports = match index {
            Some(index) if !all => Ports::Only(index.ports(Protocol::Tcp)),
            _ => Ports::All,
        };
        let Sources { asked, left_out } = Sources::of(asking, index, local);
        Self {
            first_bytes: FirstBytes {
                ports,
                sources: asked,
            },
            left_out: left_out.len(),
        }
    }

    /// Tells how many are left out, if that is not told already.
    pub(super) fn tell(&self, told: usize) {
        let Self { left_out, .. } = self;
        if *left_out > 0 && *left_out != told {
            say(&format!(
                "warning: the programs have room for {SOURCES_MAX} sources of clients' first bytes: \
                 {left_out} more are not asked, pods first, then other nodes; trust a network \
                 instead (--trusted-proxies)"
            ));
        }
    }
}
