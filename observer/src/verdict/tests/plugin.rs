//! What kube-proxy did not do: whose else it is, and when that cannot be told.

use super::*;

const TUNNEL: &str = "10.244.1.1:50513";
const POD: &str = "10.244.1.9:40000";
const LOCAL_DOOR: &str = "172.31.0.11:30081";
const AGENT: &str = "172.31.0.12:8080";

fn with_configuration(connection: &Connection, fields: Option<&str>) -> Verdict {
    let configuration = fields.map(|fields| {
        KubeProxy::parse(&format!("kind: KubeProxyConfiguration\n{fields}")).expect("one")
    });
    let (index, local) = (index(), node1());
    judge(
        connection,
        Knowledge {
            index: Some(&index),
            kube_proxy: configuration.as_ref(),
            local: &local,
            all: false,
            before: Before::default(),
            readers: &[],
        },
    )
    .expect("reported")
}

/// Its owner, its code, and a word of the sentence that gives it away.
fn assert_lost(verdict: &Verdict, by: RewriteOwner, why: CauseCode, sentence: &str) {
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    let cause = verdict.cause.as_ref().expect("a cause");
    assert_eq!(lost_at(verdict).map(|at| at.by), Some(by), "{cause:?}");
    assert_eq!(cause.code, why, "{cause:?}");
    assert!(cause.explanation.contains(sentence), "{cause:?}");
}

#[rstest]
#[case::policy_local(CLIENT, LOCAL_DOOR, REMOTE_POD, None, "externalTrafficPolicy is Local")]
#[case::policy_local_whatever_the_configuration(
    CLIENT,
    LOCAL_DOOR,
    REMOTE_POD,
    Some("clusterCIDR: 10.244.0.0/16\niptables: {masqueradeAll: true}"),
    "externalTrafficPolicy is Local"
)]
#[case::a_pod_under_policy_local(POD, "172.31.0.11:30085", AGENT, None, "Local")]
#[case::straight_to_a_pod(CLIENT, REMOTE_POD, REMOTE_POD, None, "a pod's own address")]
#[case::a_pod_to_another_host(POD, "10.96.0.6:80", AGENT, None, "natOutgoing")]
#[case::a_pod_to_another_host_by_interface(
    POD,
    "10.96.0.6:80",
    AGENT,
    Some("detectLocalMode: BridgeInterface"),
    "leaves the pod network"
)]
#[case::a_pod_to_a_pod_in_the_cluster_cidr(
    POD,
    "10.96.0.1:80",
    REMOTE_POD,
    Some("clusterCIDR: 10.244.0.0/16"),
    "does not masquerade what 10.244.1.9 sends to a cluster IP"
)]
#[case::a_client_from_outside_where_nothing_counts_as_a_pod(
    CLIENT,
    "10.96.0.1:80",
    REMOTE_POD,
    Some("mode: iptables"),
    "--ip-masq"
)]
#[case::no_service_at_all(POD, "172.31.0.12:22", "172.31.0.12:22", None, "no Service's")]
fn what_kube_proxy_spares_was_rewritten_by_the_network_plugin(
    #[case] client: &str,
    #[case] door: &str,
    #[case] backend: &str,
    #[case] configuration: Option<&str>,
    #[case] sentence: &str,
) {
    let connection = answered(client, door, backend, TUNNEL);
    let verdict = with_configuration(&connection, configuration);
    assert_lost(
        &verdict,
        RewriteOwner::Cni,
        CauseCode::CniMasquerade,
        sentence,
    );
    let cause = verdict.cause.expect("a cause");
    assert_eq!(cause.basis, Basis::Inferred);
    assert!(cause.explanation.contains("10.244.1.1"), "{cause:?}");
}

/// kube-proxy and network plugins masquerade to an address of their own node.
#[rstest]
#[case::policy_local(LOCAL_DOOR)]
#[case::straight_to_a_pod(REMOTE_POD)]
fn an_address_of_nobody_here_has_no_owner(#[case] door: &str) {
    let verdict = judged(&answered(CLIENT, door, REMOTE_POD, "192.0.2.99:50513"));
    assert_lost(
        &verdict,
        RewriteOwner::Unknown,
        CauseCode::Unknown,
        "192.0.2.99",
    );
}

/// `masqueradeAll`, a wrong range or a wrong interface would explain it as well.
#[rstest]
#[case::nothing_is_known(None, "configuration would tell")]
#[case::by_the_interface(Some("detectLocalMode: InterfaceNamePrefix"), "nothing known")]
fn a_pod_that_reached_a_pod_is_a_riddle_without_configuration(
    #[case] configuration: Option<&str>,
    #[case] sentence: &str,
) {
    let connection = answered(POD, "10.96.0.1:80", REMOTE_POD, TUNNEL);
    let verdict = with_configuration(&connection, configuration);
    assert_lost(
        &verdict,
        RewriteOwner::Unknown,
        CauseCode::Unknown,
        sentence,
    );
}

#[rstest]
#[case::by_the_nodes_range("detectLocalMode: NodeCIDR", "detectLocalMode: NodeCIDR")]
#[case::by_the_interface("detectLocalMode: BridgeInterface", "by no interface")]
#[case::by_the_cluster_cidr("clusterCIDR: 10.244.0.0/16", "outside the cluster CIDR")]
fn how_kube_proxy_tells_pods_is_said(#[case] configuration: &str, #[case] sentence: &str) {
    let connection = answered(CLIENT, "10.96.0.1:80", REMOTE_POD, TUNNEL);
    let verdict = with_configuration(&connection, Some(configuration));
    assert_lost(
        &verdict,
        RewriteOwner::KubeProxy,
        CauseCode::OutsideClusterCidr,
        sentence,
    );
}

/// A node's own way to a cluster IP: kube-proxy's, unless it takes nothing for a pod.
#[rstest]
#[case::with_a_range(
    "clusterCIDR: 10.244.0.0/16",
    RewriteOwner::KubeProxy,
    CauseCode::NodeLocalClient
)]
#[case::without("mode: iptables", RewriteOwner::Cni, CauseCode::CniMasquerade)]
fn a_node_is_masqueraded_by_whoever_has_a_rule_for_it(
    #[case] configuration: &str,
    #[case] by: RewriteOwner,
    #[case] why: CauseCode,
) {
    let mut connection = answered("172.31.0.11:40000", "10.96.0.1:80", REMOTE_POD, TUNNEL);
    connection.arrival = None;
    let verdict = with_configuration(&connection, Some(configuration));
    assert_lost(&verdict, by, why, "10.244.1.1");
}

/// Though the pod be a Service's.
#[test]
fn a_node_that_goes_straight_to_a_pod_meets_no_rule_of_kube_proxy() {
    let mut connection = answered("172.31.0.11:40000", REMOTE_POD, REMOTE_POD, TUNNEL);
    connection.arrival = None;
    let verdict = judged(&connection);
    assert_lost(
        &verdict,
        RewriteOwner::Cni,
        CauseCode::CniMasquerade,
        "--ip-masq",
    );
}

/// What a plugin does to every pod that leaves is no finding; what nobody expects is one.
#[test]
fn only_what_is_not_the_rule_is_a_finding() {
    let to_a_host = judged(&answered(POD, "10.96.0.6:80", AGENT, TUNNEL));
    let expected = to_a_host.expected.expect("predicted");
    assert_eq!(expected.source_ip, SourceIp::Unknown);
    assert!(expected.is_met_by(to_a_host.source_ip, to_a_host.outcome, None));

    let to_a_pod = with_configuration(
        &answered(POD, "10.96.0.1:80", REMOTE_POD, TUNNEL),
        Some("clusterCIDR: 10.244.0.0/16"),
    );
    let expected = to_a_pod.expected.expect("predicted");
    assert_eq!(expected.source_ip, SourceIp::Preserved);
    assert!(!expected.is_met_by(to_a_pod.source_ip, to_a_pod.outcome, None));
}

/// Conntrack is where verdicts come from; but what left as it came was not rewritten.
#[rstest]
#[case::straight_to_a_pod(LOCAL_POD, Some(CauseCode::Unknown))]
#[case::to_a_service(WEB, None)]
fn of_what_conntrack_was_told_to_leave_alone_nothing_is_claimed(
    #[case] door: &str,
    #[case] why: Option<CauseCode>,
) {
    let mut connection = answered(CLIENT, door, door, CLIENT);
    let translation = connection.translation.as_mut().expect("one");
    translation.conntrack = Conntrack::Untracked;
    if why.is_some() {
        assert_eq!(judged(&connection).source_ip, SourceIp::Preserved);
    }
    connection.arrival = None;
    let verdict = judged(&connection);
    assert_eq!(verdict.source_ip, SourceIp::Unknown);
    assert_eq!(code(&verdict), why);
    assert_eq!(verdict.expected, None);
    if let Some(cause) = verdict.cause {
        assert!(cause.explanation.contains("NOTRACK"), "{cause:?}");
    }
}
