//! A container of the daemon set, run by runc as a container runtime of Kubernetes would have it
//! run: the root file system, what the manifest says of privileges, mounts and resources, and the
//! runtime's own defaults for the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Capabilities, Container as Spec, PodSpec};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::manifests::Manifests;
use crate::{command, netns::Namespace};

mod seccomp;

/// What the container's network is: that of a node, as `hostNetwork` has it.
const NAMESPACES: [&str; 4] = ["pid", "mount", "ipc", "uts"];

/// What runtimes hide of /proc and /sys, and what they let nobody write (containerd,
/// `pkg/oci/spec.go`, `populateDefaultUnixSpec`).
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// How a container is run beside what its manifest says.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// The image's root file system.
    pub root: &'a Path,
    /// The runtime's seccomp profile.
    pub seccomp_profile: &'a Path,
    /// The name of the node.
    pub node: &'a str,
    /// Its network.
    pub namespace: &'a Namespace,
    /// Files and folders of the machine, and where they are seen inside, read only.
    pub shown: Vec<(PathBuf, PathBuf)>,
    /// Arguments in place of the manifest's command and arguments.
    pub instead: Option<Vec<String>>,
    /// Arguments after the manifest's.
    pub more: Vec<String>,
    /// More of its environment.
    pub environment: Vec<String>,
    /// A capability that the manifest adds and this container has not.
    pub without: Option<&'a str>,
}

/// A container that runs, or ran. Dropped, it is killed and removed.
#[derive(Debug)]
pub struct Container {
    name: String,
    /// What runc reads (the bundle), what it remembers, and the volumes.
    folder: TempDir,
}

impl Container {
    /// Prepares a container of the daemon set in `manifests`.
    pub fn new(manifests: &Manifests, setup: &Setup<'_>) -> Result<Self> {
        let folder = TempDir::new().context("failed to make a directory")?;
        let config = config(manifests, setup, folder.path())?;
        fs::write(folder.path().join("config.json"), config.to_string())
            .context("failed to write the container's configuration")?;
        let name = folder.path().file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        Ok(Self {
            // runc takes no dot at the beginning.
            name: format!("sipo{name}"),
            folder,
        })
    }

    /// `runc run`, which ends with the container and as it does, and hands on its signals.
    pub fn command(&self) -> Command {
        let mut command = self.runc();
        command
            .arg("run")
            .arg("--bundle")
            .arg(self.folder.path())
            .arg(&self.name);
        command
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.path().join("runc"));
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // One that ended is removed already.
        let _gone = command::run(self.runc().args(["delete", "--force", &self.name]));
    }
}

/// The configuration, by the OCI runtime specification.
fn config(manifests: &Manifests, setup: &Setup<'_>, folder: &Path) -> Result<Value> {
    let pod = manifests.pod()?;
    let spec = manifests.container()?;
    let security = spec.security_context.clone().unwrap_or_default();
    let privileged = security.privileged == Some(true);
    let mut capabilities = if privileged {
        every_capability()?
    } else {
        capabilities(security.capabilities.as_ref())?
    };
    if let Some(without) = setup.without {
        let before = capabilities.len();
        capabilities.retain(|capability| capability != without);
        anyhow::ensure!(capabilities.len() < before, "it has no {without} anyway");
    }
    let seccomp = if privileged {
        Value::Null
    } else {
        runtime_default(pod)?;
        seccomp::filter(setup.seccomp_profile, &capabilities)?
    };
    let namespaces = NAMESPACES.iter().map(|kind| json!({"type": kind}));
    let network =
        json!({"type": "network", "path": format!("/run/netns/{}", setup.namespace.name())});
    let hidden = |paths: &[&str]| if privileged { json!([]) } else { json!(paths) };
    Ok(json!({
        "ociVersion": "1.0.0",
        "hostname": setup.node,
        "root": {
            "path": setup.root,
            "readonly": security.read_only_root_filesystem == Some(true),
        },
        "process": {
            "user": {"uid": security.run_as_user.unwrap_or(0), "gid": 0},
            "args": arguments(spec, setup)?,
            "env": environment(spec, setup)?,
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": security.allow_privilege_escalation == Some(false),
        },
        "mounts": mounts(pod, spec, setup, folder)?,
        "linux": {
            "namespaces": namespaces.chain([network]).collect::<Vec<_>>(),
            "resources": {"memory": {"limit": memory_limit(spec)?}},
            "cgroupsPath": folder.file_name().unwrap_or_default().to_string_lossy(),
            "seccomp": seccomp,
            "maskedPaths": hidden(&MASKED),
            "readonlyPaths": hidden(&READ_ONLY),
        },
    }))
}

/// Those that the manifest leaves: it must drop all, so that nothing depends on the runtime.
fn capabilities(given: Option<&Capabilities>) -> Result<Vec<String>> {
    let given = given.context("the manifest says nothing of capabilities")?;
    if given.drop.as_deref() != Some(&["ALL".to_owned()]) {
        bail!("the manifest drops {:?}, not ALL", given.drop);
    }
    let added = given.add.iter().flatten();
    Ok(added.map(|name| format!("CAP_{name}")).collect())
}

/// All that this process has itself: no runtime can give more.
fn every_capability() -> Result<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status").context("failed to read our status")?;
    let held = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let held = u64::from_str_radix(held.unwrap_or_default().trim(), 16)
        .context("/proc/self/status tells no capabilities")?;
    // In the order of their numbers.
    let names = command::run(Command::new("setpriv").arg("--list-caps"))?;
    let held = names
        .split_whitespace()
        .enumerate()
        .filter(|(number, _)| held & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{}", name.to_uppercase()));
    Ok(held.collect())
}

fn runtime_default(pod: &PodSpec) -> Result<()> {
    let profile = pod
        .security_context
        .as_ref()
        .and_then(|security| security.seccomp_profile.as_ref())
        .context("the manifest asks for no seccomp profile")?;
    match &*profile.type_ {
        "RuntimeDefault" => Ok(()),
        other => bail!("the manifest asks for the seccomp profile {other}"),
    }
}

fn arguments(spec: &Spec, setup: &Setup<'_>) -> Result<Vec<String>> {
    if let Some(instead) = &setup.instead {
        return Ok(instead.clone());
    }
    let given = spec
        .command
        .iter()
        .flatten()
        .chain(spec.args.iter().flatten());
    given
        .map(|argument| expanded(argument, spec, setup))
        .chain(setup.more.iter().cloned().map(Ok))
        .collect()
}

/// An argument with the variables in it that the manifest sets: `$(NAME)`.
fn expanded(argument: &str, spec: &Spec, setup: &Setup<'_>) -> Result<String> {
    let mut expanded = argument.to_owned();
    for variable in spec.env.iter().flatten() {
        let reference = format!("$({})", variable.name);
        if expanded.contains(&reference) {
            expanded = expanded.replace(&reference, &value(variable, setup)?);
        }
    }
    Ok(expanded)
}

fn environment(spec: &Spec, setup: &Setup<'_>) -> Result<Vec<String>> {
    let given = spec.env.iter().flatten();
    let mut environment = given
        .map(|variable| Ok(format!("{}={}", variable.name, value(variable, setup)?)))
        .collect::<Result<Vec<_>>>()?;
    environment.push("PATH=/usr/bin".to_owned());
    environment.extend(setup.environment.iter().cloned());
    Ok(environment)
}

fn value(variable: &k8s_openapi::api::core::v1::EnvVar, setup: &Setup<'_>) -> Result<String> {
    if let Some(value) = &variable.value {
        return Ok(value.clone());
    }
    let source = variable.value_from.as_ref();
    let field = source.and_then(|source| source.field_ref.as_ref());
    match field.map(|field| &*field.field_path) {
        Some("spec.nodeName") => Ok(setup.node.to_owned()),
        // All that asks for it in a test is asked from within the node.
        Some("status.hostIP") => Ok("127.0.0.1".to_owned()),
        other => bail!("{} comes from {other:?}", variable.name),
    }
}

fn mounts(pod: &PodSpec, spec: &Spec, setup: &Setup<'_>, folder: &Path) -> Result<Vec<Value>> {
    let system = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": system}),
        json!({
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }),
        json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        }),
    ];
    for mount in spec.volume_mounts.iter().flatten() {
        let mut volumes = pod.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name);
        let volume = volume.with_context(|| format!("there is no volume {}", mount.name))?;
        if volume.empty_dir.is_none() {
            bail!("the volume {} is no emptyDir", mount.name);
        }
        let source = folder.join("volumes").join(&mount.name);
        fs::create_dir_all(&source).context("failed to make a volume")?;
        mounts.push(json!({
            "destination": mount.mount_path, "type": "bind", "source": source,
            "options": ["rbind", "rw"],
        }));
    }
    for (source, destination) in &setup.shown {
        mounts.push(json!({
            "destination": destination, "type": "bind", "source": source,
            "options": ["rbind", "ro"],
        }));
    }
    Ok(mounts)
}

/// In bytes.
fn memory_limit(spec: &Spec) -> Result<u64> {
    let limits = spec.resources.as_ref().and_then(|all| all.limits.as_ref());
    let limit = limits.and_then(|limits| limits.get("memory"));
    let limit = limit.context("the manifest limits no memory")?;
    let mebibytes = limit.0.strip_suffix("Mi").context("a limit in Mi")?;
    let mebibytes: u64 = mebibytes.parse().context("a limit in Mi")?;
    Ok(mebibytes << 20)
}
