//! The table of what people put in front of a cluster; its file says what its columns mean.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Haproxy, Listen};
use crate::manifest::{Carrier, Seen};

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What stands in front.
    pub front: Front,
    /// To where it leads.
    pub target: Target,
    /// Where the pod lives.
    pub backend: Backend,
    /// `externalTrafficPolicy`.
    pub policy: Policy,
    /// The node of the pod.
    pub endpoint: Node,
    /// Whose address the pod's socket sees.
    pub seen: Seen,
    /// The causes of every loss, in the order of the way.
    pub losses: Vec<Cause>,
    /// By what a node recovers the client.
    #[serde(default)]
    pub recovered_from: Option<Carrier>,
    /// Why it does not, if it looked.
    #[serde(default)]
    pub not_recovered: Option<NotRecovered>,
    /// Nodes beyond the one that was entered.
    pub hops: u8,
}

/// What stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Front {
    /// An application load balancer.
    Alb,
    /// The same, with TLS to the pod.
    AlbTls,
    /// The same, with HTTP/2 to the pod.
    AlbHttp2,
    /// A network load balancer that keeps addresses.
    Nlb,
    /// One that replaces them.
    NlbReplacing,
    /// One that names them in a PROXY header of version 1.
    NlbProxyV1,
    /// The same in version 2.
    NlbProxyV2,
    /// One that replaces them, of what clients encrypt.
    NlbTls,
    /// The same, which names them before.
    NlbProxyV2Tls,
}

/// To where a load balancer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// To a node port.
    Instance,
    /// To the pod.
    Ip,
}

/// Where a pod lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// In a network of its own.
    Pod,
    /// In its node's.
    Host,
}

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Policy {
    /// To any endpoint.
    Cluster,
    /// To those of the node alone.
    Local,
}

/// A node of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// By which instance mode enters.
    Node1,
    /// The other.
    Node2,
}

/// Causes of losses, in the words of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A load balancer replaced the address.
    UpstreamLoadBalancer,
    /// kube-proxy did.
    ExternalTrafficPolicyCluster,
}

/// Why nothing was recovered, in the words of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotRecovered {
    /// There is none.
    NoHeader,
    /// It is within TLS.
    Tls,
    /// It is within HTTP/2.
    Http2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rows: Vec<Row>,
}

/// All rows of this repository's table.
pub fn all() -> Result<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fronts/rows.yaml");
    let text = fs::read_to_string(&path).context("the rows")?;
    let Table { rows } = serde_saphyr::from_str(&text).context("the rows")?;
    let names: BTreeSet<_> = rows.iter().map(Row::name).collect();
    ensure!(names.len() == rows.len(), "a row is there twice");
    Ok(rows)
}

impl Row {
    /// Its Service's name.
    pub fn name(&self) -> String {
        let Self {
            front,
            target,
            backend,
            policy,
            endpoint,
            ..
        } = self;
        let words = format!("{front}-{target:?}-{backend:?}-{policy:?}-{endpoint:?}");
        words.to_lowercase()
    }

    /// Whether there is such a thing for `explain` to know: a Classic Load Balancer, the one that
    /// speaks version 1, has no pods for targets.
    pub fn is_on_aws(&self) -> bool {
        !(self.front == Front::NlbProxyV1 && self.target == Target::Ip)
    }

    /// The node that a connection enters by: of a target's own address, its own.
    pub fn entry(&self) -> Node {
        match self.target {
            Target::Instance => Node::Node1,
            Target::Ip => self.endpoint,
        }
    }

    /// The nodes that it passes, the one that it enters by first.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        let (entry, endpoint) = (self.entry(), self.endpoint);
        let second = (endpoint != entry).then_some(endpoint);
        [Some(entry), second].into_iter().flatten()
    }
}

impl Front {
    /// Whether an Ingress asks for it.
    pub fn is_alb(self) -> bool {
        matches!(self, Self::Alb | Self::AlbTls | Self::AlbHttp2)
    }

    /// How `HAProxy` plays it; none if another does.
    pub fn haproxy(self) -> Option<Haproxy> {
        match self {
            Self::Alb | Self::Nlb => None,
            Self::AlbTls => Some(Haproxy::ForwardForTls),
            Self::AlbHttp2 => Some(Haproxy::ForwardForHttp2),
            Self::NlbReplacing | Self::NlbTls => Some(Haproxy::Plain),
            Self::NlbProxyV1 => Some(Haproxy::SendProxy),
            Self::NlbProxyV2 | Self::NlbProxyV2Tls => Some(Haproxy::SendProxyV2),
        }
    }

    /// What the pod must understand beside HTTP/1.
    pub fn pod(self) -> Option<Listen> {
        match self {
            Self::Alb | Self::Nlb | Self::NlbReplacing | Self::NlbProxyV1 | Self::NlbProxyV2 => {
                None
            }
            Self::AlbTls | Self::NlbTls => Some(Listen::Tls),
            Self::AlbHttp2 => Some(Listen::Http2),
            Self::NlbProxyV2Tls => Some(Listen::ProxyTls),
        }
    }

    /// By what the pod itself can learn the client's address, past what hides it from a node.
    pub fn carrier(self) -> Option<Carrier> {
        match self {
            Self::Alb | Self::AlbTls | Self::AlbHttp2 => Some(Carrier::XForwardedFor),
            Self::NlbProxyV1 => Some(Carrier::ProxyV1),
            Self::NlbProxyV2 | Self::NlbProxyV2Tls => Some(Carrier::ProxyV2),
            Self::Nlb | Self::NlbReplacing | Self::NlbTls => None,
        }
    }

    /// Whether the client itself speaks TLS.
    pub fn is_passed_tls(self) -> bool {
        matches!(self, Self::NlbTls | Self::NlbProxyV2Tls)
    }
}

impl fmt::Display for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Alb => "alb",
            Self::AlbTls => "alb-tls",
            Self::AlbHttp2 => "alb-http2",
            Self::Nlb => "nlb",
            Self::NlbReplacing => "nlb-replacing",
            Self::NlbProxyV1 => "nlb-proxy-v1",
            Self::NlbProxyV2 => "nlb-proxy-v2",
            Self::NlbTls => "nlb-tls",
            Self::NlbProxyV2Tls => "nlb-proxy-v2-tls",
        })
    }
}

impl Node {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node1 => "node1",
            Self::Node2 => "node2",
        }
    }

    /// The last byte of its addresses is ten more.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Node1 => 1,
            Self::Node2 => 2,
        }
    }
}
