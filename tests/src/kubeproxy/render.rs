//! The rules of one node in one family, in the order in which kube-proxy writes them.

use std::net::IpAddr;

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
mod spread;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The rules of node1 of the demo cluster, as lines with their chain.
    fn rules(family: Family, settings: &Settings) -> Vec<String> {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters/demo.json");
        let cluster = Cluster::read(&demo).expect("the demo cluster");
        let rules = render(&cluster, "node1", family, settings).expect("renders");
        let lines = rules
            .chains()
            .flat_map(|(_, chain, rules)| rules.iter().map(move |rule| format!("{chain} {rule}")));
        lines.collect()
    }

    fn count(rules: &[String], parts: &[&str]) -> usize {
        rules
            .iter()
            .filter(|rule| parts.iter().all(|part| rule.contains(part)))
            .count()
    }

    #[test]
    fn what_a_pod_sends_to_a_cluster_ip_is_masqueraded_on_demand_only() {
        let to_web = ["10.96.80.11/32", "KUBE-MARK-MASQ"];
        let default = rules(Family::V4, &Settings::default());
        assert_eq!(
            count(&default, &["! -s 10.244.0.0/16", to_web[0], to_web[1]]),
            1
        );
        let all = rules(
            Family::V4,
            &Settings {
                masquerade_all: true,
                ..Settings::default()
            },
        );
        assert_eq!(count(&all, &to_web), 1);
        assert_eq!(count(&all, &["! -s 10.244.0.0/16"]), 0);
    }

    #[test]
    fn without_a_cluster_cidr_nothing_counts_as_a_pod() {
        let settings = Settings {
            cluster_cidrs: Vec::new(),
            ..Settings::default()
        };
        let rules = rules(Family::V4, &settings);
        assert_eq!(count(&rules, &["pod traffic for"]), 0);
        assert_eq!(count(&rules, &["10.96.80.11/32", "KUBE-MARK-MASQ"]), 0);
    }

    #[test]
    fn node_ports_are_served_where_the_settings_say() {
        let serving = |family, node_port_addresses, localhost_node_ports| {
            let settings = Settings {
                node_port_addresses,
                localhost_node_ports,
                ..Settings::default()
            };
            let rules = rules(family, &settings);
            let to_node_ports = rules
                .into_iter()
                .filter(|rule| rule.ends_with("-j KUBE-NODEPORTS") && rule.contains("last rule"));
            to_node_ports
                .map(|rule| rule.split(" -m ").next().expect("a word").to_owned())
                .collect::<Vec<_>>()
        };
        let within = |range: &str| NodePortAddresses::Within(vec![range.parse().expect("a range")]);
        assert_eq!(
            serving(Family::V4, NodePortAddresses::All, true),
            ["KUBE-SERVICES"]
        );
        assert_eq!(
            serving(Family::V4, NodePortAddresses::All, false),
            ["KUBE-SERVICES ! -d 127.0.0.0/8"]
        );
        assert_eq!(
            serving(Family::V6, NodePortAddresses::All, true),
            ["KUBE-SERVICES ! -d ::1/128"]
        );
        assert_eq!(
            serving(Family::V4, NodePortAddresses::Primary, true),
            ["KUBE-SERVICES -d 172.31.0.11/32"]
        );
        assert_eq!(
            serving(Family::V4, within("172.31.0.0/16"), true),
            ["KUBE-SERVICES -d 172.31.0.11/32"]
        );
        assert_eq!(
            serving(Family::V4, within("10.0.0.0/8"), true),
            [] as [String; 0]
        );
    }

    #[test]
    fn a_service_without_endpoints_refuses_and_one_without_local_ones_drops() {
        let rules = rules(Family::V6, &Settings::default());
        assert_eq!(
            count(
                &rules,
                &[
                    "shop/empty:http has no endpoints",
                    "--dport 30084",
                    "REJECT"
                ]
            ),
            1
        );
        assert_eq!(
            count(
                &rules,
                &[
                    "shop/far:http has no local endpoints",
                    "--dport 30085",
                    "DROP"
                ]
            ),
            1
        );
        assert_eq!(
            count(&rules, &["KUBE-NODEPORTS", "--dport 30085", "KUBE-EXT-"]),
            1
        );
    }
}
