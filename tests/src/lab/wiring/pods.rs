//! A pod and its node, joined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::{line, pump::Pump, set_ipv6_parameters};
use crate::{
    lab::network::{Network, POD_BRIDGE, Pods, WIRE},
    netns::Namespace,
    plan::{NodePlan, PodPlan},
};

/// The next hop of every pod: Calico's, too, where nobody has this address.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The link-layer address of the host's end of every pod's veth, as Calico sets it, and the
/// link-local address that the kernel makes of it.
const POD_GATEWAY_LINK: &str = "ee:ee:ee:ee:ee:ee";
const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// A pod's link to its node.
#[derive(Debug)]
pub(in crate::lab) struct Link {
    /// The name of the host's end.
    pub(in crate::lab) interface: String,
    /// What carries packets between the ends, where the kernel does not.
    _pump: Option<Pump>,
}

/// Joins a pod to its node.
pub(in crate::lab) fn join(
    namespace: &Namespace,
    pod: &PodPlan,
    node: (&Namespace, &NodePlan),
    network: Network,
) -> Result<Link> {
    // An IPv4 and an IPv6 listener share each port, each seeing peers of its own family only.
    namespace.set_parameters(&[("ipv6/bindv6only", "1")])?;
    set_ipv6_parameters(namespace)?;
    let (on_node, plan) = node;
    let interface = interface(&pod.name);
    let mut pump = None;
    match network.pods {
        Pods::Veths => by_veth(namespace, pod, on_node, &interface)?,
        Pods::AddressedVeths => {
            by_veth(namespace, pod, on_node, &interface)?;
            on_node.ip(&format!("address add {POD_GATEWAY}/32 dev {interface}\n"))?;
        }
        Pods::Bridge => by_port(namespace, pod, (on_node, plan), &interface)?,
        Pods::Tuns => pump = Some(by_tuns(namespace, pod, on_node, &interface)?),
    }
    Ok(Link {
        interface,
        _pump: pump,
    })
}

/// By two tun devices and a pump between them.
fn by_tuns(
    namespace: &Namespace,
    pod: &PodPlan,
    node: &Namespace,
    interface: &str,
) -> Result<Pump> {
    let pump = Pump::start((node, interface), (namespace, WIRE))?;
    let mut on_node = format!("link set {interface} up\n");
    let mut in_pod = format!("link set {WIRE} up\n");
    for address in &pod.addresses {
        let only = IpNet::from(*address);
        line(
            &mut on_node,
            format_args!("route add {only} dev {interface}"),
        );
        line(&mut in_pod, format_args!("address add {only} dev {WIRE}"));
        let default = if address.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        line(
            &mut in_pod,
            format_args!("route replace {default} dev {WIRE}"),
        );
    }
    node.ip(&on_node)?;
    namespace.ip(&in_pod)?;
    Ok(pump)
}

/// Behind a veth of its own, with a host route.
fn by_veth(namespace: &Namespace, pod: &PodPlan, node: &Namespace, interface: &str) -> Result<()> {
    let mut on_node = String::new();
    line(
        &mut on_node,
        format_args!(
            "link add {interface} address {POD_GATEWAY_LINK} type veth peer name {WIRE} netns {}",
            namespace.name()
        ),
    );
    line(&mut on_node, format_args!("link set {interface} up"));
    for address in &pod.addresses {
        line(
            &mut on_node,
            format_args!("route add {} dev {interface}", IpNet::from(*address)),
        );
    }
    node.ip(&on_node)?;

    let mut in_pod = format!("link set {WIRE} up\n");
    for address in &pod.addresses {
        line(
            &mut in_pod,
            format_args!("address add {} dev {WIRE}", IpNet::from(*address)),
        );
        let (default, gateway) = match address {
            IpAddr::V4(_) => ("0.0.0.0/0", IpAddr::from(POD_GATEWAY)),
            IpAddr::V6(_) => ("::/0", IpAddr::from(POD_GATEWAY_V6)),
        };
        line(
            &mut in_pod,
            format_args!(
                "neighbour replace {gateway} lladdr {POD_GATEWAY_LINK} dev {WIRE} nud permanent"
            ),
        );
        line(
            &mut in_pod,
            format_args!("route replace {default} via {gateway} dev {WIRE} onlink"),
        );
    }
    namespace.ip(&in_pod)
}

/// By a port of the node's bridge, which sends back to a pod what it sent to itself.
fn by_port(
    namespace: &Namespace,
    pod: &PodPlan,
    (node, plan): (&Namespace, &NodePlan),
    interface: &str,
) -> Result<()> {
    node.ip(&format!(
        "link add {interface} type veth peer name {WIRE} netns {}\n\
         link set {interface} master {POD_BRIDGE}\n\
         link set {interface} type bridge_slave hairpin on\n\
         link set {interface} up\n",
        namespace.name()
    ))?;
    let mut in_pod = format!("link set {WIRE} up\n");
    for address in &pod.addresses {
        let cidr = plan
            .pod_cidrs
            .iter()
            .find(|cidr| cidr.contains(address))
            .with_context(|| format!("{address} is in no pod CIDR of {}", plan.name))?;
        let gateway = gateway(*cidr)?;
        line(
            &mut in_pod,
            format_args!("address add {address}/{} dev {WIRE}", cidr.prefix_len()),
        );
        line(
            &mut in_pod,
            format_args!("route replace default via {gateway} dev {WIRE}"),
        );
    }
    namespace.ip(&in_pod)
}

/// The bridge of a node's pods.
pub(super) fn bridge(namespace: &Namespace, node: &NodePlan) -> Result<()> {
    let mut script = format!("link add {POD_BRIDGE} type bridge\nlink set {POD_BRIDGE} up\n");
    for cidr in &node.pod_cidrs {
        let gateway = gateway(*cidr)?;
        line(
            &mut script,
            format_args!(
                "address add {gateway}/{} dev {POD_BRIDGE}",
                cidr.prefix_len()
            ),
        );
    }
    namespace.ip(&script)
}

/// The first address of a pod CIDR, which the bridge has.
fn gateway(cidr: IpNet) -> Result<IpAddr> {
    let first = cidr.hosts().next();
    let first = first.with_context(|| format!("{cidr} has no room for a pod"))?;
    Ok(match first {
        // The first of an IPv6 network is the network's own.
        IpAddr::V6(own) if own.octets()[15] == 0 => Ipv6Addr::from_bits(own.to_bits() | 1).into(),
        other => other,
    })
}

/// The name of an interface, as Calico forms it for the host's end of a pod's veth: `cali` and
/// eleven digits of a hash, which fills the fifteen characters a name may have.
pub(super) fn interface(of: &str) -> String {
    let digits = HEXLOWER.encode(&Sha256::digest(of));
    format!("cali{}", &digits[..11])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_and_differ() {
        let name = interface("web-6c5f7d9b8-x2x7q");
        assert_eq!(name.len(), 15);
        assert_ne!(name, interface("web-6c5f7d9b8-x2x7r"));
    }
}
