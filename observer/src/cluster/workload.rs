//! Pods by who makes them: Deployments, `DaemonSets`, `StatefulSets`, and Pods that none of those
//! in the objects has made.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Objects;

/// The label that a Deployment puts on its pods; the names of its `ReplicaSets` end with it
/// (Kubernetes, concepts/workloads/controllers/deployment, "Pod-template-hash label").
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Who makes pods, and which.
#[derive(Clone, Debug)]
pub(super) struct Workload<'a> {
    /// `Deployment`, `DaemonSet` and so on; `Pod` for one that stands alone.
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Labels and annotations of the pods.
    pub(super) metadata: Option<&'a ObjectMeta>,
    /// What is in them.
    pub(super) spec: &'a PodSpec,
    /// How many there will be, and where.
    pub(super) runs: Runs,
    /// Nodes that the Pods name.
    pub(super) nodes: BTreeSet<&'a str>,
    /// The names of the Pods.
    pub(super) pods: Vec<&'a str>,
    /// A Pod of it that the API server has: what was injected into it is there.
    pub(super) live: Option<&'a Pod>,
}

/// How many pods there will be, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// One on every node that its selector and tolerations allow.
    Everywhere,
    /// So many, wherever there is room.
    Replicas(i32),
    /// Those Pods that there are: who made them is not among the objects.
    Bound,
}

impl<'a> Workload<'a> {
    /// All of them: each Pod counts with who made it.
    pub(super) fn all(objects: &'a Objects) -> Vec<Self> {
        let mut all = templates(objects);
        let mut by_name: HashMap<(&str, &str, &str), usize> = all
            .iter()
            .enumerate()
            .map(|(index, it)| ((it.kind, it.namespace, it.name), index))
            .collect();
        for pod in &objects.pods {
            let Some(spec) = pod.spec.as_ref().filter(|_| !is_over(pod)) else {
                continue;
            };
            let namespace = namespace(&pod.metadata);
            let (kind, name) = maker(&pod.metadata);
            let index = *by_name.entry((kind, namespace, name)).or_insert_with(|| {
                all.push(Self {
                    kind,
                    namespace,
                    name,
                    metadata: Some(&pod.metadata),
                    spec,
                    runs: Runs::Bound,
                    nodes: BTreeSet::new(),
                    pods: Vec::new(),
                    live: None,
                });
                all.len() - 1
            });
            let Some(its) = all.get_mut(index) else {
                continue;
            };
            its.nodes.extend(spec.node_name.as_deref());
            its.pods.extend(pod.metadata.name.as_deref());
            if its.live.is_none() && pod.metadata.uid.is_some() {
                its.live = Some(pod);
            }
        }
        all
    }

    /// A label of its pods.
    pub(super) fn label(&self, key: &str) -> Option<&'a str> {
        label(self.metadata?, key)
    }

    /// Whether its pods have all labels of a selector, which has any.
    pub(super) fn is_selected<'s>(
        &self,
        selector: impl IntoIterator<Item = (&'s String, &'s String)>,
    ) -> bool {
        let mut selector = selector.into_iter().peekable();
        selector.peek().is_some() && selector.all(|(key, value)| self.label(key) == Some(value))
    }

    /// Whether its pods are in their nodes' network.
    pub(super) fn host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// The repositories of its images: `registry.k8s.io/ingress-nginx/controller`.
    pub(super) fn images(&self) -> impl Iterator<Item = &'a str> {
        self.spec
            .containers
            .iter()
            .filter_map(|container| container.image.as_deref())
            .map(repository)
    }

    /// The value of a flag of one of its containers, written `--flag=value` or `--flag value`,
    /// in any case; empty where it stands alone.
    pub(super) fn flag(&self, flag: &str) -> Option<&'a str> {
        self.flags()
            .find(|(name, _)| name.eq_ignore_ascii_case(flag))
            .map(|(_, value)| value)
    }

    /// All flags with their values.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.spec.containers.iter().flat_map(flags_of)
    }

    /// A variable of one of its containers' environment.
    pub(super) fn env(&self, name: &str) -> Option<&'a str> {
        self.spec
            .containers
            .iter()
            .flat_map(|container| container.env.iter().flatten())
            .find(|variable| variable.name == name)
            .and_then(|variable| variable.value.as_deref())
    }
}

impl fmt::Display for Workload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// An object's namespace; only a file written by hand leaves it out.
pub(super) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

/// An object's name.
pub(super) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// A label of an object.
pub(super) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation of an object.
pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn templates(objects: &Objects) -> Vec<Workload<'_>> {
    let around = &objects.around;
    let deployments = around.deployments.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        let runs = Runs::Replicas(spec.replicas.unwrap_or(1));
        template("Deployment", &it.metadata, &spec.template, runs)
    });
    let daemon_sets = around.daemon_sets.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        template("DaemonSet", &it.metadata, &spec.template, Runs::Everywhere)
    });
    let stateful_sets = around.stateful_sets.iter().filter_map(|it| {
        let spec = it.spec.as_ref()?;
        let runs = Runs::Replicas(spec.replicas.unwrap_or(1));
        template("StatefulSet", &it.metadata, &spec.template, runs)
    });
    deployments
        .chain(daemon_sets)
        .chain(stateful_sets)
        .collect()
}

fn template<'a>(
    kind: &'static str,
    metadata: &'a ObjectMeta,
    template: &'a PodTemplateSpec,
    runs: Runs,
) -> Option<Workload<'a>> {
    Some(Workload {
        kind,
        namespace: namespace(metadata),
        name: name(metadata),
        metadata: template.metadata.as_ref(),
        spec: template.spec.as_ref()?,
        runs,
        nodes: BTreeSet::new(),
        pods: Vec::new(),
        live: None,
    })
}

/// Kind and name of who made a Pod: itself, if nobody did.
fn maker(pod: &ObjectMeta) -> (&str, &str) {
    let mut owners = pod.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return ("Pod", name(pod));
    };
    let deployment = label(pod, TEMPLATE_HASH)
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    match deployment {
        Some(name) => ("Deployment", name),
        None => (&owner.kind, &owner.name),
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// An image without its tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A colon before a slash is a registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

fn flags_of(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let words: Vec<&str> = [&container.command, &container.args]
        .into_iter()
        .flat_map(|words| words.iter().flatten())
        .map(String::as_str)
        .collect();
    let flag = |index: usize| {
        let word = words.get(index).filter(|word| word.starts_with("--"))?;
        Some(word.split_once('=').unwrap_or_else(|| {
            let next = words.get(index + 1);
            let value = next.filter(|next| !next.starts_with('-'));
            (word, value.copied().unwrap_or_default())
        }))
    };
    let flags: Vec<_> = (0..words.len()).filter_map(flag).collect();
    flags.into_iter()
}
