//! Halves that fit, and halves that must not be joined.

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::record::tests::whole;
use crate::record::{Client, FrontDoor};
use crate::verdict::{CauseCode, ClientKind};

/// What the first node says of it: 700 µs went by beyond it.
fn first() -> Record {
    Record {
        extra_hop_ns: None,
        hop_check: None,
        ..whole()
    }
}

/// What the second says: it took 500 µs of those.
fn second() -> Record {
    let mut record = first();
    let seen = record.source_seen.expect("one");
    let backend = record.backend.clone().expect("one");
    record.node = "node2".into();
    record.client = Client {
        ip: seen.ip,
        port: seen.port,
        kind: ClientKind::Node,
        recovered: None,
        recovered_from: None,
        hops_listed: None,
        not_recovered: None,
        server_name: None,
    };
    record.front_door = FrontDoor {
        kind: Some(FrontDoorKind::Pod),
        ip: backend.ip,
        port: backend.port,
    };
    record.observed_at = Some("2026-11-23T12:00:42.123956Z".to_owned());
    record.source_ip = SourceIp::Unknown;
    record.lost_at = None;
    record.losses.clear();
    if let Some(cause) = &mut record.cause {
        cause.code = CauseCode::MasqueradedBeforeThisNode;
    }
    record.extra_hops = None;
    record.round_trip_ns = Some(500_000);
    let step = &mut record.path[0];
    step.node = "node2".into();
    step.r#in = Some("flannel.1".into());
    step.out = Some("cali1".into());
    step.ttl_in = Some(63);
    step.ttl_out = Some(62);
    record
}

/// The only record of two.
fn joined(first: Record, second: Record) -> Record {
    let mut joined = join(vec![first, second]);
    assert_eq!(joined.len(), 1, "{joined:?}");
    joined.remove(0)
}

fn at(mut record: Record, observed_at: &str) -> Record {
    record.observed_at = Some(format!("2026-11-23T{observed_at}Z"));
    record
}

#[test]
fn two_halves_are_the_first_nodes_word_with_the_whole_path() {
    let record = joined(second(), first());
    assert_eq!(&*record.node, "node1");
    assert_eq!(record.client, first().client);
    assert_eq!(record.lost_at, first().lost_at);
    let nodes: Vec<&str> = record.path.iter().map(|step| &*step.node).collect();
    assert_eq!(nodes, ["node1", "node2"]);
    assert_eq!(record.extra_hops, Some(1));
    assert_eq!(record.extra_hop_ns, Some(200_000));
    let as_it_should = HopCheck {
        forwards: 2,
        expected: 2,
    };
    assert_eq!(record.hop_check, Some(as_it_should));
}

#[test]
fn what_the_first_did_not_know_the_second_tells() {
    let mut unknown = first();
    unknown.backend = unknown.backend.map(|backend| Backend {
        pod: None,
        node: None,
        ..backend
    });
    unknown.extra_hops = None;
    let record = joined(unknown, second());
    assert_eq!(record.backend, first().backend);
    assert_eq!(record.extra_hops, Some(1));
}

/// Where one that came was delivered, and where the client is on the first node.
#[rstest]
#[case::routers_between(Some(64), Some(63), Some(61), Some(60), 4, 2)]
#[case::to_the_second_node_itself(Some(64), Some(63), Some(63), None, 1, 1)]
#[case::from_the_first_node_itself(None, Some(64), Some(64), Some(63), 1, 1)]
#[case::a_rule_that_sets_it(Some(64), Some(255), Some(255), Some(254), -190, 2)]
fn ttls_count_forwards(
    #[case] ttl_in: Option<u8>,
    #[case] ttl_out: Option<u8>,
    #[case] second_in: Option<u8>,
    #[case] second_out: Option<u8>,
    #[case] forwards: i16,
    #[case] expected: u8,
) {
    let (mut here, mut there) = (first(), second());
    here.path[0].ttl_in = ttl_in;
    here.path[0].ttl_out = ttl_out;
    there.path[0].ttl_in = second_in;
    there.path[0].ttl_out = second_out;
    let check = HopCheck { forwards, expected };
    assert_eq!(joined(here, there).hop_check, Some(check));
}

/// A time that would be negative is none: two clocks cannot be that wrong about a span.
#[test]
fn a_hop_costs_no_time_that_is_not_known() {
    let mut slow = second();
    slow.round_trip_ns = Some(700_001);
    assert_eq!(joined(first(), slow).extra_hop_ns, None);
    let mut unanswered = second();
    unanswered.round_trip_ns = None;
    assert_eq!(joined(first(), unanswered).extra_hop_ns, None);
}

#[rstest]
#[case::of_one_node(|record: &mut Record| record.node = "node1".into())]
#[case::of_a_node_without_the_backend(|record: &mut Record| record.node = "node3".into())]
#[case::another_port(|record: &mut Record| record.client.port = 1)]
#[case::another_backend(|record: &mut Record| record.front_door.port = 1)]
#[case::another_protocol(|record: &mut Record| record.protocol = Protocol::Udp)]
#[case::that_existed_before(|record: &mut Record| {
    record.observed_at = None;
    record.path.clear();
})]
#[case::by_another_door(|record: &mut Record| {
    record.front_door.kind = Some(FrontDoorKind::NodePort);
})]
#[case::long_after(|record: &mut Record| {
    record.observed_at = Some("2026-11-23T12:00:48.000000Z".to_owned());
})]
#[case::at_no_time(|record: &mut Record| record.observed_at = Some("yesterday".to_owned()))]
fn what_is_no_half_of_it_stays_as_it_is(#[case] change: fn(&mut Record)) {
    let mut other = second();
    change(&mut other);
    let both = join(vec![first(), other.clone()]);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&first()) && both.contains(&other), "{both:?}");
}

/// A port that was used again: by time where that tells, else not at all.
#[test]
fn what_fits_twice_is_not_joined_unless_time_tells() {
    let early = [
        at(first(), "12:00:00.000000"),
        at(second(), "12:00:00.000500"),
    ];
    let late = [
        at(first(), "12:01:00.000000"),
        at(second(), "12:01:00.000500"),
    ];
    assert_eq!(join([early.clone(), late].concat()).len(), 2);
    let soon = [
        at(first(), "12:00:01.000000"),
        at(second(), "12:00:01.000500"),
    ];
    let all = [early, soon].concat();
    assert_eq!(join(all.clone()).len(), all.len());
}

/// Nobody rewrote it, and nobody knows where the pod lives: who was first cannot be told.
#[test]
fn two_that_say_the_same_are_not_joined() {
    let (mut one, mut other) = (second(), second());
    for record in [&mut one, &mut other] {
        let backend = record.backend.as_mut().expect("one");
        backend.node = None;
    }
    other.node = "node3".into();
    assert_eq!(join(vec![one.clone(), other.clone()]).len(), 2);
    // With a place of the pod, the one that is not there was first.
    one.backend.as_mut().expect("one").node = Some("node2".into());
    let record = joined(other, one);
    assert_eq!(&*record.node, "node3");
}

/// Connections of few ports, nodes and moments, so that many collide.
fn records() -> impl Strategy<Value = Vec<Record>> {
    let half = (0..2_u8, 0..4_u16, 0..3_u8, 0..4_u8, 0..3_u8).prop_map(
        |(half, port, node, seconds, known)| {
            let mut record = if half == 0 { first() } else { second() };
            if let Some(seen) = &mut record.source_seen {
                seen.port = port;
            }
            if half == 1 {
                record.client.port = port;
            }
            record.node = format!("node{node}").into();
            record.path[0].node.clone_from(&record.node);
            if let Some(backend) = &mut record.backend {
                backend.node = (known > 0).then(|| format!("node{known}").into());
            }
            at(record, &format!("12:00:{:02}.000000", 3 * seconds))
        },
    );
    proptest::collection::vec(half, 0..12)
}

fn steps(records: &[Record]) -> Vec<String> {
    let mut steps: Vec<String> = records
        .iter()
        .flat_map(|record| &record.path)
        .map(|step| format!("{step:?}"))
        .collect();
    steps.sort();
    steps
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_is_joined_twice(records in records()) {
        let joined = join(records.clone());
        prop_assert_eq!(steps(&joined), steps(&records));
        for record in &joined {
            prop_assert!(record.path.len() <= 2);
            if let [here, there] = &record.path[..] {
                prop_assert_eq!(&here.node, &record.node);
                prop_assert_ne!(&here.node, &there.node);
            } else {
                prop_assert!(records.contains(record));
            }
        }
    }

    #[test]
    fn the_order_makes_no_difference_and_once_is_enough(
        (records, shuffled) in records().prop_flat_map(|records| {
            (Just(records.clone()), Just(records).prop_shuffle())
        }),
    ) {
        let text = |records: &[Record]| {
            let mut lines: Vec<String> =
                records.iter().map(|record| format!("{record:?}")).collect();
            lines.sort();
            lines
        };
        let joined = join(records);
        prop_assert_eq!(text(&join(shuffled)), text(&joined));
        prop_assert_eq!(text(&join(joined.clone())), text(&joined));
    }

    #[test]
    fn a_record_is_read_as_it_was_printed(records in records()) {
        for record in join(records) {
            let printed = serde_json::to_string(&record).expect("prints");
            prop_assert_eq!(serde_json::from_str::<Record>(&printed).expect("reads"), record);
        }
    }
}
