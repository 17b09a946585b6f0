//! What first bytes tell, and that no bytes break it.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};
use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The last hop perhaps with a port.
fn found(carrier: Carrier, hops: &[&str]) -> Reading {
    let last: Option<SocketAddr> = hops.last().and_then(|hop| hop.parse().ok());
    let address = |hop: &&str| {
        let with_port = || hop.parse().ok().map(|at: SocketAddr| at.ip());
        hop.parse().ok().or_else(with_port)
    };
    Reading::Found(vec![Chain {
        carrier,
        hops: hops.iter().map(address).collect(),
        port: last.map(|last| last.port()),
        to: None,
    }])
}

/// As a PROXY header tells it.
fn from_to(carrier: Carrier, from: &str, to: &str) -> Reading {
    let mut reading = found(carrier, &[from]);
    if let Reading::Found(chains) = &mut reading {
        chains[0].to = to.parse().ok();
    }
    reading
}

const fn nothing(reason: Reason) -> Reading {
    Reading::Nothing(reason)
}

/// A header of version 2: version and command, family and protocol, then what follows.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [
        ppp::v2::PROTOCOL_PREFIX,
        &[0x20 | command, family],
        &length,
        rest,
    ]
    .concat()
}

/// 203.0.113.50:49508 to 172.31.0.11:80.
const V4: [u8; 12] = [203, 0, 113, 50, 172, 31, 0, 11, 0xc1, 0x64, 0, 80];

fn with_checksum(right: bool) -> Vec<u8> {
    let mut header = version_2(1, 0x11, &[&V4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&header) ^ u32::from(!right);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum.to_be_bytes());
    header
}

fn v6() -> Vec<u8> {
    let source: std::net::Ipv6Addr = "2001:db8::50".parse().expect("an address");
    [&source.octets()[..], &source.octets(), &[0; 4]].concat()
}

/// What a client of TLS says first: as rustls itself reads it.
fn client_hello(name: &str) -> Vec<u8> {
    let short = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        [&length[..], bytes].concat()
    };
    let extension = |kind: u8, body: &[u8]| [&[0, kind][..], &short(body)].concat();
    let server_name = short(&[&[0][..], &short(name.as_bytes())].concat());
    let extensions = [
        extension(0, &server_name),
        extension(43, &[2, 3, 4]),
        extension(13, &short(&[4, 3])),
        extension(10, &short(&[0, 29])),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &short(&[0x13, 0x01]),
        &[1, 0],
        &short(&extensions),
    ]
    .concat();
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    let handshake = [&[1, 0][..], &length, &body].concat();
    [&[0x16, 3, 1][..], &short(&handshake)].concat()
}

/// A beginning of every kind, and what it is.
fn beginnings() -> Vec<(&'static str, Vec<u8>, Reading)> {
    let unix = version_2(1, 0x31, &[b'/'; 216]);
    let local = version_2(0, 0x00, &[]);
    let local_v4 = version_2(0, 0x11, &V4);
    let broken_item = version_2(1, 0x11, &[&V4[..], &[4, 0, 9, 0]].concat());
    let long = [b"GET / HTTP/1.1\r\nCookie: ".to_vec(), vec![b'a'; 4_000]].concat();
    let addresses = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                     ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let longest = format!("PROXY UNKNOWN {addresses}");
    assert_eq!(longest.len(), 107, "the longest line there is");
    let too_long = format!("PROXY UNKNOWN  {addresses}");
    vec![
        ("v1", b"PROXY TCP4 203.0.113.50 172.31.0.11 49508 80\r\nGET".to_vec(),
            from_to(Carrier::ProxyV1, "203.0.113.50:49508", "172.31.0.11:80")),
        ("v1, IPv6", b"PROXY TCP6 2001:db8::50 2001:db8::11 1 2\r\n".to_vec(),
            from_to(Carrier::ProxyV1, "[2001:db8::50]:1", "[2001:db8::11]:2")),
        ("v1, the longest", longest.into_bytes(), nothing(Reason::Unspecified)),
        ("v1, longer", too_long.into_bytes(), nothing(Reason::Unrecognised)),
        ("v1, without an end", [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            nothing(Reason::Unrecognised)),
        ("v1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), nothing(Reason::Unspecified)),
        ("v1, broken", b"PROXY TCP4 203.0.113.500 172.31.0.11 1 2\r\n".to_vec(),
            nothing(Reason::Unrecognised)),
        ("v1, of the wrong family", b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
            nothing(Reason::Unrecognised)),
        ("v2", version_2(1, 0x11, &V4), from_to(Carrier::ProxyV2, "203.0.113.50:49508", "172.31.0.11:80")),
        ("v2, IPv6", version_2(1, 0x21, &v6()), from_to(Carrier::ProxyV2, "[2001:db8::50]:0", "[2001:db8::50]:0")),
        ("v2, checked", with_checksum(true), from_to(Carrier::ProxyV2, "203.0.113.50:49508", "172.31.0.11:80")),
        ("v2, checked and wrong", with_checksum(false), nothing(Reason::BadChecksum)),
        ("v2, with a broken item", broken_item, nothing(Reason::Unrecognised)),
        ("v2, of a UNIX socket", unix, nothing(Reason::Unix)),
        ("v2, for itself", local, nothing(Reason::Local)),
        ("v2, for itself, with addresses", local_v4, nothing(Reason::Local)),
        ("v2, of datagrams", version_2(1, 0x12, &V4), nothing(Reason::Unspecified)),
        ("v2, of another version", [ppp::v2::PROTOCOL_PREFIX, &[0x31, 0x11, 0, 0]].concat(),
            nothing(Reason::Unrecognised)),
        ("v2, beyond the bound", version_2(1, 0x11, &[0; 5_000]), nothing(Reason::TooLong)),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0".to_vec(), nothing(Reason::Http2)),
        ("TLS", client_hello("shop.example"), Reading::TlsTo("shop.example".to_owned())),
        ("TLS, beyond the bound", [&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb][..], &[3; 3_000]]
            .concat(), nothing(Reason::Tls)),
        ("TLS, broken", vec![0x16, 3, 1, 0, 4, 9, 9, 9, 9], nothing(Reason::Tls)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), nothing(Reason::NoHeader)),
        ("HTTP, forwarded",
            b"GET / HTTP/1.0\r\nX-FORWARDED-for: 203.0.113.50, 10.0.0.1\r\n\r\nX-Forwarded-For: 6"
                .to_vec(),
            found(Carrier::XForwardedFor, &["203.0.113.50", "10.0.0.1"])),
        ("HTTP, twice",
            b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9\r\nA: b\r\nx-forwarded-for:203.0.113.50\r\n\r\n"
                .to_vec(),
            found(Carrier::XForwardedFor, &["203.0.113.9", "203.0.113.50"])),
        ("HTTP, with ports and others",
            b"GET / HTTP/1.1\r\nX-Forwarded-For: unknown,, [2001:db8::50]:80 ,203.0.113.50:80,::ffff:10.0.0.1\r\n\r\n"
                .to_vec(),
            found(Carrier::XForwardedFor, &["unknown", "2001:db8::50", "203.0.113.50", "10.0.0.1"])),
        ("HTTP, with a port at last",
            b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9:1, 203.0.113.50:49508\r\n\r\n".to_vec(),
            found(Carrier::XForwardedFor, &["203.0.113.9", "203.0.113.50:49508"])),
        ("HTTP, RFC 7239, with a port at last",
            b"GET / HTTP/1.1\r\nForwarded: for=_x, for=\"[2001:db8::50]:47011\"\r\n\r\n".to_vec(),
            found(Carrier::Forwarded, &["_x", "[2001:db8::50]:47011"])),
        ("HTTP, RFC 7239",
            b"GET / HTTP/1.1\r\nForwarded: for=\"[2001:db8::50]:47011\";by=_x;proto=http, For=203.0.113.50;x=\"a,b;for=1.2.3.4\", for=_hidden, by=10.0.0.1\r\n\r\n"
                .to_vec(),
            found(Carrier::Forwarded, &["2001:db8::50", "203.0.113.50", "_hidden", ""])),
        ("HTTP, pipelined",
            b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50\r\n\r\nGET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.51\r\n\r\n"
                .to_vec(),
            found(Carrier::XForwardedFor, &["203.0.113.50"])),
        ("HTTP, with an empty list", b"GET / HTTP/1.1\r\nX-Forwarded-For: ,\r\n\r\n".to_vec(),
            nothing(Reason::NoHeader)),
        ("HTTP, beyond the bound", long, nothing(Reason::TooLong)),
        ("no request line in sight", vec![b'A'; 3_000], nothing(Reason::Unrecognised)),
        ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec(), nothing(Reason::Unrecognised)),
        ("like v1", b"PROXYTCP4 1 2 3\r\n".to_vec(), nothing(Reason::Unrecognised)),
        ("like v2", b"\r\n\r\n\0\r\nQUIP\n\0\0\0".to_vec(), nothing(Reason::Unrecognised)),
        ("zeros", vec![0; 20], nothing(Reason::Unrecognised)),
    ]
}

#[test]
fn a_beginning_is_told_whole_and_never_otherwise_before() {
    for (what, bytes, expected) in beginnings() {
        let expected = Some(expected);
        assert_eq!(read(&bytes), expected, "{what}");
        for cut in 0..bytes.len() {
            let before = read(&bytes[..cut]);
            assert!(
                before.is_none() || before == expected,
                "{what}, cut at {cut}: {before:?}"
            );
        }
    }
}

#[test]
fn however_it_is_split_it_is_the_same() {
    for (what, bytes, expected) in beginnings() {
        let expected = Some(expected);
        for cut in 1..bytes.len().min(300) {
            let (first, second) = bytes.split_at(cut);
            let mut stream = Stream::default();
            let told = stream.segment(0, first);
            let told = told.or_else(|| stream.segment(cut, second));
            assert_eq!(told, expected, "{what}, cut at {cut}");

            let mut stream = Stream::default();
            assert_eq!(stream.segment(cut, second), None, "{what}, cut at {cut}");
            // Sent again in one piece, and over what is there.
            let told = stream.segment(0, first);
            let told = told.or_else(|| stream.segment(0, &bytes));
            assert_eq!(told, expected, "{what}, reversed at {cut}");
        }
        let mut stream = Stream::default();
        let mut each = bytes.iter().enumerate();
        let told = each.find_map(|(at, byte)| stream.segment(at, &[*byte]));
        assert_eq!(told, expected, "{what}, byte by byte");
    }
}

/// A segment that came early and goes on beyond the bound counts up to there.
#[test]
fn what_came_early_is_kept_up_to_the_bound() {
    let bytes = vec![b'x'; 3_000];
    let mut stream = Stream::default();
    assert_eq!(stream.segment(100, &bytes[100..]), None);
    assert_eq!(stream.segment(0, &bytes[..100]), read(&bytes));
}

#[test]
fn what_is_not_told_has_a_reason() {
    let mut stream = Stream::default();
    assert_eq!(stream.unread(), Reason::Silent);
    assert_eq!(stream.segment(10, b"late"), None);
    assert_eq!(stream.unread(), Reason::NotSeen);
    assert_eq!(stream.segment(0, b"PROXY"), None);
    assert_eq!(stream.unread(), Reason::Unfinished);
}

/// Proxies at 10.0.0.0/8; the peer is one of them unless it is said otherwise.
#[rstest]
// The one that it names.
#[case("10.0.0.1", &["203.0.113.50"], Ok("203.0.113.50"))]
// Past a proxy behind it.
#[case("10.0.0.1", &["203.0.113.50", "10.0.0.2"], Ok("203.0.113.50"))]
// What the client itself claimed is left of it.
#[case("10.0.0.1", &["198.51.100.1", "203.0.113.50"], Ok("203.0.113.50"))]
#[case("10.0.0.1", &["198.51.100.1", "203.0.113.50", "10.0.0.2"], Ok("203.0.113.50"))]
#[case("10.0.0.1", &["10.0.0.9", "203.0.113.50"], Ok("203.0.113.50"))]
// From inside.
#[case("10.0.0.1", &["10.0.0.9"], Ok("10.0.0.9"))]
// Whoever may write what it likes is not believed.
#[case("203.0.113.50", &["198.51.100.1"], Err(Reason::UntrustedPeer))]
#[case("203.0.113.50", &["198.51.100.1", "10.0.0.1"], Err(Reason::UntrustedPeer))]
// A name is no address, and behind it may be anybody.
#[case("10.0.0.1", &["203.0.113.50", "unknown"], Err(Reason::HiddenHop))]
#[case("10.0.0.1", &["unknown", "203.0.113.50"], Ok("203.0.113.50"))]
fn the_client_is_the_first_from_the_right_who_is_not_trusted(
    #[case] peer: &str,
    #[case] hops: &[&str],
    #[case] expected: Result<&str, Reason>,
) {
    let reading = found(Carrier::XForwardedFor, hops);
    let client = recover(&reading, ip(peer), |it| is_proxy(it).into());
    let expected = expected.map(|address| Recovered {
        address: ip(address),
        from: Carrier::XForwardedFor,
    });
    assert_eq!(client, expected);
}

/// A node's address is anybody's whom it masquerades: the walk ends there, and nobody is named.
#[rstest]
#[case::a_client_wrote_before(&["198.51.100.1", "172.31.0.11"])]
#[case::it_alone(&["172.31.0.11"])]
#[case::behind_a_proxy(&["198.51.100.1", "172.31.0.11", "10.0.0.2"])]
fn a_masquerade_in_the_list_ends_it(#[case] hops: &[&str]) {
    let reading = found(Carrier::XForwardedFor, hops);
    let trust = |address: IpAddr| {
        if address == ip("172.31.0.11") {
            Trust::Node
        } else {
            is_proxy(address).into()
        }
    };
    let client = recover(&reading, ip("10.0.0.1"), trust);
    assert_eq!(client, Err(Reason::Masqueraded));
}

#[test]
fn a_string_left_open_hides_what_was_appended() {
    let head = "GET / HTTP/1.1\r\nForwarded: for=198.51.100.1;x=\", for=203.0.113.50\r\n\r\n";
    let reading = read(head.as_bytes()).expect("a head");
    let client = recover(&reading, ip("10.0.0.1"), |it| is_proxy(it).into());
    assert_eq!(client, Err(Reason::HiddenHop));
}

#[test]
fn a_list_without_end_is_not_kept() {
    let hops = vec!["a"; 65].join(",");
    let head = format!("GET / HTTP/1.1\r\nX-Forwarded-For: {hops}\r\n\r\n");
    assert_eq!(
        read(head.as_bytes()),
        Some(Reading::Nothing(Reason::TooLong))
    );
}

fn is_proxy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

#[test]
fn two_headers_must_name_the_same() {
    let of = |forwarded: &str| {
        let head = format!(
            "GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50\r\nForwarded: for={forwarded}\r\n\r\n"
        );
        let reading = read(head.as_bytes()).expect("a whole head");
        recover(&reading, ip("10.0.0.1"), |it| is_proxy(it).into())
            .map(|recovered| recovered.address)
    };
    assert_eq!(of("203.0.113.50"), Ok(ip("203.0.113.50")));
    assert_eq!(of("198.51.100.1"), Err(Reason::HeadersDisagree));
    assert_eq!(of("_a"), Err(Reason::HeadersDisagree));
}

/// Bytes like those that matter, with some changed.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let whole: Vec<Vec<u8>> = beginnings()
        .into_iter()
        .map(|(_, bytes, _)| bytes)
        .collect();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(whole), changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let _ = read(&bytes);
    }

    #[test]
    fn what_is_said_once_stays(bytes in nearly(), cut in any::<prop::sample::Index>()) {
        let whole = read(&bytes);
        let before = read(&bytes[..cut.index(bytes.len())]);
        prop_assert!(before.is_none() || before == whole);
        prop_assert!(bytes.len() < BYTES_MAX || whole.is_some());
    }

    #[test]
    fn segments_in_any_order_say_what_the_whole_says(
        bytes in nearly(),
        cuts in proptest::collection::vec((0..400_usize, 1..400_usize), 0..7),
    ) {
        let mut stream = Stream::default();
        let mut told = None;
        for (at, length) in cuts {
            if told.is_none() && at < bytes.len() {
                told = stream.segment(at, &bytes[at..bytes.len().min(at + length)]);
            }
        }
        let told = told.or_else(|| stream.segment(0, &bytes));
        prop_assert_eq!(told, read(&bytes));
    }

    #[test]
    fn nobody_untrusted_is_believed(bytes in nearly()) {
        if let Some(reading) = read(&bytes) {
            prop_assert!(recover(&reading, ip("203.0.113.9"), |it| is_proxy(it).into()).is_err());
        }
    }

    #[test]
    fn what_the_client_claims_changes_nothing(
        claimed in "[ -~]{0,60}",
        hidden in any::<bool>(),
    ) {
        let name = if hidden { "X-Forwarded-For" } else { "x-forwarded-for" };
        let head = format!(
            "GET / HTTP/1.1\r\n{name}: {claimed}\r\nX-Forwarded-For: 203.0.113.50\r\n\r\n"
        );
        if let Some(reading) = read(head.as_bytes()) {
            let client = recover(&reading, ip("10.0.0.1"), |it| is_proxy(it).into());
            prop_assert_eq!(client.map(|client| client.address), Ok(ip("203.0.113.50")));
        }
    }
}
