//! Every kind of client through every front door of a cluster, against the oracle.
//!
//! Goal: whoever connects, by whatever door, in either mode and family, is reported once and
//! rightly, and nobody else is. Method: raise a cluster, observe every node, and connect from
//! outside, from every pod and from every node through every front door of every Service.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::Value;
use tests::{
    kubeproxy::{Backend, DetectLocal, Family, Mode, Settings, doors::front_doors},
    lab::Lab,
    oracle::Records,
    privilege,
    protocol::Protocol,
    recording,
    run::{self, Run},
    scene::Scene,
    traffic::{Client, Way, ways},
};

/// So many connections are opened at least, where a number is promised.
const CONNECTIONS: usize = 300;

/// Every way of every client in some families.
fn all_ways(lab: &Lab, families: &[Family]) -> Vec<Way> {
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| families.iter().any(|family| family.holds(door.to.ip())));
    ways(lab, &Client::all(lab), &doors)
}

/// Opens a connection by every way, and again until there are enough; judges all.
fn judged(scene: &Scene, settings: Settings, families: &[Family], enough: usize) -> Run {
    let lab = scene.raise(settings).expect("raised");
    let all = all_ways(&lab, families);
    let number = all.len().max(enough);
    let ways: Vec<Way> = all.into_iter().cycle().take(number).collect();
    let run = run::observe(&lab, &scene.objects, &ways).expect("observed");
    run.assert_right(&lab);
    run.assert_replayed();
    run.assert_joined(&lab);
    run
}

/// The different words at `field` of all records.
fn words<'run>(records: &'run Records, field: &str) -> BTreeSet<&'run str> {
    records
        .values()
        .flatten()
        .filter_map(|record| record.pointer(field).and_then(Value::as_str))
        .collect()
}

/// A run in which something never came about would prove nothing of it.
fn assert_occurred(run: &Run, expected: &[(&str, &[&str])]) {
    for (field, expected) in expected {
        let seen = words(&run.records, field);
        for expected in *expected {
            assert!(
                seen.contains(expected),
                "{field} was never {expected}, only {seen:?}"
            );
        }
    }
}

/// Those that this kernel has sockets for.
fn protocols() -> &'static [&'static str] {
    if Protocol::Sctp.has_sockets() {
        &["SCTP", "TCP", "UDP"]
    } else {
        &["TCP", "UDP"]
    }
}

const EVERY_FATE: [(&str, &[&str]); 3] = [
    ("/client/kind", &["external", "node", "pod"]),
    ("/source_ip", &["lost", "preserved", "unknown"]),
    ("/outcome", &["answered", "dropped", "refused"]),
];

#[rstest]
fn clients_of_the_recorded_cluster_are_reported_once_and_rightly(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let test = "clients_of_the_recorded_cluster_are_reported_once_and_rightly";
    if !privilege::granted(test) {
        return;
    }
    let Some(captures) = recording::captures(test) else {
        return;
    };
    let scene = Scene::recorded(&captures);
    let run = judged(&scene, scene.settings(mode), &[family], CONNECTIONS);
    assert_occurred(&run, &EVERY_FATE);
    assert_occurred(
        &run,
        &[
            ("/protocol", &["TCP", "UDP"]),
            (
                "/cause/code",
                &[
                    "external-traffic-policy-cluster",
                    "hairpin",
                    "outside-cluster-cidr",
                ],
            ),
            (
                "/outcome_cause/code",
                &["no-endpoints", "no-local-endpoints", "source-ranges"],
            ),
        ],
    );
}

#[rstest]
fn clients_of_an_unusual_cluster_are_reported_once_and_rightly(
    #[values(Mode::Iptables(Backend::Legacy), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("clients_of_an_unusual_cluster_are_reported_once_and_rightly") {
        return;
    }
    let scene = Scene::edges();
    let run = judged(&scene, scene.settings(mode), &[family], CONNECTIONS);
    assert_occurred(&run, &EVERY_FATE);
    assert_occurred(&run, &[("/protocol", protocols())]);
    let outcome_causes: &[&str] = match mode {
        Mode::Iptables(_) | Mode::Ipvs => &["no-endpoints", "no-local-endpoints", "source-ranges"],
        Mode::Nftables => &[
            "no-endpoints",
            "no-local-endpoints",
            "source-ranges",
            "not-a-node-port-address",
        ],
    };
    assert_occurred(&run, &[("/outcome_cause/code", outcome_causes)]);
}

/// What else kube-proxy may be told about masquerading, in both families at once.
#[rstest]
#[case::masquerade_all(
    |settings| Settings { masquerade_all: true, ..settings },
    &["masquerade-all", "external-traffic-policy-cluster", "hairpin"],
)]
#[case::pods_by_interface(
    |settings| Settings { detect_local: DetectLocal::InterfaceNamePrefix("cali".to_owned()), ..settings },
    &["outside-cluster-cidr", "external-traffic-policy-cluster", "hairpin"],
)]
fn other_settings_are_seen(
    #[case] change: fn(Settings) -> Settings,
    #[case] causes: &[&str],
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
) {
    if !privilege::granted("other_settings_are_seen") {
        return;
    }
    let scene = Scene::demo();
    let run = judged(&scene, change(scene.settings(mode)), &Family::ALL, 0);
    assert_occurred(&run, &[("/cause/code", causes)]);
}
