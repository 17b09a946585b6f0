//! What the `EndpointSlices` say of an endpoint: whose it is, and which pod.

use std::{collections::BTreeSet, net::SocketAddr};

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

use crate::{
    cluster::{name_of, namespace_of},
    lab::Lab,
    protocol::Protocol,
};

/// The label by which a slice belongs to a Service.
const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// The Service that has this endpoint and its port's name, if exactly one has it.
pub(super) fn only_service(lab: &Lab, protocol: Protocol, endpoint: SocketAddr) -> Value {
    let claims: BTreeSet<(&str, &str, &str)> = claims(lab, protocol, endpoint)
        .map(|claim| (claim.namespace, claim.service, claim.port))
        .collect();
    let mut services = claims.iter();
    match (services.next(), services.next()) {
        (Some((namespace, name, port)), None) => service(lab, namespace, name, port),
        _ => Value::Null,
    }
}

/// A Service's port, as a record gives it.
pub(super) fn service(lab: &Lab, namespace: &str, name: &str, port: &str) -> Value {
    json!({
        "namespace": namespace, "name": name, "port": port_name(port),
        "external_traffic_policy": external_traffic_policy(lab, namespace, name),
    })
}

/// The field of the Service, or its default where there is such a policy: for node ports, load
/// balancers and `externalIPs`.
fn external_traffic_policy<'lab>(lab: &'lab Lab, namespace: &str, name: &str) -> Option<&'lab str> {
    let is_it = |service: &&Service| {
        (namespace_of(&service.metadata), name_of(&service.metadata)) == (namespace, name)
    };
    let service = lab.cluster().services.iter().find(is_it)?;
    let spec = service.spec.as_ref()?;
    let has_type = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let has_ips = spec.external_ips.iter().flatten().next().is_some();
    let policy = spec.external_traffic_policy.as_deref();
    (has_type || has_ips).then_some(policy.unwrap_or("Cluster"))
}

/// The pod behind an endpoint by its targetRef: that of the Service, or of whatever Service has
/// it; else the Pod object that has the address. None if they contradict each other.
pub(super) fn pod_name<'lab>(
    lab: &'lab Lab,
    protocol: Protocol,
    endpoint: SocketAddr,
    service: Option<(&str, &str)>,
) -> Option<&'lab str> {
    let pods: BTreeSet<&str> = claims(lab, protocol, endpoint)
        .filter(|claim| service.is_none_or(|service| service == (claim.namespace, claim.service)))
        .filter_map(|claim| claim.pod)
        .collect();
    let mut pods = pods.into_iter();
    match (pods.next(), pods.next()) {
        (None, _) => {
            let has_it = |pod: &&Pod| {
                let ips = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.pod_ips.as_ref());
                ips.into_iter()
                    .flatten()
                    .any(|ip| ip.ip.parse() == Ok(endpoint.ip()))
            };
            let pod = lab.cluster().pods.iter().find(has_it)?;
            Some(name_of(&pod.metadata))
        }
        (only, None) => only,
        (Some(_), Some(_)) => None,
    }
}

/// What one slice says of an endpoint.
struct Claim<'lab> {
    namespace: &'lab str,
    service: &'lab str,
    port: &'lab str,
    pod: Option<&'lab str>,
}

fn claims(lab: &Lab, protocol: Protocol, endpoint: SocketAddr) -> impl Iterator<Item = Claim<'_>> {
    lab.cluster().slices.iter().flat_map(move |slice| {
        let labels = slice.metadata.labels.as_ref();
        let service = labels
            .and_then(|labels| labels.get(LABEL_SERVICE))
            .map_or(name_of(&slice.metadata), String::as_str);
        let ports = slice.ports.iter().flatten().filter(move |port| {
            port.port == Some(endpoint.port().into())
                && port.protocol.as_deref().unwrap_or("TCP") == protocol.as_str()
        });
        ports.flat_map(move |port| {
            let is_it = move |address: &String| address.parse() == Ok(endpoint.ip());
            let endpoints = slice.endpoints.iter().flatten();
            endpoints
                .filter(move |endpoint| endpoint.addresses.first().is_some_and(is_it))
                .map(move |endpoint| Claim {
                    namespace: namespace_of(&slice.metadata),
                    service,
                    port: port.name.as_deref().unwrap_or_default(),
                    pod: endpoint
                        .target_ref
                        .as_ref()
                        .and_then(|reference| reference.name.as_deref()),
                })
        })
    })
}

/// As a record gives the name of a Service's port.
pub(super) fn port_name(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}
