//! More at once than the observer can take.
//!
//! Goal: what is missing equals what is counted, and nothing that is reported is wrong. Method:
//! stop the observer, hand its node ten times as many opening packets as the ring buffer holds
//! observations, let it go on, and count.

use std::{
    io,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tests::{demo, observer_process::ObserverProcess, privilege};
use tun_rs::{DeviceBuilder, Layer};

/// Every one is an observation, and so is its answer; the ring buffer holds some 7,700.
const CONNECTIONS: u32 = 40_000;
/// Clients of 198.18.0.0/16 (RFC 2544), so that ports do not run out.
const CLIENTS: u32 = 64;
const DOOR: [u8; 4] = [172, 31, 0, 11];
const DOOR_PORT: u16 = 30_081;
/// The observer's programs stop when it was silent for ten seconds; far less, then.
const BURST_MAX: Duration = Duration::from_secs(6);
/// Connections while the observer is held up.
const HELD_UP: usize = 20;
/// The observer gives an answer three seconds.
const LONGER_THAN_ANSWERS_MAY_TAKE: Duration = Duration::from_millis(3_500);

fn syn(number: u32) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number % CLIENTS);
    let port = u16::try_from(1_024 + number / CLIENTS).expect("few");
    let mut packet = Vec::new();
    PacketBuilder::ipv4(client.octets(), DOOR, 64)
        .tcp(port, DOOR_PORT, number, 64_240)
        .syn()
        .write(&mut packet, &[])
        .expect("fits");
    packet
}

/// The number before the first of these words in what the observer said beside.
fn counted(stderr: &str, reason: &str) -> u64 {
    let Some((_, rest)) = stderr.split_once(&format!("{reason}: ")) else {
        return 0;
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Silence is judged as of what was read: an observer that slept through the answers finds them
/// before it gives them up.
#[test]
fn an_observer_that_was_held_up_takes_no_answer_for_silence() {
    if !privilege::granted("an_observer_that_was_held_up_takes_no_answer_for_silence") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let pid = Pid::from_raw(i32::try_from(observer.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let door = (DOOR, DOOR_PORT).into();
    for _ in 0..HELD_UP {
        lab.connect(door, Duration::from_secs(2)).expect("answered");
    }
    thread::sleep(LONGER_THAN_ANSWERS_MAY_TAKE);
    kill(pid, Signal::SIGCONT).expect("goes on");
    thread::sleep(Duration::from_millis(500));
    let finished = observer.stop().expect("stops");
    let outcomes: Vec<_> = finished
        .records
        .iter()
        .map(|record| record.pointer("/outcome").cloned())
        .collect();
    assert_eq!(outcomes, vec![Some(json!("answered")); HELD_UP]);
}

#[test]
fn what_is_missing_equals_what_is_counted() {
    if !privilege::granted("what_is_missing_equals_what_is_counted") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let device = || {
        DeviceBuilder::new()
            .name("inject0")
            .layer(Layer::L3)
            .build_sync()
    };
    let inject = node
        .namespace
        .run(device)
        .expect("inside")
        .expect("a device");
    node.namespace
        .ip("link set inject0 up\nroute add 198.18.0.0/16 dev inject0\n")
        .expect("up");

    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let pid = Pid::from_raw(i32::try_from(observer.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let start = Instant::now();
    for number in 0..CONNECTIONS {
        while let Err(error) = inject.send(&syn(number)) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        }
    }
    assert!(start.elapsed() < BURST_MAX, "{:?}", start.elapsed());
    kill(pid, Signal::SIGCONT).expect("goes on");
    // It takes what there is, and then judges what waited.
    thread::sleep(Duration::from_secs(1));
    let finished = observer.stop().expect("stops");

    let reported = finished.records.len() as u64;
    let missing = counted(&finished.stderr, "ring buffer full");
    assert!(missing > u64::from(CONNECTIONS) / 2, "{}", finished.stderr);
    assert_eq!(
        reported + missing,
        u64::from(CONNECTIONS),
        "{}",
        finished.stderr
    );
    for record in &finished.records {
        assert_eq!(record.pointer("/service/name"), Some(&json!("api")));
        assert_eq!(record.pointer("/source_ip"), Some(&json!("preserved")));
        let outcome = record
            .pointer("/outcome")
            .and_then(|outcome| outcome.as_str());
        assert!(
            matches!(outcome, Some("answered" | "unknown")),
            "its answer was lost, which is no silence of the pod's: {record}"
        );
    }
}
