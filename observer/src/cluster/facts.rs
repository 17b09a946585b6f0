//! All that the objects tell of what stands around the Services, read once.

use std::collections::HashMap;

use super::finding::Finding;
use super::front::{Fronts, LoadBalancer};
use super::host::{self, HostDoor};
use super::plane::{self, Dataplane, Found, Meshed};
use super::proxy::{self, Route};
use super::{Objects, ServiceRef};

/// What stands around the Services.
#[derive(Debug)]
pub struct Facts {
    /// The load balancer of each Service that has one.
    pub load_balancers: HashMap<ServiceRef, LoadBalancer>,
    /// The proxies outside the cluster, by the Services that they deliver to.
    proxies_in_front: HashMap<ServiceRef, LoadBalancer>,
    /// The ways through proxies, by where they lead.
    routes: HashMap<ServiceRef, Vec<Route>>,
    /// Who translates on the nodes.
    pub dataplane: Found<Dataplane>,
    /// What takes connections over in a Service's pods.
    pub meshes: HashMap<ServiceRef, Meshed>,
    /// Ports of nodes that lead to pods past any Service.
    pub hosts: Vec<HostDoor>,
    /// What is wrong with a Service, or will surprise.
    pub of_services: HashMap<ServiceRef, Vec<Finding>>,
    /// The same of what is no single Service's.
    pub findings: Vec<Finding>,
}

impl Facts {
    /// Reads them.
    pub fn of(objects: &Objects) -> Self {
        let fronts = Fronts::new(objects);
        let mut load_balancers = HashMap::new();
        let mut of_services: HashMap<_, Vec<_>> = HashMap::new();
        for service in &objects.services {
            let reference = ServiceRef::of(&service.metadata);
            if let Some(load_balancer) = fronts.load_balancer(service) {
                load_balancers.insert(reference.clone(), load_balancer);
            }
            let findings = fronts.findings(service);
            if !findings.is_empty() {
                of_services.entry(reference).or_default().extend(findings);
            }
        }
        let (routes, found) = proxy::routes(objects);
        let mut findings = Vec::new();
        for finding in found {
            // A Service's is told with it.
            match &finding {
                Finding::TargetNeedsNodePort { service, .. } => {
                    let reference = objects.services.iter();
                    let mut references = reference.map(|it| ServiceRef::of(&it.metadata));
                    match references.find(|it| it.to_string() == *service) {
                        Some(its) => of_services.entry(its).or_default().push(finding),
                        None => findings.push(finding),
                    }
                }
                _ => findings.push(finding),
            }
        }
        let (hosts, of_hosts) = host::doors(objects);
        findings.extend(of_hosts);
        let proxies_in_front = proxy::fronts(&routes);
        let before = |service: &ServiceRef| {
            let front = load_balancers.get(service);
            front.or_else(|| proxies_in_front.get(service))
        };
        for route in &routes {
            for service in proxy::places_before(route) {
                let before = service.and_then(before);
                let mismatches = proxy::mismatches(route, before);
                if mismatches.is_empty() {
                    continue;
                }
                // What goes wrong at the proxy goes wrong on the way to all that is behind it.
                for service in service.into_iter().chain([&route.service]) {
                    let of_service = of_services.entry(service.clone()).or_default();
                    of_service.extend(mismatches.iter().cloned());
                    of_service.sort_unstable();
                    of_service.dedup();
                }
            }
        }
        findings.sort_unstable();
        findings.dedup();
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for route in routes {
            let to = by_service.entry(route.service.clone()).or_default();
            to.push(route);
        }
        Self {
            proxies_in_front,
            load_balancers,
            routes: by_service,
            dataplane: plane::dataplane(objects),
            meshes: plane::meshes(objects),
            hosts,
            of_services,
            findings,
        }
    }

    /// The ways through proxies to a Service.
    pub fn routes_to(&self, service: &ServiceRef) -> &[Route] {
        self.routes.get(service).map_or(&[], Vec::as_slice)
    }

    /// Namespace and name of the `ConfigMap` of the proxy that clients reach by a Service, or by
    /// which they reach it.
    pub fn config_map_of(&self, service: &ServiceRef) -> Option<&(String, String)> {
        let leads_by = |route: &&Route| {
            let mut places = proxy::places_before(route);
            route.service == *service || places.any(|place| place == Some(service))
        };
        let mut routes = self.routes.values().flatten().filter(leads_by);
        routes.find_map(|route| route.config_map.as_ref())
    }

    /// What stands before a proxy's own Service: its load balancer, or another proxy.
    pub fn before(&self, service: &ServiceRef) -> Option<&LoadBalancer> {
        let front = self.load_balancers.get(service);
        front.or_else(|| self.proxies_in_front.get(service))
    }

    /// With what else was found.
    #[must_use]
    pub fn with(mut self, findings: &[Finding]) -> Self {
        self.findings.extend(findings.iter().cloned());
        self.findings.sort_unstable();
        self.findings.dedup();
        self
    }
}
