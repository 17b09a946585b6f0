//! What kube-proxy will do at every front door of a Service, from every node, to every kind of
//! client.

use std::net::IpAddr;

use super::predict::{Prediction, Question, Terms, predict};
use super::vocabulary::ClientKind;
use crate::cluster::{Family, FrontDoorKind, Index, KubeProxy, Node, ServiceEntry};

/// The clients that kube-proxy tells apart.
const CLIENTS: [ClientKind; 3] = [ClientKind::External, ClientKind::Pod, ClientKind::Node];

/// A front door, a node to enter by, a kind of client, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// The Service port.
    pub entry: &'a ServiceEntry,
    /// The kind of front door.
    pub door: FrontDoorKind,
    /// Its address; of a node port, the one that kube-proxy takes for the node's own.
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

/// Explains the ports of Services: each front door by each node for each kind of client, in this
/// order.
pub fn explain<'a>(
    entries: impl IntoIterator<Item = &'a ServiceEntry>,
    index: &'a Index,
    kube_proxy: Option<&'a KubeProxy>,
) -> Vec<Explained<'a>> {
    let mut explained = Vec::new();
    for entry in entries {
        for node in index.nodes() {
            let terms = Terms { node, kube_proxy };
            for (door, address, port) in doors(entry, node) {
                let at = |client| {
                    let question = Question {
                        entry,
                        door,
                        at: Some(address),
                        family: Family::of(address),
                        client,
                        address: None,
                        endpoint: None,
                    };
                    let prediction = predict(&question, terms)?;
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
                explained.extend(CLIENTS.into_iter().filter_map(at));
            }
        }
    }
    explained
}

/// The front doors of a Service port by one node.
fn doors(entry: &ServiceEntry, node: &Node) -> Vec<(FrontDoorKind, IpAddr, u16)> {
    let service = &entry.service;
    let node_ports = entry.node_port.into_iter().flat_map(|port| {
        [Family::V4, Family::V6]
            .into_iter()
            .filter(|family| service.has_family(*family))
            .filter_map(|family| node.primary_address(family))
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
