//! A Service, explained: every way to it, and what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::doors::Doors;
use super::{Door, Verdict, Way};
use crate::cluster::facts::Facts;
use crate::cluster::finding::Finding;
use crate::cluster::front::LoadBalancer;
use crate::cluster::{Family, Index, KubeProxy, ServiceEntry, ServicePort, ServiceRef};
use crate::verdict::advice::{self, Case, Change, Detail};
use crate::verdict::vocabulary::{ClientKind, OutcomeCauseCode};

/// What is known, and who is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Explainer<'a> {
    /// The cluster's objects.
    pub index: &'a Index,
    /// What stands around its Services.
    pub facts: &'a Facts,
    /// kube-proxy's configuration, if it is known.
    pub kube_proxy: Option<&'a KubeProxy>,
    /// The address of the only client; `None`: every kind of client.
    pub client: Option<IpAddr>,
}

/// A Service, explained.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// Which.
    pub service: ServiceRef,
    /// Its ports; none for one without addresses.
    pub entries: &'a [ServiceEntry],
    /// How many nodes there are to enter by.
    pub all_nodes: usize,
    /// What stands in front of it.
    pub load_balancer: Option<&'a LoadBalancer>,
    /// The ways to its pods.
    pub ways: Vec<Way<'a>>,
    /// What comes of them.
    pub verdict: Verdict,
    /// What each node says to a load balancer that asks for its health.
    pub health: Option<Health<'a>>,
    /// What is wrong, or will surprise.
    pub findings: Vec<Finding>,
    /// What to change, best first.
    pub advice: Vec<Change>,
}

/// What the nodes say at a Service's `healthCheckNodePort` (`pkg/proxy/healthcheck`,
/// `service_health.go`): 200 if an endpoint of it is ready there, else 503.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health<'a> {
    /// The port.
    pub port: u16,
    /// Each node with its addresses, and how many endpoints are ready on it.
    pub nodes: Vec<(&'a Arc<str>, &'a [IpAddr], usize)>,
}

impl Health<'_> {
    /// What a node with so many ready endpoints answers.
    pub const fn status(ready: usize) -> u16 {
        if ready == 0 { 503 } else { 200 }
    }
}

impl<'a> Explainer<'a> {
    /// Explains Services, one after the other by name: the ports that are asked for. A Service
    /// without addresses is told if something was found of it.
    pub fn explain<'f>(
        self,
        is_asked_for: impl Fn(&ServicePort) -> bool + Copy + 'f,
    ) -> impl Iterator<Item = Explained<'a>> + 'f
    where
        'a: 'f,
    {
        let doors = Doors::new(self.index, self.kube_proxy, self.client);
        let of_one =
            |one: &ServiceEntry, next: &ServiceEntry| Arc::ptr_eq(&one.service, &next.service);
        let mut named: BTreeMap<&ServiceRef, &'a [ServiceEntry]> = self
            .index
            .entries()
            .chunk_by(of_one)
            .filter_map(|entries| Some((&entries.first()?.service.reference, entries)))
            .collect();
        for service in self.facts.of_services.keys() {
            named.entry(service).or_default();
        }
        named.into_iter().filter_map(move |(service, entries)| {
            let asked: Vec<_> = entries
                .iter()
                .filter(|entry| is_asked_for(&entry.service_port()))
                .collect();
            if !asked.is_empty() {
                return Some(self.service(&doors, entries, &asked));
            }
            let itself = ServicePort {
                service: service.clone(),
                name: None,
            };
            (entries.is_empty() && is_asked_for(&itself)).then(|| self.without_address(service))
        })
    }

    fn without_address(self, service: &ServiceRef) -> Explained<'a> {
        Explained {
            service: service.clone(),
            entries: &[],
            all_nodes: 0,
            load_balancer: None,
            verdict: Verdict::of(&[], &[]),
            ways: Vec::new(),
            health: None,
            findings: self.facts.of_services[service].clone(),
            advice: Vec::new(),
        }
    }

    fn service(
        self,
        doors: &Doors<'a>,
        entries: &'a [ServiceEntry],
        asked: &[&'a ServiceEntry],
    ) -> Explained<'a> {
        let service = &entries[0].service;
        let reference = &service.reference;
        let load_balancer = self.facts.load_balancers.get(reference);
        let mesh = self.facts.meshes.get(reference);
        let mut ways = Vec::new();
        for entry in asked {
            ways.extend(self.ways(doors, entry, load_balancer, mesh));
        }
        let findings = self.facts.of_services.get(reference);
        let health = service
            .health_check_node_port
            .map(|port| self.health(port, entries));
        let mut findings = findings.cloned().unwrap_or_default();
        let by_load_balancer =
            |way: &&Way<'_>| way.door == Door::LoadBalancer && way.client == ClientKind::External;
        let mut by_load_balancer = ways.iter().filter(by_load_balancer).peekable();
        let is_local =
            |way: &Way<'_>| way.outcome_cause == Some(OutcomeCauseCode::NoLocalEndpoints);
        if by_load_balancer.peek().is_some() && by_load_balancer.all(is_local) {
            findings.push(Finding::LocalWithoutEndpoints {
                service: reference.to_string(),
            });
        }
        if !entries.iter().any(is_served) {
            findings.push(Finding::NoEndpoints {
                service: reference.to_string(),
            });
        }
        let verdict = Verdict::of(&ways, &findings);
        let case = Case {
            index: self.index,
            service,
            load_balancer,
            dataplane: self.facts.dataplane.what,
            routes: self.facts.routes_to(reference),
            config_map: self.facts.config_map_of(reference),
            findings: &findings,
            detail: Detail::Patches,
        };
        let advice = advice::changes(case, &ways, &verdict.doors);
        Explained {
            service: reference.clone(),
            entries,
            all_nodes: doors.count(),
            load_balancer,
            ways,
            verdict,
            health,
            findings,
            advice,
        }
    }

    fn health(self, port: u16, entries: &'a [ServiceEntry]) -> Health<'a> {
        let family = entries[0].service.cluster_ips.first();
        let family = family.map_or(Family::V4, |ip| Family::of(*ip));
        let ready = |name: &str| {
            let endpoints = entries.iter().flat_map(|entry| entry.endpoints(family));
            let here = endpoints.filter(|it| it.ready && it.node.as_deref() == Some(name));
            here.map(|it| it.address).collect::<BTreeSet<_>>().len()
        };
        let nodes = self.index.nodes();
        Health {
            port,
            nodes: nodes
                .map(|node| (&node.name, &*node.addresses, ready(&node.name)))
                .collect(),
        }
    }
}

/// Whether anybody can take a connection to a Service port.
pub(super) fn is_served(entry: &ServiceEntry) -> bool {
    let mut families = [Family::V4, Family::V6].into_iter();
    families.any(|family| entry.has_usable_endpoint(family))
}
