//! The part of a `KubeProxyConfiguration` that shapes rules.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::Family;

/// How a kube-proxy is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `mode`, and what the rules go through.
    pub mode: Mode,
    /// `clusterCIDR`, at most one of a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// `detectLocalMode`: what counts as a pod's traffic.
    pub detect_local: DetectLocal,
    /// `masqueradeAll` of the mode: masquerade whatever goes to a cluster IP.
    pub masquerade_all: bool,
    /// `nodePortAddresses`: on which addresses of a node its `NodePort`s are served.
    pub node_port_addresses: NodePortAddresses,
    /// `iptables.localhostNodePorts`: also at 127.0.0.1. The other modes have no such thing.
    pub localhost_node_ports: bool,
    /// In mode nftables, which releases' table. In mode iptables all since 1.30 program the same.
    pub nftables: NftablesLayout,
}

/// The shape of kube-proxy's table in mode nftables, which releases have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NftablesLayout {
    /// 1.31 to 1.33: what has no endpoint is turned away before the NAT on the way out of the node.
    /// So the node itself is not spared policy Local (kubernetes/kubernetes#131765).
    Since1_31,
    /// 1.34 and 1.35: it is turned away after the NAT, everywhere.
    Since1_34,
    /// 1.36: no chain that marks, no chains of endpoints.
    #[default]
    Since1_36,
}

/// What programs the kernel's netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// kube-proxy's oldest mode that is still in use, and its default.
    Iptables(Backend),
    /// The kernel's virtual servers; on its way out.
    Ipvs,
    /// The mode that replaces it.
    Nftables,
}

/// What `iptables` stands for on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's nftables, spoken to in the old language: the default of distributions.
    Nft,
    /// The kernel's `x_tables`.
    Legacy,
}

/// `detectLocalMode` of a `KubeProxyConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// A source in the cluster CIDR of the family. Without one nothing counts as a pod.
    ClusterCidr,
    /// A source in the node's own pod CIDR.
    NodeCidr,
    /// Whatever comes by this interface.
    BridgeInterface(String),
    /// Whatever comes by an interface whose name begins so.
    InterfaceNamePrefix(String),
}

/// `nodePortAddresses` of a `KubeProxyConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// None given: every local address in iptables and IPVS mode, the primary ones in nftables
    /// mode.
    ModeDefault,
    /// `["primary"]`: on the node's addresses in its Node object.
    Primary,
    /// On the node's addresses within these ranges; on all of a family that has no range here.
    Within(Vec<IpNet>),
}

/// Where `NodePort`s are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// On every local address.
    Everywhere,
    /// On these.
    On(Vec<IpAddr>),
}

impl Default for Settings {
    /// kube-proxy's defaults, and the cluster CIDRs of the demo cluster.
    fn default() -> Self {
        let cidrs = ["10.244.0.0/16", "fd00:10:244::/48"];
        Self {
            mode: Mode::Iptables(Backend::Nft),
            cluster_cidrs: cidrs
                .map(|cidr| cidr.parse().expect("a literal range"))
                .to_vec(),
            detect_local: DetectLocal::ClusterCidr,
            masquerade_all: false,
            node_port_addresses: NodePortAddresses::ModeDefault,
            localhost_node_ports: true,
            nftables: NftablesLayout::default(),
        }
    }
}

impl Settings {
    /// The default settings in another mode.
    pub fn of(mode: Mode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// On which of a node's addresses its `NodePort`s are served.
    pub fn served(&self, node_addresses: &[IpAddr], family: Family) -> Served {
        let of_family = || {
            node_addresses
                .iter()
                .copied()
                .filter(|address| family.holds(*address))
        };
        let ranges = match (&self.node_port_addresses, self.mode) {
            (NodePortAddresses::ModeDefault, Mode::Iptables(_) | Mode::Ipvs) => {
                return Served::Everywhere;
            }
            // The first of a family is the primary one.
            (NodePortAddresses::ModeDefault, Mode::Nftables) | (NodePortAddresses::Primary, _) => {
                return Served::On(of_family().take(1).collect());
            }
            (NodePortAddresses::Within(ranges), _) => ranges,
        };
        let mut ranges = ranges
            .iter()
            .filter(|range| family.holds(range.addr()))
            .peekable();
        if ranges.peek().is_none() || ranges.clone().any(|range| range.prefix_len() == 0) {
            return Served::Everywhere;
        }
        let within = |address: &IpAddr| ranges.clone().any(|range| range.contains(address));
        Served::On(of_family().filter(within).collect())
    }

    /// Whether `NodePort`s are served at the loopback address of a family, too.
    pub fn serves_localhost(&self, family: Family) -> bool {
        match self.mode {
            Mode::Iptables(_) => {
                // Whatever else is chosen, it is the rule for every local address that serves it.
                self.localhost_node_ports
                    && family == Family::V4
                    && self.served(&[], family) == Served::Everywhere
            }
            Mode::Ipvs | Mode::Nftables => false,
        }
    }
}

/// The `KubeProxyConfiguration`, as YAML.
impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            cluster_cidrs,
            detect_local,
            masquerade_all,
            node_port_addresses,
            localhost_node_ports,
            // Of the release, which no configuration tells.
            nftables: _,
        } = self;
        let list = |ranges: &[IpNet], separator: &str| {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            ranges.join(separator)
        };
        writeln!(
            formatter,
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\nclusterCIDR: \"{}\"",
            list(cluster_cidrs, ",")
        )?;
        let (detect_local_mode, interface) = match detect_local {
            DetectLocal::ClusterCidr => ("ClusterCIDR", None),
            DetectLocal::NodeCidr => ("NodeCIDR", None),
            DetectLocal::BridgeInterface(name) => {
                ("BridgeInterface", Some(("bridgeInterface", name)))
            }
            DetectLocal::InterfaceNamePrefix(prefix) => {
                ("InterfaceNamePrefix", Some(("interfaceNamePrefix", prefix)))
            }
        };
        writeln!(formatter, "detectLocalMode: {detect_local_mode}")?;
        if let Some((field, name)) = interface {
            writeln!(formatter, "detectLocal:\n  {field}: \"{name}\"")?;
        }
        let addresses = match node_port_addresses {
            NodePortAddresses::ModeDefault => String::new(),
            NodePortAddresses::Primary => "primary".to_owned(),
            NodePortAddresses::Within(ranges) => list(ranges, "\", \""),
        };
        if !addresses.is_empty() {
            writeln!(formatter, "nodePortAddresses: [\"{addresses}\"]")?;
        }
        // IPVS mode goes by the section of iptables mode.
        let section = match mode {
            Mode::Iptables(_) | Mode::Ipvs => "iptables",
            Mode::Nftables => "nftables",
        };
        writeln!(formatter, "{section}:\n  masqueradeAll: {masquerade_all}")?;
        match mode {
            Mode::Iptables(_) => {
                writeln!(formatter, "  localhostNodePorts: {localhost_node_ports}")
            }
            Mode::Ipvs | Mode::Nftables => Ok(()),
        }
    }
}

/// The word of a `KubeProxyConfiguration`.
impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Iptables(_) => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reads_as_one_of_kube_proxy() {
        let settings = Settings {
            mode: Mode::Nftables,
            detect_local: DetectLocal::InterfaceNamePrefix("cali".to_owned()),
            node_port_addresses: NodePortAddresses::Within(vec![
                "172.31.0.0/24".parse().expect("a range"),
                "fd00::/8".parse().expect("a range"),
            ]),
            ..Settings::default()
        };
        assert_eq!(
            settings.to_string(),
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
             kind: KubeProxyConfiguration\n\
             mode: nftables\n\
             clusterCIDR: \"10.244.0.0/16,fd00:10:244::/48\"\n\
             detectLocalMode: InterfaceNamePrefix\n\
             detectLocal:\n  interfaceNamePrefix: \"cali\"\n\
             nodePortAddresses: [\"172.31.0.0/24\", \"fd00::/8\"]\n\
             nftables:\n  masqueradeAll: false\n"
        );
    }

    #[test]
    fn where_node_ports_are_served_depends_on_the_mode_and_the_settings() {
        let node: Vec<IpAddr> = ["172.31.0.11", "172.31.1.11", "fd00::11"]
            .map(|address| address.parse().expect("an address"))
            .to_vec();
        let served = |mode, node_port_addresses: &NodePortAddresses, family| {
            let settings = Settings {
                mode,
                node_port_addresses: node_port_addresses.clone(),
                ..Settings::default()
            };
            (
                settings.served(&node, family),
                settings.serves_localhost(family),
            )
        };
        let iptables = Mode::Iptables(Backend::Nft);
        let within = |range: &str| NodePortAddresses::Within(vec![range.parse().expect("a range")]);
        let primary = Served::On(vec![node[0]]);
        for (mode, addresses, family, expected) in [
            (
                iptables,
                NodePortAddresses::ModeDefault,
                Family::V4,
                (Served::Everywhere, true),
            ),
            (
                iptables,
                NodePortAddresses::ModeDefault,
                Family::V6,
                (Served::Everywhere, false),
            ),
            (
                iptables,
                NodePortAddresses::Primary,
                Family::V4,
                (primary.clone(), false),
            ),
            (
                Mode::Nftables,
                NodePortAddresses::ModeDefault,
                Family::V4,
                (primary, false),
            ),
            (
                Mode::Nftables,
                within("172.31.1.0/24"),
                Family::V4,
                (Served::On(vec![node[1]]), false),
            ),
            (
                Mode::Nftables,
                within("172.31.1.0/24"),
                Family::V6,
                (Served::Everywhere, false),
            ),
            (
                Mode::Nftables,
                within("0.0.0.0/0"),
                Family::V4,
                (Served::Everywhere, false),
            ),
            (
                iptables,
                within("10.0.0.0/8"),
                Family::V4,
                (Served::On(Vec::new()), false),
            ),
        ] {
            assert_eq!(
                served(mode, &addresses, family),
                expected,
                "{mode:?} {addresses:?} {family:?}"
            );
        }
    }
}
