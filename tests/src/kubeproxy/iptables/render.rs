//! The rules of one node in one family, in the order in which kube-proxy writes them.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use super::{
    Ruleset,
    names::{Chains, endpoint_chain},
};
use crate::{
    cluster::Cluster,
    kubeproxy::{
        Family, Settings,
        services::ProxiedPort,
        site::{Local, Site, SitePort},
    },
};

mod base;
mod spread;
#[cfg(test)]
mod tests;

const FILTER: &str = "filter";
const NAT: &str = "nat";

/// Renders the rules of the node `node`.
pub fn render(
    cluster: &Cluster,
    node: &str,
    family: Family,
    settings: &Settings,
) -> Result<Ruleset> {
    let mut renderer = Renderer {
        rules: Ruleset::default(),
        site: &Site::of(cluster, node, family, settings)?,
    };
    base::before(&mut renderer);
    for port in &renderer.site.ports {
        renderer.port(port);
    }
    base::after(&mut renderer);
    Ok(renderer.rules)
}

struct Renderer<'site> {
    rules: Ruleset,
    site: &'site Site,
}

/// Where the traffic of one port may go.
struct Paths<'site> {
    port: &'site SitePort,
    chains: Chains,
    firewall: bool,
}

impl Paths<'_> {
    /// The chain that the policy for traffic inside the cluster leads to.
    fn internal_chain(&self) -> &str {
        if self.port.port.internal_policy_local {
            &self.chains.local
        } else {
            &self.chains.cluster
        }
    }

    /// The chain that the policy for traffic from outside leads to.
    fn external_policy_chain(&self) -> &str {
        if self.port.port.external_policy_local {
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

impl Renderer<'_> {
    fn port(&mut self, port: &SitePort) {
        let SitePort {
            port: proxied,
            endpoints,
        } = port;
        let paths = Paths {
            port,
            chains: Chains::of(&proxied.name, proxied.protocol),
            firewall: endpoints.any && port.has_firewall(),
        };
        self.front_doors(&paths);
        if port.has_internal() {
            self.internal_traffic(&paths);
        }
        if port.leads_external() {
            self.external_traffic(&paths);
        }
        if paths.firewall {
            self.firewall(&paths);
        }
        if let Some(endpoints) = port.under_cluster_policy() {
            self.spread(&paths.chains.cluster, proxied, endpoints);
        }
        if let Some(endpoints) = port.under_local_policy() {
            self.spread(&paths.chains.local, proxied, endpoints);
        }
        for endpoint in &endpoints.reachable {
            self.endpoint(proxied, *endpoint);
        }
    }

    /// The addresses and ports by which the traffic of a port enters.
    fn front_doors(&mut self, paths: &Paths<'_>) {
        let Paths {
            port: site_port,
            chains,
            firewall,
        } = paths;
        let SitePort { port, endpoints } = site_port;
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
        let verdict = if endpoints.any { "DROP" } else { self.reject() };

        if site_port.has_internal() {
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
            if !site_port.has_external() {
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
            if !site_port.has_external() {
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
        let ProxiedPort { name, protocol, .. } = &paths.port.port;
        let target = &paths.chains.external;
        let rule = format!("-p {protocol} -m comment --comment \"{name}\" {to_port}");
        if self.site.serves_localhost {
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
        } = &paths.port.port;
        let to = format!("-d {}", host(*cluster_ip));
        let what = format!(
            "-p {protocol} -m comment --comment \"{name} cluster IP\" -m {protocol} --dport {port}"
        );
        let chain = paths.internal_chain();
        if self.site.masquerade_all {
            let rule = format!("{to} {what} -j KUBE-MARK-MASQ");
            self.rules.append(NAT, chain, rule);
        } else if let Some(pods) = &self.site.pods {
            let rule = format!("{} {what} -j KUBE-MARK-MASQ", not_from(pods, &to));
            self.rules.append(NAT, chain, rule);
        }
    }

    /// What comes from outside: masqueraded unless the policy keeps it on this node.
    fn external_traffic(&mut self, paths: &Paths<'_>) {
        let ProxiedPort {
            name,
            external_policy_local,
            ..
        } = &paths.port.port;
        let Chains {
            external: chain,
            cluster,
            ..
        } = &paths.chains;
        let comment =
            |what: &str| format!("-m comment --comment \"{what} {name} external destinations\"");
        self.rules.declare(NAT, chain);
        if *external_policy_local {
            if let Some(pods) = &self.site.pods {
                let comment = comment("pod traffic for");
                let rule = format!("{} {comment} -j {cluster}", from(pods));
                self.rules.append(NAT, chain, rule);
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
        if paths.port.has_external() {
            self.rules
                .append(NAT, chain, format!("-j {}", paths.external_policy_chain()));
        }
    }

    /// Which sources a load balancer's address admits. The others fall through with their
    /// original destination, by which the filter table knows and drops them.
    fn firewall(&mut self, paths: &Paths<'_>) {
        let port = &paths.port.port;
        let name = &port.name;
        let Chains {
            firewall: chain,
            external,
            ..
        } = &paths.chains;
        for source in self.site.admitted(port) {
            let comment = format!("-m comment --comment \"{name} loadbalancer IP\"");
            self.rules
                .append(NAT, chain, format!("-s {source} {comment} -j {external}"));
        }
        let rest = format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL");
        self.rules
            .append(NAT, chain, format!("-m comment --comment \"{rest}\""));
    }

    fn reject(&self) -> &'static str {
        match self.site.family {
            Family::V4 => "REJECT --reject-with icmp-port-unreachable",
            Family::V6 => "REJECT --reject-with icmp6-port-unreachable",
        }
    }
}

/// Matches what pods send.
fn from(pods: &Local) -> String {
    match pods {
        Local::Source(cidr) => format!("-s {cidr}"),
        Local::Interface(name) => format!("-i {name}"),
        Local::InterfacePrefix(prefix) => format!("-i {prefix}+"),
    }
}

/// Matches what others send to `destination`, in the order in which iptables-save prints it.
fn not_from(pods: &Local, destination: &str) -> String {
    match pods {
        Local::Source(_) => format!("! {} {destination}", from(pods)),
        Local::Interface(_) | Local::InterfacePrefix(_) => {
            format!("{destination} ! {}", from(pods))
        }
    }
}

/// An address as rules write it.
fn host(address: IpAddr) -> IpNet {
    address.into()
}
