//! Scenarios: rows of the decision table as files.
//!
//! A file of `tests/scenarios` says what there is (a Service, its endpoints, how kube-proxy and the
//! network are set up), who connects by which front door, and what must come out. Everything
//! else is the same in all: two nodes, and on each of them two pods that serve (`web`) and one
//! that only calls. Which addresses and ports a scenario's Service has is none of its business;
//! it gets its own, so that many scenarios share one lab.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    kubeproxy::{Family, Mode, NftablesLayout, NodePortAddresses, Settings},
    lab::network::Network,
    protocol::Protocol,
};

mod answers;
mod cluster;
mod stage;
mod table;

pub use answers::{Answer, Answers, Outcome, SourceIp};
pub use cluster::Cast;
pub use stage::play;
pub use table::{Cells, table};

/// The names of the two nodes.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// A row of the decision table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name of its file, without the ending; and the name of its Service.
    #[serde(skip)]
    pub name: String,
    /// The number of the row, or the name of the setup beside the table.
    pub row: String,
    /// What happens, in a sentence.
    pub says: String,
    /// Where that is written: a file of Kubernetes or of the kernel, a KEP, an RFC.
    pub source: String,
    /// In which modes of kube-proxy.
    #[serde(default = "Proxy::all")]
    pub modes: Vec<Proxy>,
    /// In which families.
    #[serde(default = "IpFamily::both")]
    pub families: Vec<IpFamily>,
    /// The transport protocol of the Service's port.
    #[serde(default)]
    pub protocol: Protocol,
    /// How nodes and pods are wired.
    #[serde(default)]
    pub network: Network,
    /// What kube-proxy is told beside its mode.
    #[serde(default)]
    pub kube_proxy: KubeProxy,
    /// The Service.
    pub service: Service,
    /// Its endpoints.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Who connects, and where.
    pub connection: Connection,
    /// How the Service changes while the flow goes on. The flow must not change with it.
    #[serde(default)]
    pub change: Option<Change>,
    /// What must come out.
    pub expect: Answer,
    /// What happens behind the last thing that a node sees, if anything does.
    #[serde(default)]
    pub beyond: Option<Beyond>,
    /// What is predicted, where the objects alone cannot tell what comes out; with the reason.
    #[serde(default)]
    pub predicted: Option<Predicted>,
}

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
    Nftables,
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
    type_: ServiceType,
    external_traffic_policy: Option<TrafficPolicy>,
    internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(default)]
    load_balancer_source_ranges: Vec<IpNet>,
    allocate_load_balancer_node_ports: Option<bool>,
    session_affinity: Option<SessionAffinity>,
    /// Whether it has `externalIPs`, one of each family.
    #[serde(default, rename = "externalIPs")]
    external_ips: bool,
    /// `ipMode` of the load balancer's addresses in its status; absent: not said.
    ip_mode: Option<IpMode>,
    /// Whether pods of k3s' servicelb lead here, one on each node: by a host port of theirs, and by
    /// NAT in their own network namespace.
    #[serde(default, rename = "servicelb")]
    relayed: bool,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// A policy of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
enum TrafficPolicy {
    Cluster,
    Local,
}

/// `spec.sessionAffinity`, where it is not `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
enum SessionAffinity {
    ClientIP,
}

/// `status.loadBalancer.ingress[].ipMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
enum IpMode {
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
    node: String,
    /// Which of the node's two pods that serve.
    #[serde(default = "Endpoint::first")]
    replica: u8,
    /// Whether it lives in the network of its node.
    #[serde(default)]
    host_network: bool,
    #[serde(default = "Endpoint::yes")]
    ready: bool,
    /// Absent: as `ready`.
    serving: Option<bool>,
    #[serde(default)]
    terminating: bool,
    /// Whether a host port of its node leads to it, too.
    #[serde(default)]
    host_port: bool,
    /// `hints.forZones`.
    #[serde(default)]
    for_zones: Vec<String>,
    /// `hints.forNodes`.
    #[serde(default)]
    for_nodes: Vec<String>,
    /// In which families it has an address.
    #[serde(default = "IpFamily::both")]
    families: Vec<IpFamily>,
}

/// Who connects, and where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Who.
    pub client: Client,
    /// By which kind of front door.
    pub door: Door,
    /// The node it enters by, whose front door it is.
    pub node: String,
    /// At which of the node's addresses, for a node port.
    #[serde(default)]
    pub at: At,
    /// How often; each time with the same outcome.
    #[serde(default = "Connection::once")]
    pub times: u8,
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// A host outside the cluster: `203.0.113.50`, `2001:db8:113::50`.
    External,
    /// A pod of the node it enters by that is no endpoint.
    Pod,
    /// Such a pod of the other node.
    PodOfTheOtherNode,
    /// The scenario's first endpoint itself.
    Endpoint,
    /// A process in the network of the node it enters by.
    Node,
}

/// A kind of front door, in the word of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Door {
    /// A node's address and the Service's node port.
    NodePort,
    /// The load balancer's address.
    LoadBalancer,
    /// An external IP.
    ExternalIP,
    /// The cluster IP.
    ClusterIP,
    /// A host port of the node: of the first endpoint, or of the pod of servicelb.
    HostPort,
    /// The first endpoint's own address: a load balancer that knows the pods.
    Pod,
}

/// At which of a node's addresses a node port is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// The first of the family.
    #[default]
    Primary,
    /// The second.
    Secondary,
    /// The loopback address, for the node itself.
    Localhost,
}

/// A change of the Service in the middle of a flow.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// The policy from then on.
    external_traffic_policy: TrafficPolicy,
    /// What becomes of a flow that begins then.
    #[serde(rename = "new_flows")]
    pub new_flows: NewFlows,
}

/// What becomes of a flow that begins after a change.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFlows {
    /// Of its first datagram.
    pub outcome: Outcome,
    /// Of the client's address.
    #[serde(default)]
    pub source_ip: SourceIp,
}

/// What no node sees: what a NAT does in a pod's own network namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beyond {
    /// Where it is.
    pub says: String,
    /// Whose address the backend's socket sees in the end.
    pub source_seen: Relay,
}

/// Whose pod relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relay {
    /// k3s'.
    Servicelb,
}

/// What is predicted, where that differs from what comes out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    /// Why it does.
    pub because: String,
    /// What becomes of the source; what is not said here is as it comes out.
    #[serde(default)]
    pub source_ip: Option<SourceIp>,
    /// Why kube-proxy marks it for masquerade, whatever comes of that; `none`: it does not.
    #[serde(default)]
    pub cause: Option<String>,
    /// What becomes of the opening packet.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

impl Proxy {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Iptables,
        Self::Nftables1_31,
        Self::Nftables1_34,
        Self::Nftables,
        Self::Ipvs,
    ];
    /// Those that every kernel has what it takes for.
    pub const EVERYWHERE: [Self; 4] = [
        Self::Iptables,
        Self::Nftables1_31,
        Self::Nftables1_34,
        Self::Nftables,
    ];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
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
            Self::Nftables => nftables(NftablesLayout::Since1_36),
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
            Self::Nftables => "nftables 1.36",
            Self::Ipvs => "ipvs",
        })
    }
}

impl IpFamily {
    fn both() -> Vec<Self> {
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

impl Connection {
    fn once() -> u8 {
        1
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

impl Scenario {
    /// Reads a scenario from its text. The error says where and what.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        // The first line says all; what follows draws the place.
        let mut scenario: Self = serde_saphyr::from_str(text)
            .map_err(|error| anyhow::anyhow!("{}", first_line(&error.to_string())))?;
        name.clone_into(&mut scenario.name);
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.context("its name is no text")?;
            let text = fs::read_to_string(path).context("it cannot be read")?;
            Self::parse(name, &text)
        };
        read().with_context(|| format!("the scenario {}", path.display()))
    }

    /// Reads every file of a folder, in the order of their names.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let entries = fs::read_dir(folder)
            .with_context(|| format!("the folder {} cannot be read", folder.display()))?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>>>()?;
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The folder of this repository's scenarios.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
    }

    /// Refuses what cannot be.
    fn check(&self) -> Result<()> {
        let is_label =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            self.name.bytes().all(is_label) && (1..=58).contains(&self.name.len()),
            "its name is that of a Service: up to 58 small letters, digits and dashes"
        );
        for (field, is_empty) in [
            ("modes", self.modes.is_empty()),
            ("families", self.families.is_empty()),
            ("says", self.says.is_empty()),
            ("source", self.source.is_empty()),
        ] {
            ensure!(!is_empty, "{field} is empty");
        }
        let nodes = self.endpoints.iter().map(|endpoint| &endpoint.node);
        for node in nodes.chain([&self.connection.node]) {
            ensure!(
                NODES.contains(&&**node),
                "there is no node {node:?}; there are {}",
                NODES.join(" and ")
            );
        }
        for endpoint in &self.endpoints {
            ensure!(
                (1..=2).contains(&endpoint.replica),
                "replica is {}; a node has two pods that serve: 1 and 2",
                endpoint.replica
            );
        }
        self.check_door()?;
        self.check_expectation()
    }

    fn check_door(&self) -> Result<()> {
        let Self {
            service,
            connection,
            ..
        } = self;
        let has_door = match connection.door {
            Door::NodePort => service.has_node_port(),
            Door::LoadBalancer => service.type_ == ServiceType::LoadBalancer,
            Door::ExternalIP => service.external_ips,
            Door::ClusterIP => true,
            Door::HostPort => {
                service.relayed || self.endpoints.first().is_some_and(|one| one.host_port)
            }
            Door::Pod => self.endpoints.first().is_some_and(|one| !one.host_network),
        };
        ensure!(
            has_door,
            "connection.door is {:?}, which a Service of type {:?} that is set up so does not have",
            connection.door,
            service.type_
        );
        ensure!(
            service.external_traffic_policy.is_none() || service.is_external(),
            "service.externalTrafficPolicy is for Services with a node port, a load balancer or \
             external IPs"
        );
        ensure!(
            connection.at == At::Primary || connection.door == Door::NodePort,
            "connection.at is for the door NodePort: another has an address of its own"
        );
        ensure!(
            connection.at != At::Localhost || connection.client == Client::Node,
            "connection.at is localhost, where only the client node can come"
        );
        ensure!(
            connection.client != Client::Endpoint
                || self.endpoints.first().is_some_and(|first| {
                    !first.host_network && (first.node == connection.node)
                }),
            "connection.client is endpoint: the first endpoint must be a pod of connection.node"
        );
        ensure!(
            self.change.is_none() || (self.protocol == Protocol::Udp && service.is_external()),
            "change is for UDP, whose flows outlive it, and for Services with a policy for clients \
             outside"
        );
        ensure!(
            self.change.is_none()
                || (connection.door == Door::NodePort && !self.modes.contains(&Proxy::Ipvs)),
            "change goes with the door NodePort, and not with mode ipvs, whose rules are made once"
        );
        ensure!(
            self.beyond.is_some() == (service.relayed && connection.door == Door::HostPort),
            "beyond says what the pod of servicelb does, and goes with its host port alone"
        );
        ensure!(
            self.protocol == Protocol::Tcp || !self.modes.contains(&Proxy::Ipvs),
            "mode ipvs is played by TCP alone: say in which other modes"
        );
        ensure!(
            connection.times > 0,
            "connection.times is 0: nothing would be tried"
        );
        Ok(())
    }

    fn check_expectation(&self) -> Result<()> {
        let Answer {
            reported,
            source_ip,
            source_seen,
            by: _,
            cause,
            outcome,
            outcome_cause,
            extra_hops,
        } = &self.expect;
        let answered = *outcome == Outcome::Answered;
        let has_source = *source_ip != SourceIp::Unknown;
        // What a backend got and nobody heard of has a source all the same.
        let may_have_source = answered || *outcome == Outcome::Unanswered;
        ensure!(
            !reported || (has_source || !answered) && (may_have_source || !has_source),
            "expect.outcome is {outcome}, expect.source_ip is {source_ip}: what is answered has a \
             source that is preserved or lost, and what reaches nobody has none"
        );
        ensure!(
            cause.is_some() == (*source_ip == SourceIp::Lost),
            "expect.cause says why the source is lost: it goes with source_ip lost, and with no other"
        );
        ensure!(
            outcome_cause.is_none() || !answered,
            "expect.outcome_cause says why there is no answer, and there is one"
        );
        ensure!(
            has_source == source_seen.is_some() && has_source == extra_hops.is_some(),
            "expect.source_seen and expect.extra_hops go with a source_ip that is preserved or lost, \
             and with no other"
        );
        Ok(())
    }
}

impl Service {
    /// Whether a client comes back to the endpoint that it had.
    pub(crate) fn has_affinity(&self) -> bool {
        self.session_affinity.is_some()
    }

    fn is_external(&self) -> bool {
        self.type_ != ServiceType::ClusterIP || self.external_ips
    }

    fn has_node_port(&self) -> bool {
        match self.type_ {
            ServiceType::ClusterIP => false,
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => self.allocate_load_balancer_node_ports != Some(false),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
