//! The Gateway API: every backend of every rule of a route is a way, by each of its Gateways.

use std::collections::{HashMap, HashSet};

use super::super::around::custom::{Gateway, Reference, Route as Object};
use super::super::finding::Finding;
use super::super::front::{Delivers, Setting};
use super::super::settings::{set, unset};
use super::super::workload::{label, name, namespace};
use super::place::behind;
use super::world::World;
use super::{Controller, Place, Route, Served, cloud, envoy, haproxy, reference, traefik};

const CLASS: &str = "Gateway API, reference/spec, \"GatewayClass\"";
const GENERATED: &str = "gateway.networking.k8s.io/gateway-name";
const OWNER: &str = "gateway.envoyproxy.io/owning-gateway-name";
const OWNER_NAMESPACE: &str = "gateway.envoyproxy.io/owning-gateway-namespace";
const GKE: &str = "GKE, concepts/gateway-api";
const AWS: &str = "AWS load balancer controller, guide/gateway/gateway";

pub(super) fn routes(world: &World<'_>) -> (Vec<Route>, Vec<Finding>) {
    let mut routes = Vec::new();
    let mut findings = Vec::new();
    let mut known = HashMap::new();
    for object in &world.objects.around.routes {
        let by = format!("{} {}", object.kind, full_name(object));
        let parents = object.spec.parent_refs.iter();
        for parent in parents.filter(|it| is_kind(it, "Gateway", "gateway.networking.k8s.io")) {
            let home = namespace(&object.metadata);
            let of_gateway = parent.namespace.as_deref().unwrap_or(home);
            let gateway = world.gateway(of_gateway, &parent.name);
            let key = (of_gateway, &parent.name, &object.kind);
            let served = known
                .entry(key)
                .or_insert_with(|| served(world, gateway, &object.kind));
            if is_strange(served) {
                let class = || Some(gateway?.spec.gateway_class_name.clone());
                let class = served.provider.clone().or_else(class);
                let class = class.unwrap_or_default();
                findings.push(Finding::controller_unknown(by.clone(), &class));
            }
            for (service, port) in backends(object) {
                let service =
                    reference(service.namespace.as_deref().unwrap_or(home), &service.name);
                if !world.may_refer(&object.kind, home, &service) {
                    findings.push(Finding::RouteNotGranted {
                        by: by.clone(),
                        service: service.to_string(),
                    });
                    continue;
                }
                let served = served.clone();
                routes.push(served.leads(&object.kind, full_name(object), service, port));
            }
        }
    }
    (routes, findings)
}

/// Whether nothing is known of who serves but, if so, a name.
fn is_strange(served: &Served) -> bool {
    let is_named_only = served.controller == Controller::Other && served.because.len() < 2;
    served.controller == Controller::Unknown || is_named_only
}

/// Who serves a route of a Gateway.
fn served(world: &World<'_>, gateway: Option<&Gateway>, route: &str) -> Served {
    let Some(gateway) = gateway else {
        return Served::by(Controller::Unknown, None);
    };
    let class = &gateway.spec.gateway_class_name;
    let object = world.gateway_class(class);
    let controller = object.map(|it| it.spec.controller_name.as_str());
    let mut served = by_controller(world, controller.unwrap_or_else(|| usual(class)));
    if let Some(places) = generated(world, gateway) {
        let is_cilium = served.provider.as_deref() == Some("cilium");
        served.places = if is_cilium { on_nodes(places) } else { places };
    }
    // Only HTTP has headers.
    if !matches!(route, "HTTPRoute" | "GRPCRoute") {
        served.adds.clear();
        served.appends = false;
    }
    served.because.push(because(class, controller));
    served
}

fn because(class: &str, controller: Option<&str>) -> Setting {
    match controller {
        Some(controller) => set(format!("GatewayClass {class}"), controller, CLASS),
        None => unset(format!("GatewayClass {class}"), "not there", CLASS),
    }
}

/// The controller of a class without an object, by the names that controllers make themselves.
fn usual(class: &str) -> &str {
    match class {
        "istio" => "istio.io/gateway-controller",
        "cilium" => "io.cilium/gateway-controller",
        "traefik" => "traefik.io/gateway-controller",
        _ if class.starts_with("gke-l7-") => "networking.gke.io/gateway",
        _ => "",
    }
}

fn by_controller(world: &World<'_>, controller: &str) -> Served {
    let named = |word: &str| Served::by(Controller::Other, Some(word.to_owned()));
    match controller {
        "" => Served::by(Controller::Unknown, None),
        "istio.io/gateway-controller" | "istio.io/unmanaged-gateway" => envoy::istio(),
        "gateway.envoyproxy.io/gatewayclass-controller" => envoy::envoy_gateway(),
        "io.cilium/gateway-controller" => envoy::cilium(),
        "projectcontour.io/gateway-controller" => envoy::contour(world),
        "traefik.io/gateway-controller" => traefik::served(world),
        "haproxy-ingress.github.io/controller" => haproxy::served(world),
        "haproxy.org/gateway-controller" => haproxy::served_by_tech(world),
        "networking.gke.io/gateway" => gke(),
        "gateway.k8s.aws/alb" => alb(),
        "gateway.k8s.aws/nlb" => nlb(),
        "konghq.com/kic-gateway-controller" => named("kong"),
        "gateway.nginx.org/nginx-gateway-controller" => named("nginx-gateway-fabric"),
        other => named(other),
    }
}

/// GKE's Gateways always have network endpoint groups.
fn gke() -> Served {
    let mut served = Served::by(Controller::Gke, None);
    served.places.push(Place::Outside {
        delivers: Delivers::Pod,
    });
    served.adds.push(super::Carrier::XForwardedFor);
    served.appends = true;
    served.because.push(unset("targets", "pods", GKE));
    served.because.push(cloud::google_appends());
    served
}

/// AWS' for Gateways: a `TargetGroupConfiguration`, which is not among these objects, says to
/// whom it delivers.
fn alb() -> Served {
    let mut served = Served::by(Controller::AwsAlb, None);
    served.places.push(Place::Outside {
        delivers: Delivers::Unknown,
    });
    served.adds.push(super::Carrier::XForwardedFor);
    served.appends = true;
    let name = "TargetGroupConfiguration: targetType";
    served.because.push(unset(name, "not known", AWS));
    served
}

/// The same at layer 4: no header is added by which a request could be told.
fn nlb() -> Served {
    Served {
        controller: Controller::AwsNlb,
        adds: Vec::new(),
        appends: false,
        ..alb()
    }
}

/// The Services that a controller has made for a Gateway: by the label that GEP-1762 asks for, or
/// by Envoy Gateway's own.
fn generated(world: &World<'_>, gateway: &Gateway) -> Option<Vec<Place>> {
    let (its_namespace, its_name) = (namespace(&gateway.metadata), name(&gateway.metadata));
    let services = world.objects.services.iter().filter(|service| {
        let metadata = &service.metadata;
        let by_name = label(metadata, GENERATED) == Some(its_name);
        let by_owner = label(metadata, OWNER) == Some(its_name)
            && label(metadata, OWNER_NAMESPACE) == Some(its_namespace);
        by_owner || (by_name && namespace(metadata) == its_namespace)
    });
    let places: Vec<_> = services.map(behind).collect();
    (!places.is_empty()).then_some(places)
}

fn on_nodes(places: Vec<Place>) -> Vec<Place> {
    let on_node = |place| match place {
        Place::Behind { service } => Place::OnEveryNode { service },
        other => other,
    };
    places.into_iter().map(on_node).collect()
}

/// The Services of a route with their ports, each once.
fn backends(object: &Object) -> Vec<(&Reference, Option<String>)> {
    let mut seen = HashSet::new();
    let all = object.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    all.filter(|it| is_kind(it, "Service", ""))
        .filter(|it| seen.insert((&it.namespace, &it.name, it.port)))
        .map(|it| (it, it.port.map(|port| port.to_string())))
        .collect()
}

/// Whether a reference is to this kind, which it need not name.
fn is_kind(reference: &Reference, kind: &str, group: &str) -> bool {
    let is = |mine: &Option<String>, usual: &str| mine.as_ref().is_none_or(|mine| mine == usual);
    is(&reference.kind, kind) && is(&reference.group, group)
}

fn full_name(object: &Object) -> String {
    let metadata = &object.metadata;
    format!("{}/{}", namespace(metadata), name(metadata))
}
