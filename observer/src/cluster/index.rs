//! The index and its queries.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;

use super::lookup::{Agreed, CidrMap, Map, SharedMap};
use super::plane::Meshed;
use super::{
    Counts, Endpoint, Family, FrontDoorKind, LocalAddresses, Node, PodRef, Protocol, Service,
    ServiceEntry, ServiceRef,
};

/// A protocol's port at an address.
pub(super) type Socket = (Protocol, IpAddr, u16);

/// Everything the objects say about addresses. Immutable: a change in the cluster is a new index.
///
/// Addresses are given in their own family: IPv4 never mapped into IPv6.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub(super) counts: Counts,
    /// The only node whose Pods were given; `None`: all nodes' were, or none.
    pub(super) pods_of: Option<Arc<str>>,
    /// Sorted by namespace, name, port and protocol.
    pub(super) entries: Vec<ServiceEntry>,
    /// Cluster, external and load balancer addresses that kube-proxy programs.
    pub(super) virtual_ips: Map<Socket, (FrontDoorKind, Claim)>,
    pub(super) node_ports: Map<(Protocol, Family, u16), Claim>,
    pub(super) load_balancer_proxies: Map<IpAddr, Claim>,
    pub(super) host_ports: Map<(Protocol, u16), Vec<HostPort>>,
    pub(super) endpoints: SharedMap<Socket, EndpointFacts>,
    pub(super) addresses: SharedMap<IpAddr, AddressFacts>,
    /// Container ports of Pods in their node's own network, at the node's addresses.
    pub(super) host_network: Map<Socket, Agreed<PodFacts>>,
    /// What takes connections over within Pods, and gives their applications another source.
    pub(super) sidecars: Map<PodRef, Meshed>,
    pub(super) nodes: BTreeMap<Arc<str>, Node>,
    pub(super) node_addresses: Map<IpAddr, Agreed<Arc<str>>>,
    pub(super) pod_cidrs: CidrMap<Agreed<Arc<str>>>,
    /// Where Pods may live beyond the nodes' CIDRs; see [`Index::address_kind`].
    pub(super) pod_neighbourhoods: CidrMap<()>,
}

/// Where a connection enters: what its original destination is.
#[derive(Clone, Copy, Debug)]
pub struct FrontDoor<'a> {
    /// The kind of the original destination.
    pub kind: FrontDoorKind,
    /// The Service. `None` for a host port, for a Pod that is an endpoint of no Service or of
    /// several, and where several Services claim the same destination.
    pub service: Option<&'a Service>,
    /// The Service's port. `None` when `service` is, or when several of its ports fit: two ports
    /// may lead to the same port of an endpoint.
    pub entry: Option<&'a ServiceEntry>,
    /// Of a host port: the Pod that asked for it, if that is a single one.
    pub pod: Option<&'a PodRef>,
}

/// What is known of the place where a connection ended up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend<'a> {
    /// Its Pod.
    pub pod: Option<&'a PodRef>,
    /// The node it lives on.
    pub node: Option<&'a str>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind<'a> {
    /// A Pod's own.
    Pod,
    /// A node's own; the node's name.
    Node(&'a str),
    /// Neither a Pod's nor a node's: outside the cluster.
    External,
    /// The objects do not tell.
    Unknown,
}

/// Which Service ports claim something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Claim {
    #[default]
    Nobody,
    /// A single one: its place in [`Index::entries`].
    Entry(usize),
    /// Several ports of one Service: the place of one of them.
    Service(usize),
    /// Several Services.
    Several,
}

/// A port of a node that leads to a Pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) at: HostAddress,
    /// The port in the Pod.
    pub(super) container_port: u16,
    pub(super) pod: PodFacts,
    /// The addresses of the Pod's node, as the Pod knows them (`status.hostIPs`).
    pub(super) host_ips: Vec<IpAddr>,
    /// The families in which the Pod has an address.
    pub(super) families: Vec<Family>,
}

/// A container port's `hostIP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostAddress {
    /// Unset: every address of the node.
    Any,
    /// `0.0.0.0` or `::`: every address of a family.
    AnyOf(Family),
    Only(IpAddr),
}

/// What the `EndpointSlices` say of an endpoint's port, over all Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointFacts {
    pub(super) claim: Claim,
    pub(super) pod: Agreed<PodRef>,
    pub(super) node: Agreed<Arc<str>>,
}

/// What Pods and `EndpointSlices` say of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressFacts {
    /// The Pod whose own address it is; not a Pod in its node's network.
    pub(super) pod: Agreed<PodFacts>,
    /// An endpoint has it.
    pub(super) endpoint: bool,
    /// An endpoint that is a Pod has it.
    pub(super) pod_endpoint: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFacts {
    pub(super) reference: PodRef,
    pub(super) node: Option<Arc<str>>,
}

impl Index {
    /// Takes from the index of before what is the same in both. Objects change one by one: what
    /// several indexes then take is little more than one does.
    #[must_use]
    pub fn sharing(mut self, before: &Self) -> Self {
        self.endpoints.share(&before.endpoints);
        self.addresses.share(&before.addresses);
        for entry in &mut self.entries {
            let ServiceRef { namespace, name } = &entry.service.reference;
            let mut same = before.service(namespace, name).iter();
            let same = same.find(|it| (it.protocol, it.port) == (entry.protocol, entry.port));
            if let Some(before) = same {
                share(&mut entry.service, &before.service);
                share(&mut entry.endpoints, &before.endpoints);
            }
        }
        self
    }

    /// How many objects it was built from.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Every port of every Service, sorted by namespace, name, port and protocol.
    pub fn entries(&self) -> &[ServiceEntry] {
        &self.entries
    }

    /// The ports of one Service; empty when there is no such Service.
    pub fn service(&self, namespace: &str, name: &str) -> &[ServiceEntry] {
        let order = |e: &ServiceEntry| {
            let ServiceRef {
                namespace: its_namespace,
                name: its_name,
            } = &e.service.reference;
            (&**its_namespace, &**its_name).cmp(&(namespace, name))
        };
        let start = self.entries.partition_point(|e| order(e).is_lt());
        let end = self.entries.partition_point(|e| order(e).is_le());
        &self.entries[start..end]
    }

    /// The ports of a protocol that front doors have, or that they lead to.
    pub fn ports(&self, protocol: Protocol) -> BTreeSet<u16> {
        let of_services = self
            .entries
            .iter()
            .filter(|entry| entry.protocol == protocol)
            .flat_map(|entry| iter::once(entry.port).chain(entry.node_port));
        let of_endpoints = self
            .endpoints
            .keys()
            .filter(|(its_protocol, ..)| *its_protocol == protocol)
            .map(|&(_, _, port)| port);
        let of_hosts = self
            .host_ports
            .iter()
            .filter(|((its_protocol, _), _)| *its_protocol == protocol)
            .flat_map(|(&(_, port), asked)| {
                iter::once(port).chain(asked.iter().map(|asked| asked.container_port))
            });
        of_services.chain(of_endpoints).chain(of_hosts).collect()
    }

    /// Every Node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The Node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether a Node has this address.
    pub fn has_node_address(&self, ip: IpAddr) -> bool {
        self.node_addresses.contains_key(&ip)
    }

    /// Whether this address is inside a Node's pod CIDR.
    pub fn is_in_pod_cidr(&self, ip: IpAddr) -> bool {
        self.pod_cidrs.get(ip).is_some()
    }

    /// Which front door the original destination `ip`:`port` is; `None` if it is none.
    ///
    /// In this order, which is kube-proxy's where they overlap: load balancer, external and
    /// cluster addresses; node ports, at the addresses of any Node and at those in `local`; host
    /// ports; endpoints and addresses of Pods. Whether kube-proxy serves a node port at all of a
    /// node's addresses is a matter of its configuration (`nodePortAddresses`), not known here.
    pub fn front_door(
        &self,
        protocol: Protocol,
        ip: IpAddr,
        port: u16,
        local: &LocalAddresses,
    ) -> Option<FrontDoor<'_>> {
        if let Some(&(kind, claim)) = self.virtual_ips.get(&(protocol, ip, port)) {
            return Some(self.claimed(kind, claim));
        }
        if self.is_node_address(ip, local)
            && let Some(&claim) = self.node_ports.get(&(protocol, Family::of(ip), port))
        {
            return Some(self.claimed(FrontDoorKind::NodePort, claim));
        }
        let pod = self.host_port(protocol, ip, port, local);
        if pod != Agreed::Silent {
            let door = self.claimed(FrontDoorKind::HostPort, Claim::Nobody);
            return Some(FrontDoor {
                pod: pod.get(),
                ..door
            });
        }
        if let Some(EndpointFacts { claim, .. }) = self.endpoints.get(&(protocol, ip, port)) {
            return Some(self.claimed(FrontDoorKind::Pod, *claim));
        }
        let facts = self.addresses.get(&ip)?;
        let is_pod = facts.pod != Agreed::Silent || facts.pod_endpoint;
        // A Pod in its node's network has the node's address: what listens there is anyone's.
        (is_pod && !self.is_node_address(ip, local))
            .then(|| self.claimed(FrontDoorKind::Pod, Claim::Nobody))
    }

    /// The Service that has `ip` as a load balancer address of mode `Proxy`: one that ends
    /// connections itself, so that no packet to it reaches a node. `None` also if several do.
    pub fn load_balancer_proxy(&self, ip: IpAddr) -> Option<&Service> {
        self.service_of(*self.load_balancer_proxies.get(&ip)?)
    }

    /// Whether an endpoint of any Service has this socket.
    pub fn is_endpoint(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        self.endpoints.get(&(protocol, ip, port)).is_some()
    }

    /// Whether a Pod, or an endpoint that is one, has this address for its own. Not that it may have
    /// it: see [`Index::address_kind`].
    pub fn is_pod(&self, ip: IpAddr) -> bool {
        let facts = self.addresses.get(&ip);
        let is_pod = |facts: &AddressFacts| facts.pod != Agreed::Silent || facts.pod_endpoint;
        facts.is_some_and(is_pod) && !self.has_node_address(ip)
    }

    /// What takes connections over within a Pod, and gives its application another source.
    pub fn sidecar(&self, pod: &PodRef) -> Option<&Meshed> {
        self.sidecars.get(pod)
    }

    /// The endpoints of a Service port in one family, usable or not. The Service port is named by
    /// its own protocol and port, not the endpoints'. Empty when there is none.
    pub fn endpoints_of(
        &self,
        service: &ServiceRef,
        protocol: Protocol,
        port: u16,
        family: Family,
    ) -> &[Endpoint] {
        self.service(&service.namespace, &service.name)
            .iter()
            .find(|e| e.protocol == protocol && e.port == port)
            .map_or(&[], |e| e.endpoints(family))
    }

    /// The Pod and the node behind `ip`:`port`.
    ///
    /// Pod: the endpoint's `targetRef`; else the Pod that has this address; else the only Pod in
    /// its node's network that declares this port there. Node: the endpoint's `nodeName`; else
    /// that Pod's; else the Node that has this address; else the one whose pod CIDR holds it.
    /// A step at which objects contradict each other ends the search.
    pub fn backend(&self, protocol: Protocol, ip: IpAddr, port: u16) -> Backend<'_> {
        let socket = (protocol, ip, port);
        let of_endpoint = self.endpoints.get(&socket);
        let pod = self
            .addresses
            .get(&ip)
            .map_or(Agreed::Silent, |facts| facts.pod.as_ref())
            .or_else(|| {
                self.host_network
                    .get(&socket)
                    .map_or(Agreed::Silent, Agreed::as_ref)
            });
        let of_address = || {
            self.node_addresses
                .get(&ip)
                .map_or(Agreed::Silent, Agreed::as_ref)
        };
        let of_cidr = || {
            self.pod_cidrs
                .get(ip)
                .map_or(Agreed::Silent, |(_, node)| node.as_ref())
        };
        Backend {
            pod: of_endpoint
                .map_or(Agreed::Silent, |facts| facts.pod.as_ref())
                .or_else(|| pod.and_then(|facts| Some(&facts.reference)))
                .get(),
            node: of_endpoint
                .map_or(Agreed::Silent, |facts| facts.node.as_ref())
                .or_else(|| pod.and_then(|facts| facts.node.as_ref()))
                .or_else(of_address)
                .or_else(of_cidr)
                .get()
                .map(|name| &**name),
        }
    }

    /// Whose address `ip` is.
    ///
    /// - An address in `local`: the observing node's. An address of a Node: that Node's.
    /// - The address of a Pod, or of an endpoint that is a Pod: a Pod's.
    /// - Inside a Node's pod CIDR: a Pod's, or that of a tunnel or bridge, which are in no object.
    ///   So the network address (flannel's tunnel) is unknown; and, when that Node's Pods were
    ///   given, every address that neither a Pod nor an endpoint has.
    /// - Else outside the cluster, if it is far from every Pod: in none of the networks of 16 bits
    ///   (IPv4) or 48 bits (IPv6) in which a pod CIDR or a Pod lies. Those are the largest ranges
    ///   that the controller manager cuts into pod CIDRs of the usual size, so an address inside
    ///   may be a tunnel's or a new Pod's of a plugin that ignores pod CIDRs, as Calico does.
    ///   Taking one of those for a client would call a lost address preserved.
    /// - Without any Node, or without any Pod's whereabouts in this family, nothing is known to be
    ///   outside.
    pub fn address_kind<'a>(&'a self, ip: IpAddr, local: &'a LocalAddresses) -> AddressKind<'a> {
        if local.contains(ip) {
            return AddressKind::Node(local.node());
        }
        if let Some(node) = self.node_addresses.get(&ip) {
            return node
                .as_ref()
                .get()
                .map_or(AddressKind::Unknown, |name| AddressKind::Node(name));
        }
        let facts = self.addresses.get(&ip);
        if facts.is_some_and(|facts| facts.pod != Agreed::Silent || facts.pod_endpoint) {
            return AddressKind::Pod;
        }
        if let Some((network, node)) = self.pod_cidrs.get(ip) {
            let vouched = !self.knows_pods_of(node) || facts.is_some_and(|facts| facts.endpoint);
            let is_pod = vouched && ip != network.network();
            return if is_pod {
                AddressKind::Pod
            } else {
                AddressKind::Unknown
            };
        }
        let pods_are_known = self.pod_neighbourhoods.has_family(Family::of(ip));
        if self.nodes.is_empty() || !pods_are_known || self.pod_neighbourhoods.get(ip).is_some() {
            AddressKind::Unknown
        } else {
            AddressKind::External
        }
    }

    /// Whether the Pods of the node with a pod CIDR were given.
    fn knows_pods_of(&self, node: &Agreed<Arc<str>>) -> bool {
        self.counts.pods > 0
            && self
                .pods_of
                .as_ref()
                .is_none_or(|only| node.as_ref().get() == Some(only))
    }

    fn is_node_address(&self, ip: IpAddr, local: &LocalAddresses) -> bool {
        local.contains(ip) || self.has_node_address(ip)
    }

    /// Which Pod asked for this port of a node.
    fn host_port(
        &self,
        protocol: Protocol,
        ip: IpAddr,
        port: u16,
        local: &LocalAddresses,
    ) -> Agreed<&PodRef> {
        let mut pods = Agreed::Silent;
        for asked in self.host_ports.get(&(protocol, port)).into_iter().flatten() {
            let HostPort {
                at,
                container_port: _,
                pod,
                host_ips,
                families,
            } = asked;
            let here = pod.node.as_deref() == Some(local.node()) && local.contains(ip);
            let of_its_node = || {
                let owner = self
                    .node_addresses
                    .get(&ip)
                    .and_then(|node| node.as_ref().get());
                here || host_ips.contains(&ip) || (owner.is_some() && owner == pod.node.as_ref())
            };
            let leads_there = match *at {
                HostAddress::Any => of_its_node(),
                HostAddress::AnyOf(family) => family == Family::of(ip) && of_its_node(),
                // Every node has the loopback addresses; any other belongs to one.
                HostAddress::Only(address) => address == ip && (here || !ip.is_loopback()),
            };
            if leads_there && families.contains(&Family::of(ip)) {
                pods.add(&pod.reference);
            }
        }
        pods
    }

    fn claimed(&self, kind: FrontDoorKind, claim: Claim) -> FrontDoor<'_> {
        let entry = match claim {
            Claim::Entry(entry) => self.entries.get(entry),
            Claim::Nobody | Claim::Service(_) | Claim::Several => None,
        };
        FrontDoor {
            kind,
            service: self.service_of(claim),
            entry,
            pod: None,
        }
    }

    fn service_of(&self, claim: Claim) -> Option<&Service> {
        match claim {
            Claim::Entry(entry) | Claim::Service(entry) => Some(&self.entries.get(entry)?.service),
            Claim::Nobody | Claim::Several => None,
        }
    }
}

/// Takes the one of before if it is the same.
fn share<T: PartialEq + ?Sized>(now: &mut Arc<T>, before: &Arc<T>) {
    if *now == *before {
        *now = Arc::clone(before);
    }
}

impl Claim {
    /// Another Service port that claims it.
    pub(super) fn add(&mut self, entry: usize, entries: &[ServiceEntry]) {
        let same_service =
            |other: usize| entries[other].service.reference == entries[entry].service.reference;
        *self = match *self {
            Self::Nobody => Self::Entry(entry),
            Self::Entry(other) if other == entry => Self::Entry(entry),
            Self::Entry(other) | Self::Service(other) if same_service(other) => {
                Self::Service(other)
            }
            Self::Entry(_) | Self::Service(_) | Self::Several => Self::Several,
        };
    }
}
