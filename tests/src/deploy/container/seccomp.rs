//! A container runtime's seccomp profile, as it comes out for a container's capabilities.
//!
//! The profile is that of podman and CRI-O (`containers/common`, `pkg/seccomp`), whose rules are
//! those of Docker and containerd for what matters here: bpf(2) and `perf_event_open(2)` pass if
//! the container has `CAP_BPF` and `CAP_PERFMON`.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Value,
    default_errno_ret: Value,
    arch_map: Vec<Architecture>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: Value,
    args: Option<Vec<Value>>,
    errno_ret: Option<u64>,
    #[serde(default)]
    includes: Conditions,
    #[serde(default)]
    excludes: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    caps: Vec<String>,
    arches: Vec<String>,
}

/// The filter as runc takes it: the rules for these capabilities on this machine.
pub(super) fn filter(profile: &Path, capabilities: &[String]) -> Result<Value> {
    let text = fs::read_to_string(profile)
        .with_context(|| format!("failed to read {}", profile.display()))?;
    let Profile {
        default_action,
        default_errno_ret,
        arch_map,
        syscalls,
    } = serde_json::from_str(&text).context("no seccomp profile")?;
    let machine = format!("SCMP_ARCH_{}", env::consts::ARCH.to_uppercase());
    let here = arch_map
        .into_iter()
        .find(|known| known.architecture == machine)
        .with_context(|| format!("the profile does not know {machine}"))?;
    let architectures = [here.architecture]
        .into_iter()
        .chain(here.sub_architectures.into_iter().flatten());
    let rules = syscalls
        .into_iter()
        .filter(|rule| rule.is_for(capabilities))
        .map(Rule::told);
    Ok(json!({
        "defaultAction": default_action,
        "defaultErrnoRet": default_errno_ret,
        "architectures": architectures.collect::<Vec<_>>(),
        "syscalls": rules.collect::<Vec<_>>(),
    }))
}

impl Rule {
    /// All that it includes must be there, nothing that it excludes (`setupSeccomp`).
    fn is_for(&self, capabilities: &[String]) -> bool {
        // As the profile calls this machine.
        let arch = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let has = |name: &String| capabilities.contains(name);
        let is_here = |name: &String| name == arch;
        self.includes.caps.iter().all(has)
            && !self.excludes.caps.iter().any(has)
            && (self.includes.arches.is_empty() || self.includes.arches.iter().any(is_here))
            && !self.excludes.arches.iter().any(is_here)
    }

    fn told(self) -> Value {
        let mut told = json!({"names": self.names, "action": self.action});
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            told["args"] = args.into();
        }
        if let Some(errno) = self.errno_ret {
            told["errnoRet"] = errno.into();
        }
        told
    }
}
