//! `HAProxy`, in the ways that people use it in front of a cluster.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::{Context as _, Result};

use super::{Passage, Proxy};
use crate::netns::Namespace;

pub(super) const PROGRAM: [&str; 3] = ["haproxy", "-db", "-f"];

/// How `HAProxy` hands a connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haproxy {
    /// As it is.
    Plain,
    /// The same, with checks of its own, which only connect.
    PlainChecked,
    /// Behind a PROXY header of version 1.
    SendProxy,
    /// Behind one of version 2.
    SendProxyV2,
    /// The same, with a checksum and more, and checks of its own.
    SendProxyV2Checked,
    /// As HTTP, with `option forwardfor`.
    ForwardFor,
    /// The same within TLS.
    ForwardForTls,
    /// The same as HTTP/2 without TLS.
    ForwardForHttp2,
}

impl Haproxy {
    /// Every way that leaves an HTTP/1 backend what it understands.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::SendProxy,
        Self::SendProxyV2,
        Self::SendProxyV2Checked,
        Self::ForwardFor,
    ];

    /// From `at` to `to`, by the address of `at`.
    pub fn start(self, namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
        haproxy(namespace, &[(self, Passage { at, to })])
    }

    /// The options of its server.
    fn server(self) -> &'static str {
        match self {
            Self::Plain | Self::ForwardFor => "",
            Self::PlainChecked => "check inter 50 fall 1000",
            Self::SendProxy => "send-proxy",
            Self::SendProxyV2 => "send-proxy-v2",
            Self::SendProxyV2Checked => {
                "send-proxy-v2 proxy-v2-options crc32c,unique-id check check-send-proxy inter 50 fall 1000"
            }
            Self::ForwardForTls => "ssl verify none",
            Self::ForwardForHttp2 => "proto h2",
        }
    }

    /// What its frontend and its backend are beside.
    fn proxy(self) -> &'static str {
        match self {
            Self::Plain | Self::PlainChecked | Self::SendProxy | Self::SendProxyV2 => "mode tcp",
            // One that only connects resets the connection before anybody has read the header.
            Self::SendProxyV2Checked => "mode tcp\n  option httpchk\n  timeout check 5s",
            // A connection of each client's own.
            Self::ForwardFor | Self::ForwardForTls | Self::ForwardForHttp2 => {
                "mode http\n  option forwardfor\n  http-reuse never"
            }
        }
    }

    fn frontend(self) -> &'static str {
        match self {
            Self::SendProxyV2Checked => "unique-id-format %[uuid()]",
            _ => "",
        }
    }
}

/// One process for all passages; each connects by the address that it listens at.
pub fn haproxy(namespace: &Namespace, passages: &[(Haproxy, Passage)]) -> Result<Proxy> {
    let mut proxies = String::new();
    for (number, (how, Passage { at, to })) in passages.iter().enumerate() {
        // Without its port an IPv6 address would be taken for one with.
        let source = SocketAddr::new(at.ip(), 0);
        let (frontend, proxy, server) = (how.frontend(), how.proxy(), how.server());
        write!(
            proxies,
            "listen front-{number}\n  bind {at}\n  {proxy}\n  {frontend}\n  source {source}\n  \
             server pod {to} {server}\n"
        )
        .context("writing to a string")?;
    }
    let listens: Vec<_> = passages.iter().map(|(_, passage)| passage.at).collect();
    Proxy::haproxy(namespace, &listens, &proxies)
}
