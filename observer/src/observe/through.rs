//! Connections to proxies on this node, kept so that what a proxy opens for one of them can be told
//! to be for it.
//!
//! A proxy writes into its header whom its own socket saw: the source that the connection to it was
//! shown as, after any masquerade. So connections are kept by the proxy that got them and by that
//! address. Of a PROXY header, and of some others, the port is known too, which only one connection
//! has at a time.
//!
//! PURE. Nothing tells when a connection ends, and one may be kept alive for hours. So they are
//! forgotten for room only, those longest ago first; and what those that are forgotten had in common
//! is kept.

mod link;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::net::{IpAddr, SocketAddr};

use hashlink::LruCache;

pub(super) use self::stage::Stage;
use crate::flow::Connection;
use crate::observation::{Identity, Moment, Tuple};

/// Connections that are kept, in all; what was not asked for longest makes room.
const INBOUND_MAX: usize = 1 << 14;
/// Those that one proxy got from one address: what it opens for one is known for certain only some
/// 150 ms later, by when the same client may have come a hundred times more.
const INBOUND_OF_ONE_MAX: usize = 1_024;
/// Kinds of connections of one address that are forgotten before it is known what became of them:
/// by as many doors it may have come.
const BARE_MAX: usize = 4;
/// Pairs of a proxy and a masquerade.
const MASQUERADED_MAX: usize = 1 << 8;

/// Where a proxy on this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Proxy {
    /// In the node's network: it has every address of the node.
    Host,
    /// In a pod of its own network, of this address.
    Pod(IpAddr),
}

/// Whom a proxy got connections from, as it was shown them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) proxy: Proxy,
    pub(super) shown: IpAddr,
}

/// A connection to a proxy.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    /// Without its first bytes.
    pub(super) connection: Connection,
    /// Proxy → whom its socket sees.
    pub(super) reply: Tuple,
    /// From which port it was shown to come; `None` if the proxy goes by a header that has none.
    pub(super) port: Option<u16>,
    /// Whether what the proxy is shown is the address in a header that came by it, not its source.
    pub(super) by_header: bool,
    /// What became of it, once that is known.
    pub(super) stage: Option<Box<Stage>>,
}

/// When a connection is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// As soon as it is accepted: none is newer.
    First,
    /// Once more is known of it: others came since, and may have pushed it out.
    Again,
}

/// Connections that one proxy got from one address, the newest last.
#[derive(Debug, Default)]
struct Way {
    kept: VecDeque<Inbound>,
    forgotten: u64,
    /// When the newest of those was opened.
    forgotten_until: Option<Moment>,
    /// What those have in common of which it is known what became of them.
    of_forgotten: Option<Stage>,
    /// The others: one for all that are alike.
    bare: Vec<Inbound>,
}

/// All that is kept.
#[derive(Debug)]
pub(super) struct Memory {
    ways: LruCache<Key, Way>,
    /// Those whose address is a masquerade: others may be behind it, so none may be forgotten
    /// without a word.
    masqueraded: HashMap<Key, Way>,
    /// How many connections are in `ways`.
    number: usize,
    /// Whether every connection from behind a masquerade is known, those of before the observation
    /// included.
    is_complete: bool,
    /// Those that stood before, until it is known where they went.
    standing: Option<Vec<(Identity, Tuple)>>,
    /// Whether what stands is to be read from conntrack: nobody did yet, or something was missed
    /// since.
    is_to_be_read: bool,
}

/// The connections that a proxy may speak for.
#[derive(Debug)]
pub(super) struct Candidates<'memory> {
    pub(super) kept: Vec<&'memory mut Inbound>,
    pub(super) forgotten: u64,
    /// What the forgotten ones have in common, except those of `bare`.
    pub(super) of_forgotten: Option<&'memory Stage>,
    /// Forgotten ones of which it is still to be found out, one for all that are alike.
    pub(super) bare: &'memory [Inbound],
    /// Whether the header names the port, too.
    pub(super) by_port: bool,
    /// Whether nobody else than the clients of these can be behind the address.
    pub(super) is_all: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            ways: LruCache::new_unbounded(),
            masqueraded: HashMap::new(),
            number: 0,
            is_complete: false,
            standing: None,
            is_to_be_read: true,
        }
    }
}

impl Memory {
    /// All connections from behind a masquerade that stood before what came was heard of.
    pub(super) fn stood(&mut self, standing: Vec<(Identity, Tuple)>) {
        self.standing = Some(standing);
    }

    /// A connection could not be kept: whoever stood before it, it is not among them.
    pub(super) fn left_out(&mut self) {
        self.is_complete = false;
        self.standing = None;
        self.is_to_be_read = true;
    }

    /// Whether what stands is to be read; once told, it is no longer.
    pub(super) const fn take_to_be_read(&mut self) -> bool {
        mem::replace(&mut self.is_to_be_read, false)
    }

    /// Those, once.
    pub(super) const fn take_standing(&mut self) -> Option<Vec<(Identity, Tuple)>> {
        self.standing.take()
    }

    /// From now on every connection from behind a masquerade is known.
    pub(super) const fn set_complete(&mut self) {
        self.is_complete = true;
    }

    /// Connections may have come unnoticed: those known may be over, their ports another's.
    pub(super) fn lost(&mut self) {
        *self = Self::default();
    }

    /// Whether a proxy was seen to get a connection from an address before it opened another. What is
    /// forgotten came longest ago.
    pub(super) fn knows(&self, key: &Key, outbound: &Identity, opened_at: Option<Moment>) -> bool {
        let ways = [self.ways.peek(key), self.masqueraded.get(key)];
        ways.into_iter().flatten().any(|way| {
            let mut kept = way.kept.iter();
            way.forgotten > 0 || kept.any(|inbound| inbound.is_before(outbound, opened_at))
        })
    }

    /// How many are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        let masqueraded = self.masqueraded.values().map(|way| way.kept.len());
        self.number + masqueraded.sum::<usize>()
    }

    /// Keeps a connection; what is known of it already makes room for what is known now.
    pub(super) fn keep(&mut self, key: Key, is_masquerade: bool, word: Word, inbound: Inbound) {
        if let Some(way) = self.of_masquerade(key, is_masquerade) {
            way.keep(word, inbound);
            return;
        }
        let way = self.ways.entry(key).or_insert_with(Way::default);
        let before = way.kept.len();
        way.keep(word, inbound);
        self.number = self.number + way.kept.len() - before;
        while self.number > INBOUND_MAX
            && let Some((_, way)) = self.ways.remove_lru()
        {
            self.number -= way.kept.len();
        }
    }

    /// Keeps one from behind a masquerade that came before all that were seen to come, unless it is
    /// one of those: they are known better.
    pub(super) fn keep_older(&mut self, key: Key, inbound: Inbound) {
        let Some(way) = self.of_masquerade(key, true) else {
            return;
        };
        if way.kept.iter().all(|known| known.reply != inbound.reply) {
            way.keep_older(inbound);
        }
    }

    /// What is kept of a key if its address is a masquerade. `None` if it is none, or of too many.
    fn of_masquerade(&mut self, key: Key, is_masquerade: bool) -> Option<&mut Way> {
        if is_masquerade && !self.masqueraded.contains_key(&key) {
            if self.masqueraded.len() >= MASQUERADED_MAX {
                self.is_complete = false;
                return None;
            }
            let way = self.ways.remove(&key).unwrap_or_default();
            self.number -= way.kept.len();
            self.masqueraded.insert(key, way);
        }
        self.masqueraded.get_mut(&key)
    }

    /// The connections that a proxy may mean by an address, and a port and its own end if it names
    /// those: what came before `outbound`. `None` if there are none.
    pub(super) fn candidates(
        &mut self,
        key: &Key,
        (port, to): (Option<u16>, Option<SocketAddr>),
        outbound: &Connection,
    ) -> Option<Candidates<'_>> {
        let is_complete = self.is_complete;
        let (way, is_all) = match self.masqueraded.get_mut(key) {
            // Processes of this node reach each other unseen.
            Some(way) => (way, is_complete && key.proxy != Proxy::Host),
            None => (self.ways.get_mut(key)?, true),
        };
        let kept = way.kept.iter_mut();
        let opened_at = outbound.opened_at;
        let before = kept.filter(|inbound| inbound.is_before(&outbound.identity, opened_at));
        // Of several between the same two sockets only the newest can still be open.
        let mut pairs = HashSet::new();
        let mut kept: Vec<_> = before
            .rev()
            .filter(|inbound| pairs.insert(inbound.reply))
            .collect();
        let has = |port: Option<u16>| move |inbound: &&mut Inbound| inbound.port == port;
        let by_port = port.is_some() && kept.iter().any(has(port));
        if by_port {
            kept.retain(has(port));
        } else if port.is_some() {
            kept.retain(has(None));
        }
        // It names another where it goes by what was in front of it.
        let is_to = |inbound: &&mut Inbound| to == Some(canonical(inbound.reply.source));
        if kept.iter().any(is_to) {
            kept.retain(is_to);
        }
        let is_port_told = port.is_some();
        (!kept.is_empty()).then_some(Candidates {
            kept,
            forgotten: if is_port_told { 0 } else { way.forgotten },
            of_forgotten: way.of_forgotten.as_ref().filter(|_| !is_port_told),
            bare: if is_port_told { &[] } else { &way.bare },
            by_port,
            is_all,
        })
    }
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

impl Way {
    fn keep(&mut self, word: Word, inbound: Inbound) {
        let identity = inbound.connection.identity;
        let known = self.kept.iter_mut().rev();
        let mut same = known.filter(|known| known.connection.identity == identity);
        if let Some(known) = same.next() {
            *known = inbound;
            return;
        }
        if word == Word::Again && self.is_forgotten(&inbound) {
            // It must not push out what is newer, of which a proxy has yet to speak.
            self.forget_more(inbound);
            return;
        }
        self.kept.push_back(inbound);
        if self.kept.len() > INBOUND_OF_ONE_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Whether one that is not kept was, by when it was opened.
    fn is_forgotten(&self, inbound: &Inbound) -> bool {
        let opened_at = inbound.connection.opened_at;
        opened_at.is_some() && opened_at <= self.forgotten_until
    }

    fn keep_older(&mut self, inbound: Inbound) {
        if self.kept.len() < INBOUND_OF_ONE_MAX {
            self.kept.push_front(inbound);
        } else {
            self.forget(inbound);
        }
    }

    fn forget(&mut self, oldest: Inbound) {
        self.forgotten += 1;
        self.forgotten_until = self.forgotten_until.max(oldest.connection.opened_at);
        self.forget_more(oldest);
    }

    /// Only what it has in common with the others that are forgotten is kept.
    fn forget_more(&mut self, mut oldest: Inbound) {
        let stage = match oldest.stage.take() {
            Some(stage) => *stage,
            None if self.bare.iter().any(|bare| bare.is_like(&oldest)) => return,
            None if self.bare.len() < BARE_MAX => return self.bare.push(oldest),
            None => {
                let client = oldest.connection.identity.original.source.ip();
                Stage::from_client(client.to_canonical())
            }
        };
        self.of_forgotten = Some(match self.of_forgotten.take() {
            Some(before) => before.in_common(&stage),
            None => stage,
        });
    }
}

impl Inbound {
    /// Whether it came before another that may have been opened for it.
    fn is_before(&self, outbound: &Identity, opened_at: Option<Moment>) -> bool {
        let known = &self.connection;
        known.identity != *outbound && known.opened_at <= opened_at
    }

    /// Whether the same became of both, so far as that is told of those that are forgotten: they
    /// differ in ports only.
    fn is_like(&self, other: &Self) -> bool {
        let way = |inbound: &Self| {
            let Connection {
                identity,
                arrival,
                departure,
                ..
            } = &inbound.connection;
            (
                identity.original.source.ip(),
                identity.original.destination,
                inbound.reply.source,
                inbound.reply.destination.ip(),
                arrival.map(|arrival| arrival.interface),
                departure.map(|departure| departure.interface),
                inbound.by_header,
            )
        };
        way(self) == way(other)
    }
}
