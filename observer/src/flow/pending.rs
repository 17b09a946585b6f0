//! Connections that wait for their answer, and what an answer is known by.

use std::net::SocketAddr;

use super::Translation;
use crate::cluster::Protocol;
use crate::observation::{Arrival, Departure, Identity, Kind, Moment, Tuple};

/// A connection that left and waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// With its zone.
    pub(super) identity: Identity,
    pub(super) opened_at: Moment,
    pub(super) arrival: Option<Arrival>,
    pub(super) departure: Departure,
    pub(super) translation: Translation,
    pub(super) stray: Option<Stray>,
    /// Whether its opening packet was seen again: what has no arrival may be the repetition's.
    pub(super) repeated: bool,
}

/// An answer that came back and did not leave, so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray {
    kind: Kind,
    /// Who answers → whom.
    reply: Tuple,
    pub(super) arrival: Arrival,
}

/// What an answer is known by, wherever it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AnswerKey {
    protocol: Protocol,
    /// Whom it is for.
    seen: SocketAddr,
    /// Which opening packet it answers. So an answer from another than the backend is found, too.
    sequence: u32,
    /// Who answers, where no sequence number tells: one client's port may speak UDP with many.
    from: Option<SocketAddr>,
}

impl Pending {
    /// The arrival of an answer that leaves now, if it was taken for one that stays: on its way
    /// through a node a packet may wait, for the link address of its next hop or for a CPU.
    pub(super) fn take_slow(&mut self, kind: Kind, reply: Tuple) -> Option<Arrival> {
        let is_it = |stray: &mut Stray| stray.kind == kind && stray.reply == reply;
        self.stray.take_if(is_it).map(|stray| stray.arrival)
    }
}

impl Stray {
    pub(super) const fn new(kind: Kind, reply: Tuple, arrival: Arrival) -> Self {
        Self {
            kind,
            reply,
            arrival,
        }
    }
}

impl AnswerKey {
    pub(super) fn new(protocol: Protocol, reply: Tuple, sequence: u32) -> Self {
        Self {
            protocol,
            seen: reply.destination,
            sequence,
            from: (protocol == Protocol::Udp).then_some(reply.source),
        }
    }

    pub(super) fn of(identity: &Identity, reply: Tuple) -> Self {
        Self::new(identity.protocol, reply, identity.sequence)
    }
}
