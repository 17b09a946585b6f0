//! Objects cut down to what an [`Index`](super::Index) reads of them, so that a whole cluster's
//! can be kept, and a recording of them tells no more than it must.
//!
//! Two trimmed objects are equal if the index would be the same, so that what changes without
//! consequence (heartbeats of Nodes, leases in annotations) can be told from what does not.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerPort, LoadBalancerIngress, LoadBalancerStatus, Node, NodeSpec,
    NodeStatus, ObjectReference, Pod, PodSpec, PodStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::build::{SERVICE_NAME, ZONE};
use super::convert::container_ports;
use super::front::{NODE_LABEL, is_telling, scheme};
use super::kube_proxy::is_config;
use super::plane::kept;

/// An object of which an index reads only a part.
pub trait Trim {
    /// The same object with nothing but that part.
    #[must_use]
    fn trimmed(self) -> Self;
}

impl Trim for Service {
    fn trimmed(self) -> Self {
        Self {
            metadata: telling(self.metadata),
            spec: self.spec.map(service_spec),
            status: self.status.and_then(service_status),
        }
    }
}

impl Trim for EndpointSlice {
    fn trimmed(self) -> Self {
        let namespace = self.metadata.namespace.clone();
        let endpoints = self.endpoints.map(|endpoints| {
            let trimmed = |it| endpoint(it, namespace.as_deref());
            let mut endpoints: Vec<_> = endpoints.into_iter().map(trimmed).collect();
            // There are many, and collected in place they keep what they grew to.
            endpoints.shrink_to_fit();
            endpoints
        });
        let ports = self.ports.map(|ports| {
            let port = |port: EndpointPort| EndpointPort {
                name: port.name,
                port: port.port,
                protocol: port.protocol,
                app_protocol: None,
            };
            ports.into_iter().map(port).collect()
        });
        Self {
            address_type: self.address_type,
            endpoints,
            metadata: named(self.metadata, &[SERVICE_NAME]),
            ports,
        }
    }
}

impl Trim for Node {
    fn trimmed(self) -> Self {
        let provider = Some(scheme(&self).to_owned()).filter(|scheme| !scheme.is_empty());
        let spec = self.spec.map(|spec| NodeSpec {
            pod_cidr: spec.pod_cidr,
            pod_cidrs: spec.pod_cidrs,
            // Only whose it is: the rest names the machine.
            provider_id: provider.map(|scheme| format!("{scheme}://")),
            ..NodeSpec::default()
        });
        let addresses = self.status.and_then(|status| status.addresses);
        let status = addresses.map(|addresses| NodeStatus {
            addresses: Some(addresses),
            ..NodeStatus::default()
        });
        Self {
            metadata: named(self.metadata, &[ZONE, NODE_LABEL]),
            spec,
            status,
        }
    }
}

impl Trim for Pod {
    fn trimmed(self) -> Self {
        let status = self.status.map(|status| PodStatus {
            host_ip: status.host_ip,
            host_ips: status.host_ips,
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            ..PodStatus::default()
        });
        let spec = self.spec.as_ref();
        let sidecar = spec.and_then(|spec| kept(&self.metadata, spec));
        let mut metadata = named(self.metadata, &[]);
        let mut spec = self.spec.map(pod_spec);
        if let Some((annotations, container)) = sidecar {
            metadata.annotations = Some(annotations).filter(|it| !it.is_empty());
            if let Some(spec) = &mut spec {
                spec.containers.push(container);
            }
        }
        Self {
            metadata,
            spec,
            status,
        }
    }
}

impl Trim for ConfigMap {
    fn trimmed(self) -> Self {
        let data = self.data.map(|mut data: BTreeMap<_, _>| {
            data.retain(|_, document: &mut String| is_config(document));
            data
        });
        Self {
            metadata: named(self.metadata, &[]),
            data,
            ..Self::default()
        }
    }
}

/// Namespace, name and, of the annotations, what tells of a load balancer.
fn telling(metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| is_telling(name));
    ObjectMeta {
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..named(metadata, &[])
    }
}

/// Namespace, name and these labels.
pub(super) fn named(metadata: ObjectMeta, labels: &[&str]) -> ObjectMeta {
    let mut its = metadata.labels.unwrap_or_default();
    its.retain(|name, _| labels.contains(&&**name));
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        labels: Some(its).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    }
}

fn service_spec(spec: ServiceSpec) -> ServiceSpec {
    let port = |port: ServicePort| ServicePort {
        name: port.name,
        node_port: port.node_port,
        port: port.port,
        protocol: port.protocol,
        ..ServicePort::default()
    };
    ServiceSpec {
        allocate_load_balancer_node_ports: spec.allocate_load_balancer_node_ports,
        load_balancer_class: spec.load_balancer_class,
        load_balancer_ip: spec.load_balancer_ip,
        cluster_ip: spec.cluster_ip,
        cluster_ips: spec.cluster_ips,
        external_ips: spec.external_ips,
        external_traffic_policy: spec.external_traffic_policy,
        health_check_node_port: spec.health_check_node_port,
        internal_traffic_policy: spec.internal_traffic_policy,
        ip_families: spec.ip_families,
        load_balancer_source_ranges: spec.load_balancer_source_ranges,
        ports: spec
            .ports
            .map(|ports| ports.into_iter().map(port).collect()),
        session_affinity: spec.session_affinity,
        session_affinity_config: spec.session_affinity_config,
        traffic_distribution: spec.traffic_distribution,
        type_: spec.type_,
        ..ServiceSpec::default()
    }
}

/// The load balancer's addresses, if it has any.
fn service_status(status: ServiceStatus) -> Option<ServiceStatus> {
    let ingress = status.load_balancer?.ingress?;
    let address = |ingress: LoadBalancerIngress| LoadBalancerIngress {
        ip: ingress.ip,
        ip_mode: ingress.ip_mode,
        hostname: ingress.hostname,
        ..LoadBalancerIngress::default()
    };
    Some(ServiceStatus {
        load_balancer: Some(LoadBalancerStatus {
            ingress: Some(ingress.into_iter().map(address).collect()),
        }),
        ..ServiceStatus::default()
    })
}

/// An endpoint of a slice in `namespace`.
fn endpoint(endpoint: Endpoint, namespace: Option<&str>) -> Endpoint {
    // kube-proxy looks at no other (`discovery/v1` `Endpoint.addresses`).
    let mut addresses = endpoint.addresses;
    addresses.truncate(1);
    addresses.shrink_to_fit();
    let target = endpoint.target_ref;
    let target = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    Endpoint {
        addresses,
        conditions: endpoint.conditions,
        hints: endpoint.hints,
        node_name: endpoint.node_name,
        target_ref: target.map(|target| ObjectReference {
            kind: target.kind,
            name: target.name,
            // The slice's own goes without saying.
            namespace: target
                .namespace
                .filter(|its| Some(its.as_str()) != namespace),
            ..ObjectReference::default()
        }),
        zone: endpoint.zone,
        ..Endpoint::default()
    }
}

/// Where it runs, and which ports it has: all those that count, in one container.
fn pod_spec(spec: PodSpec) -> PodSpec {
    let port = |port: &ContainerPort| ContainerPort {
        container_port: port.container_port,
        host_ip: port.host_ip.clone(),
        host_port: port.host_port,
        protocol: port.protocol.clone(),
        name: None,
    };
    let ports: Vec<_> = container_ports(&spec).map(port).collect();
    let container = (!ports.is_empty()).then(|| Container {
        ports: Some(ports),
        ..Container::default()
    });
    PodSpec {
        containers: container.into_iter().collect(),
        host_network: spec.host_network,
        node_name: spec.node_name,
        ..PodSpec::default()
    }
}
