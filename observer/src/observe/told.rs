//! Which proxies were told by the load balancer in front of them whom it speaks for.
//!
//! A proxy that was told, and names only that load balancer when it opens a connection of its own,
//! replaced what it was told. A load balancer's health checks name nobody, and what a proxy opens for
//! one names the load balancer alone, too: which connection the proxy speaks for it does not say, so
//! all of that load balancer's must have told of another, for longer than from one check to the next.
//! What was not seen may have been a check.

use std::net::IpAddr;

use hashlink::LruCache;

use crate::observation::Moment;
use crate::payload::{Carrier, Reading, Reason};
use crate::record::Record;
use crate::verdict::{ClientKind, SourceIp};

/// Pairs that are remembered; those that spoke least recently make room.
const PAIRS_MAX: usize = 1 << 12;

/// So long after one that may have been a health check, all others have told of another: no load
/// balancer's checks are further apart than five minutes (Elastic Load Balancing, API reference,
/// `HealthCheckIntervalSeconds`; Google Cloud, health checks, `checkIntervalSec`).
const QUIET_NS: u64 = 600_000_000_000;

/// Pairs of a proxy and who told it.
#[derive(Debug)]
pub(super) struct Told(LruCache<(IpAddr, IpAddr), Pair>);

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Whether the latest told of another.
    is_told: bool,
    /// When the latest that did not was opened.
    doubtful_at: Option<Moment>,
}

impl Told {
    pub(super) fn new() -> Self {
        Self(LruCache::new(PAIRS_MAX))
    }

    /// Remembers whom a connection's backend was told of by X-Forwarded-For, if it saw the load
    /// balancer itself: behind a masquerade anybody has the same address.
    pub(super) fn note(&mut self, record: &Record, opened_at: Option<Moment>) {
        let client = &record.client;
        let is_seen = client.kind == ClientKind::LoadBalancer
            && record.source_seen.is_some_and(|seen| seen.ip == client.ip);
        // For one who sends nothing, a proxy opens nothing.
        let is_silent = client.not_recovered == Some(Reason::Silent);
        let Some(backend) = record.backend.as_ref().filter(|_| is_seen && !is_silent) else {
            return;
        };
        let is_told = record.source_ip == SourceIp::Lost
            && client.recovered.is_some_and(|told| told != client.ip)
            && client.recovered_from == Some(Carrier::XForwardedFor);
        let key = (backend.ip, client.ip);
        let before = self.0.get(&key).copied().unwrap_or_default();
        // One of which that is not known never becomes old.
        let now = Some(opened_at.unwrap_or(Moment(u64::MAX)));
        let doubtful_at = if is_told { before.doubtful_at } else { now };
        let doubtful_at = doubtful_at.max(before.doubtful_at);
        self.0.insert(
            key,
            Pair {
                is_told,
                doubtful_at,
            },
        );
    }

    /// Whether the X-Forwarded-For of a proxy's connection lists nobody but who told it of another.
    pub(super) fn replaces(
        &self,
        proxy: IpAddr,
        opened_at: Option<Moment>,
        reading: &Reading,
    ) -> bool {
        let Reading::Found(chains) = reading else {
            return false;
        };
        let mut chains = chains.iter();
        chains.any(|chain| match chain.hops[..] {
            [Some(only)] if chain.carrier == Carrier::XForwardedFor => {
                let pair = self.0.peek(&(proxy.to_canonical(), only));
                pair.is_some_and(|pair| pair.is_always(opened_at))
            }
            _ => false,
        })
    }
}

impl Pair {
    /// Whether all that could be spoken for told of another.
    fn is_always(self, opened_at: Option<Moment>) -> bool {
        let is_long_ago = |doubtful: Moment| {
            opened_at.is_some_and(|moment| moment.nanoseconds_since(doubtful) > QUIET_NS)
        };
        self.is_told && self.doubtful_at.is_none_or(is_long_ago)
    }
}
