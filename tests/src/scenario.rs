//! Scenarios: rows of the decision table as files.
//!
//! A file of `tests/scenarios` says what there is (a Service, its endpoints, how kube-proxy and the
//! network are set up), who connects by which front door, and what must come out. Everything
//! else is the same in all: two nodes, and on each of them two pods that serve (`web`) and one
//! that only calls. Which addresses and ports a scenario's Service has is none of its business;
//! it gets its own, so that many scenarios share one lab.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;

use crate::{lab::network::Network, protocol::Protocol};

mod answers;
mod check;
mod cluster;
mod setup;
mod stage;
mod table;
#[cfg(test)]
mod tests;
mod ways;

pub use answers::{Answer, Answers, Outcome, SourceIp};
pub use cluster::Cast;
use setup::TrafficPolicy;
pub use setup::{Endpoint, IpFamily, KubeProxy, Proxy, Service};
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

impl Connection {
    fn once() -> u8 {
        1
    }
}

impl Scenario {
    /// Reads a scenario from its text. The error says where and what.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        // The first line says all; what follows draws the place.
        let mut scenario: Self = serde_saphyr::from_str(text)
            .map_err(|error| anyhow!("{}", first_line(&error.to_string())))?;
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
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
