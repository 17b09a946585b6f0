//! What the kernel and the node say of themselves, in files below `/proc`, `/sys` and `/etc`.
//!
//! Nothing here fails: what cannot be read is `None`. Most of it can be read without privilege.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, SchedClassifier, loaded_programs};
use nix::sys::utsname::uname;
use serde::Serialize;

/// Where a process that owns the whole machine's users says so.
const ALL_USERS: &str = "0 0 4294967295";
/// Kernel settings that bear on what is seen; for a bug report.
const SETTINGS: [&str; 12] = [
    "kernel/unprivileged_bpf_disabled",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/bpf_jit_enable",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_default_ttl",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_loose",
];

/// The kernel, and where this process stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// `PRETTY_NAME` of os-release.
    pub distribution: Option<String>,
    /// Whether this process's users are the machine's own: no capability of another user
    /// namespace counts for BPF.
    pub in_first_user_namespace: Option<bool>,
    /// The lockdown in force: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// How many entries conntrack holds.
    pub conntrack_count: Option<u64>,
    /// How many it can hold; 0 is no limit. `None` if it is not there.
    pub conntrack_max: Option<u64>,
    /// Other settings, by their paths below `/proc/sys`.
    pub settings: BTreeMap<&'static str, String>,
}

impl Environment {
    /// Reads that of this process.
    pub fn read() -> Self {
        let of_uname = |text: &OsStr| text.to_string_lossy().into_owned();
        let (release, machine) = uname().map_or_else(
            |_not_told| Default::default(),
            |uname| (of_uname(uname.release()), of_uname(uname.machine())),
        );
        Self {
            release,
            machine,
            ..Self::below(Path::new("/"))
        }
    }

    /// What the files below `root` say.
    fn below(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let setting = |path: &str| Some(text(&format!("proc/sys/{path}"))?.trim().to_owned());
        let number = |path: &str| setting(path)?.parse().ok();
        Self {
            release: String::new(),
            machine: String::new(),
            distribution: text("etc/os-release").and_then(|text| pretty_name(&text)),
            in_first_user_namespace: text("proc/self/uid_map").map(|map| {
                let columns: Vec<_> = map.split_whitespace().collect();
                columns.join(" ") == ALL_USERS
            }),
            lockdown: text("sys/kernel/security/lockdown").and_then(|text| in_force(&text)),
            conntrack_count: number("net/netfilter/nf_conntrack_count"),
            conntrack_max: number("net/netfilter/nf_conntrack_max"),
            settings: SETTINGS
                .into_iter()
                .filter_map(|path| Some((path, setting(path)?)))
                .collect(),
        }
    }

    /// The kernel's version; `None` if its release does not begin with one.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// Whether the kernel has a function of this name, built in or of a module that is loaded; `None`
/// if it does not list them (`CONFIG_KALLSYMS`). To be asked before a question over netlink that
/// would load the module.
pub fn has_function(name: &str) -> Option<bool> {
    // Address, type, name, and the module in brackets; some ten megabytes.
    let symbols = BufReader::new(File::open("/proc/kallsyms").ok()?);
    for line in symbols.lines() {
        if line.ok()?.split_ascii_whitespace().nth(2) == Some(name) {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether programs can be attached by TCX: asks which are on the loopback device, which changes
/// nothing. Needs `CAP_NET_ADMIN`.
pub fn has_tcx() -> Result<bool, ProgramError> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        // Before 6.6, or without CONFIG_NET_XGRESS, there is no such attach type.
        Err(ProgramError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::InvalidInput =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The names of all BPF programs in the kernel, of whoever. Needs `CAP_SYS_ADMIN`.
pub fn programs() -> Result<Vec<String>, ProgramError> {
    let mut names = Vec::new();
    for program in loaded_programs() {
        match program {
            Ok(program) => names.extend(program.name_as_str().map(str::to_owned)),
            // One that went while this looked.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// `PRETTY_NAME="Debian GNU/Linux 13 (trixie)"`.
fn pretty_name(os_release: &str) -> Option<String> {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The word in brackets: `none [integrity] confidentiality`.
fn in_force(words: &str) -> Option<String> {
    let (_, rest) = words.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_a_version() {
        let version = |release: &str| {
            Environment {
                release: release.to_owned(),
                ..Environment::default()
            }
            .version()
        };
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn files_are_read_and_missing_ones_are_none() {
        let root = tempfile::TempDir::new().expect("a directory");
        for (path, text) in [
            ("etc/os-release", "ID=x\nPRETTY_NAME=\"Some Linux 1\"\n"),
            ("proc/self/uid_map", "         0       1000          1\n"),
            (
                "sys/kernel/security/lockdown",
                "none [integrity] confidentiality\n",
            ),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let expected = Environment {
            distribution: Some("Some Linux 1".to_owned()),
            in_first_user_namespace: Some(false),
            lockdown: Some("integrity".to_owned()),
            conntrack_max: Some(65536),
            settings: BTreeMap::from([("net/ipv4/ip_forward", "1".to_owned())]),
            ..Environment::default()
        };
        assert_eq!(Environment::below(root.path()), expected);
        let none = Environment::below(Path::new("/nonexistent"));
        assert_eq!(none, Environment::default());
    }

    #[test]
    fn the_kernel_lists_its_functions() {
        assert_eq!(has_function("bpf_prog_load"), Some(true));
        assert_eq!(has_function("no_such_function"), Some(false));
    }

    #[test]
    fn this_machine_says_something() {
        let Environment {
            release, machine, ..
        } = Environment::read();
        assert!(!release.is_empty() && !machine.is_empty());
    }
}
