//! From the objects to the index.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::around::Around;
use super::convert::{
    Names, addresses, container_ports, host_address, merge, parse_net, parse_port, parse_protocol,
    service,
};
use super::front::Fronts;
use super::index::{Claim, HostPort, Index, PodFacts};
use super::lookup::Agreed;
use super::plane::sidecar;
use super::slice::Slice;
use super::{
    Endpoint, Family, FrontDoorKind, Node, PodRef, Protocol, Service, ServiceEntry, ServiceRef,
    View,
};

/// The label by which an `EndpointSlice` belongs to a Service (`discovery/v1`
/// `LabelServiceName`).
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The type of a Node's address inside the cluster (`core/v1` `NodeInternalIP`).
const INTERNAL_IP: &str = "InternalIP";
/// The label by which a Node belongs to a zone (`core/v1` `LabelTopologyZone`).
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// What stands around the Services is left to [`Facts`](super::facts::Facts).
static NOTHING: LazyLock<Around> = LazyLock::new(Around::default);

/// A Service's port as its `EndpointSlices` name it; a port without a name is named by nothing.
type PortKey = (ServiceRef, Arc<str>, Protocol);

/// Addresses of one kind that a Service has.
type AddressesOf = fn(&Service) -> &[IpAddr];

#[derive(Default)]
struct Builder {
    index: Index,
    names: Names,
    endpoints: HashMap<PortKey, Vec<Endpoint>>,
    /// Addresses of nodes as Pods tell them.
    told_by_pods: HashMap<IpAddr, Agreed<Arc<str>>>,
}

impl Index {
    /// Builds the index. Total: no object is refused, and what makes no sense in one is skipped.
    /// Of Services with the same name the last one counts.
    pub fn build<'a>(objects: impl Into<View<'a>>) -> Self {
        let objects = objects.into();
        let mut builder = Builder::default();
        builder.index.counts = objects.counts();
        builder.index.pods_of = objects.pods_of.map(|node| builder.names.intern(node));
        let nodes = objects.nodes;
        for node in &nodes {
            builder.node(node);
        }
        for pod in objects.pods {
            builder.pod(pod);
        }
        builder.trust_pods_about_nodes();
        for slice in objects.endpoint_slices {
            builder.endpoint_slice(&slice.read());
        }
        let mut services = BTreeMap::new();
        for service in objects.services {
            services.insert(builder.name_of(&service.metadata), service);
        }
        let fronts = Fronts::of(&nodes, &NOTHING);
        for ((namespace, name), service) in services {
            builder.service(&ServiceRef { namespace, name }, service, &fronts);
        }
        builder.claim();
        builder.index
    }
}

impl Builder {
    fn name_of(&mut self, metadata: &ObjectMeta) -> (Arc<str>, Arc<str>) {
        // Only a file written by hand leaves the namespace out.
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        (
            self.names.intern(namespace),
            self.names
                .intern(metadata.name.as_deref().unwrap_or_default()),
        )
    }

    fn node(&mut self, node: &core::Node) {
        let name = self
            .names
            .intern(node.metadata.name.as_deref().unwrap_or_default());
        let mut told: Vec<_> = node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
            .collect();
        told.sort_by_key(|address| address.type_ != INTERNAL_IP);
        let addresses = addresses(told.into_iter().map(|address| &address.address));
        let spec = node.spec.iter();
        let mut pod_cidrs: Vec<_> = spec
            .flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr))
            .filter_map(|cidr| parse_net(cidr))
            .collect();
        pod_cidrs.sort_unstable();
        pod_cidrs.dedup();
        let labels = node.metadata.labels.as_ref();
        let zone = labels
            .and_then(|labels| labels.get(ZONE))
            .map(|zone| self.names.intern(zone));

        for &address in &addresses {
            self.index
                .node_addresses
                .entry(address)
                .or_default()
                .add(Arc::clone(&name));
        }
        for &cidr in &pod_cidrs {
            self.index.pod_cidrs.entry(cidr).add(Arc::clone(&name));
            self.pods_live_near(cidr);
        }
        let node = Node {
            name: Arc::clone(&name),
            addresses,
            pod_cidrs,
            zone,
        };
        self.index.nodes.insert(name, node);
    }

    fn pod(&mut self, pod: &core::Pod) {
        let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
            return;
        };
        // A Pod that is over keeps its address in its status, and another Pod gets the address.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return;
        }
        let (namespace, name) = self.name_of(&pod.metadata);
        let reference = PodRef { namespace, name };
        let node = spec
            .node_name
            .as_deref()
            .map(|node| self.names.intern(node));
        if let Some(sidecar) = sidecar(&pod.metadata, spec) {
            self.index.sidecars.insert(reference.clone(), sidecar);
        }
        let pod = PodFacts { reference, node };
        let ips = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        let ips = addresses(ips.chain(&status.pod_ip));
        let host_ips = status.host_ips.iter().flatten().map(|ip| &ip.ip);
        let mut host_ips = addresses(host_ips.chain(&status.host_ip));
        let host_network = spec.host_network == Some(true);

        if host_network {
            host_ips.extend(&ips);
        } else {
            for &ip in &ips {
                self.index.addresses.entry(ip).pod.add(pod.clone());
                self.pods_live_near(IpNet::from(ip));
            }
        }
        if let Some(node) = &pod.node {
            for &ip in &host_ips {
                self.told_by_pods
                    .entry(ip)
                    .or_default()
                    .add(Arc::clone(node));
            }
        }
        for port in container_ports(spec) {
            let Some(protocol) = parse_protocol(port.protocol.as_deref()) else {
                continue;
            };
            if host_network {
                let Some(number) = parse_port(port.container_port) else {
                    continue;
                };
                for &ip in &host_ips {
                    let socket = (protocol, ip, number);
                    self.index
                        .host_network
                        .entry(socket)
                        .or_default()
                        .add(pod.clone());
                }
            } else if let Some(number) = port.host_port.and_then(parse_port)
                && let Some(container_port) = parse_port(port.container_port)
                && let Some(at) = host_address(port.host_ip.as_deref())
            {
                self.index
                    .host_ports
                    .entry((protocol, number))
                    .or_default()
                    .push(HostPort {
                        at,
                        container_port,
                        pod: pod.clone(),
                        host_ips: host_ips.clone(),
                        families: ips.iter().copied().map(Family::of).collect(),
                    });
            }
        }
    }

    /// Pods know their node's addresses too. That helps where the Node is missing; where it is
    /// not, it knows better.
    fn trust_pods_about_nodes(&mut self) {
        for (address, node) in std::mem::take(&mut self.told_by_pods) {
            self.index.node_addresses.entry(address).or_insert(node);
        }
    }

    fn endpoint_slice(&mut self, slice: &Slice) {
        let Slice {
            service,
            ports,
            endpoints,
            ..
        } = slice;
        for endpoint in endpoints {
            let address = endpoint.address;
            let facts = self.index.addresses.entry(address);
            facts.endpoint = true;
            facts.pod_endpoint |= endpoint.pod.is_some();
            if endpoint.pod.is_some() && !self.index.node_addresses.contains_key(&address) {
                self.pods_live_near(IpNet::from(address));
            }
            for (name, protocol, port) in ports {
                let facts = self.index.endpoints.entry((*protocol, address, *port));
                if let Some(pod) = &endpoint.pod {
                    facts.pod.add(pod.clone());
                }
                if let Some(node) = &endpoint.node {
                    facts.node.add(Arc::clone(node));
                }
                if let Some(service) = service {
                    let key = (service.clone(), Arc::clone(name), *protocol);
                    let endpoint = Endpoint {
                        port: *port,
                        ..endpoint.clone()
                    };
                    self.endpoints.entry(key).or_default().push(endpoint);
                }
            }
        }
    }

    fn service(&mut self, reference: &ServiceRef, object: &core::Service, fronts: &Fronts<'_>) {
        let Some(mut service) = service(reference.clone(), object) else {
            return;
        };
        service.load_balancer = fronts.load_balancer(object).map(Arc::new);
        let shared = Arc::new(service);
        let spec = object.spec.iter();
        let mut ports: Vec<_> = spec
            .flat_map(|spec| spec.ports.iter().flatten())
            .filter_map(|port| {
                let protocol = parse_protocol(port.protocol.as_deref())?;
                Some((parse_port(port.port)?, protocol, port))
            })
            .collect();
        ports.sort_by_key(|&(number, protocol, _)| (number, protocol));
        for (number, protocol, port) in ports {
            let name = self.names.intern(port.name.as_deref().unwrap_or_default());
            let key = (reference.clone(), Arc::clone(&name), protocol);
            let endpoints = merge(self.endpoints.remove(&key).unwrap_or_default());
            self.index.entries.push(ServiceEntry {
                service: Arc::clone(&shared),
                name: Some(name).filter(|name| !name.is_empty()),
                protocol,
                port: number,
                node_port: port.node_port.and_then(parse_port),
                endpoints,
            });
        }
    }

    /// Enters what each Service port claims: addresses, node ports and endpoints.
    fn claim(&mut self) {
        let Index {
            entries,
            virtual_ips,
            node_ports,
            load_balancer_proxies,
            endpoints,
            ..
        } = &mut self.index;
        // Where addresses overlap, the kind that comes first stands, as in kube-proxy's chains.
        let kinds: [(FrontDoorKind, AddressesOf); 3] = [
            (FrontDoorKind::LoadBalancer, |service| {
                &service.load_balancer_vips
            }),
            (FrontDoorKind::ExternalIP, |service| &service.external_ips),
            (FrontDoorKind::ClusterIP, |service| &service.cluster_ips),
        ];
        for (kind, addresses) in kinds {
            for (place, entry) in entries.iter().enumerate() {
                for &ip in addresses(&entry.service) {
                    let socket = (entry.protocol, ip, entry.port);
                    let (_, claim) = virtual_ips.entry(socket).or_insert((kind, Claim::Nobody));
                    claim.add(place, entries);
                }
            }
        }
        for (place, entry) in entries.iter().enumerate() {
            let service = &entry.service;
            for &ip in &service.load_balancer_proxies {
                load_balancer_proxies
                    .entry(ip)
                    .or_default()
                    .add(place, entries);
            }
            for family in [Family::V4, Family::V6] {
                if let Some(port) = entry.node_port
                    && service.has_family(family)
                {
                    let key = (entry.protocol, family, port);
                    node_ports.entry(key).or_default().add(place, entries);
                }
            }
            for endpoint in &*entry.endpoints {
                let socket = (entry.protocol, endpoint.address, endpoint.port);
                endpoints.entry(socket).claim.add(place, entries);
            }
        }
    }

    /// Remembers that Pods have addresses in or around `network`.
    fn pods_live_near(&mut self, network: IpNet) {
        // How wide: see `Index::address_kind`.
        let widest = if network.addr().is_ipv4() { 16 } else { 48 };
        if let Ok(around) = IpNet::new(network.addr(), network.prefix_len().min(widest)) {
            self.index.pod_neighbourhoods.entry(around);
        }
    }
}
