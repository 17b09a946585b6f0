//! What to change so that pods see the client, best first, with what it costs.
//!
//! The words, and the price of each, are in the language files, by the change's word.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::json;
use strum::{Display, VariantNames};

use super::chain::{Door, Loser, Way};
use super::vocabulary::{CauseCode, ClientKind, Outcome, OutcomeCauseCode, RewriteOwner, SourceIp};
use crate::cluster::finding::Finding;
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer, System};
use crate::cluster::patch::{Patch, PatchedKind};
use crate::cluster::plane::Dataplane;
use crate::cluster::proxy::{Controller, Route};
use crate::cluster::{Service, ServiceRef, TrafficPolicy};

/// A change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ChangeCode {
    /// `externalTrafficPolicy: Local`.
    SetLocal,
    /// `preserve_client_ip.enabled=true` of the target group.
    PreserveClientIp,
    /// Targets are pods, not node ports.
    TargetPods,
    /// A PROXY header, and pods that read it.
    SendProxyProtocol,
    /// The proxy reads the PROXY header that is sent.
    ReadProxyProtocol,
    /// Nobody reads the PROXY header that is sent: do not send it.
    StopProxyProtocol,
    /// The proxy believes the `X-Forwarded-For` of the load balancer in front of it.
    BelieveForwardedFor,
    /// The application takes the client from `X-Forwarded-For`.
    ReadForwardedFor,
    /// The proxy runs in its nodes' network.
    ProxyOnNodes,
    /// A pod on every node.
    RunEverywhere,
    /// `externalTrafficPolicy: Cluster`, which lets everyone in and loses the address.
    SetCluster,
    /// Cilium's direct server return.
    DirectReturn,
    /// kube-proxy without `masqueradeAll`.
    NoMasqueradeAll,
    /// A cluster CIDR that holds the pods.
    MendClusterCidr,
    /// The sidecar intercepts by TPROXY.
    InterceptByTproxy,
    /// Something that serves Services of type `LoadBalancer`.
    InstallLoadBalancer,
    /// An advertisement for the pool.
    Announce,
    /// A node port for the load balancer.
    AddNodePort,
    /// A load balancer of its own instead of k3s' servicelb.
    ReplaceServicelb,
}

/// A change, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which.
    pub code: ChangeCode,
    /// The objects to change; none where it is not objects of a known name that change.
    pub patches: Vec<Patch>,
}

impl Change {
    const fn word(code: ChangeCode) -> Self {
        Self {
            code,
            patches: Vec::new(),
        }
    }
}

/// What is known of a Service whose ways are to be mended.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    /// It.
    pub(crate) service: &'a Service,
    /// What stands in front of it.
    pub(crate) load_balancer: Option<&'a LoadBalancer>,
    /// Who translates on the nodes.
    pub(crate) dataplane: Dataplane,
    /// The ways through proxies that lead to it.
    pub(crate) routes: &'a [Route],
    /// What is wrong with it.
    pub(crate) findings: &'a [Finding],
}

/// What mends a Service's ways by the doors that are meant for its clients, best first.
pub(crate) fn changes(case: Case<'_>, ways: &[Way<'_>], doors: &BTreeSet<Door>) -> Vec<Change> {
    let mut changes = Vec::new();
    for finding in case.findings {
        changes.extend(mends(case, finding));
    }
    let from_outside = |way: &&Way<'_>| way.client == ClientKind::External;
    for way in ways.iter().filter(from_outside) {
        if way.left_out || !doors.contains(&way.door) {
            continue;
        }
        match (way.source_ip, way.outcome, way.outcome_cause) {
            (SourceIp::Lost, ..) | (SourceIp::Unknown, Outcome::Answered, None) => {
                changes.extend(for_loss(case, way.lost_by, way.cause));
            }
            (
                _,
                Outcome::Dropped | Outcome::Unanswered,
                Some(OutcomeCauseCode::NoLocalEndpoints),
            ) => {
                changes.extend(without_local_endpoints(case.service));
            }
            _ => {}
        }
        if way.recoverable.contains(&Carrier::XForwardedFor) && way.source_ip == SourceIp::Lost {
            changes.push(Change::word(ChangeCode::ReadForwardedFor));
        }
    }
    for way in ways.iter().filter(|way| way.client == ClientKind::Pod) {
        if way.door == Door::ClusterIP && way.source_ip == SourceIp::Lost {
            changes.extend(for_loss(case, way.lost_by, way.cause));
        }
    }
    let mut known = Vec::new();
    changes.retain(|change: &Change| {
        let is_new = !known.contains(&change.code);
        known.push(change.code);
        is_new
    });
    changes
}

/// What mends one way on which the client's address is lost, best first.
pub(crate) fn for_loss(
    case: Case<'_>,
    lost_by: Option<Loser>,
    why: Option<CauseCode>,
) -> Vec<Change> {
    let Case {
        service,
        load_balancer,
        dataplane,
        routes,
        ..
    } = case;
    let is_cluster = service.external_traffic_policy == TrafficPolicy::Cluster;
    match (lost_by, why) {
        (Some(Loser::KubeProxy), Some(CauseCode::ExternalTrafficPolicyCluster)) => {
            let mut changes = vec![policy(service, ChangeCode::SetLocal, "Local")];
            changes.extend(load_balancer.and_then(|front| target_pods(service, front)));
            changes
        }
        (Some(Loser::Cni), _) => {
            let mut changes = vec![policy(service, ChangeCode::SetLocal, "Local")];
            if matches!(
                dataplane,
                Dataplane::Cilium | Dataplane::CiliumSnat | Dataplane::CiliumHybrid
            ) {
                changes.push(direct_return());
            }
            changes
        }
        (_, Some(CauseCode::MasqueradeAll)) => vec![Change::word(ChangeCode::NoMasqueradeAll)],
        (_, Some(CauseCode::OutsideClusterCidr)) => {
            vec![Change::word(ChangeCode::MendClusterCidr)]
        }
        (Some(Loser::LoadBalancer), _) => load_balancer.map_or_else(Vec::new, |front| {
            by_load_balancer(service, front, is_cluster)
        }),
        (Some(Loser::Proxy), _) => routes.iter().flat_map(by_proxy).collect(),
        (Some(Loser::Mesh), _) => vec![Change::word(ChangeCode::InterceptByTproxy)],
        _ => Vec::new(),
    }
}

/// What mends what happened to one connection, best first. A masquerade that any setting of the
/// Service's leaves in place has nothing to be changed: hairpins, and what the node itself sends.
pub(crate) fn of_connection(
    service: &Service,
    by: Option<RewriteOwner>,
    cause: Option<CauseCode>,
    outcome_cause: Option<OutcomeCauseCode>,
) -> Vec<Change> {
    let lost_by = match by {
        Some(RewriteOwner::KubeProxy) => Some(Loser::KubeProxy),
        Some(RewriteOwner::LoadBalancer) => Some(Loser::LoadBalancer),
        Some(RewriteOwner::Proxy) => Some(Loser::Proxy),
        Some(RewriteOwner::Cni | RewriteOwner::Unknown) | None => None,
    };
    if outcome_cause == Some(OutcomeCauseCode::NoLocalEndpoints) {
        return without_local_endpoints(service);
    }
    let known = Case {
        service,
        load_balancer: service.load_balancer.as_deref(),
        dataplane: Dataplane::KubeProxy,
        routes: &[],
        findings: &[],
    };
    lost_by.map_or_else(Vec::new, |lost_by| for_loss(known, Some(lost_by), cause))
}

/// What lets connections in where the policy is `Local` and no endpoint is on the node.
fn without_local_endpoints(service: &Service) -> Vec<Change> {
    vec![
        Change::word(ChangeCode::RunEverywhere),
        policy(service, ChangeCode::SetCluster, "Cluster"),
    ]
}

/// What mends a load balancer that puts its own address in place of the client's.
fn by_load_balancer(service: &Service, front: &LoadBalancer, is_cluster: bool) -> Vec<Change> {
    match front.system {
        System::AwsNlb => {
            let mut changes = vec![target_group(
                service,
                ChangeCode::PreserveClientIp,
                "preserve_client_ip.enabled=true",
                front,
            )];
            if front.adds.is_empty() {
                changes.push(target_group(
                    service,
                    ChangeCode::SendProxyProtocol,
                    "proxy_protocol_v2.enabled=true",
                    front,
                ));
            }
            changes
        }
        System::K3sServicelb if is_cluster => vec![
            policy(service, ChangeCode::SetLocal, "Local"),
            Change::word(ChangeCode::ReplaceServicelb),
        ],
        System::K3sServicelb => vec![Change::word(ChangeCode::ReplaceServicelb)],
        _ if front.adds.is_empty() => vec![Change::word(ChangeCode::SendProxyProtocol)],
        _ => vec![Change::word(ChangeCode::ReadProxyProtocol)],
    }
}

/// A proxy loses the address always: what remains is that it says whose it was.
fn by_proxy(route: &Route) -> Vec<Change> {
    if route.adds.contains(&Carrier::XForwardedFor) {
        return vec![Change::word(ChangeCode::ReadForwardedFor)];
    }
    Vec::new()
}

/// What mends what was found.
fn mends(case: Case<'_>, finding: &Finding) -> Vec<Change> {
    let service = case.service;
    let of_proxies = |key: &str, value: &str| {
        let patches = case
            .routes
            .iter()
            .filter_map(|route| config(route, key, value));
        patches.collect::<Vec<_>>()
    };
    match finding {
        Finding::LoadBalancerPending { .. } => vec![Change::word(ChangeCode::InstallLoadBalancer)],
        Finding::NothingAnnounces { .. } => vec![Change::word(ChangeCode::Announce)],
        Finding::TargetNeedsNodePort { .. } => vec![Change {
            code: ChangeCode::AddNodePort,
            patches: vec![of_service(service, json!({"spec": {"type": "NodePort"}}))],
        }],
        Finding::ProxyProtocolNotRead { .. } => vec![
            Change {
                code: ChangeCode::ReadProxyProtocol,
                patches: of_proxies("use-proxy-protocol", "true"),
            },
            Change::word(ChangeCode::StopProxyProtocol),
        ],
        Finding::ProxyProtocolNotSent { .. } => vec![Change {
            code: ChangeCode::SendProxyProtocol,
            patches: Vec::new(),
        }],
        Finding::ForwardedHeaderOverwritten { .. } => vec![Change {
            code: ChangeCode::BelieveForwardedFor,
            patches: of_proxies("use-forwarded-headers", "true"),
        }],
        _ => Vec::new(),
    }
}

/// A value in the `ConfigMap` of a proxy that has one.
fn config(route: &Route, key: &str, value: &str) -> Option<Patch> {
    let (namespace, name) = route.config_map.as_ref()?;
    (route.controller == Controller::IngressNginx).then(|| Patch {
        kind: PatchedKind::ConfigMap,
        namespace: namespace.clone(),
        name: name.clone(),
        merge: json!({"data": {key: value}}),
    })
}

fn of_service(service: &Service, merge: serde_json::Value) -> Patch {
    let ServiceRef { namespace, name } = &service.reference;
    Patch {
        kind: PatchedKind::Service,
        namespace: namespace.to_string(),
        name: name.to_string(),
        merge,
    }
}

fn policy(service: &Service, code: ChangeCode, policy: &str) -> Change {
    Change {
        code,
        patches: vec![of_service(
            service,
            json!({"spec": {"externalTrafficPolicy": policy}}),
        )],
    }
}

fn annotated(service: &Service, annotation: &str, value: &str) -> Patch {
    of_service(
        service,
        json!({"metadata": {"annotations": {annotation: value}}}),
    )
}

/// `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes` (AWS load balancer
/// controller, guide/service/annotations), with what it already sets.
fn target_group(
    service: &Service,
    code: ChangeCode,
    attribute: &str,
    front: &LoadBalancer,
) -> Change {
    const NAME: &str = "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes";
    let key = attribute.split('=').next().unwrap_or_default();
    let set = front
        .because
        .iter()
        .find(|setting| setting.name == NAME && !setting.is_default);
    let others = set.into_iter().flat_map(|setting| setting.value.split(','));
    let others = others
        .map(str::trim)
        .filter(|other| !other.is_empty() && other.split('=').next() != Some(key));
    let value: Vec<_> = others.chain([attribute]).collect();
    Change {
        code,
        patches: vec![annotated(service, NAME, &value.join(","))],
    }
}

/// Pods as targets of a Network Load Balancer, past kube-proxy.
fn target_pods(service: &Service, front: &LoadBalancer) -> Option<Change> {
    const NAME: &str = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
    let applies = front.system == System::AwsNlb
        && front.delivers == Delivers::NodePort
        && front.keeps == Keeps::Client;
    applies.then(|| {
        let mut change = target_group(
            service,
            ChangeCode::TargetPods,
            "preserve_client_ip.enabled=true",
            front,
        );
        change.patches.insert(0, annotated(service, NAME, "ip"));
        change
    })
}

/// `bpf-lb-mode` (Cilium, "Kubernetes Without kube-proxy", DSR mode).
fn direct_return() -> Change {
    Change {
        code: ChangeCode::DirectReturn,
        patches: vec![Patch {
            kind: PatchedKind::ConfigMap,
            namespace: "kube-system".to_owned(),
            name: "cilium-config".to_owned(),
            merge: json!({"data": {"bpf-lb-mode": "dsr"}}),
        }],
    }
}
