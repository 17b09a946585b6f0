//! Ingresses: every backend of every rule is a way.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use super::super::finding::Finding;
use super::super::workload::{name, namespace};
use super::class::{Class, Kind};
use super::world::World;
use super::{Controller, Route, Served, cloud, envoy, haproxy, nginx, reference, traefik};

/// Who serves a class, found once.
type Known<'a> = HashMap<(Kind, Option<&'a str>), Served>;

pub(super) fn routes(world: &World<'_>) -> (Vec<Route>, Vec<Finding>) {
    let mut known = Known::new();
    let mut findings = Vec::new();
    let mut routes = Vec::new();
    for ingress in &world.objects.around.ingresses {
        let class = Class::of(world, ingress);
        let stranger = match &class.kind {
            Kind::Named(its) => Some(&**its),
            Kind::Unknown => Some(class.name.unwrap_or_default()),
            _ => None,
        };
        findings.extend(stranger.map(|class| {
            Finding::controller_unknown(format!("Ingress {}", full_name(ingress)), class)
        }));
        for (to, port) in backends(ingress) {
            let namespace = namespace(&ingress.metadata);
            let service = world.service(namespace, to);
            let way = Way {
                class: &class,
                ingress,
                service,
            };
            let mut served = way.served(world, &mut known, &mut findings);
            served.because.push(class.because.clone());
            let to = reference(namespace, to);
            routes.push(served.leads("Ingress", full_name(ingress), to, port));
        }
    }
    (routes, findings)
}

/// A way that is being found.
struct Way<'a, 'w> {
    class: &'w Class<'a>,
    ingress: &'a Ingress,
    service: Option<&'a Service>,
}

impl<'a> Way<'a, '_> {
    fn served(
        &self,
        world: &World<'a>,
        known: &mut Known<'a>,
        findings: &mut Vec<Finding>,
    ) -> Served {
        let Self {
            class,
            ingress,
            service,
        } = *self;
        let key = (class.kind.clone(), class.name);
        let once = |find: &mut dyn FnMut() -> Served| known.entry(key).or_insert_with(find).clone();
        match &class.kind {
            Kind::Nginx => {
                let mut served = once(&mut || {
                    let (served, more) = nginx::served(world, class);
                    findings.extend(more);
                    served
                });
                nginx::specialise(world, &mut served, ingress);
                served
            }
            Kind::Traefik => {
                let mut served = once(&mut || traefik::served(world));
                traefik::specialise(&mut served, service);
                served
            }
            Kind::HaproxyIngress => {
                let mut served = once(&mut || haproxy::served_of(world, class));
                haproxy::specialise(&mut served, ingress, service);
                served
            }
            Kind::HaproxyTech => once(&mut || haproxy::served_by_tech(world)),
            Kind::Istio => once(&mut || envoy::istio_ingress(world)),
            Kind::Contour => once(&mut || envoy::contour(world)),
            Kind::Cilium => {
                let metadata = &ingress.metadata;
                envoy::cilium_ingress(world, namespace(metadata), name(metadata))
            }
            Kind::Alb | Kind::AlbAutoMode => {
                let (served, more) = cloud::alb(world, class, ingress, service);
                findings.extend(more);
                served
            }
            kind @ (Kind::Gce | Kind::GceInternal) => {
                let (served, more) = cloud::gce(kind, service);
                findings.extend(more);
                served
            }
            Kind::AzureApplicationGateway => cloud::azure(),
            Kind::Named(its) => Served::by(Controller::Other, Some(its.clone())),
            Kind::Unknown => Served::by(Controller::Unknown, class.name.map(str::to_owned)),
        }
    }
}

/// The Services of an Ingress with their ports, each once: of its rules, and for what none of
/// them takes.
fn backends(ingress: &Ingress) -> Vec<(&str, Option<String>)> {
    let Some(spec) = &ingress.spec else {
        return Vec::new();
    };
    let rules = spec.rules.iter().flatten();
    let of_rules = rules
        .filter_map(|rule| rule.http.as_ref())
        .flat_map(|http| &http.paths)
        .map(|path| &path.backend);
    let mut seen = HashSet::new();
    let backends = of_rules.chain(&spec.default_backend).filter_map(backend);
    backends.filter(|it| seen.insert(it.clone())).collect()
}

fn backend(backend: &IngressBackend) -> Option<(&str, Option<String>)> {
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref().and_then(|port| {
        let number = port.number.map(|number| number.to_string());
        port.name.clone().or(number)
    });
    Some((&service.name, port))
}

fn full_name(ingress: &Ingress) -> String {
    let metadata = &ingress.metadata;
    format!("{}/{}", namespace(metadata), name(metadata))
}
