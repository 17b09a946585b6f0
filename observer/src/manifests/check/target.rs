//! Services that are led to and are not there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::super::{Fault, Key};
use super::quoted;
use crate::cluster::around::custom::{Route, TargetGroupBinding};
use crate::cluster::finding::Finding;
use crate::cluster::{FieldPath, Objects};

/// What the AWS load balancer controller takes for no port but for an annotation's name
/// (`docs/guide/ingress/annotations.md`, `actions.${action-name}`).
const USE_ANNOTATION: &str = "use-annotation";

/// A way to a Service that an object has.
struct Target {
    by: Key,
    /// The field that names the Service.
    path: FieldPath,
    namespace: String,
    service: String,
    /// The field that names the port, and the port.
    port: Option<(FieldPath, Port)>,
}

enum Port {
    Number(i64),
    Name(String),
}

impl Port {
    fn is_of(&self, service: &Service) -> bool {
        let Some(spec) = &service.spec else {
            return false;
        };
        // It stands for a name elsewhere, whatever its ports.
        if spec.type_.as_deref() == Some("ExternalName") {
            return true;
        }
        spec.ports.iter().flatten().any(|port| match self {
            Self::Number(number) => i64::from(port.port) == *number,
            Self::Name(name) => port.name.as_ref() == Some(name),
        })
    }

    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.escape_debug().to_string(),
        }
    }
}

/// The Services, and ports of them, that Ingresses, routes of the Gateway API and
/// `TargetGroupBindings` lead to and that are not there.
pub fn missing(objects: &Objects) -> Vec<Finding> {
    let services = by_name(objects);
    let finding = |target: Target| {
        let by = target.by.to_string();
        let service = format!("{}/{}", target.namespace, target.service);
        match services.get(&(&*target.namespace, &*target.service)) {
            None => Some(Finding::MissingService { by, service }),
            Some(found) => {
                let (_, port) = target.port.filter(|(_, port)| !port.is_of(found))?;
                let port = port.shown();
                Some(Finding::MissingPort { by, service, port })
            }
        }
    };
    let mut findings: Vec<_> = targets(objects).into_iter().filter_map(finding).collect();
    findings.sort();
    findings.dedup();
    findings
}

/// The same as faults: of manifests, where all that belongs together is given.
pub(super) fn check(objects: &Objects, faults: &mut Vec<Fault>) {
    let services = by_name(objects);
    for target in targets(objects) {
        let name = format!("{}/{}", target.namespace, target.service);
        let name = name.escape_debug();
        let (path, what) = match services.get(&(&*target.namespace, &*target.service)) {
            None => {
                let what = format!("there is no Service {name}; give its manifest too");
                (target.path, what)
            }
            Some(found) => {
                let Some((path, port)) = target.port.filter(|(_, port)| !port.is_of(found)) else {
                    continue;
                };
                let what = format!(
                    "Service {name} has no port {}; it has {}",
                    port.shown(),
                    ports_of(found)
                );
                (path, what)
            }
        };
        faults.push(Fault {
            object: target.by,
            path,
            what,
        });
    }
}

fn ports_of(service: &Service) -> String {
    let spec = service.spec.iter();
    let ports = spec.flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<_> = ports
        .map(|port| match port.name.as_deref().unwrap_or_default() {
            "" => port.port.to_string(),
            name => format!("{} ({})", port.port, quoted(name)),
        })
        .collect();
    if ports.is_empty() {
        return "none".to_owned();
    }
    ports.join(", ")
}

fn by_name(objects: &Objects) -> BTreeMap<(&str, &str), &Service> {
    objects
        .services
        .iter()
        .map(|service| {
            let metadata = &service.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or("default");
            let name = metadata.name.as_deref().unwrap_or_default();
            ((namespace, name), service)
        })
        .collect()
}

fn targets(objects: &Objects) -> Vec<Target> {
    let around = &objects.around;
    let ingresses = around.ingresses.iter().flat_map(of_ingress);
    let routes = around.routes.iter().flat_map(of_route);
    let bindings = around.target_group_bindings.iter().map(of_binding);
    ingresses.chain(routes).chain(bindings).collect()
}

fn namespace(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref();
    namespace.unwrap_or("default").to_owned()
}

/// All of them are in a namespace.
fn key(kind: &str, metadata: &ObjectMeta) -> Key {
    Key {
        namespace: Some(namespace(metadata)),
        ..Key::of(kind, metadata)
    }
}

fn of_ingress(ingress: &Ingress) -> Vec<Target> {
    let Some(spec) = &ingress.spec else {
        return Vec::new();
    };
    let mut targets = Vec::new();
    let mut add = |backend: &IngressBackend, path: FieldPath| {
        let Some(service) = &backend.service else {
            return;
        };
        let path = path.field("service");
        let port = service.port.as_ref().and_then(|port| {
            let path = path.field("port");
            match (&port.name, port.number) {
                (Some(name), _) if !name.is_empty() => {
                    Some((path.field("name"), Port::Name(name.clone())))
                }
                (_, Some(number)) => Some((path.field("number"), Port::Number(number.into()))),
                _ => None,
            }
        });
        if matches!(&port, Some((_, Port::Name(name))) if name == USE_ANNOTATION) {
            return;
        }
        targets.push(Target {
            by: key("Ingress", &ingress.metadata),
            path: path.field("name"),
            namespace: namespace(&ingress.metadata),
            service: service.name.clone(),
            port,
        });
    };
    if let Some(backend) = &spec.default_backend {
        add(backend, FieldPath::fields("spec.defaultBackend"));
    }
    let rules = FieldPath::fields("spec.rules");
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        let paths = rules.item(index).field("http").field("paths");
        let http = rule.http.iter().flat_map(|http| &http.paths);
        for (index, path) in http.enumerate() {
            add(&path.backend, paths.item(index).field("backend"));
        }
    }
    targets
}

fn of_route(route: &Route) -> Vec<Target> {
    let mut targets = Vec::new();
    let rules = FieldPath::fields("spec.rules");
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let backends = rules.item(index).field("backendRefs");
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let is_service = backend.kind.as_deref().unwrap_or("Service") == "Service"
                && backend.group.as_deref().unwrap_or_default().is_empty();
            if !is_service {
                continue;
            }
            let path = backends.item(index);
            let its = backend.namespace.clone();
            targets.push(Target {
                by: key(&route.kind, &route.metadata),
                path: path.field("name"),
                namespace: its.unwrap_or_else(|| namespace(&route.metadata)),
                service: backend.name.clone(),
                port: backend
                    .port
                    .map(|port| (path.field("port"), Port::Number(port.into()))),
            });
        }
    }
    targets
}

fn of_binding(binding: &TargetGroupBinding) -> Target {
    let service = &binding.spec.service_ref;
    let path = FieldPath::fields("spec.serviceRef");
    let port = service.port.as_ref().and_then(|port| match port {
        Value::Number(number) => number.as_i64().map(Port::Number),
        Value::String(name) => Some(
            name.parse()
                .map_or_else(|_| Port::Name(name.clone()), Port::Number),
        ),
        _ => None,
    });
    Target {
        by: key("TargetGroupBinding", &binding.metadata),
        path: path.field("name"),
        namespace: namespace(&binding.metadata),
        service: service.name.clone(),
        port: port.map(|port| (path.field("port"), port)),
    }
}
