//! Records of every kind, as the tests print them.

use std::net::SocketAddr;

use crate::cluster::{FrontDoorKind, Protocol, TrafficPolicy};
use crate::payload::{Carrier, Reason};
use crate::record::{
    Backend, Client, Endpoint, From, FrontDoor, Loss, LostAt, Record, SCHEMA, Service, Step,
};
use crate::verdict::{
    Basis, Beyond, Cause, CauseCode, ClientKind, Expected, Finding, FindingCode, Hider, Outcome,
    OutcomeCause, OutcomeCauseCode, RewriteOwner, SourceIp,
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

fn service(name: &str) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        port: Some("http".into()),
        external_traffic_policy: Some(TrafficPolicy::Cluster),
    }
}

pub(super) fn backend(at: &str, pod: Option<&str>, node: Option<&str>) -> Backend {
    let at = socket(at);
    Backend {
        ip: at.ip(),
        port: at.port(),
        pod: pod.map(Into::into),
        node: node.map(Into::into),
    }
}

pub(super) fn because(code: OutcomeCauseCode, explanation: &str) -> OutcomeCause {
    OutcomeCause {
        code,
        explanation: explanation.to_owned(),
    }
}

fn cause(code: CauseCode, basis: Basis) -> Cause {
    Cause {
        code,
        basis,
        explanation: "…".to_owned(),
    }
}

fn lost_at(interface: Option<&str>, by: RewriteOwner) -> LostAt {
    LostAt {
        node: Some("node1".into()),
        interface: interface.map(Into::into),
        by,
    }
}

fn loss(at: LostAt, cause: Cause) -> Loss {
    Loss { at, cause }
}

/// At node1, by its masquerade.
fn by_kube_proxy(code: CauseCode, basis: Basis) -> Vec<Loss> {
    let at = lost_at(Some("eth0"), RewriteOwner::KubeProxy);
    vec![loss(at, cause(code, basis))]
}

/// The connection of the first page of the documentation: its client's address is lost.
pub(super) fn lost() -> Record {
    Record {
        schema: SCHEMA,
        observed_at: Some("2026-11-23T12:00:42.123456Z".to_owned()),
        node: "node1".into(),
        from: From::Start,
        protocol: Protocol::Tcp,
        service: Some(service("web")),
        front_door: FrontDoor {
            kind: Some(FrontDoorKind::NodePort),
            ip: socket("172.31.0.11:0").ip(),
            port: 30080,
        },
        client: Client {
            ip: socket("203.0.113.50:0").ip(),
            port: 49508,
            kind: ClientKind::External,
            recovered: None,
            recovered_from: None,
            hops_listed: None,
            not_recovered: None,
            server_name: None,
        },
        through: None,
        backend: Some(backend("10.244.2.5:8080", Some("web-7f9c"), Some("node2"))),
        source_seen: Some(Endpoint::from(socket("172.31.0.11:50513"))),
        source_ip: SourceIp::Lost,
        lost_at: Some(lost_at(Some("eth0"), RewriteOwner::KubeProxy)),
        cause: Some(cause(
            CauseCode::ExternalTrafficPolicyCluster,
            Basis::Observed,
        )),
        losses: by_kube_proxy(CauseCode::ExternalTrafficPolicyCluster, Basis::Observed),
        beyond: None,
        outcome: Outcome::Answered,
        outcome_cause: None,
        extra_hops: Some(1),
        extra_hop_ns: None,
        hop_check: None,
        path: vec![Step {
            node: "node1".into(),
            r#in: Some("eth0".into()),
            out: Some("eth0".into()),
            ttl_in: Some(64),
            ttl_out: Some(63),
            reply_ttl_in: Some(63),
            forward_ns: Some(41_250),
            reply_ns: None,
        }],
        round_trip_ns: Some(810_000),
        expected: None,
        as_expected: None,
        cluster_stale_s: None,
        advice: Vec::new(),
        findings: Vec::new(),
    }
}

fn finding(code: FindingCode) -> Finding {
    Finding {
        code,
        explanation: "it does not fit".to_owned(),
        change: "mend it".to_owned(),
    }
}

/// An NLB with a PROXY header, before policy Cluster.
pub(super) fn behind_a_load_balancer() -> Record {
    let balancer = Loss {
        at: LostAt {
            node: None,
            interface: None,
            by: RewriteOwner::LoadBalancer,
        },
        cause: cause(CauseCode::UpstreamLoadBalancer, Basis::Observed),
    };
    let mut losses = vec![balancer.clone()];
    losses.extend(lost().losses);
    Record {
        client: Client {
            ip: socket("192.0.2.7:0").ip(),
            port: 40_000,
            kind: ClientKind::LoadBalancer,
            recovered: Some(socket("203.0.113.50:0").ip()),
            recovered_from: Some(Carrier::ProxyV2),
            hops_listed: Some(1),
            not_recovered: None,
            server_name: None,
        },
        lost_at: Some(balancer.at),
        cause: Some(balancer.cause),
        losses,
        findings: vec![finding(FindingCode::ProxyHeaderNotUnderstood)],
        ..lost()
    }
}

pub(super) fn preserved() -> Record {
    Record {
        service: Some(service("api")),
        backend: Some(backend("10.244.1.7:8080", Some("api-5d4b"), Some("node1"))),
        source_seen: Some(Endpoint::from(socket("203.0.113.50:49508"))),
        source_ip: SourceIp::Preserved,
        lost_at: None,
        losses: Vec::new(),
        cause: None,
        extra_hops: Some(0),
        ..lost()
    }
}

/// No endpoint was chosen.
pub(super) fn nobody(outcome: Outcome, why: Option<OutcomeCause>) -> Record {
    let step = Step {
        out: None,
        ttl_out: None,
        reply_ttl_in: None,
        forward_ns: None,
        ..lost().path.remove(0)
    };
    Record {
        backend: None,
        source_seen: None,
        source_ip: SourceIp::Unknown,
        lost_at: None,
        losses: Vec::new(),
        cause: None,
        outcome,
        outcome_cause: why,
        extra_hops: None,
        path: vec![step],
        round_trip_ns: None,
        ..lost()
    }
}

pub(super) fn second_node() -> Record {
    Record {
        node: "node2".into(),
        front_door: FrontDoor {
            kind: Some(FrontDoorKind::Pod),
            ip: socket("10.244.2.5:0").ip(),
            port: 8080,
        },
        client: Client {
            ip: socket("172.31.0.11:0").ip(),
            port: 50513,
            kind: ClientKind::Node,
            recovered: None,
            recovered_from: None,
            hops_listed: None,
            not_recovered: None,
            server_name: None,
        },
        source_ip: SourceIp::Unknown,
        lost_at: None,
        losses: Vec::new(),
        cause: Some(cause(CauseCode::MasqueradedBeforeThisNode, Basis::Inferred)),
        extra_hops: None,
        ..lost()
    }
}

fn ipv6() -> Record {
    Record {
        front_door: FrontDoor {
            kind: Some(FrontDoorKind::LoadBalancer),
            ip: socket("[2001:db8:f00d::80]:0").ip(),
            port: 443,
        },
        client: Client {
            ip: socket("[2001:db8:113:4567:89ab:cdef:1234:5678]:0").ip(),
            port: 49508,
            kind: ClientKind::External,
            recovered: None,
            recovered_from: None,
            hops_listed: None,
            not_recovered: None,
            server_name: None,
        },
        backend: Some(backend(
            "[fd00:10:244:2::5]:8080",
            Some("web-gf6n6lt95-7vm2d"),
            Some("ip-10-0-12-34.eu-central-1.compute.internal"),
        )),
        source_seen: Some(Endpoint::from(socket("[fd00:172:31::11]:50513"))),
        ..lost()
    }
}

fn without_cluster_state() -> Record {
    Record {
        service: None,
        front_door: FrontDoor {
            kind: None,
            ..lost().front_door
        },
        backend: Some(backend("10.244.2.5:8080", None, None)),
        lost_at: Some(lost_at(None, RewriteOwner::Unknown)),
        cause: Some(cause(CauseCode::Unknown, Basis::Observed)),
        losses: vec![loss(
            lost_at(None, RewriteOwner::Unknown),
            cause(CauseCode::Unknown, Basis::Observed),
        )],
        extra_hops: None,
        ..lost()
    }
}

/// Every kind of record, by what is particular about it.
pub(super) fn kinds() -> Vec<(&'static str, Record)> {
    let mut kinds = of_this_node();
    kinds.extend(of_before_and_beyond());
    kinds
}

fn of_this_node() -> Vec<(&'static str, Record)> {
    let no_endpoints = "shop/web has no usable endpoint: kube-proxy rejects the connection";
    let no_local = "externalTrafficPolicy is Local and node1 has no usable endpoint of shop/far: \
                    kube-proxy drops the connection";
    let refused = "10.244.1.7:8080 refused: nothing listens there, or its own host rejects";
    vec![
        ("lost", lost()),
        ("preserved", preserved()),
        ("second node", second_node()),
        (
            "refused by this node",
            nobody(
                Outcome::Refused,
                Some(because(OutcomeCauseCode::NoEndpoints, no_endpoints)),
            ),
        ),
        (
            "refused by the backend",
            Record {
                outcome: Outcome::Refused,
                outcome_cause: Some(because(OutcomeCauseCode::BackendRefused, refused)),
                ..preserved()
            },
        ),
        (
            "dropped",
            Record {
                service: Some(service("far")),
                ..nobody(
                    Outcome::Dropped,
                    Some(because(OutcomeCauseCode::NoLocalEndpoints, no_local)),
                )
            },
        ),
        (
            "unanswered",
            Record {
                outcome: Outcome::Unanswered,
                ..lost()
            },
        ),
        ("nothing known", nobody(Outcome::Unknown, None)),
        ("without cluster state", without_cluster_state()),
        (
            "a pod reaches itself over UDP",
            Record {
                protocol: Protocol::Udp,
                client: Client {
                    ip: socket("10.244.2.5:0").ip(),
                    port: 40_000,
                    kind: ClientKind::Pod,
                    recovered: None,
                    recovered_from: None,
                    hops_listed: None,
                    not_recovered: None,
                    server_name: None,
                },
                cause: Some(cause(CauseCode::Hairpin, Basis::Observed)),
                losses: by_kube_proxy(CauseCode::Hairpin, Basis::Observed),
                extra_hops: Some(0),
                ..lost()
            },
        ),
        (
            "inferred, and not as predicted",
            Record {
                cause: Some(cause(CauseCode::OutsideClusterCidr, Basis::Inferred)),
                losses: by_kube_proxy(CauseCode::OutsideClusterCidr, Basis::Inferred),
                expected: Some(Expected {
                    source_ip: SourceIp::Preserved,
                    outcome: Outcome::Answered,
                }),
                as_expected: Some(false),
                ..lost()
            },
        ),
        (
            "from conntrack",
            Record {
                from: From::Conntrack,
                observed_at: None,
                path: Vec::new(),
                round_trip_ns: None,
                ..preserved()
            },
        ),
        ("IPv6", ipv6()),
    ]
}

fn by_a_proxy() -> Record {
    let mut record = behind_a_load_balancer();
    record.client.ip = "10.244.3.9".parse().expect("an address");
    record.client.kind = ClientKind::Pod;
    record.client.recovered_from = Some(Carrier::XForwardedFor);
    record.findings.clear();
    record.losses.truncate(1);
    let loss = &mut record.losses[0];
    (loss.at.by, loss.cause.code) = (RewriteOwner::Proxy, CauseCode::L7Proxy);
    record
}

/// What stands before the node, or behind the last that it sees.
fn of_before_and_beyond() -> Vec<(&'static str, Record)> {
    vec![
        (
            "behind a load balancer, and masqueraded",
            behind_a_load_balancer(),
        ),
        (
            "a load balancer whose address stays, and TLS",
            Record {
                losses: behind_a_load_balancer().losses.drain(..1).collect(),
                client: Client {
                    recovered: None,
                    recovered_from: None,
                    not_recovered: Some(Reason::Tls),
                    ..behind_a_load_balancer().client
                },
                source_seen: Some(Endpoint::from(socket("192.0.2.7:40000"))),
                findings: vec![finding(FindingCode::LocalBehindReplacingLoadBalancer)],
                ..behind_a_load_balancer()
            },
        ),
        (
            "a proxy of the cluster, on which node is not known",
            by_a_proxy(),
        ),
        (
            "by the gateway, to a sidecar",
            Record {
                source_ip: SourceIp::Unknown,
                cause: Some(cause(CauseCode::GatewayMasquerade, Basis::Inferred)),
                beyond: Some(Beyond {
                    by: Hider::Sidecar,
                    explanation: "…".to_owned(),
                }),
                ..preserved()
            },
        ),
    ]
}
