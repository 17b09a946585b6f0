//! `EndpointSlices`: of the Pods that a Service selects (`k8s.io/endpointslice`), and of Endpoints
//! as somebody wrote them (`pkg/controller/endpointslicemirroring`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EndpointAddress, EndpointSubset, Endpoints, Node, ObjectReference,
    Pod, PodSpec, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses::Addresses;
use super::pods::{assumed_name, run};
use super::{Assumption, find_port, name_of, selector, selects, workloads};
use crate::cluster::{Family, Objects};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The ports of a slice, by what is compared of them.
type Ports = Vec<(String, String, i32)>;

/// The Services that have slices.
pub(super) fn services_with_slices(objects: &Objects) -> BTreeSet<String> {
    let slices = objects.endpoint_slices.iter();
    let names = slices.filter_map(|slice| {
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
        Some(format!("{namespace}/{}", labels.get(SERVICE_NAME)?))
    });
    names.collect()
}

/// Adds the slices of Services that have none.
pub(super) fn add(objects: &mut Objects, addresses: &mut Addresses, assumed: &mut Vec<Assumption>) {
    let with_slices = services_with_slices(objects);
    let written: BTreeMap<_, _> = objects
        .around
        .endpoints
        .iter()
        .filter(|endpoints| is_mirrored(endpoints))
        .map(|endpoints| (name_of(&endpoints.metadata), endpoints))
        .collect();
    let mut slices = Vec::new();
    let mut more = Vec::new();
    for service in &objects.services {
        let name = name_of(&service.metadata);
        if with_slices.contains(&name) {
            continue;
        }
        if let Some(endpoints) = written.get(&name) {
            slices.extend(mirrored(endpoints));
        } else if selector(service).is_some() {
            let mut pods: Vec<_> = objects
                .pods
                .iter()
                .filter(|pod| is_its(service, pod))
                .collect();
            let assumed_pod = (pods.is_empty() && !is_made(service, objects))
                .then(|| assume(service, objects, addresses))
                .flatten();
            if let Some((pod, node)) = &assumed_pod {
                pods.push(pod);
                assumed.push(Assumption::Endpoints {
                    service: name,
                    node: node.clone(),
                });
            }
            slices.extend(of_pods(service, &pods, &objects.nodes));
            more.extend(assumed_pod.map(|(pod, _)| pod));
        }
    }
    objects.endpoint_slices.extend(slices);
    objects.pods.extend(more);
}

fn is_its(service: &Service, pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    selects(
        service,
        metadata.namespace.as_deref(),
        metadata.labels.as_ref(),
    )
}

/// Whether what makes its pods is given, even if it makes none.
fn is_made(service: &Service, objects: &Objects) -> bool {
    workloads(objects).any(|workload| {
        let namespace = workload.metadata.namespace.as_deref();
        selects(service, namespace, workload.labels())
    })
}

/// A Pod for a Service of whose pods nothing is given, and its node.
fn assume(
    service: &Service,
    objects: &Objects,
    addresses: &mut Addresses,
) -> Option<(Pod, String)> {
    let node = objects.nodes.first()?.metadata.name.clone()?;
    let ports = service.spec.as_ref()?.ports.iter().flatten();
    // What a name stands for nobody says: the Service's own number.
    let named = ports.filter_map(|port| match &port.target_port {
        Some(IntOrString::String(name)) => Some(ContainerPort {
            name: Some(name.clone()),
            container_port: port.port,
            protocol: port.protocol.clone(),
            ..ContainerPort::default()
        }),
        _ => None,
    });
    let container = Container {
        ports: Some(named.collect()),
        ..Container::default()
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(assumed_name(name, 1)),
            namespace: service.metadata.namespace.clone(),
            labels: selector(service).cloned(),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node.clone()),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    };
    run(std::slice::from_mut(&mut pod), &objects.nodes, addresses);
    Some((pod, node))
}

/// The slices of a Service with these Pods: one for each family, and for each answer to what its
/// ports lead to.
fn of_pods(service: &Service, pods: &[&Pod], nodes: &[Node]) -> Vec<EndpointSlice> {
    let zones: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| {
            let labels = node.metadata.labels.as_ref();
            let zone = labels.and_then(|labels| labels.get(ZONE));
            (node.metadata.name.as_ref(), zone)
        })
        .collect();
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let families: Vec<_> = spec.ip_families.iter().flatten().collect();
    let mut found: BTreeMap<(Family, Ports), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        let (Some(of_pod), Some(status)) = (&pod.spec, &pod.status) else {
            continue;
        };
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            continue;
        }
        let ports = ports_of(spec.ports.iter().flatten(), of_pod);
        let ips = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        let ips: BTreeSet<IpAddr> = ips
            .chain(&status.pod_ip)
            .filter_map(|ip| ip.parse().ok())
            .collect();
        for ip in ips {
            let family = Family::of(ip);
            if !families.iter().any(|word| **word == family.to_string()) {
                continue;
            }
            let zone = zones.get(&of_pod.node_name.as_ref()).copied().flatten();
            found
                .entry((family, ports.clone()))
                .or_default()
                .push(endpoint(ip, pod, zone.cloned()));
        }
    }
    let slices = found.into_iter().enumerate();
    slices
        .map(|(number, ((family, ports), endpoints))| {
            let ports = ports
                .into_iter()
                .map(|(name, protocol, port)| EndpointPort {
                    name: Some(name),
                    protocol: Some(protocol),
                    port: Some(port),
                    app_protocol: None,
                });
            slice(
                &service.metadata,
                number,
                family,
                ports.collect(),
                endpoints,
            )
        })
        .collect()
}

fn ports_of<'a>(ports: impl Iterator<Item = &'a ServicePort>, pod: &PodSpec) -> Ports {
    ports
        .filter_map(|port| {
            let number = find_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone().unwrap_or_default(), protocol, number))
        })
        .collect()
}

fn endpoint(ip: IpAddr, pod: &Pod, zone: Option<String>) -> Endpoint {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    // Of whose readiness nothing is said, it is taken to be ready.
    let mut readiness = conditions.filter(|condition| condition.type_ == "Ready");
    let serving = readiness.next().is_none_or(|ready| ready.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// A slice of the Service, or of the Endpoints, with this metadata.
fn slice(
    of: &ObjectMeta,
    number: usize,
    family: Family,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = of.name.as_deref().unwrap_or_default();
    let label = (SERVICE_NAME.to_owned(), name.to_owned());
    EndpointSlice {
        address_type: family.to_string(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            name: Some(assumed_name(name, number + 1)),
            namespace: of.namespace.clone(),
            labels: Some(BTreeMap::from([label])),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(SKIP_MIRROR));
    label.is_none_or(|value| value != "true")
}

/// The slices that mirror Endpoints.
fn mirrored(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten();
        let ports = ports.map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        });
        let ports: Vec<_> = ports.collect();
        for family in [Family::V4, Family::V6] {
            let endpoints_of = mirrored_endpoints(subset, family);
            if !endpoints_of.is_empty() {
                let number = slices.len();
                slices.push(slice(
                    &endpoints.metadata,
                    number,
                    family,
                    ports.clone(),
                    endpoints_of,
                ));
            }
        }
    }
    slices
}

fn mirrored_endpoints(subset: &EndpointSubset, family: Family) -> Vec<Endpoint> {
    let endpoint = |address: &EndpointAddress, ready: bool| {
        let ip: IpAddr = address.ip.parse().ok()?;
        (Family::of(ip) == family).then(|| Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..EndpointConditions::default()
            }),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        })
    };
    let ready = subset.addresses.iter().flatten();
    let others = subset.not_ready_addresses.iter().flatten();
    let ready = ready.filter_map(|address| endpoint(address, true));
    ready
        .chain(others.filter_map(|address| endpoint(address, false)))
        .collect()
}
