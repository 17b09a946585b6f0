//! VXLAN between the nodes, as flannel lays it: every node has one device, whose address is the
//! network address of its pod CIDR, and knows the others' devices beforehand.

use std::{net::IpAddr, process::Command};

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use super::line;
use crate::{command, lab::network::TUNNEL, netns::Namespace, plan::NodePlan};

/// VXLAN network and UDP port of flannel.
const NETWORK: u32 = 1;
const PORT: u16 = 8472;
/// What is left of a frame of 1500 bytes.
const MTU: u16 = 1450;

/// Raises a node's device.
pub(super) fn raise<'a>(
    namespace: &Namespace,
    node: &NodePlan,
    others: impl Iterator<Item = &'a NodePlan>,
    uplink: &str,
) -> Result<()> {
    let outer = outer(node)?;
    let mut script = format!(
        "link add {TUNNEL} address {} mtu {MTU} type vxlan id {NETWORK} local {outer} \
         dev {uplink} dstport {PORT} nolearning\nlink set {TUNNEL} up\n",
        link_address(outer)
    );
    for cidr in &node.pod_cidrs {
        line(
            &mut script,
            format_args!("address add {} dev {TUNNEL}", IpNet::from(cidr.network())),
        );
    }
    let mut forwarding = String::new();
    for other in others {
        let outer = self::outer(other)?;
        let link_address = link_address(outer);
        line(
            &mut forwarding,
            format_args!("fdb append {link_address} dev {TUNNEL} dst {outer}"),
        );
        for cidr in &other.pod_cidrs {
            let through = cidr.network();
            line(
                &mut script,
                format_args!(
                    "neighbour replace {through} lladdr {link_address} dev {TUNNEL} nud permanent"
                ),
            );
            line(
                &mut script,
                format_args!("route add {cidr} via {through} dev {TUNNEL} onlink"),
            );
        }
    }
    namespace.ip(&script)?;
    command::run_with_input(
        Command::new("bridge").args(["-n", namespace.name(), "-batch", "-"]),
        &forwarding,
    )?;
    Ok(())
}

/// The node's address that wraps.
fn outer(node: &NodePlan) -> Result<IpAddr> {
    let v4 = node.addresses.iter().find(|address| address.is_ipv4());
    v4.copied()
        .with_context(|| format!("{} has no IPv4 address to tunnel by", node.name))
}

/// A locally administered address made of the outer one.
fn link_address(outer: IpAddr) -> String {
    let IpAddr::V4(outer) = outer else {
        unreachable!("only IPv4 addresses wrap")
    };
    let [a, b, c, d] = outer.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
