//! The pods of the `DaemonSet`: where agents are.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::Deserialize;
use tokio::sync::watch;

use super::client::Client;
use super::error::ApiError;
use super::reflect::{Told, reflect};
use super::resource::Selection;
use crate::cluster::Trim;

/// By which they are found.
pub const LABEL: &str = "app.kubernetes.io/name=source-ip-observer";
/// The annotation that says at which port an agent answers.
const PORT: &str = "source-ip-observer/api-port";
/// Where it does if nothing is said.
const PORT_DEFAULT: u16 = 9_807;

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An agent's pod, once it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Another pod of the same name has another.
    pub uid: String,
    /// The node that it is on.
    pub node: String,
    /// Where it answers.
    pub port: u16,
}

/// All agents' pods that run.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    /// `None` until they were listed.
    pub pods: Option<BTreeMap<PodName, AgentPod>>,
    /// Why they cannot be, or cannot be followed.
    pub trouble: Option<ApiError>,
}

/// As much of a Pod as there is to read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Pod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

impl Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// There is little of it anyway.
impl Trim for Pod {
    fn trimmed(mut self) -> Self {
        self.metadata.managed_fields = None;
        self
    }
}

/// Follows the agents' pods, of one namespace or of all, until nobody receives any more.
///
/// Must be called in a tokio runtime.
pub fn agents(client: &Client, namespace: Option<&str>) -> watch::Receiver<Agents> {
    let (to, receiver) = watch::channel(Agents::default());
    let selection = Selection {
        namespace: namespace.map(str::to_owned),
        labels: Some(LABEL.to_owned()),
        fields: None,
    };
    let client = client.clone();
    tokio::spawn(async move {
        let told = |told| {
            if !matches!(told, Told::Heard) {
                to.send_modify(|agents| agents.note(told));
            }
        };
        tokio::select! {
            () = reflect(&client, &selection, told) => {}
            () = to.closed() => {}
        }
    });
    receiver
}

impl Agents {
    fn note(&mut self, told: Told<Pod>) {
        match told {
            Told::All(pods) => self.pods = Some(pods.iter().filter_map(running).collect()),
            Told::Put(pod) => {
                let pods = self.pods.get_or_insert_default();
                match running(&pod) {
                    Some((name, pod)) => pods.insert(name, pod),
                    None => name(&pod).and_then(|name| pods.remove(&name)),
                };
            }
            Told::Gone(pod) => {
                if let (Some(pods), Some(name)) = (&mut self.pods, name(&pod)) {
                    pods.remove(&name);
                }
            }
            Told::Live => self.trouble = None,
            Told::Failed(error) => self.trouble = Some(error),
            Told::Heard | Told::Unreadable(_) => {}
        }
    }
}

/// An agent that can be asked: it runs. One that is on its way out still does, and has a last
/// word.
fn running(pod: &Pod) -> Option<(PodName, AgentPod)> {
    if pod.status.phase.as_deref() != Some("Running") {
        return None;
    }
    let annotations = pod.metadata.annotations.as_ref();
    let port = annotations
        .and_then(|annotations| annotations.get(PORT))
        .and_then(|port| port.parse().ok())
        .unwrap_or(PORT_DEFAULT);
    let agent = AgentPod {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node: pod.spec.node_name.clone()?,
        port,
    };
    Some((name(pod)?, agent))
}

fn name(pod: &Pod) -> Option<PodName> {
    Some(PodName {
        namespace: pod.metadata.namespace.clone()?,
        name: pod.metadata.name.clone()?,
    })
}
