//! The objects of the rows, as a cluster on AWS has them. Pure: rows in, objects out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::rows::{Backend, Front, Node, Policy, Row, Target};
use crate::kubeproxy::Family;

/// Their namespace.
pub(super) const NAMESPACE: &str = "shop";
const PORT: u16 = 80;
/// Ports count from here: of the nodes, of the pods, of health checks.
const NODE_PORTS: u16 = 30_100;
const TARGET_PORTS: u16 = 8_100;
const HEALTH_CHECKS: u16 = 31_100;

/// A row, and its place among the others.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The row.
    pub(super) row: Row,
    pub(super) number: u16,
    pub(super) family: Family,
}

impl Node {
    pub(super) fn address(self, family: Family) -> IpAddr {
        let number = self.number();
        match family {
            Family::V4 => Ipv4Addr::new(172, 31, 0, 10 + number).into(),
            Family::V6 => {
                let host = 0x10 + u16::from(number);
                Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, host).into()
            }
        }
    }

    fn pod(self, family: Family) -> IpAddr {
        let number = self.number();
        match family {
            Family::V4 => Ipv4Addr::new(10, 244, number, 5).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 5).into(),
        }
    }

    fn object(self) -> Value {
        let (name, number) = (self.name(), self.number());
        let cidrs = [
            format!("10.244.{number}.0/24"),
            format!("fd00:10:244:{number}::/64"),
        ];
        let addresses = Family::ALL
            .map(|family| json!({"type": "InternalIP", "address": self.address(family)}));
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {
                "podCIDR": cidrs[0], "podCIDRs": cidrs,
                "providerID": format!("aws:///eu-central-1a/i-0a1b2c3d4e5f6000{number}"),
            },
            "status": {"addresses": addresses},
        })
    }
}

/// The name of a node's pod.
pub(super) fn pod_name(backend: Backend, node: Node) -> String {
    format!("{backend:?}-{}", node.name()).to_lowercase()
}

/// All objects, as a List.
pub(super) fn list(rows: &[Placed]) -> Value {
    let nodes = [Node::Node1, Node::Node2];
    let mut items: Vec<Value> = nodes.map(Node::object).to_vec();
    for node in nodes {
        for backend in [Backend::Pod, Backend::Host] {
            items.push(pod(backend, node));
        }
    }
    items.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "alb"}, "spec": {"controller": "ingress.k8s.aws/alb"},
    }));
    for placed in rows {
        items.extend([placed.service(), placed.slice()]);
        items.extend(placed.ingress());
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn pod(backend: Backend, node: Node) -> Value {
    let ips = Family::ALL.map(|family| {
        let ip = match backend {
            Backend::Pod => node.pod(family),
            Backend::Host => node.address(family),
        };
        json!({"ip": ip})
    });
    let [host_ip, _] = Family::ALL.map(|family| node.address(family));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE, "name": pod_name(backend, node),
            "labels": {"app": format!("{backend:?}").to_lowercase()},
        },
        "spec": {
            "nodeName": node.name(), "hostNetwork": backend == Backend::Host,
            "containers": [{"name": "web", "image": "registry.example/web:1"}],
        },
        "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips, "hostIP": host_ip},
    })
}

impl Placed {
    /// The node port.
    pub(super) fn node_port(&self) -> u16 {
        NODE_PORTS + self.number
    }

    /// Where the pod listens.
    pub(super) fn endpoint(&self) -> (IpAddr, u16) {
        let Row {
            backend, endpoint, ..
        } = &self.row;
        let address = match backend {
            Backend::Pod => endpoint.pod(self.family),
            Backend::Host => endpoint.address(self.family),
        };
        (address, TARGET_PORTS + self.number)
    }

    fn family_word(&self) -> &'static str {
        match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn slice(&self) -> Value {
        let Row {
            backend, endpoint, ..
        } = &self.row;
        let (address, port) = self.endpoint();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE, "name": format!("{}-1", self.row.name()),
                "labels": {"kubernetes.io/service-name": self.row.name()},
            },
            "addressType": self.family_word(),
            "endpoints": [{
                "addresses": [address], "nodeName": endpoint.name(),
                "targetRef": {
                    "kind": "Pod", "namespace": NAMESPACE, "name": pod_name(*backend, *endpoint),
                },
                "conditions": {"ready": true, "serving": true, "terminating": false},
            }],
            "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        })
    }

    fn service(&self) -> Value {
        let Row {
            front,
            backend,
            policy,
            ..
        } = &self.row;
        let number = u8::try_from(self.number).unwrap_or(u8::MAX);
        let cluster_ip: IpAddr = match self.family {
            Family::V4 => Ipv4Addr::new(10, 96, 1, number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number.into()).into(),
        };
        let (_, target) = self.endpoint();
        let mut spec = json!({
            "type": if front.is_alb() { "NodePort" } else { "LoadBalancer" },
            "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": [self.family_word()], "ipFamilyPolicy": "SingleStack",
            "selector": {"app": format!("{backend:?}").to_lowercase()},
            "externalTrafficPolicy": format!("{policy:?}"), "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{
                "name": "http", "protocol": "TCP", "port": PORT, "targetPort": target,
                "nodePort": self.node_port(),
            }],
        });
        let mut status = json!({"loadBalancer": {}});
        if !front.is_alb() {
            spec["allocateLoadBalancerNodePorts"] = json!(true);
            if *policy == Policy::Local {
                spec["healthCheckNodePort"] = json!(HEALTH_CHECKS + self.number);
            }
            // AWS tells a name, and no address.
            let hostname = format!("{}.elb.example", self.row.name());
            status["loadBalancer"]["ingress"] = json!([{"hostname": hostname}]);
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": NAMESPACE, "name": self.row.name(),
                "annotations": self.annotations(),
            },
            "spec": spec, "status": status,
        })
    }

    /// What the AWS load balancer controller reads of a Service.
    fn annotations(&self) -> Value {
        let Row { front, target, .. } = &self.row;
        if front.is_alb() {
            return json!({});
        }
        // Version 1 is the Classic Load Balancer's, of which the controller in Kubernetes' tree
        // reads one annotation.
        if *front == Front::NlbProxyV1 {
            return json!({"service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": "*"});
        }
        let attributes = match front {
            Front::Nlb => "preserve_client_ip.enabled=true",
            Front::NlbProxyV2 | Front::NlbProxyV2Tls => {
                "preserve_client_ip.enabled=false,proxy_protocol_v2.enabled=true"
            }
            _ => "preserve_client_ip.enabled=false",
        };
        let prefix = "service.beta.kubernetes.io/aws-load-balancer";
        let mut annotations = json!({
            (format!("{prefix}-type")): "external",
            (format!("{prefix}-nlb-target-type")): target.word(),
            (format!("{prefix}-scheme")): "internet-facing",
            (format!("{prefix}-target-group-attributes")): attributes,
        });
        if self.family == Family::V6 {
            annotations[format!("{prefix}-ip-address-type")] = json!("dualstack");
        }
        annotations
    }

    fn ingress(&self) -> Option<Value> {
        let Row { front, target, .. } = &self.row;
        let prefix = "alb.ingress.kubernetes.io";
        let mut annotations = json!({
            (format!("{prefix}/scheme")): "internet-facing",
            (format!("{prefix}/target-type")): target.word(),
        });
        if self.family == Family::V6 {
            annotations[format!("{prefix}/ip-address-type")] = json!("dualstack");
        }
        match front {
            Front::Alb => {}
            Front::AlbTls => annotations[format!("{prefix}/backend-protocol")] = json!("HTTPS"),
            Front::AlbHttp2 => {
                annotations[format!("{prefix}/backend-protocol-version")] = json!("HTTP2");
            }
            _ => return None,
        }
        let name = self.row.name();
        Some(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"namespace": NAMESPACE, "name": name, "annotations": annotations},
            "spec": {
                "ingressClassName": "alb",
                "rules": [{"host": format!("{name}.example"), "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": name, "port": {"name": "http"}}},
                }]}}],
            },
        }))
    }
}

impl Target {
    fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Ip => "ip",
        }
    }
}
