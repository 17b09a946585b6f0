//! What the API server refuses of Pods and their templates
//! (`pkg/apis/core/validation/validation.go`, `pkg/apis/apps/validation/validation.go`), and ports
//! that a Service asks them for by name.

use k8s_openapi::api::core::v1::{ContainerPort, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::complete::{Workload, find_port, selects, workloads};
use super::super::{Fault, Key};
use super::{Report, port_name, quoted};
use crate::cluster::{FieldPath, Objects};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// Checks Pods and workloads.
pub(super) fn check(objects: &Objects, faults: &mut Vec<Fault>) {
    for pod in &objects.pods {
        let mut report = Report {
            object: Key::of("Pod", &pod.metadata),
            faults,
        };
        if let Some(spec) = &pod.spec {
            pod_spec(spec, &FieldPath::fields("spec"), &mut report);
        }
    }
    for workload in workloads(objects) {
        let mut report = Report {
            object: Key::of(workload.kind, workload.metadata),
            faults,
        };
        selector(&workload, &mut report);
        if let Some(spec) = &workload.template.spec {
            pod_spec(spec, &FieldPath::fields("spec.template.spec"), &mut report);
        }
    }
}

/// A workload must select what it makes.
fn selector(workload: &Workload<'_>, report: &mut Report<'_>) {
    let labels = workload.labels();
    let wanted = workload.selector.match_labels.iter().flatten();
    let wrong = wanted
        .into_iter()
        .find(|(name, value)| labels.and_then(|labels| labels.get(*name)) != Some(value));
    if let Some((name, value)) = wrong {
        let what = format!(
            "the label {}: {} is not among those of spec.template.metadata.labels; the API \
             refuses that",
            quoted(name),
            quoted(value)
        );
        report.field("spec.selector.matchLabels", what);
    }
}

fn pod_spec(spec: &PodSpec, path: &FieldPath, report: &mut Report<'_>) {
    report.word(
        path.field("dnsPolicy"),
        spec.dns_policy.as_deref(),
        &DNS_POLICIES,
    );
    let is_in_host = spec.host_network == Some(true);
    let lists = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    for (name, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let path = path.field(name).item(index).field("ports");
            for (index, port) in container.ports.iter().flatten().enumerate() {
                container_port(port, is_in_host, &path.item(index), report);
            }
        }
    }
}

fn container_port(
    port: &ContainerPort,
    is_in_host: bool,
    path: &FieldPath,
    report: &mut Report<'_>,
) {
    report.port(path.field("containerPort"), port.container_port);
    report.word(path.field("protocol"), port.protocol.as_deref(), &PROTOCOLS);
    if let Some(Err(why)) = port
        .name
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(port_name)
    {
        report.at(path.field("name"), why);
    }
    let Some(host_port) = port.host_port.filter(|port| *port != 0) else {
        return;
    };
    report.port(path.field("hostPort"), host_port);
    if is_in_host && host_port != port.container_port {
        let what = format!(
            "{host_port} is not containerPort {}; with hostNetwork they are the same",
            port.container_port
        );
        report.at(path.field("hostPort"), what);
    }
}

/// Names of ports that a Service asks its pods for and none has: it would have no endpoints.
pub(super) fn check_target_ports(objects: &Objects, faults: &mut Vec<Fault>) {
    let workloads: Vec<_> = workloads(objects).collect();
    for service in &objects.services {
        let pods = pods_of(service, objects, &workloads);
        let [(first, _), ..] = &pods[..] else {
            continue;
        };
        let spec = service.spec.iter();
        let ports = spec.flat_map(|spec| spec.ports.iter().flatten());
        for (index, port) in ports.enumerate() {
            let Some(IntOrString::String(name)) = &port.target_port else {
                continue;
            };
            if pods.iter().any(|(_, spec)| find_port(spec, port).is_some()) {
                continue;
            }
            let mut report = Report {
                object: Key::of("Service", &service.metadata),
                faults,
            };
            let path = FieldPath::fields("spec.ports")
                .item(index)
                .field("targetPort");
            let what = format!(
                "no container of {first} has a {} port named {}; name one so, or give its \
                 number",
                port.protocol.as_deref().unwrap_or("TCP"),
                quoted(name)
            );
            report.at(path, what);
        }
    }
}

/// The Pods and templates that a Service selects.
fn pods_of<'a>(
    service: &Service,
    objects: &'a Objects,
    workloads: &[Workload<'a>],
) -> Vec<(Key, &'a PodSpec)> {
    let workloads = workloads.iter().filter(|workload| {
        let namespace = workload.metadata.namespace.as_deref();
        selects(service, namespace, workload.labels())
    });
    let workloads = workloads.filter_map(|workload| {
        let spec = workload.template.spec.as_ref()?;
        Some((Key::of(workload.kind, workload.metadata), spec))
    });
    let pods = objects.pods.iter().filter(|pod| {
        let metadata = &pod.metadata;
        selects(
            service,
            metadata.namespace.as_deref(),
            metadata.labels.as_ref(),
        )
    });
    let pods = pods.filter_map(|pod| Some((Key::of("Pod", &pod.metadata), pod.spec.as_ref()?)));
    workloads.chain(pods).collect()
}
