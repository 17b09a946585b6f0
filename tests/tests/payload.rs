//! What a connection's first bytes tell of its client, however they come.
//!
//! Goal: a header in pieces, late, or pipelined is read as the pod reads it; garbage, TLS and
//! HTTP/2 are called what they are; a client that is not trusted is not believed. Method: write
//! the bytes from the address of a trusted proxy, or of a client, and compare with what the pods
//! got.

use std::{
    fmt::Display,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstest::rstest;
use serde_json::Value;
use tests::{
    kubeproxy::{Backend, Family, Mode},
    observer_process::ObserverProcess,
    payload::{Stage, TRUSTED, Told, recovered},
    privilege, threads,
};

const TRUSTING: [&str; 4] = ["--payload", "on", TRUSTED[0], TRUSTED[1]];
const PAUSE: Duration = Duration::from_millis(15);
/// The last line there is room for (107 bytes).
const LONGEST: &[u8] = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn stage() -> Stage {
    Stage::raise(Mode::Iptables(Backend::Nft), Family::V4).expect("raised")
}

/// Version 1 of the PROXY protocol.
fn line(client: IpAddr, door: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (to, port) = (door.ip(), door.port());
    format!("PROXY {family} {client} {to} 49508 {port}\r\n").into_bytes()
}

/// Version 2.
fn binary(client: IpAddr, door: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client, door.ip()) {
        (IpAddr::V4(client), IpAddr::V4(to)) => (0x11, [client.octets(), to.octets()].concat()),
        (IpAddr::V6(client), IpAddr::V6(to)) => (0x21, [client.octets(), to.octets()].concat()),
        other => panic!("of two families: {other:?}"),
    };
    let length = u8::try_from(addresses.len() + 4).expect("short");
    let ports = [0xc1, 0x64, 0x75, 0x80];
    [SIGNATURE, &[0x21, family, 0, length], &addresses, &ports].concat()
}

/// A request by which somebody is named.
fn forwarded(client: impl Display) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nX-Forwarded-For: {client}\r\n\r\n").into_bytes()
}

/// What comes of a connection from the trusted proxy that sends each of these, in parts.
fn told_of(stage: &Stage, connections: &[Vec<&[u8]>]) -> Vec<Told> {
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let say = || {
        let mut connections = connections.iter();
        connections.try_for_each(|parts| stage.say(front, door, parts, PAUSE))
    };
    let told = stage.observe(&TRUSTING, say).expect("observed");
    assert_eq!(told.len(), connections.len(), "{told:?}");
    told
}

/// Every case has a client of its own, by whom its record is found again.
#[rstest]
fn however_a_header_comes_it_is_read(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("however_a_header_comes_it_is_read") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let door = stage.door().expect("one");
    let other = stage.clients()[1];
    let [a, b, c, d, e, f, g, h] = std::array::from_fn(|number| -> IpAddr {
        let address = match family {
            Family::V4 => format!("203.0.113.{}", 100 + number),
            Family::V6 => format!("2001:db8:113::{}", 100 + number),
        };
        address.parse().expect("an address")
    });
    let byte_by_byte = [line(a, door), REQUEST.to_vec()].concat();
    let (torn, whole) = (line(b, door), [line(c, door), REQUEST.to_vec()].concat());
    let torn_binary = binary(d, door);
    // What the client itself writes comes after what the proxy does.
    let forged = [binary(e, door), forwarded(other)].concat();
    let torn_request = forwarded(f);
    let pipelined = [forwarded(g), forwarded(other)].concat();
    let listed = forwarded(format_args!("{other}, {h}"));
    let cases: [(IpAddr, &str, Vec<&[u8]>); 8] = [
        (a, "proxy-v1", byte_by_byte.chunks(1).collect()),
        (b, "proxy-v1", vec![&torn[..5], &torn[5..], REQUEST]),
        (c, "proxy-v1", vec![&whole]),
        (
            d,
            "proxy-v2",
            vec![
                &torn_binary[..9],
                &torn_binary[9..20],
                &torn_binary[20..],
                REQUEST,
            ],
        ),
        (e, "proxy-v2", vec![&forged]),
        (
            f,
            "x-forwarded-for",
            vec![&torn_request[..30], &torn_request[30..]],
        ),
        (g, "x-forwarded-for", vec![&pipelined]),
        (h, "x-forwarded-for", vec![&listed]),
    ];
    let parts: Vec<_> = cases.iter().map(|(.., parts)| parts.clone()).collect();
    let told = told_of(&stage, &parts);
    for (client, from, _) in cases {
        let of_it = told
            .iter()
            .find(|told| recovered(&told.record) == Some(client));
        let Told { record, .. } = of_it.unwrap_or_else(|| panic!("{client}: {told:?}"));
        assert_eq!(record["client"]["recovered_from"], from, "{record}");
        assert_eq!(record["outcome"], "answered", "{record}");
    }
}

#[test]
fn a_header_may_come_late_and_not_too_late() {
    if !privilege::granted("a_header_may_come_late_and_not_too_late") {
        return;
    }
    let stage = stage();
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let client = stage.clients()[0];
    let request = forwarded(client);
    let told = stage.observe(&TRUSTING, || {
        for seconds in [1, 2] {
            let mut stream = stage.connect(front, door)?;
            thread::sleep(Duration::from_secs(seconds));
            stream.write_all(&request)?;
            stream.read_exact(&mut [0; 10])?;
        }
        let mut stream = stage.connect(front, door)?;
        thread::sleep(Duration::from_millis(3_600));
        stream.write_all(&request)?;
        stream.read_exact(&mut [0; 10])?;
        Ok(())
    });
    let told = told.expect("observed");
    let said: Vec<_> = told
        .iter()
        .map(|told| {
            (
                recovered(&told.record),
                &told.record["client"]["not_recovered"],
            )
        })
        .collect();
    let client = Some(client);
    let silent = Value::from("silent");
    let mut expected = vec![
        (client, &Value::Null),
        (client, &Value::Null),
        (None, &silent),
    ];
    let mut said = said;
    said.sort_by_key(|(recovered, _)| *recovered);
    expected.sort_by_key(|(recovered, _)| *recovered);
    assert_eq!(said, expected);
}

#[test]
fn of_several_requests_the_first_counts() {
    if !privilege::granted("of_several_requests_the_first_counts") {
        return;
    }
    let stage = stage();
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let told = stage.observe(&TRUSTING, || {
        let mut stream = stage.connect(front, door)?;
        for client in 50..55 {
            let request = format!("GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.{client}\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            stream.read_exact(&mut [0; 40])?;
        }
        Ok(())
    });
    let told = told.expect("observed");
    let [Told { record, .. }] = &told[..] else {
        panic!("one connection: {told:?}")
    };
    assert_eq!(record["client"]["recovered"], "203.0.113.50", "{record}");
    assert_eq!(record["client"]["recovered_from"], "x-forwarded-for");
}

#[test]
fn what_names_nobody_is_called_what_it_is() {
    if !privilege::granted("what_names_nobody_is_called_what_it_is") {
        return;
    }
    let stage = stage();
    let unix = [SIGNATURE, &[0x21, 0x31, 0, 216], &[b'/'; 216], REQUEST].concat();
    let local = [SIGNATURE, &[0x20, 0, 0, 0], REQUEST].concat();
    let unspecified = [SIGNATURE, &[0x21, 0, 0, 0], REQUEST].concat();
    let v3 = [SIGNATURE, &[0x31, 0x11, 0, 0], REQUEST].concat();
    // A checksum that is none (PROXY protocol, 2.2.3).
    let addresses = [203, 0, 113, 50, 172, 31, 0, 11, 0xc1, 0x64, 0x75, 0x80];
    let checksum = [3, 0, 4, 1, 2, 3, 4];
    let wrong = [
        SIGNATURE,
        &[0x21, 0x11, 0, 19],
        &addresses,
        &checksum,
        REQUEST,
    ]
    .concat();
    let announced = [SIGNATURE, &[0x21, 0x11, 0, 200], &addresses].concat();
    let cookie = [b'a'; 3_000];
    let long = [b"GET / HTTP/1.1\r\nCookie: ", &cookie[..], b"\r\n\r\n"].concat();
    let endless = [b"PROXY TCP4 ", &[b'1'; 200][..], b"\r\n"].concat();
    assert_eq!(LONGEST.len(), 107, "the longest line there is");
    let cases: [(&[u8], &str); 17] = [
        (REQUEST, "no-header"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            "http2",
        ),
        (&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], "tls"),
        (&unix, "unix"),
        (&local, "local"),
        (&unspecified, "unspecified"),
        (LONGEST, "unspecified"),
        (&wrong, "bad-checksum"),
        (&announced, "unfinished"),
        (&long, "too-long"),
        // Garbage that begins like a header.
        (b"PROXY TCP4 203.0.113.50 and so on\r\n", "unrecognised"),
        (
            b"PROXY TCP4 203.0.113.50 172.31.0.11 99999 30080\r\n",
            "unrecognised",
        ),
        (&endless, "unrecognised"),
        (&v3, "unrecognised"),
        (b"\x01\x02\x03 garbage\r\n\r\n", "unrecognised"),
        (
            b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50, unknown\r\n\r\n",
            "hidden-hop",
        ),
        (
            b"GET / HTTP/1.1\r\nForwarded: for=192.0.2.1\r\nX-Forwarded-For: 203.0.113.50\r\n\r\n",
            "headers-disagree",
        ),
    ];
    let parts: Vec<Vec<&[u8]>> = cases.iter().map(|(bytes, _)| vec![*bytes]).collect();
    let told = told_of(&stage, &parts);
    for (bytes, reason) in cases {
        let came = |told: &&Told| bytes.starts_with(&told.heard.bytes);
        let of_it = told.iter().find(came);
        let Told { record, .. } = of_it.unwrap_or_else(|| panic!("{reason}: {told:?}"));
        let client = &record["client"];
        assert_eq!(client["recovered"], Value::Null, "{reason}: {record}");
        assert_eq!(client["not_recovered"], reason, "{record}");
    }
}

/// A client that writes headers itself, in both families and modes.
#[rstest]
fn who_is_not_trusted_is_not_believed(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("who_is_not_trusted_is_not_believed") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let door = stage.door().expect("a door");
    let other = stage.clients()[0];
    let forged: [&[u8]; 4] = [
        &forwarded(other),
        b"GET / HTTP/1.1\r\nForwarded: for=192.0.2.7\r\n\r\n",
        &line(other, door),
        &binary(other, door),
    ];
    let told = stage.observe(&TRUSTING, || {
        for client in stage.clients() {
            for bytes in forged {
                stage.say(client, door, &[bytes], PAUSE)?;
            }
        }
        Ok(())
    });
    let told = told.expect("observed");
    assert_eq!(told.len(), stage.clients().len() * forged.len());
    for Told { record, .. } in told {
        let client = &record["client"];
        assert_eq!(client["recovered"], Value::Null, "{record}");
        assert_eq!(client["not_recovered"], "untrusted-peer", "{record}");
    }
}

/// Off, nothing of it is in a record; and a recording never holds what clients sent.
#[test]
fn bytes_are_nowhere() {
    if !privilege::granted("bytes_are_nowhere") {
        return;
    }
    let stage = stage();
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let request = b"GET /a-secret HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50\r\nA: other\r\n\r\n";
    let say = || stage.say(front, door, &[request], PAUSE);
    let told = stage.observe(&[], say).expect("observed");
    let client = &told[0].record["client"];
    assert_eq!(client["recovered"], Value::Null);
    assert_eq!(client["not_recovered"], Value::Null);

    let directory = tempfile::TempDir::new().expect("a directory");
    let recording = directory.path().join("recording");
    let node = stage.lab().node("node1").expect("a node");
    let objects = tests::demo::cluster_file();
    let path = recording.to_str().expect("text");
    let arguments = [&TRUSTING[..], &["--record", path]].concat();
    let observer = tests::observer_process::ObserverProcess::start(node, &objects, &arguments);
    let observer = observer.expect("observes");
    say().expect("answered");
    observer.wait_for_records(1).expect("told");
    let finished = observer.stop().expect("ended");
    assert_eq!(recovered(&finished.records[0]), Some(stage.clients()[0]));
    let kept = std::fs::read_to_string(&recording).expect("text");
    for secret in ["a-secret", "GET", "other"] {
        assert!(!kept.contains(secret), "{secret} is in the recording");
    }
    let replayed = tests::observer_process::replay(&recording, &["-o", "json"]);
    assert_eq!(replayed.expect("replayed"), finished.stdout);
}

/// An observer that is held up loses what there is no room for, and does not take it for silence.
#[test]
fn what_was_lost_is_not_silence() {
    /// The ring buffer of first bytes holds some 500 such heads.
    const CONNECTIONS: usize = 656;
    const AT_ONCE: usize = 8;
    /// The programs stop when the observer was silent for ten seconds; far less, then.
    const HELD_UP_MAX: Duration = Duration::from_secs(7);
    if !privilege::granted("what_was_lost_is_not_silence") {
        return;
    }
    let stage = stage();
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let client = stage.clients()[0];
    let cookie = "a".repeat(1_900);
    let request =
        format!("GET / HTTP/1.1\r\nX-Forwarded-For: {client}\r\nCookie: {cookie}\r\n\r\n");
    let node = stage.lab().node("node1").expect("a node");
    let objects = tests::demo::cluster_file();
    let observer = ObserverProcess::start(node, &objects, &TRUSTING).expect("observes");
    let pid = Pid::from_raw(i32::try_from(observer.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let start = Instant::now();
    threads::at_once(0..AT_ONCE, |_| {
        for _ in 0..CONNECTIONS / AT_ONCE {
            let said = stage.say(front, door, &[request.as_bytes()], PAUSE);
            said.expect("answered");
        }
    });
    assert!(start.elapsed() < HELD_UP_MAX, "{:?}", start.elapsed());
    kill(pid, Signal::SIGCONT).expect("goes on");
    observer
        .wait_for_records(CONNECTIONS)
        .expect("all are told of");
    // Who opens a connection later and sends nothing is silent.
    drop(stage.connect(front, door).expect("connected"));
    observer.wait_for_records(CONNECTIONS + 1).expect("told of");
    let finished = observer.stop().expect("stops");
    let mut said = finished.records.iter().map(|record| {
        let reason = record["client"]["not_recovered"].as_str();
        (recovered(record), reason.unwrap_or_default())
    });
    assert_eq!(said.next_back(), Some((None, "silent")));
    let (seen, lost): (Vec<_>, Vec<_>) = said.partition(|(recovered, _)| recovered.is_some());
    assert!(!seen.is_empty() && !lost.is_empty(), "{}", finished.stderr);
    assert!(seen.iter().all(|it| *it == (Some(client), "")), "{seen:?}");
    assert!(lost.iter().all(|it| *it == (None, "not-seen")), "{lost:?}");
    assert!(
        finished.stderr.contains("first bytes"),
        "{}",
        finished.stderr
    );
}
