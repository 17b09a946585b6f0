//! What an observer left behind that was killed.
//!
//! Its TCX links, programs and maps went with it. Filters of clsact hold their programs, and so
//! the maps, until somebody removes them.

use std::collections::BTreeSet;

use aya::programs::ProgramError;

use super::attach::{is_on_our_qdisc, is_ours};
use super::heartbeat;
use crate::kernel::tc::{self, Filter, SIDES, Tc, TcError};

/// Why filters that were left behind may remain.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The filters could not be told, or not be removed.
    #[error("cannot look for filters that were left behind")]
    Tc(#[from] TcError),
    /// Whose filters they are could not be told.
    #[error("cannot tell whether the owners of {0} filters live, which takes CAP_SYS_ADMIN")]
    Owners(usize, #[source] Box<ProgramError>),
}

/// Removes the filters of observers in the calling thread's network namespace that have been
/// silent for [`observer_ebpf::SILENCE_NS`], and the qdiscs that came with them if nothing else is
/// there. Gives the number of filters removed. Whoever lives is left alone.
pub fn sweep() -> Result<usize, SweepError> {
    let tc = Tc::open()?;
    let _lock = tc::lock();
    let mut ours = Vec::new();
    for qdisc in tc.qdiscs()? {
        for side in SIDES {
            ours.extend(
                tc.filters(qdisc.interface, side)?
                    .into_iter()
                    .filter(is_ours),
            );
        }
    }
    let program = |filter: &Filter| filter.program.as_ref().map(|(_, id)| *id);
    let programs: BTreeSet<u32> = ours.iter().filter_map(program).collect();
    if programs.is_empty() {
        return Ok(0);
    }
    let silent = heartbeat::silent(&programs)
        .map_err(|error| SweepError::Owners(ours.len(), Box::new(error)))?;
    ours.retain(|filter| program(filter).is_some_and(|id| silent.contains(&id)));
    for filter in &ours {
        tc.remove_filter(filter)?;
    }
    let emptied: BTreeSet<_> = ours
        .iter()
        .filter(|filter| is_on_our_qdisc(filter))
        .map(|filter| filter.interface)
        .collect();
    for interface in emptied {
        tc.remove_empty_qdisc(interface)?;
    }
    Ok(ours.len())
}
