//! What should happen, row by row of the decision table of kube-proxy's modes.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use rstest::rstest;

use super::*;
use crate::cluster::Family;
use crate::verdict::predict;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test's address parses")
}

/// What is predicted on `node` for a client of `kind` at `address`.
fn predicted(
    service: &str,
    door: FrontDoorKind,
    node: &str,
    (kind, address): (ClientKind, Option<&str>),
    endpoint: Option<&str>,
    configuration: Option<&str>,
) -> Prediction {
    let index = index();
    let configuration = configuration.map(|fields| {
        KubeProxy::parse(&format!("kind: KubeProxyConfiguration\n{fields}")).expect("one")
    });
    let question = Question {
        entry: index.service("shop", service).first().expect("a port"),
        door,
        at: None,
        family: Family::V4,
        client: kind,
        address: address.map(ip),
        endpoint: endpoint.map(ip),
    };
    let terms = Terms {
        index: Some(&index),
        node: index.node(node).expect("a node"),
        kube_proxy: configuration.as_ref(),
    };
    predict(&question, terms).expect("kube-proxy's business")
}

const EXTERNAL: (ClientKind, Option<&str>) = (ClientKind::External, Some("203.0.113.50"));
const POD: (ClientKind, Option<&str>) = (ClientKind::Pod, Some("10.244.1.9"));
const NODE: (ClientKind, Option<&str>) = (ClientKind::Node, Some("172.31.0.11"));

type Fate = (
    SourceIp,
    Option<CauseCode>,
    Outcome,
    Option<RangeInclusive<u8>>,
);

#[rstest]
#[case::rows_1_and_2("web", FrontDoorKind::NodePort, "node1", EXTERNAL,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, Some(0..=1)))]
#[case::row_3("host", FrontDoorKind::NodePort, "node1", EXTERNAL,
    (SourceIp::Preserved, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, Some(0..=0)))]
#[case::row_4("host", FrontDoorKind::NodePort, "node2", EXTERNAL,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, Some(1..=1)))]
#[case::row_5("far", FrontDoorKind::NodePort, "node2", EXTERNAL,
    (SourceIp::Preserved, None, Outcome::Answered, Some(0..=0)))]
#[case::row_7("far", FrontDoorKind::NodePort, "node1", EXTERNAL,
    (SourceIp::Unknown, None, Outcome::Dropped, None))]
#[case::row_8("empty", FrontDoorKind::NodePort, "node1", EXTERNAL,
    (SourceIp::Unknown, None, Outcome::Refused, None))]
#[case::row_9_by_the_load_balancer("fenced", FrontDoorKind::LoadBalancer, "node1", EXTERNAL,
    (SourceIp::Unknown, None, Outcome::Dropped, None))]
#[case::row_9_by_a_node_port("fenced", FrontDoorKind::NodePort, "node1", EXTERNAL,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, Some(1..=1)))]
#[case::row_14("web", FrontDoorKind::ClusterIP, "node1", EXTERNAL,
    (SourceIp::Lost, Some(CauseCode::OutsideClusterCidr), Outcome::Answered, Some(0..=1)))]
#[case::row_21("web", FrontDoorKind::ClusterIP, "node1", POD,
    (SourceIp::Preserved, None, Outcome::Answered, Some(0..=1)))]
#[case::row_27("web", FrontDoorKind::ClusterIP, "node1", NODE,
    (SourceIp::Unknown, Some(CauseCode::NodeLocalClient), Outcome::Answered, Some(0..=1)))]
#[case::row_28("web", FrontDoorKind::NodePort, "node1", POD,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, Some(0..=1)))]
#[case::row_29("far", FrontDoorKind::NodePort, "node1", POD,
    (SourceIp::Preserved, None, Outcome::Answered, Some(1..=1)))]
#[case::row_30("far", FrontDoorKind::NodePort, "node1", NODE,
    (SourceIp::Unknown, Some(CauseCode::NodeLocalClient), Outcome::Answered, Some(1..=1)))]
fn the_decision_table(
    #[case] service: &str,
    #[case] door: FrontDoorKind,
    #[case] node: &str,
    #[case] client: (ClientKind, Option<&str>),
    #[case] expected: Fate,
) {
    let Prediction {
        source_ip,
        cause,
        outcome,
        outcome_cause: _,
        extra_hops,
        basis,
        doubt: _,
    } = predicted(service, door, node, client, None, None);
    assert_eq!((source_ip, cause, outcome, extra_hops), expected);
    assert_eq!(basis, Basis::Inferred, "nobody told how kube-proxy runs");
}

#[test]
fn a_pod_that_gets_itself_is_masqueraded_whatever_the_policy() {
    let client = (ClientKind::Pod, Some("10.244.2.5"));
    let door = FrontDoorKind::ClusterIP;
    let prediction = predicted("far", door, "node2", client, Some("10.244.2.5"), None);
    assert_eq!(prediction.cause, Some(CauseCode::Hairpin));
    assert_eq!(prediction.source_ip, SourceIp::Lost);
}

#[rstest]
#[case::row_22(
    "iptables: {masqueradeAll: true}",
    SourceIp::Lost,
    Some(CauseCode::MasqueradeAll)
)]
#[case::row_23(
    "clusterCIDR: 10.128.0.0/16",
    SourceIp::Lost,
    Some(CauseCode::OutsideClusterCidr)
)]
#[case::as_it_should_be("clusterCIDR: 10.244.0.0/16", SourceIp::Preserved, None)]
fn kube_proxys_configuration_decides_for_pods(
    #[case] configuration: &str,
    #[case] source_ip: SourceIp,
    #[case] cause: Option<CauseCode>,
) {
    let door = FrontDoorKind::ClusterIP;
    let prediction = predicted("web", door, "node1", POD, None, Some(configuration));
    assert_eq!((prediction.source_ip, prediction.cause), (source_ip, cause));
    assert_eq!(prediction.basis, Basis::Config);
}

#[test]
fn a_pod_reached_directly_is_none_of_kube_proxys_business() {
    let index = index();
    let question = Question {
        entry: index.service("shop", "web").first().expect("a port"),
        door: FrontDoorKind::Pod,
        at: None,
        family: Family::V4,
        client: ClientKind::External,
        address: None,
        endpoint: None,
    };
    let terms = Terms {
        index: Some(&index),
        node: index.node("node1").expect("a node"),
        kube_proxy: None,
    };
    assert_eq!(predict(&question, terms), None);
}
