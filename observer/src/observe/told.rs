//! Which proxies were told by the load balancer in front of them whom it speaks for.
//!
//! A proxy that was told, and names only that load balancer when it opens a connection of its own,
//! replaced what it was told. A load balancer's health checks name nobody, and what a proxy opens for
//! one names the load balancer alone, too: which connection the proxy speaks for it does not say, so
//! all of that load balancer's must have told of another. What was not seen may have been a check.

use std::net::IpAddr;

use hashlink::LruCache;

use crate::payload::{Carrier, Reading, Reason};
use crate::record::Record;
use crate::verdict::{ClientKind, SourceIp};

/// Pairs that are remembered; those that spoke least recently make room.
const PAIRS_MAX: usize = 1 << 12;

/// Pairs of a proxy and who told it; whether each time.
#[derive(Debug)]
pub(super) struct Told(LruCache<(IpAddr, IpAddr), bool>);

impl Told {
    pub(super) fn new() -> Self {
        Self(LruCache::new(PAIRS_MAX))
    }

    /// Remembers whom a connection's backend was told of by X-Forwarded-For, if it saw the load
    /// balancer itself: behind a masquerade anybody has the same address.
    pub(super) fn note(&mut self, record: &Record) {
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
        let is_always = is_told && self.0.get(&key).is_none_or(|always| *always);
        self.0.insert(key, is_always);
    }

    /// Whether a proxy's X-Forwarded-For lists nobody but who told it of another.
    pub(super) fn replaces(&self, proxy: IpAddr, reading: &Reading) -> bool {
        let Reading::Found(chains) = reading else {
            return false;
        };
        let mut chains = chains.iter();
        chains.any(|chain| match chain.hops[..] {
            [Some(only)] if chain.carrier == Carrier::XForwardedFor => {
                self.0.peek(&(proxy.to_canonical(), only)) == Some(&true)
            }
            _ => false,
        })
    }
}
