//! From a verdict to its record.

use super::Observer;
use crate::flow::{Answer, Answered, Connection};
use crate::payload::Reading;
use crate::record::{self, Record};
use crate::verdict::{self, Loss, Lost, Verdict};

impl Observer {
    pub(super) fn written(&self, connection: &Connection, verdict: Verdict) -> Record {
        let Verdict {
            service,
            external_traffic_policy,
            front_door,
            client,
            backend,
            source_seen,
            source_ip,
            losses,
            cause,
            outcome,
            outcome_cause,
            extra_hops,
            expected,
            as_expected,
            advice,
            beyond,
            findings,
        } = verdict;
        let losses: Vec<_> = losses.into_iter().map(|loss| self.loss(loss)).collect();
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
                namespace: port.service.namespace,
                name: port.service.name,
                port: port.name,
                external_traffic_policy,
            }),
            front_door: record::FrontDoor {
                kind: front_door.kind,
                ip: front_door.address.ip().to_canonical(),
                port: front_door.address.port(),
            },
            client: self.client(connection, client, &front_door),
            through: None,
            backend: backend.map(|backend| record::Backend {
                ip: backend.address.ip().to_canonical(),
                port: backend.address.port(),
                pod: backend.pod.map(|pod| pod.name),
                node: backend.node,
            }),
            source_seen: source_seen.map(Into::into),
            source_ip,
            lost_at: losses.first().map(|loss| loss.at.clone()),
            cause,
            losses,
            beyond,
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
            cluster_stale_s: connection
                .opened_at
                .and_then(|opened_at| self.cluster.stale_s(opened_at)),
            advice: advice.into_iter().map(record::Advice::of).collect(),
            findings,
        }
    }

    fn loss(&self, loss: Loss) -> record::Loss {
        let Loss { at, cause } = loss;
        let Lost {
            node,
            interface,
            by,
        } = at;
        record::Loss {
            at: record::LostAt {
                node,
                interface: interface.map(|interface| self.interface(interface)),
                by,
            },
            cause,
        }
    }

    /// Who opened it, and for whom, if its first bytes tell.
    fn client(
        &self,
        connection: &Connection,
        client: verdict::Client,
        door: &verdict::FrontDoor,
    ) -> record::Client {
        let reading = connection.first_bytes.as_ref();
        let recovered = reading.map(|reading| {
            let around = self.around(connection, self.held(connection));
            around.client(reading, client, door)
        });
        let found = recovered.and_then(Result::ok);
        record::Client {
            ip: client.address.ip().to_canonical(),
            port: client.address.port(),
            kind: client.kind,
            recovered: found.map(|found| found.address),
            recovered_from: found.map(|found| found.from),
            hops_listed: reading
                .and_then(Reading::hops_listed)
                .map(|hops| u16::try_from(hops).unwrap_or(u16::MAX)),
            not_recovered: recovered.and_then(Result::err),
            server_name: reading.and_then(Reading::server_name).map(str::to_owned),
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
}
