//! What the API server and the controllers of a cluster would add to manifests, so that they can
//! be explained as a cluster's objects are: defaults, addresses, ports, pods and endpoints.
//!
//! Only for manifests. What is assumed is told, and everything that the manifests say stands.

mod addresses;
mod endpoints;
mod nodes;
mod pods;
mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use strum::VariantNames;

use crate::cluster::{Objects, container_ports};

use addresses::Addresses;

/// What was assumed of a cluster. The words are in the language files, by the name of the variant
/// in kebab case. What a field holds: see [`Finding`](crate::cluster::finding::Finding); several
/// of something are divided by commas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantNames)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Assumption {
    /// No Node is given: these are there.
    Nodes {
        /// Their names.
        nodes: String,
    },
    /// A Node is given without an address: this is its.
    NodeAddress {
        /// The node.
        node: String,
        /// Its address.
        ip: String,
    },
    /// Where the pods of a workload run.
    Pods {
        /// The workload, or the Pod.
        workload: String,
        /// The nodes.
        nodes: String,
    },
    /// The cluster IPs that a Service will get.
    ClusterIp {
        /// The Service.
        service: String,
        /// The addresses.
        ips: String,
    },
    /// The node port that a port of a Service will get.
    NodePort {
        /// The Service.
        service: String,
        /// The port: its name, or its number.
        port: String,
        /// The node port.
        node_port: String,
    },
    /// The health check's node port that a Service will get.
    HealthCheckNodePort {
        /// The Service.
        service: String,
        /// The node port.
        node_port: String,
    },
    /// The address that a load balancer will have.
    LoadBalancerAddress {
        /// The Service.
        service: String,
        /// The address.
        ip: String,
    },
    /// A Service selects pods of which nothing is given: one is there.
    Endpoints {
        /// The Service.
        service: String,
        /// Its node.
        node: String,
    },
}

/// What makes pods.
pub(super) struct Workload<'a> {
    /// `Deployment`, `StatefulSet` or `DaemonSet`.
    pub(super) kind: &'static str,
    pub(super) metadata: &'a ObjectMeta,
    pub(super) selector: &'a LabelSelector,
    pub(super) template: &'a PodTemplateSpec,
    /// How many pods; one on each node, if none is said.
    replicas: Option<usize>,
}

/// Completes the objects of manifests as a cluster would.
#[must_use]
pub fn complete(mut objects: Objects) -> (Objects, Vec<Assumption>) {
    let mut assumed = Vec::new();
    let mut addresses = Addresses::of(&objects);
    nodes::add(&mut objects, &mut addresses, &mut assumed);
    let families = nodes::families(&objects.nodes);
    services::complete(&mut objects, &families, &mut addresses, &mut assumed);
    pods::add(&mut objects, &mut addresses, &mut assumed);
    endpoints::add(&mut objects, &mut addresses, &mut assumed);
    (objects, assumed)
}

/// What the API server gives to Services that were changed: node ports
/// (`pkg/registry/core/service/storage/alloc.go`).
pub fn allocate(objects: &mut Objects) -> Vec<Assumption> {
    services::allocate(objects)
}

/// All that makes pods.
pub(super) fn workloads(objects: &Objects) -> impl Iterator<Item = Workload<'_>> {
    /// Without a number, one (`apps/v1` `DeploymentSpec.replicas`).
    fn number(replicas: Option<i32>) -> usize {
        usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
    }
    let around = &objects.around;
    let deployments = around.deployments.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        Some(Workload {
            kind: "Deployment",
            metadata: &it.metadata,
            selector: &spec.selector,
            template: &spec.template,
            replicas: Some(number(spec.replicas)),
        })
    });
    let stateful_sets = around.stateful_sets.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        Some(Workload {
            kind: "StatefulSet",
            metadata: &it.metadata,
            selector: &spec.selector,
            template: &spec.template,
            replicas: Some(number(spec.replicas)),
        })
    });
    let daemon_sets = around.daemon_sets.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        Some(Workload {
            kind: "DaemonSet",
            metadata: &it.metadata,
            selector: &spec.selector,
            template: &spec.template,
            replicas: None,
        })
    });
    deployments.chain(stateful_sets).chain(daemon_sets)
}

impl<'a> Workload<'a> {
    /// The labels that its pods will have.
    pub(super) fn labels(&self) -> Option<&'a BTreeMap<String, String>> {
        let metadata = self.template.metadata.as_ref();
        metadata.and_then(|metadata| metadata.labels.as_ref())
    }
}

/// Whether a Service selects pods with these labels.
pub(super) fn selects(
    service: &Service,
    namespace: Option<&str>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let its = service.metadata.namespace.as_deref();
    selector(service).is_some_and(|selector| {
        its.unwrap_or("default") == namespace.unwrap_or("default") && has(labels, selector)
    })
}

/// What a Service selects pods by; none if it selects none.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    let is_alias = spec.type_.as_deref() == Some("ExternalName");
    (!is_alias && !selector.is_empty()).then_some(selector)
}

fn has(labels: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// The port of a pod that a port of a Service leads to: by number, or by the name of a
/// container's port of the same protocol (`k8s.io/endpointslice`, `FindPort`).
pub(super) fn find_port(spec: &PodSpec, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let mut ports = container_ports(spec);
            let its = ports.find(|its| {
                its.name.as_ref() == Some(name)
                    && its.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            its.map(|port| port.container_port)
        }
    }
}

/// `namespace/name`.
fn name_of(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    format!(
        "{namespace}/{}",
        metadata.name.as_deref().unwrap_or_default()
    )
}
