//! Kinds that no library has: what is read of them, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `elbv2.k8s.aws/v1beta1` `TargetGroupBinding`
/// (`kubernetes-sigs/aws-load-balancer-controller`, `docs/guide/targetgroupbinding/spec.md`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetGroupBinding {
    /// Name and namespace: the Service's.
    pub metadata: ObjectMeta,
    /// What it binds.
    pub spec: TargetGroupBindingSpec,
}

/// What a `TargetGroupBinding` binds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetGroupBindingSpec {
    /// The Service, in the same namespace.
    pub service_ref: ServicePortRef,
    /// `instance` or `ip`; without, the controller asks AWS.
    pub target_type: Option<String>,
    /// The target group.
    #[serde(rename = "targetGroupARN")]
    pub target_group_arn: Option<String>,
    /// `TCP`, `HTTP` and so on.
    pub target_group_protocol: Option<String>,
}

/// A Service by name, and its port by number or name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortRef {
    /// The name.
    pub name: String,
    /// A number or a name.
    pub port: Option<Value>,
}

/// `elbv2.k8s.aws/v1beta1` `IngressClassParams`
/// (`docs/guide/ingress/ingress_class.md` of the same).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressClassParams {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What it sets for all Ingresses of the class.
    pub spec: IngressClassParamsSpec,
}

/// What `IngressClassParams` set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressClassParamsSpec {
    /// `instance` or `ip`.
    pub target_type: Option<String>,
    /// `internal` or `internet-facing`.
    pub scheme: Option<String>,
    /// Attributes of the load balancer.
    pub load_balancer_attributes: Vec<Attribute>,
}

/// A key and a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attribute {
    /// Such as `routing.http.xff_header_processing.mode`.
    pub key: String,
    /// Such as `append`.
    pub value: String,
}

/// `gateway.networking.k8s.io/v1` `Gateway`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// Its class and listeners.
    pub spec: GatewaySpec,
}

/// The class and listeners of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// The `GatewayClass`.
    pub gateway_class_name: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
}

/// Where a Gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port, from 1 to 65535.
    pub port: i32,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP`.
    pub protocol: String,
}

/// `gateway.networking.k8s.io/v1` `GatewayClass`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClass {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// Whose it is.
    pub spec: GatewayClassSpec,
}

/// Whose a `GatewayClass` is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    /// Such as `gateway.envoyproxy.io/gatewayclass-controller`.
    pub controller_name: String,
}

/// A route of any kind of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// `HTTPRoute` and so on.
    pub kind: String,
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// From where to where.
    pub spec: RouteSpec,
}

/// From where to where a route leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSpec {
    /// Its Gateways.
    pub parent_refs: Vec<Reference>,
    /// Its rules.
    pub rules: Vec<RouteRule>,
}

/// A rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// Its Services.
    pub backend_refs: Vec<Reference>,
}

/// A reference to an object; without a kind, to the usual one in its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// Its group.
    pub group: Option<String>,
    /// Its kind.
    pub kind: Option<String>,
    /// Its namespace; without, the referrer's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: Option<i32>,
}

/// `gateway.networking.k8s.io/v1beta1` `ReferenceGrant`: what in other namespaces may refer to what
/// in its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// From where to what.
    pub spec: ReferenceGrantSpec,
}

/// What a `ReferenceGrant` allows: every `from` every `to`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantedFrom>,
    /// To what.
    pub to: Vec<GrantedTo>,
}

/// Objects that may refer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantedFrom {
    /// Their group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantedTo {
    /// Their group; the empty one is Kubernetes' own.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// The name of one; all of them without.
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    /// Whether an object of a group, kind and namespace may refer to one of a group, kind and name.
    pub fn allows(&self, from: (&str, &str, &str), to: (&str, &str, &str)) -> bool {
        let is_from =
            |it: &GrantedFrom| (it.group.as_str(), it.kind.as_str(), it.namespace.as_str()) == from;
        let is_to = |it: &GrantedTo| {
            // An empty name counts as none (Gateway API, `apis/v1beta1/referencegrant_types.go`).
            let name = it.name.as_deref().filter(|name| !name.is_empty());
            (it.group.as_str(), it.kind.as_str()) == (to.0, to.1)
                && name.is_none_or(|name| name == to.2)
        };
        self.from.iter().any(is_from) && self.to.iter().any(is_to)
    }
}

/// `metallb.io/v1beta1` `IPAddressPool`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpAddressPool {
    /// Its name, namespace and labels.
    pub metadata: ObjectMeta,
    /// Its addresses.
    pub spec: IpAddressPoolSpec,
}

/// The addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpAddressPoolSpec {
    /// CIDRs, or ranges with a hyphen.
    pub addresses: Vec<String>,
    /// Whether Services that do not ask for it get addresses of it; true if unset.
    pub auto_assign: Option<bool>,
    /// For which Services alone it is; for all if unset.
    pub service_allocation: Option<ServiceAllocation>,
}

/// For which Services a pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocation {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Labels of namespaces.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Labels of Services.
    pub service_selectors: Vec<LabelSelector>,
}

/// `metallb.io/v1beta1` `L2Advertisement`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L2Advertisement {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// Which pools it announces, and by which nodes.
    pub spec: AdvertisementSpec,
}

/// `metallb.io/v1beta1` `BGPAdvertisement`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpAdvertisement {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// Which pools it announces, and by which nodes.
    pub spec: AdvertisementSpec,
}

/// Which pools are announced, and by which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisementSpec {
    /// Names of pools.
    #[serde(rename = "ipAddressPools")]
    pub ip_address_pools: Vec<String>,
    /// Labels of pools; with neither, all pools.
    #[serde(rename = "ipAddressPoolSelectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Labels of nodes; all nodes without.
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces, of layer 2.
    pub interfaces: Vec<String>,
    /// Labels of Services; with none, all of the pools'.
    pub service_selectors: Vec<LabelSelector>,
    /// Whatever else a version has.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// `projectcalico.org/v3` or `crd.projectcalico.org/v1` `FelixConfiguration`
/// (Calico, reference/resources/felixconfig).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FelixConfiguration {
    /// Its name; the one for all nodes is `default`.
    pub metadata: ObjectMeta,
    /// What is set.
    pub spec: FelixConfigurationSpec,
}

/// What a `FelixConfiguration` sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FelixConfigurationSpec {
    /// Whether Calico's eBPF dataplane is on; false if unset.
    pub bpf_enabled: Option<bool>,
    /// `Tunnel`, which is the default, or `DSR`.
    pub bpf_external_service_mode: Option<String>,
}

/// `operator.tigera.io/v1` `Installation`
/// (Calico, reference/installation/api).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Installation {
    /// Its name: `default`.
    pub metadata: ObjectMeta,
    /// What is to be installed.
    pub spec: InstallationSpec,
}

/// What an `Installation` asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstallationSpec {
    /// Its network.
    pub calico_network: CalicoNetwork,
}

/// The network of an `Installation`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CalicoNetwork {
    /// `Iptables`, `Nftables`, `BPF` or `VPP`.
    pub linux_dataplane: Option<String>,
}
