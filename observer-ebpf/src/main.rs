//! The TC programs, each of which sees every packet of an interface and passes it on untouched;
//! and [`drops`], which hears of what the kernel drops.
//!
//! [`observer_in`] notes when, where and with which TTL a connection's opening packet and
//! its answer arrive. [`observer_out`] reads the conntrack entry of what leaves, joins it
//! with what arrived and hands the finished observation to userspace. Packets of established
//! connections return after direct packet access (`packet::passes`), before any helper call;
//! datagrams of ports that nobody asks about after two looks into an array, and those of a flow
//! that is known after one into a hash map (`datagram`). Where clients' first bytes are asked for,
//! segments with data are looked at a little longer (`payload`).
//!
//! Minimum kernel: 5.10 (`bpf_ktime_get_ns`, `bpf_probe_read_kernel` 5.5, ring buffer 5.8).

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "helpers, maps and packet access are calls into the kernel"
)]
#![expect(
    clippy::inline_always,
    reason = "a BPF function of its own takes five registers at most, and no borrow of the packet"
)]

mod conntrack;
mod datagram;
mod drops;
mod maps;
mod other;
mod packet;
mod payload;
mod reader;
mod sampling;

use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use conntrack::{Conntrack, Direction};
use maps::Scratch;
use observer_ebpf::{
    Arrival, CONNTRACK_ENTRY, Counter, Identity, ROLE_OPENING, SIDE_IN, SIDE_OUT, Sampling, Tuple,
};
use packet::{BARE, ETHERNET, Packet, Role};
use sampling::Refusals;

/// `TCX_NEXT`, which is also `TC_ACT_UNSPEC`: the next program on the hook runs as if this one
/// were not there. `TC_ACT_OK` would end the chain (`include/uapi/linux/bpf.h`, `tcx_action_base`).
const NEXT: i32 = -1;

/// Before connection tracking: notes arrivals.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn observer_in(context: TcContext) -> i32 {
    ingress::<ETHERNET>(&context)
}

/// The same for devices without a link header.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn observer_in_ip(context: TcContext) -> i32 {
    ingress::<BARE>(&context)
}

/// After NAT: reads both tuples, joins and reports.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn observer_out(context: TcContext) -> i32 {
    egress::<ETHERNET>(&context)
}

/// The same for devices without a link header.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn observer_out_ip(context: TcContext) -> i32 {
    egress::<BARE>(&context)
}

#[inline(always)]
fn ingress<const LINK: usize>(context: &TcContext) -> i32 {
    if !packet::passes::<LINK>(context) {
        // What neither opens nor answers may still be data, whose headers are not linear or have
        // options.
        if arrive::<LINK>(context).is_none() && payload::is_on() {
            payload::segment::<LINK>(context.skb.skb, SIDE_IN);
        }
    } else if payload::is_on() && !payload::passes::<LINK>(context) {
        payload::segment::<LINK>(context.skb.skb, SIDE_IN);
    }
    NEXT
}

#[inline(always)]
fn egress<const LINK: usize>(context: &TcContext) -> i32 {
    if !packet::passes::<LINK>(context) {
        if leave::<LINK>(context).is_none() && payload::is_on() {
            payload::segment::<LINK>(context.skb.skb, SIDE_OUT);
        }
    } else if payload::is_on() && is_own(context) && !payload::passes::<LINK>(context) {
        payload::segment::<LINK>(context.skb.skb, SIDE_OUT);
    }
    NEXT
}

/// `None` only ends early; nobody asks why.
///
/// Of a TCP segment whose headers are plain and linear, as most are, everything happens here, in one
/// go and apart from all else, so that little code has to be fetched for it.
#[inline(always)]
fn arrive<const LINK: usize>(context: &TcContext) -> Option<()> {
    let Some((role, sequence)) = packet::handshake::<LINK>(context) else {
        return other::arrives::<LINK>(context);
    };
    // Of a flood nothing more is looked at.
    if !sampling::is_followed(sequence, sampling::sampling().ingress) {
        shed(role == Role::Opening);
        return Some(());
    }
    let (scratch, now_ns) = maps::scratch()?;
    packet::plain::<LINK>(context, (role, sequence), &mut scratch.packet)?;
    if sampling::admits(role, now_ns) {
        arrived(context, scratch, now_ns);
    }
    Some(())
}

/// Notes the arrival of a packet that is no datagram.
#[inline(always)]
fn arrived(context: &TcContext, scratch: &mut Scratch, now_ns: u64) {
    let Scratch {
        packet,
        conntrack,
        reply,
        ..
    } = scratch;
    // A bridge's own ingress comes after conntrack, with the header rewritten already: so the
    // entry, where there is one, names the connection, and the header only where there is none.
    conntrack.read(context);
    let tuple = match (conntrack.state, packet.role) {
        (CONNTRACK_ENTRY, Role::Opening) => &conntrack.original,
        (CONNTRACK_ENTRY, _) => &conntrack.reply,
        (_, Role::Opening | Role::Accept | Role::Reset) => &packet.tuple,
        (_, Role::IcmpError) => {
            *reply = packet.tuple.reversed();
            &*reply
        }
    };
    packet.identify(tuple, &mut scratch.opening_key.identity);
    note(context, scratch, now_ns);
    if payload::is_on() {
        waited_for(scratch, SIDE_IN);
    }
}

/// The first bytes of what was opened are waited for, if they are asked for.
#[inline(always)]
fn waited_for(scratch: &mut Scratch, side: u8) {
    let Scratch {
        packet,
        opening_key,
        waiting_key,
        ..
    } = scratch;
    payload::open(packet, opening_key, side, waiting_key);
}

/// Keeps the arrival of what `opening_key` names.
#[inline(always)]
fn note(context: &TcContext, scratch: &mut Scratch, now_ns: u64) {
    let Scratch {
        packet,
        opening_key: key,
        ..
    } = scratch;
    key.role = packet.role.key();
    let arrival = Arrival {
        time_ns: now_ns,
        ifindex: maps::ifindex(context),
        ttl: packet.ttl,
        padding: [0; 3],
    };
    maps::note(key, &arrival);
    debug!(
        context,
        "arrival, interface {}, ports {} to {}, sequence {}",
        arrival.ifindex,
        packet.tuple.source_port,
        packet.tuple.destination_port,
        packet.sequence
    );
}

/// What is not followed is done with; an opening is counted.
#[inline(always)]
fn shed(is_counted: bool) {
    if is_counted {
        maps::count(Counter::NotFollowed);
    }
}

/// Whether this node itself sends a packet: it came by no interface.
#[inline(always)]
fn is_own(context: &TcContext) -> bool {
    // SAFETY: the context is a valid __sk_buff for the life of the program.
    unsafe { (*context.skb.skb).ingress_ifindex == 0 }
}

/// As [`arrive`].
#[inline(always)]
fn leave<const LINK: usize>(context: &TcContext) -> Option<()> {
    let Some((role, sequence)) = packet::handshake::<LINK>(context) else {
        return other::leaves::<LINK>(context);
    };
    let sampling = sampling::sampling();
    if !sampling::is_followed(sequence, sampling.egress) {
        shed(is_own(context) && role == Role::Opening);
        return Some(());
    }
    let (scratch, now_ns) = maps::scratch()?;
    packet::plain::<LINK>(context, (role, sequence), &mut scratch.packet)?;
    if may_be_told(context, scratch, now_ns, sampling) {
        left(context, scratch, now_ns)
    } else {
        Some(())
    }
}

/// Whether what leaves may be more than what was refused as it arrived. Reads what conntrack knows
/// of it.
#[inline(always)]
fn may_be_told(
    context: &TcContext,
    scratch: &mut Scratch,
    now_ns: u64,
    sampling: Sampling,
) -> bool {
    let is_own = is_own(context);
    let refusals = sampling::refusals(now_ns);
    if !is_own && refusals == Refusals::All {
        return false;
    }
    scratch.is_own = u8::from(is_own);
    scratch.may_lack = u8::from(sampling.changing || refusals == Refusals::Some);
    scratch.conntrack.read(context);
    true
}

/// Joins a packet that is no datagram with its arrival, and reports it.
#[inline(always)]
fn left(context: &TcContext, scratch: &mut Scratch, now_ns: u64) -> Option<()> {
    let Scratch {
        packet,
        conntrack,
        opening_key,
        answer_key,
        reply,
        ..
    } = scratch;
    original(packet, conntrack, &mut opening_key.identity, reply)?;
    opening_key.role = ROLE_OPENING;
    let arrival;
    let mut opening = maps::NO_ARRIVAL;
    if packet.role == Role::Opening {
        arrival = maps::take(opening_key);
    } else {
        packet.identify(reply, &mut answer_key.identity);
        answer_key.role = packet.role.key();
        arrival = maps::take(answer_key);
        // An answer that never arrived is this node's own, so the opening packet stayed here.
        if arrival.time_ns == 0 {
            opening = maps::take(opening_key);
        }
    }
    if lacks(scratch, &arrival, &opening) {
        return Some(());
    }
    // A proxy on this node, perhaps. What another sends was waited for as it arrived.
    if payload::is_on() && scratch.is_own != 0 {
        waited_for(scratch, SIDE_OUT);
    }
    report(context, scratch, now_ns, arrival, opening);
    Some(())
}

/// What was refused, or not followed, as it arrived is not taken for this node's own; nor is the
/// node's own answer to that.
#[inline(always)]
fn lacks(scratch: &Scratch, arrival: &Arrival, opening: &Arrival) -> bool {
    let is_first = scratch.is_own != 0 && scratch.packet.role == Role::Opening;
    scratch.may_lack != 0 && (arrival.time_ns | opening.time_ns) == 0 && !is_first
}

/// Hands the observation on.
#[inline(always)]
fn report(context: &TcContext, scratch: &Scratch, now_ns: u64, arrival: Arrival, opening: Arrival) {
    maps::send(context, scratch, now_ns, arrival, opening);
    debug!(
        context,
        "observation {}, interface {}, ports {} to {}, sequence {}",
        scratch.packet.role.kind(),
        maps::ifindex(context),
        scratch.packet.tuple.source_port,
        scratch.packet.tuple.destination_port,
        scratch.packet.sequence
    );
}

/// Writes the identity and the reply tuple of what leaves. `None`: it is none of its connection's
/// handshake.
#[inline(always)]
fn original(
    packet: &Packet,
    conntrack: &Conntrack,
    identity: &mut Identity,
    reply: &mut Tuple,
) -> Option<()> {
    let tracked = conntrack.state == CONNTRACK_ENTRY;
    let belongs = match packet.role {
        Role::Opening => !tracked || conntrack.direction == Direction::Original,
        Role::Accept => !tracked || conntrack.direction == Direction::Reply,
        // netfilter gives its ICMP error or RST the entry of the packet it refuses, as related.
        Role::Reset => !tracked || conntrack.direction != Direction::Original,
        Role::IcmpError => tracked && conntrack.direction == Direction::RelatedReply,
    };
    if !belongs {
        return None;
    }
    match (tracked, packet.role) {
        (true, _) => {
            *reply = conntrack.reply;
            packet.identify(&conntrack.original, identity);
        }
        (false, Role::Opening) => {
            *reply = packet.tuple.reversed();
            packet.identify(&packet.tuple, identity);
        }
        (false, _) => {
            *reply = packet.tuple;
            packet.identify(&packet.tuple.reversed(), identity);
        }
    }
    Some(())
}

/// The verifier refuses a program in which this loop can be reached, so no panic ever is.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_probe_read_kernel` is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
