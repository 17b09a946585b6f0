//! All that the objects tell of what stands around the Services, read once.

use std::collections::HashMap;

use super::finding::Finding;
use super::front::{Fronts, LoadBalancer};
use super::host::{self, HostDoor};
use super::plane::{self, Dataplane, Found, Mesh};
use super::proxy::{self, Place, Route};
use super::{Objects, ServiceRef};

/// What stands around the Services.
#[derive(Debug)]
pub struct Facts {
    /// The load balancer of each Service that has one.
    pub load_balancers: HashMap<ServiceRef, LoadBalancer>,
    /// The ways through proxies.
    pub routes: Vec<Route>,
    /// Who translates on the nodes.
    pub dataplane: Found<Dataplane>,
    /// What takes connections over in a Service's pods.
    pub meshes: HashMap<ServiceRef, Found<Mesh>>,
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
        let (routes, mut findings) = proxy::routes(objects);
        let (hosts, of_hosts) = host::doors(objects);
        findings.extend(of_hosts);
        for route in &routes {
            for place in &route.places {
                let before = match place {
                    Place::Behind { service } => load_balancers.get(service),
                    Place::Outside { .. } | Place::OnNodes { .. } | Place::Unknown => None,
                };
                findings.extend(proxy::mismatches(route, before));
            }
        }
        findings.sort_unstable();
        findings.dedup();
        Self {
            load_balancers,
            routes,
            dataplane: plane::dataplane(objects),
            meshes: plane::meshes(objects),
            hosts,
            of_services,
            findings,
        }
    }
}
