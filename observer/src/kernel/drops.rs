//! Whether this kernel tells why it drops a packet, and what its reasons are called.
//!
//! The tracepoint `kfree_skb` has a reason since Linux 5.17, and the values of `enum
//! skb_drop_reason` shift from release to release (`include/net/dropreason-core.h`): so both are
//! read from BTF, by name.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use observer_ebpf::DropLayout;

use super::btf::{Btf, BtfError, Kind, TypeId};
use super::layout::VMLINUX;
use crate::observation::DropReason;

#[cfg(test)]
mod tests;

/// The type of the tracepoint's probes: a pointer to a function that takes the probe's own data,
/// the packet, the place, and the reason.
const PROBE: &str = "btf_trace_kfree_skb";
const REASON_PARAMETER: usize = 3;
const REASONS: &str = "skb_drop_reason";
/// What the names of all reasons begin with.
const PREFIX: &str = "SKB_DROP_REASON_";
const NOT_SPECIFIED: &str = "SKB_DROP_REASON_NOT_SPECIFIED";

/// Why reasons are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DropsError {
    /// The kernel's BTF cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("the kernel's BTF {0}")]
    Btf(#[from] BtfError),
    /// The tracepoint is one without reasons.
    #[error("this kernel's tracepoint kfree_skb gives no reason (it does since Linux 5.17)")]
    NoReason,
    /// What the program reads of a packet is not where a program can read it.
    #[error("this kernel's struct sk_buff has no field {0}")]
    NoField(&'static str),
}

/// A kernel's drop reasons.
#[derive(Clone, Debug)]
pub struct DropReasons {
    names: HashMap<u32, String>,
    /// For the program.
    pub(super) layout: DropLayout,
}

impl DropReasons {
    /// Reads them where the kernel shows itself (`/sys`): some megabytes.
    pub fn read(sysfs: &Path) -> Result<Self, DropsError> {
        let path = sysfs.join(VMLINUX);
        let bytes = fs::read(&path).map_err(|source| DropsError::Read { path, source })?;
        Self::resolve(&Btf::parse(&bytes)?)
    }

    /// Finds them in the kernel's BTF.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, DropsError> {
        let probe = btf.find(Kind::Typedef, PROBE).ok_or(DropsError::NoReason)?;
        let parameters = btf.parameters(probe)?;
        let reasons = *parameters
            .get(REASON_PARAMETER)
            .ok_or(DropsError::NoReason)?;
        if btf.get(btf.resolve(reasons)?)?.name != REASONS {
            return Err(DropsError::NoReason);
        }
        let values = btf.enumerators(reasons)?;
        let not_specified = values.iter().find(|(name, _)| *name == NOT_SPECIFIED);
        let sk_buff = btf
            .find(Kind::Struct, "sk_buff")
            .ok_or(DropsError::NoReason)?;
        let layout = DropLayout {
            head: offset(btf, sk_buff, "head", 8)?,
            network_header: offset(btf, sk_buff, "network_header", 2)?,
            not_specified: not_specified.ok_or(DropsError::NoReason)?.1,
        };
        let names = values.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(PREFIX)?;
            Some((value, name.to_owned()))
        });
        Ok(Self {
            names: names.collect(),
            layout,
        })
    }

    /// What a reason is called; `None` of those that a subsystem of the kernel keeps for itself.
    pub(super) fn name(&self, reason: u32) -> Option<DropReason> {
        self.names.get(&reason).cloned().map(DropReason)
    }
}

/// Where a field of `size` bytes starts, in bytes.
fn offset(
    btf: &Btf<'_>,
    sk_buff: TypeId,
    name: &'static str,
    size: u64,
) -> Result<u32, DropsError> {
    let missing = DropsError::NoField(name);
    let Some(member) = btf.member(sk_buff, name)? else {
        return Err(missing);
    };
    if btf.size(member.type_id)? != size || !member.bit_offset.is_multiple_of(8) {
        return Err(missing);
    }
    u32::try_from(member.bit_offset / 8).ok().ok_or(missing)
}
