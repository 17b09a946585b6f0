//! What network plugins do to addresses on a node beside kube-proxy: masquerade pods that leave
//! the pod network, lead ports of the node to pods, and, in a pod, lead on what comes to it.
//!
//! As flannel (`pkg/trafficmngr`), Calico (`felix/rules`), the plugin `portmap` of the CNI project
//! and klipper-lb (`entry`) program it. Their chains come behind kube-proxy's; whose come first
//! makes no difference, for what one of them has rewritten no other does.

use std::net::IpAddr;

use anyhow::Result;
use data_encoding::HEXLOWER;
use ipnet::IpNet;
use sha2::{Digest as _, Sha512};

use super::network::{Masquerade, Network, Nodes, Pods, TUNNEL};
use crate::{
    command,
    kubeproxy::{
        Backend, Family, Mode,
        iptables::{self, Ruleset},
    },
    netns::Namespace,
    plan::{HostPort, NodePlan, Plan, PodPlan},
    protocol::Port,
};

/// kube-proxy's mark, which flannel spares.
const KUBE_PROXY_MARK: &str = "0x4000/0x4000";
/// The mark of `portmap`: what a pod or the node itself sends to a port of the node.
const PORTMAP_MARK: &str = "0x2000/0x2000";

/// Programs the network plugin of a node.
pub(super) fn program(
    namespace: &Namespace,
    node: &NodePlan,
    plan: &Plan,
    network: Network,
    mode: Mode,
) -> Result<()> {
    for family in Family::ALL {
        if !node.addresses.iter().any(|own| family.holds(*own)) {
            continue;
        }
        let pods = plan.pods.iter().filter(|pod| pod.node == node.name);
        let host_ports = host_ports(pods, node, family, network);
        if host_ports.chains().next().is_some() {
            iptables::add(namespace, backend(mode), family, &host_ports)?;
        }
        let Some(ranges) = Ranges::of(node, plan, family) else {
            continue;
        };
        match (network.masquerade, mode) {
            (Masquerade::None, _) => {}
            (Masquerade::Flannel, Mode::Nftables) => {
                let table = flannel_table(&ranges, family);
                command::run_with_input(namespace.command("nft").args(["-f", "-"]), &table)?;
            }
            (Masquerade::Flannel, _) => {
                iptables::add(namespace, backend(mode), family, &flannel(&ranges, family))?;
            }
            (Masquerade::Calico, _) => {
                iptables::add(namespace, backend(mode), family, &calico(&ranges, network))?;
            }
        }
    }
    Ok(())
}

/// Makes a pod lead on what it only relays.
pub(super) fn relay(pod: &PodPlan, namespace: &Namespace, mode: Mode) -> Result<()> {
    if pod.relays.is_empty() {
        return Ok(());
    }
    // k3s sets the first two on such a pod. It sends on by the interface it got it by, and must
    // not tell the client of a shorter way.
    namespace.set_parameters(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/conf/eth0/send_redirects", "0"),
    ])?;
    for family in Family::ALL {
        let mut rules = Ruleset::default();
        for relay in &pod.relays {
            let protocol = &relay.protocol;
            for to in relay.to.iter().filter(|to| family.holds(to.ip())) {
                rules.append(
                    "nat",
                    "PREROUTING",
                    format!(
                        "-p {protocol} -m {protocol} --dport {} -j DNAT --to-destination {to}",
                        relay.port
                    ),
                );
                rules.append(
                    "nat",
                    "POSTROUTING",
                    format!("-d {} -p {protocol} -j MASQUERADE", IpNet::from(to.ip())),
                );
            }
        }
        if rules.chains().next().is_some() {
            iptables::add(namespace, backend(mode), family, &rules)?;
        }
    }
    Ok(())
}

/// Where the pods of a node and of all nodes live, in one family.
struct Ranges {
    node: IpNet,
    cluster: IpNet,
}

impl Ranges {
    /// A plugin's own configuration has the cluster's range, which no object tells, and which may
    /// differ from kube-proxy's: here the smallest that holds the pods of every node.
    fn of(node: &NodePlan, plan: &Plan, family: Family) -> Option<Self> {
        let of_family = |node: &NodePlan| {
            let mut cidrs = node.pod_cidrs.iter().copied();
            cidrs.find(|cidr| family.holds(cidr.addr()))
        };
        let own = of_family(node)?;
        let mut cluster = own;
        for cidr in plan.nodes.iter().filter_map(of_family) {
            while !cluster.contains(&cidr) {
                cluster = cluster.supernet()?;
            }
        }
        Some(Self { node: own, cluster })
    }
}

/// The chain of flannel.
fn flannel(ranges: &Ranges, family: Family) -> Ruleset {
    const CHAIN: &str = "FLANNEL-POSTRTG";
    const COMMENT: &str = "-m comment --comment \"flanneld masq\"";
    let Ranges { node, cluster } = ranges;
    let multicast = multicast(family);
    let mut rules = Ruleset::default();
    rules.append("nat", "POSTROUTING", format!("{COMMENT} -j {CHAIN}"));
    for rule in [
        format!("-m mark --mark {KUBE_PROXY_MARK} {COMMENT} -j RETURN"),
        format!("-s {node} -d {cluster} {COMMENT} -j RETURN"),
        format!("-s {cluster} -d {node} {COMMENT} -j RETURN"),
        format!("! -s {cluster} -d {node} {COMMENT} -j RETURN"),
        format!("-s {cluster} ! -d {multicast} {COMMENT} -j MASQUERADE --random-fully"),
        format!("! -s {cluster} -d {cluster} {COMMENT} -j MASQUERADE --random-fully"),
    ] {
        rules.append("nat", CHAIN, rule);
    }
    rules
}

/// The table of flannel, where kube-proxy has one, too.
fn flannel_table(ranges: &Ranges, family: Family) -> String {
    let Ranges { node, cluster } = ranges;
    let (ip, name) = match family {
        Family::V4 => ("ip", "flannel-ipv4"),
        Family::V6 => ("ip6", "flannel-ipv6"),
    };
    let multicast = multicast(family);
    format!(
        "table {ip} {name} {{\n\
         chain postrtg {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         meta mark & 0x4000 == 0x4000 return\n\
         {ip} saddr {node} {ip} daddr {cluster} return\n\
         {ip} saddr {cluster} {ip} daddr {node} return\n\
         {ip} saddr != {node} {ip} daddr {node} return\n\
         {ip} saddr {cluster} {ip} daddr != {multicast} masquerade fully-random\n\
         {ip} saddr != {cluster} {ip} daddr {cluster} masquerade fully-random\n\
         }}\n}}\n"
    )
}

/// The chains of Calico. What it matches by the sets `cali40masq-ipam-pools` and
/// `cali40all-ipam-pools` is told by the one range they would hold, so that no `ipset` is needed.
fn calico(ranges: &Ranges, network: Network) -> Ruleset {
    const CHAIN: &str = "cali-POSTROUTING";
    const OUTGOING: &str = "cali-nat-outgoing";
    let pool = ranges.cluster;
    let mut rules = Ruleset::default();
    rules.append("nat", "POSTROUTING", format!("-j {CHAIN}"));
    rules.append("nat", CHAIN, format!("-j {OUTGOING}"));
    if network.nodes == Nodes::Vxlan {
        rules.append(
            "nat",
            CHAIN,
            format!(
                "-o {TUNNEL} -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype \
                 --src-type LOCAL -j MASQUERADE --random-fully"
            ),
        );
    }
    rules.append(
        "nat",
        OUTGOING,
        format!("-s {pool} ! -d {pool} -j MASQUERADE --random-fully"),
    );
    rules
}

/// The chains of `portmap`; none if no pod of the node has a port of it.
fn host_ports<'plan>(
    pods: impl Iterator<Item = &'plan PodPlan>,
    node: &NodePlan,
    family: Family,
    network: Network,
) -> Ruleset {
    const DNAT: &str = "CNI-HOSTPORT-DNAT";
    const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
    const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
    let mut rules = Ruleset::default();
    for pod in pods {
        let address = pod.addresses.iter().find(|own| family.holds(**own));
        let Some(address) = address else { continue };
        let chain = pod_chain(pod);
        for host_port in &pod.host_ports {
            let HostPort {
                ip,
                port:
                    Port {
                        protocol,
                        number: port,
                    },
                to,
            } = host_port;
            if ip.is_some_and(|ip| !family.holds(ip)) {
                continue;
            }
            let at = ip.map_or_else(String::new, |ip| format!("-d {} ", IpNet::from(ip)));
            let matched = format!("-p {protocol} -m {protocol} --dport {port}");
            rules.append(
                "nat",
                DNAT,
                format!(
                    "-p {protocol} -m comment --comment \"dnat name: \\\"cni\\\" id: \\\"{}\\\"\" \
                     -m multiport --dports {port} -j {chain}",
                    pod.name
                ),
            );
            // The pod itself and, over a bridge, its neighbours; and what a process of the node
            // sends to 127.0.0.1.
            let near = near(*address, node, network);
            let localhost = (family == Family::V4).then(|| "127.0.0.1/32".to_owned());
            for source in std::iter::once(near.to_string()).chain(localhost) {
                rules.append(
                    "nat",
                    &chain,
                    format!("-s {source} {at}{matched} -j {SET_MARK}"),
                );
            }
            let to = std::net::SocketAddr::new(*address, *to);
            rules.append(
                "nat",
                &chain,
                format!("{at}{matched} -j DNAT --to-destination {to}"),
            );
        }
    }
    if rules.chains().next().is_some() {
        for built_in in ["PREROUTING", "OUTPUT"] {
            rules.append(
                "nat",
                built_in,
                format!("-m addrtype --dst-type LOCAL -j {DNAT}"),
            );
        }
        rules.append(
            "nat",
            "POSTROUTING",
            format!("-m comment --comment \"CNI portfwd requiring masquerade\" -j {MASQUERADE}"),
        );
        rules.append(
            "nat",
            MASQUERADE,
            format!("-m mark --mark {PORTMAP_MARK} -j MASQUERADE"),
        );
        rules.append(
            "nat",
            SET_MARK,
            format!(
                "-m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark \
                 {PORTMAP_MARK}"
            ),
        );
    }
    rules
}

/// The network that a pod's address is in, as the plugin that gave it says.
fn near(address: IpAddr, node: &NodePlan, network: Network) -> IpNet {
    let cidr = node.pod_cidrs.iter().find(|cidr| cidr.contains(&address));
    match (network.pods, cidr) {
        (Pods::Bridge, Some(cidr)) => *cidr,
        _ => IpNet::from(address),
    }
}

/// The name of a pod's chain: the digest fills the 28 characters a name may have.
fn pod_chain(pod: &PodPlan) -> String {
    let digits = HEXLOWER.encode(&Sha512::digest(format!("cni{}", pod.name)));
    format!("CNI-DN-{}", &digits[..21])
}

fn multicast(family: Family) -> &'static str {
    match family {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    }
}

/// By what iptables is spoken beside a kube-proxy of a mode.
fn backend(mode: Mode) -> Backend {
    match mode {
        Mode::Iptables(backend) => backend,
        Mode::Ipvs | Mode::Nftables => Backend::Nft,
    }
}
