//! What to change so that pods see the client, best first, with what it costs.
//!
//! The words, and the price of each, are in the language files, by the change's word.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::json;
use strum::{Display, VariantNames};

use super::chain::{Door, Loser, Way};
use super::vocabulary::{CauseCode, ClientKind, OutcomeCauseCode, SourceIp};
use crate::cluster::finding::Finding;
use crate::cluster::front::{Carrier, Delivers, LoadBalancer, System};
use crate::cluster::patch::{Patch, PatchedKind};
use crate::cluster::plane::{Dataplane, Mesh};
use crate::cluster::proxy::{Controller, Route};
use crate::cluster::{Index, Service, ServiceType, TrafficPolicy};

mod connection;
mod patches;

pub(crate) use connection::{Seen, of_connection};

pub(crate) use patches::Detail;
use patches::{direct_return, of_service, policy, target_group, target_pods};

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
    /// Nobody sends the PROXY header that is expected: do not expect it.
    ExpectNoProxyProtocol,
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
    /// `internalTrafficPolicy: Cluster`.
    SetInternalCluster,
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
    /// The cluster's objects, for the Service of a proxy on the way.
    pub(crate) index: &'a Index,
    /// It.
    pub(crate) service: &'a Service,
    /// What stands in front of it.
    pub(crate) load_balancer: Option<&'a LoadBalancer>,
    /// Who translates on the nodes.
    pub(crate) dataplane: Dataplane,
    /// The ways through proxies that lead to it.
    pub(crate) routes: &'a [Route],
    /// Namespace and name of the `ConfigMap` of the proxy on the way, if it has one.
    pub(crate) config_map: Option<&'a (String, String)>,
    /// What is wrong with it.
    pub(crate) findings: &'a [Finding],
    /// How much of each change is made.
    pub(crate) detail: Detail,
}

/// What mends a Service's ways by the doors that are meant for its clients, best first.
pub(crate) fn changes(case: Case<'_>, ways: &[Way<'_>], doors: &BTreeSet<Door>) -> Vec<Change> {
    let mut changes = Vec::new();
    for finding in case.findings {
        changes.extend(mends(case, finding));
    }
    let is_meant = |way: &&Way<'_>| match way.client {
        ClientKind::External => !way.left_out && doors.contains(&way.door),
        ClientKind::Pod => way.door == Door::ClusterIP,
        _ => false,
    };
    for way in ways.iter().filter(is_meant) {
        changes.extend(of_way(case, way));
    }
    let mut known = Vec::new();
    changes.retain(|change: &Change| {
        let is_new = !known.contains(&change.code);
        known.push(change.code);
        is_new
    });
    changes
}

/// What mends one way, best first.
fn of_way(case: Case<'_>, way: &Way<'_>) -> Vec<Change> {
    let decided_by = way.decided_by.as_ref().and_then(|service| {
        let entries = case.index.service(&service.namespace, &service.name);
        entries.first().map(|entry| &*entry.service)
    });
    let mut changes = Vec::new();
    if way.outcome_cause == Some(OutcomeCauseCode::NoLocalEndpoints) {
        changes.extend(without_local_endpoints(
            decided_by.unwrap_or(case.service),
            way.door == Door::ClusterIP,
            case.detail,
        ));
    }
    if way.source_ip != SourceIp::Lost {
        return changes;
    }
    // What the sidecar hides stays hidden, whatever is kept until there.
    if way.losers().any(|loser| loser == Loser::Mesh) {
        let mut stages = way.stages.iter();
        let is_linkerd = stages.any(|stage| stage.who == Mesh::Linkerd.to_string());
        if !is_linkerd {
            changes.push(Change::word(ChangeCode::InterceptByTproxy));
        }
    } else {
        changes.extend(for_loss(case, decided_by, way.lost_by, way.cause));
    }
    if way.recoverable.contains(&Carrier::XForwardedFor) {
        changes.push(Change::word(ChangeCode::ReadForwardedFor));
    }
    changes
}

/// What mends the loss of a client's address, best first. `decided_by`: the Service whose rule lost
/// it; the Service itself, or that of a proxy on the way.
fn for_loss(
    case: Case<'_>,
    decided_by: Option<&Service>,
    lost_by: Option<Loser>,
    why: Option<CauseCode>,
) -> Vec<Change> {
    let Case {
        service,
        load_balancer,
        dataplane,
        detail,
        ..
    } = case;
    let by = decided_by.unwrap_or(service);
    let is_cluster = by.external_traffic_policy == TrafficPolicy::Cluster;
    match (lost_by, why) {
        (Some(Loser::KubeProxy), Some(CauseCode::ExternalTrafficPolicyCluster)) => {
            let is_own = by.reference == service.reference;
            let before = if is_own {
                load_balancer
            } else {
                by.load_balancer.as_deref()
            };
            let breaks = before.is_some_and(checks_with_a_header);
            let local = (!breaks).then(|| policy(by, ChangeCode::SetLocal, "Local", detail));
            let mut changes = Vec::from_iter(local.flatten());
            changes.extend(load_balancer.and_then(|front| target_pods(service, front, detail)));
            if !is_own {
                changes.push(Change::word(ChangeCode::ProxyOnNodes));
            }
            changes
        }
        (Some(Loser::Cni), _) => {
            let mut changes = Vec::from_iter(policy(by, ChangeCode::SetLocal, "Local", detail));
            if matches!(
                dataplane,
                Dataplane::Cilium | Dataplane::CiliumSnat | Dataplane::CiliumHybrid
            ) {
                changes.push(direct_return(detail));
            }
            changes
        }
        (Some(Loser::KubeProxy), Some(CauseCode::MasqueradeAll)) => {
            vec![Change::word(ChangeCode::NoMasqueradeAll)]
        }
        (Some(Loser::KubeProxy), Some(CauseCode::OutsideClusterCidr)) => {
            vec![Change::word(ChangeCode::MendClusterCidr)]
        }
        (Some(Loser::LoadBalancer), _) => load_balancer.map_or_else(Vec::new, |front| {
            by_load_balancer(service, front, is_cluster, detail)
        }),
        _ => Vec::new(),
    }
}

/// What lets connections in where the policy is `Local` and no endpoint is on the node.
fn without_local_endpoints(service: &Service, is_internal: bool, detail: Detail) -> Vec<Change> {
    let everywhere = Change::word(ChangeCode::RunEverywhere);
    let internal = || {
        let merge = json!({"spec": {"internalTrafficPolicy": "Cluster"}});
        vec![of_service(service, merge)]
    };
    let policy = if is_internal {
        Some(Change {
            code: ChangeCode::SetInternalCluster,
            patches: detail.patches(internal),
        })
    } else {
        policy(service, ChangeCode::SetCluster, "Cluster", detail)
    };
    [Some(everywhere), policy].into_iter().flatten().collect()
}

/// What mends a load balancer that puts its own address in place of the client's.
fn by_load_balancer(
    service: &Service,
    front: &LoadBalancer,
    is_cluster: bool,
    detail: Detail,
) -> Vec<Change> {
    let sends_proxy = sends_proxy_header(front);
    let by_nodes = front.delivers == Delivers::NodePort;
    match front.system {
        // What is set port by port is for who set it so to change.
        System::AwsNlb if !front.ports.is_empty() => Vec::new(),
        System::AwsNlb => {
            let mut preserve = target_group(
                service,
                ChangeCode::PreserveClientIp,
                "preserve_client_ip.enabled=true",
                front,
                detail,
            );
            if by_nodes && is_cluster {
                // Else kube-proxy puts its own address in the place of the one that is preserved.
                let local = policy(service, ChangeCode::SetLocal, "Local", detail);
                preserve
                    .patches
                    .extend(local.into_iter().flat_map(|it| it.patches));
            }
            let mut changes = vec![preserve];
            // Under Local the checks of nodes would come with the header.
            if !sends_proxy && (is_cluster || !by_nodes) {
                changes.push(target_group(
                    service,
                    ChangeCode::SendProxyProtocol,
                    "proxy_protocol_v2.enabled=true",
                    front,
                    detail,
                ));
            }
            changes
        }
        System::K3sServicelb => {
            let local = is_cluster.then(|| policy(service, ChangeCode::SetLocal, "Local", detail));
            let mut changes = Vec::from_iter(local.flatten());
            changes.push(Change::word(ChangeCode::ReplaceServicelb));
            changes
        }
        // It speaks HTTP: what it adds is all that it can.
        _ if front.adds.contains(&Carrier::XForwardedFor) => Vec::new(),
        System::AwsAlb | System::GkeProxy | System::GkeContainerNative => Vec::new(),
        _ if sends_proxy => vec![Change::word(ChangeCode::ReadProxyProtocol)],
        _ => vec![Change::word(ChangeCode::SendProxyProtocol)],
    }
}

fn sends_proxy_header(front: &LoadBalancer) -> bool {
    let mut adds = front.adds.iter();
    adds.any(|carrier| matches!(carrier, Carrier::ProxyV1 | Carrier::ProxyV2))
}

/// Whether a Network Load Balancer's health checks of nodes come with a PROXY header, which
/// kube-proxy's `healthCheckNodePort` does not read: under `Local` it then takes all for unhealthy.
fn checks_with_a_header(front: &LoadBalancer) -> bool {
    front.system == System::AwsNlb
        && front.delivers == Delivers::NodePort
        && sends_proxy_header(front)
}

/// What mends what was found.
fn mends(case: Case<'_>, finding: &Finding) -> Vec<Change> {
    let service = case.service;
    let of_proxy = |key: &str, value: &str| {
        let is_nginx = case
            .routes
            .iter()
            .all(|route| route.controller == Controller::IngressNginx);
        let named = case.config_map.filter(|_| is_nginx);
        let patch = named.map(|(namespace, name)| Patch {
            kind: PatchedKind::ConfigMap,
            namespace: namespace.clone(),
            name: name.clone(),
            merge: json!({"data": {key: value}}),
        });
        Vec::from_iter(patch)
    };
    match finding {
        Finding::LoadBalancerPending { .. } => vec![Change::word(ChangeCode::InstallLoadBalancer)],
        Finding::NothingAnnounces { .. } => vec![Change::word(ChangeCode::Announce)],
        Finding::TargetNeedsNodePort { .. } => {
            let spec = match service.service_type {
                ServiceType::LoadBalancer => json!({"allocateLoadBalancerNodePorts": true}),
                ServiceType::ClusterIP | ServiceType::NodePort => json!({"type": "NodePort"}),
            };
            vec![Change {
                code: ChangeCode::AddNodePort,
                patches: vec![of_service(service, json!({"spec": spec}))],
            }]
        }
        Finding::ProxyProtocolNotRead { .. } => vec![
            Change {
                code: ChangeCode::ReadProxyProtocol,
                patches: of_proxy("use-proxy-protocol", "true"),
            },
            Change::word(ChangeCode::StopProxyProtocol),
        ],
        Finding::ProxyProtocolNotSent { .. } => vec![
            case.load_balancer
                .filter(|front| front.system == System::AwsNlb)
                .map_or(Change::word(ChangeCode::SendProxyProtocol), |front| {
                    target_group(
                        service,
                        ChangeCode::SendProxyProtocol,
                        "proxy_protocol_v2.enabled=true",
                        front,
                        case.detail,
                    )
                }),
            Change {
                code: ChangeCode::ExpectNoProxyProtocol,
                patches: of_proxy("use-proxy-protocol", "false"),
            },
        ],
        Finding::ProxyProtocolNobodySends { .. } => vec![Change {
            code: ChangeCode::ExpectNoProxyProtocol,
            patches: of_proxy("use-proxy-protocol", "false"),
        }],
        Finding::ForwardedHeaderOverwritten { .. } => vec![Change {
            code: ChangeCode::BelieveForwardedFor,
            patches: of_proxy("use-forwarded-headers", "true"),
        }],
        _ => Vec::new(),
    }
}
