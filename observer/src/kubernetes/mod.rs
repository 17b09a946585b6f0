//! The cluster as its API server tells it: read once ([`read()`]), or followed ([`follow()`]); and
//! the pods that the observer runs in there ([`agents()`]), with a way to each.
//!
//! - How the server is reached is kubectl's way: [`Client::connect`].
//! - Objects are trimmed as they come ([`crate::cluster::Trim`]), so that what is kept is what an
//!   index reads.
//! - What may not be read counts as missing, as it does in a file, and is told with the rule that
//!   would allow it.
//! - Everything that comes from the server is bounded in size and time, and what cannot be read of
//!   it is told and passed over.

mod access;
mod agents;
mod client;
mod error;
mod follow;
mod lines;
mod proxies;
mod proxy;
mod read;
mod read_whole;
mod reflect;
mod resource;
mod store;
#[cfg(test)]
mod tests;

pub use agents::{AgentPod, Agents, LABEL, PodName, agents};
pub use client::{Client, Forwarded};
pub use error::{AccessError, ApiError, one_line};
pub use follow::{Cluster, KubeProxySource, Wanted, follow, follow_by};
pub use lines::{Splitter, TooLong};
pub use read::{Read, names, read};
pub use read_whole::read_whole;

/// The namespace of kube-proxy's `ConfigMap`.
const KUBE_PROXY_NAMESPACE: &str = "kube-system";
/// Its names: kubeadm's, and EKS'. Each is asked for by name, so that a Role can be limited to
/// them (`resourceNames`).
const KUBE_PROXY_NAMES: [&str; 2] = ["kube-proxy", "kube-proxy-config"];

/// Whose Pods are wanted. Of the other kinds all objects always are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of every node.
    Cluster,
    /// Those of this node alone: what an observer on it needs, without the load of every Pod's
    /// changes on every node. Pods elsewhere are known as endpoints.
    Node(String),
}

impl Scope {
    fn pods(&self) -> resource::Selection {
        resource::Selection {
            fields: match self {
                Self::Cluster => None,
                Self::Node(name) => Some(format!("spec.nodeName={name}")),
            },
            ..resource::Selection::default()
        }
    }

    fn pods_of(&self) -> Option<&str> {
        match self {
            Self::Cluster => None,
            Self::Node(name) => Some(name),
        }
    }
}

fn config_map(name: &str) -> resource::Selection {
    resource::Selection {
        namespace: Some(KUBE_PROXY_NAMESPACE.to_owned()),
        fields: Some(format!("metadata.name={name}")),
        labels: None,
    }
}
