//! The table of one node in one family.

use std::{
    fmt::{Display, Write as _},
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use ipnet::IpNet;

use super::{Kind, Ruleset, names, names::Chains};
use crate::{
    cluster::Cluster,
    kubeproxy::{
        Family, NftablesLayout, Settings,
        services::ProxiedPort,
        site::{Local, Site, SitePort},
    },
};

mod base;
#[cfg(test)]
mod tests;

/// Sets the mark that leads to the masquerade.
const MARK: &str = "meta mark set meta mark | 0x00004000";
/// The chain that did so until 1.35.
const MARKING_CHAIN: &str = "mark-for-masquerade";
/// What keys are made of, after the address.
const PROTOCOL_AND_PORT: &str = "meta l4proto . th dport";

/// Renders the table of the node `node`.
pub fn render(
    cluster: &Cluster,
    node: &str,
    family: Family,
    settings: &Settings,
) -> Result<Ruleset> {
    let site = Site::of(cluster, node, family, settings)?;
    let mut renderer = Renderer {
        rules: Ruleset::new(family, "rules for kube-proxy"),
        site: &site,
    };
    base::base(&mut renderer);
    for port in &site.ports {
        renderer.port(port);
    }
    Ok(renderer.rules)
}

struct Renderer<'site> {
    rules: Ruleset,
    site: &'site Site,
}

impl Renderer<'_> {
    /// `ip` or `ip6`, as matches begin.
    fn ip(&self) -> &'static str {
        super::word(self.site.family)
    }

    /// The type of a set's addresses.
    fn address_type(&self) -> &'static str {
        match self.site.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// Whether chains mark, and every endpoint has one: until 1.35.
    fn is_in_chains(&self) -> bool {
        self.site.nftables != NftablesLayout::Since1_36
    }

    /// The statement that marks for the masquerade.
    fn mark(&self) -> String {
        if self.is_in_chains() {
            format!("jump {MARKING_CHAIN}")
        } else {
            MARK.to_owned()
        }
    }

    fn rule(&mut self, chain: &str, rule: impl Into<String>) {
        self.rules
            .object(Kind::Chain, chain)
            .lines
            .push(rule.into());
    }

    fn element(&mut self, kind: Kind, name: &str, element: impl Into<String>) {
        self.rules
            .object(kind, name)
            .elements
            .insert(element.into());
    }

    fn port(&mut self, site_port: &SitePort) {
        let SitePort { port, endpoints } = site_port;
        let chains = Chains::of(port);
        self.element(Kind::Set, "cluster-ips", port.cluster_ip.to_string());
        self.front_doors(site_port, &chains);
        if self.is_in_chains() && site_port.has_internal() {
            let chain = if port.internal_policy_local {
                &chains.local
            } else {
                &chains.cluster
            };
            let to = format!("{} daddr {}", self.ip(), port.cluster_ip);
            self.strangers_to_cluster_ip(chain, &to);
        }
        if site_port.leads_external() {
            self.external_traffic(site_port, &chains);
        }
        if site_port.has_firewall() {
            let admitted = in_braces(&self.site.admitted(port));
            let rule = format!("{} saddr != {admitted} drop", self.ip());
            self.rule(&chains.firewall, rule);
        }
        if let Some(endpoints) = site_port.under_cluster_policy() {
            self.spread(&chains.cluster, port, endpoints);
        }
        if let Some(endpoints) = site_port.under_local_policy() {
            self.spread(&chains.local, port, endpoints);
        }
        for endpoint in &endpoints.reachable {
            // Only an endpoint on this node can call itself by this node's rules.
            if !self.is_in_chains() && endpoints.on_node.contains(endpoint) {
                let ip = endpoint.ip();
                let element = format!("{ip} . {ip} . {} . {}", port.protocol, endpoint.port());
                self.element(Kind::Set, "hairpin-connections", element);
            }
            if port.affinity.is_some() || self.is_in_chains() {
                self.endpoint(port, *endpoint);
            }
        }
    }

    /// The addresses and ports by which the traffic of a port enters.
    fn front_doors(&mut self, site_port: &SitePort, chains: &Chains) {
        let SitePort { port, endpoints } = site_port;
        let ProxiedPort {
            name,
            protocol,
            port: number,
            cluster_ip,
            ..
        } = port;
        let key = |address: &IpAddr| format!("{address} . {protocol} . {number}");
        // What no rule of the nat chains took still bears its original destination when it comes
        // to the filter chains.
        let turned_away = format!(
            "comment \"{name}\" : {}",
            if endpoints.any {
                "drop"
            } else {
                "goto reject-chain"
            }
        );

        if site_port.has_internal() {
            let chain = if port.internal_policy_local {
                &chains.local
            } else {
                &chains.cluster
            };
            let element = format!("{} : goto {chain}", key(cluster_ip));
            self.element(Kind::Map, "service-ips", element);
        } else {
            let element = format!("{} {turned_away}", key(cluster_ip));
            self.element(Kind::Map, "no-endpoint-services", element);
        }
        for ip in port.external_ips.iter().chain(&port.load_balancer_vips) {
            if endpoints.any {
                let element = format!("{} : goto {}", key(ip), chains.external);
                self.element(Kind::Map, "service-ips", element);
            }
            if !site_port.has_external() {
                let element = format!("{} {turned_away}", key(ip));
                self.element(Kind::Map, "no-endpoint-services", element);
            }
        }
        if site_port.has_firewall() {
            for ip in &port.load_balancer_vips {
                let element = format!("{} : goto {}", key(ip), chains.firewall);
                self.element(Kind::Map, "firewall-ips", element);
            }
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{protocol} . {node_port}");
            if endpoints.any {
                let element = format!("{key} : goto {}", chains.external);
                self.element(Kind::Map, "service-nodeports", element);
            }
            if !site_port.has_external() {
                let element = format!("{key} {turned_away}");
                self.element(Kind::Map, "no-endpoint-nodeports", element);
            }
        }
    }

    /// What comes from outside: masqueraded unless the policy keeps it on this node.
    fn external_traffic(&mut self, site_port: &SitePort, chains: &Chains) {
        let Chains {
            cluster,
            local,
            external: chain,
            firewall: _,
        } = chains;
        let local_policy = site_port.port.external_policy_local;
        if local_policy {
            if let Some(pods) = &self.site.pods {
                let from = self.from(pods, "");
                let rule = format!("{from} goto {cluster} comment \"short-circuit pod traffic\"");
                self.rule(chain, rule);
            }
            let from_here = "fib saddr type local";
            self.rule(
                chain,
                format!(
                    "{from_here} {} comment \"masquerade local traffic\"",
                    self.mark()
                ),
            );
            self.rule(
                chain,
                format!("{from_here} goto {cluster} comment \"short-circuit local traffic\""),
            );
        } else {
            self.rule(chain, format!("{} comment \"masquerade\"", self.mark()));
        }
        if site_port.has_external() {
            let target = if local_policy { local } else { cluster };
            self.rule(chain, format!("goto {target}"));
        }
    }

    /// Spreads over endpoints: who came before goes where it went before, the others at random.
    fn spread(&mut self, chain: &str, port: &ProxiedPort, endpoints: &[SocketAddr]) {
        let ip = self.ip();
        let chance = format!("numgen random mod {}", endpoints.len());
        if port.affinity.is_none() && !self.is_in_chains() {
            let to = numbered(endpoints, |endpoint| {
                format!("{} . {}", endpoint.ip(), endpoint.port())
            });
            let rule = format!(
                "meta l4proto {} dnat {ip} to {chance} map {to}",
                port.protocol
            );
            self.rule(chain, rule);
            return;
        }
        for endpoint in endpoints.iter().filter(|_| port.affinity.is_some()) {
            let (target, clients) = names::endpoint(port, *endpoint);
            self.rule(chain, format!("{ip} saddr @{clients} goto {target}"));
        }
        let to = numbered(endpoints, |endpoint| {
            format!("goto {}", names::endpoint(port, *endpoint).0)
        });
        self.rule(chain, format!("{chance} vmap {to}"));
    }

    /// One endpoint that remembers its clients, or, until 1.35, any.
    fn endpoint(&mut self, port: &ProxiedPort, endpoint: SocketAddr) {
        let (chain, clients) = names::endpoint(port, endpoint);
        if self.is_in_chains() {
            let itself = format!("{} saddr {}", self.ip(), endpoint.ip());
            self.rule(&chain, format!("{itself} {}", self.mark()));
        }
        if let Some(seconds) = port.affinity {
            self.clients(&clients, seconds);
            let remember = format!("update @{clients} {{ {} saddr }}", self.ip());
            self.rule(&chain, remember);
        }
        self.rule(
            &chain,
            format!("meta l4proto {} dnat to {endpoint}", port.protocol),
        );
    }

    /// The set of the clients that an endpoint served.
    fn clients(&mut self, name: &str, seconds: i32) {
        let set = &mut self.rules.object(Kind::Set, name).lines;
        let address_type = match self.site.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        set.extend([
            format!("type {address_type}"),
            // What the kernel takes when nothing is said.
            "size 65535".to_owned(),
            "flags dynamic,timeout".to_owned(),
            format!("timeout {}", duration(seconds)),
        ]);
    }

    /// Masquerades what comes from outside the cluster `to` cluster IPs, or all that does.
    fn strangers_to_cluster_ip(&mut self, chain: &str, to: &str) {
        let mark = self.mark();
        let rule = if self.site.masquerade_all {
            // Not among the recordings, which are of one setting; only its effect is known.
            format!("{to} {mark} comment \"masquerade clusterIP traffic\"")
        } else if let Some(pods) = &self.site.pods {
            let not_from = self.from(pods, "!= ");
            let comment = "masquerade clusterIP traffic from outside cluster";
            format!("{to} {not_from} {mark} comment \"{comment}\"")
        } else {
            return;
        };
        self.rule(chain, rule);
    }

    /// Matches what pods send; with `!= `, what others do.
    fn from(&self, pods: &Local, unless: &str) -> String {
        match pods {
            Local::Source(cidr) => format!("{} saddr {unless}{cidr}", self.ip()),
            Local::Interface(name) => format!("iifname {unless}\"{name}\""),
            Local::InterfacePrefix(prefix) => format!("iifname {unless}\"{prefix}*\""),
        }
    }
}

/// Values by the numbers that chance draws.
fn numbered(endpoints: &[SocketAddr], value: impl Fn(&SocketAddr) -> String) -> String {
    let numbered: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : {}", value(endpoint)))
        .collect();
    format!("{{ {} }}", numbered.join(", "))
}

/// Ranges as a set holds them: none within another, in the order of their addresses.
fn in_braces(ranges: &[IpNet]) -> String {
    let ranges: Vec<String> = IpNet::aggregate(&ranges.to_vec())
        .into_iter()
        .map(range)
        .collect();
    format!("{{ {} }}", ranges.join(", "))
}

/// A range as nft prints it: a single address without its length.
fn range(range: IpNet) -> String {
    let shown: &dyn Display = if range.prefix_len() == range.max_prefix_len() {
        &range.addr()
    } else {
        &range
    };
    shown.to_string()
}

/// A duration as nft prints it.
fn duration(seconds: i32) -> String {
    let mut left = seconds;
    let mut text = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if left >= length {
            write!(text, "{}{unit}", left / length).expect("writing to a string cannot fail");
            left %= length;
        }
    }
    text
}
