//! Manifests of which documents say what becomes of the client's address.
//!
//! A file of `tests/manifests` is what an operator would apply, and before that one document of a
//! kind of our own: what must be explained of it, and the document that says so. Expectations
//! come from documents, never from what the observer happens to say.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{ConfigMap, Namespace, Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::deploy::manifests::strictly;

mod agree;
#[cfg(test)]
mod tests;

/// Kinds that no library has the types of, with the version that is read.
const CUSTOM: [(&str, &str); 11] = [
    ("elbv2.k8s.aws/v1beta1", "IngressClassParams"),
    ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "GatewayClass"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    ("metallb.io/v1beta1", "BGPAdvertisement"),
    ("metallb.io/v1beta1", "IPAddressPool"),
    ("metallb.io/v1beta1", "L2Advertisement"),
    ("projectcalico.org/v3", "FelixConfiguration"),
];

/// A file of manifests, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The name of its file, without the ending.
    pub name: String,
    /// What documents say of it.
    pub expectation: Expectation,
    /// The manifests, as they are applied.
    pub text: String,
}

/// What documents say of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The version of this kind.
    #[serde(rename = "apiVersion")]
    pub api_version: ApiVersion,
    /// This kind.
    pub kind: Kind,
    /// What happens, in a sentence.
    pub says: String,
    /// Where that is written.
    pub source: String,
    /// What is expected of the ways to its Services.
    #[serde(default)]
    pub expect: Vec<Way>,
    /// What is expected of pods that are reached at their nodes.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// The codes of what must be found. Nothing else may be found that breaks connections or
    /// loses addresses; what is good to know may.
    pub findings: Vec<String>,
}

/// The version of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ApiVersion {
    /// The only one.
    #[serde(rename = "observer/tests")]
    Tests,
}

/// The kind of the first document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// The only one.
    Expectation,
}

/// Which ways to a Service are meant, and what is expected of each of them. What is left out is
/// not decided by the documents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// The Service, as `namespace/name`.
    pub service: String,
    /// By which kind of front door.
    pub door: Door,
    /// Who connects.
    pub client: Client,
    /// The object that leads here, as `Ingress shop/web`; any if it is left out.
    #[serde(default)]
    pub by: Option<String>,
    /// The protocol of the Service's port; any if it is left out.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The nodes entered by. If they are left out, all ways that are answered and that no load
    /// balancer leaves out; those that are not answered too, if `outcome` says something.
    #[serde(default)]
    pub nodes: Option<Vec<String>>,
    /// What is expected.
    #[serde(flatten)]
    pub expected: Expected,
}

/// What is expected of a way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The word for what stands in front of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Whether the pod sees the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<SourceIp>,
    /// Whose address the pod sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// Who lost the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_by: Option<LostBy>,
    /// What comes of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// How many nodes it passes beyond the one that was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_hops: Option<Hops>,
    /// By what the pod can still learn the client's address: these and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable: Option<Vec<Carrier>>,
    /// Whether a load balancer leaves these nodes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<bool>,
}

/// What is expected of pods that are reached at their nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Whose pods, as `DaemonSet edge/gateway`.
    pub workload: String,
    /// The protocol of the port.
    pub protocol: String,
    /// The port at the node.
    pub port: u16,
    /// Whether they are in the node's own network.
    pub host_network: bool,
    /// Whether they see the client's address.
    pub source_ip: SourceIp,
}

/// A word of the explanation that is compared as it is.
macro_rules! words {
    ($(#[$about:meta])* $case:literal $name:ident { $($(#[$each:meta])* $word:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = $case)]
        pub enum $name { $($(#[$each])* $word),+ }
    };
}

words! {
    /// A kind of front door.
    "PascalCase" Door {
        /// A load balancer's address.
        LoadBalancer,
        /// A node's address and the Service's node port.
        NodePort,
        /// An external address of the Service.
        #[serde(rename = "ExternalIP")]
        ExternalIp,
        /// The cluster IP.
        #[serde(rename = "ClusterIP")]
        ClusterIp,
        /// A port of the pod's node.
        HostPort,
        /// The pod itself.
        Pod,
        /// Through an Ingress or a Gateway.
        Proxy,
    }
}
words! {
    /// Who connects.
    "kebab-case" Client {
        /// Somebody outside.
        External,
        /// A pod.
        Pod,
        /// A process on a node.
        Node,
    }
}
words! {
    /// Whether the pod sees the client's address.
    "kebab-case" SourceIp {
        /// It does.
        Preserved,
        /// It sees another.
        Lost,
        /// Nobody can tell.
        Unknown,
    }
}
words! {
    /// Whose address the pod sees.
    "kebab-case" Seen {
        /// The client's.
        Client,
        /// The load balancer's.
        LoadBalancer,
        /// That of the node that was entered.
        EntryNode,
        /// That of a pod that passes on, as servicelb's.
        Relay,
        /// That of an Ingress' or a Gateway's proxy.
        Proxy,
        /// One of the pod's own.
        Loopback,
        /// Nobody can tell.
        Unknown,
    }
}
words! {
    /// Who lost the client's address.
    "kebab-case" LostBy {
        /// The node's rules for Services.
        KubeProxy,
        /// The load balancer.
        LoadBalancer,
        /// An Ingress' or a Gateway's proxy.
        Proxy,
        /// The network plugin.
        Cni,
        /// A proxy within the pod.
        Mesh,
    }
}
words! {
    /// What comes of the connection.
    "kebab-case" Outcome {
        /// It is answered.
        Answered,
        /// It is refused.
        Refused,
        /// It is dropped.
        Dropped,
        /// A socket has it and is silent.
        Unanswered,
        /// Nobody can tell.
        Unknown,
    }
}
words! {
    /// What carries the client's address past who replaces it.
    "kebab-case" Carrier {
        /// The header `X-Forwarded-For`.
        XForwardedFor,
        /// The PROXY protocol's text.
        ProxyV1,
        /// The PROXY protocol's binary header.
        ProxyV2,
    }
}

/// How many nodes, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hops {
    /// At least.
    pub least: u8,
    /// At most.
    pub most: u8,
}

/// All of this repository's manifests, by name.
pub fn all() -> Result<Vec<Manifest>> {
    let files = fs::read_dir(Manifest::folder()).context("the manifests")?;
    let paths: io::Result<Vec<PathBuf>> = files.map(|file| Ok(file?.path())).collect();
    let mut paths = paths.context("the manifests")?;
    paths.sort();
    paths.iter().map(|path| Manifest::read(path)).collect()
}

impl Manifest {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.context("its name is not UTF-8")?;
            let text = fs::read_to_string(path).context("it cannot be read")?;
            Self::parse(name, &text)
        };
        read().with_context(|| format!("the manifests {}", path.display()))
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let parts = text.split_once("\n---\n");
        let (expectation, manifests) = parts.context("there is nothing after the expectation")?;
        let expectation: Expectation = serde_saphyr::from_str(expectation)?;
        let says_something = [
            expectation.expect.is_empty(),
            expectation.hosts.is_empty(),
            expectation.findings.is_empty(),
        ];
        ensure!(says_something.contains(&false), "it expects nothing");
        Ok(Self {
            name: name.to_owned(),
            expectation,
            text: manifests.to_owned(),
        })
    }

    /// The folder of this repository's manifests.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
    }

    /// Whether every object is one that the API takes: of a known kind and version, with no field
    /// that its type does not have.
    pub fn check(&self) -> Result<()> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&self.text)?;
        for object in &objects {
            let name = object["metadata"]["name"].as_str();
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = name.with_context(|| format!("a {kind} without a name"))?;
            check(kind, object).with_context(|| format!("the {kind} {name}"))?;
        }
        Ok(())
    }

    /// Where an explanation in JSON and the documents disagree: none is good.
    pub fn disagreements(&self, explanation: &Value) -> Vec<String> {
        agree::disagreements(&self.expectation, explanation)
    }
}

fn check(kind: &str, object: &Value) -> Result<()> {
    fn is<T: DeserializeOwned + Serialize>(object: &Value) -> Result<()> {
        strictly::<T>(object).map(drop)
    }
    match kind {
        "ConfigMap" => is::<ConfigMap>(object),
        "DaemonSet" => is::<DaemonSet>(object),
        "Deployment" => is::<Deployment>(object),
        "EndpointSlice" => is::<EndpointSlice>(object),
        "Ingress" => is::<Ingress>(object),
        "IngressClass" => is::<IngressClass>(object),
        "Namespace" => is::<Namespace>(object),
        "Node" => is::<Node>(object),
        "Service" => is::<Service>(object),
        "StatefulSet" => is::<StatefulSet>(object),
        _ => {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            if !CUSTOM.contains(&(version, kind)) {
                bail!("nobody expects an object of this kind and the version {version:?}");
            }
            Ok(())
        }
    }
}
