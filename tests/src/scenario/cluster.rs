//! The cluster in which scenarios happen: one for all that share kube-proxy's settings and the
//! wiring. Pure: scenarios in, objects out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Change, Endpoint, IpFamily, NODES, Scenario, Service,
    setup::{ServiceType, TrafficPolicy},
};
use crate::{
    kubeproxy::Family,
    protocol::{Port, Protocol},
};

/// The namespace of the scenarios' Services.
const NAMESPACE: &str = "scenarios";
/// The port of each Service.
const PORT_NAME: &str = "main";
pub(super) const PORT: u16 = 80;
/// Node ports and target ports of the scenarios count from here.
const NODE_PORTS: u16 = 30_000;
pub(super) const TARGET_PORTS: u16 = 8_000;
const HEALTH_CHECK_NODE_PORTS: u16 = 31_000;
pub(super) const HOST_PORTS: u16 = 9_000;
/// The last bytes of addresses of pods: of those that serve, after their number; of the one that
/// only calls; of servicelb's, counted.
const SERVING: u8 = 10;
const CALLING: u8 = 20;
const RELAYING: u8 = 100;
/// So many end in a byte, beside the addresses that a network has for itself.
const ROOM: usize = 250;

/// The scenarios of one lab.
#[derive(Clone, Debug)]
pub struct Cast<'scenarios> {
    scenarios: Vec<&'scenarios Scenario>,
}

/// Ends of the addresses of one node.
struct Node {
    name: &'static str,
    number: u8,
}

fn nodes() -> impl Iterator<Item = Node> {
    NODES
        .into_iter()
        .zip(1..)
        .map(|(name, number)| Node { name, number })
}

impl Node {
    fn named(name: &str) -> Option<Self> {
        nodes().find(|node| node.name == name)
    }

    /// The addresses of the Node, the primary ones first.
    fn addresses(&self) -> [IpAddr; 4] {
        let Self { name: _, number } = self;
        [
            Ipv4Addr::new(172, 31, 0, 10 + number).into(),
            Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0x10 + u16::from(*number)).into(),
            Ipv4Addr::new(172, 31, 0, 110 + number).into(),
            Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0x110 + u16::from(*number)).into(),
        ]
    }

    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses()
            .into_iter()
            .find(|address| family.holds(*address))
    }

    /// The address of a pod of this node.
    fn pod(&self, host: u8, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 244, self.number, host).into(),
            Family::V6 => {
                let [net, host] = [self.number, host].map(u16::from);
                Ipv6Addr::new(0xfd00, 0x10, 0x244, net, 0, 0, 0, host).into()
            }
        }
    }

    /// A Pod of this node, of which one container tells.
    fn pod_object(&self, name: &str, host: u8, container: &Value) -> Value {
        let mut container = container.clone();
        container["name"] = json!("main");
        let ips = Family::ALL.map(|family| json!({"ip": self.pod(host, family)}));
        let [v4, v6, ..] = self.addresses();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {"nodeName": self.name, "containers": [container]},
            "status": {
                "phase": "Running", "podIP": self.pod(host, Family::V4), "podIPs": ips,
                "hostIP": v4, "hostIPs": [{"ip": v4}, {"ip": v6}],
            },
        })
    }

    fn object(&self) -> Value {
        let Self { name, number } = self;
        let addresses = self
            .addresses()
            .map(|address| json!({"type": "InternalIP", "address": address}));
        let pod_cidrs = [
            format!("10.244.{number}.0/24"),
            format!("fd00:10:244:{number}::/64"),
        ];
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": format!("zone-{number}")}},
            "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
            "status": {"addresses": addresses},
        })
    }
}

/// The name of servicelb's pod for a Service on a node.
pub(super) fn relaying_pod(service: &str, node: &str) -> String {
    format!("svclb-{service}-{node}")
}

/// The name of one of a node's pods that serve.
fn serving_pod(replica: u8, node: &str) -> String {
    format!("web-{replica}-{node}")
}

/// The name of the pod of a node that is no endpoint.
pub(super) fn client_pod(node: &str) -> String {
    format!("client-{node}")
}

impl Endpoint {
    /// The name of its pod.
    pub(super) fn pod(&self) -> String {
        let Self { node, replica, .. } = self;
        if self.host_network {
            format!("host-{node}")
        } else {
            serving_pod(*replica, node)
        }
    }

    pub(super) fn address(&self, family: Family) -> Option<IpAddr> {
        let node = Node::named(&self.node)?;
        if self.host_network {
            node.address(family)
        } else {
            Some(node.pod(SERVING + self.replica, family))
        }
    }

    /// Its part of an `EndpointSlice` of a family.
    fn object(&self, family: IpFamily) -> Option<Value> {
        if !self.families.contains(&family) {
            return None;
        }
        let names = |names: &[String]| -> Vec<Value> {
            names.iter().map(|name| json!({"name": name})).collect()
        };
        let mut object = json!({
            "addresses": [self.address(family.family())?],
            "nodeName": self.node,
            "zone": format!("zone-{}", Node::named(&self.node)?.number),
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": self.pod()},
            "conditions": {
                "ready": self.ready,
                "serving": self.serving.unwrap_or(self.ready),
                "terminating": self.terminating,
            },
        });
        if !self.for_zones.is_empty() || !self.for_nodes.is_empty() {
            object["hints"] = json!({
                "forZones": names(&self.for_zones), "forNodes": names(&self.for_nodes),
            });
        }
        Some(object)
    }
}

/// The addresses and ports of the Service of one scenario.
pub(super) struct Place {
    number: u8,
}

impl Place {
    /// An address of each family that ends in the number.
    fn pair(&self, v4: [u8; 3], v6: [u16; 3]) -> [IpAddr; 2] {
        let mut octets = [0; 4];
        octets[..3].copy_from_slice(&v4);
        octets[3] = self.number;
        let mut segments = [0; 8];
        segments[..3].copy_from_slice(&v6);
        segments[7] = self.number.into();
        [
            Ipv4Addr::from(octets).into(),
            Ipv6Addr::from(segments).into(),
        ]
    }

    fn cluster_ips(&self) -> [IpAddr; 2] {
        self.pair([10, 96, 1], [0xfd00, 0x10, 0x96])
    }

    pub(super) fn load_balancer(&self) -> [IpAddr; 2] {
        self.pair([198, 51, 100], [0x2001, 0xdb8, 0x51])
    }

    fn external_ips(&self) -> [IpAddr; 2] {
        self.pair([192, 0, 2], [0x2001, 0xdb8, 0x192])
    }

    pub(super) fn port(&self, from: u16) -> u16 {
        from + u16::from(self.number)
    }

    fn service(&self, name: &str, protocol: Protocol, service: &Service) -> Value {
        let Service {
            type_,
            external_traffic_policy,
            internal_traffic_policy,
            load_balancer_source_ranges,
            allocate_load_balancer_node_ports,
            session_affinity,
            external_ips,
            ip_mode,
            relayed: _,
        } = service;
        let [v4, v6] = self.cluster_ips();
        let mut port = json!({
            "name": PORT_NAME, "protocol": protocol.as_str(), "port": PORT, "targetPort": self.port(TARGET_PORTS),
        });
        if service.has_node_port() {
            port["nodePort"] = json!(self.port(NODE_PORTS));
        }
        let mut spec = json!({
            "type": format!("{type_:?}"),
            "clusterIP": v4, "clusterIPs": [v4, v6],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "ports": [port],
            "sessionAffinity": session_affinity.map_or(json!("None"), |affinity| json!(affinity)),
            "internalTrafficPolicy": internal_traffic_policy.unwrap_or(TrafficPolicy::Cluster),
        });
        let external = external_traffic_policy.unwrap_or(TrafficPolicy::Cluster);
        if service.is_external() {
            spec["externalTrafficPolicy"] = json!(external);
        }
        if *external_ips {
            spec["externalIPs"] = json!(self.external_ips());
        }
        let mut status = json!({"loadBalancer": {}});
        if *type_ == ServiceType::LoadBalancer {
            spec["allocateLoadBalancerNodePorts"] =
                json!(allocate_load_balancer_node_ports.unwrap_or(true));
            if !load_balancer_source_ranges.is_empty() {
                spec["loadBalancerSourceRanges"] = json!(load_balancer_source_ranges);
            }
            if external == TrafficPolicy::Local {
                spec["healthCheckNodePort"] = json!(self.port(HEALTH_CHECK_NODE_PORTS));
            }
            let ingress = self.load_balancer().map(|address| match ip_mode {
                None => json!({"ip": address}),
                Some(mode) => json!({"ip": address, "ipMode": mode}),
            });
            status["loadBalancer"]["ingress"] = json!(ingress);
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": name}, "spec": spec, "status": status,
        })
    }
}

fn slice(service: &str, family: IpFamily, endpoints: &[Value], port: Option<Port>) -> Value {
    let address_type = format!("{family:?}");
    let ports: Vec<Value> = port
        .into_iter()
        .map(|Port { protocol, number }| {
            json!({"name": PORT_NAME, "protocol": protocol.as_str(), "port": number})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("{service}-{}", address_type.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": address_type, "endpoints": endpoints, "ports": ports,
    })
}

impl<'scenarios> Cast<'scenarios> {
    /// Those of `scenarios` that are played, in one lab.
    pub fn new(scenarios: &[&'scenarios Scenario]) -> Result<Self> {
        ensure!(
            scenarios.len() <= ROOM,
            "{} scenarios in one lab, which has room for {ROOM}",
            scenarios.len()
        );
        Ok(Self {
            scenarios: scenarios.to_vec(),
        })
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (&'scenarios Scenario, Place)> {
        let numbers = (1..=u8::MAX).map(|number| Place { number });
        self.scenarios.iter().copied().zip(numbers)
    }

    /// The objects, as a List; after a change if there was one.
    pub fn objects(&self, change: Option<&Change>) -> Value {
        let mut items: Vec<Value> = nodes().map(|node| node.object()).collect();
        for (scenario, place) in self.places() {
            let mut service = scenario.service.clone();
            if let Some(change) = change {
                service.external_traffic_policy = Some(change.external_traffic_policy);
            }
            items.push(place.service(&scenario.name, scenario.protocol, &service));
            for family in IpFamily::both() {
                let endpoints = scenario.endpoints.iter();
                let endpoints: Vec<_> = endpoints
                    .filter_map(|endpoint| endpoint.object(family))
                    .collect();
                let port = Port {
                    protocol: scenario.protocol,
                    number: place.port(TARGET_PORTS),
                };
                items.push(slice(&scenario.name, family, &endpoints, Some(port)));
            }
        }
        // Pods of which no Service leads to a port: without a slice no lab would raise them.
        for family in IpFamily::both() {
            let clients: Vec<_> = nodes()
                .map(|node| {
                    json!({
                        "addresses": [node.pod(CALLING, family.family())], "nodeName": node.name,
                        "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": client_pod(node.name)},
                        "conditions": {"ready": true},
                    })
                })
                .collect();
            items.push(slice("clients", family, &clients, None));
        }
        items.extend(self.pods());
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// The Pods that have more to tell than their endpoints do: host ports, and what they relay.
    fn pods(&self) -> Vec<Value> {
        let mut serving: BTreeMap<(&str, u8), Vec<Value>> = BTreeMap::new();
        let mut relaying = Vec::new();
        let mut addresses = RELAYING..u8::MAX;
        for (scenario, place) in self.places() {
            let protocol = scenario.protocol.as_str();
            let with_host_port = |port: u16| {
                let host_port = place.port(HOST_PORTS);
                json!({"containerPort": port, "hostPort": host_port, "protocol": protocol})
            };
            for endpoint in scenario
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.host_port)
            {
                let ports = serving
                    .entry((&endpoint.node, endpoint.replica))
                    .or_default();
                ports.push(with_host_port(place.port(TARGET_PORTS)));
            }
            if scenario.service.relayed
                && let Some(address) = addresses.next()
            {
                let to = place.cluster_ips().map(|ip| ip.to_string()).join(",");
                // As k3s writes it (`pkg/cloudprovider/servicelb.go`).
                let environment = [
                    ("SRC_PORT", PORT.to_string()),
                    ("DEST_PROTO", protocol.to_owned()),
                    ("DEST_PORT", PORT.to_string()),
                    ("DEST_IPS", to),
                ]
                .map(|(name, value)| json!({"name": name, "value": value}));
                relaying.extend(nodes().map(|node| {
                    let container = json!({"env": environment, "ports": [with_host_port(PORT)]});
                    let name = relaying_pod(&scenario.name, node.name);
                    node.pod_object(&name, address, &container)
                }));
            }
        }
        let serving = serving.into_iter().filter_map(|((node, replica), ports)| {
            let name = serving_pod(replica, node);
            let container = json!({"ports": ports});
            Some(Node::named(node)?.pod_object(&name, SERVING + replica, &container))
        });
        serving.chain(relaying).collect()
    }
}
