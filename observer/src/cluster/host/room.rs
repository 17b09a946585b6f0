//! Which nodes a workload's pods can be on, as far as objects tell.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};

use super::super::Objects;
use super::super::around::is_assumed;
use super::super::workload::{Runs, Workload, name};

/// The nodes.
pub(super) struct Room<'a> {
    nodes: &'a [Node],
    /// Whether those are all that there are.
    is_whole: bool,
}

impl<'a> Room<'a> {
    pub(super) fn of(objects: &'a Objects) -> Self {
        let nodes = &objects.nodes[..];
        Self {
            nodes,
            // Nodes that were only assumed are at addresses for documentation (RFC 5737, RFC 3849),
            // and tell nothing of how many there are.
            is_whole: !nodes.is_empty() && !nodes.iter().all(|node| is_assumed(&node.metadata)),
        }
    }

    /// The nodes of a workload's Pods; of a `DaemonSet` without Pods, where they will be.
    pub(super) fn nodes_of(&self, workload: &Workload<'_>) -> Vec<String> {
        let nodes = if workload.nodes.is_empty() && workload.runs == Runs::Everywhere {
            self.allowed(workload.spec).unwrap_or_default()
        } else {
            workload.nodes.clone()
        };
        nodes.into_iter().map(str::to_owned).collect()
    }

    /// Where pods may be; `None` if not all nodes are known, or the pods choose among them by
    /// more than a selector.
    pub(super) fn eligible(&self, workload: &Workload<'a>) -> Option<BTreeSet<&'a str>> {
        self.allowed(workload.spec).filter(|_| self.is_whole)
    }

    fn allowed(&self, spec: &PodSpec) -> Option<BTreeSet<&'a str>> {
        let nodes = self.nodes.iter().filter(|node| is_allowed(spec, node));
        (!is_choosy(spec)).then(|| nodes.map(|node| name(&node.metadata)).collect())
    }
}

/// Whether pods choose their nodes by more than a selector.
pub(super) fn is_choosy(spec: &PodSpec) -> bool {
    let affinity = spec.affinity.as_ref();
    let of_nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    of_nodes.is_some_and(|it| {
        it.required_during_scheduling_ignored_during_execution
            .is_some()
    })
}

/// Whether every node that has `narrow`'s labels has `wide`'s.
pub(super) fn is_wider(wide: &PodSpec, narrow: &PodSpec) -> bool {
    let empty = BTreeMap::new();
    let narrow = narrow.node_selector.as_ref().unwrap_or(&empty);
    let wide = wide.node_selector.as_ref().unwrap_or(&empty);
    wide.iter()
        .all(|(key, value)| narrow.get(key) == Some(value))
}

fn is_allowed(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has =
        |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    spec.node_selector.iter().flatten().all(has)
        && taints
            .into_iter()
            .flatten()
            .filter(|taint| repels(taint))
            .all(|taint| {
                let mut tolerations = spec.tolerations.iter().flatten();
                tolerations.any(|toleration| tolerates(toleration, taint))
            })
}

/// Whether a taint keeps pods away for good: those of `node.kubernetes.io` come and go with a
/// node's condition, and `DaemonSets` tolerate them (Kubernetes, reference, "Well-Known Labels,
/// Annotations and Taints").
fn repels(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
        && !taint.key.starts_with("node.kubernetes.io/")
}

/// (Kubernetes, concepts/scheduling-eviction/taint-and-toleration.)
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |mine: Option<&str>, its: &str| mine.is_none_or(|mine| mine.is_empty() || mine == its);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = taint.value.as_deref().unwrap_or_default();
    is(toleration.effect.as_deref(), &taint.effect)
        && is(toleration.key.as_deref(), &taint.key)
        && (exists || toleration.value.as_deref().unwrap_or_default() == value)
}
