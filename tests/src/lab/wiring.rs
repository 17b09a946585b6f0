//! The links, addresses and routes of a lab, as batches of `ip` commands.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use super::{
    Options,
    network::{Network, Nodes, Pods, WIRE},
};
use crate::{kubeproxy::Family, netns::Namespace, plan::NodePlan};

pub(super) mod pods;
pub(super) mod pump;
mod tunnel;
mod uplink;

/// The bridge that joins the client and the nodes.
const BRIDGE: &str = "br0";
/// Prefix lengths of the network the nodes' addresses are in, which no object tells.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// The switch, and the client on it.
pub(super) fn switch(switch: &Namespace, client: &Namespace, options: &Options) -> Result<()> {
    switch.ip(&format!(
        "link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
    ))?;
    set_ipv6_parameters(client)?;
    plug(switch, "client", client, WIRE)?;
    uplink::raise_outside(client, options.network)?;
    let interface = options.network.outside();
    let mut script = String::new();
    for address in &options.client {
        line(
            &mut script,
            format_args!("address add {address} dev {interface}"),
        );
    }
    client.ip(&script)
}

/// How the client reaches the nodes: each on its link, and the rest through the first of them.
pub(super) fn client_routes(
    client: &Namespace,
    nodes: &[NodePlan],
    network: Network,
) -> Result<()> {
    let interface = network.outside();
    let mut script = String::new();
    for address in nodes.iter().flat_map(|node| &node.addresses) {
        line(
            &mut script,
            format_args!("route replace {} dev {interface}", IpNet::from(*address)),
        );
    }
    for (default, like) in [("0.0.0.0/0", v4()), ("::/0", v6())] {
        if let Some(entry) = nodes.first().and_then(|node| node.address_like(like)) {
            line(
                &mut script,
                format_args!("route replace {default} via {entry} dev {interface} onlink"),
            );
        }
    }
    client.ip(&script)
}

/// Leads one address, as the client sees it, to a node.
pub(super) fn route_vip(
    client: &Namespace,
    address: IpAddr,
    node: &NodePlan,
    network: Network,
) -> Result<()> {
    let Some(entry) = node.address_like(address) else {
        anyhow::bail!("{} has no address of the family of {address}", node.name)
    };
    client.ip(&format!(
        "route replace {} via {entry} dev {} onlink\n",
        IpNet::from(address),
        network.outside()
    ))
}

/// A node: forwarding, plugged into the switch, with routes to the pods of the others.
pub(super) fn node(
    namespace: &Namespace,
    node: &NodePlan,
    nodes: &[NodePlan],
    switch: &Namespace,
    network: Network,
) -> Result<()> {
    set_node_parameters(namespace, network)?;
    plug(switch, &node.name, namespace, WIRE)?;
    uplink::raise(namespace, &node.name, switch, network)?;
    let uplink = network.uplink();
    namespace.ip(&on_the_link(&node.addresses, uplink))?;
    let others = nodes.iter().filter(|other| other.name != node.name);
    match network.nodes {
        Nodes::Routes => namespace.ip(&routes(others, uplink, |_| true))?,
        Nodes::Vxlan => tunnel::raise(namespace, node, others, uplink)?,
    }
    match network.pods {
        Pods::Veths | Pods::AddressedVeths | Pods::Tuns => Ok(()),
        Pods::Bridge => pods::bridge(namespace, node),
    }
}

/// Somebody on no node, beside the client.
pub(super) fn outsider(
    namespace: &Namespace,
    addresses: &[IpAddr],
    nodes: &[NodePlan],
    switch: &Namespace,
    network: Network,
) -> Result<()> {
    namespace.set_parameters(&[("ipv6/bindv6only", "1")])?;
    set_ipv6_parameters(namespace)?;
    let first = addresses.first().context("somebody without an address")?;
    let port = pods::interface(&first.to_string());
    plug(switch, &port, namespace, WIRE)?;
    uplink::raise_outside(namespace, network)?;
    let interface = network.outside();
    let mut script = on_the_link(addresses, interface);
    script.push_str(&routes(nodes.iter(), interface, |cidr| {
        let same = |address: &IpAddr| cidr.is_ipv4() == address.is_ipv4();
        addresses.iter().any(same)
    }));
    namespace.ip(&script)
}

/// Addresses on the link that the nodes share, and the rest of the world there, too.
fn on_the_link(addresses: &[IpAddr], interface: &str) -> String {
    let mut script = String::new();
    for address in addresses {
        let prefix = if address.is_ipv4() {
            NODE_PREFIX_V4
        } else {
            NODE_PREFIX_V6
        };
        line(
            &mut script,
            format_args!("address add {address}/{prefix} dev {interface}"),
        );
    }
    for (default, family) in [("0.0.0.0/0", Family::V4), ("::/0", Family::V6)] {
        if addresses.iter().any(|address| family.holds(*address)) {
            line(
                &mut script,
                format_args!("route add {default} dev {interface}"),
            );
        }
    }
    script
}

/// The way to the pods of the other nodes is through their addresses.
fn routes<'a>(
    others: impl Iterator<Item = &'a NodePlan>,
    uplink: &str,
    wanted: impl Fn(IpAddr) -> bool,
) -> String {
    let mut script = String::new();
    for other in others {
        for cidr in other.pod_cidrs.iter().filter(|cidr| wanted(cidr.addr())) {
            if let Some(through) = other.address_like(cidr.addr()) {
                line(
                    &mut script,
                    format_args!("route add {cidr} via {through} dev {uplink} onlink"),
                );
            }
        }
    }
    script
}

/// Joins a namespace to the switch by a wire of its own.
fn plug(switch: &Namespace, name: &str, namespace: &Namespace, wire: &str) -> Result<()> {
    // A name may have fifteen characters; which of two nodes with long names is which does not
    // matter in the switch, but their names must differ.
    let port = if name.len() <= 15 {
        name.to_owned()
    } else {
        pods::interface(name)
    };
    switch.ip(&format!(
        "link add {port} type veth peer name {wire} netns {}\nlink set {port} master {BRIDGE}\nlink set {port} up\n",
        namespace.name(),
    ))?;
    namespace.ip(&format!("link set {wire} up\n"))
}

/// What kubelet, kube-proxy and the network plugin set on a node, and what a lab needs beside.
fn set_node_parameters(node: &Namespace, network: Network) -> Result<()> {
    set_ipv6_parameters(node)?;
    let mut parameters = vec![
        ("ipv4/ip_forward".to_owned(), "1"),
        ("ipv6/conf/all/forwarding".to_owned(), "1"),
        // Every refusal must reach its client; with the limit on, some would end as time-outs.
        ("ipv4/icmp_ratelimit".to_owned(), "0"),
        ("ipv6/icmp/ratelimit".to_owned(), "0"),
    ];
    let bridge_netfilter = if network.bridge_netfilter { "1" } else { "0" };
    for family in ["iptables", "ip6tables"] {
        parameters.push((format!("bridge/bridge-nf-call-{family}"), bridge_netfilter));
    }
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

/// IPv6 whose addresses are usable at once and whose hosts keep to their routes. For all
/// interfaces that a namespace gets from now on.
fn set_ipv6_parameters(namespace: &Namespace) -> Result<()> {
    namespace.set_parameters(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        // What the nodes' `send_redirects` is for IPv4; in IPv6 only a host can refuse.
        ("ipv6/conf/default/accept_redirects", "0"),
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
