//! Changes of objects, as they are made.

use serde_json::{Value, json};

use super::{Change, ChangeCode};
use crate::cluster::front::{Delivers, Keeps, LoadBalancer, System};
use crate::cluster::patch::{Patch, PatchedKind};
use crate::cluster::{Service, ServiceRef, ServiceType};

/// How much of a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Only which it is: nobody looks at the patches of a connection's advice, and they are most of
    /// what it would cost.
    Word,
    /// With its patches.
    Patches,
}

impl Detail {
    pub(super) fn patches(self, make: impl FnOnce() -> Vec<Patch>) -> Vec<Patch> {
        match self {
            Self::Word => Vec::new(),
            Self::Patches => make(),
        }
    }
}

/// A change of the Service itself.
pub(super) fn of_service(service: &Service, merge: Value) -> Patch {
    let ServiceRef { namespace, name } = &service.reference;
    Patch {
        kind: PatchedKind::Service,
        namespace: namespace.to_string(),
        name: name.to_string(),
        merge,
    }
}

/// Only what has an external policy can have another one (`pkg/apis/core/validation`,
/// `validateServiceExternalTrafficPolicy`).
pub(super) fn policy(
    service: &Service,
    code: ChangeCode,
    policy: &str,
    detail: Detail,
) -> Option<Change> {
    let has_one =
        service.service_type != ServiceType::ClusterIP || !service.external_ips.is_empty();
    let patches = || {
        let merge = json!({"spec": {"externalTrafficPolicy": policy}});
        vec![of_service(service, merge)]
    };
    has_one.then(|| Change {
        code,
        patches: detail.patches(patches),
    })
}

pub(super) fn annotated(service: &Service, annotation: &str, value: &str) -> Patch {
    of_service(
        service,
        json!({"metadata": {"annotations": {annotation: value}}}),
    )
}

/// `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes` (AWS load balancer
/// controller, guide/service/annotations), with what it already sets.
pub(super) fn target_group(
    service: &Service,
    code: ChangeCode,
    attribute: &str,
    front: &LoadBalancer,
    detail: Detail,
) -> Change {
    Change {
        code,
        patches: detail.patches(|| vec![target_group_attribute(service, attribute, front)]),
    }
}

fn target_group_attribute(service: &Service, attribute: &str, front: &LoadBalancer) -> Patch {
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
    annotated(service, NAME, &value.join(","))
}

/// Pods as targets of a Network Load Balancer, past kube-proxy.
pub(super) fn target_pods(
    service: &Service,
    front: &LoadBalancer,
    detail: Detail,
) -> Option<Change> {
    const NAME: &str = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
    const TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-type";
    // The in-tree provider knows no such targets.
    let is_of_controller = front.because.iter().any(|setting| {
        setting.name == "spec.loadBalancerClass"
            || (setting.name == TYPE && matches!(&*setting.value, "external" | "nlb-ip"))
    });
    let applies = front.system == System::AwsNlb
        && front.delivers == Delivers::NodePort
        && front.keeps == Keeps::Client
        && front.ports.is_empty()
        && is_of_controller;
    let patches = || {
        vec![
            annotated(service, NAME, "ip"),
            target_group_attribute(service, "preserve_client_ip.enabled=true", front),
        ]
    };
    applies.then(|| Change {
        code: ChangeCode::TargetPods,
        patches: detail.patches(patches),
    })
}

/// `bpf-lb-mode` (Cilium, "Kubernetes Without kube-proxy", DSR mode).
pub(super) fn direct_return(detail: Detail) -> Change {
    let patches = || {
        vec![Patch {
            kind: PatchedKind::ConfigMap,
            namespace: "kube-system".to_owned(),
            name: "cilium-config".to_owned(),
            merge: json!({"data": {"bpf-lb-mode": "dsr"}}),
        }]
    };
    Change {
        code: ChangeCode::DirectReturn,
        patches: detail.patches(patches),
    }
}
