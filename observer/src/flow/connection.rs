//! What comes out of the flow.

use crate::observation::{
    Arrival, Conntrack, Departure, DropReason, Entry, Identity, Moment, Tuple,
};
use crate::payload::Reading;

/// How a connection's opening packet was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Accepted(Answered),
    /// Refused.
    Refused(Refusal, Answered),
    /// Not at all, until the answer time-out or the end of the run.
    None,
}

/// By what a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A RST, or SCTP's ABORT: nothing listens there, or a rule says so.
    Reset,
    /// An ICMP error: a rule, a router, or a host rejects.
    IcmpError,
}

/// The answering packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When it left towards the client; for a client on this node: when it arrived.
    pub at: Moment,
    /// How it came in; `None` if this node itself answered.
    pub arrival: Option<Arrival>,
}

/// One conntrack entry's life up to its first answer, as this node saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which.
    pub identity: Identity,
    /// When its opening packet was first seen; `None` if it existed before the observation.
    pub opened_at: Option<Moment>,
    /// How the opening packet came; `None` if its sender is this node.
    pub arrival: Option<Arrival>,
    /// How it left; `None` if it was delivered to this node, or died here.
    pub departure: Option<Departure>,
    /// What became of its addresses; `None` if only the arrival is known.
    pub translation: Option<Translation>,
    /// The answer.
    pub answer: Answer,
    /// A reply that came back and never left translated: it went astray.
    pub stray: Option<Arrival>,
    /// Whether observations were lost while it waited: its answer may be among them.
    pub doubtful: bool,
    /// What conntrack held when no answer came; `None` if it was not asked, or cannot tell.
    pub entry: Option<Entry>,
    /// Why the kernel dropped its opening packet, if it said so: evidence beside `entry`.
    pub drop_reason: Option<DropReason>,
    /// Whether its opening packet was seen again: then the answer may be the repetition's, and says
    /// nothing of how long the way is.
    pub repeated: bool,
    /// What its client sent first, if that was asked for.
    pub first_bytes: Option<Reading>,
}

impl Connection {
    /// One of which nothing is known yet.
    pub(super) const fn bare(identity: Identity) -> Self {
        Self {
            identity,
            opened_at: None,
            arrival: None,
            departure: None,
            translation: None,
            answer: Answer::None,
            stray: None,
            doubtful: false,
            entry: None,
            drop_reason: None,
            repeated: false,
            first_bytes: None,
        }
    }

    /// One that conntrack held when the observation began.
    pub const fn existing(identity: Identity, reply: Tuple, replied: bool) -> Self {
        let mut connection = Self::bare(identity);
        connection.translation = Some(Translation {
            reply,
            conntrack: Conntrack::Entry,
        });
        connection.entry = Some(Entry::Present { reply, replied });
        connection
    }

    /// Whether this node itself opened it.
    pub const fn is_own(&self) -> bool {
        self.opened_at.is_some() && self.arrival.is_none()
    }

    /// Whether its answer is missing, so that conntrack may know more.
    pub const fn is_unanswered(&self) -> bool {
        matches!(self.answer, Answer::None)
    }

    /// Whether it came, and nothing more was seen: only conntrack can tell what became of it.
    pub const fn is_silent(&self) -> bool {
        self.is_unanswered() && self.departure.is_none()
    }

    /// Adds what conntrack holds of it.
    #[must_use]
    pub fn with_entry(mut self, entry: Entry) -> Self {
        if let (None, Entry::Present { reply, .. }) = (self.translation, entry) {
            self.translation = Some(Translation {
                reply,
                conntrack: Conntrack::Entry,
            });
        }
        self.entry = Some(entry);
        self
    }
}

/// The far side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Backend → source that the backend sees.
    pub reply: Tuple,
    /// How it is known.
    pub conntrack: Conntrack,
}
