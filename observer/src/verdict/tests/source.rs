//! What became of the source, by whom and why.

use super::*;

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
        lost_at(&verdict),
        Some(&Lost {
            node: Some("node1".into()),
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
    assert_eq!(verdict.losses, []);
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
    assert_eq!(verdict.losses, []);
    assert_eq!(verdict.extra_hops, None);
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
            before: Before::default(),
            readers: &[],
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
