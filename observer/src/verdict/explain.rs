//! What kube-proxy will do at every front door of a Service, from every node, to every kind of
//! client.

use std::net::{IpAddr, Ipv4Addr};

use super::predict::{Prediction, Question, Terms, predict};
use super::vocabulary::ClientKind;
use crate::cluster::{
    AddressKind, Family, FrontDoorKind, Index, KubeProxy, LocalAddresses, Node, ServiceEntry,
};

/// The clients that kube-proxy tells apart.
const CLIENTS: [ClientKind; 3] = [ClientKind::External, ClientKind::Pod, ClientKind::Node];

/// A front door, a node to enter by, a kind of client, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// The Service port.
    pub entry: &'a ServiceEntry,
    /// The kind of front door.
    pub door: FrontDoorKind,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node.
    pub node: &'a Node,
    /// Who comes.
    pub client: ClientKind,
    /// What becomes of it.
    pub prediction: Prediction,
}

/// What is known, and who is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Explainer<'a> {
    /// The cluster's objects.
    pub index: &'a Index,
    /// kube-proxy's configuration, if it is known.
    pub kube_proxy: Option<&'a KubeProxy>,
    /// The address of the only client; `None`: every kind of client.
    pub client: Option<IpAddr>,
}

impl<'a> Explainer<'a> {
    /// Explains the ports of Services: each front door by each node for each client, in this
    /// order.
    pub fn explain(
        self,
        entries: impl IntoIterator<Item = &'a ServiceEntry>,
    ) -> Vec<Explained<'a>> {
        let mut explained = Vec::new();
        for entry in entries {
            for node in self.index.nodes() {
                for (door, address, port) in self.doors(entry, node) {
                    let at = |client| {
                        let question = Question {
                            entry,
                            door,
                            at: Some(address),
                            family: Family::of(address),
                            client,
                            address: self.client,
                            endpoint: None,
                        };
                        let prediction = predict(&question, self.terms(node))?;
                        Some(Explained {
                            entry,
                            door,
                            address,
                            port,
                            node,
                            client,
                            prediction,
                        })
                    };
                    let clients = self.clients(node, address);
                    explained.extend(clients.into_iter().filter_map(at));
                }
            }
        }
        explained
    }

    const fn terms(self, node: &'a Node) -> Terms<'a> {
        Terms {
            node,
            kube_proxy: self.kube_proxy,
            index: Some(self.index),
        }
    }

    /// Who may come to an address by a node.
    fn clients(self, node: &Node, door: IpAddr) -> Vec<ClientKind> {
        if door.is_loopback() {
            let is_the_node = |client: &IpAddr| node.addresses.contains(client);
            let may = self.client.as_ref().is_none_or(is_the_node);
            return may.then_some(ClientKind::Node).into_iter().collect();
        }
        let Some(client) = self.client else {
            return CLIENTS.to_vec();
        };
        if client.is_ipv4() != door.is_ipv4() {
            return Vec::new();
        }
        let local = LocalAddresses::new(&*node.name, node.addresses.iter().copied());
        let kind = match self.index.address_kind(client, &local) {
            AddressKind::Pod => ClientKind::Pod,
            // kube-proxy knows a node's own traffic on that node alone.
            AddressKind::Node(name) if name == &*node.name => ClientKind::Node,
            AddressKind::Node(_) | AddressKind::External | AddressKind::Unknown => {
                ClientKind::External
            }
        };
        vec![kind]
    }

    /// The front doors of a Service port by one node.
    fn doors(self, entry: &ServiceEntry, node: &Node) -> Vec<(FrontDoorKind, IpAddr, u16)> {
        let service = &entry.service;
        let serves_localhost = self
            .kube_proxy
            .is_some_and(|config| config.serves_localhost);
        let localhost = serves_localhost.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let node_ports = entry.node_port.into_iter().flat_map(|port| {
            let addresses = node.addresses.iter().copied().chain(localhost);
            addresses
                .filter(|address| service.has_family(Family::of(*address)))
                .map(move |address| (FrontDoorKind::NodePort, address, port))
        });
        let virtual_ips = [
            (FrontDoorKind::LoadBalancer, &service.load_balancer_vips),
            (FrontDoorKind::ExternalIP, &service.external_ips),
            (FrontDoorKind::ClusterIP, &service.cluster_ips),
        ];
        let virtual_ips = virtual_ips.into_iter().flat_map(|(kind, addresses)| {
            addresses
                .iter()
                .map(move |address| (kind, *address, entry.port))
        });
        node_ports.chain(virtual_ips).collect()
    }
}
