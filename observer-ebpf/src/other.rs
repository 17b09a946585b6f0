//! Of what opens and answers connections, all but TCP segments with plain and linear headers:
//! datagrams, SCTP, ICMP errors, and what has options, extension headers or lies in pieces.
//!
//! Functions of their own, so that the code of the others stays together.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use observer_ebpf::{CONNTRACK_ENTRY, ROLE_OPENING};

use crate::{
    arrived,
    conntrack::Direction,
    datagram, is_own, lacks, left,
    maps::{self, Scratch},
    may_be_told, note, original,
    packet::{Role, UDP},
    reader, report, sampling, shed,
};

/// At ingress, as `arrive`.
#[inline(always)]
pub(crate) fn arrives<const LINK: usize>(context: &TcContext) -> Option<()> {
    let skb = context.skb.skb;
    let is_done = match parses::<LINK>(skb) {
        NOTHING => false,
        DATAGRAM => datagram_arrives(skb),
        _ => packet_arrives(skb),
    };
    is_done.then_some(())
}

/// At egress, as `leave`.
#[inline(always)]
pub(crate) fn leaves<const LINK: usize>(context: &TcContext) -> Option<()> {
    let skb = context.skb.skb;
    let is_done = match parses::<LINK>(skb) {
        NOTHING => false,
        DATAGRAM => datagram_leaves(skb),
        _ => packet_leaves(skb),
    };
    is_done.then_some(())
}

// What [`parses`] found.
const NOTHING: u32 = 0;
const DATAGRAM: u32 = 1;
const PACKET: u32 = 2;

/// Reads the headers into the scratch.
#[inline(never)]
fn parses<const LINK: usize>(skb: *mut __sk_buff) -> u32 {
    let context = TcContext::new(skb);
    let Some((scratch, _)) = maps::scratch() else {
        return NOTHING;
    };
    match reader::parse::<LINK>(&context, &mut scratch.packet) {
        None => NOTHING,
        Some(()) if scratch.packet.is_datagram() => DATAGRAM,
        Some(()) => PACKET,
    }
}

#[inline(never)]
fn datagram_arrives(skb: *mut __sk_buff) -> bool {
    arrive_datagram(&TcContext::new(skb)).is_some()
}

#[inline(never)]
fn packet_arrives(skb: *mut __sk_buff) -> bool {
    arrive(&TcContext::new(skb)).is_some()
}

#[inline(never)]
fn datagram_leaves(skb: *mut __sk_buff) -> bool {
    leave_datagram(&TcContext::new(skb)).is_some()
}

#[inline(never)]
fn packet_leaves(skb: *mut __sk_buff) -> bool {
    leave(&TcContext::new(skb)).is_some()
}

#[inline(always)]
fn arrive_datagram(context: &TcContext) -> Option<()> {
    let (scratch, now_ns) = maps::scratch_of_run()?;
    let Scratch {
        packet,
        conntrack,
        opening_key,
        flow_key,
        ..
    } = &mut *scratch;
    let shift = sampling::sampling().ingress;
    let tuple = datagram::arrives(context, now_ns, shift, packet, conntrack, flow_key)?;
    if sampling::admits(packet.role, now_ns) {
        packet.identify(tuple, &mut opening_key.identity);
        note(context, scratch, now_ns);
    }
    Some(())
}

#[inline(always)]
fn arrive(context: &TcContext) -> Option<()> {
    let (scratch, now_ns) = maps::scratch_of_run()?;
    let packet = &scratch.packet;
    let shift = sampling::sampling().ingress;
    if packet.protocol != UDP && !sampling::is_followed(packet.sequence, shift) {
        shed(packet.role == Role::Opening);
        return Some(());
    }
    if sampling::admits(packet.role, now_ns) {
        arrived(context, scratch, now_ns);
    }
    Some(())
}

#[inline(always)]
fn leave(context: &TcContext) -> Option<()> {
    let (scratch, now_ns) = maps::scratch_of_run()?;
    let packet = &scratch.packet;
    let sampling = sampling::sampling();
    if packet.protocol != UDP && !sampling::is_followed(packet.sequence, sampling.egress) {
        shed(is_own(context) && packet.role == Role::Opening);
        return Some(());
    }
    if may_be_told(context, scratch, now_ns, sampling) {
        left(context, scratch, now_ns)
    } else {
        Some(())
    }
}

/// Joins a datagram with its arrival, and reports it.
#[inline(always)]
fn leave_datagram(context: &TcContext) -> Option<()> {
    let (scratch, now_ns) = maps::scratch_of_run()?;
    if datagram::is_known(context, now_ns, &scratch.packet, &mut scratch.flow_key) {
        return None;
    }
    let sampling = sampling::sampling();
    if !may_be_told(context, scratch, now_ns, sampling) {
        return Some(());
    }
    let Scratch {
        packet,
        conntrack,
        opening_key,
        answer_key,
        flow_key,
        reply,
        is_own,
        ..
    } = &mut *scratch;
    let tracked = conntrack.state == CONNTRACK_ENTRY;
    packet.role = match (tracked, conntrack.direction) {
        (false, _) => datagram::role_by_header(packet, opening_key, flow_key),
        (true, Direction::Reply) => Role::Accept,
        (true, _) => Role::Opening,
    };
    original(packet, conntrack, &mut opening_key.identity, reply)?;
    let of_opening = opening_key.identity.original;
    opening_key.role = ROLE_OPENING;
    let key = if packet.role == Role::Opening {
        &mut *opening_key
    } else {
        packet.identify(reply, &mut answer_key.identity);
        answer_key.role = packet.role.key();
        &mut *answer_key
    };
    if !datagram::is_followed(packet, sampling.egress, &of_opening, key, flow_key) {
        shed(*is_own != 0 && packet.role == Role::Opening);
        return Some(());
    }
    let mut arrival = maps::take(key);
    if arrival.time_ns == 0 {
        arrival = datagram::arrival(packet, key, flow_key);
    }
    // An answer that never arrived is this node's own, so the opening packet stayed here.
    let opening = if packet.role == Role::Opening || arrival.time_ns != 0 {
        maps::NO_ARRIVAL
    } else {
        maps::take(opening_key)
    };
    if lacks(scratch, &arrival, &opening) {
        return Some(());
    }
    let Scratch {
        packet,
        conntrack,
        flow_key,
        reply,
        ..
    } = &mut *scratch;
    let is_new = !tracked || conntrack.is_new;
    let tuples = [&of_opening, &*reply];
    datagram::left(context, now_ns, packet, tuples, &arrival, is_new, flow_key)?;
    report(context, scratch, now_ns, arrival, opening);
    Some(())
}
