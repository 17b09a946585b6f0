//! The cluster's objects from its API server, followed as they change.

use std::sync::Arc;
use std::time::Instant;

use crate::cluster::Snapshot;

/// The cluster, as far as its API server has told of it.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Everything, once every kind was listed.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Since when the API is not heard; `None` while it is.
    pub away_since: Option<Instant>,
    /// What is wrong with it, in one line.
    pub trouble: Option<String>,
    /// How many snapshots there were.
    pub rebuilds: u64,
}
