//! kube-proxy's configuration, as far as it decides what becomes of a source address
//! (`kubeproxy.config.k8s.io/v1alpha1`, `KubeProxyConfiguration`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::{Family, Node};

/// The namespace of kube-proxy's `ConfigMap`, and how its name begins: `kube-proxy` as kubeadm
/// writes it, `kube-proxy-config` on EKS.
const CONFIG_MAP: (&str, &str) = ("kube-system", "kube-proxy");
const KIND: &str = "KubeProxyConfiguration";

/// The device that holds every Service address of a node in IPVS mode
/// (`pkg/proxy/ipvs/proxier.go`).
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// What kube-proxy was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubeProxy {
    /// How it programs the kernel.
    pub mode: ProxyMode,
    /// `clusterCIDR`: one range a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// By what it takes a packet for one of a pod.
    pub detect_local: DetectLocal,
    /// Whether it masquerades everything that goes to a cluster IP.
    pub masquerade_all: bool,
    /// At which of a node's addresses it serves node ports.
    pub node_ports: NodePortAddresses,
    /// Whether it serves node ports at 127.0.0.1, for the node itself: the mode of iptables, unless
    /// told otherwise (`iptables.localhostNodePorts`), where it serves them at every address.
    pub serves_localhost: bool,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyMode {
    /// The default.
    #[default]
    Iptables,
    /// The kernel's virtual servers (`net/netfilter/ipvs/`).
    Ipvs,
    /// What replaces the default.
    Nftables,
}

/// `nodePortAddresses`, with the default of the mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodePortAddresses {
    /// At all; by the modes of iptables and IPVS, unless told otherwise.
    #[default]
    All,
    /// At the first internal address of each family; by the mode of nftables, unless told
    /// otherwise.
    Primary,
    /// At those in these ranges.
    In(Vec<IpNet>),
}

/// `detectLocalMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DetectLocal {
    /// The source is in the cluster CIDR.
    #[default]
    ClusterCidr,
    /// The source is in this node's pod CIDR.
    NodeCidr,
    /// It came by an interface of a certain name.
    Interface,
}

/// Why a text is no `KubeProxyConfiguration`.
#[derive(Debug, thiserror::Error)]
pub enum KubeProxyError {
    /// No YAML, or a field of another type; the message ends with line and column.
    #[error("{0}")]
    Yaml(String),
    /// A document of another kind.
    #[error("kind is {}; expected {KIND}", .0.escape_debug())]
    Kind(String),
    /// A range that is none.
    #[error("clusterCIDR: {} is no range of addresses", .0.escape_debug())]
    ClusterCidr(String),
    /// The same, of the addresses for node ports.
    #[error("nodePortAddresses: {} is no range of addresses", .0.escape_debug())]
    NodePortAddresses(String),
    /// A mode that is none.
    #[error(
        "detectLocalMode is {}; expected ClusterCIDR, NodeCIDR, BridgeInterface or \
         InterfaceNamePrefix",
        .0.escape_debug()
    )]
    DetectLocalMode(String),
}

/// Every field may be null, as kubeadm writes it: unset.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    kind: Option<String>,
    mode: Option<String>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    detect_local_mode: Option<String>,
    node_port_addresses: Option<Vec<String>>,
    iptables: Option<Section>,
    ipvs: Option<Section>,
    nftables: Option<Section>,
}

/// What the modes' sections have in common here. IPVS goes by the one of iptables
/// (`pkg/proxy/ipvs/proxier.go`).
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Section {
    masquerade_all: Option<bool>,
    localhost_node_ports: Option<bool>,
}

impl ProxyMode {
    /// As kube-proxy spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

impl KubeProxy {
    /// Reads a YAML document.
    pub fn parse(text: &str) -> Result<Self, KubeProxyError> {
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| KubeProxyError::Yaml(one_line(&error)))?;
        let Document {
            kind,
            mode,
            cluster_cidr,
            detect_local_mode,
            node_port_addresses,
            iptables,
            ipvs,
            nftables,
        } = document;
        let [kind, mode, cluster_cidr, detect_local_mode] =
            [kind, mode, cluster_cidr, detect_local_mode].map(Option::unwrap_or_default);
        if kind != KIND {
            return Err(KubeProxyError::Kind(kind));
        }
        let cluster_cidrs = cluster_cidr
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .map(|range| {
                range
                    .parse()
                    .map_err(|_no_range| KubeProxyError::ClusterCidr(range.to_owned()))
            })
            .collect::<Result<_, _>>()?;
        let detect_local = match detect_local_mode.as_str() {
            "" | "ClusterCIDR" => DetectLocal::ClusterCidr,
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" | "InterfaceNamePrefix" => DetectLocal::Interface,
            _ => return Err(KubeProxyError::DetectLocalMode(detect_local_mode)),
        };
        let localhost_node_ports = iptables
            .as_ref()
            .and_then(|section| section.localhost_node_ports)
            .unwrap_or(true);
        let [iptables, ipvs, nftables] = [iptables, ipvs, nftables].map(|section| {
            let masquerade_all = section.and_then(|section| section.masquerade_all);
            masquerade_all.unwrap_or_default()
        });
        let mode = [ProxyMode::Nftables, ProxyMode::Ipvs]
            .into_iter()
            .find(|known| known.word() == mode)
            .unwrap_or_default();
        let masquerade_all = match mode {
            ProxyMode::Nftables => nftables,
            ProxyMode::Ipvs => ipvs || iptables,
            ProxyMode::Iptables => iptables,
        };
        let node_ports = match node_port_addresses.unwrap_or_default().as_slice() {
            [] if mode == ProxyMode::Nftables => NodePortAddresses::Primary,
            [] => NodePortAddresses::All,
            [only] if only == "primary" => NodePortAddresses::Primary,
            ranges => NodePortAddresses::In(
                ranges
                    .iter()
                    .map(|range| {
                        range
                            .parse()
                            .map_err(|_no_range| KubeProxyError::NodePortAddresses(range.clone()))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        let serves_localhost = mode == ProxyMode::Iptables
            && localhost_node_ports
            && node_ports == NodePortAddresses::All;
        Ok(Self {
            mode,
            cluster_cidrs,
            detect_local,
            masquerade_all,
            node_ports,
            serves_localhost,
        })
    }

    /// The configuration that a cluster's `ConfigMap`s hold, if one of them does; an error if that
    /// cannot be read.
    pub fn of_cluster(config_maps: &[ConfigMap]) -> Result<Option<Self>, KubeProxyError> {
        let mut documents = config_maps
            .iter()
            .flat_map(|map| map.data.iter().flat_map(BTreeMap::values));
        documents
            .find_map(|document| match Self::parse(document) {
                Ok(config) => Some(Ok(config)),
                // Beside the configuration there is a kubeconfig.
                Err(KubeProxyError::Kind(_)) => None,
                Err(error) => document.contains(KIND).then_some(Err(error)),
            })
            .transpose()
    }

    /// Whether kube-proxy takes `source` for an address outside the cluster, whose connections to
    /// a cluster IP it masquerades. `None` if its mode does not go by addresses.
    pub fn is_outside(&self, source: IpAddr, node: Option<&Node>) -> Option<bool> {
        let mut ranges = self.local_ranges(source, node)?.peekable();
        // Without a range it cannot tell, and takes nothing for outside
        // (`pkg/proxy/util/localdetector.go`, the no-op detector).
        Some(ranges.peek().is_some() && !ranges.any(|range| range.contains(&source)))
    }

    /// Whether kube-proxy takes `source` for a pod's, which it spares `externalTrafficPolicy:
    /// Local`. `None` if its mode does not go by addresses. Not the opposite of
    /// [`KubeProxy::is_outside`]: without a range nothing is either.
    pub fn is_local(&self, source: IpAddr, node: Option<&Node>) -> Option<bool> {
        let mut ranges = self.local_ranges(source, node)?;
        Some(ranges.any(|range| range.contains(&source)))
    }

    /// The ranges of `source`'s family that it takes for those of pods.
    fn local_ranges<'a>(
        &'a self,
        source: IpAddr,
        node: Option<&'a Node>,
    ) -> Option<impl Iterator<Item = &'a IpNet>> {
        let ranges = match self.detect_local {
            DetectLocal::ClusterCidr => &self.cluster_cidrs,
            DetectLocal::NodeCidr => &node?.pod_cidrs,
            DetectLocal::Interface => return None,
        };
        let of_family = move |range: &&IpNet| range.addr().is_ipv4() == source.is_ipv4();
        Some(ranges.iter().filter(of_family))
    }

    /// Whether it serves node ports at `address` of `node`.
    pub fn serves_node_ports_at(&self, address: IpAddr, node: &Node) -> bool {
        match &self.node_ports {
            // There is a virtual server at each address of the node, but at no loopback address
            // (`pkg/proxy/ipvs/proxier.go`).
            _ if self.mode == ProxyMode::Ipvs && address.is_loopback() => false,
            // `! -d ::1/128`, and `! -d 127.0.0.0/8` unless told otherwise
            // (`pkg/proxy/iptables/proxier.go`).
            NodePortAddresses::All => {
                !address.is_loopback() || address.is_ipv4() && self.serves_localhost
            }
            NodePortAddresses::Primary => {
                node.primary_address(Family::of(address)) == Some(address)
            }
            NodePortAddresses::In(ranges) => ranges.iter().any(|range| range.contains(&address)),
        }
    }
}

/// Whether a `ConfigMap` of this name may be kube-proxy's.
pub(super) fn may_be_config_map(namespace: &str, name: &str) -> bool {
    namespace == CONFIG_MAP.0 && name.starts_with(CONFIG_MAP.1)
}

/// Whether a document may be the configuration, whole or broken, as
/// [`KubeProxy::of_cluster`] takes it.
pub(super) fn is_config(document: &str) -> bool {
    !matches!(KubeProxy::parse(document), Err(KubeProxyError::Kind(_))) && document.contains(KIND)
}

/// The first line of an error that may draw a picture of the document below.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("the test's address parses")
    }

    fn parsed(fields: &str) -> Result<KubeProxy, KubeProxyError> {
        KubeProxy::parse(&format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: {KIND}\n{fields}"
        ))
    }

    #[test]
    fn both_families_have_a_range() {
        let config = parsed("clusterCIDR: 10.244.0.0/16,fd00:244::/48\nmode: \"\"\n").expect("one");
        for (source, outside) in [
            ("10.244.7.9", false),
            ("203.0.113.50", true),
            ("fd00:244:0:1::5", false),
            ("fd00:244:1::5", true),
        ] {
            assert_eq!(
                config.is_outside(ip(source), None),
                Some(outside),
                "{source}"
            );
        }
    }

    /// Much of what kubeadm writes is null.
    #[test]
    fn what_kubeadm_writes_is_read() {
        let config = parsed(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection:\n  burst: 0\n  \
             kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\nclusterCIDR: 10.244.0.0/16\n\
             configSyncPeriod: 0s\nconntrack:\n  maxPerCore: null\n  min: null\ndetectLocal:\n  \
             bridgeInterface: \"\"\n  interfaceNamePrefix: \"\"\ndetectLocalMode: \"\"\n\
             iptables:\n  localhostNodePorts: null\n  masqueradeAll: false\n  masqueradeBit: null\n\
             ipvs:\n  excludeCIDRs: null\nlogging:\n  flushFrequency: 0\nmode: \"\"\nnftables:\n  \
             masqueradeAll: false\nnodePortAddresses: null\noomScoreAdj: null\nwinkernel:\n  \
             networkName: \"\"\n",
        )
        .expect("it is what kubeadm writes");
        assert_eq!(config.cluster_cidrs.len(), 1);
        assert_eq!(config.node_ports, NodePortAddresses::All);
        assert!(!config.masquerade_all);
    }

    #[test]
    fn without_a_range_nothing_is_outside() {
        let config = parsed("clusterCIDR: 10.244.0.0/16\n").expect("one");
        assert_eq!(config.is_outside(ip("2001:db8::1"), None), Some(false));
        assert_eq!(config.is_local(ip("2001:db8::1"), None), Some(false));
    }

    #[rstest]
    #[case::of_the_default_mode("", [true, true])]
    #[case::of_nftables("mode: nftables", [true, false])]
    #[case::of_nftables_told_otherwise("mode: nftables\nnodePortAddresses: [0.0.0.0/0]", [true, true])]
    #[case::told("nodePortAddresses: [172.31.1.0/24]", [false, true])]
    #[case::told_primary("nodePortAddresses: [primary]", [true, false])]
    fn node_ports_are_served_where_it_was_told(#[case] fields: &str, #[case] expected: [bool; 2]) {
        let node = Node {
            name: "node1".into(),
            addresses: vec![ip("172.31.0.11"), ip("172.31.1.11")],
            pod_cidrs: Vec::new(),
            zone: None,
        };
        let config = parsed(fields).expect("one");
        let served = [0, 1].map(|one| config.serves_node_ports_at(node.addresses[one], &node));
        assert_eq!(served, expected);
    }

    #[rstest]
    #[case::iptables("mode: \"\"", true)]
    #[case::ipvs("mode: ipvs", false)]
    #[case::ipvs_told("mode: ipvs\nnodePortAddresses: [127.0.0.0/8]", false)]
    fn node_ports_at_the_loopback_address_are_iptables_own(
        #[case] fields: &str,
        #[case] expected: bool,
    ) {
        let node = Node {
            name: "node1".into(),
            addresses: vec![ip("172.31.0.11")],
            pod_cidrs: Vec::new(),
            zone: None,
        };
        let config = parsed(fields).expect("one");
        assert_eq!(
            config.serves_node_ports_at(ip("127.0.0.1"), &node),
            expected
        );
        assert_eq!(
            config.serves_node_ports_at(ip("172.31.0.11"), &node),
            !fields.contains("127.0.0.0/8")
        );
    }

    #[rstest]
    #[case::of_this_mode("mode: nftables\nnftables: {masqueradeAll: true}", true)]
    #[case::of_another_mode("mode: nftables\niptables: {masqueradeAll: true}", false)]
    #[case::of_the_default_mode("iptables: {masqueradeAll: true}", true)]
    #[case::unset("iptables: {}", false)]
    fn each_mode_masquerades_by_its_own_section(#[case] fields: &str, #[case] expected: bool) {
        assert_eq!(parsed(fields).expect("one").masquerade_all, expected);
    }

    #[rstest]
    #[case::kind("kind: Deployment", "kind is Deployment")]
    #[case::range("kind: KubeProxyConfiguration\nclusterCIDR: here", "here is no range")]
    #[case::mode(
        "kind: KubeProxyConfiguration\ndetectLocalMode: Some",
        "detectLocalMode is Some"
    )]
    #[case::shape("kind: [1]", "line 1")]
    #[case::no_yaml("kind: {", "line")]
    fn errors_are_one_line_and_say_where(#[case] document: &str, #[case] says: &str) {
        let error = KubeProxy::parse(document).expect_err("wrong").to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_clusters_config_map_holds_it() {
        let map = |data: &[(&str, &str)]| ConfigMap {
            data: Some(
                data.iter()
                    .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                    .collect(),
            ),
            ..ConfigMap::default()
        };
        let maps = [map(&[
            (
                "config.conf",
                "kind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n",
            ),
            ("a-kubeconfig.conf", "kind: Config\n"),
        ])];
        let config = KubeProxy::of_cluster(&maps)
            .expect("it parses")
            .expect("one");
        assert_eq!(config.cluster_cidrs.len(), 1);
        let none = KubeProxy::of_cluster(&[map(&[("a", "b")])]);
        assert!(matches!(none, Ok(None)));
        let broken = map(&[(
            "config",
            "kind: KubeProxyConfiguration\nclusterCIDR: here\n",
        )]);
        assert!(KubeProxy::of_cluster(&[broken]).is_err());
    }
}
