//! What the first bytes of a connection tell of its client: a PROXY protocol header, or the
//! request head of HTTP/1.
//!
//! PURE, and the only place that ever looks at payload: bytes go in, [`Reading`]s come out, which
//! hold addresses, words and at most the name of a TLS server, and never bytes.
//!
//! [`read`] says what the beginning of a stream is; [`Stream`] joins segments to that beginning;
//! [`recover`] says which of the addresses that a header lists is the client's, if whoever wrote
//! it is to be believed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

mod http;
mod proxy;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trust;

pub use stream::Stream;
pub use trust::{Recovered, Trust, recover};

/// So many bytes of a connection are looked at, at most: every PROXY header that load balancers
/// send (version 1: 107; version 2: 232 with the longest addresses, and what they add), and the
/// request heads of most clients.
pub const BYTES_MAX: usize = observer_ebpf::PAYLOAD_MAX as usize;

/// In what a client's address was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A PROXY protocol header of version 1: a line of text (`HAProxy`, `doc/proxy-protocol.txt`,
    /// 2.1).
    ProxyV1,
    /// One of version 2: binary (the same, 2.2).
    ProxyV2,
    /// The header fields `X-Forwarded-For` of the first request.
    XForwardedFor,
    /// The header fields `Forwarded` of the first request (RFC 7239).
    Forwarded,
    /// In none: the header names a masquerade of the node, and the connection by which its writer, a
    /// proxy on that node, got what it hands on tells who is behind it.
    InboundConnection,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// Why no client's address came out of a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// They are TLS: what it carries cannot be read.
    Tls,
    /// They are HTTP/2 without TLS, whose header fields are compressed.
    Http2,
    /// A request of HTTP/1 without a header field that lists clients.
    NoHeader,
    /// Nothing that is known, or a header that is broken.
    Unrecognised,
    /// The header did not end within [`BYTES_MAX`]: the last address may lie beyond.
    TooLong,
    /// A PROXY header with the command LOCAL: the proxy speaks for itself, as in a health check.
    Local,
    /// A PROXY header that names a UNIX socket.
    Unix,
    /// A PROXY header that names no address.
    Unspecified,
    /// A PROXY header whose checksum is wrong.
    BadChecksum,
    /// Who sent the header is not trusted to write one.
    UntrustedPeer,
    /// A hop that is asked for hides its address.
    HiddenHop,
    /// A hop has a node's address, which anybody has whom the node masquerades.
    Masqueraded,
    /// Two kinds of header, of different clients: one may be the client's own.
    HeadersDisagree,
    /// The client sent nothing for as long as it was waited for.
    Silent,
    /// What it sent in that time is not yet a header.
    Unfinished,
    /// Nothing, or not all, was seen of what it sent: it was lost.
    NotSeen,
    /// Nobody looked for what it sent: the programs have no room for so many sources.
    NotAsked,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// The addresses that one kind of header lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// In what.
    pub carrier: Carrier,
    /// As listed: who is said to be farthest first. `None` is a hop that hides its address
    /// (`unknown`, `_name`) or says something else.
    pub hops: Vec<Option<IpAddr>>,
    /// From which port the last of them spoke to whoever listed it, if that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// To which of the writer's own sockets, if that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<SocketAddr>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// They list addresses; each kind of header once.
    Found(Vec<Chain>),
    /// They do not.
    Nothing(Reason),
    /// They are TLS, and name the server that the client asks for (RFC 6066, 3).
    TlsTo(String),
}

impl Reading {
    /// How many addresses the first header lists.
    pub fn hops_listed(&self) -> Option<usize> {
        match self {
            Self::Found(chains) => chains.first().map(|chain| chain.hops.len()),
            Self::Nothing(_) | Self::TlsTo(_) => None,
        }
    }

    /// The name of the TLS server that is asked for.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::TlsTo(name) => Some(name),
            Self::Found(_) | Self::Nothing(_) => None,
        }
    }
}

/// What the beginning of a stream is; `None`: more of it could tell.
///
/// Total over any bytes. What it once said of a beginning it says of every longer one.
pub fn read(bytes: &[u8]) -> Option<Reading> {
    let bytes = bytes.get(..BYTES_MAX).unwrap_or(bytes);
    let reading = match Format::of(bytes)? {
        Format::ProxyV1 => proxy::version_1(bytes),
        Format::ProxyV2 => proxy::version_2(bytes),
        Format::Http2 => Some(Reading::Nothing(Reason::Http2)),
        Format::Tls => tls::read(bytes),
        Format::Other => http::read(bytes),
    };
    reading.or_else(|| (bytes.len() == BYTES_MAX).then(|| Reading::Nothing(beyond(bytes))))
}

/// Why bytes that go on beyond the bound tell nothing.
fn beyond(bytes: &[u8]) -> Reason {
    match Format::of(bytes) {
        // Only the server's name is not known.
        Some(Format::Tls) => Reason::Tls,
        Some(Format::Other) if !http::has_request_line(bytes) => Reason::Unrecognised,
        _ => Reason::TooLong,
    }
}

/// What a stream begins like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    ProxyV1,
    ProxyV2,
    Http2,
    Tls,
    /// HTTP/1, or nothing that is known.
    Other,
}

/// What clients of HTTP/2 send first (RFC 9113, 3.4), as far as no request of HTTP/1 is like it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A record of TLS that holds a handshake message, and the major version of all since SSL 3 (RFC
/// 8446, 5.1).
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

impl Format {
    /// `None`: too little is there.
    fn of(bytes: &[u8]) -> Option<Self> {
        let formats = [
            (proxy::PREFIX_1, Self::ProxyV1),
            (ppp::v2::PROTOCOL_PREFIX, Self::ProxyV2),
            (HTTP2_PREFACE, Self::Http2),
            (TLS_HANDSHAKE, Self::Tls),
        ];
        for (prefix, format) in formats {
            if bytes.starts_with(prefix) {
                return Some(format);
            }
            if prefix.starts_with(bytes) {
                return None;
            }
        }
        Some(Self::Other)
    }
}
