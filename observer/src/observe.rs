//! Where the four meet: events go in, pass the flow and the verdict, and come out as records.
//!
//! PURE: [`Event`]s are all that an [`Observer`] ever learns, so that a recording of them gives
//! the same records again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::{Index, KubeProxy, LocalAddresses};
use crate::flow::{Answer, Answered, Connection, Flow, Losses};
use crate::observation::{
    DropReason, Entry, Identity, IfIndex, Interfaces, Moment, Observation, Tuple,
};
use crate::record::{self, Record};
use crate::verdict::{self, Knowledge, Lost, Verdict};

/// Interfaces whose names are remembered, those that are gone included.
const INTERFACES_MAX: usize = 1 << 16;

/// What time it is: the wall clock's reading at the kernel's moment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch(pub jiff::Timestamp);

impl Epoch {
    /// RFC 3339 in UTC, to the microsecond.
    fn format(self, moment: Moment) -> String {
        let elapsed = jiff::SignedDuration::from_nanos(i64::try_from(moment.0).unwrap_or(i64::MAX));
        let at = self.0.checked_add(elapsed).unwrap_or(jiff::Timestamp::MAX);
        at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }
}

/// Everything that reaches an observer from outside, in its order: with the settings, all that
/// its records follow from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The node's interfaces or addresses are these from now on.
    Interfaces(Interfaces),
    /// Observations were lost, at any time before this moment.
    Lost(Moment),
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
    /// A connection's outcome is known.
    Record(Box<Record>),
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
}

/// One node's observer.
#[derive(Debug)]
pub struct Observer {
    flow: Flow,
    settings: Settings,
    index: Option<Arc<Index>>,
    kube_proxy: Option<KubeProxy>,
    local: LocalAddresses,
    interfaces: BTreeMap<IfIndex, String>,
    /// Connections that wait for conntrack's word.
    asked: HashMap<Identity, Connection>,
}

impl Observer {
    /// One that knows of no interface yet; [`Event::Interfaces`] tells.
    pub fn new(
        settings: Settings,
        index: Option<Arc<Index>>,
        kube_proxy: Option<KubeProxy>,
    ) -> Self {
        Self {
            flow: Flow::new(settings.answer_timeout_ns),
            local: LocalAddresses::new(settings.node.as_str(), []),
            settings,
            index,
            kube_proxy,
            interfaces: BTreeMap::new(),
            asked: HashMap::new(),
        }
    }

    /// Takes one event in.
    pub fn handle(&mut self, event: Event) -> Vec<Output> {
        let connections = match event {
            Event::Observation(observation) => self.flow.observe(observation).into_iter().collect(),
            Event::Lost(now) => {
                self.flow.lost(now);
                return Vec::new();
            }
            Event::Tick(now) => self.flow.tick(now),
            Event::End => self.flow.finish(),
            Event::Existing {
                identity,
                reply,
                replied,
            } => {
                // Its start may have been seen meanwhile.
                if self.flow.knows(identity.protocol, &identity.original) {
                    return Vec::new();
                }
                let connection = Connection::existing(identity, reply, replied);
                return self.record(&connection).into_iter().collect();
            }
            Event::LookedUp(identity, entry, drop_reason) => {
                let Some(connection) = self.asked.remove(&identity) else {
                    return Vec::new();
                };
                let mut connection = match entry {
                    Some(entry) => connection.with_entry(entry),
                    None => connection,
                };
                connection.drop_reason = drop_reason;
                return self.record(&connection).into_iter().collect();
            }
            Event::Interfaces(Interfaces { names, addresses }) => {
                self.local = LocalAddresses::new(self.settings.node.as_str(), addresses);
                // A record may still speak of an interface that is gone.
                self.interfaces.extend(names);
                while self.interfaces.len() > INTERFACES_MAX {
                    self.interfaces.pop_first();
                }
                return Vec::new();
            }
        };
        connections
            .into_iter()
            .filter_map(|connection| self.concluded(connection))
            .collect()
    }

    /// What could not be kept.
    pub const fn losses(&self) -> Losses {
        self.flow.losses()
    }

    /// A connection whose answer is missing is conntrack's affair first.
    fn concluded(&mut self, connection: Connection) -> Option<Output> {
        if !connection.is_unanswered() {
            return self.record(&connection);
        }
        let identity = connection.identity;
        let may_be_reported = self.index.is_none()
            || connection.departure.is_some()
            || verdict::judge(&connection, self.knowledge()).is_some();
        may_be_reported.then(|| {
            self.asked.insert(identity, connection);
            Output::Ask(identity)
        })
    }

    fn record(&self, connection: &Connection) -> Option<Output> {
        let verdict = verdict::judge(connection, self.knowledge())?;
        Some(Output::Record(Box::new(self.written(connection, verdict))))
    }

    fn knowledge(&self) -> Knowledge<'_> {
        Knowledge {
            index: self.index.as_deref(),
            kube_proxy: self.kube_proxy.as_ref(),
            local: &self.local,
            all: self.settings.all,
        }
    }

    fn written(&self, connection: &Connection, verdict: Verdict) -> Record {
        let Verdict {
            service,
            front_door,
            client,
            backend,
            source_seen,
            source_ip,
            lost_at,
            cause,
            outcome,
            outcome_cause,
            extra_hops,
            expected,
        } = verdict;
        let why = outcome_cause.as_ref().map(|cause| cause.code);
        let as_expected = expected.map(|expected| expected.is_met_by(source_ip, outcome, why));
        Record {
            schema: record::SCHEMA,
            observed_at: connection
                .opened_at
                .map(|opened_at| self.settings.epoch.format(opened_at)),
            node: self.node(),
            from: match connection.opened_at {
                Some(_) => record::From::Start,
                None => record::From::Conntrack,
            },
            protocol: connection.identity.protocol,
            service: service.map(|port| record::Service {
                namespace: port.service.namespace.to_string(),
                name: port.service.name.to_string(),
                port: port.name.map(|name| name.to_string()),
            }),
            front_door: record::FrontDoor {
                kind: front_door.kind,
                ip: front_door.address.ip().to_canonical(),
                port: front_door.address.port(),
            },
            client: record::Client {
                ip: client.address.ip().to_canonical(),
                port: client.address.port(),
                kind: client.kind,
                recovered: None,
            },
            backend: backend.map(|backend| record::Backend {
                ip: backend.address.ip().to_canonical(),
                port: backend.address.port(),
                pod: backend.pod.map(|pod| pod.name.to_string()),
                node: backend.node,
            }),
            source_seen: source_seen.map(Into::into),
            source_ip,
            lost_at: lost_at.map(|Lost { interface, by }| record::LostAt {
                node: self.node(),
                interface: interface.map(|interface| self.interface(interface)),
                by,
            }),
            cause,
            outcome,
            outcome_cause,
            extra_hops,
            extra_hop_ns: None,
            hop_check: None,
            path: connection
                .opened_at
                .iter()
                .map(|_| self.step(connection))
                .collect(),
            round_trip_ns: match (connection.answer, connection.opened_at) {
                (Answer::Accepted(Answered { at, .. }), Some(opened_at)) => {
                    Some(at.nanoseconds_since(opened_at))
                }
                _ => None,
            },
            expected,
            as_expected,
            advice: Vec::new(),
        }
    }

    fn step(&self, connection: &Connection) -> record::Step {
        let Connection {
            arrival, departure, ..
        } = connection;
        let answer_arrival = match connection.answer {
            Answer::Accepted(answered) | Answer::Refused(_, answered) => answered.arrival,
            Answer::None => connection.stray,
        };
        record::Step {
            node: self.node(),
            r#in: arrival.map(|arrival| self.interface(arrival.interface)),
            out: departure.map(|departure| self.interface(departure.interface)),
            ttl_in: arrival.map(|arrival| arrival.ttl.0),
            ttl_out: departure.map(|departure| departure.ttl.0),
            reply_ttl_in: answer_arrival.map(|arrival| arrival.ttl.0),
            forward_ns: arrival
                .zip(*departure)
                .map(|(arrival, departure)| departure.at.nanoseconds_since(arrival.at)),
            reply_ns: departure
                .filter(|_| !connection.repeated)
                .zip(answer_arrival)
                .map(|(departure, reply)| reply.at.nanoseconds_since(departure.at)),
        }
    }

    fn node(&self) -> String {
        self.settings.node.clone()
    }

    /// Its name; its number if it came after the names were read.
    fn interface(&self, index: IfIndex) -> String {
        self.interfaces
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{}", index.0))
    }
}
