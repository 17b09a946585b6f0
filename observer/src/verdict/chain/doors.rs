//! Which front doors a Service port has, by which nodes, and which of those are alike.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::cluster::{
    AddressKind, Family, FrontDoorKind, Index, KubeProxy, LocalAddresses, Node, ServiceEntry,
};
use crate::verdict::predict::{Prediction, Question, Terms, predict};
use crate::verdict::vocabulary::ClientKind;

/// The clients that kube-proxy tells apart.
pub(super) const CLIENTS: [ClientKind; 3] =
    [ClientKind::External, ClientKind::Pod, ClientKind::Node];

/// What is known of the nodes, for any Service.
pub(super) struct Doors<'a> {
    index: &'a Index,
    kube_proxy: Option<&'a KubeProxy>,
    client: Option<IpAddr>,
    nodes: Vec<Known<'a>>,
    /// Their places in `nodes`.
    by_name: HashMap<&'a str, usize>,
    serves_localhost: bool,
}

struct Known<'a> {
    node: &'a Node,
    /// Whether kube-proxy takes the node's own address for one outside the cluster, by family.
    is_outside: [Option<bool>; 2],
}

/// An address of a node or of a Service that leads to a Service port by a node.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) kind: FrontDoorKind,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// Nodes by which the same becomes of a connection.
pub(super) struct Alike {
    pub(super) prediction: Prediction,
    pub(super) addresses: Arc<[IpAddr]>,
    pub(super) port: u16,
    pub(super) nodes: Arc<[Arc<str>]>,
}

/// What tells two nodes apart, to a Service port.
#[derive(PartialEq, Eq)]
struct Class<'a> {
    family: Family,
    is_served: bool,
    is_outside: Option<bool>,
    /// The node itself, if it has endpoints, or is the client's.
    node: Option<usize>,
    /// Its zone, if endpoints are for zones.
    zone: Option<&'a str>,
}

/// Collected, before it is shared.
struct Group {
    prediction: Prediction,
    addresses: Vec<IpAddr>,
    port: u16,
    nodes: Vec<Arc<str>>,
}

impl<'a> Doors<'a> {
    pub(super) fn new(
        index: &'a Index,
        kube_proxy: Option<&'a KubeProxy>,
        client: Option<IpAddr>,
    ) -> Self {
        let nodes = index.nodes().map(|node| Known {
            node,
            is_outside: [Family::V4, Family::V6].map(|family| {
                let own = node.primary_address(family)?;
                kube_proxy?.is_outside(own, Some(node))
            }),
        });
        let nodes: Vec<_> = nodes.collect();
        let places = nodes.iter().enumerate();
        let by_name = places.map(|(place, known)| (&*known.node.name, place));
        Self {
            index,
            kube_proxy,
            client,
            by_name: by_name.collect(),
            nodes,
            serves_localhost: kube_proxy.is_some_and(|config| config.serves_localhost),
        }
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it is asked about clients outside.
    pub(super) fn may_be_outside(&self) -> bool {
        let nobody = LocalAddresses::default();
        self.client.is_none_or(|client| {
            !matches!(
                self.index.address_kind(client, &nobody),
                AddressKind::Pod | AddressKind::Node(_)
            )
        })
    }

    /// Node ports and virtual addresses of one kind, by each node: for a kind of client, with
    /// nodes that are alike in one.
    pub(super) fn alike(
        &self,
        entry: &'a ServiceEntry,
        kind: FrontDoorKind,
        client: ClientKind,
    ) -> Vec<Alike> {
        let apart = self.apart(entry);
        let mut groups: Vec<Group> = Vec::new();
        // There are a few classes, and many nodes.
        let mut known: Vec<(Class<'_>, Option<usize>)> = Vec::new();
        self.each(entry, kind, |place, at| {
            let node = self.nodes[place].node;
            if !self.may_come(node, at.address, client) {
                return;
            }
            let class = self.class(&apart, place, at);
            let of_class = known.iter().find(|(other, _)| *other == class);
            let group = if let Some((_, group)) = of_class {
                *group
            } else {
                let prediction = self.predict(entry, node, at, client);
                let group = prediction.map(|prediction| Group::of(&mut groups, prediction, at));
                known.push((class, group));
                group
            };
            let Some(group) = group.map(|group| &mut groups[group]) else {
                return;
            };
            // A node port's address is of one node, any other's the same by all.
            if kind == FrontDoorKind::NodePort || !group.addresses.contains(&at.address) {
                group.addresses.push(at.address);
            }
            if group.nodes.last() != Some(&node.name) {
                group.nodes.push(Arc::clone(&node.name));
            }
        });
        groups.into_iter().map(Alike::from).collect()
    }

    fn predict(
        &self,
        entry: &ServiceEntry,
        node: &Node,
        at: At,
        client: ClientKind,
    ) -> Option<Prediction> {
        let question = Question {
            entry,
            door: at.kind,
            at: Some(at.address),
            family: Family::of(at.address),
            client,
            address: self.client,
            endpoint: None,
        };
        let terms = Terms {
            node,
            kube_proxy: self.kube_proxy,
            index: Some(self.index),
        };
        predict(&question, terms)
    }

    fn class(&self, apart: &Apart, place: usize, at: At) -> Class<'a> {
        let Known { node, is_outside } = &self.nodes[place];
        let family = Family::of(at.address);
        Class {
            family,
            is_served: at.kind != FrontDoorKind::NodePort
                || self
                    .kube_proxy
                    .is_none_or(|config| config.serves_node_ports_at(at.address, node)),
            is_outside: is_outside[usize::from(family == Family::V6)],
            node: (self.client.is_some() || apart.all || apart.nodes.contains(&place))
                .then_some(place),
            zone: node.zone.as_deref().filter(|_| apart.by_zone),
        }
    }

    /// Which nodes are unlike others to a Service port.
    fn apart(&self, entry: &ServiceEntry) -> Apart {
        let mut apart = Apart::default();
        let place = |name: &str| self.by_name.get(name).copied();
        let families = [Family::V4, Family::V6];
        for endpoint in families.iter().flat_map(|it| entry.endpoints(*it)) {
            apart.nodes.extend(endpoint.node.as_deref().and_then(place));
            apart.all |= endpoint.node.is_none() && self.index.has_node_address(endpoint.address);
            if let Some(hints) = &endpoint.hints {
                apart.by_zone |= !hints.zones.is_empty();
                apart
                    .nodes
                    .extend(hints.nodes.iter().filter_map(|name| place(name)));
            }
        }
        apart
    }

    /// Whether such a client may come to an address by a node.
    fn may_come(&self, node: &Node, door: IpAddr, kind: ClientKind) -> bool {
        if door.is_loopback() {
            let is_the_node = |client: &IpAddr| node.addresses.contains(client);
            return kind == ClientKind::Node && self.client.as_ref().is_none_or(is_the_node);
        }
        let Some(client) = self.client else {
            return true;
        };
        if client.is_ipv4() != door.is_ipv4() {
            return false;
        }
        let local = LocalAddresses::new(&*node.name, node.addresses.iter().copied());
        let its_kind = match self.index.address_kind(client, &local) {
            AddressKind::Pod => ClientKind::Pod,
            // kube-proxy knows a node's own traffic on that node alone.
            AddressKind::Node(name) if name == &*node.name => ClientKind::Node,
            AddressKind::Node(_) | AddressKind::External | AddressKind::Unknown => {
                ClientKind::External
            }
        };
        its_kind == kind
    }

    /// The addresses of a kind, by each node's place.
    fn each(&self, entry: &ServiceEntry, kind: FrontDoorKind, mut visit: impl FnMut(usize, At)) {
        let service = &entry.service;
        let (port, addresses) = match kind {
            FrontDoorKind::NodePort => {
                let Some(port) = entry.node_port else {
                    return;
                };
                let localhost = self
                    .serves_localhost
                    .then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
                for (place, known) in self.nodes.iter().enumerate() {
                    let addresses = known.node.addresses.iter().copied().chain(localhost);
                    for address in addresses.filter(|it| service.has_family(Family::of(*it))) {
                        visit(
                            place,
                            At {
                                kind,
                                address,
                                port,
                            },
                        );
                    }
                }
                return;
            }
            FrontDoorKind::LoadBalancer => (entry.port, &service.load_balancer_vips),
            FrontDoorKind::ExternalIP => (entry.port, &service.external_ips),
            FrontDoorKind::ClusterIP => (entry.port, &service.cluster_ips),
            FrontDoorKind::HostPort | FrontDoorKind::Pod => return,
        };
        for place in 0..self.nodes.len() {
            for &address in &**addresses {
                visit(
                    place,
                    At {
                        kind,
                        address,
                        port,
                    },
                );
            }
        }
    }
}

/// Which nodes are unlike others to a Service port.
#[derive(Default)]
struct Apart {
    /// The places of those that endpoints live on, or are for.
    nodes: Vec<usize>,
    /// All: an endpoint of no node has a node's address.
    all: bool,
    by_zone: bool,
}

impl Group {
    /// The place of the group with this prediction.
    fn of(groups: &mut Vec<Self>, prediction: Prediction, at: At) -> usize {
        let same = |group: &Self| group.prediction == prediction && group.port == at.port;
        groups.iter().position(same).unwrap_or_else(|| {
            groups.push(Self {
                prediction,
                addresses: Vec::new(),
                port: at.port,
                nodes: Vec::new(),
            });
            groups.len() - 1
        })
    }
}

impl Alike {
    /// What becomes of a connection by any of some nodes.
    pub(super) fn together(all: Vec<Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let first = all.next()?;
        Some(all.fold(first, |one, other| Self {
            prediction: one.prediction.or(&other.prediction),
            nodes: [&*one.nodes, &*other.nodes].concat().into(),
            ..one
        }))
    }

    /// Those among some nodes; `None` if there are none.
    pub(super) fn within(self, only: Option<&[String]>) -> Option<Self> {
        let Some(only) = only else {
            return Some(self);
        };
        let is_among = |name: &&Arc<str>| only.iter().any(|only| **only == ***name);
        let nodes: Arc<[_]> = self.nodes.iter().filter(is_among).cloned().collect();
        (!nodes.is_empty()).then_some(Self { nodes, ..self })
    }
}

impl From<Group> for Alike {
    fn from(group: Group) -> Self {
        let Group {
            prediction,
            addresses,
            port,
            nodes,
        } = group;
        Self {
            prediction,
            addresses: addresses.into(),
            port,
            nodes: nodes.into(),
        }
    }
}
