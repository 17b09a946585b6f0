//! Connections that wait for their answer, and what an answer is known by.

use std::hash::{Hash, Hasher};

use super::Translation;
use super::packed::{PackedIdentity, PackedTuple, pack_socket};
use crate::cluster::Protocol;
use crate::observation::{Arrival, Conntrack, Departure, Identity, Kind, Moment, Tuple};

/// A connection that left and waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: PackedIdentity,
    pub(super) zone: u16,
    pub(super) opened_at: Moment,
    pub(super) arrival: Option<Arrival>,
    pub(super) departure: Departure,
    reply: PackedTuple,
    conntrack: Conntrack,
    /// Of few.
    pub(super) stray: Option<Box<Stray>>,
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
///
/// The protocol; whom it is for; which opening packet it answers, so that an answer from another
/// than the backend is found, too; who answers, where no sequence number tells: one client's port
/// may speak UDP with many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerKey([u8; 43]);

impl Hash for AnswerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl Pending {
    /// One that left just now; its opening packet came by `arrival`.
    pub(super) fn new(
        key: PackedIdentity,
        zone: u16,
        translation: Translation,
        arrival: Option<Arrival>,
        departure: Departure,
    ) -> Self {
        Self {
            key,
            zone,
            opened_at: arrival.map_or(departure.at, |arrival| arrival.at),
            arrival,
            departure,
            reply: PackedTuple::of(translation.reply),
            conntrack: translation.conntrack,
            stray: None,
            repeated: false,
        }
    }

    /// With its zone.
    pub(super) fn identity(&self) -> Identity {
        self.key.unpack(self.zone)
    }

    pub(super) fn translation(&self) -> Translation {
        Translation {
            reply: self.reply(),
            conntrack: self.conntrack,
        }
    }

    pub(super) fn reply(&self) -> Tuple {
        self.reply.unpack()
    }

    /// To be told to those who know it by its answer.
    pub(super) fn translate(&mut self, zone: u16, translation: Translation) {
        self.zone = zone;
        self.reply = PackedTuple::of(translation.reply);
        self.conntrack = translation.conntrack;
    }

    pub(super) fn answer(&self) -> AnswerKey {
        AnswerKey::new(self.key.protocol(), self.reply(), self.key.sequence())
    }

    /// The arrival of an answer that leaves now, if it was taken for one that stays: on its way
    /// through a node a packet may wait, for the link address of its next hop or for a CPU.
    pub(super) fn take_slow(&mut self, kind: Kind, reply: Tuple) -> Option<Arrival> {
        let is_it = |stray: &mut Box<Stray>| stray.kind == kind && stray.reply == reply;
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
        let mut bytes = [0; 43];
        bytes[0] = protocol.number();
        bytes[1..5].copy_from_slice(&sequence.to_ne_bytes());
        bytes[5..24].copy_from_slice(&pack_socket(reply.destination));
        if protocol == Protocol::Udp {
            bytes[24..].copy_from_slice(&pack_socket(reply.source));
        }
        Self(bytes)
    }
}
