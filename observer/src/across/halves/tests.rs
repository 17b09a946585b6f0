//! Whoever waits, waits for what may come, and not for long.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::record::join;

const PATIENCE: Duration = Duration::from_secs(5);

fn record(value: Value) -> Record {
    serde_json::from_value(value).expect("the test's record")
}

/// What node1 says of a connection that it sent to node2, masqueraded with this port.
fn first(port: u16, second: u32) -> Record {
    record(json!({
        "schema": "observer.connection/v1", "node": "node1", "from": "start", "protocol": "TCP",
        "observed_at": format!("2026-11-25T12:00:{second:02}.000100Z"),
        "service": null,
        "front_door": {"kind": "NodePort", "ip": "172.31.0.11", "port": 30080},
        "client": {"ip": "203.0.113.50", "port": port, "kind": "external", "recovered": null},
        "backend": {"ip": "10.244.2.5", "port": 8080, "pod": null, "node": "node2"},
        "source_seen": {"ip": "172.31.0.11", "port": port},
        "source_ip": "lost", "lost_at": null, "cause": null,
        "outcome": "answered", "outcome_cause": null,
        "extra_hops": 1, "extra_hop_ns": null, "hop_check": null,
        "path": [step("node1")], "round_trip_ns": 900_000,
        "expected": null, "as_expected": null, "advice": [],
    }))
}

/// What node2 says of it.
fn second(port: u16, second: u32) -> Record {
    let mut half = serde_json::to_value(first(port, second)).expect("JSON");
    half["node"] = json!("node2");
    half["observed_at"] = json!(format!("2026-11-25T12:00:{second:02}.000200Z"));
    half["front_door"] = json!({"kind": "Pod", "ip": "10.244.2.5", "port": 8080});
    half["client"] = json!({
        "ip": "172.31.0.11", "port": port, "kind": "node", "recovered": null,
    });
    half["source_ip"] = json!("unknown");
    half["path"] = json!([step("node2")]);
    record(half)
}

fn step(node: &str) -> Value {
    json!({
        "node": node, "in": "eth0", "out": "eth1", "ttl_in": 64, "ttl_out": 63,
        "reply_ttl_in": 63, "forward_ns": 1_000, "reply_ns": 700_000,
    })
}

fn nodes(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn both() -> HashSet<String> {
    nodes(&["node1", "node2"])
}

#[test]
fn the_halves_of_a_connection_come_out_as_one_whichever_comes_first() {
    let start = Instant::now();
    for halves in [
        [first(50_000, 1), second(50_000, 1)],
        [second(50_000, 1), first(50_000, 1)],
    ] {
        let mut waiting = Halves::new(PATIENCE);
        let [one, other] = halves.clone();
        assert_eq!(waiting.add(start, one, &both()), []);
        let whole = waiting.add(start, other, &both());
        assert_eq!(whole, join(halves.into()));
        assert_eq!(whole.len(), 1);
        assert_eq!(waiting.end(), []);
        assert_eq!(waiting.due(start + PATIENCE * 2), []);
    }
}

#[test]
fn a_half_whose_other_never_comes_comes_out_alone_and_in_time() {
    let start = Instant::now();
    let mut waiting = Halves::new(PATIENCE);
    assert_eq!(waiting.add(start, first(50_000, 1), &both()), []);
    assert_eq!(waiting.next_deadline(), Some(start + PATIENCE));
    assert_eq!(waiting.due(start + PATIENCE * 9 / 10), []);
    assert_eq!(waiting.due(start + PATIENCE), [first(50_000, 1)]);
    assert_eq!(waiting.next_deadline(), None);
}

#[test]
fn who_has_no_other_half_to_wait_for_waits_for_none() {
    let start = Instant::now();
    let mut waiting = Halves::new(PATIENCE);
    let mut refused = first(50_000, 1);
    refused.backend = None;
    let mut here = first(50_001, 1);
    here.backend = here.backend.map(|backend| crate::record::Backend {
        node: Some("node1".into()),
        ..backend
    });
    for alone in [refused, here] {
        assert_eq!(waiting.add(start, alone.clone(), &both()), [alone]);
    }
    // The node that would have it is not followed.
    let only = nodes(&["node1", "node3"]);
    let half = first(50_002, 1);
    assert_eq!(waiting.add(start, half.clone(), &only), [half]);
    let only = nodes(&["node2"]);
    let half = second(50_003, 1);
    assert_eq!(waiting.add(start, half.clone(), &only), [half]);
    assert_eq!(waiting.next_deadline(), None);
}

/// A port that is used again at once: nobody knows whose half is whose.
#[test]
fn what_is_ambiguous_is_not_joined() {
    let start = Instant::now();
    let mut waiting = Halves::new(PATIENCE);
    assert_eq!(waiting.add(start, first(50_000, 1), &both()), []);
    assert_eq!(waiting.add(start, first(50_000, 2), &both()), []);
    assert_eq!(waiting.add(start, second(50_000, 1), &both()), []);
    assert_eq!(waiting.end().len(), 3);
}

#[test]
fn too_many_do_not_wait() {
    let start = Instant::now();
    let mut waiting = Halves::new(PATIENCE);
    let mut out = 0;
    for number in 0..WAITING_MAX + 10 {
        let mut half = first(u16::try_from(number % 50_000).expect("a port"), 1);
        if let Some(backend) = &mut half.backend {
            backend.port = 1;
        }
        out += waiting.add(start, half, &both()).len();
    }
    assert_eq!((out, waiting.impatient()), (10, 10));
    assert_eq!(waiting.end().len(), WAITING_MAX);
}

proptest! {
    /// Whatever the order, what comes out is what joining all at once gives, if no port is used
    /// twice; and nothing is lost if one is.
    #[test]
    fn it_is_the_same_as_joining_all_at_once(
        order in Just((0..12_u16).collect::<Vec<_>>()).prop_shuffle(),
        missing in prop::collection::hash_set(0..12_u16, 0..4),
    ) {
        let start = Instant::now();
        let mut waiting = Halves::new(PATIENCE);
        let half = |number: u16| {
            let port = 50_000 + number / 2;
            if number.is_multiple_of(2) { first(port, 1) } else { second(port, 1) }
        };
        let all: Vec<_> = order.into_iter().filter(|it| !missing.contains(it)).map(half).collect();
        let mut out = Vec::new();
        for record in all.clone() {
            out.extend(waiting.add(start, record, &both()));
        }
        out.extend(waiting.end());
        prop_assert_eq!(join(out), join(all));
    }
}
