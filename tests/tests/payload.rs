//! What a connection's first bytes tell of its client, however they come.
//!
//! Goal: a header in pieces, late, or pipelined is read as the pod reads it; garbage, TLS and
//! HTTP/2 are called what they are; a client that is not trusted is not believed. Method: write
//! the bytes from the address of a trusted proxy, or of a client, and compare with what the pods
//! got.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use tests::{
    kubeproxy::{Backend, Family, Mode},
    payload::{Stage, TRUSTED, Told, recovered},
    privilege,
};

const TRUSTING: [&str; 4] = ["--payload", "on", TRUSTED[0], TRUSTED[1]];
const PAUSE: Duration = Duration::from_millis(15);
const CLIENT: &str = "203.0.113.50";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.50 172.31.0.11 49508 30080\r\n";
/// As long as one can be (107 bytes).
const LONGEST: &[u8] = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const FORWARDED: &[u8] = b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn stage() -> Stage {
    Stage::raise(Mode::Iptables(Backend::Nft), Family::V4).expect("raised")
}

/// What the entry node says of one connection from the trusted proxy that sends these parts.
fn told_of(stage: &Stage, parts: &[&[u8]], pause: Duration) -> Value {
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let told = stage.observe(&TRUSTING, || stage.say(front, door, parts, pause));
    let told = told.expect("observed");
    let [Told { record, .. }] = &told[..] else {
        panic!("one connection: {told:?}")
    };
    record.clone()
}

fn assert_recovered(record: &Value, from: &str) {
    assert_eq!(record["client"]["recovered"], CLIENT, "{record}");
    assert_eq!(record["client"]["recovered_from"], from, "{record}");
    assert_eq!(record["outcome"], "answered", "{record}");
}

#[test]
fn however_a_header_comes_it_is_read() {
    if !privilege::granted("however_a_header_comes_it_is_read") {
        return;
    }
    let stage = stage();
    let whole = [LINE, REQUEST].concat();
    let byte_by_byte: Vec<&[u8]> = whole.chunks(1).collect();
    assert_recovered(&told_of(&stage, &byte_by_byte, PAUSE), "proxy-v1");
    let record = told_of(&stage, &[b"PROXY", &LINE[5..], REQUEST], PAUSE);
    assert_recovered(&record, "proxy-v1");
    let v2 = [
        SIGNATURE,
        &[
            0x21, 0x11, 0, 12, 203, 0, 113, 50, 172, 31, 0, 11, 1, 2, 3, 4,
        ],
    ]
    .concat();
    let record = told_of(&stage, &[&v2[..9], &v2[9..20], &v2[20..], REQUEST], PAUSE);
    assert_recovered(&record, "proxy-v2");
    let record = told_of(&stage, &[&FORWARDED[..30], &FORWARDED[30..]], PAUSE);
    assert_recovered(&record, "x-forwarded-for");
    // Pipelined, another client behind: the first counts.
    let second = b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.51\r\n\r\n";
    let record = told_of(&stage, &[&[FORWARDED, second].concat()], PAUSE);
    assert_recovered(&record, "x-forwarded-for");
}

#[test]
fn a_header_may_come_late_and_not_too_late() {
    if !privilege::granted("a_header_may_come_late_and_not_too_late") {
        return;
    }
    let stage = stage();
    let (front, door) = (stage.front().expect("one"), stage.door().expect("one"));
    let told = stage.observe(&TRUSTING, || {
        for seconds in [1, 2] {
            let mut stream = stage.connect(front, door)?;
            thread::sleep(Duration::from_secs(seconds));
            stream.write_all(FORWARDED)?;
            stream.read_exact(&mut [0; 10])?;
        }
        let mut stream = stage.connect(front, door)?;
        thread::sleep(Duration::from_millis(3_600));
        stream.write_all(FORWARDED)?;
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
    let client = Some(CLIENT.parse().expect("an address"));
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
    assert_recovered(record, "x-forwarded-for");
}

#[test]
fn what_names_nobody_is_called_what_it_is() {
    if !privilege::granted("what_names_nobody_is_called_what_it_is") {
        return;
    }
    let stage = stage();
    let unix = [SIGNATURE, &[0x21, 0x31, 0, 216], &[b'/'; 216], REQUEST].concat();
    let local = [SIGNATURE, &[0x20, 0, 0, 0], REQUEST].concat();
    let long = [
        b"GET / HTTP/1.1\r\nCookie: ",
        &[b'a'; 3_000][..],
        b"\r\n\r\n",
    ]
    .concat();
    let hidden = b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.50, unknown\r\n\r\n";
    let disagree =
        b"GET / HTTP/1.1\r\nForwarded: for=192.0.2.1\r\nX-Forwarded-For: 203.0.113.50\r\n\r\n";
    assert_eq!(LONGEST.len(), 107, "the longest line there is");
    let cases: [(&[u8], &str); 12] = [
        (REQUEST, "no-header"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            "http2",
        ),
        (&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], "tls"),
        (&unix, "unix"),
        (&local, "local"),
        (LONGEST, "unspecified"),
        (b"PROXY TCP4 203.0.113.50 and so on\r\n", "unrecognised"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "unrecognised"),
        (b"\x01\x02\x03 garbage\r\n\r\n", "unrecognised"),
        (&long, "too-long"),
        (hidden, "hidden-hop"),
        (disagree, "headers-disagree"),
    ];
    for (bytes, reason) in cases {
        let record = told_of(&stage, &[bytes], PAUSE);
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
    let forged: [&[u8]; 3] = [
        FORWARDED,
        b"GET / HTTP/1.1\r\nForwarded: for=192.0.2.7\r\n\r\n",
        LINE,
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
    assert_recovered(&finished.records[0], "x-forwarded-for");
    let kept = std::fs::read_to_string(&recording).expect("text");
    for secret in ["a-secret", "GET", "other"] {
        assert!(!kept.contains(secret), "{secret} is in the recording");
    }
    let replayed = tests::observer_process::replay(&recording, &["-o", "json"]);
    assert_eq!(replayed.expect("replayed"), finished.stdout);
}
