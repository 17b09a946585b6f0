//! What is made of a connection, seen from node1 of a cluster of two.

mod predict;

use std::net::SocketAddr;

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::cluster::{FrontDoorKind, Index, KubeProxy, LocalAddresses, Objects, Protocol};
use crate::flow::{Answer, Answered, Connection, Refusal, Translation};
use crate::observation::{
    Arrival, Conntrack, Departure, Entry, Identity, IfIndex, Moment, Ttl, Tuple,
};

const CLIENT: &str = "203.0.113.50:49508";
const WEB: &str = "172.31.0.11:30080";
const LOCAL_POD: &str = "10.244.1.5:8080";
const REMOTE_POD: &str = "10.244.2.5:8080";
const NODE1_MASQUERADE: &str = "172.31.0.11:50513";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

fn arrival() -> Arrival {
    Arrival {
        at: Moment(100),
        interface: IfIndex(2),
        ttl: Ttl(64),
    }
}

fn service(name: &str, node_port: u16, mut spec: Value, endpoints: &Value) -> [Value; 2] {
    let object = spec.as_object_mut().expect("a spec");
    object.entry("type").or_insert(json!("NodePort"));
    object.insert(
        "ports".to_owned(),
        json!([{"name": "http", "port": 80, "nodePort": node_port}]),
    );
    let metadata = json!({"namespace": "shop", "name": name});
    let ingress = json!([{"ip": "198.51.100.7"}]);
    let status = if spec["type"] == "LoadBalancer" {
        json!({"loadBalancer": {"ingress": ingress}})
    } else {
        json!({})
    };
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status}),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "shop", "name": name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        }),
    ]
}

fn endpoint(address: &str, node: &str) -> Value {
    let pod = format!("pod-{}", address.replace('.', "-"));
    json!({
        "addresses": [address], "nodeName": node,
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
    })
}

fn index() -> Index {
    let node = |name: &str, address: &str, pods: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [pods]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    let both = json!([
        endpoint("10.244.1.5", "node1"),
        endpoint("10.244.2.5", "node2")
    ]);
    let far = json!([endpoint("10.244.2.5", "node2")]);
    let on_the_host = json!([{"addresses": ["172.31.0.11"], "nodeName": "node1"}]);
    let mut items = vec![
        node("node1", "172.31.0.11", "10.244.1.0/24"),
        node("node2", "172.31.0.12", "10.244.2.0/24"),
    ];
    items.extend(service(
        "web",
        30080,
        json!({"clusterIP": "10.96.0.1"}),
        &both,
    ));
    let local = json!({"clusterIP": "10.96.0.2", "externalTrafficPolicy": "Local"});
    items.extend(service("far", 30081, local, &far));
    items.extend(service(
        "empty",
        30082,
        json!({"clusterIP": "10.96.0.3"}),
        &json!([]),
    ));
    let fenced = json!({
        "clusterIP": "10.96.0.4", "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    });
    items.extend(service("fenced", 30083, fenced, &far));
    items.extend(service(
        "host",
        30084,
        json!({"clusterIP": "10.96.0.5"}),
        &on_the_host,
    ));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let objects = Objects::from_list(list.to_string().as_bytes()).expect("the test's objects");
    Index::build(&objects)
}

fn node1() -> LocalAddresses {
    let addresses = ["172.31.0.11", "10.244.1.1"].map(|ip| ip.parse().expect("an address"));
    LocalAddresses::new("node1", addresses)
}

fn judged_with(connection: &Connection, index: Option<&Index>) -> Option<Verdict> {
    let local = node1();
    judge(
        connection,
        Knowledge {
            index,
            kube_proxy: None,
            local: &local,
            all: false,
        },
    )
}

fn judged(connection: &Connection) -> Verdict {
    judged_with(connection, Some(&index())).expect("reported")
}

/// A connection that came, left towards `backend` with the source `seen`, and was answered.
fn answered(client: &str, door: &str, backend: &str, seen: &str) -> Connection {
    Connection {
        identity: Identity {
            protocol: Protocol::Tcp,
            zone: 0,
            original: Tuple {
                source: socket(client),
                destination: socket(door),
            },
            sequence: 7,
        },
        opened_at: Some(Moment(100)),
        arrival: Some(arrival()),
        departure: Some(Departure {
            at: Moment(200),
            interface: IfIndex(9),
            ttl: Ttl(63),
        }),
        translation: Some(Translation {
            reply: Tuple {
                source: socket(backend),
                destination: socket(seen),
            },
            conntrack: Conntrack::Entry,
        }),
        answer: Answer::Accepted(Answered {
            at: Moment(300),
            arrival: Some(arrival()),
        }),
        stray: None,
        doubtful: false,
        entry: None,
    }
}

/// A connection that came, and of which no more was seen.
fn silent(client: &str, door: &str) -> Connection {
    Connection {
        departure: None,
        translation: None,
        answer: Answer::None,
        ..answered(client, door, door, client)
    }
}

fn code(verdict: &Verdict) -> Option<CauseCode> {
    verdict.cause.as_ref().map(|cause| cause.code)
}

fn outcome_code(verdict: &Verdict) -> Option<OutcomeCauseCode> {
    verdict.outcome_cause.as_ref().map(|cause| cause.code)
}

#[rstest]
#[case::to_a_pod_of_another_node(REMOTE_POD, "node2", 1)]
#[case::to_a_pod_of_this_node(LOCAL_POD, "node1", 0)]
fn cluster_policy_loses_the_source_wherever_the_pod_is(
    #[case] backend: &str,
    #[case] node: &str,
    #[case] hops: u8,
) {
    let verdict = judged(&answered(CLIENT, WEB, backend, NODE1_MASQUERADE));
    assert_eq!(
        verdict.service.as_ref().map(ToString::to_string).as_deref(),
        Some("shop/web:http")
    );
    assert_eq!(verdict.client.kind, ClientKind::External);
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    assert_eq!(verdict.source_seen, Some(socket(NODE1_MASQUERADE)));
    assert_eq!(
        verdict.lost_at,
        Some(Lost {
            interface: Some(IfIndex(9)),
            by: RewriteOwner::KubeProxy,
        })
    );
    assert_eq!(
        code(&verdict),
        Some(CauseCode::ExternalTrafficPolicyCluster)
    );
    assert_eq!(verdict.outcome, Outcome::Answered);
    let place = verdict.backend.expect("a backend");
    assert_eq!(place.node.as_deref(), Some(node));
    assert_eq!(verdict.extra_hops, Some(hops));
}

#[test]
fn a_source_that_stays_is_preserved_and_needs_no_cause() {
    let verdict = judged(&answered(CLIENT, WEB, LOCAL_POD, CLIENT));
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
    assert_eq!(verdict.lost_at, None);
    assert_eq!(verdict.cause, None);
    assert_eq!(verdict.extra_hops, Some(0));
}

#[test]
fn another_port_is_no_loss() {
    let verdict = judged(&answered(CLIENT, WEB, LOCAL_POD, "203.0.113.50:1024"));
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
    assert_eq!(verdict.source_seen, Some(socket("203.0.113.50:1024")));
}

#[test]
fn a_pod_that_reaches_itself_is_masqueraded_and_says_why() {
    let verdict = judged(&answered(
        "10.244.1.5:40000",
        "10.96.0.1:80",
        LOCAL_POD,
        NODE1_MASQUERADE,
    ));
    assert_eq!(verdict.client.kind, ClientKind::Pod);
    assert_eq!(code(&verdict), Some(CauseCode::Hairpin));
}

#[test]
fn the_second_node_says_only_what_it_saw() {
    let verdict = judged(&answered(
        "172.31.0.12:50513",
        LOCAL_POD,
        LOCAL_POD,
        "172.31.0.12:50513",
    ));
    assert_eq!(verdict.front_door.kind, Some(FrontDoorKind::Pod));
    assert_eq!(verdict.source_ip, SourceIp::Unknown);
    assert_eq!(code(&verdict), Some(CauseCode::MasqueradedBeforeThisNode));
    assert_eq!(verdict.lost_at, None);
    assert_eq!(verdict.extra_hops, None);
}

#[test]
fn a_rewrite_that_nothing_explains_has_no_owner() {
    let verdict = judged(&answered(
        CLIENT,
        "172.31.0.11:30081",
        REMOTE_POD,
        NODE1_MASQUERADE,
    ));
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    assert_eq!(code(&verdict), Some(CauseCode::Unknown));
    assert_eq!(verdict.lost_at.map(|at| at.by), Some(RewriteOwner::Unknown));
}

#[test]
fn without_cluster_state_a_rewrite_is_reported_and_nothing_else_is() {
    let rewritten = answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE);
    let verdict = judged_with(&rewritten, None).expect("reported");
    assert_eq!(verdict.front_door.kind, None);
    assert_eq!(verdict.client.kind, ClientKind::Unknown);
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    assert_eq!(code(&verdict), Some(CauseCode::Unknown));

    let plain = answered(CLIENT, "172.31.0.11:22", "172.31.0.11:22", CLIENT);
    assert_eq!(judged_with(&plain, None), None);
}

#[test]
fn a_pods_way_out_and_a_host_listener_are_nobodys_business() {
    let way_out = answered(
        "10.244.1.5:40000",
        "192.0.2.80:443",
        "192.0.2.80:443",
        NODE1_MASQUERADE,
    );
    let ssh = answered(CLIENT, "172.31.0.11:22", "172.31.0.11:22", CLIENT);
    for connection in [way_out, ssh] {
        assert_eq!(judged_with(&connection, Some(&index())), None);
    }
}

#[rstest]
#[case::no_endpoint_of_this_node("172.31.0.11:30081", OutcomeCauseCode::NoLocalEndpoints)]
#[case::no_endpoint_at_all("172.31.0.11:30082", OutcomeCauseCode::NoEndpoints)]
#[case::not_among_the_source_ranges("198.51.100.7:80", OutcomeCauseCode::SourceRanges)]
#[case::nothing_of_kube_proxys(WEB, OutcomeCauseCode::NetworkPolicyOrFirewall)]
fn what_left_no_entry_was_dropped_and_the_objects_say_why(
    #[case] door: &str,
    #[case] expected: OutcomeCauseCode,
) {
    let verdict = judged(&silent(CLIENT, door).with_entry(Entry::Absent { table_full: false }));
    assert_eq!(verdict.outcome, Outcome::Dropped);
    assert_eq!(outcome_code(&verdict), Some(expected));
    assert_eq!(verdict.backend, None);
    assert_eq!(verdict.source_seen, None);
    assert_eq!(verdict.source_ip, SourceIp::Unknown);
    assert_eq!(verdict.cause, None);
    assert_eq!(verdict.extra_hops, None);
}

#[test]
fn source_ranges_do_not_fence_a_node_port() {
    let dropped =
        silent(CLIENT, "172.31.0.11:30083").with_entry(Entry::Absent { table_full: false });
    assert_eq!(
        outcome_code(&judged(&dropped)),
        Some(OutcomeCauseCode::NetworkPolicyOrFirewall)
    );
}

#[test]
fn an_entry_without_a_reply_was_delivered_and_left_waiting() {
    let entry = Entry::Present {
        reply: Tuple {
            source: socket("172.31.0.11:8080"),
            destination: socket(CLIENT),
        },
        replied: false,
    };
    let verdict = judged(&silent(CLIENT, "172.31.0.11:30084").with_entry(entry));
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(outcome_code(&verdict), Some(OutcomeCauseCode::ListenQueue));
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
    assert_eq!(verdict.extra_hops, Some(0));
}

#[test]
fn without_conntracks_word_the_outcome_is_unknown() {
    let verdict = judged(&silent(CLIENT, WEB));
    assert_eq!(verdict.outcome, Outcome::Unknown);
    assert_eq!(verdict.outcome_cause, None);
}

#[test]
fn a_refusal_is_the_backends_if_it_came_from_there_and_kube_proxys_without_endpoints() {
    let refused = |refusal, arrival| {
        Answer::Refused(
            refusal,
            Answered {
                at: Moment(300),
                arrival,
            },
        )
    };
    let by_backend = Connection {
        answer: refused(Refusal::Reset, Some(arrival())),
        ..answered(CLIENT, WEB, LOCAL_POD, NODE1_MASQUERADE)
    };
    let verdict = judged(&by_backend);
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert_eq!(
        outcome_code(&verdict),
        Some(OutcomeCauseCode::BackendRefused)
    );

    for (door, refusal, expected) in [
        (
            "172.31.0.11:30082",
            Refusal::IcmpError,
            OutcomeCauseCode::NoEndpoints,
        ),
        (
            "10.244.1.1:30080",
            Refusal::Reset,
            OutcomeCauseCode::NotANodePortAddress,
        ),
        (WEB, Refusal::IcmpError, OutcomeCauseCode::Unknown),
    ] {
        let by_this_node = Connection {
            departure: None,
            answer: refused(refusal, None),
            ..answered(CLIENT, door, door, CLIENT)
        };
        let verdict = judged(&by_this_node);
        assert_eq!(outcome_code(&verdict), Some(expected), "{door}");
        assert_eq!(verdict.backend, None);
    }
}

#[test]
fn a_reply_that_went_astray_explains_the_silence() {
    let unanswered = Connection {
        answer: Answer::None,
        ..answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE)
    };
    let verdict = judged(&unanswered);
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(verdict.outcome_cause, None);

    let doubtful = Connection {
        doubtful: true,
        ..unanswered.clone()
    };
    assert_eq!(judged(&doubtful).outcome, Outcome::Unknown);

    let lost_on_its_way = unanswered
        .clone()
        .with_entry(Entry::Absent { table_full: false });
    assert_eq!(judged(&lost_on_its_way).outcome, Outcome::Dropped);

    let astray = Connection {
        stray: Some(arrival()),
        ..unanswered
    };
    let verdict = judged(&astray);
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(
        outcome_code(&verdict),
        Some(OutcomeCauseCode::AsymmetricReturn)
    );
}

#[test]
fn a_full_table_drops_what_nothing_else_would() {
    let dropped = silent(CLIENT, WEB).with_entry(Entry::Absent { table_full: true });
    assert_eq!(
        outcome_code(&judged(&dropped)),
        Some(OutcomeCauseCode::ConntrackFull)
    );
}

#[test]
fn one_that_existed_before_has_the_outcome_that_conntrack_knows() {
    let Connection {
        identity,
        translation,
        ..
    } = answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE);
    let reply = translation.expect("one").reply;
    for (replied, outcome) in [(true, Outcome::Answered), (false, Outcome::Unanswered)] {
        let verdict = judged(&Connection::existing(identity, reply, replied));
        assert_eq!(verdict.outcome, outcome);
        assert_eq!(verdict.source_ip, SourceIp::Lost);
        assert_eq!(verdict.lost_at.map(|at| at.interface), Some(None));
    }
}

#[rstest]
#[case::of_the_node_itself("172.31.0.11:40000", None, CauseCode::NodeLocalClient)]
#[case::of_a_pod_that_nothing_explains("10.244.1.9:40000", None, CauseCode::Unknown)]
#[case::from_outside_without_configuration(CLIENT, None, CauseCode::OutsideClusterCidr)]
#[case::of_a_pod_outside_the_configured_range(
    "10.244.1.9:40000",
    Some("clusterCIDR: 10.128.0.0/16"),
    CauseCode::OutsideClusterCidr
)]
#[case::with_masquerade_all(
    "10.244.1.9:40000",
    Some("clusterCIDR: 10.244.0.0/16\niptables: {masqueradeAll: true}"),
    CauseCode::MasqueradeAll
)]
fn what_goes_to_a_cluster_ip_is_masqueraded_for_a_reason(
    #[case] client: &str,
    #[case] configuration: Option<&str>,
    #[case] expected: CauseCode,
) {
    let mut connection = answered(client, "10.96.0.1:80", REMOTE_POD, "172.31.0.111:50513");
    connection.arrival = connection
        .arrival
        .filter(|_| expected != CauseCode::NodeLocalClient);
    let configuration = configuration.map(|fields| {
        KubeProxy::parse(&format!("kind: KubeProxyConfiguration\n{fields}")).expect("one")
    });
    let (index, local) = (index(), node1());
    let verdict = judge(
        &connection,
        Knowledge {
            index: Some(&index),
            kube_proxy: configuration.as_ref(),
            local: &local,
            all: false,
        },
    )
    .expect("reported");
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    assert_eq!(code(&verdict), Some(expected));
}

#[test]
fn what_happened_is_held_against_what_should_have() {
    let as_it_should = judged(&answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE));
    let lost = Expected {
        source_ip: SourceIp::Lost,
        outcome: Outcome::Answered,
    };
    assert_eq!(as_it_should.expected, Some(lost));
    assert!(lost.is_met_by(SourceIp::Lost, Outcome::Answered, None));
    assert!(!lost.is_met_by(SourceIp::Preserved, Outcome::Answered, None));
    assert!(!lost.is_met_by(SourceIp::Lost, Outcome::Refused, None));

    let door = "172.31.0.11:30082";
    let in_silence = judged(&silent(CLIENT, door).with_entry(Entry::Absent { table_full: false }));
    let refused = in_silence.expected.expect("predicted");
    assert_eq!(refused.outcome, Outcome::Refused);
    assert!(refused.is_met_by(
        in_silence.source_ip,
        in_silence.outcome,
        outcome_code(&in_silence)
    ));

    let second_half = judged(&answered(
        "172.31.0.12:50513",
        LOCAL_POD,
        LOCAL_POD,
        "172.31.0.12:50513",
    ));
    assert_eq!(second_half.expected, None);
    let by_another_node = judged(&answered(
        "10.244.1.5:40000",
        "172.31.0.12:30080",
        "172.31.0.12:30080",
        "10.244.1.5:40000",
    ));
    assert_eq!(by_another_node.expected, None, "node2's kube-proxy decides");
}
