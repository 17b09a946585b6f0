//! A cluster of network namespaces.
//!
//! ```text
//!   client                switch                 node-node1                  pod-web-0
//!  ┌──────┐      ┌─────────────────────┐      ┌─────────────────┐         ┌───────────┐
//!  │ eth0 ├──────┤ client  br0  node1  ├──────┤ eth0    cali1f… ├─────────┤ eth0      │
//!  └──────┘      │              node2  ├──┐   │         cali07… ├──┐      └───────────┘
//!                └─────────────────────┘  │   └─────────────────┘  └─ … a veth per pod
//!                                         └── node-node2 …
//! ```
//!
//! By default ([`network`] has more) the pod network is routed, as Calico's without encapsulation
//! or a flannel host-gw is: the host's end of a pod's veth has no IPv4 address, each node has a
//! host route to each of its pods, and routes to the pod CIDRs of the other nodes through their
//! addresses. Every node believes the rest of the world to be on its link, so any client address
//! works. Endpoints that are on no node stand beside the client.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use crate::{
    backend::Backend,
    client::{self, Answer, ConnectError},
    cluster::Cluster,
    kubeproxy::{self, Settings},
    netns::Namespace,
    plan::{NodePlan, OutsiderPlan, Plan, PodPlan},
};

use self::{
    network::{Network, Pods},
    wiring::pods::Link,
};

mod cni;
pub mod network;
mod wiring;

/// What a lab is raised with, beside the objects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses of the external client, with the prefix of its own network.
    pub client: Vec<IpNet>,
    /// How nodes and pods are wired.
    pub network: Network,
    /// How the nodes are programmed.
    pub kube_proxy: Settings,
}

impl Default for Options {
    /// A client far from the nodes' network, in documentation ranges.
    fn default() -> Self {
        let client = ["203.0.113.50/24", "2001:db8:113::50/64"];
        Self {
            client: client
                .map(|address| address.parse().expect("a literal address"))
                .to_vec(),
            network: Network::default(),
            kube_proxy: Settings::default(),
        }
    }
}

/// A raised cluster. Dropping it ends everything it started.
///
/// The fields are in the order of the dismantling: those who run inside go before the
/// namespaces.
#[derive(Debug)]
pub struct Lab {
    backends: Vec<Backend>,
    pods: Vec<LabPod>,
    nodes: Vec<LabNode>,
    outsiders: Vec<Namespace>,
    client: Namespace,
    switch: Namespace,
    options: Options,
    cluster: Cluster,
    plan: Plan,
}

/// A node of a raised lab.
#[derive(Debug)]
pub struct LabNode {
    /// What it was made from.
    pub plan: NodePlan,
    /// Where it runs.
    pub namespace: Namespace,
}

/// A pod of a raised lab that has a namespace of its own.
#[derive(Debug)]
pub struct LabPod {
    /// What it was made from.
    pub plan: PodPlan,
    /// Where it runs.
    pub namespace: Namespace,
    link: Link,
}

impl LabPod {
    /// The name of the host's end of its link, on its node.
    pub fn interface(&self) -> &str {
        &self.link.interface
    }
}

impl Lab {
    /// Raises the lab of a cluster: namespaces, links and routes, the rules of every node, and a
    /// backend in every pod.
    pub fn raise(cluster: Cluster, options: Options) -> Result<Self> {
        let plan = Plan::of(&cluster)?;
        let switch = Namespace::create("switch")?;
        let client = Namespace::create("client")?;
        wiring::switch(&switch, &client, &options)?;
        let nodes = plan
            .nodes
            .iter()
            .map(|node| raise_node(node, &plan, &switch, options.network))
            .collect::<Result<Vec<_>>>()?;
        let pods = plan
            .pods
            .iter()
            .filter(|pod| !pod.host_network)
            .map(|pod| raise_pod(pod, &nodes, options.network))
            .collect::<Result<Vec<_>>>()?;
        let outsiders = plan
            .outsiders
            .iter()
            .map(|outsider| raise_outsider(outsider, &plan, &switch, options.network))
            .collect::<Result<Vec<_>>>()?;
        let mut lab = Self {
            backends: Vec::new(),
            pods,
            nodes,
            outsiders,
            client,
            switch,
            options,
            cluster,
            plan,
        };
        wiring::client_routes(&lab.client, &lab.plan.nodes, lab.options.network)?;
        lab.program(&lab.cluster)?;
        for node in &lab.nodes {
            cni::program(
                &node.namespace,
                &node.plan,
                &lab.plan,
                lab.options.network,
                lab.options.kube_proxy.mode,
            )
            .with_context(|| format!("failed to program the plugin of {}", node.plan.name))?;
        }
        for pod in &lab.pods {
            cni::relay(&pod.plan, &pod.namespace, lab.options.kube_proxy.mode)
                .with_context(|| format!("failed to program the pod {}", pod.plan.name))?;
        }
        lab.start_backends()?;
        Ok(lab)
    }

    /// Makes every node's kube-proxy rules those of a cluster, which may be the lab's own after a
    /// change. Not in mode IPVS, once there are some.
    pub fn program(&self, cluster: &Cluster) -> Result<()> {
        for node in &self.nodes {
            let settings = &self.options.kube_proxy;
            kubeproxy::program(&node.namespace, cluster, &node.plan.name, settings)
                .with_context(|| format!("failed to program {}", node.plan.name))?;
        }
        Ok(())
    }

    /// The namespace of the external client.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The addresses of the external client.
    pub fn client_addresses(&self) -> Vec<IpAddr> {
        self.options.client.iter().map(IpNet::addr).collect()
    }

    /// The nodes, in the order of the objects.
    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&LabNode> {
        let node = self.nodes.iter().find(|node| node.plan.name == name);
        node.with_context(|| format!("the lab has no node {name}"))
    }

    /// The pod of this name on a node, if it has a namespace of its own.
    pub fn pod(&self, name: &str, node: &str) -> Option<&LabPod> {
        self.pods
            .iter()
            .find(|pod| pod.plan.name == name && pod.plan.node == node)
    }

    /// The pods with a namespace of their own.
    pub fn pods(&self) -> &[LabPod] {
        &self.pods
    }

    /// How its nodes are programmed.
    pub fn kube_proxy(&self) -> &Settings {
        &self.options.kube_proxy
    }

    /// What the lab was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The objects the lab was raised from.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Makes the client send what is for `address` (a load balancer's or an external IP) to
    /// `node`, as the router in front of a cluster would.
    pub fn route_vip(&self, address: IpAddr, node: &str) -> Result<()> {
        let node = &self.node(node)?.plan;
        wiring::route_vip(&self.client, address, node, self.options.network)
    }

    /// Puts somebody beside the client and the nodes, who knows the way to the pods: a load
    /// balancer. It must go before the lab does.
    pub fn beside(&self, role: &str, addresses: &[IpAddr]) -> Result<Namespace> {
        let namespace = Namespace::create(role)?;
        let (nodes, network) = (&self.plan.nodes, self.options.network);
        wiring::outsider(&namespace, addresses, nodes, &self.switch, network)?;
        Ok(namespace)
    }

    /// The same, whom the client reaches at these addresses.
    pub fn in_front(&self, addresses: &[IpAddr]) -> Result<Namespace> {
        let front = self.beside("front", addresses)?;
        for address in addresses {
            self.client
                .ip(&format!("route replace {address} dev eth0\n"))?;
        }
        Ok(front)
    }

    /// Takes a pod off its node and joins it again, by an interface of the same name and another
    /// number: as when a pod is replaced.
    pub fn rejoin(&mut self, pod: &str) -> Result<()> {
        let pod = self.pods.iter_mut().find(|raised| raised.plan.name == pod);
        let pod = pod.context("the lab has no such pod")?;
        let node = self
            .nodes
            .iter()
            .find(|node| node.plan.name == pod.plan.node);
        let node = node.context("its node is missing")?;
        node.namespace
            .ip(&format!("link delete {}\n", pod.interface()))?;
        let on_node = (&node.namespace, &node.plan);
        pod.link = wiring::pods::join(&pod.namespace, &pod.plan, on_node, self.options.network)?;
        Ok(())
    }

    /// Ends the backend of a pod, so that nothing listens there.
    pub fn silence(&mut self, pod: &str) {
        self.backends.retain(|backend| backend.pod() != pod);
    }

    /// Opens a connection from the client.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<Answer, ConnectError> {
        client::connect(&self.client, to, timeout)
    }

    /// The first observed interface by which the world's packets come to a node.
    pub fn wire(&self) -> &'static str {
        self.options.network.wire()
    }

    /// The interface by which a node gets what another node sends to its endpoint `address`: the
    /// tunnel, if there is one and the address is a pod's.
    pub fn interface_between_nodes(&self, address: IpAddr) -> &'static str {
        if self.plan.is_of_host(address) {
            self.wire()
        } else {
            self.options.network.towards_other_nodes()
        }
    }

    /// Whether the pods of a node are ports of one bridge, on which netfilter sees what passes.
    pub fn bridges_pods_by_netfilter(&self) -> bool {
        let Network {
            pods,
            bridge_netfilter,
            ..
        } = self.options.network;
        pods == Pods::Bridge && bridge_netfilter
    }

    /// The last interface by which `node` sends to the endpoint `address`: a pod's veth for its
    /// own, the wire or the tunnel for the others, none for the host's own network.
    pub fn interface_towards(&self, node: &str, address: IpAddr) -> Option<&str> {
        match self.plan.node_of(address) {
            None => Some(self.wire()),
            Some(other) if other != node => Some(self.interface_between_nodes(address)),
            Some(_) => {
                let mut pods = self.pods.iter();
                let pod = pods.find(|pod| pod.plan.addresses.contains(&address));
                pod.map(LabPod::interface)
            }
        }
    }

    fn start_backends(&mut self) -> Result<()> {
        for pod in &self.plan.pods {
            let namespace = match self.pod(&pod.name, &pod.node) {
                Some(own) => &own.namespace,
                None => &self.node(&pod.node)?.namespace,
            };
            let backend = Backend::start(namespace, &pod.name, &pod.ports)
                .with_context(|| format!("failed to start the backend of {}", pod.name))?;
            self.backends.push(backend);
        }
        for (outsider, namespace) in self.plan.outsiders.iter().zip(&self.outsiders) {
            let name = outsider.address.to_string();
            let backend = Backend::start(namespace, &name, &outsider.ports)
                .with_context(|| format!("failed to start the backend at {name}"))?;
            self.backends.push(backend);
        }
        Ok(())
    }
}

fn raise_node(
    node: &NodePlan,
    plan: &Plan,
    switch: &Namespace,
    network: Network,
) -> Result<LabNode> {
    let raise = || -> Result<LabNode> {
        let namespace = Namespace::create(&format!("node-{}", node.name))?;
        wiring::node(&namespace, node, &plan.nodes, switch, network)?;
        Ok(LabNode {
            plan: node.clone(),
            namespace,
        })
    };
    raise().with_context(|| format!("failed to raise the node {}", node.name))
}

fn raise_outsider(
    outsider: &OutsiderPlan,
    plan: &Plan,
    switch: &Namespace,
    network: Network,
) -> Result<Namespace> {
    let raise = || -> Result<Namespace> {
        let namespace = Namespace::create("outsider")?;
        let addresses = [outsider.address];
        wiring::outsider(&namespace, &addresses, &plan.nodes, switch, network)?;
        Ok(namespace)
    };
    raise().with_context(|| format!("failed to raise the endpoint {}", outsider.address))
}

fn raise_pod(pod: &PodPlan, nodes: &[LabNode], network: Network) -> Result<LabPod> {
    let raise = || -> Result<LabPod> {
        let node = nodes
            .iter()
            .find(|node| node.plan.name == pod.node)
            .context("its node is missing")?;
        let namespace = Namespace::create(&format!("pod-{}", pod.name))?;
        let on_node = (&node.namespace, &node.plan);
        let link = wiring::pods::join(&namespace, pod, on_node, network)?;
        Ok(LabPod {
            plan: pod.clone(),
            namespace,
            link,
        })
    };
    raise().with_context(|| format!("failed to raise the pod {}", pod.name))
}
