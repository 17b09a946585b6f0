//! What stands around a cluster's Services: the objects that decide what reaches kube-proxy, and
//! with which source address. [`Index`](super::Index) is built without them; any may be missing.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub mod custom;

use custom::{
    BgpAdvertisement, FelixConfiguration, Gateway, GatewayClass, IngressClassParams, Installation,
    IpAddressPool, L2Advertisement, ReferenceGrant, Route, TargetGroupBinding,
};

/// Marks an object that is assumed to be there, beside manifests that lack it.
const ASSUMED: &str = "source-ip-observer/assumed";

/// Marks an object as assumed.
pub(crate) fn assumed(mut metadata: ObjectMeta) -> ObjectMeta {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(ASSUMED.to_owned(), String::new());
    metadata
}

/// Whether an object is assumed: what it lacks tells nothing.
pub(crate) fn is_assumed(metadata: &ObjectMeta) -> bool {
    let mut annotations = metadata.annotations.iter().flatten();
    annotations.any(|(name, _)| name == ASSUMED)
}

/// Those objects, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Around {
    /// Endpoints (`core/v1`), as those still write them who give a Service without a selector its
    /// endpoints.
    pub endpoints: Vec<Endpoints>,
    /// Deployments (`apps/v1`).
    pub deployments: Vec<Deployment>,
    /// `DaemonSets` (`apps/v1`).
    pub daemon_sets: Vec<DaemonSet>,
    /// `StatefulSets` (`apps/v1`).
    pub stateful_sets: Vec<StatefulSet>,
    /// Namespaces (`core/v1`): their Pod Security level, and whether a mesh takes them in.
    pub namespaces: Vec<Namespace>,
    /// `ConfigMap`s (`core/v1`) that are not kube-proxy's: ingress-nginx's, Cilium's.
    pub config_maps: Vec<ConfigMap>,
    /// Ingresses (`networking.k8s.io/v1`).
    pub ingresses: Vec<Ingress>,
    /// `IngressClass`es (`networking.k8s.io/v1`).
    pub ingress_classes: Vec<IngressClass>,
    /// `IngressClassParams` (`elbv2.k8s.aws/v1beta1`).
    pub ingress_class_params: Vec<IngressClassParams>,
    /// `TargetGroupBindings` (`elbv2.k8s.aws/v1beta1`).
    pub target_group_bindings: Vec<TargetGroupBinding>,
    /// Gateways (`gateway.networking.k8s.io/v1`).
    pub gateways: Vec<Gateway>,
    /// `GatewayClass`es (`gateway.networking.k8s.io/v1`).
    pub gateway_classes: Vec<GatewayClass>,
    /// `HTTPRoutes`, `GRPCRoutes`, `TLSRoutes`, `TCPRoutes`, `UDPRoutes`
    /// (`gateway.networking.k8s.io`).
    pub routes: Vec<Route>,
    /// `ReferenceGrants` (`gateway.networking.k8s.io/v1beta1`).
    pub reference_grants: Vec<ReferenceGrant>,
    /// Whether those could not be read: that there is none says nothing then.
    pub lacks_reference_grants: bool,
    /// `IPAddressPools` (`metallb.io/v1beta1`).
    pub ip_address_pools: Vec<IpAddressPool>,
    /// `L2Advertisements` (`metallb.io/v1beta1`).
    pub l2_advertisements: Vec<L2Advertisement>,
    /// `BGPAdvertisements` (`metallb.io/v1beta1`).
    pub bgp_advertisements: Vec<BgpAdvertisement>,
    /// `FelixConfigurations` (`projectcalico.org/v3`, `crd.projectcalico.org/v1`).
    pub felix_configurations: Vec<FelixConfiguration>,
    /// Installations (`operator.tigera.io/v1`).
    pub installations: Vec<Installation>,
}
