//! Which connection a proxy on this node speaks for.

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Candidates, Inbound, Key, Memory, Proxy, Stage, Word};
use crate::cluster::{AddressKind, Protocol};
use crate::flow::{Answer, Connection};
use crate::observation::Entry;
use crate::observe::{Around, Observer, Whose};
use crate::payload::{Carrier, Chain, Reading, Trust};
use crate::record::{self, Confidence, Record, Through, ThroughClient};
use crate::verdict::{self, ClientKind, FrontDoor, SourceIp};

/// Whom a header names last: whoever wrote it was spoken to from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    ip: IpAddr,
    port: Option<u16>,
    /// To which end of its own.
    to: Option<SocketAddr>,
}

/// A connection's link.
struct Link {
    through: Through,
    /// Where the address was replaced on the way to the proxy.
    losses: Vec<record::Loss>,
    /// Who is behind a masquerade that the header names.
    unmasked: Option<IpAddr>,
}

impl Observer {
    /// Keeps a connection that came to this node, or to a pod on it: a proxy may be there. Before
    /// its proxy can have opened another for it.
    pub(in crate::observe) fn keep_accepted(&mut self, connection: &Connection) {
        self.keep(connection, None, Word::First);
    }

    /// Keeps its record, too.
    pub(in crate::observe) fn keep_reported(&mut self, connection: &Connection, record: &Record) {
        self.keep(connection, Some(record), Word::Again);
    }

    fn keep(&mut self, connection: &Connection, record: Option<&Record>, word: Word) {
        if self.settings.first_bytes.whose == Whose::Off || !is_accepted(connection) {
            return;
        }
        if self.held(connection).is_none() {
            // It may have gone to any pod.
            self.memory.left_out();
        }
        let Some((proxy, inbound)) = self.inbound(connection, record) else {
            return;
        };
        let shown = inbound.reply.destination.ip().to_canonical();
        let source = connection.identity.original.source.ip().to_canonical();
        let is_masquerade = shown != source || self.local.contains(shown);
        // A proxy that believes the header goes by the address in it.
        if let Some(record) = record
            && let Some(named) = recovered(record, connection)
            && named.ip != shown
        {
            let key = Key {
                proxy,
                shown: named.ip,
            };
            let inbound = Inbound {
                port: named.port,
                by_header: true,
                ..inbound.clone()
            };
            // So far it was not known by that.
            self.memory.keep(key, false, Word::First, inbound);
        }
        self.memory
            .keep(Key { proxy, shown }, is_masquerade, word, inbound);
    }

    /// Keeps one that nobody asks about, as to what listens in the node's network: what became of
    /// it is found out when something is opened for it.
    pub(in crate::observe) fn keep_unreported(&mut self, connection: &Connection) {
        self.keep(connection, None, Word::Again);
    }

    /// Whether all connections whose source this node has rewritten are to be read from conntrack
    /// ([`Event::Rewritten`]); once told, it is no longer. Only then is it known who may be behind a
    /// masquerade.
    ///
    /// [`Event::Rewritten`]: crate::observe::Event::Rewritten
    pub fn asks_for_rewritten(&mut self) -> bool {
        // Where they went is not known before.
        !self.cluster.is_empty() && self.memory.take_to_be_read()
    }

    /// Keeps those that stood before the observation, once it is known where they went.
    pub(in crate::observe) fn keep_standing(&mut self) {
        if self.cluster.is_empty() {
            return;
        }
        let Some(standing) = self.memory.take_standing() else {
            return;
        };
        self.memory.set_complete();
        for (identity, reply) in standing {
            let connection = Connection::existing(identity, reply, true);
            if let Some((proxy, inbound)) = self.inbound(&connection, None) {
                let shown = reply.destination.ip().to_canonical();
                let key = Key { proxy, shown };
                self.memory.keep_older(key, inbound);
            }
        }
    }

    fn inbound(
        &self,
        connection: &Connection,
        record: Option<&Record>,
    ) -> Option<(Proxy, Inbound)> {
        let reply = connection.translation?.reply;
        let at = reply.source;
        let index = &self.held(connection)?.index;
        let node = index.backend(Protocol::Tcp, at.ip(), at.port()).node;
        let proxy = if self.local.contains(at.ip()) {
            Proxy::Host
        } else if node.is_some_and(|node| node != self.local.node())
            || index.address_kind(at.ip(), &self.local) == AddressKind::External
        {
            return None;
        } else {
            Proxy::Pod(at.ip().to_canonical())
        };
        let inbound = Inbound {
            connection: Connection {
                first_bytes: None,
                ..connection.clone()
            },
            reply,
            port: Some(reply.destination.port()),
            by_header: false,
            stage: record.map(|record| Box::new(Stage::of(record))),
        };
        Some((proxy, inbound))
    }

    /// Says in the record of a connection that a proxy on this node opened which one it speaks for,
    /// and who is behind the masquerade that its header names.
    pub(in crate::observe) fn link(&mut self, connection: &Connection, record: &mut Record) {
        let Some(reading @ Reading::Found(chains)) = &connection.first_bytes else {
            return;
        };
        let Some(named) = named(chains) else {
            return;
        };
        let mut memory = mem::take(&mut self.memory);
        let link = self.linked(&mut memory, connection, named);
        self.memory = memory;
        let Some(Link {
            through,
            losses,
            unmasked,
        }) = link
        else {
            return;
        };
        record.through = Some(through);
        if record.backend.is_none() {
            // No endpoint was chosen: there is no source that one could have seen.
            return;
        }
        // Those came first.
        record.losses.splice(..0, losses);
        if let Some(first) = record.losses.first() {
            record.source_ip = SourceIp::Lost;
            record.lost_at = Some(first.at.clone());
            record.cause = Some(first.cause.clone());
        }
        if let Some(behind) = unmasked {
            self.unmask(connection, record, reading, behind);
        }
    }

    fn linked(&self, memory: &mut Memory, connection: &Connection, named: Named) -> Option<Link> {
        let proxy = self.proxy(connection)?;
        let key = Key {
            proxy,
            shown: named.ip,
        };
        let candidates = memory.candidates(&key, (named.port, named.to), connection)?;
        let stage = self.stage(&candidates);
        let kept = &candidates.kept;
        let one = match &kept[..] {
            [one] if candidates.forgotten == 0 => Some(&**one),
            _ => None,
        };
        let confidence = match one {
            Some(_) if candidates.by_port => Confidence::Exact,
            Some(_) => Confidence::Likely,
            None => Confidence::Ambiguous,
        };
        let is_certain = candidates.is_all || confidence == Confidence::Exact;
        let client = stage.client.filter(|_| is_certain);
        let is_direct = kept.iter().all(|inbound| !inbound.by_header);
        let behind = client.filter(|ip| is_direct && *ip != named.ip);
        let through = Through {
            proxy: self.of_proxy(connection, kept),
            client: client.map(|ip| ThroughClient {
                ip,
                port: one.map(|one| one.connection.identity.original.source.port()),
                kind: stage.kind.unwrap_or(ClientKind::Unknown),
            }),
            front_door: stage.front_door,
            service: stage.service,
            source_ip: stage.source_ip,
            lost_at: stage.lost_at,
            cause: stage.cause,
            extra_hops: stage.extra_hops,
            opened_before_ns: one.and_then(|one| {
                let opened_at = connection.opened_at?;
                Some(opened_at.nanoseconds_since(one.connection.opened_at?))
            }),
            confidence,
            candidates: candidates.forgotten + kept.len() as u64,
        };
        Some(Link {
            through,
            losses: stage.losses.unwrap_or_default(),
            unmasked: behind,
        })
    }

    /// The proxy on this node that opened a connection, if it may write a header.
    fn proxy(&self, connection: &Connection) -> Option<Proxy> {
        let source = connection.identity.original.source.ip().to_canonical();
        if self.around(connection, self.held(connection)).trust(source) == Trust::None {
            return None;
        }
        if self.local.contains(source) {
            return self.is_own(connection).then_some(Proxy::Host);
        }
        let index = &self.held(connection)?.index;
        let node = index.backend(Protocol::Tcp, source, 0).node;
        let is_here = node == Some(self.local.node()) && index.is_pod(source);
        is_here.then_some(Proxy::Pod(source))
    }

    fn of_proxy(&self, connection: &Connection, kept: &[&mut Inbound]) -> record::Proxy {
        let ip = connection.identity.original.source.ip().to_canonical();
        let mut ends = kept.iter().map(|inbound| inbound.reply.source);
        // In the node's network there may be several.
        let is_it = |end: &SocketAddr| !self.local.contains(end.ip()) || ends.all(|it| it == *end);
        let end = kept.first().map(|inbound| inbound.reply.source);
        let end = end.filter(is_it);
        let pod = self.held(connection).zip(end).and_then(|(held, end)| {
            let backend = held.index.backend(Protocol::Tcp, end.ip(), end.port());
            Some(Arc::clone(&backend.pod?.name))
        });
        record::Proxy {
            ip,
            pod,
            node: self.node(),
        }
    }

    /// What became of all candidates.
    fn stage(&self, candidates: &Candidates<'_>) -> Stage {
        let mut common = candidates.of_forgotten.cloned();
        let kept = candidates.kept.iter().map(|inbound| &**inbound);
        for inbound in kept.chain(candidates.bare) {
            let of_it = || {
                let record = self.record_of(&inbound.connection, true);
                Box::new(record.as_ref().map_or_else(Stage::default, Stage::of))
            };
            // Its own record may come later, and know more.
            let stage = inbound.stage.clone().unwrap_or_else(of_it);
            common = Some(match common.take() {
                Some(common) => common.in_common(&stage),
                None => *stage,
            });
        }
        common.unwrap_or_default()
    }

    /// Reads the header anew, with who is behind the masquerade in the place of that.
    fn unmask(
        &self,
        connection: &Connection,
        record: &mut Record,
        reading: &Reading,
        behind: IpAddr,
    ) {
        let mut reading = reading.clone();
        if let Reading::Found(chains) = &mut reading {
            for last in chains.iter_mut().filter_map(|chain| chain.hops.last_mut()) {
                *last = Some(behind);
            }
        }
        let original = connection.identity.original;
        let client = verdict::Client {
            address: original.source,
            kind: record.client.kind,
        };
        let door = FrontDoor {
            kind: record.front_door.kind,
            address: original.destination,
        };
        let around = Around {
            is_linked: true,
            ..self.around(connection, self.held(connection))
        };
        let found = around.client(&reading, client, &door);
        if let Ok(found) = found {
            record.client.recovered = Some(found.address);
            record.client.recovered_from = Some(if found.address == behind {
                Carrier::InboundConnection
            } else {
                found.from
            });
            record.client.not_recovered = None;
        }
    }
}

/// Whether a proxy can have got it.
fn is_accepted(connection: &Connection) -> bool {
    connection.identity.protocol == Protocol::Tcp
        && match connection.answer {
            Answer::Accepted(_) => true,
            Answer::Refused(..) => false,
            Answer::None => {
                matches!(connection.entry, Some(Entry::Present { replied: true, .. }))
            }
        }
}

/// Whom all headers name last. Where they differ, one may be the client's own.
fn named(chains: &[Chain]) -> Option<Named> {
    let mut last = chains.iter().map(|chain| {
        let ip = chain.hops.last().copied().flatten()?;
        Some(Named {
            ip,
            port: chain.port,
            to: chain.to,
        })
    });
    let first = last.next()??;
    last.all(|other| other == Some(first)).then_some(first)
}

/// The client that a connection's own header names, if it is believed.
fn recovered(record: &Record, connection: &Connection) -> Option<Named> {
    let ip = record.client.recovered?;
    let Some(Reading::Found(chains)) = &connection.first_bytes else {
        return None;
    };
    let is_last = |named: &Named| named.ip == ip;
    let port = named(chains).filter(is_last).and_then(|named| named.port);
    Some(Named { ip, port, to: None })
}
