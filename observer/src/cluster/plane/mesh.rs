//! What takes connections over within pods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::{Container, Namespace, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::build::SERVICE_NAME;
use super::super::front::Setting;
use super::super::settings::{set, setting};
use super::super::workload::{Workload, annotation, label, name, namespace};
use super::super::{Objects, Protocol, ServiceRef};
use super::{Found, Mesh};

const INJECTION: &str = "Istio, setup/additional-setup/sidecar-injection";
const ANNOTATIONS: &str = "Istio, reference/config/annotations";
const AMBIENT: &str = "Istio, ambient/usage/add-workloads";
const LINKERD: &str = "Linkerd, features/proxy-injection";
const LINKERD_CONFIGURATION: &str = "Linkerd, reference/proxy-configuration";

const MODE: &str = "sidecar.istio.io/interceptionMode";
const MODE_VARIABLE: &str = "ISTIO_META_INTERCEPTION_MODE";
const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const INCLUDED: &str = "traffic.sidecar.istio.io/includeInboundPorts";
const INJECT: &str = "sidecar.istio.io/inject";
const REVISION: &str = "istio.io/rev";
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const REDIRECTION: &str = "ambient.istio.io/redirection";
const LINKERD_INJECT: &str = "linkerd.io/inject";
const LINKERD_SKIP: &str = "config.linkerd.io/skip-inbound-ports";

/// Namespaces that Istio never injects into (istio, `pkg/kube/inject/inject.go`,
/// `IgnoredNamespaces`).
const NEVER_INJECTED: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What takes connections over in pods, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meshed {
    /// What, and by what it was found.
    pub found: Found<Mesh>,
    /// Whether it is in all the pods that were looked at; else in some.
    pub in_all_pods: bool,
    ports: Vec<Ports>,
}

/// The pod's ports that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Except(Vec<RangeInclusive<u16>>),
    Only(Vec<RangeInclusive<u16>>),
}

impl Meshed {
    /// What takes over a connection to this port of the pods. No mesh takes anything but TCP
    /// (Istio, ops/configuration/traffic-management/protocol-selection; Linkerd,
    /// `pkg/inject/report.go`).
    pub fn takes(&self, protocol: Protocol, port: u16) -> Option<&Found<Mesh>> {
        let is_among = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|it| it.contains(&port));
        let takes = |ports: &Ports| match ports {
            Ports::Except(ranges) => !is_among(ranges),
            Ports::Only(ranges) => is_among(ranges),
        };
        let takes = self.ports.iter().any(takes);
        (takes && protocol == Protocol::Tcp).then_some(&self.found)
    }

    fn of(what: Mesh, ports: Ports, because: Vec<Setting>) -> Self {
        Self {
            found: Found { what, because },
            in_all_pods: true,
            ports: vec![ports],
        }
    }

    /// Together with what is in other pods.
    fn with(mut self, other: &Self) -> Self {
        if (self.found.what, &self.ports) == (other.found.what, &other.ports) {
            return self;
        }
        self.in_all_pods = false;
        for ports in &other.ports {
            if !self.ports.contains(ports) {
                self.ports.push(ports.clone());
            }
        }
        // What changes the source says more than what does not.
        if other.changes_source() && !self.changes_source() {
            self.found = other.found.clone();
        }
        self
    }

    const fn changes_source(&self) -> bool {
        matches!(self.found.what, Mesh::IstioRedirect | Mesh::Linkerd)
    }
}

/// What takes connections over in the pods of each Service, where anything does.
///
/// A Pod that the API server has is judged by what is in it; a template by what would be injected.
pub fn meshes(objects: &Objects) -> HashMap<ServiceRef, Meshed> {
    let namespaces: HashMap<_, _> = objects
        .around
        .namespaces
        .iter()
        .map(|it| (name(&it.metadata), it))
        .collect();
    let workloads = Workload::all(objects);
    let of_workloads: Vec<_> = workloads
        .iter()
        .map(|workload| {
            let namespace = namespaces.get(workload.namespace).copied();
            of_workload(workload, namespace)
        })
        .collect();
    let by_label = by_label(&workloads);
    let mut all = HashMap::new();
    for service in &objects.services {
        let matching = matching(service, &workloads, &by_label);
        let namespace = namespaces.get(namespace(&service.metadata)).copied();
        let found = match &matching[..] {
            [] if has_selector(service) => {
                mesh(&ObjectMeta::default(), &PodSpec::default(), namespace)
            }
            matching => together(matching.iter().filter_map(|&index| of_workloads.get(index))),
        };
        if let Some(found) = found {
            all.insert(reference(&service.metadata), found);
        }
    }
    if of_workloads.iter().any(Option::is_some) {
        for (service, found) in by_endpoints(objects, &workloads, &of_workloads) {
            all.entry(service).or_insert(found);
        }
    }
    all
}

/// What takes connections over in a pod: what is in it, or what its labels, annotations and
/// namespace will bring into it.
pub fn mesh(pod: &ObjectMeta, spec: &PodSpec, namespace: Option<&Namespace>) -> Option<Meshed> {
    within(pod, spec, namespace).or_else(|| {
        let will_be = spec.host_network != Some(true);
        will_be
            .then(|| {
                istio_to_come(pod, namespace)
                    .or_else(|| ambient(pod, namespace))
                    .or_else(|| linkerd_to_come(pod, namespace))
            })
            .flatten()
    })
}

/// What is in a pod already, and gives its application another source than the peer's.
pub fn sidecar(pod: &ObjectMeta, spec: &PodSpec) -> Option<Meshed> {
    within(pod, spec, None).filter(Meshed::changes_source)
}

/// What [`sidecar`] reads of a pod that has one: annotations, and a container.
pub(in super::super) fn kept(
    pod: &ObjectMeta,
    spec: &PodSpec,
) -> Option<(BTreeMap<String, String>, Container)> {
    sidecar(pod, spec)?;
    let its = container(spec, "istio-proxy").or_else(|| container(spec, "linkerd-proxy"))?;
    let mut annotations = pod.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| [MODE, EXCLUDED, INCLUDED, LINKERD_SKIP].contains(&&**name));
    let env = its.env.iter().flatten();
    let mode: Vec<_> = env.filter(|it| it.name == MODE_VARIABLE).cloned().collect();
    let container = Container {
        name: its.name.clone(),
        env: Some(mode).filter(|mode| !mode.is_empty()),
        ..Container::default()
    };
    Some((annotations, container))
}

fn of_workload(workload: &Workload<'_>, namespace: Option<&Namespace>) -> Option<Meshed> {
    let nothing = ObjectMeta::default();
    match workload.live {
        Some(pod) => within(&pod.metadata, pod.spec.as_ref()?, namespace),
        None => mesh(
            workload.metadata.unwrap_or(&nothing),
            workload.spec,
            namespace,
        ),
    }
}

/// What is in a pod already.
fn within(pod: &ObjectMeta, spec: &PodSpec, namespace: Option<&Namespace>) -> Option<Meshed> {
    if let Some(proxy) = container(spec, "istio-proxy").filter(|it| is_sidecar(pod, it)) {
        let because = set("container", "istio-proxy", INJECTION);
        return istio(pod, mode_in_environment(proxy), because);
    }
    if container(spec, "linkerd-proxy").is_some() {
        let because = set("container", "linkerd-proxy", LINKERD);
        return Some(linkerd(pod, namespace, because));
    }
    let redirected = annotation(pod, REDIRECTION).filter(|value| *value == "enabled")?;
    let because = set(REDIRECTION, redirected, AMBIENT);
    Some(Meshed::of(
        Mesh::IstioAmbient,
        Ports::Except(Vec::new()),
        vec![because],
    ))
}

/// A container by its name; sidecars may be init containers that go on (KEP-753).
fn container<'s>(spec: &'s PodSpec, name: &str) -> Option<&'s Container> {
    let init = spec.init_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(init)
        .find(|container| container.name == name)
}

fn mode_in_environment(container: &Container) -> Option<&str> {
    let mut variables = container.env.iter().flatten();
    let mode = variables.find(|it| it.name == MODE_VARIABLE)?;
    mode.value.as_deref()
}

/// A gateway's pod has a container of the same name, and nothing is redirected to it.
fn is_sidecar(pod: &ObjectMeta, proxy: &Container) -> bool {
    let is_gateway = annotation(pod, "inject.istio.io/templates") == Some("gateway");
    let routes = proxy.args.iter().flatten().any(|arg| arg == "router");
    !is_gateway && !routes
}

/// An Istio sidecar; `None` if it redirects nothing.
fn istio(pod: &ObjectMeta, env: Option<&str>, because: Setting) -> Option<Meshed> {
    let mode = annotation(pod, MODE).or(env);
    let what = match mode {
        Some("TPROXY") => Mesh::IstioTproxy,
        Some("NONE") => return None,
        _ => Mesh::IstioRedirect,
    };
    let mut settings = vec![setting(MODE, mode, "REDIRECT", ANNOTATIONS), because];
    let included = annotation(pod, INCLUDED).filter(|ports| *ports != "*");
    let excluded = annotation(pod, EXCLUDED);
    let ports = match (included, excluded) {
        (Some(included), _) => {
            settings.push(set(INCLUDED, included, ANNOTATIONS));
            Ports::Only(ranges(included))
        }
        (None, Some(excluded)) => {
            settings.push(set(EXCLUDED, excluded, ANNOTATIONS));
            Ports::Except(ranges(excluded))
        }
        (None, None) => Ports::Except(Vec::new()),
    };
    Some(Meshed::of(what, ports, settings))
}

/// What decides whether the webhook is asked, and what it says then (istio,
/// `manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml` and
/// `pkg/kube/inject/inject.go`, `injectRequired`).
fn istio_to_come(pod: &ObjectMeta, namespace: Option<&Namespace>) -> Option<Meshed> {
    let of_namespace = |key| namespace.and_then(|namespace| label(&namespace.metadata, key));
    if namespace.is_some_and(|it| NEVER_INJECTED.contains(&name(&it.metadata))) {
        return None;
    }
    let wish = label(pod, INJECT);
    if wish == Some("false") || (wish.is_none() && annotation(pod, INJECT) == Some("false")) {
        return None;
    }
    let because = match (of_namespace("istio-injection"), of_namespace(REVISION)) {
        (Some("enabled"), _) => set("namespace label istio-injection", "enabled", INJECTION),
        (Some(_), _) => return None,
        (None, Some(revision)) => set("namespace label istio.io/rev", revision, INJECTION),
        (None, None) => match (wish, label(pod, REVISION)) {
            (Some("true"), _) => set("label sidecar.istio.io/inject", "true", INJECTION),
            (_, Some(revision)) => set("label istio.io/rev", revision, INJECTION),
            _ => return None,
        },
    };
    if annotation(pod, "inject.istio.io/templates") == Some("gateway") {
        return None;
    }
    istio(pod, None, because)
}

/// (istio, `cni/README.md`, "Ambient mode details".)
fn ambient(pod: &ObjectMeta, namespace: Option<&Namespace>) -> Option<Meshed> {
    let (whose, value) = match label(pod, DATAPLANE_MODE) {
        Some(value) => ("label", value),
        None => (
            "namespace label",
            label(&namespace?.metadata, DATAPLANE_MODE)?,
        ),
    };
    (value == "ambient").then(|| {
        let because = set(format!("{whose} {DATAPLANE_MODE}"), value, AMBIENT);
        Meshed::of(Mesh::IstioAmbient, Ports::Except(Vec::new()), vec![because])
    })
}

/// The pod's annotation comes before its namespace's (linkerd2, `pkg/inject/report.go`,
/// `disabledByAnnotation`).
fn linkerd_to_come(pod: &ObjectMeta, namespace: Option<&Namespace>) -> Option<Meshed> {
    let of_pod = annotation(pod, LINKERD_INJECT).map(|value| ("annotation", value));
    let of_namespace = || {
        let value = annotation(&namespace?.metadata, LINKERD_INJECT)?;
        Some(("namespace annotation", value))
    };
    let (whose, value) = of_pod.or_else(of_namespace)?;
    matches!(value, "enabled" | "ingress").then(|| {
        let because = set(format!("{whose} {LINKERD_INJECT}"), value, LINKERD);
        linkerd(pod, namespace, because)
    })
}

fn linkerd(pod: &ObjectMeta, namespace: Option<&Namespace>, because: Setting) -> Meshed {
    let of_namespace = namespace.and_then(|it| annotation(&it.metadata, LINKERD_SKIP));
    let skipped = annotation(pod, LINKERD_SKIP).or(of_namespace);
    let mut settings = vec![because];
    settings.extend(skipped.map(|ports| set(LINKERD_SKIP, ports, LINKERD_CONFIGURATION)));
    let ports = Ports::Except(skipped.map(ranges).unwrap_or_default());
    Meshed::of(Mesh::Linkerd, ports, settings)
}

/// Ports and ranges of ports between commas; what is none of both is left out.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

/// One answer for several workloads: that of the first that has one, unless they differ.
fn together<'m>(found: impl Iterator<Item = &'m Option<Meshed>>) -> Option<Meshed> {
    let mut first: Option<Meshed> = None;
    let mut in_all_pods = true;
    for found in found {
        match found {
            Some(found) => {
                first = Some(match first.take() {
                    Some(before) => before.with(found),
                    None => found.clone(),
                });
            }
            None => in_all_pods = false,
        }
    }
    first.map(|found| Meshed {
        in_all_pods: in_all_pods && found.in_all_pods,
        ..found
    })
}

/// Workloads by namespace and a label of their pods.
type ByLabel<'a> = HashMap<(&'a str, &'a str, &'a str), Vec<usize>>;

fn by_label<'a>(workloads: &[Workload<'a>]) -> ByLabel<'a> {
    let mut by_label = ByLabel::new();
    for (index, workload) in workloads.iter().enumerate() {
        let labels = workload.metadata.and_then(|it| it.labels.as_ref());
        for (key, value) in labels.into_iter().flatten() {
            by_label
                .entry((workload.namespace, key, value))
                .or_default()
                .push(index);
        }
    }
    by_label
}

/// The workloads whose pods a Service selects, looked for among those with its rarest label.
fn matching(service: &Service, workloads: &[Workload<'_>], by_label: &ByLabel<'_>) -> Vec<usize> {
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    let Some(selector) = selector else {
        return Vec::new();
    };
    let namespace = namespace(&service.metadata);
    let rarest = selector
        .iter()
        .map(|(key, value)| {
            let key = (namespace, key.as_str(), value.as_str());
            by_label.get(&key).map(Vec::as_slice).unwrap_or_default()
        })
        .min_by_key(|those| those.len());
    let selected = |index: &&usize| {
        let workload = workloads.get(**index);
        workload.is_some_and(|workload| workload.is_selected(selector))
    };
    rarest
        .unwrap_or_default()
        .iter()
        .filter(selected)
        .copied()
        .collect()
}

fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

/// What the Pods behind slices tell: of Services without a selector there is nothing else.
fn by_endpoints(
    objects: &Objects,
    workloads: &[Workload<'_>],
    found: &[Option<Meshed>],
) -> HashMap<ServiceRef, Meshed> {
    let selecting: HashSet<_> = objects
        .services
        .iter()
        .filter(|service| has_selector(service))
        .map(|service| (namespace(&service.metadata), name(&service.metadata)))
        .collect();
    let pods: HashMap<_, _> = workloads
        .iter()
        .zip(found)
        .flat_map(|(it, found)| it.pods.iter().map(move |pod| ((it.namespace, *pod), found)))
        .collect();
    let mut all: HashMap<ServiceRef, Vec<&Option<Meshed>>> = HashMap::new();
    for slice in &objects.endpoint_slices {
        let namespace = namespace(&slice.metadata);
        let service = label(&slice.metadata, SERVICE_NAME).map(|name| (namespace, name));
        let Some((namespace, name)) = service.filter(|it| !selecting.contains(it)) else {
            continue;
        };
        let those = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let pod = endpoint.target_ref.as_ref()?;
            pods.get(&(namespace, pod.name.as_deref()?)).copied()
        });
        let service = ServiceRef {
            namespace: namespace.into(),
            name: name.into(),
        };
        all.entry(service).or_default().extend(those);
    }
    all.into_iter()
        .filter_map(|(service, those)| Some((service, together(those.into_iter())?)))
        .collect()
}

fn reference(metadata: &ObjectMeta) -> ServiceRef {
    ServiceRef {
        namespace: namespace(metadata).into(),
        name: name(metadata).into(),
    }
}
