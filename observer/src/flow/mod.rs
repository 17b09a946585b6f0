//! Observations and clock ticks in, connections out.
//!
//! PURE: reads no clock, no socket, no file. Time is what the observations carry and what
//! [`Flow::tick`] is told.
//!
//! A connection comes out once, when its outcome is known: at its first reply or refusal, else
//! when the answer time-out has passed. A packet may have left by several observed interfaces
//! (a bridge, then its port): the first arrival and the last egress count. A retransmitted
//! opening packet changes nothing. Of UDP the programs tell the first datagram of a flow, and the
//! first of another on the same addresses and ports.

use hashlink::LruCache;
use observer_ebpf::FLOW_IDLE_NS;

use crate::cluster::Protocol;
use crate::observation::{
    Arrival, Conntrack, Departure, Identity, Kind, Moment, Observation, Passage, Tuple,
};

mod connection;
mod packed;
mod pending;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod waiting;

pub use connection::{Answer, Answered, Connection, Refusal, Translation};
use packed::{PackedIdentity, PackedTuple};
use pending::{AnswerKey, Pending, Stray};
use waiting::{Place, Waiting};

/// Connections that may wait for their answer at once; more are counted and let go.
const PENDING_MAX: usize = 100_000;
/// Connections remembered after they came out, so that a late retransmission or a second reply
/// does not report them again. A client retransmits a SYN for about two minutes.
const REPORTED_MAX: usize = 100_000;

/// What [`Flow`] could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Connections let go because too many waited for their answer.
    pub pending_full: u64,
}

/// Connections under way. Identities are keys as on arrival, without their zones: otherwise an
/// arrival that stayed could not be told to be a retransmission.
#[derive(Debug)]
pub struct Flow {
    answer_timeout_ns: u64,
    pending: Waiting,
    reported: LruCache<PackedIdentity, Reported>,
    /// When the last loss of observations was noticed.
    lost_until: Option<Moment>,
    losses: Losses,
}

/// A connection that came out.
///
/// A new TCP or SCTP connection has a new sequence number; what is told again under the same one
/// is the same. A UDP flow has none. It is another if conntrack made another entry for it: after
/// it was silent for long, if its first datagram was dropped and a later one passes, or if its
/// entry was removed and another endpoint chosen.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// When its opening packet was last seen.
    at: Moment,
    /// What became of its addresses; `None` if it never left.
    left_as: Option<PackedTuple>,
}

impl Reported {
    /// Whether an opening packet at `at` is of another connection than this.
    fn is_over(&self, protocol: Protocol, at: Moment, left_as: Option<PackedTuple>) -> bool {
        let is_idle = at.nanoseconds_since(self.at) >= FLOW_IDLE_NS;
        let is_another = left_as.is_some() && left_as != self.left_as;
        protocol == Protocol::Udp && (is_idle || is_another)
    }
}

impl Flow {
    /// `answer_timeout_ns`: how long after its opening packet a connection counts as unanswered.
    pub fn new(answer_timeout_ns: u64) -> Self {
        Self {
            answer_timeout_ns,
            pending: Waiting::new(),
            reported: LruCache::new(REPORTED_MAX),
            lost_until: None,
            losses: Losses::default(),
        }
    }

    /// What could not be kept so far.
    pub const fn losses(&self) -> Losses {
        self.losses
    }

    /// Takes one observation in. A connection comes out if this made its outcome known.
    pub fn observe(&mut self, observation: Observation) -> Option<Connection> {
        match observation {
            Observation::Passage(passage) => self.passage(passage),
            Observation::Arrival { identity, arrival } => self.arrival(identity, arrival),
            Observation::AnswerArrival {
                kind,
                protocol,
                reply,
                sequence,
                arrival,
            } => {
                let key = AnswerKey::new(protocol, reply, sequence);
                self.answer_arrival(kind, key, reply, arrival)
            }
        }
    }

    /// Observations were lost, at any time before `now`.
    pub const fn lost(&mut self, now: Moment) {
        self.lost_until = Some(now);
    }

    /// Whether a connection of this tuple waits, or came out.
    pub fn knows(&self, protocol: Protocol, original: &Tuple) -> bool {
        let is_it = |identity: &PackedIdentity| {
            identity.protocol() == protocol && identity.tuple() == *original
        };
        self.pending.iter().any(|pending| is_it(&pending.key))
            || self.reported.iter().any(|(one, _)| is_it(one))
    }

    /// Whether a connection that was opened before this moment waits.
    pub fn has_pending_before(&self, moment: Moment) -> bool {
        let mut pending = self.pending.iter();
        pending.any(|pending| pending.opened_at < moment)
    }

    /// The connections that the answer time-out ends at `now`, oldest first.
    pub fn tick(&mut self, now: Moment) -> Vec<Connection> {
        now.0
            .checked_sub(self.answer_timeout_ns)
            .map_or_else(Vec::new, |due| self.end(Moment(due)))
    }

    /// All that is pending, oldest first: the run ends.
    pub fn finish(&mut self) -> Vec<Connection> {
        self.end(Moment(u64::MAX))
    }

    fn passage(&mut self, passage: Passage) -> Option<Connection> {
        let Passage {
            kind,
            identity,
            reply,
            conntrack,
            arrival,
            departure,
            opening,
        } = passage;
        let at = departure.at;
        let key = PackedIdentity::of(&identity);
        let place = self.pending.find(&key);
        let arrival = arrival.or_else(|| self.pending.get_mut(place?).take_slow(kind, reply));
        let Some(answer) = kind.answers(Answered { at, arrival }) else {
            let translation = Translation { reply, conntrack };
            self.forward((key, identity.zone), place, translation, arrival, departure);
            return None;
        };
        if let Some(place) = place {
            return self.complete(place, answer);
        }
        let Some(opening) = opening else {
            // It answers nothing that is known by this name: it left untranslated, past the
            // connection it belongs to. Or that is older than the observation.
            let arrival = arrival.unwrap_or(Arrival {
                at,
                interface: departure.interface,
                ttl: departure.ttl,
            });
            let answer = AnswerKey::new(identity.protocol, reply, identity.sequence);
            self.goes_astray(answer, Stray::new(kind, reply, arrival));
            return None;
        };
        // Never forwarded: this node itself answered.
        self.report(Connection {
            opened_at: Some(opening.at),
            arrival: Some(opening),
            translation: Some(Translation { reply, conntrack }),
            answer,
            ..Connection::bare(identity)
        })
    }

    fn forward(
        &mut self,
        (key, zone): (PackedIdentity, u16),
        place: Option<Place>,
        translation: Translation,
        arrival: Option<Arrival>,
        departure: Departure,
    ) {
        let left_as = PackedTuple::of(translation.reply);
        if self.is_reported(&key, departure.at, Some(left_as)) {
            return;
        }
        if let Some(place) = place {
            let pending = self.pending.get_mut(place);
            // An arrival of its own marks a retransmission; without one, this is the same packet
            // on the next device of a stack. A retransmission changes nothing, unless the first
            // one died on its way and conntrack forgot it: then this one is translated anew.
            let anew = pending.reply() != translation.reply;
            let same_packet = arrival.is_none() && !pending.repeated;
            if same_packet || anew {
                pending.departure = departure;
            }
            pending.repeated |= arrival.is_some() && !anew;
            if translation.conntrack == Conntrack::Entry && anew {
                self.pending.translate(place, zone, translation);
            }
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.losses.pending_full += 1;
            return;
        }
        let pending = Pending::new(key, zone, translation, arrival, departure);
        self.pending.insert(pending);
    }

    /// An opening packet that never left and that nobody answered.
    fn arrival(&mut self, identity: Identity, arrival: Arrival) -> Option<Connection> {
        // A retransmission of one that did leave says nothing new.
        if self.pending.find(&PackedIdentity::of(&identity)).is_some() {
            return None;
        }
        self.report(Connection {
            opened_at: Some(arrival.at),
            arrival: Some(arrival),
            ..Connection::bare(identity)
        })
    }

    /// An answer that arrived and did not leave is for a client on this node. For any other
    /// client, or from another than the backend, it went astray.
    fn answer_arrival(
        &mut self,
        kind: Kind,
        answer: AnswerKey,
        reply: Tuple,
        arrival: Arrival,
    ) -> Option<Connection> {
        let place = self.pending.find_by_answer(&answer)?;
        let pending = self.pending.get(place);
        let is_from_here = pending.arrival.is_none();
        if !is_from_here || pending.reply() != reply {
            self.goes_astray(answer, Stray::new(kind, reply, arrival));
            return None;
        }
        let answer = kind.answers(Answered {
            at: arrival.at,
            arrival: Some(arrival),
        })?;
        self.complete(place, answer)
    }

    /// An answer came back and will not reach the client as its connection's, or not soon.
    fn goes_astray(&mut self, answer: AnswerKey, stray: Stray) {
        if let Some(place) = self.pending.find_by_answer(&answer) {
            let known = &mut self.pending.get_mut(place).stray;
            known.get_or_insert_with(|| Box::new(stray));
        }
    }

    /// Of those that were opened at this moment or before.
    fn end(&mut self, opened_until: Moment) -> Vec<Connection> {
        let due = self.pending.as_old_as(opened_until);
        due.into_iter()
            .filter_map(|place| self.complete(place, Answer::None))
            .collect()
    }

    fn complete(&mut self, place: Place, answer: Answer) -> Option<Connection> {
        let pending = self.pending.remove(place);
        let (identity, translation) = (pending.identity(), pending.translation());
        let Pending {
            opened_at,
            arrival,
            departure,
            stray,
            repeated,
            ..
        } = pending;
        let doubtful = self.lost_until.is_some_and(|until| opened_at <= until);
        self.report(Connection {
            opened_at: Some(opened_at),
            arrival,
            departure: Some(departure),
            translation: Some(translation),
            answer,
            stray: stray.map(|stray| stray.arrival),
            doubtful,
            repeated,
            ..Connection::bare(identity)
        })
    }

    /// Whether a connection came out to which an opening packet at `at` belongs. `left_as`: what
    /// became of its addresses, if it left.
    fn is_reported(
        &mut self,
        key: &PackedIdentity,
        at: Moment,
        left_as: Option<PackedTuple>,
    ) -> bool {
        let Some(reported) = self.reported.get_mut(key) else {
            return false;
        };
        if reported.is_over(key.protocol(), at, left_as) {
            self.reported.remove(key);
            return false;
        }
        reported.at = reported.at.max(at);
        true
    }

    /// Lets a connection out, once.
    fn report(&mut self, connection: Connection) -> Option<Connection> {
        let key = PackedIdentity::of(&connection.identity);
        let at = connection.opened_at?;
        if self.is_reported(&key, at, None) {
            return None;
        }
        let left_as = connection
            .departure
            .and(connection.translation)
            .map(|translation| PackedTuple::of(translation.reply));
        self.reported.insert(key, Reported { at, left_as });
        Some(connection)
    }
}

impl Kind {
    /// What such a packet answers; `None` if it opens.
    const fn answers(self, answered: Answered) -> Option<Answer> {
        match self {
            Self::Forward => None,
            Self::Reply => Some(Answer::Accepted(answered)),
            Self::Reset => Some(Answer::Refused(Refusal::Reset, answered)),
            Self::IcmpError => Some(Answer::Refused(Refusal::IcmpError, answered)),
        }
    }
}
