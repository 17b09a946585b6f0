//! A cluster of two nodes and as many Services as are asked for.

use std::net::Ipv4Addr;
use std::sync::Arc;

use observer::cluster::{Index, Objects, Snapshot};
use serde_json::{Value, json};

/// The node that observes.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 11);
/// Of every pod.
pub(crate) const POD_PORT: u16 = 8_080;

const NODE_PORTS: u16 = 20_000;
/// Of the pods on node1; those on node2 follow.
const PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);
const PODS_OF_A_NODE: u32 = 1 << 15;

/// The node port of a Service.
pub(crate) fn node_port(service: usize) -> u16 {
    NODE_PORTS + u16::try_from(service).expect("fewer Services than ports")
}

/// A Service's pod on node1 (0) or node2 (1).
pub(crate) fn pod(service: usize, node: usize) -> Ipv4Addr {
    let number = u32::try_from(service).expect("few") + 2;
    let node = u32::try_from(node).expect("one of two");
    Ipv4Addr::from_bits(PODS.to_bits() + node * PODS_OF_A_NODE + number)
}

/// Its objects.
pub(crate) fn list(services: usize) -> Value {
    let mut items: Vec<Value> = vec![
        node("node1", "172.31.0.11", "10.244.0.0/17"),
        node("node2", "172.31.0.12", "10.244.128.0/17"),
    ];
    items.extend((0..services).flat_map(|number| [service(number), slice(number)]));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// What a node of it knows.
pub(crate) fn snapshot(services: usize) -> Arc<Snapshot> {
    let list = list(services);
    let objects = Objects::from_list(list.to_string().as_bytes()).expect("objects");
    Arc::new(Snapshot::new(Index::build(&objects), None))
}

fn node(name: &str, address: &str, pods: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn service(number: usize) -> Value {
    let cluster_ip = Ipv4Addr::from_bits(
        Ipv4Addr::new(10, 96, 0, 1).to_bits() + u32::try_from(number).expect("few"),
    );
    let policy = if number.is_multiple_of(2) {
        "Cluster"
    } else {
        "Local"
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": format!("service-{number}")},
        "spec": {
            "type": "NodePort", "clusterIP": cluster_ip, "externalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": node_port(number)}],
        },
    })
}

fn slice(number: usize) -> Value {
    let name = format!("service-{number}");
    let endpoint = |node: usize| {
        json!({
            "addresses": [pod(number, node)],
            "nodeName": format!("node{}", node + 1),
            "targetRef": {
                "kind": "Pod", "namespace": "shop", "name": format!("{name}-7c9d8b6f5-{node}"),
            },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": "http", "port": POD_PORT}],
        "endpoints": [endpoint(0), endpoint(1)],
    })
}
