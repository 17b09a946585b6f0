//! What stands before the node, and what it did.

use std::net::IpAddr;

use super::*;
use crate::payload::{Carrier, Reading, Reason};

const BALANCER: &str = "192.0.2.7:40000";
const GATEWAY: &str = "172.31.0.1:40000";
const POD: &str = "10.244.1.5:40000";
/// A Service under policy Local, with a pod on node1.
const LOCAL_DOOR: &str = "172.31.0.11:30086";

fn ip(text: &str) -> IpAddr {
    socket(text).ip()
}

/// 192.0.2.0/28 was named, 198.51.100.7 is in a status.
fn known() -> LoadBalancers {
    LoadBalancers {
        of_services: [ip("198.51.100.7:0")].into(),
        networks: vec!["192.0.2.0/28".parse().expect("a network")],
    }
}

fn seen(connection: &Connection, said: Said) -> Verdict {
    let (index, local, known) = (index(), node1(), known());
    let gateways = [ip(GATEWAY)].into();
    let before = Before {
        load_balancers: Some(&known),
        gateways: Some(&gateways),
        said,
        ..Before::default()
    };
    let knowledge = knowing(Some(&index), &local, before);
    judge(connection, knowledge).expect("reported")
}

fn names(carrier: Carrier) -> Said {
    Said::For {
        carrier,
        client: Some(ip(CLIENT)),
    }
}

/// Where, by whom and why, of each stage.
fn stages(verdict: &Verdict) -> Vec<(Option<&str>, RewriteOwner, CauseCode, Basis)> {
    let losses = verdict.losses.iter();
    losses
        .map(|Loss { at, cause }| (at.node.as_deref(), at.by, cause.code, cause.basis))
        .collect()
}

const UPSTREAM: CauseCode = CauseCode::UpstreamLoadBalancer;

#[rstest]
#[case::in_a_network_that_was_named(BALANCER, Said::Nothing, Basis::Config)]
#[case::in_the_status_of_a_service("198.51.100.7:40000", Said::Nothing, Basis::Config)]
#[case::by_a_proxy_header("203.0.113.7:40000", names(Carrier::ProxyV2), Basis::Observed)]
#[case::by_both(BALANCER, names(Carrier::XForwardedFor), Basis::Observed)]
fn a_load_balancers_own_address_is_a_loss_before_any_node(
    #[case] peer: &str,
    #[case] said: Said,
    #[case] basis: Basis,
) {
    let verdict = seen(&answered(peer, LOCAL_DOOR, LOCAL_POD, peer), said);
    assert_eq!(verdict.client.kind, ClientKind::LoadBalancer);
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    let balancer = RewriteOwner::LoadBalancer;
    assert_eq!(stages(&verdict), [(None, balancer, UPSTREAM, basis)]);
    assert_eq!(
        verdict.cause.as_ref(),
        verdict.losses.first().map(|it| &it.cause)
    );
    assert_eq!(verdict.extra_hops, Some(0));
    let lost = Expected {
        source_ip: SourceIp::Lost,
        outcome: Outcome::Answered,
    };
    assert_eq!(
        (verdict.expected, verdict.as_expected),
        (Some(lost), Some(true))
    );
    let checks = verdict.losses[0].cause.explanation.contains("health check");
    assert_eq!(checks, basis == Basis::Config);
}

#[rstest]
#[case(Carrier::XForwardedFor)]
#[case(Carrier::Forwarded)]
fn who_is_known_by_such_a_header_alone_is_a_proxy(#[case] carrier: Carrier) {
    let peer = "203.0.113.7:40000";
    let verdict = seen(&answered(peer, LOCAL_DOOR, LOCAL_POD, peer), names(carrier));
    assert_eq!(verdict.client.kind, ClientKind::LoadBalancer);
    let proxy = (
        None,
        RewriteOwner::Proxy,
        CauseCode::L7Proxy,
        Basis::Observed,
    );
    assert_eq!(stages(&verdict), [proxy]);
}

#[test]
fn a_masquerade_behind_it_is_the_second_loss() {
    let connection = answered(BALANCER, WEB, REMOTE_POD, NODE1_MASQUERADE);
    let verdict = seen(&connection, names(Carrier::ProxyV1));
    assert_eq!(
        stages(&verdict),
        [
            (None, RewriteOwner::LoadBalancer, UPSTREAM, Basis::Observed),
            (
                Some("node1"),
                RewriteOwner::KubeProxy,
                CauseCode::ExternalTrafficPolicyCluster,
                Basis::Observed
            ),
        ]
    );
    assert_eq!(verdict.losses[1].at.interface, Some(IfIndex(9)));
    assert_eq!(code(&verdict), Some(UPSTREAM));
    assert_eq!(
        (verdict.extra_hops, verdict.as_expected),
        (Some(1), Some(true))
    );
}

/// In IP mode a load balancer comes straight to the pod.
#[test]
fn straight_to_a_pod_its_address_is_no_masquerade_of_a_node() {
    let verdict = seen(
        &answered(BALANCER, LOCAL_POD, LOCAL_POD, BALANCER),
        Said::Nothing,
    );
    assert_eq!(code(&verdict), Some(UPSTREAM));
    assert_eq!(
        (verdict.source_ip, verdict.extra_hops),
        (SourceIp::Lost, Some(0))
    );
}

/// A health check, by its PROXY header or by a list of the peer alone.
#[rstest]
#[case(Said::Itself)]
#[case(Said::For { carrier: Carrier::ProxyV2, client: Some(ip(BALANCER)) })]
fn a_load_balancer_that_speaks_for_itself_may_have_a_client_that_says_so(#[case] said: Said) {
    let verdict = seen(&answered(BALANCER, LOCAL_DOOR, LOCAL_POD, BALANCER), said);
    assert_eq!(verdict.client.kind, ClientKind::LoadBalancer);
    assert_eq!(code(&verdict), Some(UPSTREAM));
    let told = &verdict.cause.as_ref().expect("a cause").explanation;
    assert!(
        told.contains("health check") && told.contains("plain TCP"),
        "{told}"
    );
    assert_eq!(verdict.as_expected, Some(true));
    assert_eq!(
        (verdict.source_ip, verdict.losses),
        (SourceIp::Unknown, vec![])
    );
    let masqueraded = seen(&answered(BALANCER, WEB, LOCAL_POD, NODE1_MASQUERADE), said);
    let code = code(&masqueraded);
    assert_eq!(code, Some(CauseCode::ExternalTrafficPolicyCluster));
}

/// Who is trusted to write headers, and not known as a load balancer, is the client if it says so.
#[test]
fn who_speaks_for_itself_is_the_client() {
    let peer = "203.0.113.7:40000";
    let verdict = seen(&answered(peer, LOCAL_DOOR, LOCAL_POD, peer), Said::Itself);
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
}

/// The address of another node's tunnel, which its masquerade gives.
#[test]
fn a_network_of_load_balancers_does_not_speak_of_the_tunnels_in_it() {
    let (index, local) = (index(), node1());
    let peer = "10.244.2.0:50513";
    for (network, kind) in [
        ("10.0.0.0/8", ClientKind::Unknown),
        ("10.244.2.0/32", ClientKind::LoadBalancer),
    ] {
        let known = LoadBalancers {
            networks: vec![network.parse().expect("a network")],
            ..LoadBalancers::default()
        };
        let before = Before {
            load_balancers: Some(&known),
            ..Before::default()
        };
        let knowledge = knowing(Some(&index), &local, before);
        let straight = answered(peer, LOCAL_POD, LOCAL_POD, peer);
        let verdict = judge(&straight, knowledge).expect("reported");
        assert_eq!(verdict.client.kind, kind, "{network}");
    }
}

#[test]
fn whom_it_speaks_for_need_not_be_known() {
    let said = Said::For {
        carrier: Carrier::XForwardedFor,
        client: None,
    };
    let peer = "203.0.113.7:40000";
    let verdict = seen(&answered(peer, LOCAL_DOOR, LOCAL_POD, peer), said);
    assert_eq!(code(&verdict), Some(CauseCode::L7Proxy));
}

#[test]
fn who_comes_itself_is_no_load_balancer() {
    for said in [
        Said::Nothing,
        // As through one that preserves the address, and sends a header.
        names(Carrier::ProxyV2),
    ] {
        let verdict = seen(&answered(CLIENT, LOCAL_DOOR, LOCAL_POD, CLIENT), said);
        assert_eq!(verdict.client.kind, ClientKind::External);
        assert_eq!(
            (verdict.source_ip, verdict.losses),
            (SourceIp::Preserved, vec![])
        );
    }
}

/// As ingress controllers: pods, and processes of a node.
#[rstest]
#[case::a_pod_of_this_node(POD, "10.96.0.2:80", true, Some("node1"))]
#[case::a_pod_of_another("10.244.2.5:40000", LOCAL_POD, true, Some("node2"))]
#[case::this_node("172.31.0.11:40000", "10.96.0.1:80", false, Some("node1"))]
#[case::another_node_by_its_address("172.31.0.12:40000", LOCAL_POD, true, Some("node2"))]
fn a_proxy_of_the_cluster_is_named_at_its_node(
    #[case] peer: &str,
    #[case] door: &str,
    #[case] arrives: bool,
    #[case] node: Option<&str>,
) {
    for carrier in [Carrier::ProxyV1, Carrier::XForwardedFor] {
        let mut connection = answered(peer, door, LOCAL_POD, peer);
        connection.arrival = connection.arrival.filter(|_| arrives);
        let verdict = seen(&connection, names(carrier));
        // From another node's address it may have been a pod of its, masqueraded.
        let basis = if peer.starts_with("172.31.0.12") {
            Basis::Inferred
        } else {
            Basis::Observed
        };
        let proxy = (node, RewriteOwner::Proxy, CauseCode::L7Proxy, basis);
        assert_eq!(stages(&verdict), [proxy], "{carrier:?}");
        assert_ne!(verdict.client.kind, ClientKind::LoadBalancer);
    }
}

#[test]
fn another_nodes_masquerade_stays_unknown() {
    let peer = "172.31.0.12:50513";
    let verdict = seen(&answered(peer, LOCAL_POD, LOCAL_POD, peer), Said::Nothing);
    assert_eq!(code(&verdict), Some(CauseCode::MasqueradedBeforeThisNode));
    assert_eq!(
        (verdict.source_ip, verdict.losses),
        (SourceIp::Unknown, vec![])
    );
}

#[test]
fn what_has_the_gateways_address_may_be_anybody() {
    let verdict = seen(
        &answered(GATEWAY, LOCAL_DOOR, LOCAL_POD, GATEWAY),
        Said::Nothing,
    );
    assert_eq!(code(&verdict), Some(CauseCode::GatewayMasquerade));
    assert_eq!(
        verdict.cause.as_ref().map(|cause| cause.basis),
        Some(Basis::Inferred)
    );
    assert_eq!(
        (verdict.source_ip, verdict.losses),
        (SourceIp::Unknown, vec![])
    );
    // What this node did is known.
    assert_eq!(
        (verdict.extra_hops, verdict.as_expected),
        (Some(0), Some(true))
    );
}

#[test]
fn behind_the_gateway_this_nodes_own_masquerade_is_known() {
    let verdict = seen(
        &answered(GATEWAY, WEB, REMOTE_POD, NODE1_MASQUERADE),
        Said::Nothing,
    );
    assert_eq!(
        code(&verdict),
        Some(CauseCode::ExternalTrafficPolicyCluster)
    );
    assert_eq!(verdict.source_ip, SourceIp::Lost);
    for cause in [verdict.cause.as_ref(), Some(&verdict.losses[0].cause)] {
        let told = &cause.expect("a cause").explanation;
        assert!(
            told.contains("172.31.0.1, the address of this node's default gateway"),
            "{told}"
        );
    }
}

/// Seen at another interface first, or from before the observation, it is the same.
#[test]
fn a_gateway_is_one_wherever_it_is_seen() {
    for arrives in [true, false] {
        let mut connection = answered(GATEWAY, LOCAL_DOOR, LOCAL_POD, GATEWAY);
        connection.arrival = arrives.then(|| arrival_by(3));
        let verdict = seen(&connection, Said::Nothing);
        assert_eq!(code(&verdict), Some(CauseCode::GatewayMasquerade));
    }
}

fn arrival_by(interface: u32) -> Arrival {
    Arrival {
        interface: IfIndex(interface),
        ..arrival()
    }
}

#[test]
fn a_gateway_that_is_believed_to_be_a_proxy_is_one() {
    let named = answered(GATEWAY, LOCAL_DOOR, LOCAL_POD, GATEWAY);
    let verdict = seen(&named, names(Carrier::XForwardedFor));
    assert_eq!(code(&verdict), Some(CauseCode::L7Proxy));
}

#[test]
fn what_no_endpoint_got_was_lost_nowhere() {
    let verdict = seen(&silent(BALANCER, LOCAL_DOOR), Said::Nothing);
    assert_eq!(
        (verdict.source_ip, verdict.losses),
        (SourceIp::Unknown, vec![])
    );
    assert_eq!(verdict.client.kind, ClientKind::LoadBalancer);
}

#[rstest]
#[case::a_list(names(Carrier::XForwardedFor), None, &[ChangeCode::ReadForwardedFor])]
#[case::a_header(names(Carrier::ProxyV1), None, &[ChangeCode::ReadProxyProtocol])]
#[case::not_read(Said::Nothing, None, &[])]
#[case::nothing(
    Said::Nothing,
    Some(Reading::Nothing(Reason::NoHeader)),
    &[ChangeCode::SendProxyProtocol]
)]
#[case::not_told(Said::Nothing, Some(Reading::Nothing(Reason::Silent)), &[])]
fn what_would_bring_the_address_back_is_said(
    #[case] said: Said,
    #[case] reading: Option<Reading>,
    #[case] expected: &[ChangeCode],
) {
    // What kube-proxy would keep is not the client's.
    let mut connection = answered(BALANCER, WEB, REMOTE_POD, NODE1_MASQUERADE);
    connection.first_bytes = reading;
    let advice = seen(&connection, said).advice;
    assert_eq!(advice, expected);
}
