//! The front doors of a cluster: every address and port by which one may enter a Service, and
//! the node that it enters by.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    Family, Served, Settings,
    services::ProxiedPort,
    site::{Site, SitePort},
};
use crate::{
    cluster::Cluster,
    plan::Plan,
    protocol::{Port, Protocol},
};

/// A way into a Service, by one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDoor {
    /// What kind of address it is.
    pub kind: Kind,
    /// For which protocol it is a door.
    pub protocol: Protocol,
    /// Where the client connects to.
    pub to: SocketAddr,
    /// The node whose door it is, or that the address is routed to.
    pub entry: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The name of its port; empty if it has none.
    pub port_name: String,
    /// The policy for what enters here.
    pub policy: Policy,
    /// The endpoints that the policy finds.
    pub endpoints: Found,
    /// Whom alone it admits; everyone if empty.
    pub admits: Vec<IpNet>,
    /// Whether kube-proxy serves it at all: a `NodePort` may be on an address it leaves out.
    pub served: bool,
}

/// The kinds of front doors, in the words of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node's own address and a port of `nodePort`.
    NodePort,
    /// A load balancer's address that the node itself serves.
    LoadBalancer,
    /// An address of `externalIPs`.
    ExternalIp,
    /// An address that is only a cluster's own.
    ClusterIp,
    /// A node's own address and a port of `hostPort`: no Service's, the network plugin's.
    HostPort,
    /// A pod's own address: a load balancer that knows the endpoints.
    Pod,
}

/// `externalTrafficPolicy`, of a cluster IP `internalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Endpoints of every node.
    Cluster,
    /// Endpoints of the node that a connection enters by.
    Local,
}

/// What a policy finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An endpoint that may be used.
    Some,
    /// None on this node, and some on others.
    NoneHere,
    /// None anywhere.
    Nothing,
}

impl Kind {
    /// The word of the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
            Self::ClusterIp => "ClusterIP",
            Self::HostPort => "HostPort",
            Self::Pod => "Pod",
        }
    }

    /// Whether an external client needs a route to the entry node for it.
    pub fn is_routed(self) -> bool {
        !matches!(self, Self::NodePort | Self::HostPort)
    }

    /// Whether it leads into a Service, by kube-proxy.
    pub fn is_of_service(self) -> bool {
        !matches!(self, Self::HostPort | Self::Pod)
    }
}

impl fmt::Display for FrontDoor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.to)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            other => write!(formatter, "/{}", other.as_str()),
        }
    }
}

impl FrontDoor {
    /// `namespace/name:port`.
    pub fn service_port(&self) -> String {
        if self.port_name.is_empty() {
            format!("{}/{}", self.namespace, self.service)
        } else {
            format!("{}/{}:{}", self.namespace, self.service, self.port_name)
        }
    }

    /// Whether only a process on the node can come here.
    pub fn is_loopback(&self) -> bool {
        self.to.ip().is_loopback()
    }

    /// Whether it is meant for clients outside the cluster.
    pub fn is_external(&self) -> bool {
        self.kind != Kind::ClusterIp
    }
}

/// Every front door of a cluster, by every node, for the protocols that this kernel has sockets
/// for.
pub fn front_doors(cluster: &Cluster, settings: &Settings) -> Result<Vec<FrontDoor>> {
    let mut doors = Vec::new();
    for node in Plan::of(cluster)?.nodes {
        for family in Family::ALL {
            let site = Site::of(cluster, &node.name, family, settings)?;
            // A node without an address of the family cannot be the way to anything.
            if site.node_addresses.is_empty() {
                continue;
            }
            let usable = |port: &&SitePort| port.port.protocol.has_sockets();
            for port in site.ports.iter().filter(usable) {
                doors.extend(of_port(&site, port, &node.name));
            }
        }
    }
    Ok(doors)
}

/// The ways to pods past every Service: their host ports, and their own addresses by every node.
pub fn doors_of_pods(cluster: &Cluster) -> Result<Vec<FrontDoor>> {
    let Plan { nodes, pods, .. } = Plan::of(cluster)?;
    let door = |kind, at, Port { protocol, number }, entry: &str| FrontDoor {
        kind,
        protocol,
        to: (at, number).into(),
        entry: entry.to_owned(),
        namespace: String::new(),
        service: String::new(),
        port_name: String::new(),
        policy: Policy::Cluster,
        endpoints: Found::Some,
        admits: Vec::new(),
        served: true,
    };
    let mut doors = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.host_network) {
        for host_port in &pod.host_ports {
            let of_its_node = nodes.iter().filter(|node| node.name == pod.node);
            let at = of_its_node.flat_map(|node| &node.addresses).filter(|at| {
                let has_family = |own: &IpAddr| own.is_ipv4() == at.is_ipv4();
                host_port.ip.is_none_or(|only| only == **at) && pod.addresses.iter().any(has_family)
            });
            doors.extend(at.map(|at| door(Kind::HostPort, *at, host_port.port, &pod.node)));
        }
        for (address, node) in pod.addresses.iter().flat_map(|address| {
            let by = nodes.iter().map(|node| &node.name);
            by.map(move |node| (*address, node))
        }) {
            let ports = pod.ports.iter();
            doors.extend(ports.map(|port| door(Kind::Pod, address, *port, node)));
        }
    }
    Ok(doors)
}

fn of_port(site: &Site, site_port: &SitePort, node: &str) -> Vec<FrontDoor> {
    let SitePort { port, endpoints } = site_port;
    let ProxiedPort {
        name: _,
        namespace,
        service,
        port_name,
        protocol,
        cluster_ip,
        port: number,
        node_port,
        external_ips,
        load_balancer_vips,
        source_ranges,
        health_check_node_port: _,
        external_policy_local,
        internal_policy_local,
        affinity: _,
    } = port;
    let door = |kind: Kind, address: IpAddr, number: u16| {
        let (local, found) = if kind == Kind::ClusterIp {
            (*internal_policy_local, site_port.has_internal())
        } else {
            (*external_policy_local, site_port.has_external())
        };
        FrontDoor {
            kind,
            protocol: *protocol,
            to: (address, number).into(),
            entry: node.to_owned(),
            namespace: namespace.clone(),
            service: service.clone(),
            port_name: port_name.clone(),
            policy: if local {
                Policy::Local
            } else {
                Policy::Cluster
            },
            endpoints: match (found, endpoints.any) {
                (true, _) => Found::Some,
                (false, true) => Found::NoneHere,
                (false, false) => Found::Nothing,
            },
            admits: if kind == Kind::LoadBalancer && !source_ranges.is_empty() {
                site.admitted(port)
            } else {
                Vec::new()
            },
            served: kind != Kind::NodePort || serves(site, address),
        }
    };
    let mut doors = Vec::new();
    if let Some(node_port) = *node_port {
        let at_node = site.node_addresses.iter().copied();
        let localhost = site.serves_localhost.then_some(Ipv4Addr::LOCALHOST.into());
        doors.extend(
            at_node
                .chain(localhost)
                .map(|address| door(Kind::NodePort, address, node_port)),
        );
    }
    for (kind, addresses) in [
        (Kind::LoadBalancer, &**load_balancer_vips),
        (Kind::ExternalIp, external_ips),
        (Kind::ClusterIp, &[*cluster_ip]),
    ] {
        doors.extend(
            addresses
                .iter()
                .map(|address| door(kind, *address, *number)),
        );
    }
    doors
}

fn serves(site: &Site, address: IpAddr) -> bool {
    match &site.node_ports {
        Served::Everywhere => true,
        Served::On(addresses) => addresses.contains(&address),
    }
}
