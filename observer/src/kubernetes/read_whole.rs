//! All objects, once, with what stands around Services: for who explains a cluster.
//!
//! Services, Nodes and workloads are kept as they are, but for what nobody reads and is large:
//! managed fields, the last applied configuration, images, environments of containers.

use std::collections::BTreeSet;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Endpoints, Namespace, Node, Pod, PodSpec, PodStatus, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::error::ApiError;
use super::resource::{self, Listed, Location, Selection};
use super::{KUBE_PROXY_NAMES, KUBE_PROXY_NAMESPACE, Read, config_map};
use crate::cluster::around::Around;
use crate::cluster::around::custom::Route;
use crate::cluster::{Objects, Trim as _};

/// The annotation in which kubectl keeps what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// More of a `ConfigMap` is no setting.
const VALUE_MAX: usize = 64 << 10;

/// Reads the objects of a cluster, and what stands around them, in pages. A kind that may not be
/// listed is missing; a kind that the cluster does not know is not there; any other failure is an
/// error.
pub async fn read_whole(client: &Client) -> Result<Read, ApiError> {
    let [own, other] = KUBE_PROXY_NAMES.map(config_map);
    let at = Location::of::<ConfigMap>();
    let (services, endpoint_slices, nodes, pods, own, other, around) = tokio::try_join!(
        everywhere(client, Location::of::<Service>(), lean::<Service>),
        everywhere(
            client,
            Location::of::<EndpointSlice>(),
            EndpointSlice::trimmed
        ),
        everywhere(client, Location::of::<Node>(), node),
        everywhere(client, Location::of::<Pod>(), pod),
        of_kind(client, at, &own, ConfigMap::trimmed),
        of_kind(client, at, &other, ConfigMap::trimmed),
        around(client),
    )?;
    let mut missing = Vec::new();
    let mut objects = Objects {
        services: services.take(&mut missing),
        endpoint_slices: endpoint_slices.take(&mut missing),
        nodes: nodes.take(&mut missing),
        pods: pods.take(&mut missing),
        config_maps: own.take(&mut missing),
        around: around.take(&mut missing),
        ..Objects::default()
    };
    objects.config_maps.extend(other.take(&mut missing));
    let mut told = BTreeSet::new();
    missing.retain(|line| told.insert(line.clone()));
    Ok(Read { objects, missing })
}

/// What was found, and what is missing of it.
struct Found<T>(T, Vec<String>);

impl<T> Found<T> {
    /// Whether there may be more.
    const fn is_short(&self) -> bool {
        !self.1.is_empty()
    }

    fn take(self, missing: &mut Vec<String>) -> T {
        let Self(found, lines) = self;
        missing.extend(lines);
        found
    }
}

async fn around(client: &Client) -> Result<Found<Around>, ApiError> {
    let (of_the_library, of_others) = tokio::try_join!(known(client), custom(client))?;
    let mut missing = Vec::new();
    let around = of_the_library.take(&mut missing);
    let others = of_others.take(&mut missing);
    let around = Around {
        ingress_class_params: others.ingress_class_params,
        target_group_bindings: others.target_group_bindings,
        gateways: others.gateways,
        gateway_classes: others.gateway_classes,
        routes: others.routes,
        reference_grants: others.reference_grants,
        lacks_reference_grants: others.lacks_reference_grants,
        ip_address_pools: others.ip_address_pools,
        l2_advertisements: others.l2_advertisements,
        bgp_advertisements: others.bgp_advertisements,
        felix_configurations: others.felix_configurations,
        installations: others.installations,
        ..around
    };
    Ok(Found(around, missing))
}

/// The kinds that are Kubernetes' own.
async fn known(client: &Client) -> Result<Found<Around>, ApiError> {
    let (endpoints, deployments, daemon_sets, stateful_sets) = tokio::try_join!(
        if_served(client, Location::of::<Endpoints>(), lean::<Endpoints>),
        if_served(client, Location::of::<Deployment>(), lean::<Deployment>),
        if_served(client, Location::of::<DaemonSet>(), lean::<DaemonSet>),
        if_served(client, Location::of::<StatefulSet>(), lean::<StatefulSet>),
    )?;
    let (namespaces, config_maps, ingresses, ingress_classes) = tokio::try_join!(
        if_served(client, Location::of::<Namespace>(), lean::<Namespace>),
        if_served(client, Location::of::<ConfigMap>(), settings),
        if_served(client, Location::of::<Ingress>(), lean::<Ingress>),
        if_served(client, Location::of::<IngressClass>(), lean::<IngressClass>),
    )?;
    let mut missing = Vec::new();
    let mut around = Around {
        endpoints: endpoints.take(&mut missing),
        deployments: deployments.take(&mut missing),
        daemon_sets: daemon_sets.take(&mut missing),
        stateful_sets: stateful_sets.take(&mut missing),
        namespaces: namespaces.take(&mut missing),
        config_maps: config_maps.take(&mut missing),
        ingresses: ingresses.take(&mut missing),
        ingress_classes: ingress_classes.take(&mut missing),
        ..Around::default()
    };
    around.config_maps.retain(|it| !is_kube_proxys(it));
    Ok(Found(around, missing))
}

/// The kinds that only who installed them has.
async fn custom(client: &Client) -> Result<Found<Around>, ApiError> {
    const AWS: &str = "elbv2.k8s.aws";
    const GATEWAY: &str = "gateway.networking.k8s.io";
    const METALLB: &str = "metallb.io";
    // What Calico keeps its own kinds as, whether it serves them by an API of its own or not.
    const CALICO: &str = "crd.projectcalico.org";
    let beta = &["v1beta1"];
    let stable = &["v1", "v1beta1"];
    let (params, bindings, gateways, classes, pools, l2, bgp) = tokio::try_join!(
        any_of(
            client,
            ("IngressClassParams", AWS, "ingressclassparams"),
            beta
        ),
        any_of(
            client,
            ("TargetGroupBinding", AWS, "targetgroupbindings"),
            beta
        ),
        any_of(client, ("Gateway", GATEWAY, "gateways"), stable),
        any_of(client, ("GatewayClass", GATEWAY, "gatewayclasses"), stable),
        any_of(client, ("IPAddressPool", METALLB, "ipaddresspools"), beta),
        any_of(
            client,
            ("L2Advertisement", METALLB, "l2advertisements"),
            beta
        ),
        any_of(
            client,
            ("BGPAdvertisement", METALLB, "bgpadvertisements"),
            beta
        ),
    )?;
    let felix = ("FelixConfiguration", CALICO, "felixconfigurations");
    let installation = ("Installation", "operator.tigera.io", "installations");
    let (felix, installations) = tokio::try_join!(
        any_of(client, felix, &["v1"]),
        any_of(client, installation, &["v1"]),
    )?;
    let alpha = &["v1", "v1alpha3", "v1alpha2"];
    let (http, grpc, tls, tcp, udp) = tokio::try_join!(
        any_of(client, ("HTTPRoute", GATEWAY, "httproutes"), stable),
        any_of(
            client,
            ("GRPCRoute", GATEWAY, "grpcroutes"),
            &["v1", "v1alpha2"]
        ),
        any_of(client, ("TLSRoute", GATEWAY, "tlsroutes"), alpha),
        any_of(
            client,
            ("TCPRoute", GATEWAY, "tcproutes"),
            &["v1", "v1alpha2"]
        ),
        any_of(
            client,
            ("UDPRoute", GATEWAY, "udproutes"),
            &["v1", "v1alpha2"]
        ),
    )?;
    let grants = ("ReferenceGrant", GATEWAY, "referencegrants");
    let grants = any_of(client, grants, stable).await?;
    let mut missing = Vec::new();
    let mut around = Around {
        lacks_reference_grants: grants.is_short(),
        reference_grants: grants.take(&mut missing),
        ingress_class_params: params.take(&mut missing),
        target_group_bindings: bindings.take(&mut missing),
        gateways: gateways.take(&mut missing),
        gateway_classes: classes.take(&mut missing),
        ip_address_pools: pools.take(&mut missing),
        l2_advertisements: l2.take(&mut missing),
        bgp_advertisements: bgp.take(&mut missing),
        felix_configurations: felix.take(&mut missing),
        installations: installations.take(&mut missing),
        ..Around::default()
    };
    let of_kinds = [
        ("HTTPRoute", http),
        ("GRPCRoute", grpc),
        ("TLSRoute", tls),
        ("TCPRoute", tcp),
        ("UDPRoute", udp),
    ];
    for (kind, found) in of_kinds {
        let routes: Vec<Route> = found.take(&mut missing);
        // Not every server says it of what is in a list.
        around.routes.extend(routes.into_iter().map(|route| Route {
            kind: kind.to_owned(),
            ..route
        }));
    }
    Ok(Found(around, missing))
}

/// The objects of a kind by the first of these versions that the cluster knows; none if it knows
/// none.
async fn any_of<T: DeserializeOwned>(
    client: &Client,
    (kind, group, plural): (&'static str, &'static str, &'static str),
    versions: &[&'static str],
) -> Result<Found<Vec<T>>, ApiError> {
    for version in versions {
        let location = Location {
            kind,
            group,
            version,
            plural,
        };
        if let Some(found) = found(client, location, std::convert::identity).await? {
            return Ok(found);
        }
    }
    Ok(Found(Vec::new(), Vec::new()))
}

/// The objects of a kind; none if the cluster does not know it.
async fn if_served<T: DeserializeOwned>(
    client: &Client,
    location: Location,
    keep: fn(T) -> T,
) -> Result<Found<Vec<T>>, ApiError> {
    let found = found(client, location, keep).await?;
    Ok(found.unwrap_or_else(|| Found(Vec::new(), Vec::new())))
}

/// The same; `None` if the cluster does not know the kind.
async fn found<T: DeserializeOwned>(
    client: &Client,
    location: Location,
    keep: fn(T) -> T,
) -> Result<Option<Found<Vec<T>>>, ApiError> {
    let target = Selection::default().at(location);
    match resource::list_as(client, &target, location.kind, keep).await {
        Ok(listed) => Ok(Some(Found(listed.objects, listed.unreadable))),
        Err(error) if error.is_unknown() => Ok(None),
        Err(error) if error.is_refusal() => Ok(Some(Found(Vec::new(), vec![error.to_string()]))),
        Err(error) => Err(error),
    }
}

async fn everywhere<T: DeserializeOwned>(
    client: &Client,
    location: Location,
    keep: fn(T) -> T,
) -> Result<Found<Vec<T>>, ApiError> {
    of_kind(client, location, &Selection::default(), keep).await
}

async fn of_kind<T: DeserializeOwned>(
    client: &Client,
    location: Location,
    selection: &Selection,
    keep: fn(T) -> T,
) -> Result<Found<Vec<T>>, ApiError> {
    let target = selection.at(location);
    match resource::list_as(client, &target, location.kind, keep).await {
        Ok(Listed {
            objects,
            unreadable,
            ..
        }) => Ok(Found(objects, unreadable)),
        Err(error) if error.is_refusal() => Ok(Found(Vec::new(), vec![error.to_string()])),
        Err(error) => Err(error),
    }
}

/// An object without what nobody reads of any.
fn lean<K: Metadata<Ty = ObjectMeta>>(mut object: K) -> K {
    let metadata = object.metadata_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    object
}

fn node(node: Node) -> Node {
    let mut node = lean(node);
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
    node
}

/// Of a Pod's containers what they are, what they were told and which ports they have.
fn pod(pod: Pod) -> Pod {
    let container = |container: Container| Container {
        name: container.name,
        image: container.image,
        command: container.command,
        args: container.args,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    };
    let all = |containers: Vec<Container>| containers.into_iter().map(container).collect();
    let mut pod = lean(pod);
    pod.spec = pod.spec.map(|spec| PodSpec {
        containers: all(spec.containers),
        init_containers: spec.init_containers.map(all),
        dns_policy: spec.dns_policy,
        host_network: spec.host_network,
        node_name: spec.node_name,
        node_selector: spec.node_selector,
        service_account_name: spec.service_account_name,
        ..PodSpec::default()
    });
    pod.status = pod.status.map(|status| PodStatus {
        conditions: status.conditions,
        host_ip: status.host_ip,
        host_ips: status.host_ips,
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    });
    pod
}

/// A `ConfigMap` without what is too large to be a setting.
fn settings(config_map: ConfigMap) -> ConfigMap {
    let mut config_map = lean(config_map);
    config_map.binary_data = None;
    if let Some(data) = &mut config_map.data {
        data.retain(|_, value| value.len() <= VALUE_MAX);
    }
    config_map
}

fn is_kube_proxys(config_map: &ConfigMap) -> bool {
    let metadata = &config_map.metadata;
    metadata.namespace.as_deref() == Some(KUBE_PROXY_NAMESPACE)
        && KUBE_PROXY_NAMES
            .iter()
            .any(|name| metadata.name.as_deref() == Some(name))
}
