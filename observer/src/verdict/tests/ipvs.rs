//! What IPVS mode does otherwise: predicted, and recognised.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use rstest::rstest;

use super::*;
use crate::cluster::Family;
use crate::verdict::predict;

const CONFIGURATION: &str =
    "kind: KubeProxyConfiguration\nmode: ipvs\nclusterCIDR: 10.244.0.0/16\n";

fn configuration() -> KubeProxy {
    KubeProxy::parse(CONFIGURATION).expect("a configuration")
}

/// What is predicted on node1.
fn predicted(
    service: &str,
    door: FrontDoorKind,
    at: Option<&str>,
    (client, address): (ClientKind, Option<&str>),
) -> Prediction {
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let index = index();
    let question = Question {
        entry: index.service("shop", service).first().expect("a port"),
        door,
        at: at.map(ip),
        family: Family::V4,
        client,
        address: address.map(ip),
        endpoint: None,
    };
    let terms = Terms {
        index: Some(&index),
        node: index.node("node1").expect("a node"),
        kube_proxy: Some(&configuration()),
    };
    predict(&question, terms).expect("kube-proxy's business")
}

const EXTERNAL: (ClientKind, Option<&str>) = (ClientKind::External, Some("203.0.113.50"));
const POD: (ClientKind, Option<&str>) = (ClientKind::Pod, Some("10.244.1.9"));
const NODE: (ClientKind, Option<&str>) = (ClientKind::Node, None);

type Fate = (
    SourceIp,
    Option<CauseCode>,
    Outcome,
    Option<OutcomeCauseCode>,
    Option<RangeInclusive<u8>>,
);

#[rstest]
#[case::rows_1_and_2("web", FrontDoorKind::NodePort, EXTERNAL,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, None, Some(0..=1)))]
#[case::row_3("host", FrontDoorKind::NodePort, EXTERNAL,
    (SourceIp::Preserved, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, None, Some(0..=0)))]
#[case::row_5("api", FrontDoorKind::NodePort, EXTERNAL,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(0..=0)))]
#[case::row_7i("far", FrontDoorKind::NodePort, EXTERNAL,
    (SourceIp::Preserved, None, Outcome::Unanswered, Some(OutcomeCauseCode::NoLocalEndpoints), Some(1..=1)))]
#[case::row_8("empty", FrontDoorKind::NodePort, EXTERNAL,
    (SourceIp::Unknown, None, Outcome::Refused, Some(OutcomeCauseCode::NoEndpoints), None))]
#[case::row_9("fenced", FrontDoorKind::LoadBalancer, EXTERNAL,
    (SourceIp::Unknown, None, Outcome::Dropped, Some(OutcomeCauseCode::SourceRanges), None))]
#[case::row_9_of_the_node("fenced", FrontDoorKind::LoadBalancer, NODE,
    (SourceIp::Unknown, None, Outcome::Dropped, Some(OutcomeCauseCode::SourceRanges), None))]
#[case::row_21("web", FrontDoorKind::ClusterIP, POD,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(0..=1)))]
#[case::row_25("inside", FrontDoorKind::ClusterIP, POD,
    (SourceIp::Unknown, None, Outcome::Refused, Some(OutcomeCauseCode::NoLocalEndpoints), None))]
#[case::row_27("web", FrontDoorKind::ClusterIP, NODE,
    (SourceIp::Unknown, Some(CauseCode::NodeLocalClient), Outcome::Answered, None, Some(0..=1)))]
#[case::row_31_cluster("web", FrontDoorKind::NodePort, POD,
    (SourceIp::Lost, Some(CauseCode::ExternalTrafficPolicyCluster), Outcome::Answered, None, Some(0..=1)))]
#[case::row_31_local("api", FrontDoorKind::NodePort, POD,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(0..=0)))]
#[case::row_31_local_elsewhere("far", FrontDoorKind::NodePort, POD,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(1..=1)))]
#[case::row_31_of_the_node("far", FrontDoorKind::NodePort, NODE,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(1..=1)))]
#[case::row_31_of_the_node_by_an_address_that_every_node_has("api", FrontDoorKind::ExternalIP, NODE,
    (SourceIp::Preserved, None, Outcome::Answered, None, Some(0..=0)))]
#[case::row_31_and_elsewhere("far", FrontDoorKind::ExternalIP, NODE,
    (SourceIp::Preserved, None, Outcome::Unanswered, Some(OutcomeCauseCode::NoLocalEndpoints), Some(1..=1)))]
fn the_decision_table(
    #[case] service: &str,
    #[case] door: FrontDoorKind,
    #[case] client: (ClientKind, Option<&str>),
    #[case] expected: Fate,
) {
    let Prediction {
        source_ip,
        cause,
        outcome,
        outcome_cause,
        extra_hops,
        basis,
        doubt: _,
    } = predicted(service, door, None, client);
    assert_eq!(
        (source_ip, cause, outcome, outcome_cause, extra_hops),
        expected
    );
    assert_eq!(basis, Basis::Config);
}

#[test]
fn row_33_the_loopback_address_serves_nothing() {
    let door = FrontDoorKind::NodePort;
    let Prediction {
        outcome,
        outcome_cause,
        ..
    } = predicted("web", door, Some("127.0.0.1"), NODE);
    let expected = Some(OutcomeCauseCode::NotANodePortAddress);
    assert_eq!((outcome, outcome_cause), (Outcome::Refused, expected));
}

/// Conntrack's tuples tell; its status bits do not speak of NAT at all.
#[test]
fn what_went_to_another_node_under_policy_local_is_not_answered_and_that_is_as_expected() {
    let far = "172.31.0.11:30081";
    let connection = Connection {
        answer: Answer::None,
        ..answered(CLIENT, far, REMOTE_POD, CLIENT)
    };
    let reply = Tuple {
        source: socket(REMOTE_POD),
        destination: socket(CLIENT),
    };
    let index = index();
    let verdict = judge(
        &connection.with_entry(Entry::Present {
            reply,
            replied: false,
        }),
        Knowledge {
            index: Some(&index),
            kube_proxy: Some(&configuration()),
            local: &node1(),
            all: false,
            before: Before::default(),
            readers: &[],
        },
    )
    .expect("reported");
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    let why = verdict.outcome_cause.clone().expect("a cause");
    assert_eq!(why.code, OutcomeCauseCode::NoLocalEndpoints);
    assert!(
        why.explanation.contains(REMOTE_POD),
        "it says where to: {}",
        why.explanation
    );
    assert_eq!(verdict.extra_hops, Some(1));
    let expected = verdict.expected.expect("predicted");
    assert!(expected.is_met_by(verdict.source_ip, verdict.outcome, Some(why.code)));
}
