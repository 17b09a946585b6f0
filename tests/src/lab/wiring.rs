//! The links, addresses and routes of a lab, as batches of `ip` commands.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use data_encoding::HEXLOWER;
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use crate::{
    netns::Namespace,
    plan::{NodePlan, PodPlan},
};

/// The one interface of the client and of a pod, and the uplink of a node.
pub(super) const UPLINK: &str = "eth0";
/// The bridge that joins the client and the nodes.
const BRIDGE: &str = "br0";
/// The next hop of every pod, an address that nobody has: Calico's, too.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The link-layer address of the host's end of every pod's veth, as Calico sets it, and the
/// link-local address that the kernel makes of it.
const POD_GATEWAY_LINK: &str = "ee:ee:ee:ee:ee:ee";
const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// Prefix lengths of the network the nodes' addresses are in, which no object tells.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// The switch, and the client on it.
pub(super) fn switch(switch: &Namespace, client: &Namespace, addresses: &[IpNet]) -> Result<()> {
    switch.ip(&format!(
        "link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
    ))?;
    no_duplicate_detection(client)?;
    plug(switch, "client", client)?;
    let mut script = String::new();
    for address in addresses {
        line(
            &mut script,
            format_args!("address add {address} dev {UPLINK}"),
        );
    }
    client.ip(&script)
}

/// How the client reaches the nodes: each on its link, and the rest through the first of them.
pub(super) fn client_routes(client: &Namespace, nodes: &[NodePlan]) -> Result<()> {
    let mut script = String::new();
    for address in nodes.iter().flat_map(|node| &node.addresses) {
        line(
            &mut script,
            format_args!("route replace {} dev {UPLINK}", IpNet::from(*address)),
        );
    }
    for (default, like) in [("0.0.0.0/0", v4()), ("::/0", v6())] {
        if let Some(entry) = nodes.first().and_then(|node| node.address_like(like)) {
            line(
                &mut script,
                format_args!("route replace {default} via {entry} dev {UPLINK} onlink"),
            );
        }
    }
    client.ip(&script)
}

/// Leads one address, as the client sees it, to a node.
pub(super) fn route_vip(client: &Namespace, address: IpAddr, node: &NodePlan) -> Result<()> {
    let Some(entry) = node.address_like(address) else {
        anyhow::bail!("{} has no address of the family of {address}", node.name)
    };
    client.ip(&format!(
        "route replace {} via {entry} dev {UPLINK} onlink\n",
        IpNet::from(address)
    ))
}

/// A node: forwarding, plugged into the switch, with routes to the pods of the others.
pub(super) fn node(
    namespace: &Namespace,
    node: &NodePlan,
    nodes: &[NodePlan],
    switch: &Namespace,
) -> Result<()> {
    set_node_parameters(namespace)?;
    plug(switch, &node.name, namespace)?;
    let mut script = String::new();
    for address in &node.addresses {
        let prefix = if address.is_ipv4() {
            NODE_PREFIX_V4
        } else {
            NODE_PREFIX_V6
        };
        line(
            &mut script,
            format_args!("address add {address}/{prefix} dev {UPLINK}"),
        );
    }
    for (default, like) in [("0.0.0.0/0", v4()), ("::/0", v6())] {
        if node.address_like(like).is_some() {
            line(
                &mut script,
                format_args!("route add {default} dev {UPLINK}"),
            );
        }
    }
    for other in nodes.iter().filter(|other| other.name != node.name) {
        for cidr in &other.pod_cidrs {
            if let Some(through) = other.address_like(cidr.addr()) {
                line(
                    &mut script,
                    format_args!("route add {cidr} via {through} dev {UPLINK} onlink"),
                );
            }
        }
    }
    namespace.ip(&script)
}

/// A pod behind a veth of its node; returns the name of the host's end.
pub(super) fn pod(namespace: &Namespace, pod: &PodPlan, node: &Namespace) -> Result<String> {
    // An IPv4 and an IPv6 listener share each port, each seeing peers of its own family only.
    namespace.set_parameters(&[("ipv6/bindv6only", "1")])?;
    no_duplicate_detection(namespace)?;
    let interface = pod_interface(&pod.name);
    let mut on_node = String::new();
    line(
        &mut on_node,
        format_args!(
            "link add {interface} address {POD_GATEWAY_LINK} type veth peer name {UPLINK} netns {}",
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

    let mut in_pod = format!("link set {UPLINK} up\n");
    for address in &pod.addresses {
        line(
            &mut in_pod,
            format_args!("address add {} dev {UPLINK}", IpNet::from(*address)),
        );
        let (default, gateway) = match address {
            IpAddr::V4(_) => ("0.0.0.0/0", IpAddr::from(POD_GATEWAY)),
            IpAddr::V6(_) => ("::/0", IpAddr::from(POD_GATEWAY_V6)),
        };
        line(
            &mut in_pod,
            format_args!(
                "neighbour replace {gateway} lladdr {POD_GATEWAY_LINK} dev {UPLINK} nud permanent"
            ),
        );
        line(
            &mut in_pod,
            format_args!("route replace {default} via {gateway} dev {UPLINK} onlink"),
        );
    }
    namespace.ip(&in_pod)?;
    Ok(interface)
}

/// The name of the host's end of a pod's veth, as Calico forms it: `cali` and eleven digits of
/// a hash, which fills the fifteen characters a name may have.
fn pod_interface(pod: &str) -> String {
    let digits = HEXLOWER.encode(&Sha256::digest(pod));
    format!("cali{}", &digits[..11])
}

/// Joins a namespace to the switch by its uplink.
fn plug(switch: &Namespace, name: &str, namespace: &Namespace) -> Result<()> {
    // A name may have fifteen characters; which of two nodes with long names is which does not
    // matter in the switch, but their names must differ.
    let port = if name.len() <= 15 {
        name.to_owned()
    } else {
        pod_interface(name)
    };
    switch.ip(&format!(
        "link add {port} type veth peer name {UPLINK} netns {}\nlink set {port} master {BRIDGE}\nlink set {port} up\n",
        namespace.name(),
    ))?;
    namespace.ip(&format!("link set {UPLINK} up\n"))
}

/// What kubelet, kube-proxy and the network plugin set on a node, and what a lab needs beside.
fn set_node_parameters(node: &Namespace) -> Result<()> {
    no_duplicate_detection(node)?;
    let mut parameters = vec![
        ("ipv4/ip_forward".to_owned(), "1"),
        ("ipv6/conf/all/forwarding".to_owned(), "1"),
        // Every refusal must reach its client; with the limit on, some would end as time-outs.
        ("ipv4/icmp_ratelimit".to_owned(), "0"),
        ("ipv6/icmp/ratelimit".to_owned(), "0"),
    ];
    for scope in ["all", "default"] {
        // The nodes and the client share one link, so a forwarding node would tell the client
        // of a shorter way, which real clients, behind a router, are never told.
        parameters.push((format!("ipv4/conf/{scope}/send_redirects"), "0"));
        parameters.push((format!("ipv4/conf/{scope}/rp_filter"), "0"));
        // kube-proxy sets it, for NodePorts at 127.0.0.1.
        parameters.push((format!("ipv4/conf/{scope}/route_localnet"), "1"));
    }
    node.set_parameters(&parameters)
}

/// IPv6 addresses that are usable at once.
fn no_duplicate_detection(namespace: &Namespace) -> Result<()> {
    namespace.set_parameters(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
    ])
}

fn line(script: &mut String, command: std::fmt::Arguments<'_>) {
    writeln!(script, "{command}").expect("writing to a string cannot fail");
}

fn v4() -> IpAddr {
    Ipv4Addr::UNSPECIFIED.into()
}

fn v6() -> IpAddr {
    Ipv6Addr::UNSPECIFIED.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_and_differ() {
        let name = pod_interface("web-6c5f7d9b8-x2x7q");
        assert_eq!(name.len(), 15);
        assert_ne!(name, pod_interface("web-6c5f7d9b8-x2x7r"));
    }
}
