//! Where the four meet: observations go through the flow and the verdict, and come out as
//! records.

use std::collections::HashMap;

use crate::cluster::{Index, LocalAddresses};
use crate::flow::{Answer, Answered, Connection, Flow, Losses};
use crate::observation::{IfIndex, Moment, Observation};
use crate::record::{self, Record};
use crate::verdict::{self, Knowledge, Lost, Verdict};

/// What time it is: the wall clock's reading at the kernel's moment 0.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(pub jiff::Timestamp);

impl Epoch {
    /// RFC 3339 in UTC, to the microsecond.
    fn format(self, moment: Moment) -> String {
        let elapsed = jiff::SignedDuration::from_nanos(i64::try_from(moment.0).unwrap_or(i64::MAX));
        let at = self.0.checked_add(elapsed).unwrap_or(jiff::Timestamp::MAX);
        at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }
}

/// One node's observer.
#[derive(Debug)]
pub struct Observer {
    flow: Flow,
    index: Option<Index>,
    local: LocalAddresses,
    interfaces: HashMap<IfIndex, String>,
    epoch: Epoch,
}

impl Observer {
    /// `interfaces`: the names of the node's interfaces. `answer_timeout_ns`: as for [`Flow::new`].
    pub fn new(
        index: Option<Index>,
        local: LocalAddresses,
        interfaces: HashMap<IfIndex, String>,
        epoch: Epoch,
        answer_timeout_ns: u64,
    ) -> Self {
        Self {
            flow: Flow::new(answer_timeout_ns),
            index,
            local,
            interfaces,
            epoch,
        }
    }

    /// Takes one observation in. A connection comes out if this made its outcome known.
    pub fn observe(&mut self, observation: Observation) -> Option<Connection> {
        self.flow.observe(observation)
    }

    /// What the answer time-out ends at `now`.
    pub fn tick(&mut self, now: Moment) -> Vec<Connection> {
        self.flow.tick(now)
    }

    /// What is pending when the run ends.
    pub fn finish(&mut self) -> Vec<Connection> {
        self.flow.finish()
    }

    /// What could not be kept.
    pub const fn losses(&self) -> Losses {
        self.flow.losses()
    }

    /// Judges a connection; `None` if it is none that people ask about.
    pub fn judge(&self, connection: &Connection) -> Option<Record> {
        let knowledge = Knowledge {
            index: self.index.as_ref(),
            local: &self.local,
        };
        let verdict = verdict::judge(connection, knowledge)?;
        Some(self.record(connection, verdict))
    }

    fn record(&self, connection: &Connection, verdict: Verdict) -> Record {
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
        } = verdict;
        Record {
            schema: record::SCHEMA,
            observed_at: self.epoch.format(connection.opened_at),
            node: self.node(),
            from: record::From::Start,
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
            path: vec![self.step(connection)],
            round_trip_ns: match connection.answer {
                Answer::Accepted(Answered { at, .. }) => {
                    Some(at.nanoseconds_since(connection.opened_at))
                }
                Answer::Refused(_) | Answer::None => None,
            },
            expected: None,
            as_expected: None,
            advice: Vec::new(),
        }
    }

    fn step(&self, connection: &Connection) -> record::Step {
        let Connection {
            arrival, departure, ..
        } = connection;
        let answer_arrival = match connection.answer {
            Answer::Accepted(answered) | Answer::Refused(answered) => answered.arrival,
            Answer::None => None,
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
        }
    }

    fn node(&self) -> String {
        self.local.node().to_owned()
    }

    /// Its name; its number if it came after the names were read.
    fn interface(&self, index: IfIndex) -> String {
        self.interfaces
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{}", index.0))
    }
}
