//! A small cluster: two nodes, and pods with a Service each. Pure: what there is in, objects out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::kubeproxy::Family;

/// The nodes, by number.
pub const NODES: [&str; 2] = ["node1", "node2"];
/// At which port of a Service clients come.
const PORT: u16 = 80;

/// A pod, and the Service of its name, by a node port of policy Local.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The namespace of both.
    pub namespace: &'static str,
    /// The name of both.
    pub name: &'static str,
    /// The number of its node: one or two.
    pub node: u8,
    /// The last byte of its addresses, and of its Service's.
    pub number: u8,
    /// Where it listens.
    pub port: u16,
    /// Its node port.
    pub node_port: u16,
    /// Its annotations.
    pub annotations: Value,
    /// Its containers.
    pub containers: Value,
    /// The address of the load balancer in its Service's status, which is in front of the nodes.
    pub load_balancer: Option<IpAddr>,
}

/// All objects of a cluster with these pods, as a List.
pub fn list(pods: &[Pod], more: Vec<Value>) -> Value {
    let mut items: Vec<Value> = [1, 2].map(node).to_vec();
    for pod in pods {
        items.extend([pod.object(), pod.service()]);
        items.extend(Family::ALL.map(|family| pod.slice(family)));
    }
    items.extend(more);
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// The address of a node.
pub fn node_address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 31, 0, 10 + number).into(),
        Family::V6 => {
            let host = 0x10 + u16::from(number);
            Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, host).into()
        }
    }
}

fn name_of(node: u8) -> &'static str {
    NODES[usize::from(node) - 1]
}

fn node(number: u8) -> Value {
    let cidrs = [
        format!("10.244.{number}.0/24"),
        format!("fd00:10:244:{number}::/64"),
    ];
    let addresses = Family::ALL
        .map(|family| json!({"type": "InternalIP", "address": node_address(number, family)}));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name_of(number)},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {"addresses": addresses},
    })
}

impl Pod {
    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        let Self { node, number, .. } = *self;
        match family {
            Family::V4 => Ipv4Addr::new(10, 244, node, number).into(),
            Family::V6 => {
                Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, number.into()).into()
            }
        }
    }

    /// The name of its node.
    pub fn node_name(&self) -> &'static str {
        name_of(self.node)
    }

    fn cluster_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 96, 2, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 2, self.number.into()).into(),
        }
    }

    fn object(&self) -> Value {
        let Self {
            namespace, name, ..
        } = self;
        let ips = Family::ALL.map(|family| json!({"ip": self.address(family)}));
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": namespace, "name": name, "labels": {"app": name},
                "annotations": self.annotations,
            },
            "spec": {"nodeName": self.node_name(), "containers": self.containers},
            "status": {
                "phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips,
                "hostIP": node_address(self.node, Family::V4),
            },
        })
    }

    fn slice(&self, family: Family) -> Value {
        let Self {
            namespace, name, ..
        } = self;
        let word = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace, "name": format!("{name}-{}", word.to_lowercase()),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": word,
            "endpoints": [{
                "addresses": [self.address(family)], "nodeName": self.node_name(),
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": name},
                "conditions": {"ready": true, "serving": true, "terminating": false},
            }],
            "ports": [{"name": "http", "protocol": "TCP", "port": self.port}],
        })
    }

    fn service(&self) -> Value {
        let Self {
            namespace, name, ..
        } = self;
        let ips = Family::ALL.map(|family| self.cluster_ip(family));
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "NodePort", "clusterIP": ips[0], "clusterIPs": ips,
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                "selector": {"app": name}, "sessionAffinity": "None",
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
                "ports": [{
                    "name": "http", "protocol": "TCP", "port": PORT, "targetPort": self.port,
                    "nodePort": self.node_port,
                }],
            },
            "status": {"loadBalancer": {}},
        });
        if let Some(address) = self.load_balancer {
            object["spec"]["type"] = json!("LoadBalancer");
            // Not the nodes' own (KEP-1860): what is for it goes there.
            object["status"]["loadBalancer"]["ingress"] =
                json!([{"ip": address, "ipMode": "Proxy"}]);
        }
        object
    }
}
