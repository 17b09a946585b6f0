//! What a cluster runs on, as far as it decides about load balancers. Found once for all Services.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;

use super::super::around::custom::TargetGroupBinding;
use super::super::around::{Around, is_assumed};
use super::super::convert::parse_ip;
use super::kube_vip::KubeVip;
use super::metallb::Metallb;
use super::names::{Maker, NODE_LABEL};
use super::{aws, k3s};

/// Schemes of Nodes for which nobody makes load balancers, unless something is installed for it.
const LOCAL_SCHEMES: &[&str] = &["k3s", "rke2", "kind", "metal3", "docker"];

/// What a cluster runs on.
#[derive(Debug)]
pub(super) struct Environment<'a> {
    /// The schemes of the Nodes' `spec.providerID`; empty for a Node without one.
    schemes: BTreeSet<&'a str>,
    /// `InternalIP`s of Nodes, with the Nodes' names.
    pub(super) internal: HashMap<IpAddr, &'a str>,
    /// `ExternalIP`s of Nodes.
    pub(super) external: HashSet<IpAddr>,
    /// Whether nodes are EKS Auto Mode's.
    pub(super) is_auto_mode: bool,
    /// Whether the AWS load balancer controller runs here.
    pub(super) has_aws_controller: bool,
    /// The Services for which k3s' servicelb has made a `DaemonSet`.
    pub(super) servicelb: HashSet<(&'a str, &'a str)>,
    pub(super) kube_vip: Option<KubeVip<'a>>,
    pub(super) metallb: Metallb<'a>,
    /// By namespace and name of the Service.
    bindings: HashMap<&'a str, HashMap<&'a str, Vec<&'a TargetGroupBinding>>>,
}

impl<'a> Environment<'a> {
    pub(super) fn of(all_nodes: &[&'a Node], around: &'a Around) -> Self {
        let nodes: Vec<_> = all_nodes
            .iter()
            .filter(|node| !is_assumed(&node.metadata))
            .copied()
            .collect();
        let addresses = |kind: &str| {
            let all = nodes.iter().flat_map(|node| addresses_of(node, kind));
            all.collect()
        };
        let mut bindings: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for binding in &around.target_group_bindings {
            let namespace = binding.metadata.namespace.as_deref().unwrap_or("default");
            let service = binding.spec.service_ref.name.as_str();
            let of_namespace = bindings.entry(namespace).or_default();
            of_namespace.entry(service).or_default().push(binding);
        }
        Self {
            schemes: nodes.iter().map(|node| scheme(node)).collect(),
            internal: nodes
                .iter()
                .flat_map(|node| {
                    let name = node.metadata.name.as_deref().unwrap_or_default();
                    addresses_of(node, "InternalIP").map(move |ip| (ip, name))
                })
                .collect(),
            external: addresses("ExternalIP"),
            is_auto_mode: nodes.iter().any(|node| is_auto_mode(node)),
            has_aws_controller: around.deployments.iter().any(aws::is_controller),
            servicelb: around.daemon_sets.iter().filter_map(k3s::served).collect(),
            kube_vip: around.daemon_sets.iter().find_map(KubeVip::of),
            metallb: Metallb::of(all_nodes, around),
            bindings,
        }
    }

    /// The cloud whose Nodes these are; `None` also if they are of several.
    pub(super) fn cloud(&self) -> Option<Maker> {
        let mut clouds = self
            .schemes
            .iter()
            .filter_map(|scheme| Maker::of_scheme(scheme));
        let first = clouds.next()?;
        clouds.all(|other| other == first).then_some(first)
    }

    /// Whether k3s set the Nodes up.
    pub(super) fn is_k3s(&self) -> bool {
        self.schemes.contains("k3s")
    }

    /// Whether there are Nodes, and none of them is a cloud's.
    pub(super) fn is_bare_metal(&self) -> bool {
        let is_local = |scheme: &&str| scheme.is_empty() || LOCAL_SCHEMES.contains(scheme);
        !self.schemes.is_empty() && self.schemes.iter().all(is_local)
    }

    /// The first scheme of the Nodes.
    pub(super) fn a_scheme(&self) -> &'a str {
        self.schemes.first().copied().unwrap_or_default()
    }

    pub(super) fn bindings_of(&self, (namespace, name): (&str, &str)) -> &[&'a TargetGroupBinding] {
        let of_namespace = self.bindings.get(namespace);
        of_namespace
            .and_then(|it| it.get(name))
            .map_or(&[], Vec::as_slice)
    }
}

/// What comes before `://` in a Node's `spec.providerID` (`core/v1`: the cloud's name); empty
/// without one, and the whole of an identifier without a scheme.
pub fn scheme(node: &Node) -> &str {
    let spec = node.spec.as_ref();
    let id = spec
        .and_then(|spec| spec.provider_id.as_deref())
        .unwrap_or_default();
    if id.starts_with("ocid1.") {
        // Oracle's controller leaves the scheme out on some clusters.
        return "oci";
    }
    id.split_once("://").map_or(id, |(scheme, _)| scheme)
}

fn is_auto_mode(node: &Node) -> bool {
    label(node, NODE_LABEL) == Some("auto")
}

fn label<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn addresses_of(node: &Node, kind: &str) -> impl Iterator<Item = IpAddr> {
    let status = node.status.iter();
    let all = status.flat_map(|status| status.addresses.iter().flatten());
    all.filter(move |address| address.type_ == kind)
        .filter_map(|address| parse_ip(&address.address))
}

/// The value of an environment variable of a `DaemonSet`'s containers.
pub(super) fn variable<'a>(daemon_set: &'a DaemonSet, name: &str) -> Option<&'a str> {
    let pods = daemon_set.spec.as_ref()?.template.spec.as_ref()?;
    let mut variables = pods
        .containers
        .iter()
        .flat_map(|it| it.env.iter().flatten());
    variables.find(|it| it.name == name)?.value.as_deref()
}
