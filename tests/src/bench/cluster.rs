//! The objects of the cluster that is measured: one node, whose pods stand behind node ports with
//! NAT, and as many more Services as wanted.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};

/// The node.
pub const NODE: &str = "node1";
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 11);
/// Pods behind a Service with several.
const BACKENDS: u8 = 4;

/// A Service of the cluster that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// Its name, and the first part of its pods' names.
    pub name: &'static str,
    /// The port of the node.
    pub node_port: u16,
    /// The port of the pods.
    pub port: u16,
    protocol: &'static str,
    /// The last byte of the address of the first pod.
    first: u8,
    pods: u8,
}

/// Where iperf3 listens.
pub const BULK: Door = Door {
    name: "bulk",
    node_port: 30_001,
    port: 5_201,
    protocol: "TCP",
    first: 10,
    pods: 1,
};
/// Where nginx does.
pub const WEB: Door = Door {
    name: "web",
    node_port: 30_002,
    port: 8_080,
    protocol: "TCP",
    first: 11,
    pods: 1,
};
/// Where connections are accepted and closed.
pub const GATE: Door = Door {
    name: "gate",
    node_port: 30_003,
    port: 7_001,
    protocol: "TCP",
    first: 20,
    pods: BACKENDS,
};
/// Where datagrams are sent back.
pub const ECHO: Door = Door {
    name: "echo",
    node_port: 30_004,
    port: 7_002,
    protocol: "UDP",
    first: 30,
    pods: BACKENDS,
};

/// What a flood is poured into, with a server as that of [`GATE`].
pub const FLOODED: Door = Door {
    name: "flooded",
    node_port: 30_005,
    port: 7_003,
    protocol: "TCP",
    first: 40,
    pods: 1,
};

/// All of them.
pub const DOORS: [Door; 5] = [BULK, WEB, GATE, ECHO, FLOODED];

impl Door {
    /// Where clients come in.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(NODE_ADDRESS, self.node_port)
    }

    /// The names of its pods.
    pub fn pods(&self) -> Vec<String> {
        (0..self.pods)
            .map(|number| format!("{}-{number}", self.name))
            .collect()
    }

    fn objects(&self, number: u8) -> [Value; 2] {
        let metadata = json!({"name": self.name, "namespace": "bench"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "type": "NodePort", "clusterIP": format!("10.96.0.{number}"),
                "clusterIPs": [format!("10.96.0.{number}")],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "None",
                "ports": [{"name": "main", "protocol": self.protocol, "port": 80,
                    "targetPort": self.port, "nodePort": self.node_port}],
            },
        });
        let endpoints: Vec<Value> = (self.first..)
            .zip(self.pods())
            .map(|(last, pod)| endpoint(&format!("10.244.1.{last}"), &pod))
            .collect();
        [
            service,
            slice(self.name, self.protocol, self.port, &endpoints),
        ]
    }
}

fn endpoint(address: &str, pod: &str) -> Value {
    json!({
        "addresses": [address], "nodeName": NODE,
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "bench"},
    })
}

fn slice(service: &str, protocol: &str, port: u16, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-v4"), "namespace": "bench",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "main", "protocol": protocol, "port": port}],
    })
}

/// A Service like any other of a large cluster: a cluster IP, and two endpoints.
fn bystander(number: u16) -> [Value; 2] {
    let [high, low] = number.to_be_bytes();
    let name = format!("bystander-{number}");
    let cluster_ip = format!("10.97.{high}.{low}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "main", "protocol": "TCP", "port": 80, "targetPort": 8_080}],
        },
    });
    let endpoints = ["10.245", "10.246"].map(|network| {
        let address = format!("{network}.{high}.{low}");
        endpoint(&address, &format!("{name}-{network}"))
    });
    [service, slice(&name, "TCP", 8_080, &endpoints)]
}

/// A List of the cluster with so many Services in all, at least [`DOORS`].
pub fn objects(services: u16) -> Value {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": NODE_ADDRESS.to_string()},
            {"type": "Hostname", "address": NODE}]},
    });
    let doors = (10..)
        .zip(DOORS)
        .flat_map(|(number, door)| door.objects(number));
    let own = u16::try_from(DOORS.len()).unwrap_or(u16::MAX);
    let bystanders = (0..services.saturating_sub(own)).flat_map(bystander);
    let items: Vec<Value> = [node].into_iter().chain(doors).chain(bystanders).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::Cluster, plan::Plan};

    #[test]
    fn there_are_as_many_services_as_asked_for_and_a_pod_for_each_endpoint() {
        let parsed = |services| Cluster::parse(&objects(services).to_string()).expect("a list");
        assert_eq!(parsed(0).services.len(), DOORS.len());
        assert_eq!(parsed(1_000).services.len(), 1_000);
        assert_eq!(parsed(1_000).slices.len(), 1_000);
        let plan = Plan::of(&parsed(0)).expect("a plan");
        let mut pods: Vec<String> = DOORS.iter().flat_map(Door::pods).collect();
        pods.sort();
        let planned: Vec<String> = plan.pods.into_iter().map(|pod| pod.name).collect();
        assert_eq!(planned, pods);
    }
}
