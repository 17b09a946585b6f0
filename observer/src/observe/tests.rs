//! The cluster changes while connections come: each is judged by what it went by.

use std::net::SocketAddr;

use serde_json::json;

use super::*;
use crate::cluster::{Index, Objects, Protocol, TrafficPolicy};
use crate::observation::{Arrival, Conntrack, Departure, Kind, Passage, Ttl};
use crate::verdict::{CauseCode, SourceIp};

mod first_bytes;

const SECOND: u64 = 1_000_000_000;
const UPLINK: IfIndex = IfIndex(2);
const CLIENT: &str = "203.0.113.50:49508";
const GATEWAY: &str = "172.31.0.1:40000";
const DOOR: &str = "172.31.0.11:30080";
const POD: &str = "10.244.1.5:8080";
const MASQUERADE: &str = "172.31.0.11:50513";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

/// node1 with a pod on it, behind a node port of this policy.
fn cluster(policy: TrafficPolicy) -> Arc<Snapshot> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.11"}]},
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.1", "externalTrafficPolicy": policy,
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "shop", "name": "web",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "node1"}],
        },
    ]});
    let objects = Objects::from_list(list.to_string().as_bytes()).expect("the test's objects");
    Arc::new(Snapshot::new(Index::build(&objects), None))
}

fn following(cluster: Option<Arc<Snapshot>>) -> Observer {
    asking(Asking::default(), cluster)
}

fn asking(first_bytes: Asking, cluster: Option<Arc<Snapshot>>) -> Observer {
    let settings = Settings {
        node: "node1".to_owned(),
        epoch: Epoch(jiff::Timestamp::UNIX_EPOCH),
        answer_timeout_ns: 3 * SECOND,
        all: false,
        follows_cluster: true,
        first_bytes,
    };
    let mut observer = Observer::new(settings, cluster);
    observer.handle(Event::Interfaces(Interfaces {
        names: BTreeMap::from([(UPLINK, "eth0".to_owned())]),
        addresses: [socket(DOOR).ip()].into(),
        gateways: [socket(GATEWAY).ip()].into(),
    }));
    observer
}

/// What comes of a connection that is opened and answered at a moment, by a source that the pod
/// sees.
fn connect(observer: &mut Observer, at: u64, seen: &str) -> Vec<Output> {
    connect_from(observer, at, CLIENT, seen)
}

fn identity(at: u64, client: &str) -> Identity {
    Identity {
        protocol: Protocol::Tcp,
        zone: 0,
        original: Tuple {
            source: socket(client),
            destination: socket(DOOR),
        },
        sequence: u32::try_from(at / SECOND).expect("a test is short"),
    }
}

fn connect_from(observer: &mut Observer, at: u64, client: &str, seen: &str) -> Vec<Output> {
    let identity = identity(at, client);
    let passage = |kind, at: u64| {
        Event::Observation(Observation::Passage(Passage {
            kind,
            identity,
            reply: Tuple {
                source: socket(POD),
                destination: socket(seen),
            },
            conntrack: Conntrack::Entry,
            arrival: Some(Arrival {
                at: Moment(at),
                interface: UPLINK,
                ttl: Ttl(64),
            }),
            departure: Departure {
                at: Moment(at + 1),
                interface: UPLINK,
                ttl: Ttl(63),
            },
            opening: None,
        }))
    };
    observer.handle(Event::Tick(Moment(at)));
    let mut outputs = observer.handle(passage(Kind::Forward, at));
    outputs.extend(observer.handle(passage(Kind::Reply, at + 2)));
    outputs
}

fn only(outputs: Vec<Output>) -> Record {
    match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Record(_, record)]) => Arc::unwrap_or_clone(record),
        other => panic!("one record: {other:?}"),
    }
}

fn policy(record: &Record) -> Option<TrafficPolicy> {
    record.service.as_ref()?.external_traffic_policy
}

#[test]
fn what_comes_before_the_first_word_of_the_cluster_waits_for_it() {
    let mut observer = following(None);
    assert_eq!(connect(&mut observer, SECOND, MASQUERADE), []);
    let record = only(observer.handle(Event::Cluster(
        Moment(3 * SECOND),
        cluster(TrafficPolicy::Cluster),
    )));
    assert_eq!(policy(&record), Some(TrafficPolicy::Cluster));
    assert_eq!(record.as_expected, Some(true));
}

#[test]
fn no_word_of_the_cluster_holds_nothing_back_for_long() {
    let mut observer = following(None);
    assert_eq!(connect(&mut observer, SECOND, MASQUERADE), []);
    assert_eq!(observer.handle(Event::Tick(Moment(10 * SECOND))), []);
    let record = only(observer.handle(Event::Tick(Moment(11 * SECOND))));
    assert_eq!((record.source_ip, record.service), (SourceIp::Lost, None));
}

#[test]
fn the_end_holds_nothing_back() {
    let mut observer = following(None);
    assert_eq!(connect(&mut observer, SECOND, MASQUERADE), []);
    let record = only(observer.handle(Event::End));
    assert_eq!(record.source_ip, SourceIp::Lost);
}

#[test]
fn a_connection_keeps_the_policy_of_its_opening_packet() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    observer.handle(Event::Cluster(
        Moment(100 * SECOND),
        cluster(TrafficPolicy::Local),
    ));
    let before = only(connect(&mut observer, 50 * SECOND, MASQUERADE));
    let after = only(connect(&mut observer, 150 * SECOND, CLIENT));
    assert_eq!(policy(&before), Some(TrafficPolicy::Cluster));
    assert_eq!(policy(&after), Some(TrafficPolicy::Local));
    assert_eq!(before.as_expected, Some(true));
    assert_eq!(after.as_expected, Some(true));
}

#[test]
fn kube_proxy_may_be_late() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    observer.handle(Event::Cluster(
        Moment(100 * SECOND),
        cluster(TrafficPolicy::Local),
    ));
    let record = only(connect(&mut observer, 102 * SECOND, MASQUERADE));
    assert_eq!(policy(&record), Some(TrafficPolicy::Cluster));
    let cause = record.cause.map(|cause| cause.code);
    assert_eq!(cause, Some(CauseCode::ExternalTrafficPolicyCluster));
    assert_eq!(record.as_expected, Some(true));
}

/// What it went by comes to be known only afterwards.
#[test]
fn kube_proxy_may_be_first() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    assert_eq!(connect(&mut observer, 100 * SECOND, CLIENT), [], "it waits");
    let record = only(observer.handle(Event::Cluster(
        Moment(101 * SECOND),
        cluster(TrafficPolicy::Local),
    )));
    assert_eq!(policy(&record), Some(TrafficPolicy::Local));
    assert_eq!(record.as_expected, Some(true));
}

/// A Service that asks for Local and masquerades nevertheless is what people look for.
#[test]
fn what_no_change_explains_comes_out_as_unexpected() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    observer.handle(Event::Cluster(
        Moment(100 * SECOND),
        cluster(TrafficPolicy::Local),
    ));
    assert_eq!(connect(&mut observer, 110 * SECOND, MASQUERADE), []);
    let record = only(observer.handle(Event::Tick(Moment(112 * SECOND))));
    assert_eq!(policy(&record), Some(TrafficPolicy::Local));
    assert_eq!(record.as_expected, Some(false));
}

#[test]
fn records_say_how_old_the_objects_are() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    let stale_s = |observer: &mut Observer, at| {
        let record = only(connect(observer, at, MASQUERADE));
        record.cluster_stale_s
    };
    assert_eq!(stale_s(&mut observer, 5 * SECOND), None);
    observer.handle(Event::ClusterHeard(Some(Moment(10 * SECOND))));
    assert_eq!(stale_s(&mut observer, 9 * SECOND), None);
    assert_eq!(stale_s(&mut observer, 52 * SECOND), Some(42));
    observer.handle(Event::ClusterHeard(None));
    assert_eq!(stale_s(&mut observer, 60 * SECOND), None);
}

/// A connection may have waited for its answer, while much else changed.
#[test]
fn snapshots_are_kept_as_long_as_a_connection_may_have_gone_by_them() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    for second in 100..106 {
        let local = cluster(TrafficPolicy::Local);
        observer.handle(Event::Cluster(Moment(second * SECOND), local));
    }
    let record = only(connect(&mut observer, 99 * SECOND, MASQUERADE));
    assert_eq!(policy(&record), Some(TrafficPolicy::Cluster));
}

#[test]
fn snapshots_are_not_kept_for_ever() {
    let mut history = History::new(None, 3 * SECOND);
    let policy = TrafficPolicy::Cluster;
    for second in 0..100 {
        history.add(Moment(second * SECOND), cluster(policy));
    }
    // Three for the answer, five for kube-proxy, and the one that holds.
    assert_eq!(history.len(), 10);
    for part in 0..100 {
        history.add(Moment(100 * SECOND + part), cluster(policy));
    }
    assert_eq!(history.len(), 32);
}

#[test]
fn a_connection_of_while_the_api_was_away_says_so_afterwards_too() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    observer.handle(Event::ClusterHeard(Some(Moment(10 * SECOND))));
    observer.handle(Event::Tick(Moment(20 * SECOND)));
    observer.handle(Event::ClusterHeard(None));
    let record = only(connect(&mut observer, 15 * SECOND, MASQUERADE));
    assert_eq!(record.cluster_stale_s, Some(5));
    let record = only(connect(&mut observer, 21 * SECOND, MASQUERADE));
    assert_eq!(record.cluster_stale_s, None);
}

#[test]
fn a_clock_that_is_set_is_followed() {
    let mut observer = following(Some(cluster(TrafficPolicy::Cluster)));
    let epoch = Epoch("2026-11-25T12:00:00Z".parse().expect("a time"));
    observer.handle(Event::Clock(epoch));
    let record = only(connect(&mut observer, SECOND, MASQUERADE));
    let at = record.observed_at.expect("a time");
    assert_eq!(at, "2026-11-25T12:00:01.000000Z");
}
