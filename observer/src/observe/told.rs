//! Which proxies were told by the load balancer in front of them whom it speaks for.
//!
//! A proxy that was told, and names only that load balancer when it opens a connection of its own,
//! replaced what it was told.

use std::net::IpAddr;

use hashlink::LruCache;

use crate::payload::{Carrier, Reading};
use crate::record::Record;
use crate::verdict::{ClientKind, SourceIp};

/// Pairs that are remembered; those that spoke least recently make room.
const PAIRS_MAX: usize = 1 << 12;

/// Pairs of a proxy and who told it.
#[derive(Debug)]
pub(super) struct Told(LruCache<(IpAddr, IpAddr), ()>);

impl Told {
    pub(super) fn new() -> Self {
        Self(LruCache::new(PAIRS_MAX))
    }

    /// Remembers whom a connection's backend was told of by X-Forwarded-For, if it saw the load
    /// balancer itself: behind a masquerade anybody has the same address.
    pub(super) fn note(&mut self, record: &Record) {
        let client = &record.client;
        let is_told = record.source_ip == SourceIp::Lost
            && client.kind == ClientKind::LoadBalancer
            && client.recovered_from == Some(Carrier::XForwardedFor)
            && record.source_seen.is_some_and(|seen| seen.ip == client.ip);
        if let Some(backend) = record.backend.as_ref().filter(|_| is_told) {
            self.0.insert((backend.ip, client.ip), ());
        }
    }

    /// Whether a proxy's X-Forwarded-For lists nobody but who told it of another.
    pub(super) fn replaces(&self, proxy: IpAddr, reading: &Reading) -> bool {
        let Reading::Found(chains) = reading else {
            return false;
        };
        let mut chains = chains.iter();
        chains.any(|chain| match chain.hops[..] {
            [Some(only)] if chain.carrier == Carrier::XForwardedFor => {
                self.0.contains_key(&(proxy.to_canonical(), only))
            }
            _ => false,
        })
    }
}
