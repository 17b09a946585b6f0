//! Where the four meet: events go in, pass the flow and the verdict, and come out as records.
//!
//! PURE: [`Event`]s are all that an [`Observer`] ever learns, so that a recording of them gives
//! the same records again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use self::event::{Epoch, Event, Output, Settings};
use self::first_bytes::{Around, load_balancers, reached};
pub use self::first_bytes::{Asking, Trusted, Whose, network};
use self::history::History;
use self::sources::LeftOut;
pub use self::sources::Sources;
use self::through::Memory;
use self::told::Told;
use self::unread::Unread;
use crate::cluster::{LocalAddresses, Snapshot};
use crate::flow::{Connection, Flow, Losses};
use crate::observation::{
    DropReason, Entry, Identity, IfIndex, Interfaces, Moment, Observation, Tuple,
};
use crate::record::Record;
use crate::verdict::{self, Before, Knowledge, LoadBalancers};

mod event;
mod first_bytes;
mod history;
mod sources;
#[cfg(test)]
mod tests;
mod through;
mod told;
mod unread;
mod written;

/// Interfaces whose names are remembered, those that are gone included.
const INTERFACES_MAX: usize = 1 << 16;
/// Connections that wait for word of the cluster; what is more is judged by what is known.
const WAITING_MAX: usize = 1 << 14;
/// So long after its opening packet a connection waits for the first word of the cluster.
const FIRST_WORD_NS: u64 = 10_000_000_000;
/// So long after its opening packet a connection that came otherwise than predicted, or by no door
/// that is known, waits for word of a change that it went by: kube-proxy may have heard of it
/// first.
const CHANGE_NS: u64 = 1_500_000_000;

/// One node's observer.
#[derive(Debug)]
pub struct Observer {
    flow: Flow,
    settings: Settings,
    cluster: History,
    local: LocalAddresses,
    interfaces: BTreeMap<IfIndex, Arc<str>>,
    gateways: BTreeSet<IpAddr>,
    /// Connections that wait for conntrack's word.
    asked: HashMap<Identity, Connection>,
    /// Connections that wait for word of the cluster, each until a moment.
    waiting: Vec<(Moment, Connection)>,
    /// Those that could not, because too many did.
    waiting_full: u64,
    /// Connections that wait for what their clients send first.
    unread: Unread,
    /// Which proxies were told of clients, by whom.
    told: Told,
    /// Connections to proxies on this node.
    memory: Memory,
    /// The addresses of load balancers, by the latest of the cluster.
    load_balancers: LoadBalancers,
    /// This node's pods that outsiders reach, by the latest of the cluster.
    reached: HashSet<IpAddr>,
    /// Whose first bytes the programs have no room for, by the latest of the cluster.
    left_out: LeftOut,
    now: Moment,
}

impl Observer {
    /// One that knows of no interface yet; [`Event::Interfaces`] tells. `cluster`: what is known
    /// from the beginning.
    pub fn new(settings: Settings, cluster: Option<Arc<Snapshot>>) -> Self {
        let local = LocalAddresses::new(settings.node.as_str(), []);
        let index = cluster.as_deref().map(|cluster| &cluster.index);
        Self {
            flow: Flow::new(settings.answer_timeout_ns),
            left_out: LeftOut::of(&settings.first_bytes, index, &local),
            local,
            unread: Unread::new(settings.answer_timeout_ns),
            told: Told::new(),
            memory: Memory::default(),
            load_balancers: balancers(cluster.as_deref(), &settings.first_bytes),
            reached: cluster.as_deref().map_or_else(HashSet::new, |cluster| {
                reached(&cluster.index, &settings.node)
            }),
            cluster: History::new(cluster, settings.answer_timeout_ns + CHANGE_NS),
            settings,
            interfaces: BTreeMap::new(),
            gateways: BTreeSet::new(),
            asked: HashMap::new(),
            waiting: Vec::new(),
            waiting_full: 0,
            now: Moment(0),
        }
    }

    /// Takes one event in.
    pub fn handle(&mut self, event: Event) -> Vec<Output> {
        let (mut outputs, connections) = match event {
            Event::Observation(observation) => {
                let connection = self.observed(observation);
                let output = connection.and_then(|connection| self.concluded(connection));
                return output.into_iter().collect();
            }
            Event::Tick(now) => {
                self.now = now;
                let mut outputs = self.reconsidered(|until| until <= now);
                outputs.extend(self.unread_due(|until| until <= now));
                (outputs, self.flow.tick(now))
            }
            Event::End => {
                // No more word comes.
                self.settings.follows_cluster = false;
                let mut outputs = self.reconsidered(|_| true);
                outputs.extend(self.unread_due(|_| true));
                (outputs, self.flow.finish())
            }
            Event::Cluster(since, snapshot) => {
                self.load_balancers = balancers(Some(&snapshot), &self.settings.first_bytes);
                self.reached = reached(&snapshot.index, &self.settings.node);
                let asking = &self.settings.first_bytes;
                self.left_out = LeftOut::of(asking, Some(&snapshot.index), &self.local);
                self.cluster.add(since, snapshot);
                self.keep_standing();
                (self.reconsidered(|_| true), Vec::new())
            }
            Event::Existing {
                identity,
                reply,
                replied,
            } => (self.existing(identity, reply, replied), Vec::new()),
            Event::Rewritten(standing) => {
                self.memory.stood(standing);
                self.keep_standing();
                return Vec::new();
            }
            Event::LookedUp(identity, entry, drop_reason) => {
                (self.looked_up(&identity, entry, drop_reason), Vec::new())
            }
            Event::FirstBytes(identity, reading) => {
                let connection = self.unread.read(identity, reading);
                let output = connection.and_then(|connection| self.judged(&connection));
                (output.into_iter().collect(), Vec::new())
            }
            Event::FirstBytesLost(now) => {
                self.unread.lost(now);
                return Vec::new();
            }
            Event::Lost(now) => {
                self.flow.lost(now);
                self.memory.lost();
                return Vec::new();
            }
            Event::Unseen => {
                self.memory.lost();
                return Vec::new();
            }
            Event::ClusterHeard(away_since) => {
                self.cluster.heard(self.now, away_since);
                return Vec::new();
            }
            Event::Clock(epoch) => {
                self.settings.epoch = epoch;
                return Vec::new();
            }
            Event::Interfaces(Interfaces {
                names,
                addresses,
                gateways,
            }) => {
                self.gateways = gateways;
                self.local = LocalAddresses::new(self.settings.node.as_str(), addresses);
                let latest = self.cluster.latest().map(|latest| &latest.index);
                let asking = &self.settings.first_bytes;
                self.left_out = LeftOut::of(asking, latest, &self.local);
                // A record may still speak of an interface that is gone.
                let names = names.into_iter();
                let names = names.map(|(index, name)| (index, name.into()));
                self.interfaces.extend(names);
                while self.interfaces.len() > INTERFACES_MAX {
                    self.interfaces.pop_first();
                }
                return Vec::new();
            }
        };
        let concluded = connections
            .into_iter()
            .filter_map(|connection| self.concluded(connection));
        outputs.extend(concluded);
        outputs
    }

    /// What comes out of the flow by this. One that was let go is never told of.
    fn observed(&mut self, observation: Observation) -> Option<Connection> {
        let before = self.flow.losses();
        let connection = self.flow.observe(observation);
        if self.flow.losses() != before {
            self.memory.lost();
        }
        connection
    }

    /// One that was there before; its start may have been seen meanwhile.
    fn existing(&mut self, identity: Identity, reply: Tuple, replied: bool) -> Vec<Output> {
        if self.flow.knows(identity.protocol, &identity.original) {
            return Vec::new();
        }
        let connection = Connection::existing(identity, reply, replied);
        self.judged(&connection).into_iter().collect()
    }

    /// Conntrack's word on one that waits for it.
    fn looked_up(
        &mut self,
        identity: &Identity,
        entry: Option<Entry>,
        drop_reason: Option<DropReason>,
    ) -> Vec<Output> {
        let Some(connection) = self.asked.remove(identity) else {
            return Vec::new();
        };
        let mut connection = match entry {
            Some(entry) => connection.with_entry(entry),
            None => connection,
        };
        connection.drop_reason = drop_reason;
        self.judged(&connection).into_iter().collect()
    }

    /// What could not be kept.
    pub const fn losses(&self) -> Losses {
        self.flow.losses()
    }

    /// Connections that were judged without waiting for word of the cluster: too many did.
    pub const fn waiting_full(&self) -> u64 {
        self.waiting_full
    }

    /// Whether nothing waits any more that was opened before this moment.
    pub fn is_through_with(&self, moment: Moment) -> bool {
        let mut waiting = self
            .asked
            .values()
            .chain(self.waiting.iter().map(|(_, waiting)| waiting))
            .chain(self.unread.connections());
        let is_before = |opened_at: Moment| opened_at < moment;
        !self.flow.has_pending_before(moment)
            && !waiting.any(|connection| connection.opened_at.is_some_and(is_before))
    }

    /// A connection whose answer is missing is conntrack's affair first.
    fn concluded(&mut self, connection: Connection) -> Option<Output> {
        if !connection.is_unanswered() {
            // Before its proxy can have opened another for it.
            self.keep_accepted(&connection);
            let moment = connection.opened_at.unwrap_or(self.now);
            let around = Around {
                asking: &self.settings.first_bytes,
                index: self.cluster.at(moment).map(|held| &held.index),
                local: &self.local,
                load_balancers: &self.load_balancers,
                reached: &self.reached,
                left_out: &self.left_out,
                memory: &self.memory,
                identity: connection.identity,
                opened_at: connection.opened_at,
                is_own: self.is_own(&connection),
                is_linked: false,
            };
            let connection = self.unread.waits(connection, around, self.now)?;
            return self.judged(&connection);
        }
        let identity = connection.identity;
        let may_be_reported = self.cluster.is_empty()
            || connection.departure.is_some()
            || verdict::judge(
                &connection,
                self.knowledge(&connection, self.held(&connection)),
            )
            .is_some();
        may_be_reported.then(|| {
            self.asked.insert(identity, connection);
            Output::Ask(identity)
        })
    }

    /// The record of a connection; `None` if nobody asks about it, or if it waits for word of the
    /// cluster.
    fn judged(&mut self, connection: &Connection) -> Option<Output> {
        if self.cluster.is_empty() && self.waits(connection, FIRST_WORD_NS) {
            return None;
        }
        let Some(mut record) = self.record(connection) else {
            self.keep_unreported(connection);
            return None;
        };
        let is_unexplained = record.as_expected == Some(false)
            || (record.front_door.kind.is_none() && !self.settings.all);
        if is_unexplained && self.waits(connection, CHANGE_NS) {
            return None;
        }
        self.told.note(&record, connection.opened_at);
        self.keep_reported(connection, &record);
        self.link(connection, &mut record);
        Some(Output::Record(connection.opened_at, Arc::new(record)))
    }

    /// What waited for its first bytes, if its time is up.
    fn unread_due(&mut self, is_due: impl Fn(Moment) -> bool) -> Vec<Output> {
        let due = self.unread.due(is_due);
        let judged = due.into_iter().filter_map(|due| self.judged(&due));
        judged.collect()
    }

    /// What waits is judged anew, if its time is up or word has come.
    fn reconsidered(&mut self, is_due: impl Fn(Moment) -> bool) -> Vec<Output> {
        let due: Vec<_> = self
            .waiting
            .extract_if(.., |(until, _)| is_due(*until))
            .collect();
        due.into_iter()
            .filter_map(|(_, connection)| self.judged(&connection))
            .collect()
    }

    /// Lets a connection wait until it is so old; not if it is already.
    fn waits(&mut self, connection: &Connection, age_ns: u64) -> bool {
        let Some(Moment(opened_at)) = connection.opened_at else {
            return false;
        };
        let until = Moment(opened_at.saturating_add(age_ns));
        if !self.settings.follows_cluster || until <= self.now {
            return false;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting_full += 1;
            return false;
        }
        self.waiting.push((until, connection.clone()));
        true
    }

    /// By the cluster as it was when the opening packet came. Where that comes out otherwise than
    /// it predicts, and the cluster was another shortly before or soon after, the connection went
    /// by that one if it comes out as that predicts: kube-proxy takes its time.
    fn record(&self, connection: &Connection) -> Option<Record> {
        self.record_of(connection, self.settings.all)
    }

    /// The same, perhaps of one that nobody asks about.
    fn record_of(&self, connection: &Connection, all: bool) -> Option<Record> {
        let by = |snapshot| {
            let knowledge = Knowledge {
                all,
                ..self.knowledge(connection, snapshot)
            };
            let verdict = verdict::judge(connection, knowledge)?;
            Some(self.written(connection, verdict))
        };
        let record = by(self.held(connection));
        let moment = connection.opened_at.unwrap_or(self.now);
        let is_unexpected = |record: &Record| record.as_expected == Some(false);
        if record.as_ref().is_none_or(is_unexpected)
            && let Some(explained) = self
                .cluster
                .around(moment)
                .filter_map(|snapshot| by(Some(snapshot)))
                .find(|record| record.as_expected == Some(true))
        {
            return Some(explained);
        }
        record
    }

    /// The cluster when the opening packet came; now, if that was not seen.
    fn held(&self, connection: &Connection) -> Option<&Snapshot> {
        self.cluster.at(connection.opened_at.unwrap_or(self.now))
    }

    fn knowledge<'a>(
        &'a self,
        connection: &Connection,
        cluster: Option<&'a Snapshot>,
    ) -> Knowledge<'a> {
        let mut knowledge = Knowledge {
            index: cluster.map(|cluster| &cluster.index),
            kube_proxy: cluster.and_then(|cluster| cluster.kube_proxy.as_ref()),
            local: &self.local,
            all: self.settings.all,
            before: Before {
                load_balancers: Some(&self.load_balancers),
                gateways: Some(&self.gateways),
                ..Before::default()
            },
            readers: cluster.map_or(&[], |cluster| &cluster.readers),
        };
        if let Some(reading) = &connection.first_bytes {
            let (client, door) = verdict::arrived(connection, knowledge);
            let around = self.around(connection, cluster);
            knowledge.before.said = around.said(reading, client, &door);
            knowledge.before.is_believed = around.is_believed(reading, client, &door);
            let opened_at = connection.opened_at;
            let proxy = client.address.ip();
            knowledge.before.replaces = self.told.replaces(proxy, opened_at, reading);
        }
        knowledge
    }

    fn around<'a>(&'a self, connection: &Connection, cluster: Option<&'a Snapshot>) -> Around<'a> {
        Around {
            asking: &self.settings.first_bytes,
            index: cluster.map(|cluster| &cluster.index),
            local: &self.local,
            load_balancers: &self.load_balancers,
            reached: &self.reached,
            left_out: &self.left_out,
            memory: &self.memory,
            identity: connection.identity,
            opened_at: connection.opened_at,
            is_own: self.is_own(connection),
            is_linked: false,
        }
    }

    /// Whether a process of this node opened it: that nothing was seen to come is not enough.
    fn is_own(&self, connection: &Connection) -> bool {
        connection.is_own()
            && self
                .local
                .contains(connection.identity.original.source.ip())
    }

    fn node(&self) -> Arc<str> {
        self.local.shared_node()
    }

    /// Its name; its number if it came after the names were read.
    fn interface(&self, index: IfIndex) -> Arc<str> {
        self.interfaces
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{}", index.0).into())
    }
}

fn balancers(cluster: Option<&Snapshot>, asking: &Asking) -> LoadBalancers {
    let index = cluster.map(|cluster| &cluster.index);
    load_balancers(index, &asking.load_balancers)
}
