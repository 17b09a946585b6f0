//! What an observer is told, and what it says.

use std::sync::Arc;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};

use super::Asking;
use crate::cluster::Snapshot;
use crate::observation::{DropReason, Entry, Identity, Interfaces, Moment, Observation, Tuple};
use crate::payload::Reading;
use crate::record::Record;

/// To the microsecond, what is less cut off.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// What time it is: the wall clock's reading at the kernel's moment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch(pub jiff::Timestamp);

impl Epoch {
    /// RFC 3339 in UTC, to the microsecond.
    pub(super) fn format(self, moment: Moment) -> String {
        let elapsed = jiff::SignedDuration::from_nanos(i64::try_from(moment.0).unwrap_or(i64::MAX));
        let at = self.0.checked_add(elapsed).unwrap_or(jiff::Timestamp::MAX);
        PRINTER.timestamp_to_string(&at)
    }
}

/// Everything that reaches an observer from outside, in its order: with the settings, all that
/// its records follow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The kernel side saw something.
    Observation(Observation),
    /// What conntrack says of a connection that [`Output::Ask`] named; `None`: it was not asked,
    /// or cannot tell. With why the kernel dropped its opening packet, if conntrack holds nothing
    /// and the kernel said so.
    LookedUp(
        Identity,
        Option<Entry>,
        #[serde(default, skip_serializing_if = "Option::is_none")] Option<DropReason>,
    ),
    /// Conntrack held this connection when the observation began. Its sequence number is not
    /// known, and given as 0.
    Existing {
        /// Which.
        identity: Identity,
        /// Backend → source that the backend sees.
        reply: Tuple,
        /// Whether a reply was seen.
        replied: bool,
    },
    /// The connections whose source this node has rewritten, all that conntrack holds now, as
    /// [`Event::Existing`] tells them: identity, and backend → source that the backend sees. They
    /// are not reported for that.
    Rewritten(Vec<(Identity, Tuple)>),
    /// The node's interfaces or addresses are these from now on.
    Interfaces(Interfaces),
    /// The cluster is this from this moment on.
    Cluster(Moment, Arc<Snapshot>),
    /// The cluster's objects are current; or they may have changed unnoticed since this moment,
    /// because their API is not heard.
    ClusterHeard(Option<Moment>),
    /// The wall clock was set: it reads otherwise from now on.
    Clock(Epoch),
    /// What a connection's client sent first, as far as it came; it may be told again, of more.
    /// The parser's word, not the bytes: those are in no event.
    FirstBytes(Identity, Reading),
    /// What clients sent first was lost, at any time before this moment.
    FirstBytesLost(Moment),
    /// Observations were lost, at any time before this moment.
    Lost(Moment),
    /// Packets were not understood, or left aside: connections may have come of which nothing was told.
    Unseen,
    /// It is this late now.
    Tick(Moment),
    /// The run ends: what is pending comes out.
    End,
}

/// What an observer has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What does conntrack hold of this? To be answered by [`Event::LookedUp`].
    Ask(Identity),
    /// A connection's outcome is known. With the moment of its opening packet, if that was seen.
    Record(Option<Moment>, Arc<Record>),
}

/// What an observer is set up with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// What time it is.
    pub epoch: Epoch,
    /// How long after its opening packet a connection counts as unanswered, in nanoseconds.
    pub answer_timeout_ns: u64,
    /// Whether connections that nobody asks about are reported too.
    pub all: bool,
    /// Whether the cluster is followed: [`Event::Cluster`] tells of it, and of its changes.
    #[serde(default)]
    pub follows_cluster: bool,
    /// Whose first bytes are asked for, and who is believed.
    #[serde(default)]
    pub first_bytes: Asking,
}
