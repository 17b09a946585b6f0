//! UDP flows: which datagram is the first, and which the first reply.
//!
//! A datagram does not say that it opens anything. So the map of flows remembers, by header and
//! hook, what was looked at already; conntrack, asked once a flow, tells the directions apart, and
//! that a flow which the map does not know is none the less an old one.
//!
//! What is dropped before it leaves is never remembered: each of its datagrams is noted again, so
//! that the first one that passes has its arrival. To userspace all of them are one connection.

use aya_ebpf::programs::TcContext;
use observer_ebpf::{
    Arrival, ArrivalKey, CONNTRACK_ENTRY, Counter, FLOW_AWAITED, FLOW_CONTINUED, FLOW_OPENED,
    FLOW_REPLIED, Flow, FlowKey, ROLE_OPENING, SIDE_IN, SIDE_OUT, Tuple,
};

use crate::{
    conntrack::{Conntrack, Direction},
    maps,
    packet::{Packet, Role},
    sampling,
};

/// At ingress: whether it is to be noted, as what ([`Packet::role`]), and by which tuple.
#[inline(always)]
pub(crate) fn arrives<'key>(
    context: &TcContext,
    now_ns: u64,
    shift: u8,
    packet: &mut Packet,
    conntrack: &mut Conntrack,
    key: &'key mut FlowKey,
) -> Option<&'key Tuple> {
    point(key, packet, SIDE_IN, 0);
    key.tuple = packet.tuple;
    let known = if let Some(flow) = maps::flow(key) {
        Some(flow)
    } else {
        // A bridge's own ingress comes after conntrack: the header is no longer the client's.
        conntrack.read(context);
        if conntrack.state == CONNTRACK_ENTRY {
            key.tuple = match conntrack.direction {
                Direction::Original => conntrack.original,
                Direction::Reply => conntrack.reply,
                Direction::RelatedReply | Direction::Other => return None,
            };
            maps::flow(key)
        } else {
            None
        }
    };
    packet.role = match known {
        Some(flow) => role_in_flow(context, now_ns, packet, key, flow)?,
        None if maps::is_observed(key.tuple.destination_port) => Role::Opening,
        None => return None,
    };
    if packet.role == Role::Opening
        && shift != 0
        && !sampling::is_followed(sampling::number(&key.tuple), shift)
    {
        maps::count(Counter::NotFollowed);
        return None;
    }
    Some(&key.tuple)
}

/// What an arriving datagram of a known flow is to be noted as; `None`: it says nothing new.
#[inline(always)]
fn role_in_flow(
    context: &TcContext,
    now_ns: u64,
    packet: &Packet,
    key: &mut FlowKey,
    flow: &mut Flow,
) -> Option<Role> {
    let is_reply = flow.state == FLOW_AWAITED || flow.state == FLOW_REPLIED;
    if flow.state == FLOW_AWAITED {
        *flow = seen(context, packet, now_ns, FLOW_REPLIED);
        return Some(Role::Accept);
    }
    if !is_reply && maps::is_idle(flow, now_ns) {
        // Replies alone keep a flow alive, too.
        key.side = SIDE_OUT;
        key.tuple = key.tuple.reversed();
        let replies = maps::flow(key).is_some_and(|replies| !maps::is_idle(replies, now_ns));
        key.side = SIDE_IN;
        key.tuple = key.tuple.reversed();
        if !replies {
            return Some(Role::Opening);
        }
    }
    let state = if is_reply {
        FLOW_REPLIED
    } else {
        FLOW_CONTINUED
    };
    *flow = seen(context, packet, now_ns, state);
    None
}

/// At egress: whether nothing need be known of it.
#[inline(always)]
pub(crate) fn is_known(
    context: &TcContext,
    now_ns: u64,
    packet: &Packet,
    key: &mut FlowKey,
) -> bool {
    key.tuple = packet.tuple;
    if maps::is_observed(packet.tuple.source_port) {
        point(key, packet, SIDE_OUT, 0);
        if is_refreshed(key, FLOW_REPLIED, now_ns) {
            return true;
        }
    }
    point(key, packet, SIDE_OUT, maps::ifindex(context));
    is_refreshed(key, FLOW_OPENED, now_ns)
}

/// Whether a flow of this state is known and was not silent, until now.
#[inline(always)]
fn is_refreshed(key: &FlowKey, state: u8, now_ns: u64) -> bool {
    match maps::flow(key) {
        Some(flow) if flow.state == state && !maps::is_idle(flow, now_ns) => {
            flow.time_ns = now_ns;
            true
        }
        _ => false,
    }
}

/// At egress, of a datagram without a conntrack entry: which way it goes.
#[inline(always)]
pub(crate) fn role_by_header(
    packet: &Packet,
    opening_key: &mut ArrivalKey,
    key: &mut FlowKey,
) -> Role {
    point(key, packet, SIDE_IN, 0);
    key.tuple = packet.tuple;
    if let Some(flow) = maps::flow(key) {
        return if flow.state == FLOW_AWAITED || flow.state == FLOW_REPLIED {
            Role::Accept
        } else {
            Role::Opening
        };
    }
    // This node's own reply to what arrived.
    key.tuple = packet.tuple.reversed();
    packet.identify(&key.tuple, &mut opening_key.identity);
    opening_key.role = ROLE_OPENING;
    if maps::waits(opening_key) || maps::flow(key).is_some() {
        Role::Accept
    } else {
        Role::Opening
    }
}

/// At egress: whether the flow of `original` is followed.
#[inline(always)]
pub(crate) fn is_followed(
    packet: &Packet,
    shift: u8,
    original: &Tuple,
    noted: &mut ArrivalKey,
    key: &mut FlowKey,
) -> bool {
    if shift == 0 || sampling::is_followed(sampling::number(original), shift) {
        return true;
    }
    if packet.role == Role::Accept {
        // Since before so few were followed.
        point(key, packet, SIDE_OUT, 0);
        key.tuple = packet.tuple;
        if maps::flow(key).is_some() {
            return true;
        }
        // Taken for a flow of its own, and among those that are followed.
        noted.role = ROLE_OPENING;
        let _of_no_use = maps::take(noted);
    }
    false
}

/// At egress, of a datagram whose arrival was not noted under `noted`: the arrival, if it did come
/// by an observed interface.
#[inline(always)]
pub(crate) fn arrival(packet: &Packet, noted: &mut ArrivalKey, key: &mut FlowKey) -> Arrival {
    let state = if packet.role == Role::Opening {
        // Conntrack forgot the flow, as when kube-proxy removed its entry; the ingress did not.
        FLOW_CONTINUED
    } else {
        // As long as its flow was not known, a reply was taken for a flow of its own.
        noted.role = ROLE_OPENING;
        let arrival = maps::take(noted);
        if arrival.time_ns != 0 {
            return arrival;
        }
        FLOW_REPLIED
    };
    point(key, packet, SIDE_IN, 0);
    key.tuple = noted.identity.original;
    match maps::flow(key) {
        Some(flow) if flow.state == state => Arrival {
            time_ns: flow.time_ns,
            ifindex: flow.ifindex,
            ttl: flow.ttl,
            padding: [0; 3],
        },
        _ => maps::NO_ARRIVAL,
    }
}

/// At egress: remembers the flow of what is about to be reported. `None`: it is not to be.
#[inline(always)]
pub(crate) fn left(
    context: &TcContext,
    now_ns: u64,
    packet: &Packet,
    [original, reply]: [&Tuple; 2],
    arrival: &Arrival,
    is_new: bool,
    key: &mut FlowKey,
) -> Option<()> {
    let seen = |state| seen(context, packet, now_ns, state);
    if packet.role == Role::Opening {
        point(key, packet, SIDE_OUT, maps::ifindex(context));
        key.tuple = packet.tuple;
        maps::keep(key, seen(FLOW_OPENED));
        point(key, packet, SIDE_IN, 0);
        key.tuple = *original;
        maps::keep(key, seen(FLOW_OPENED));
        // It is older than the observation, or was let go: not new. Or nobody asked about it.
        if !is_new || !maps::is_observed(original.destination_port) {
            return None;
        }
        key.tuple = *reply;
        maps::keep(key, seen(FLOW_AWAITED));
        key.side = SIDE_OUT;
        key.tuple = original.reversed();
        maps::keep(key, seen(FLOW_AWAITED));
    } else {
        point(key, packet, SIDE_OUT, 0);
        key.tuple = packet.tuple;
        maps::keep(key, seen(FLOW_REPLIED));
        key.side = SIDE_IN;
        if arrival.time_ns == 0 {
            key.tuple = *original;
            maps::keep(key, seen(FLOW_OPENED));
        } else {
            key.tuple = *reply;
            maps::keep(key, seen(FLOW_REPLIED));
        }
    }
    Some(())
}

/// Sets all of a key but its tuple.
#[inline(always)]
fn point(key: &mut FlowKey, packet: &Packet, side: u8, ifindex: u32) {
    key.family = packet.family;
    key.side = side;
    key.padding = [0; 2];
    key.ifindex = ifindex;
}

/// What is known of a flow after this datagram.
#[inline(always)]
fn seen(context: &TcContext, packet: &Packet, now_ns: u64, state: u8) -> Flow {
    Flow {
        time_ns: now_ns,
        ifindex: maps::ifindex(context),
        ttl: packet.ttl,
        state,
        padding: [0; 2],
    }
}
