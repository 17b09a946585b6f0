//! The programs on one interface: put there whole or not at all, and taken off.
//!
//! TCX links end with the process that holds them (`kernel/bpf/tcx.c`). Filters of clsact stay, so
//! their handles tell whose they are and whether the qdisc came with them; see [`sweep`].
//!
//! Ours run first on either hook, because a program may end the chain for those behind it, and
//! pass every packet on, so that nothing changes for them.
//!
//! [`sweep`]: super::sweep::sweep

use std::fmt;
use std::mem;

use aya::Ebpf;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use clap::ValueEnum;
use nix::errno::Errno;

use super::PROGRAMS;
use crate::kernel::tc::{self, Filter, SIDES, Tc};
use crate::observation::IfIndex;

/// The major part of the handles of our filters, which nobody else has a reason to choose.
const HANDLE_MAJOR: u16 = 0x5349;
/// In the minor part of a handle: an observer made the qdisc, and the last one removes it.
const OUR_QDISC: u16 = 0x100;
/// The priority by which the kernel chooses: before those it chose earlier, behind those that
/// somebody asked for.
const ANY_PRIORITY: u16 = 0;
/// How many observers find a place at one priority.
const HANDLES: u16 = 16;

/// By which hook the programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// TCX links. Minimum kernel: 6.6.
    Tcx,
    /// Filters of the clsact qdisc. Minimum kernel: 4.5.
    Clsact,
}

/// Why the programs are not on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It does not exist, or no longer.
    #[error("there is no such interface")]
    NoInterface,
    /// A qdisc is there that has but one side.
    #[error("its ingress qdisc has no place for programs on what leaves, and TCX is not to be had")]
    IngressQdisc,
    /// Every place that was tried is taken.
    #[error("there is no place for a filter among those it has")]
    NoPlace,
    /// The kernel does not take a program there.
    #[error(transparent)]
    Program(#[from] Box<ProgramError>),
    /// The filters that are there could not be told, or not be removed.
    #[error(transparent)]
    Tc(#[from] tc::TcError),
}

/// Both programs on an interface, until it is dropped.
#[derive(Debug)]
pub(super) struct Attachment {
    index: IfIndex,
    /// Its name then.
    pub(super) interface: String,
    /// For what arrives and for what leaves.
    programs: [&'static str; 2],
    pub(super) hook: Hook,
    links: Vec<SchedClassifierLink>,
    our_qdisc: bool,
}

impl Attachment {
    /// Of nothing yet.
    pub(super) fn new(
        index: IfIndex,
        interface: &str,
        programs: [&'static str; 2],
        hook: Hook,
    ) -> Self {
        Self {
            index,
            interface: interface.to_owned(),
            programs,
            hook,
            links: Vec::new(),
            our_qdisc: false,
        }
    }

    /// Puts the programs on the interface, which is of the calling thread's network namespace.
    /// What is there when one fails goes when this is dropped.
    pub(super) fn put(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        match self.hook {
            Hook::Tcx => self.put_links(ebpf),
            Hook::Clsact => self.put_filters(ebpf),
        }
    }

    fn put_links(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        for (program, side) in self.programs.into_iter().zip(SIDES) {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            self.links.push(self.link(ebpf, program, side, options)?);
        }
        Ok(())
    }

    fn put_filters(&mut self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        let tc = Tc::open()?;
        let _lock = tc::lock();
        match qdisc_add_clsact(&self.interface).map_err(ProgramError::from) {
            Ok(()) => self.our_qdisc = true,
            Err(error) if os_error(&error) == Some(Errno::EEXIST) => {}
            Err(error) => return Err(refused(error)),
        }
        let is_here = |qdisc: &tc::Qdisc| qdisc.interface == self.index && qdisc.kind == "ingress";
        if !self.our_qdisc && tc.qdiscs()?.iter().any(is_here) {
            return Err(AttachError::IngressQdisc);
        }
        for (program, side) in self.programs.into_iter().zip(SIDES) {
            let present = tc.filters(self.index, side)?;
            self.our_qdisc |= present.iter().any(is_on_our_qdisc);
            self.links
                .push(self.put_filter(ebpf, program, side, &present)?);
        }
        Ok(())
    }

    fn put_filter(
        &self,
        ebpf: &mut Ebpf,
        program: &str,
        side: TcAttachType,
        present: &[Filter],
    ) -> Result<SchedClassifierLink, AttachError> {
        // Before the first of them. If that has the lowest priority there is, theirs is shared,
        // which the kernel grants to filters of one kind.
        let first = present.iter().map(|filter| filter.priority).min();
        let before = match first {
            Some(first @ 2..) => first - 1,
            first => first.unwrap_or(ANY_PRIORITY),
        };
        [before, ANY_PRIORITY]
            .into_iter()
            .flat_map(|priority| (1..=HANDLES).map(move |number| (priority, number)))
            .map(|(priority, number)| {
                let options = NlOptions {
                    priority,
                    handle: handle(number, self.our_qdisc),
                    classid: None,
                };
                self.link(ebpf, program, side, TcAttachOptions::Netlink(options))
            })
            .find(|result| !result.as_ref().is_err_and(is_taken))
            .unwrap_or(Err(AttachError::NoPlace))
    }

    fn link(
        &self,
        ebpf: &mut Ebpf,
        program: &str,
        side: TcAttachType,
        options: TcAttachOptions,
    ) -> Result<SchedClassifierLink, AttachError> {
        let link = || {
            let program = ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?;
            let program: &mut SchedClassifier = program.try_into()?;
            let link = program.attach_with_options(&self.interface, side, options)?;
            program.take_link(link)
        };
        link().map_err(refused)
    }

    /// Takes them off. What is gone by then, because the interface is, is no error.
    pub(super) fn take_off(&mut self) -> Result<(), AttachError> {
        let links = mem::take(&mut self.links);
        let our_qdisc = mem::take(&mut self.our_qdisc);
        if self.hook == Hook::Tcx {
            // Closing them is all, and cannot fail.
            drop(links);
            return Ok(());
        }
        let _lock = tc::lock();
        let mut result = Ok(());
        for link in links {
            match link.detach() {
                Err(error) if !os_error(&error).is_some_and(tc::is_gone) => {
                    result = Err(refused(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        if our_qdisc {
            Tc::open()?.remove_empty_qdisc(self.index)?;
        }
        result
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.links.is_empty() || self.our_qdisc {
            // Nobody is left to be told; the sweep of the next start takes what stays.
            let _stays = self.take_off();
        }
    }
}

impl AttachError {
    /// Whether the kernel has no TCX: `BPF_LINK_CREATE` knows no such attach type before 6.6,
    /// nor without `CONFIG_NET_XGRESS`.
    pub(super) fn lacks_tcx(&self) -> bool {
        matches!(self, Self::Program(error)
            if matches!(os_error(error), Some(Errno::EINVAL | Errno::EOPNOTSUPP)))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// Whether an observer put this filter there.
pub(super) fn is_ours(filter: &Filter) -> bool {
    let ours = |(name, _): &(String, u32)| PROGRAMS.as_flattened().contains(&name.as_str());
    filter.handle.major == HANDLE_MAJOR && filter.program.as_ref().is_some_and(ours)
}

/// Whether an observer put this filter there, and the qdisc, too.
pub(super) fn is_on_our_qdisc(filter: &Filter) -> bool {
    is_ours(filter) && filter.handle.minor & OUR_QDISC != 0
}

fn handle(number: u16, our_qdisc: bool) -> TcHandle {
    TcHandle::new(
        HANDLE_MAJOR,
        if our_qdisc {
            OUR_QDISC | number
        } else {
            number
        },
    )
}

fn refused(error: ProgramError) -> AttachError {
    match os_error(&error) {
        Some(Errno::ENODEV) => AttachError::NoInterface,
        _ => AttachError::Program(Box::new(error)),
    }
}

/// Whether the place for a filter is taken: the handle (`EEXIST`), or the priority by filters of
/// another kind (`EINVAL`) or for another protocol (`ENOSPC`).
fn is_taken(error: &AttachError) -> bool {
    matches!(error, AttachError::Program(error)
        if matches!(os_error(error), Some(Errno::EEXIST | Errno::EINVAL | Errno::ENOSPC)))
}

fn os_error(error: &ProgramError) -> Option<Errno> {
    let code = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        ProgramError::TcError(TcError::IoError(error)) => error.raw_os_error(),
        _ => None,
    };
    code.map(Errno::from_raw)
}
