//! What `cargo xtask bench` holds the observer against: no part of the object that it ships.
//!
//! [`floor`] is the least that a program on a hook can cost. [`naive`] does what flow agents do: it
//! reads the five-tuple of every packet and counts in a map, at every hook. Both let each packet
//! pass untouched.
//!
//! Minimum kernel: 5.10.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "helpers, maps and packet access are calls into the kernel"
)]

use core::mem;

use aya_ebpf::{
    macros::{classifier, map},
    maps::LruPerCpuHashMap,
    programs::TcContext,
};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

/// `TCX_NEXT`, which is also `TC_ACT_UNSPEC` (`include/uapi/linux/bpf.h`, `tcx_action_base`).
const NEXT: i32 = -1;
/// As many as flow agents keep by default, or more.
const FLOWS_MAX: u32 = 100_000;

/// By what packets are counted; an IPv4 address fills the first four bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Flow {
    source: [u8; 16],
    destination: [u8; 16],
    /// Source and destination, as they are on the wire.
    ports: u32,
    protocol: u32,
}

/// What is counted of each.
#[repr(C)]
#[derive(Clone, Copy)]
struct Count {
    packets: u64,
    bytes: u64,
}

#[map]
static COUNTS: LruPerCpuHashMap<Flow, Count> = LruPerCpuHashMap::with_max_entries(FLOWS_MAX, 0);

/// Returns at once.
#[classifier]
fn floor(_context: TcContext) -> i32 {
    NEXT
}

/// Counts every packet by its flow.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn naive(context: TcContext) -> i32 {
    if let Some(flow) = parse(&context) {
        count(&flow, u64::from(context.len()));
    }
    NEXT
}

/// The flow of a packet whose headers are linear and plain.
#[inline(always)]
#[expect(clippy::inline_always, reason = "no call is part of the yardstick")]
fn parse(context: &TcContext) -> Option<Flow> {
    let mut flow = Flow {
        source: [0; 16],
        destination: [0; 16],
        ports: 0,
        protocol: 0,
    };
    let ethernet: *const EthHdr = at(context, 0)?;
    // SAFETY: `at` compared the end of each header with the end of the packet.
    let transport = unsafe {
        match (*ethernet).ether_type {
            kind if kind == EtherType::Ipv4 as u16 => {
                let ip: *const Ipv4Hdr = at(context, EthHdr::LEN)?;
                flow.source[..4].copy_from_slice(&(*ip).src_addr);
                flow.destination[..4].copy_from_slice(&(*ip).dst_addr);
                flow.protocol = u32::from((*ip).proto);
                EthHdr::LEN + Ipv4Hdr::LEN
            }
            kind if kind == EtherType::Ipv6 as u16 => {
                let ip: *const Ipv6Hdr = at(context, EthHdr::LEN)?;
                flow.source = (*ip).src_addr;
                flow.destination = (*ip).dst_addr;
                flow.protocol = u32::from((*ip).next_hdr);
                EthHdr::LEN + Ipv6Hdr::LEN
            }
            _ => return None,
        }
    };
    if flow.protocol == IpProto::Tcp as u32 || flow.protocol == IpProto::Udp as u32 {
        let ports: *const u32 = at(context, transport)?;
        // SAFETY: as above; a port may be at any address.
        flow.ports = unsafe { ports.read_unaligned() };
    }
    Some(flow)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "no call is part of the yardstick")]
fn at<T>(context: &TcContext, offset: usize) -> Option<*const T> {
    let start = context.data() + offset;
    (start + mem::size_of::<T>() <= context.data_end()).then_some(start as *const T)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "no call is part of the yardstick")]
fn count(flow: &Flow, bytes: u64) {
    if let Some(known) = COUNTS.get_ptr_mut(flow) {
        // SAFETY: the value is this CPU's own, and TC programs run to their end with softirqs off.
        unsafe {
            (*known).packets += 1;
            (*known).bytes += bytes;
        }
        return;
    }
    // Of a full map one is let go; a flow that finds no place is not counted, as in an agent.
    let _not_counted = COUNTS.insert(flow, Count { packets: 1, bytes }, 0);
}

/// The verifier refuses a program in which this loop can be reached, so no panic ever is.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
