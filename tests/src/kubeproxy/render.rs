//! The rules of one node in one family, in the order in which kube-proxy writes them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    Family, NodePortAddresses, Ruleset, Settings,
    endpoints::{Categories, Place, categorize},
    names::{Chains, endpoint_chain},
    services::{ProxiedPort, ports},
};
use crate::{cluster::Cluster, plan::Plan};

mod base;

const FILTER: &str = "filter";
const NAT: &str = "nat";

/// Renders the rules of the node `node`.
pub fn render(
    cluster: &Cluster,
    node: &str,
    family: Family,
    settings: &Settings,
) -> Result<Ruleset> {
    let plan = Plan::of(cluster)?;
    let nodes = plan.nodes.iter().filter(|planned| planned.name == node);
    let addresses: Vec<IpAddr> = nodes
        .flat_map(|planned| planned.addresses.clone())
        .collect();
    let mut renderer = Renderer {
        rules: Ruleset::default(),
        family,
        pods: settings
            .cluster_cidrs
            .iter()
            .copied()
            .find(|cidr| family.holds(cidr.addr())),
        masquerade_all: settings.masquerade_all,
        localhost_node_ports: settings.localhost_node_ports && family == Family::V4,
        node_addresses: addresses
            .into_iter()
            .filter(|address| family.holds(*address))
            .collect(),
    };
    base::before(&mut renderer);
    let place = Place::of(cluster, node);
    for port in ports(cluster, family)? {
        let endpoints = categorize(cluster, &port, family, &place)?;
        renderer.port(&port, &endpoints);
    }
    base::after(&mut renderer, &settings.node_port_addresses);
    Ok(renderer.rules)
}

struct Renderer {
    rules: Ruleset,
    family: Family,
    /// What counts as a pod's address.
    pods: Option<IpNet>,
    masquerade_all: bool,
    localhost_node_ports: bool,
    /// Of the node, in this family.
    node_addresses: Vec<IpAddr>,
}

/// Where the traffic of one port may go.
struct Paths<'port> {
    port: &'port ProxiedPort,
    endpoints: &'port Categories,
    chains: Chains,
    /// Whether the policy of the traffic inside the cluster finds an endpoint.
    internal: bool,
    /// Whether the policy of the traffic from outside finds one.
    external: bool,
    firewall: bool,
}

impl Paths<'_> {
    /// The chain that the policy for traffic inside the cluster leads to.
    fn internal_chain(&self) -> &str {
        if self.port.internal_policy_local {
            &self.chains.local
        } else {
            &self.chains.cluster
        }
    }

    /// The chain that the policy for traffic from outside leads to.
    fn external_policy_chain(&self) -> &str {
        if self.port.external_policy_local {
            &self.chains.local
        } else {
            &self.chains.cluster
        }
    }

    /// What a load balancer's address leads to.
    fn load_balancer_chain(&self) -> &str {
        if self.firewall {
            &self.chains.firewall
        } else {
            &self.chains.external
        }
    }
}

impl Renderer {
    fn port(&mut self, port: &ProxiedPort, endpoints: &Categories) {
        let has_local = !endpoints.local.is_empty();
        let paths = Paths {
            port,
            endpoints,
            chains: Chains::of(&port.name, port.protocol),
            internal: endpoints.any && (has_local || !port.internal_policy_local),
            external: endpoints.any && (has_local || !port.external_policy_local),
            firewall: endpoints.any
                && !port.load_balancer_vips.is_empty()
                && !port.source_ranges.is_empty(),
        };
        self.front_doors(&paths);
        if paths.internal {
            self.internal_traffic(&paths);
        }
        if endpoints.any && port.externally_accessible() {
            self.external_traffic(&paths);
        }
        if paths.firewall {
            self.firewall(&paths);
        }
        if port.uses_cluster_endpoints() && !endpoints.cluster.is_empty() {
            self.spread(&paths.chains.cluster, port, &endpoints.cluster);
        }
        if port.uses_local_endpoints() && has_local {
            self.spread(&paths.chains.local, port, &endpoints.local);
        }
        for endpoint in &endpoints.reachable {
            self.endpoint(port, *endpoint);
        }
    }

    /// The addresses and ports by which the traffic of a port enters.
    fn front_doors(&mut self, paths: &Paths<'_>) {
        let Paths {
            port,
            endpoints,
            chains,
            internal,
            external,
            firewall,
        } = paths;
        let ProxiedPort {
            name,
            protocol,
            port: number,
            cluster_ip,
            ..
        } = port;
        let at = |address: IpAddr| format!("-d {} -p {protocol}", host(address));
        let to_port = format!("-m {protocol} --dport {number}");
        // A destination that no rule of the nat table took still bears its original address when
        // it comes to the filter table, which turns it away.
        let turned_away = if endpoints.any {
            format!("-m comment --comment \"{name} has no local endpoints\"")
        } else {
            format!("-m comment --comment \"{name} has no endpoints\"")
        };
        let verdict = if endpoints.any {
            "DROP".to_owned()
        } else {
            self.reject()
        };

        if *internal {
            let target = paths.internal_chain();
            let comment = format!("-m comment --comment \"{name} cluster IP\"");
            let rule = format!("{} {comment} {to_port} -j {target}", at(*cluster_ip));
            self.rules.append(NAT, "KUBE-SERVICES", rule);
        } else {
            let rule = format!("{} {turned_away} {to_port} -j {verdict}", at(*cluster_ip));
            self.rules.append(FILTER, "KUBE-SERVICES", rule);
        }

        let external_ips = port
            .external_ips
            .iter()
            .map(|ip| (ip, "external IP", &*chains.external));
        let vips = port.load_balancer_vips.iter();
        let vips = vips.map(|ip| (ip, "loadbalancer IP", paths.load_balancer_chain()));
        for (ip, kind, target) in external_ips.chain(vips) {
            if endpoints.any {
                let comment = format!("-m comment --comment \"{name} {kind}\"");
                let rule = format!("{} {comment} {to_port} -j {target}", at(*ip));
                self.rules.append(NAT, "KUBE-SERVICES", rule);
            }
            if !external {
                let rule = format!("{} {turned_away} {to_port} -j {verdict}", at(*ip));
                self.rules.append(FILTER, "KUBE-EXTERNAL-SERVICES", rule);
            }
        }
        for ip in port.load_balancer_vips.iter().filter(|_| *firewall) {
            let comment = format!(
                "-m comment --comment \"{name} traffic not accepted by {}\"",
                chains.firewall
            );
            let rule = format!("{} {comment} {to_port} -j DROP", at(*ip));
            self.rules.append(FILTER, "KUBE-PROXY-FIREWALL", rule);
        }
        if let Some(node_port) = port.node_port {
            let to_port = format!("-m {protocol} --dport {node_port}");
            if endpoints.any {
                self.node_port(paths, &to_port);
            }
            if !external {
                let local = "-m addrtype --dst-type LOCAL";
                let rule = format!("-p {protocol} {turned_away} {local} {to_port} -j {verdict}");
                self.rules.append(FILTER, "KUBE-EXTERNAL-SERVICES", rule);
            }
        }
        if let Some(health_check) = port.health_check_node_port {
            let comment = format!("-m comment --comment \"{name} health check node port\"");
            let rule = format!("-p tcp {comment} -m tcp --dport {health_check} -j ACCEPT");
            self.rules.append(FILTER, "KUBE-NODEPORTS", rule);
        }
    }

    fn node_port(&mut self, paths: &Paths<'_>, to_port: &str) {
        let ProxiedPort { name, protocol, .. } = paths.port;
        let target = &paths.chains.external;
        let rule = format!("-p {protocol} -m comment --comment \"{name}\" {to_port}");
        if self.localhost_node_ports {
            // The same rule once more, to count what comes by 127.0.0.1 and nothing else.
            let counted = "-m nfacct --nfacct-name  localhost_nps_accepted_pkts";
            self.rules.append(
                NAT,
                "KUBE-NODEPORTS",
                format!("-d 127.0.0.0/8 {rule} {counted} -j {target}"),
            );
        }
        self.rules
            .append(NAT, "KUBE-NODEPORTS", format!("{rule} -j {target}"));
    }

    /// What goes to the cluster IP: masqueraded unless a pod sends it.
    fn internal_traffic(&mut self, paths: &Paths<'_>) {
        let ProxiedPort {
            name,
            protocol,
            port,
            cluster_ip,
            ..
        } = paths.port;
        let to_cluster_ip = format!(
            "-d {} -p {protocol} -m comment --comment \"{name} cluster IP\" -m {protocol} --dport {port}",
            host(*cluster_ip)
        );
        let chain = paths.internal_chain();
        if self.masquerade_all {
            self.rules
                .append(NAT, chain, format!("{to_cluster_ip} -j KUBE-MARK-MASQ"));
        } else if let Some(pods) = self.pods {
            self.rules.append(
                NAT,
                chain,
                format!("! -s {pods} {to_cluster_ip} -j KUBE-MARK-MASQ"),
            );
        }
    }

    /// What comes from outside: masqueraded unless the policy keeps it on this node.
    fn external_traffic(&mut self, paths: &Paths<'_>) {
        let name = &paths.port.name;
        let Chains {
            external: chain,
            cluster,
            ..
        } = &paths.chains;
        let comment =
            |what: &str| format!("-m comment --comment \"{what} {name} external destinations\"");
        self.rules.declare(NAT, chain);
        if paths.port.external_policy_local {
            if let Some(pods) = self.pods {
                let comment = comment("pod traffic for");
                self.rules
                    .append(NAT, chain, format!("-s {pods} {comment} -j {cluster}"));
            }
            let from_here = "-m addrtype --src-type LOCAL";
            let masquerade = comment("masquerade LOCAL traffic for");
            self.rules.append(
                NAT,
                chain,
                format!("{masquerade} {from_here} -j KUBE-MARK-MASQ"),
            );
            let route = comment("route LOCAL traffic for");
            self.rules
                .append(NAT, chain, format!("{route} {from_here} -j {cluster}"));
        } else {
            let comment = comment("masquerade traffic for");
            self.rules
                .append(NAT, chain, format!("{comment} -j KUBE-MARK-MASQ"));
        }
        if paths.external {
            self.rules
                .append(NAT, chain, format!("-j {}", paths.external_policy_chain()));
        }
    }

    /// Which sources a load balancer's address admits. The others fall through with their
    /// original destination, by which the filter table knows and drops them.
    fn firewall(&mut self, paths: &Paths<'_>) {
        let name = &paths.port.name;
        let Chains {
            firewall: chain,
            external,
            ..
        } = &paths.chains;
        let comment = format!("-m comment --comment \"{name} loadbalancer IP\"");
        for range in &paths.port.source_ranges {
            self.rules.append(
                NAT,
                chain,
                format!("-s {} {comment} -j {external}", range.trunc()),
            );
        }
        let node_address = self.node_addresses.first();
        let ranges = &paths.port.source_ranges;
        if node_address.is_some_and(|node| ranges.iter().any(|range| range.contains(node))) {
            // Where the address is the node's own, what the node sends there has it as source.
            for ip in &paths.port.load_balancer_vips {
                self.rules.append(
                    NAT,
                    chain,
                    format!("-s {} {comment} -j {external}", host(*ip)),
                );
            }
        }
        let rest = format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL");
        self.rules
            .append(NAT, chain, format!("-m comment --comment \"{rest}\""));
    }

    /// Spreads over endpoints: who came before goes where it went before, the others at random.
    fn spread(&mut self, chain: &str, port: &ProxiedPort, endpoints: &[SocketAddr]) {
        let target = |endpoint: &SocketAddr| endpoint_chain(&port.name, port.protocol, *endpoint);
        let comment =
            |endpoint: &SocketAddr| format!("-m comment --comment \"{} -> {endpoint}\"", port.name);
        if let Some(seconds) = port.affinity {
            for endpoint in endpoints {
                let (target, comment) = (target(endpoint), comment(endpoint));
                let known = format!(
                    "-m recent --rcheck --seconds {seconds} --reap {}",
                    self.list(&target)
                );
                self.rules
                    .append(NAT, chain, format!("{comment} {known} -j {target}"));
            }
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let (target, comment) = (target(endpoint), comment(endpoint));
            let left = endpoints.len() - index;
            let chance = if left > 1 {
                format!(" {}", probability(left))
            } else {
                String::new()
            };
            self.rules
                .append(NAT, chain, format!("{comment}{chance} -j {target}"));
        }
    }

    /// One endpoint: masqueraded when it calls itself, so that its answer comes back here.
    fn endpoint(&mut self, port: &ProxiedPort, endpoint: SocketAddr) {
        let ProxiedPort { name, protocol, .. } = port;
        let chain = endpoint_chain(name, *protocol, endpoint);
        let comment = format!("-m comment --comment \"{name}\"");
        let from_itself = host(endpoint.ip());
        self.rules.append(
            NAT,
            &chain,
            format!("-s {from_itself} {comment} -j KUBE-MARK-MASQ"),
        );
        let remember = match port.affinity {
            Some(_) => format!(" -m recent --set {}", self.list(&chain)),
            None => String::new(),
        };
        let rule = format!(
            "-p {protocol} {comment}{remember} -m {protocol} -j DNAT --to-destination {endpoint}"
        );
        self.rules.append(NAT, &chain, rule);
    }

    /// The list of clients that an endpoint served before.
    fn list(&self, endpoint_chain: &str) -> String {
        let mask = match self.family {
            Family::V4 => "255.255.255.255",
            Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        format!("--name {endpoint_chain} --mask {mask} --rsource")
    }

    fn reject(&self) -> String {
        match self.family {
            Family::V4 => "REJECT --reject-with icmp-port-unreachable".to_owned(),
            Family::V6 => "REJECT --reject-with icmp6-port-unreachable".to_owned(),
        }
    }
}

/// An address as rules write it.
fn host(address: IpAddr) -> IpNet {
    address.into()
}

/// One chance in `left`, as the kernel holds it, in units of 2^-31, and iptables-save prints it.
fn probability(left: usize) -> String {
    const ONE: f64 = 2_147_483_648.0;
    // kube-proxy gives ten decimals; the kernel rounds what remains.
    let given = (1e10 / as_f64(left)).round() / 1e10;
    format!(
        "-m statistic --mode random --probability {:.11}",
        (given * ONE).round() / ONE
    )
}

/// The number of endpoints, which the API limits far below what a `f64` holds exactly.
fn as_f64(endpoints: usize) -> f64 {
    f64::from(u32::try_from(endpoints).expect("a Service has fewer endpoints than that"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_printed_as_iptables_save_prints_them() {
        let chance = |left| {
            probability(left)
                .rsplit_once(' ')
                .expect("words")
                .1
                .to_owned()
        };
        assert_eq!(chance(2), "0.50000000000");
        assert_eq!(chance(3), "0.33333333349");
    }
}
