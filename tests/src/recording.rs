//! The recordings of a real kube-proxy, which belong to the developers' tree and not to a
//! user's.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnet::IpNet;

use crate::{
    cluster::Cluster,
    kubeproxy::{Mode, Settings},
    privilege,
};

/// Where the recordings are; without them `test` is skipped, aloud.
pub fn captures(test: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if directory.is_dir() {
        return Some(directory);
    }
    let why = format!("there are no recordings at {}", directory.display());
    privilege::skipped(test, &why);
    None
}

/// The objects of the recorded cluster.
pub fn objects(captures: &Path) -> PathBuf {
    captures.join("objects.json")
}

/// The recorded cluster, with the `ServiceCIDR`s that its recorded rules speak of and its
/// recorded objects lack.
pub fn cluster(captures: &Path) -> Result<Cluster> {
    let mut cluster = Cluster::read(&objects(captures))?;
    cluster
        .service_cidrs
        .extend(["10.96.0.0/16", "fd00:96::/112"].map(range));
    Ok(cluster)
}

/// The settings of the recorded kube-proxy; its IPv6 cluster CIDR is as wrong as it was there.
pub fn settings(mode: Mode) -> Settings {
    Settings {
        cluster_cidrs: ["10.244.0.0/16", "fd00:244::/48"].map(range).to_vec(),
        ..Settings::of(mode)
    }
}

fn range(text: &str) -> IpNet {
    text.parse().expect("a literal range")
}
