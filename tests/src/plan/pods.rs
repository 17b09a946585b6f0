//! What a Pod object tells beyond its endpoints: that there is such a pod, behind a Service or
//! not, which ports of its node lead to it, and what it only passes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, Pod};

use super::{NodePlan, PodPlan};
use crate::{
    cluster::name_of,
    protocol::{Port, Protocol},
};

/// A port of a node that the network plugin's `portmap` leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// At which of the node's addresses alone; at all of them if none.
    pub ip: Option<IpAddr>,
    /// The port of the node.
    pub port: Port,
    /// The pod's own, of the same protocol.
    pub to: u16,
}

/// A port of a pod behind which nobody listens: NAT in the pod's own namespace sends on what comes
/// there, as a pod of k3s' servicelb does (`entry` of klipper-lb). Told by the environment of its
/// containers, as k3s writes it: `SRC_PORT`, `DEST_PROTO`, `DEST_PORT` and `DEST_IPS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The pod's own port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// To where: one destination of each family.
    pub to: Vec<SocketAddr>,
}

impl PodPlan {
    /// The pod that an object tells of; none if it is not on a node of its own network, for a pod
    /// in the host's network is known by its endpoints alone.
    pub(super) fn of(pod: &Pod, nodes: &[NodePlan]) -> Result<Option<Self>> {
        let name = name_of(&pod.metadata).to_owned();
        let Some(spec) = &pod.spec else {
            return Ok(None);
        };
        let on = spec.node_name.as_ref();
        let on = on.and_then(|name| nodes.iter().find(|node| &node.name == name));
        let (Some(node), Some(false)) = (on, spec.host_network.or(Some(false))) else {
            return Ok(None);
        };
        let addresses = addresses(pod)?;
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut planned = Self {
            name,
            node: node.name.clone(),
            addresses,
            ports: BTreeSet::new(),
            host_network: false,
            host_ports: Vec::new(),
            relays: Vec::new(),
        };
        for container in &spec.containers {
            let relay = Relay::of(container, node)?;
            for port in container.ports.iter().flatten() {
                let number = number(port.container_port)?;
                if relay.is_none() {
                    let protocol = Protocol::parse(port.protocol.as_deref())?;
                    planned.ports.insert(Port { protocol, number });
                }
                planned.host_ports.extend(HostPort::of(port)?);
            }
            planned.relays.extend(relay);
        }
        Ok(Some(planned))
    }
}

fn addresses(pod: &Pod) -> Result<Vec<IpAddr>> {
    let Some(status) = &pod.status else {
        return Ok(Vec::new());
    };
    let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in listed.chain(&status.pod_ip) {
        let address = text
            .parse()
            .with_context(|| format!("it has the address {text:?}"))?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

impl HostPort {
    fn of(port: &ContainerPort) -> Result<Option<Self>> {
        let Some(host_port) = port.host_port else {
            return Ok(None);
        };
        let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let ip: Option<IpAddr> = ip
            .map(|ip| {
                ip.parse()
                    .with_context(|| format!("its host port has the address {ip:?}"))
            })
            .transpose()?;
        Ok(Some(Self {
            ip: ip.filter(|ip| !ip.is_unspecified()),
            port: Port {
                protocol: Protocol::parse(port.protocol.as_deref())?,
                number: number(host_port)?,
            },
            to: number(port.container_port)?,
        }))
    }
}

impl Relay {
    fn of(container: &Container, node: &NodePlan) -> Result<Option<Self>> {
        let environment: BTreeMap<&str, String> = container
            .env
            .iter()
            .flatten()
            .map(|variable| (&*variable.name, value(variable, node)))
            .collect();
        let get = |name: &str| {
            let value = environment.get(name);
            value.with_context(|| format!("a relay without {name}"))
        };
        let Ok(destinations) = get("DEST_IPS") else {
            return Ok(None);
        };
        let port: u16 = get("DEST_PORT")?.parse().context("DEST_PORT")?;
        let destinations = destinations.split(',').map(str::trim);
        let to = destinations
            .filter(|text| !text.is_empty())
            .map(|text| {
                let address: IpAddr = text
                    .parse()
                    .with_context(|| format!("DEST_IPS has {text:?}"))?;
                Ok(SocketAddr::new(address, port))
            })
            .collect::<Result<_>>()?;
        Ok(Some(Self {
            port: get("SRC_PORT")?.parse().context("SRC_PORT")?,
            protocol: get("DEST_PROTO")?.to_lowercase(),
            to,
        }))
    }
}

/// The value of a variable; of those that come from the pod's status, only the node's addresses.
fn value(variable: &EnvVar, node: &NodePlan) -> String {
    let from = variable.value_from.as_ref();
    let field = from.and_then(|from| from.field_ref.as_ref());
    match field.map(|field| &*field.field_path) {
        Some("status.hostIPs" | "status.hostIP") => {
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            addresses.join(",")
        }
        _ => variable.value.clone().unwrap_or_default(),
    }
}

fn number(port: i32) -> Result<u16> {
    u16::try_from(port).with_context(|| format!("it has the port {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// k3s gives the node's addresses where the policy is Local.
    #[test]
    fn a_relay_is_told_by_its_environment_and_listens_on_nothing() {
        let nodes = [NodePlan {
            name: "node1".to_owned(),
            addresses: vec!["172.31.0.11".parse().expect("an address")],
            pod_cidrs: Vec::new(),
        }];
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"svclb"},
                "spec":{"nodeName":"node1","containers":[{"name":"lb-tcp-80",
                  "env":[{"name":"SRC_PORT","value":"80"},{"name":"DEST_PROTO","value":"TCP"},
                         {"name":"DEST_PORT","value":"30080"},
                         {"name":"DEST_IPS","valueFrom":{"fieldRef":{"fieldPath":"status.hostIPs"}}}],
                  "ports":[{"containerPort":80,"hostPort":8088,"hostIP":"0.0.0.0"}]}]},
                "status":{"podIP":"10.244.1.10","podIPs":[{"ip":"10.244.1.10"}]}}"#,
        )
        .expect("a Pod");
        let planned = PodPlan::of(&pod, &nodes).expect("planned").expect("a pod");
        assert!(planned.ports.is_empty());
        assert_eq!(planned.addresses.len(), 1);
        let relay = Relay {
            port: 80,
            protocol: "tcp".to_owned(),
            to: vec!["172.31.0.11:30080".parse().expect("an address")],
        };
        assert_eq!(planned.relays, [relay]);
        let host_port = HostPort {
            ip: None,
            port: Port::tcp(8088),
            to: 80,
        };
        assert_eq!(planned.host_ports, [host_port]);
    }
}
