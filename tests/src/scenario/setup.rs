//! What there is in a scenario: how kube-proxy is set up, a Service and its endpoints.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::kubeproxy::{Family, Mode, NftablesLayout, NodePortAddresses, Settings};

/// A mode of kube-proxy, in its configuration's word, and of what release its rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Proxy {
    /// By iptables, of any release since 1.30.
    #[serde(rename = "iptables")]
    Iptables,
    /// By nftables, of 1.31 to 1.33.
    #[serde(rename = "nftables-1.31")]
    Nftables1_31,
    /// By nftables, of 1.34 and 1.35.
    #[serde(rename = "nftables-1.34")]
    Nftables1_34,
    /// By nftables, of 1.36.
    #[serde(rename = "nftables-1.36")]
    Nftables1_36,
    /// By IPVS, which few kernels but those of distributions have: in virtual machines.
    #[serde(rename = "ipvs")]
    Ipvs,
}

/// A family, in the word of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// The part of a `KubeProxyConfiguration` that a scenario may set, in its words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeProxy {
    masquerade_all: bool,
    /// Ranges; absent: the default of the mode.
    node_port_addresses: Option<Vec<IpNet>>,
    /// Absent: the one that holds the pods of every node. Empty: none.
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<Vec<IpNet>>,
}

/// The part of a Service that a scenario may set, in the words of its `spec`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    #[serde(rename = "type")]
    pub(super) type_: ServiceType,
    pub(super) external_traffic_policy: Option<TrafficPolicy>,
    pub(super) internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(default)]
    pub(super) load_balancer_source_ranges: Vec<IpNet>,
    pub(super) allocate_load_balancer_node_ports: Option<bool>,
    pub(super) session_affinity: Option<SessionAffinity>,
    /// Whether it has `externalIPs`, one of each family.
    #[serde(default, rename = "externalIPs")]
    pub(super) external_ips: bool,
    /// `ipMode` of the load balancer's addresses in its status; absent: not said.
    pub(super) ip_mode: Option<IpMode>,
    /// Whether pods of k3s' servicelb lead here, one on each node: by a host port of theirs, and by
    /// NAT in their own network namespace.
    #[serde(default, rename = "servicelb")]
    pub(super) relayed: bool,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// A policy of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum TrafficPolicy {
    Cluster,
    Local,
}

/// `spec.sessionAffinity`, where it is not `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum SessionAffinity {
    ClientIP,
}

/// `status.loadBalancer.ingress[].ipMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum IpMode {
    #[serde(rename = "VIP")]
    Vip,
    Proxy,
}

/// An endpoint: one of the pods that serve, in the conditions of an `EndpointSlice`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the conditions of the API, and what a Pod may ask for"
)]
pub struct Endpoint {
    /// Its node.
    pub(super) node: String,
    /// Which of the node's two pods that serve.
    #[serde(default = "Endpoint::first")]
    pub(super) replica: u8,
    /// Whether it lives in the network of its node.
    #[serde(default)]
    pub(super) host_network: bool,
    #[serde(default = "Endpoint::yes")]
    pub(super) ready: bool,
    /// Absent: as `ready`.
    pub(super) serving: Option<bool>,
    #[serde(default)]
    pub(super) terminating: bool,
    /// Whether a host port of its node leads to it, too.
    #[serde(default)]
    pub(super) host_port: bool,
    /// `hints.forZones`.
    #[serde(default)]
    pub(super) for_zones: Vec<String>,
    /// `hints.forNodes`.
    #[serde(default)]
    pub(super) for_nodes: Vec<String>,
    /// In which families it has an address.
    #[serde(default = "IpFamily::both")]
    pub(super) families: Vec<IpFamily>,
}

impl Proxy {
    /// Those that every kernel has what it takes for.
    pub const EVERYWHERE: [Self; 4] = [
        Self::Iptables,
        Self::Nftables1_31,
        Self::Nftables1_34,
        Self::Nftables1_36,
    ];

    pub(super) fn all() -> Vec<Self> {
        [&Self::EVERYWHERE[..], &[Self::Ipvs]].concat()
    }

    /// Its default settings.
    fn settings(self) -> Settings {
        let nftables = |nftables| Settings {
            nftables,
            ..Settings::of(Mode::Nftables)
        };
        match self {
            Self::Iptables => Settings::default(),
            Self::Nftables1_31 => nftables(NftablesLayout::Since1_31),
            Self::Nftables1_34 => nftables(NftablesLayout::Since1_34),
            Self::Nftables1_36 => nftables(NftablesLayout::Since1_36),
            Self::Ipvs => Settings::of(Mode::Ipvs),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables1_31 => "nftables 1.31",
            Self::Nftables1_34 => "nftables 1.34",
            Self::Nftables1_36 => "nftables 1.36",
            Self::Ipvs => "ipvs",
        })
    }
}

impl IpFamily {
    pub(super) fn both() -> Vec<Self> {
        vec![Self::IPv4, Self::IPv6]
    }

    /// As the lab names it.
    pub fn family(self) -> Family {
        match self {
            Self::IPv4 => Family::V4,
            Self::IPv6 => Family::V6,
        }
    }
}

impl Endpoint {
    fn first() -> u8 {
        1
    }

    fn yes() -> bool {
        true
    }
}

impl KubeProxy {
    /// All settings of a kube-proxy.
    pub fn settings(&self, proxy: Proxy) -> Settings {
        let default = proxy.settings();
        Settings {
            masquerade_all: self.masquerade_all,
            node_port_addresses: self
                .node_port_addresses
                .clone()
                .map_or(default.node_port_addresses, NodePortAddresses::Within),
            cluster_cidrs: self.cluster_cidr.clone().unwrap_or(default.cluster_cidrs),
            ..default
        }
    }
}

impl Service {
    /// Whether a client comes back to the endpoint that it had.
    pub(super) fn has_affinity(&self) -> bool {
        self.session_affinity.is_some()
    }

    pub(super) fn is_external(&self) -> bool {
        self.type_ != ServiceType::ClusterIP || self.external_ips
    }

    pub(super) fn has_node_port(&self) -> bool {
        match self.type_ {
            ServiceType::ClusterIP => false,
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => self.allocate_load_balancer_node_ports != Some(false),
        }
    }
}
