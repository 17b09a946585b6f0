//! The observer, on every node at once, against the oracle.
//!
//! Goal: each connection is reported once, and rightly. Method: raise the demo cluster, observe
//! both nodes, open a hundred connections through every front door, and compare each record with
//! what the client and the pod's own socket know of the connection.

use std::{collections::BTreeSet, fs, path::Path};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    demo,
    kubeproxy::{Backend, Family, Mode, Settings},
    lab::Lab,
    oracle::{Records, crossings, judge},
    privilege,
    run::Run,
    scene::Scene,
    traffic::Way,
};

const CONNECTIONS: usize = 100;

#[rstest]
fn every_connection_is_reported_once_and_as_the_pods_sockets_saw_it(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("every_connection_is_reported_once_and_as_the_pods_sockets_saw_it") {
        return;
    }
    let lab = Scene::demo().raise(Settings::of(mode)).expect("raised");
    let ways = demo::ways_from_outside(&lab).expect("ways");
    let of_family = ways.iter().filter(|way| family.holds(way.door.to.ip()));
    let ways: Vec<Way> = of_family.cycle().take(CONNECTIONS).cloned().collect();
    let run = demo::observe(&lab, &ways).expect("observed");

    run.assert_right(&lab);
    assert_eq!(run.opened.len(), CONNECTIONS);
    each_record_is_what_the_schema_promises(&run.records);
    both_fates_occurred(&run.records);
    what_is_lost_says_what_to_change(&run.records);
    run.assert_replayed();
    run.assert_joined(&lab);
    assert!(
        !crossings(&lab, &run.opened).is_empty(),
        "none passed two nodes"
    );
    the_oracle_would_have_noticed(&lab, &run);
}

fn each_record_is_what_the_schema_promises(records: &Records) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../observer/schema/observer.connection.v1.json");
    let schema = fs::read_to_string(path).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema");
    for record in records.values().flatten() {
        let errors: Vec<String> = validator
            .iter_errors(record)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{record}: {errors:?}");
    }
}

/// A run in which chance never lost a source, or never kept one, would prove little.
fn both_fates_occurred(records: &Records) {
    let seen: BTreeSet<&str> = records
        .values()
        .flatten()
        .filter_map(|record| record.pointer("/source_ip")?.as_str())
        .collect();
    assert_eq!(seen, BTreeSet::from(["lost", "preserved", "unknown"]));
}

/// What a policy loses comes with the policy that keeps it, and its price; what it keeps, with
/// nothing.
fn what_is_lost_says_what_to_change(records: &Records) {
    let mut advised = 0;
    for record in records.values().flatten() {
        let changes: Vec<&str> = record["advice"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|advice| advice["change"].as_str())
            .collect();
        if record.pointer("/cause/code") == Some(&json!("external-traffic-policy-cluster")) {
            assert_eq!(changes, ["Set externalTrafficPolicy: Local"], "{record}");
            assert_ne!(record["advice"][0]["trade_off"], "", "{record}");
            advised += 1;
        }
        if record["source_ip"] == "preserved" {
            assert!(changes.is_empty(), "{record}");
        }
    }
    assert!(advised > 0, "none was lost by a policy");
}

/// The comparison itself must be able to fail: each field it judges, changed in one record; a
/// record gone; a record twice.
fn the_oracle_would_have_noticed(lab: &Lab, run: &Run) {
    let judged = |records: Records| judge(lab, &run.opened, records).complaints();
    let lost = |record: &Value| record.pointer("/source_ip") == Some(&json!("lost"));
    let (node, index) = run
        .records
        .iter()
        .find_map(|(node, records)| Some((node, records.iter().position(lost)?)))
        .expect("a source was lost");
    let changes = [
        ("/node", json!("node3")),
        ("/client/port", json!(1)),
        ("/front_door/kind", json!("HostPort")),
        ("/service/name", json!("other")),
        ("/backend/pod", json!("other")),
        ("/backend/node", json!("node3")),
        ("/source_seen/port", json!(1)),
        ("/source_seen/ip", json!("192.0.2.1")),
        ("/source_ip", json!("preserved")),
        ("/lost_at/interface", json!("lo")),
        ("/cause/code", json!("unknown")),
        ("/outcome", json!("unanswered")),
        ("/extra_hops", json!(2)),
        ("/path/0/out", json!("lo")),
        ("/path/0/ttl_in", json!(1)),
        ("/path/0/reply_ttl_in", json!(1)),
    ];
    for (field, wrong) in changes {
        let mut records = run.records.clone();
        let record = &mut records.get_mut(node).expect("the node")[index];
        *record
            .pointer_mut(field)
            .unwrap_or_else(|| panic!("{field} is in every record")) = wrong;
        assert!(!judged(records).is_empty(), "a wrong {field} went unseen");
    }
    let mut missing = run.records.clone();
    let record = missing.get_mut(node).expect("the node").remove(index);
    assert!(!judged(missing).is_empty(), "a missing record went unseen");
    let mut doubled = run.records.clone();
    doubled.get_mut(node).expect("the node").push(record);
    assert!(!judged(doubled).is_empty(), "a doubled record went unseen");
}
