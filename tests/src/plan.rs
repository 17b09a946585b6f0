//! What to raise for a cluster's objects: the nodes, and the pods that must stand behind their
//! endpoints. Pure: objects in, plan out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::Node,
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{
    cluster::{Cluster, internal_addresses, name_of, namespace_of},
    protocol::{Port, Protocol},
};

mod pods;

pub use pods::{HostPort, Relay};

/// The nodes and pods of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the objects.
    pub nodes: Vec<NodePlan>,
    /// Sorted by node and name.
    pub pods: Vec<PodPlan>,
    /// Sorted by address.
    pub outsiders: Vec<OutsiderPlan>,
}

/// A node of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The name of the Node.
    pub name: String,
    /// Its `InternalIP` addresses; the first of a family is the primary one.
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods live in; the other nodes route them here.
    pub pod_cidrs: Vec<IpNet>,
}

/// A pod of the lab: the addresses of one pod, one or two families, and what it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// The name in the endpoints' targetRef, else the address.
    pub name: String,
    /// The node it lives on.
    pub node: String,
    /// Its addresses. Those of the node for a pod in the host's own network.
    pub addresses: Vec<IpAddr>,
    /// The target ports of the Services that lead here.
    pub ports: BTreeSet<Port>,
    /// Whether it lives in the host's own network (hostNetwork: true).
    pub host_network: bool,
    /// The ports of its node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// What it only passes on.
    pub relays: Vec<Relay>,
}

/// An endpoint that is on no node of the cluster: the API server, an external database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsiderPlan {
    /// Its address.
    pub address: IpAddr,
    /// The target ports of the Services that lead there.
    pub ports: BTreeSet<Port>,
}

/// What one endpoint of a slice tells of.
enum Part {
    Pod(PodPlan),
    Outsider(OutsiderPlan),
}

impl Plan {
    /// Plans the lab for a cluster.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let nodes = cluster
            .nodes
            .iter()
            .map(NodePlan::of)
            .collect::<Result<Vec<_>>>()?;
        ensure!(!nodes.is_empty(), "the objects hold no Node");
        let mut pods: Vec<PodPlan> = Vec::new();
        let mut outsiders: BTreeMap<IpAddr, BTreeSet<Port>> = BTreeMap::new();
        for slice in &cluster.slices {
            for endpoint in slice.endpoints.iter().flatten() {
                match Part::of(slice, endpoint, &nodes)? {
                    Some(Part::Pod(pod)) => merge(&mut pods, pod),
                    Some(Part::Outsider(OutsiderPlan { address, ports })) => {
                        outsiders.entry(address).or_default().extend(ports);
                    }
                    None => {}
                }
            }
        }
        for pod in &cluster.pods {
            let planned = PodPlan::of(pod, &nodes)
                .with_context(|| format!("the Pod {}", name_of(&pod.metadata)))?;
            if let Some(planned) = planned {
                merge(&mut pods, planned);
            }
        }
        pods.sort_by(|one, other| (&one.node, &one.name).cmp(&(&other.node, &other.name)));
        let outsiders = outsiders
            .into_iter()
            .map(|(address, ports)| OutsiderPlan { address, ports })
            .collect();
        Ok(Self {
            nodes,
            pods,
            outsiders,
        })
    }

    /// The node that an address belongs to: its own, or that of a pod on it.
    pub fn node_of(&self, address: IpAddr) -> Option<&str> {
        let pod = self
            .pods
            .iter()
            .find(|pod| pod.addresses.contains(&address));
        let node = self
            .nodes
            .iter()
            .find(|node| node.addresses.contains(&address));
        pod.map(|pod| pod.node.as_str())
            .or(node.map(|node| node.name.as_str()))
    }

    /// Whether an address is a pod's own.
    pub fn is_of_pod(&self, address: IpAddr) -> bool {
        let own = |pod: &PodPlan| !pod.host_network && pod.addresses.contains(&address);
        self.pods.iter().any(own)
    }

    /// Whether an address is a node's own: of what lives in its network.
    pub fn is_of_host(&self, address: IpAddr) -> bool {
        self.nodes
            .iter()
            .any(|node| node.addresses.contains(&address))
    }
}

impl NodePlan {
    fn of(node: &Node) -> Result<Self> {
        let name = name_of(&node.metadata).to_owned();
        let addresses = internal_addresses(node);
        ensure!(
            !addresses.is_empty(),
            "the Node {name} has no InternalIP address"
        );
        let spec = node.spec.as_ref();
        let both_families = spec
            .and_then(|spec| spec.pod_cidrs.clone())
            .unwrap_or_default();
        let pod_cidrs = if both_families.is_empty() {
            spec.and_then(|spec| spec.pod_cidr.clone())
                .into_iter()
                .collect()
        } else {
            both_families
        };
        let pod_cidrs = pod_cidrs
            .iter()
            .map(|cidr| {
                cidr.parse()
                    .with_context(|| format!("the Node {name} has the pod CIDR {cidr:?}"))
            })
            .collect::<Result<Vec<IpNet>>>()?;
        Ok(Self {
            name,
            addresses,
            pod_cidrs,
        })
    }

    /// The primary address of the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

impl Part {
    /// The part of a pod, or the outsider, that one endpoint of a slice tells of.
    fn of(slice: &EndpointSlice, endpoint: &Endpoint, nodes: &[NodePlan]) -> Result<Option<Self>> {
        let of_slice = || {
            format!(
                "{}/{}",
                namespace_of(&slice.metadata),
                name_of(&slice.metadata)
            )
        };
        if slice.address_type == "FQDN" {
            return Ok(None);
        }
        // By contract only the first address counts; the API allows more for historic reasons.
        let Some(address) = endpoint.addresses.first() else {
            return Ok(None);
        };
        let address: IpAddr = address.parse().with_context(|| {
            format!(
                "the EndpointSlice {} has the address {address:?}",
                of_slice()
            )
        })?;
        let named = |name: &String| nodes.iter().find(|node| &node.name == name);
        let holding = || {
            nodes
                .iter()
                .find(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(&address)))
        };
        let ports = slice.ports.iter().flatten();
        let ports = ports
            .filter_map(|port| Some((port.port?, port.protocol.as_deref())))
            .map(|(number, protocol)| {
                let in_slice = || format!("the EndpointSlice {} has the port {number}", of_slice());
                Ok(Port {
                    protocol: Protocol::parse(protocol).with_context(in_slice)?,
                    number: u16::try_from(number).with_context(in_slice)?,
                })
            })
            .collect::<Result<_>>()?;
        let Some(node) = endpoint.node_name.as_ref().and_then(named).or_else(holding) else {
            return Ok(Some(Self::Outsider(OutsiderPlan { address, ports })));
        };
        let reference = endpoint
            .target_ref
            .as_ref()
            .and_then(|reference| reference.name.clone());
        Ok(Some(Self::Pod(PodPlan {
            name: reference.unwrap_or_else(|| address.to_string()),
            node: node.name.clone(),
            addresses: vec![address],
            ports,
            host_network: node.addresses.contains(&address),
            host_ports: Vec::new(),
            relays: Vec::new(),
        })))
    }
}

/// Adds what one endpoint tells to the pod it belongs to: the one of the same name, which joins
/// the two families, or of the same address, when several names claim one address. Pods in the
/// host's own network share its addresses and stay apart.
fn merge(pods: &mut Vec<PodPlan>, part: PodPlan) {
    let shares_an_address = |pod: &PodPlan| {
        !part.host_network
            && pod
                .addresses
                .iter()
                .any(|address| part.addresses.contains(address))
    };
    let same = |pod: &&mut PodPlan| {
        pod.node == part.node && (pod.name == part.name || shares_an_address(pod))
    };
    let Some(pod) = pods.iter_mut().find(same) else {
        pods.push(part);
        return;
    };
    for address in part.addresses {
        if !pod.addresses.contains(&address) {
            pod.addresses.push(address);
        }
    }
    pod.ports.extend(part.ports);
    pod.host_ports.extend(part.host_ports);
    pod.relays.extend(part.relays);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = r#"{"kind":"List","items":[
        {"kind":"Node","apiVersion":"v1","metadata":{"name":"node1"},
         "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]},
         "status":{"addresses":[{"type":"InternalIP","address":"172.31.0.11"}]}},
        {"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-4"},"addressType":"IPv4",
         "endpoints":[{"addresses":["10.244.1.5"],"nodeName":"node1","targetRef":{"kind":"Pod","name":"web-0"}},
                      {"addresses":["10.244.1.6"]},
                      {"addresses":["172.31.0.11"],"nodeName":"node1","targetRef":{"kind":"Pod","name":"agent"}},
                      {"addresses":["192.0.2.1"]}],
         "ports":[{"name":"http","port":8080}]},
        {"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-6"},"addressType":"IPv6",
         "endpoints":[{"addresses":["fd00:10:244:1::5"],"nodeName":"node1","targetRef":{"kind":"Pod","name":"web-0"}}],
         "ports":[{"name":"metrics","port":9090}]}]}"#;

    fn plan() -> Plan {
        Plan::of(&Cluster::parse(CLUSTER).expect("a list")).expect("a plan")
    }

    #[test]
    fn the_two_families_of_a_pod_are_one_pod() {
        let plan = plan();
        let web = plan
            .pods
            .iter()
            .find(|pod| pod.name == "web-0")
            .expect("planned");
        let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.1.5", "fd00:10:244:1::5"]);
        assert_eq!(
            web.ports,
            BTreeSet::from([Port::tcp(8080), Port::tcp(9090)])
        );
        assert!(!web.host_network);
    }

    #[test]
    fn an_endpoint_without_a_node_is_found_by_the_pod_cidr_and_outsiders_get_no_pod() {
        let Plan {
            nodes: _,
            pods,
            outsiders,
        } = plan();
        let names: Vec<String> = pods.into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["10.244.1.6", "agent", "web-0"]);
        let [outsider] = &outsiders[..] else {
            panic!("one is on no node: {outsiders:?}")
        };
        assert_eq!(outsider.address.to_string(), "192.0.2.1");
        assert_eq!(outsider.ports, BTreeSet::from([Port::tcp(8080)]));
    }

    #[test]
    fn an_endpoint_with_the_nodes_own_address_is_in_the_host_network() {
        assert!(
            plan()
                .pods
                .iter()
                .any(|pod| pod.name == "agent" && pod.host_network)
        );
    }

    #[test]
    fn an_address_leads_to_its_node() {
        let plan = plan();
        for (address, node) in [
            ("172.31.0.11", Some("node1")),
            ("10.244.1.6", Some("node1")),
            ("192.0.2.1", None),
        ] {
            assert_eq!(
                plan.node_of(address.parse().expect("an address")),
                node,
                "{address}"
            );
        }
    }
}
