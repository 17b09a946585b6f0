//! What this process may do: the capabilities that observing needs.
//!
//! `CAP_BPF` and `CAP_PERFMON` exist since Linux 5.8 (`include/uapi/linux/capability.h`);
//! `CAP_SYS_ADMIN` includes both (`bpf_capable`, `perfmon_capable`). It does not include
//! `CAP_NET_ADMIN` where netlink asks for it: for qdiscs, links and conntrack.

use caps::errors::CapsError;
use caps::{CapSet, Capability};

/// Which capabilities are lacking.
#[derive(Debug, thiserror::Error)]
pub enum CapabilitiesError {
    /// Some.
    #[error(
        "observing needs {}, which this process does not have: run it as root (sudo), or give a \
         container {}",
        list(.0),
        list(&NEEDED.map(|(capability, _)| capability))
    )]
    Missing(Vec<Capability>),
    /// The kernel does not tell.
    #[error("cannot read this process's own capabilities: {0}")]
    Unreadable(#[from] CapsError),
}

/// What observing needs, and for what.
pub const NEEDED: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "to load BPF programs and maps"),
    (
        Capability::CAP_PERFMON,
        "to let the programs read conntrack's entries in kernel memory",
    ),
    (
        Capability::CAP_NET_ADMIN,
        "to attach the programs to interfaces and to ask conntrack",
    ),
];

/// Whether this process has all that observing needs.
pub fn check() -> Result<(), CapabilitiesError> {
    let missing = missing()?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(CapabilitiesError::Missing(missing))
    }
}

/// Those of [`NEEDED`] that are not in force, in that order.
pub fn missing() -> Result<Vec<Capability>, CapsError> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability);
    let all = has(Capability::CAP_SYS_ADMIN)?;
    let mut missing = Vec::new();
    for (capability, _) in NEEDED {
        let included = all && capability != Capability::CAP_NET_ADMIN;
        if !included && !has(capability)? {
            missing.push(capability);
        }
    }
    Ok(missing)
}

/// `CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN`.
pub fn list(capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}
