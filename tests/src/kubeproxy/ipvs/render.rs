//! What one node in one family is programmed with.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::{
    Program, VirtualServer,
    sets::{self, Sets},
};
use crate::{
    cluster::Cluster,
    kubeproxy::{
        Family, Served, Settings,
        iptables::Ruleset,
        services::{Protocol, ProxiedPort},
        site::{Local, Site, SitePort},
    },
};

#[cfg(test)]
mod tests;

const FILTER: &str = "filter";
const NAT: &str = "nat";

/// Renders the program of the node `node`.
pub fn render(
    cluster: &Cluster,
    node: &str,
    family: Family,
    settings: &Settings,
) -> Result<Program> {
    let site = Site::of(cluster, node, family, settings)?;
    let mut renderer = Renderer {
        site: &site,
        sets: Sets::new(family),
        rules: Ruleset::default(),
        servers: Vec::new(),
        addresses: Vec::new(),
    };
    for port in &site.ports {
        renderer.port(port);
    }
    for address in &renderer.addresses {
        renderer.sets.add(sets::IPVS_IPS, address.to_string());
    }
    renderer.jumps();
    renderer.nat();
    renderer.filter();
    let Renderer {
        site: _,
        sets,
        rules,
        servers,
        addresses,
    } = renderer;
    Ok(Program {
        sets,
        rules,
        servers,
        addresses,
    })
}

struct Renderer<'site> {
    site: &'site Site,
    sets: Sets,
    rules: Ruleset,
    servers: Vec<VirtualServer>,
    addresses: Vec<IpAddr>,
}

impl Renderer<'_> {
    fn port(&mut self, site_port: &SitePort) {
        let SitePort { port, endpoints } = site_port;
        let protocol = port.protocol;
        for endpoint in &endpoints.on_node {
            let itself = endpoint.ip();
            let entry = format!("{},{itself}", entry(protocol, *endpoint));
            self.sets.add(sets::LOOP_BACK, entry);
        }
        let at = SocketAddr::new(port.cluster_ip, port.port);
        self.sets.add(sets::CLUSTER_IP, entry(protocol, at));
        self.serve(site_port, at, port.internal_policy_local);
        for ip in &port.external_ips {
            let at = SocketAddr::new(*ip, port.port);
            let set = if port.external_policy_local {
                sets::EXTERNAL_IP_LOCAL
            } else {
                sets::EXTERNAL_IP
            };
            self.sets.add(set, entry(protocol, at));
            self.serve(site_port, at, port.external_policy_local);
        }
        for ip in &port.load_balancer_vips {
            let at = SocketAddr::new(*ip, port.port);
            self.load_balancer(port, at);
            self.serve(site_port, at, port.external_policy_local);
        }
        if let Some(number) = port.node_port {
            self.node_port(site_port, number);
        }
        if let Some(number) = port.health_check_node_port {
            self.sets
                .add(sets::HEALTH_CHECK_NODE_PORT, number.to_string());
        }
    }

    /// A virtual server. Under policy Local it sends to the endpoints of this node, and if there
    /// are none, to all that the Service may use at all.
    fn serve(&mut self, site_port: &SitePort, at: SocketAddr, local: bool) {
        let SitePort { port, endpoints } = site_port;
        let chosen = if local && !endpoints.local.is_empty() {
            &endpoints.local
        } else {
            &endpoints.cluster
        };
        self.servers.push(VirtualServer {
            protocol: port.protocol,
            at,
            affinity: port.affinity,
            endpoints: chosen.clone(),
        });
        let address = at.ip();
        let is_the_nodes = self.site.node_addresses.contains(&address);
        if !is_the_nodes && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    fn load_balancer(&mut self, port: &ProxiedPort, at: SocketAddr) {
        let entry = entry(port.protocol, at);
        if port.external_policy_local {
            self.sets.add(sets::LOAD_BALANCER_LOCAL, entry.clone());
        }
        if !port.source_ranges.is_empty() {
            self.sets.add(sets::LOAD_BALANCER_FW, entry.clone());
            for range in &port.source_ranges {
                let entry = format!("{entry},{}", range.trunc());
                self.sets.add(sets::LOAD_BALANCER_SOURCE_CIDR, entry);
            }
            let node = self.site.node_addresses.first();
            let admits = |node| port.source_ranges.iter().any(|range| range.contains(node));
            // What the node sends there has the address itself as source.
            if node.is_some_and(admits) {
                let entry = format!("{entry},{}", at.ip());
                self.sets.add(sets::LOAD_BALANCER_SOURCE_IP, entry);
            } else {
                let rule = format!(
                    "-s {ip} -m ipvs --vaddr {ip} --vproto {} --vport {} -j DROP",
                    port.protocol,
                    at.port(),
                    ip = at.ip()
                );
                self.rules.append(FILTER, "KUBE-IPVS-OUT-FILTER", rule);
            }
        }
        self.sets.add(sets::LOAD_BALANCER, entry);
    }

    fn node_port(&mut self, site_port: &SitePort, number: u16) {
        let port = &site_port.port;
        let addresses = match &self.site.node_ports {
            Served::Everywhere => &self.site.node_addresses,
            Served::On(addresses) => addresses,
        };
        let served: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, number))
            .collect();
        if served.is_empty() {
            return;
        }
        let (all, local) = match port.protocol {
            Protocol::Tcp => (sets::NODE_PORT_TCP, sets::NODE_PORT_LOCAL_TCP),
            Protocol::Udp => (sets::NODE_PORT_UDP, sets::NODE_PORT_LOCAL_UDP),
            Protocol::Sctp => (sets::NODE_PORT_SCTP, sets::NODE_PORT_LOCAL_SCTP),
        };
        let entries = match port.protocol {
            Protocol::Tcp | Protocol::Udp => vec![number.to_string()],
            Protocol::Sctp => {
                let at = |at: &SocketAddr| entry(port.protocol, *at);
                served.iter().map(at).collect()
            }
        };
        for entry in entries {
            if port.external_policy_local {
                self.sets.add(local, entry.clone());
            }
            self.sets.add(all, entry);
        }
        for at in served {
            self.serve(site_port, at, port.external_policy_local);
        }
    }

    /// How packets come to the chains.
    fn jumps(&mut self) {
        for (table, chain, to) in [
            (NAT, "PREROUTING", "KUBE-SERVICES"),
            (NAT, "OUTPUT", "KUBE-SERVICES"),
            (NAT, "POSTROUTING", "KUBE-POSTROUTING"),
            (FILTER, "INPUT", "KUBE-IPVS-FILTER"),
            (FILTER, "INPUT", "KUBE-PROXY-FIREWALL"),
            (FILTER, "INPUT", "KUBE-NODE-PORT"),
            (FILTER, "FORWARD", "KUBE-PROXY-FIREWALL"),
            (FILTER, "FORWARD", "KUBE-FORWARD"),
            (FILTER, "OUTPUT", "KUBE-IPVS-OUT-FILTER"),
        ] {
            self.rules.append(table, chain, format!("-j {to}"));
            self.rules.declare(table, to);
        }
        self.rules.declare(NAT, "KUBE-NODE-PORT");
        self.rules.declare(FILTER, "KUBE-SOURCE-RANGES-FIREWALL");
    }

    /// What is masqueraded. IPVS has not chosen yet: it takes in what is for the host itself.
    fn nat(&mut self) {
        let loopback = match self.site.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        let services = "KUBE-SERVICES";
        let mark = "-j KUBE-MARK-MASQ";
        self.rules
            .append(NAT, services, format!("-s {loopback} -j RETURN"));
        self.matching(
            NAT,
            services,
            "",
            sets::LOAD_BALANCER,
            "-j KUBE-LOAD-BALANCER",
        );
        self.cluster_ips();
        for (set, marks) in [(sets::EXTERNAL_IP, true), (sets::EXTERNAL_IP_LOCAL, false)] {
            if marks {
                self.matching(NAT, services, "", set, mark);
            }
            let from_outside =
                "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT";
            self.matching(NAT, services, "", set, from_outside);
            let of_this_node = "-m addrtype --dst-type LOCAL -j ACCEPT";
            self.matching(NAT, services, "", set, of_this_node);
        }
        self.rules.append(
            NAT,
            services,
            "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
        );
        for set in [sets::CLUSTER_IP, sets::LOAD_BALANCER] {
            self.matching(NAT, services, "", set, "-j ACCEPT");
        }

        let chain = "KUBE-LOAD-BALANCER";
        self.matching(NAT, chain, "", sets::LOAD_BALANCER_LOCAL, "-j RETURN");
        self.rules.append(NAT, chain, mark);

        let chain = "KUBE-NODE-PORT";
        for (protocol, local, all) in [
            ("-p tcp ", sets::NODE_PORT_LOCAL_TCP, sets::NODE_PORT_TCP),
            ("-p udp ", sets::NODE_PORT_LOCAL_UDP, sets::NODE_PORT_UDP),
            ("-p sctp ", sets::NODE_PORT_LOCAL_SCTP, sets::NODE_PORT_SCTP),
        ] {
            self.matching(NAT, chain, protocol, local, "-j RETURN");
            self.matching(NAT, chain, protocol, all, mark);
        }

        self.rules
            .append(NAT, "KUBE-MARK-MASQ", "-j MARK --or-mark 0x4000");
        let chain = "KUBE-POSTROUTING";
        self.matching(NAT, chain, "", sets::LOOP_BACK, "-j MASQUERADE");
        for rule in [
            "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-j MARK --xor-mark 0x4000",
            "-j MASQUERADE --random-fully",
        ] {
            self.rules.append(NAT, chain, rule);
        }
    }

    /// What goes to a cluster IP: masqueraded unless a pod sends it, and without a way to tell,
    /// only what has the cluster IP as its source: it is the node's own.
    fn cluster_ips(&mut self) {
        if self.sets.is_empty(sets::CLUSTER_IP) {
            return;
        }
        let set = format!("-m set --match-set {}", self.sets.name(sets::CLUSTER_IP));
        let what = match &self.site.pods {
            _ if self.site.masquerade_all => format!("{set} dst,dst"),
            Some(Local::Source(cidr)) => format!("! -s {cidr} {set} dst,dst"),
            Some(Local::Interface(name)) => format!("! -i {name} {set} dst,dst"),
            Some(Local::InterfacePrefix(prefix)) => format!("! -i {prefix}+ {set} dst,dst"),
            None => format!("{set} src,dst"),
        };
        self.rules
            .append(NAT, "KUBE-SERVICES", format!("{what} -j KUBE-MARK-MASQ"));
    }

    /// Who may come in, and what else of the device's addresses must not be reached.
    fn filter(&mut self) {
        let chain = "KUBE-SOURCE-RANGES-FIREWALL";
        let firewall = format!("-j {chain}");
        self.matching(
            FILTER,
            "KUBE-PROXY-FIREWALL",
            "",
            sets::LOAD_BALANCER_FW,
            &firewall,
        );
        for set in [
            sets::LOAD_BALANCER_SOURCE_CIDR,
            sets::LOAD_BALANCER_SOURCE_IP,
        ] {
            self.matching(FILTER, chain, "", set, "-j RETURN");
        }
        self.rules.append(FILTER, chain, "-j DROP");

        for rule in [
            "-m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ] {
            self.rules.append(FILTER, "KUBE-FORWARD", rule);
        }

        let health_check = sets::HEALTH_CHECK_NODE_PORT;
        self.matching(FILTER, "KUBE-NODE-PORT", "", health_check, "-j ACCEPT");

        let chain = "KUBE-IPVS-FILTER";
        for set in [
            sets::LOAD_BALANCER,
            sets::CLUSTER_IP,
            sets::EXTERNAL_IP,
            sets::EXTERNAL_IP_LOCAL,
            health_check,
        ] {
            self.matching(FILTER, chain, "", set, "-j RETURN");
        }
        self.matching(
            FILTER,
            chain,
            "-m conntrack --ctstate NEW ",
            sets::IPVS_IPS,
            "-j REJECT",
        );
    }

    /// A rule for what a set holds of a packet's destination; none if the set is empty.
    fn matching(&mut self, table: &str, chain: &str, before: &str, set: &str, then: &str) {
        self.rules.declare(table, chain);
        if self.sets.is_empty(set) {
            return;
        }
        let name = self.sets.name(set);
        let what = sets::looked_up(set);
        let rule = format!("{before}-m set --match-set {name} {what} {then}");
        self.rules.append(table, chain, rule);
    }
}

/// An address and a port as sets have them. The protocol by its IANA number, since its name would
/// be looked up in a file that not every machine has.
fn entry(protocol: Protocol, at: SocketAddr) -> String {
    let protocol = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    format!("{},{protocol}:{}", at.ip(), at.port())
}
