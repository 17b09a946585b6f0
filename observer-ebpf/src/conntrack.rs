//! What connection tracking knows of a packet: `skb->_nfct`, read through the offsets that
//! userspace resolved from BTF.
//!
//! In a `SCHED_CLS` program the context is the kernel's `struct sk_buff` itself, so its address
//! plus an offset is the address of a field. The packet holds a reference to its entry, so the
//! entry outlives the program's run.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_probe_read_kernel, generated},
    programs::TcContext,
};
use observer_ebpf::{
    CONNTRACK_ENTRY, CONNTRACK_NONE, CONNTRACK_UNTRACKED, Counter, KernelLayout, NO_ZONES, NfConn,
    NfConntrackTuple, NfConntrackZone, Tuple,
};

use crate::{maps, packet::joined};

/// `NFCT_INFOMASK` (`include/linux/skbuff.h`): the low bits of `_nfct` are the `ctinfo`.
const INFO_MASK: u64 = 7;

// enum ip_conntrack_info, include/uapi/linux/netfilter/nf_conntrack_common.h
const IP_CT_ESTABLISHED: u64 = 0;
const IP_CT_NEW: u64 = 2;
const IP_CT_ESTABLISHED_REPLY: u64 = 3;
const IP_CT_RELATED_REPLY: u64 = 4;
const IP_CT_UNTRACKED: u64 = 7;

/// `NF_CT_ZONE_DIR_ORIG` (`include/net/netfilter/nf_conntrack_zones.h`).
const ZONE_DIR_ORIG: u8 = 1;

/// Which way a packet goes, as its `ctinfo` says.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Original,
    Reply,
    /// About the connection, towards who opened it: an ICMP error, or netfilter's RST.
    RelatedReply,
    Other,
}

/// What is known of a packet. Lives in [`maps::Scratch`]: any bytes that the kernel zeroed are a
/// value.
pub(crate) struct Conntrack {
    /// One of the `CONNTRACK_` constants.
    pub(crate) state: u8,
    /// With [`CONNTRACK_ENTRY`], as the next three.
    pub(crate) direction: Direction,
    /// Whether no reply was seen yet. Of every packet that opens a connection this is true.
    pub(crate) is_new: bool,
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
    /// That of the original direction; zero without an entry.
    pub(crate) zone: u16,
    kernel: NfConn,
}

impl Conntrack {
    /// Reads `skb->_nfct`, and the entry behind it.
    #[inline(always)]
    pub(crate) fn read(&mut self, context: &TcContext) {
        self.state = CONNTRACK_NONE;
        self.zone = 0;
        let Some(layout) = maps::layout() else {
            return;
        };
        let skb = context.as_ptr() as u64;
        // SAFETY: the helper checks the address and fails rather than fault.
        let nfct = unsafe { bpf_probe_read_kernel((skb + u64::from(layout.nfct)) as *const u64) };
        let Ok(nfct) = nfct else {
            maps::count(Counter::ReadsFailed);
            return;
        };
        let info = nfct & INFO_MASK;
        let entry = nfct & !INFO_MASK;
        if entry == 0 {
            // Since 4.12; before, NOTRACK gave an entry of its own to all.
            if info == IP_CT_UNTRACKED {
                self.state = CONNTRACK_UNTRACKED;
            }
            return;
        }
        if self.read_entry(entry, layout).is_none() {
            maps::count(Counter::ReadsFailed);
            return;
        }
        // A template (`-j CT`) says how the packet is to be tracked, if conntrack ever sees it.
        if self.kernel.reply.l3num == 0 {
            return;
        }
        take_over(&self.kernel.original, &mut self.original);
        take_over(&self.kernel.reply, &mut self.reply);
        self.zone = zone(self.kernel.zone);
        self.is_new = info == IP_CT_NEW;
        self.direction = match info {
            IP_CT_ESTABLISHED | IP_CT_NEW => Direction::Original,
            IP_CT_ESTABLISHED_REPLY => Direction::Reply,
            IP_CT_RELATED_REPLY => Direction::RelatedReply,
            _ => Direction::Other,
        };
        self.state = CONNTRACK_ENTRY;
    }

    /// Reads the zone and both tuples of an entry: every call costs, so all at once where they lie
    /// as expected.
    #[inline(always)]
    fn read_entry(&mut self, entry: u64, layout: &KernelLayout) -> Option<()> {
        let NfConn {
            zone,
            original,
            reply,
            ..
        } = &mut self.kernel;
        let at = |offset: u32| entry + u64::from(offset);
        if layout.zone.wrapping_add(ORIGINAL) == layout.original
            && layout.zone.wrapping_add(REPLY) == layout.reply
        {
            return read(at(layout.zone), &mut self.kernel);
        }
        read(at(layout.original), original)?;
        read(at(layout.reply), reply)?;
        if layout.zone == NO_ZONES {
            zone.dir = 0;
            return Some(());
        }
        read(at(layout.zone), zone)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
const ORIGINAL: u32 = offset_of!(NfConn, original) as u32;
#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
const REPLY: u32 = offset_of!(NfConn, reply) as u32;

/// Reads the original tuple of the packet at `skb` into `tuple`, if it has an entry and no
/// reply was seen: of every packet that opens a connection that is so.
#[inline(always)]
pub(crate) fn read_original(skb: u64, tuple: &mut Tuple) {
    let Some(layout) = maps::layout() else {
        return;
    };
    // SAFETY: the helper checks the address and fails rather than fault.
    let nfct = unsafe { bpf_probe_read_kernel((skb + u64::from(layout.nfct)) as *const u64) };
    let Ok(nfct) = nfct else {
        return;
    };
    let entry = nfct & !INFO_MASK;
    if entry == 0 || nfct & INFO_MASK != IP_CT_NEW {
        return;
    }
    let original = (entry + u64::from(layout.original)) as *const NfConntrackTuple;
    // SAFETY: as above.
    if let Ok(kernel) = unsafe { bpf_probe_read_kernel(original) }
        && kernel.l3num != 0
    {
        take_over(&kernel, tuple);
    }
}

/// The zone in which the original tuple is looked up, as `nf_ct_zone_id` tells it: a zone may be
/// that of replies alone, and the original direction is then in the default zone, zero.
#[inline(always)]
const fn zone(NfConntrackZone { id, flags: _, dir }: NfConntrackZone) -> u16 {
    if dir & ZONE_DIR_ORIG == 0 { 0 } else { id }
}

/// Reads what the kernel has at `address`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes at most")]
fn read<T>(address: u64, into: &mut T) -> Option<()> {
    // SAFETY: `into` is as large as the size given, and every `T` here is integers only; the helper
    // checks the address and fails rather than fault.
    let failed = unsafe {
        generated::bpf_probe_read_kernel(
            core::ptr::from_mut(into).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (failed == 0).then_some(())
}

#[inline(always)]
fn take_over(kernel: &NfConntrackTuple, tuple: &mut Tuple) {
    tuple.source = kernel.source;
    tuple.destination = kernel.destination;
    let ports = joined(
        u16::from_be(kernel.source_port),
        u16::from_be(kernel.destination_port),
    );
    let words = core::ptr::from_mut(tuple).cast::<u32>();
    // In one, as in `Packet::identify`.
    // SAFETY: the ports are the last word of a tuple, which is aligned for words.
    unsafe { words.add(offset_of!(Tuple, source_port) / 4).write(ports) }
}
