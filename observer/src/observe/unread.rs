//! Connections that wait for their clients' first bytes.

use std::collections::HashMap;

use hashlink::LruCache;

use super::first_bytes::{Around, Whose};
use crate::flow::Connection;
use crate::observation::{Identity, Moment};
use crate::payload::{Reading, Reason};

/// For so long after its opening packet a client's first bytes are waited for at most: the programs
/// look no longer. And no longer than for an answer.
const WAIT_NS: u64 = 4_000_000_000;
/// Connections that wait for their first bytes, and first bytes that wait for their connection;
/// what is more is judged without.
const UNREAD_MAX: usize = 1 << 14;

/// Connections and their first bytes, whichever came first.
#[derive(Debug)]
pub(super) struct Unread {
    wait_ns: u64,
    /// Connections that wait, each until a moment.
    connections: HashMap<Identity, (Moment, Connection)>,
    /// What was read, of connections that have not come out, or that wait for more.
    readings: LruCache<Identity, Reading>,
    /// When first bytes were last lost, at the latest.
    lost: Option<Moment>,
}

impl Unread {
    pub(super) fn new(answer_timeout_ns: u64) -> Self {
        Self {
            wait_ns: answer_timeout_ns.min(WAIT_NS),
            connections: HashMap::new(),
            readings: LruCache::new(UNREAD_MAX),
            lost: None,
        }
    }

    /// First bytes were lost before this moment: of whoever opened its connection before, silence is
    /// not known.
    pub(super) fn lost(&mut self, now: Moment) {
        self.lost = self.lost.max(Some(now));
    }

    /// What is told of a connection that waited long enough, by what was read so far.
    fn at_last(&self, connection: &Connection, reading: Option<Reading>) -> Reading {
        let is_before = |lost: Moment| connection.opened_at.is_none_or(|opened| opened <= lost);
        if self.lost.is_some_and(is_before) {
            return Reading::Nothing(Reason::NotSeen);
        }
        reading.unwrap_or(Reading::Nothing(Reason::Silent))
    }

    /// A connection came out of the flow. Given back if it waits for nothing, or no longer.
    pub(super) fn waits(
        &mut self,
        mut connection: Connection,
        around: Around<'_>,
        now: Moment,
    ) -> Option<Connection> {
        if around.asking.whose == Whose::Off {
            return Some(connection);
        }
        let key = connection.identity.on_arrival();
        let reading = self.readings.remove(&key);
        if !around.hands_on(&connection) {
            return Some(connection);
        }
        let opened_at = connection.opened_at?;
        let until = Moment(opened_at.0.saturating_add(self.wait_ns));
        let is_full = self.connections.len() >= UNREAD_MAX;
        let at_once = match &reading {
            Some(reading) if !is_so_far(reading) => reading.clone(),
            None if around.is_left_out(&connection) => Reading::Nothing(Reason::NotAsked),
            _ if until <= now => self.at_last(&connection, reading),
            _ if is_full => Reading::Nothing(Reason::NotSeen),
            _ => {
                connection.first_bytes = reading;
                self.connections.insert(key, (until, connection));
                return None;
            }
        };
        connection.first_bytes = Some(at_once);
        Some(connection)
    }

    /// First bytes were read. Gives the connection that waited for that.
    pub(super) fn read(&mut self, identity: Identity, reading: Reading) -> Option<Connection> {
        let key = identity.on_arrival();
        let Some((_, connection)) = self.connections.get_mut(&key) else {
            self.readings.insert(key, reading);
            return None;
        };
        let so_far = is_so_far(&reading);
        connection.first_bytes = Some(reading);
        if so_far {
            return None;
        }
        self.connections
            .remove(&key)
            .map(|(_, connection)| connection)
    }

    /// Those whose time is up, oldest first.
    pub(super) fn due(&mut self, is_due: impl Fn(Moment) -> bool) -> Vec<Connection> {
        let mut due: Vec<_> = self
            .connections
            .extract_if(|_, (until, _)| is_due(*until))
            .map(|(_, due)| due)
            .collect();
        due.sort_by_key(|(until, _)| *until);
        let at_last = |(_, mut connection): (Moment, Connection)| {
            let reading = connection.first_bytes.take();
            connection.first_bytes = Some(self.at_last(&connection, reading));
            connection
        };
        due.into_iter().map(at_last).collect()
    }

    /// Those that wait.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(|(_, connection)| connection)
    }
}

/// Whether more may come.
const fn is_so_far(reading: &Reading) -> bool {
    matches!(
        reading,
        Reading::Nothing(Reason::Unfinished | Reason::NotSeen)
    )
}
