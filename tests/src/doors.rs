//! The front doors of a cluster: every address and port by which an external client may enter a
//! Service, and the node that it enters by.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::{
    cluster::{Cluster, name_of, namespace_of},
    plan::{NodePlan, Plan},
};

/// A way from outside into a Service, by one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDoor {
    /// What kind of address it is.
    pub kind: Kind,
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
    /// Whether `externalTrafficPolicy` is Cluster, which masquerades what enters here.
    pub masquerades: bool,
}

/// The kinds of front doors for external clients, in the words of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node's own address and a port of `nodePort`.
    NodePort,
    /// A load balancer's address that the node itself serves.
    LoadBalancer,
    /// An address of `externalIPs`.
    ExternalIp,
}

impl Kind {
    /// The word of the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
        }
    }

    /// Whether the client needs a route to the entry node for it.
    pub fn is_routed(self) -> bool {
        self != Self::NodePort
    }
}

impl fmt::Display for FrontDoor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.to)
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
}

/// All TCP front doors of a cluster, by every node.
pub fn front_doors(cluster: &Cluster) -> Result<Vec<FrontDoor>> {
    let plan = Plan::of(cluster)?;
    let mut doors = Vec::new();
    for service in &cluster.services {
        let ports = service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten());
        for port in ports.filter(|port| {
            port.protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
        }) {
            for node in &plan.nodes {
                doors.extend(by_node(service, port, node).with_context(|| {
                    format!(
                        "the Service {}/{}",
                        namespace_of(&service.metadata),
                        name_of(&service.metadata)
                    )
                })?);
            }
        }
    }
    Ok(doors)
}

fn by_node(service: &Service, port: &ServicePort, node: &NodePlan) -> Result<Vec<FrontDoor>> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.clone())
        .unwrap_or_default();
    let serves = |address: &IpAddr| {
        families
            .iter()
            .any(|family| family == if address.is_ipv4() { "IPv4" } else { "IPv6" })
    };
    let door = |kind, address: IpAddr, number: i32| -> Result<FrontDoor> {
        let number = u16::try_from(number).with_context(|| format!("it has the port {number}"))?;
        Ok(FrontDoor {
            kind,
            to: (address, number).into(),
            entry: node.name.clone(),
            namespace: namespace_of(&service.metadata).to_owned(),
            service: name_of(&service.metadata).to_owned(),
            port_name: port.name.clone().unwrap_or_default(),
            masquerades: spec.and_then(|spec| spec.external_traffic_policy.as_deref())
                != Some("Local"),
        })
    };
    let node_port = port.node_port.filter(|number| *number != 0);
    let at_node = node.addresses.iter().copied().filter(serves);
    let node_ports = node_port.into_iter().flat_map(|number| {
        at_node
            .clone()
            .map(move |address| (Kind::NodePort, address, number))
    });
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    let vips = ingress
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
        .filter_map(|ingress| ingress.ip.clone())
        .map(|ip| (Kind::LoadBalancer, ip));
    let external = spec
        .into_iter()
        .flat_map(|spec| spec.external_ips.iter().flatten());
    let external = external.map(|ip| (Kind::ExternalIp, ip.clone()));
    let routed = vips
        .chain(external)
        .map(|(kind, ip)| {
            Ok((
                kind,
                ip.parse()
                    .with_context(|| format!("it has the address {ip:?}"))?,
            ))
        })
        .collect::<Result<Vec<(Kind, IpAddr)>>>()?;
    // A node without an address of the family cannot be the way to one.
    let routed = routed
        .into_iter()
        .filter(|(_, address)| serves(address) && node.address_like(*address).is_some())
        .map(|(kind, address)| (kind, address, port.port));
    node_ports
        .chain(routed)
        .map(|(kind, address, number)| door(kind, address, number))
        .collect()
}
