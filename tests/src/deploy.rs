//! What is deployed: the manifests as kubectl renders them, the image's root file system as a
//! container, the agent as Prometheus sees it.
//!
//! The tools for that come by the step `deploy` of `cargo xtask test`, which names them to the
//! suites by variables.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::privilege;

pub mod cluster;
pub mod container;
pub mod image;
pub mod manifests;
pub mod prometheus;
pub mod roles;

/// A tool, or a file, that the step `deploy` brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// kubectl, for `kubectl kustomize`.
    Kubectl,
    /// Prometheus.
    Prometheus,
    /// What checks Prometheus' rules and what it scrapes.
    Promtool,
    /// The seccomp profile that a container runtime gives to whoever asks for no other.
    SeccompProfile,
}

impl Tool {
    const fn variable(self) -> &'static str {
        match self {
            Self::Kubectl => "KUBECTL",
            Self::Prometheus => "PROMETHEUS",
            Self::Promtool => "PROMTOOL",
            Self::SeccompProfile => "SECCOMP_PROFILE",
        }
    }
}

/// Where the tools are; none, and a word of it, if `test` does not run in the step that has them.
pub fn tools<const N: usize>(test: &str, tools: [Tool; N]) -> Option<[PathBuf; N]> {
    let found = tools.map(|tool| env::var_os(tool.variable()).map(PathBuf::from));
    if found.iter().any(Option::is_none) {
        privilege::elsewhere(test, "cargo xtask test deploy");
        return None;
    }
    Some(found.map(Option::unwrap_or_default))
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// A file or folder of what is deployed.
pub fn file(path: &str) -> PathBuf {
    workspace().join("deploy").join(path)
}
