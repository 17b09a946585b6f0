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
mod packet;
mod payload;
mod sampling;

use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use conntrack::{Conntrack, Direction};
use maps::Scratch;
use observer_ebpf::{Arrival, CONNTRACK_ENTRY, Counter, ROLE_OPENING, SIDE_IN, SIDE_OUT, Tuple};
use packet::{BARE, ETHERNET, Packet, Role, UDP};
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
            payload::segment::<LINK>(context, SIDE_IN);
        }
    } else if payload::is_on() && !payload::passes::<LINK>(context) {
        payload::segment::<LINK>(context, SIDE_IN);
    }
    NEXT
}

#[inline(always)]
fn egress<const LINK: usize>(context: &TcContext) -> i32 {
    if !packet::passes::<LINK>(context) {
        if leave::<LINK>(context).is_none() && payload::is_on() && is_own(context) {
            payload::segment::<LINK>(context, SIDE_OUT);
        }
    } else if payload::is_on() && is_own(context) && !payload::passes::<LINK>(context) {
        payload::segment::<LINK>(context, SIDE_OUT);
    }
    NEXT
}

/// `None` only ends early; nobody asks why.
#[inline(always)]
fn arrive<const LINK: usize>(context: &TcContext) -> Option<()> {
    let shift = sampling::sampling().ingress;
    // Of a flood nothing more is looked at.
    if shift != 0
        && let Some((role, sequence)) = packet::handshake::<LINK>(context)
        && !sampling::is_followed(sequence, shift)
    {
        shed(role == Role::Opening);
        return Some(());
    }
    let (scratch, now_ns) = maps::scratch()?;
    let Scratch {
        packet,
        conntrack,
        opening_key: key,
        flow_key,
        waiting_key,
        reply,
        ..
    } = scratch;
    packet::parse::<LINK>(context, packet)?;
    if packet.protocol != UDP && !sampling::is_followed(packet.sequence, shift) {
        shed(packet.role == Role::Opening);
        return Some(());
    }
    let tuple = if packet.is_datagram() {
        let tuple = datagram::arrives(context, now_ns, shift, packet, conntrack, flow_key)?;
        if !sampling::admits(packet.role, now_ns) {
            return Some(());
        }
        tuple
    } else {
        if !sampling::admits(packet.role, now_ns) {
            return Some(());
        }
        // A bridge's own ingress comes after conntrack, with the header rewritten already: so the
        // entry, where there is one, names the connection, and the header only where there is none.
        conntrack.read(context);
        match (conntrack.state, packet.role) {
            (CONNTRACK_ENTRY, Role::Opening) => &conntrack.original,
            (CONNTRACK_ENTRY, _) => &conntrack.reply,
            (_, Role::Opening | Role::Accept | Role::Reset) => &packet.tuple,
            (_, Role::IcmpError) => {
                *reply = packet.tuple.reversed();
                &*reply
            }
        }
    };
    packet.identify(tuple, &mut key.identity);
    key.role = packet.role.key();
    let arrival = Arrival {
        time_ns: now_ns,
        ifindex: maps::ifindex(context),
        ttl: packet.ttl,
        padding: [0; 3],
    };
    maps::note(key, &arrival);
    if payload::is_on() {
        payload::open(packet, key, SIDE_IN, waiting_key);
    }
    debug!(
        context,
        "arrival, interface {}, ports {} to {}, sequence {}",
        arrival.ifindex,
        packet.tuple.source_port,
        packet.tuple.destination_port,
        packet.sequence
    );
    Some(())
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
    let sampling = sampling::sampling();
    let is_own = is_own(context);
    // As at ingress; what came by an interface was counted there.
    if sampling.egress != 0
        && let Some((role, sequence)) = packet::handshake::<LINK>(context)
        && !sampling::is_followed(sequence, sampling.egress)
    {
        shed(is_own && role == Role::Opening);
        return Some(());
    }
    let (scratch, now_ns) = maps::scratch()?;
    let Scratch {
        packet,
        conntrack,
        opening_key,
        answer_key,
        flow_key,
        waiting_key,
        reply,
        may_lack,
    } = scratch;
    packet::parse::<LINK>(context, packet)?;
    let is_datagram = packet.is_datagram();
    if is_datagram && datagram::is_known(context, now_ns, packet, flow_key) {
        return None;
    }
    if packet.protocol != UDP && !sampling::is_followed(packet.sequence, sampling.egress) {
        shed(is_own && packet.role == Role::Opening);
        return Some(());
    }
    let refusals = sampling::refusals(now_ns);
    if !is_own && refusals == Refusals::All {
        return Some(());
    }
    *may_lack = u8::from(sampling.changing || refusals == Refusals::Some);
    conntrack.read(context);
    let tracked = conntrack.state == CONNTRACK_ENTRY;
    if is_datagram {
        packet.role = match (tracked, conntrack.direction) {
            (false, _) => datagram::role_by_header(packet, opening_key, flow_key),
            (true, Direction::Reply) => Role::Accept,
            (true, _) => Role::Opening,
        };
    }
    let original = original(packet, conntrack, reply)?;
    packet.identify(&original, &mut opening_key.identity);
    opening_key.role = ROLE_OPENING;
    let key = if packet.role == Role::Opening {
        &mut *opening_key
    } else {
        packet.identify(reply, &mut answer_key.identity);
        answer_key.role = packet.role.key();
        &mut *answer_key
    };
    if is_datagram && !datagram::is_followed(packet, sampling.egress, &original, key, flow_key) {
        shed(self::is_own(context) && packet.role == Role::Opening);
        return Some(());
    }
    let mut arrival = maps::take(key);
    if is_datagram && arrival.time_ns == 0 {
        arrival = datagram::arrival(packet, key, flow_key);
    }
    // An answer that never arrived is this node's own, so the opening packet stayed here.
    let opening = if packet.role == Role::Opening || arrival.time_ns != 0 {
        maps::NO_ARRIVAL
    } else {
        maps::take(opening_key)
    };
    // What was refused, or not followed, as it arrived is not taken for this node's own; nor is the
    // node's own answer to that.
    let is_first = self::is_own(context) && packet.role == Role::Opening;
    if *may_lack != 0 && (arrival.time_ns | opening.time_ns) == 0 && !is_first {
        return Some(());
    }
    if is_datagram {
        let is_new = !tracked || conntrack.is_new;
        datagram::left(
            context,
            now_ns,
            packet,
            [&original, reply],
            &arrival,
            is_new,
            flow_key,
        )?;
    }
    // A proxy on this node, perhaps. What another sends was waited for as it arrived.
    if payload::is_on() && self::is_own(context) {
        payload::open(packet, opening_key, SIDE_OUT, waiting_key);
    }
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
    Some(())
}

/// The original tuple of what leaves; writes the one of its replies. `None`: it is none of its
/// connection's handshake.
#[inline(always)]
fn original(packet: &Packet, conntrack: &Conntrack, reply: &mut Tuple) -> Option<Tuple> {
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
    Some(match (tracked, packet.role) {
        (true, _) => {
            *reply = conntrack.reply;
            conntrack.original
        }
        (false, Role::Opening) => {
            *reply = packet.tuple.reversed();
            packet.tuple
        }
        (false, _) => {
            *reply = packet.tuple;
            packet.tuple.reversed()
        }
    })
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
