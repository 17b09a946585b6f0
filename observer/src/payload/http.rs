//! The head of a request of HTTP/1, and the header fields by which proxies tell whom they speak
//! for.

use std::net::{IpAddr, SocketAddr};

use httparse::{EMPTY_HEADER, Request, Status};

use super::{Carrier, Chain, Reading, Reason};

/// Header fields that are looked at; a head of more is not one of a browser.
const FIELDS_MAX: usize = 128;
/// Hops that a header lists at most: many more than any chain of proxies has.
const HOPS_MAX: usize = 64;

/// The head of the first request; `None`: it has not ended.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => Some(of_request(&request)),
        Ok(Status::Partial) => None,
        Err(httparse::Error::TooManyHeaders) => Some(Reading::Nothing(Reason::TooLong)),
        Err(_) => Some(Reading::Nothing(Reason::Unrecognised)),
    }
}

/// Whether a head that has not ended began as one.
pub(super) fn has_request_line(bytes: &[u8]) -> bool {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    request.parse(bytes).is_ok() && request.version.is_some()
}

fn of_request(request: &Request) -> Reading {
    let values = |name: &str| -> Vec<&[u8]> {
        let fields = request.headers.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    // Of several fields of one name, those that come later were added later (RFC 9110, 5.3).
    let forwarded_for: Vec<_> = values("x-forwarded-for")
        .into_iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
        .map(address)
        .collect();
    let forwarded: Vec<_> = values("forwarded").into_iter().flat_map(elements).collect();
    let chains = [
        (Carrier::XForwardedFor, forwarded_for),
        (Carrier::Forwarded, forwarded),
    ];
    if chains.iter().any(|(_, hops)| hops.len() > HOPS_MAX) {
        return Reading::Nothing(Reason::TooLong);
    }
    let chains: Vec<Chain> = chains
        .into_iter()
        .filter(|(_, hops)| !hops.is_empty())
        .map(|(carrier, hops)| Chain {
            carrier,
            port: hops.last().and_then(|hop| hop.as_ref()?.1),
            hops: hops.into_iter().map(|hop| hop.map(|(ip, _)| ip)).collect(),
            to: None,
        })
        .collect();
    if chains.is_empty() {
        Reading::Nothing(Reason::NoHeader)
    } else {
        Reading::Found(chains)
    }
}

/// A hop, and its port if that is told.
type Hop = (IpAddr, Option<u16>);

/// The hops that one field `Forwarded` lists (RFC 7239, 4).
fn elements(value: &[u8]) -> Vec<Option<Hop>> {
    let (elements, is_open) = split(value, b',');
    // Whoever appended without reading has its own element within the string that was left open.
    if is_open {
        return vec![None];
    }
    elements
        .into_iter()
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
        .map(node)
        .collect()
}

/// Whom an element is `for`.
fn node(element: &[u8]) -> Option<Hop> {
    let (pairs, _) = split(element, b';');
    let mut nodes = pairs.into_iter().filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let node = nodes.next()?;
    // Each parameter once (RFC 7239, 4): what says two things says nothing.
    if nodes.next().is_some() {
        return None;
    }
    let quoted = node
        .strip_prefix(b"\"")
        .and_then(|node| node.strip_suffix(b"\""));
    address(quoted.unwrap_or(node))
}

/// Splits where `separator` stands outside of quoted strings (RFC 9110, 5.6.4); and whether such a
/// string is left open.
fn split(value: &[u8], separator: u8) -> (Vec<&[u8]>, bool) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = value
        .split(|&byte| {
            let was_escaped = std::mem::take(&mut is_escaped);
            match byte {
                b'\\' if is_quoted => is_escaped = !was_escaped,
                b'"' if !was_escaped => is_quoted = !is_quoted,
                _ => return !is_quoted && byte == separator,
            }
            false
        })
        .collect();
    (parts, is_quoted)
}

/// An address, perhaps with a port, as proxies write it: `192.0.2.1`, `192.0.2.1:80`,
/// `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. `None`: anything else.
fn address(text: &[u8]) -> Option<Hop> {
    let text = str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || {
        text.parse()
            .ok()
            .map(|at: SocketAddr| (at.ip(), Some(at.port())))
    };
    let v6 = || bracketed().map(IpAddr::V6);
    let alone = text.parse().ok().or_else(v6).map(|ip| (ip, None));
    let (ip, port) = alone.or_else(with_port)?;
    Some((ip.to_canonical(), port))
}
