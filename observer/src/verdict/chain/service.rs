//! Every way to a Service, and what comes of them in one word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use strum::{Display, VariantNames};

use super::doors::{Alike, CLIENTS, Doors};
use super::{Door, Loser, Walk, Way};
use crate::cluster::facts::Facts;
use crate::cluster::finding::Finding;
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer, System};
use crate::cluster::plane::{Found, Mesh, Meshed};
use crate::cluster::proxy::{Place, Route};
use crate::cluster::{
    Family, FrontDoorKind, Index, KubeProxy, ServiceEntry, ServicePort, ServiceRef,
};
use crate::verdict::advice::{self, Case, Change};
use crate::verdict::vocabulary::{CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};

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

/// What comes of a Service's ways, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Word {
    /// Pods see the client.
    Preserved,
    /// They do not.
    Lost,
    /// They do by some ways, or by chance.
    Depends,
    /// Nobody comes through.
    Unreachable,
    /// Cannot be told.
    Unknown,
}

/// What comes of the ways by which a Service is meant to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In a word.
    pub word: Word,
    /// By which doors.
    pub doors: BTreeSet<Door>,
    /// Who comes by them.
    pub client: ClientKind,
    /// Who loses the address.
    pub lost_by: BTreeSet<Loser>,
    /// Why, if it is kube-proxy.
    pub cause: Option<CauseCode>,
    /// By what the pods can find the client all the same, whichever way it comes.
    pub recoverable: Vec<Carrier>,
    /// Nodes that do not let it through, and why.
    pub closed: Option<(usize, OutcomeCauseCode)>,
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
            load_balancer: None,
            verdict: Verdict::of(&[]),
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
        let verdict = Verdict::of(&ways);
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
        let routes = self.facts.routes.iter();
        let routes: Vec<_> = routes.filter(|it| it.service == *reference).collect();
        let case = Case {
            service,
            load_balancer,
            dataplane: self.facts.dataplane.what,
            routes: &routes,
            findings: &findings,
        };
        let advice = advice::changes(case, &ways);
        Explained {
            service: reference.clone(),
            entries,
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

    /// All ways to a Service port.
    fn ways(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        load_balancer: Option<&'a LoadBalancer>,
        mesh: Option<&'a Meshed>,
    ) -> Vec<Way<'a>> {
        let mut ways = Vec::new();
        if doors.may_be_outside() {
            ways.extend(self.from_outside(doors, entry, load_balancer, mesh));
            for route in &self.facts.routes {
                if route.service == entry.service.reference && leads_to(route, entry) {
                    ways.extend(self.by_proxy(doors, entry, route, mesh));
                }
            }
        }
        let kinds = [
            FrontDoorKind::LoadBalancer,
            FrontDoorKind::NodePort,
            FrontDoorKind::ExternalIP,
            FrontDoorKind::ClusterIP,
        ];
        for kind in kinds {
            for client in CLIENTS {
                // Told above, with what stands in front.
                let is_told = kind == FrontDoorKind::LoadBalancer && client == ClientKind::External;
                if is_told && load_balancer.is_some() {
                    continue;
                }
                for alike in doors.alike(entry, kind, client) {
                    let walk = self
                        .by_node(Walk::from(client), entry, &alike)
                        .pod(taken(entry, mesh));
                    ways.push(way(walk, entry, Door::of(kind), client, alike));
                }
            }
        }
        ways.extend(self.headless(entry, mesh));
        ways
    }

    /// Clients go straight to the pods of a Service without an address.
    fn headless(self, entry: &'a ServiceEntry, mesh: Option<&Meshed>) -> Option<Way<'a>> {
        let is_headless = entry.service.cluster_ips.is_empty();
        (is_headless && entry.has_usable_endpoint(Family::V4)).then(|| {
            let walk = Walk::from(ClientKind::Pod).pod(taken(entry, mesh));
            walk.way(entry, Door::Pod, ClientKind::Pod)
        })
    }

    /// The ways of clients outside by a Service's load balancer.
    fn from_outside(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        load_balancer: Option<&'a LoadBalancer>,
        mesh: Option<&Meshed>,
    ) -> Vec<Way<'a>> {
        let Some(front) = load_balancer else {
            return Vec::new();
        };
        self.in_front(doors, entry, front)
            .into_iter()
            .map(|(walk, alike)| {
                let walk = walk.pod(taken(entry, mesh));
                let client = ClientKind::External;
                let mut way = match alike {
                    Some(alike) => way(walk, entry, Door::LoadBalancer, client, alike),
                    None => walk.way(entry, Door::LoadBalancer, client),
                };
                let service = &entry.service;
                let own = service.load_balancer_vips.iter();
                way.addresses = own.chain(&service.load_balancer_proxies).copied().collect();
                way.to_port = Some(entry.port);
                way.system = Some(front.system);
                way.left_out = front.leaves_out_unhealthy_nodes == Some(true)
                    && way.outcome_cause == Some(OutcomeCauseCode::NoLocalEndpoints);
                way
            })
            .collect()
    }

    /// From a client outside through a load balancer and the nodes it delivers to.
    fn in_front(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        front: &LoadBalancer,
    ) -> Vec<(Walk, Option<Alike>)> {
        let front = &*front.at(entry.protocol, entry.port);
        let walk = Walk::from(ClientKind::External).load_balancer(front);
        let has_vips = !entry.service.load_balancer_vips.is_empty();
        let client = ClientKind::External;
        let alike = match front.delivers {
            Delivers::NodePort => doors.alike(entry, FrontDoorKind::NodePort, client),
            Delivers::VirtualIp => doors.alike(entry, FrontDoorKind::LoadBalancer, client),
            Delivers::Relay if front.keeps == Keeps::Client => {
                doors.alike(entry, FrontDoorKind::NodePort, client)
            }
            Delivers::Relay => doors.alike(entry, FrontDoorKind::ClusterIP, ClientKind::Pod),
            Delivers::Unknown if has_vips => {
                doors.alike(entry, FrontDoorKind::LoadBalancer, client)
            }
            Delivers::Pod | Delivers::Nothing | Delivers::Unknown => Vec::new(),
        };
        // Nobody registers an address at which a node does not listen.
        let by_nodes = alike.into_iter().filter(|alike| {
            alike.prediction.outcome_cause != Some(OutcomeCauseCode::NotANodePortAddress)
        });
        let by_nodes = by_nodes.filter_map(|alike| alike.within(front.only_nodes.as_deref()));
        let walks: Vec<_> = by_nodes
            .map(|alike| (self.by_node(walk.clone(), entry, &alike), Some(alike)))
            .collect();
        if !walks.is_empty() {
            return walks;
        }
        let needs_a_node = matches!(
            front.delivers,
            Delivers::NodePort | Delivers::VirtualIp | Delivers::Relay
        );
        vec![(if needs_a_node { walk.ends() } else { walk }, None)]
    }

    /// The ways of clients outside by a proxy.
    fn by_proxy(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        route: &'a Route,
        mesh: Option<&Meshed>,
    ) -> Vec<Way<'a>> {
        let mut ways: Vec<Way<'a>> = Vec::new();
        for place in &route.places {
            for (walk, system, left_out) in self.to_proxy(doors, entry, route, place) {
                let mut way =
                    walk.pod(taken(entry, mesh))
                        .way(entry, Door::Proxy, ClientKind::External);
                way.by = Some(format!("{} {}", route.kind, route.name));
                way.system = system;
                way.left_out = left_out;
                // What differs only in the node it came by is one.
                let is_same = |other: &&mut Way<'_>| {
                    (
                        other.seen,
                        other.outcome,
                        &other.recoverable,
                        other.left_out,
                    ) == (way.seen, way.outcome, &way.recoverable, way.left_out)
                        && other.by == way.by
                        && other.system == way.system
                };
                match ways.iter_mut().find(is_same) {
                    Some(same) => same.widen(&way),
                    None => ways.push(way),
                }
            }
        }
        ways
    }

    /// From a client outside through a proxy, and as far as the pod of a Service port.
    fn to_proxy(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        route: &'a Route,
        place: &Place,
    ) -> Vec<(Walk, Option<System>, bool)> {
        let outside = || Walk::from(ClientKind::External);
        match place {
            Place::Outside { .. } => {
                let Some(front) = route.front() else {
                    return Vec::new();
                };
                let walks = self.in_front(doors, entry, &front).into_iter();
                walks
                    .map(|(walk, _)| (walk, Some(front.system), false))
                    .collect()
            }
            Place::OnEveryNode { service } => {
                let walk = match self.facts.before(service) {
                    Some(front) => outside().load_balancer(front),
                    None => outside(),
                };
                vec![(self.behind(walk, doors, entry, route), None, false)]
            }
            Place::OnNodes { .. } => {
                vec![(self.behind(outside(), doors, entry, route), None, false)]
            }
            Place::Behind { service } => {
                let front = self.facts.before(service);
                let ServiceRef { namespace, name } = service;
                let entries = self.index.service(namespace, name);
                let mut walks = Vec::new();
                for of_proxy in entries {
                    for way in self.outside_of(doors, of_proxy, front) {
                        let (walk, system, left_out) = way;
                        walks.push((self.behind(walk, doors, entry, route), system, left_out));
                    }
                }
                walks
            }
            Place::Unknown => {
                let walk = outside().by_unknown_way().proxy(route);
                vec![(walk, None, false)]
            }
        }
    }

    /// The ways of clients outside to a proxy's own Service.
    fn outside_of(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        front: Option<&LoadBalancer>,
    ) -> Vec<(Walk, Option<System>, bool)> {
        if let Some(front) = front {
            let walks = self.in_front(doors, entry, front);
            return walks
                .into_iter()
                .map(|(walk, alike)| {
                    let cause = alike.and_then(|alike| alike.prediction.outcome_cause);
                    let left_out = front.leaves_out_unhealthy_nodes == Some(true)
                        && cause == Some(OutcomeCauseCode::NoLocalEndpoints);
                    (walk, Some(front.system), left_out)
                })
                .collect();
        }
        [FrontDoorKind::NodePort, FrontDoorKind::ExternalIP]
            .into_iter()
            .flat_map(|kind| doors.alike(entry, kind, ClientKind::External))
            .map(|alike| {
                let walk = self.by_node(Walk::from(ClientKind::External), entry, &alike);
                (walk, None, false)
            })
            .collect()
    }

    /// From a proxy in the cluster on: to a pod, or by the Service's cluster address.
    fn behind(self, walk: Walk, doors: &Doors<'a>, entry: &'a ServiceEntry, route: &Route) -> Walk {
        let walk = walk.proxy(route);
        if route.to_pods {
            return walk;
        }
        let by_cluster_ip = doors.alike(entry, FrontDoorKind::ClusterIP, ClientKind::Pod);
        match by_cluster_ip.first() {
            Some(alike) => self.by_node(walk, entry, alike),
            None => walk,
        }
    }

    fn by_node(self, walk: Walk, entry: &ServiceEntry, alike: &Alike) -> Walk {
        let who = match &*alike.nodes {
            [only] => only.to_string(),
            _ => "node".to_owned(),
        };
        walk.node(
            who,
            &alike.prediction,
            &self.facts.dataplane,
            entry.protocol,
        )
    }
}

/// Whether anybody can take a connection to a Service port.
fn is_served(entry: &ServiceEntry) -> bool {
    let mut families = [Family::V4, Family::V6].into_iter();
    families.any(|family| entry.has_usable_endpoint(family))
}

/// Whether a route leads to this port of its Service.
fn leads_to(route: &Route, entry: &ServiceEntry) -> bool {
    route
        .port
        .as_ref()
        .is_none_or(|port| entry.name.as_deref() == Some(port) || port.parse() == Ok(entry.port))
}

/// What takes connections to a Service port over in its pods: for certain, or in some of them.
fn taken<'a>(entry: &ServiceEntry, mesh: Option<&'a Meshed>) -> Option<(&'a Found<Mesh>, bool)> {
    let mesh = mesh?;
    let families = [Family::V4, Family::V6].into_iter();
    let endpoint = families.flat_map(|family| entry.endpoints(family)).next()?;
    let found = mesh.takes(entry.protocol, endpoint.port)?;
    Some((found, mesh.in_all_pods))
}

fn way<'a>(
    walk: Walk,
    entry: &'a ServiceEntry,
    door: Door,
    client: ClientKind,
    alike: Alike,
) -> Way<'a> {
    let Alike {
        prediction: _,
        addresses,
        port,
        nodes,
    } = alike;
    Way {
        addresses,
        to_port: Some(port),
        nodes,
        ..walk.way(entry, door, client)
    }
}

impl Verdict {
    /// Whether pods see another address than that of a client outside, by a way that is open.
    pub fn loses(&self) -> bool {
        self.client == ClientKind::External && !self.lost_by.is_empty()
    }

    /// Whether a client outside is let in by no node, or not by every one that it may come by.
    pub fn closes(&self) -> bool {
        self.client == ClientKind::External
            && (self.closed.is_some() || self.word == Word::Unreachable)
    }

    /// By the doors that are for clients outside, the widest first; else by the cluster address.
    fn of(ways: &[Way<'_>]) -> Self {
        let main = [
            &[Door::LoadBalancer, Door::Proxy][..],
            &[Door::NodePort, Door::ExternalIP],
        ];
        let outside = |doors: &[Door]| -> Vec<_> {
            let is_main =
                |way: &&Way<'_>| way.client == ClientKind::External && doors.contains(&way.door);
            // At an address where no node port is, nobody is meant to come.
            let is_meant =
                |way: &&Way<'_>| way.outcome_cause != Some(OutcomeCauseCode::NotANodePortAddress);
            ways.iter().filter(is_main).filter(is_meant).collect()
        };
        let (ways, client) = main
            .into_iter()
            .map(outside)
            .find(|ways| !ways.is_empty())
            .map_or_else(
                || {
                    let inside = ways.iter().filter(|way| way.client == ClientKind::Pod);
                    (inside.collect::<Vec<_>>(), ClientKind::Pod)
                },
                |ways| (ways, ClientKind::External),
            );
        let open: Vec<_> = ways.iter().filter(|way| way.is_open()).collect();
        let fates: BTreeSet<_> = open.iter().map(|way| way.source_ip).collect();
        let word = match (fates.len(), fates.first()) {
            (0, _) => Word::Unreachable,
            (1, Some(SourceIp::Preserved)) => Word::Preserved,
            (1, Some(SourceIp::Lost)) => Word::Lost,
            (1, _) => Word::Unknown,
            _ => Word::Depends,
        };
        let lost: Vec<_> = open
            .iter()
            .filter(|way| way.source_ip == SourceIp::Lost)
            .collect();
        let recoverable = lost.first().map_or(&[][..], |way| &way.recoverable);
        let recoverable = recoverable
            .iter()
            .filter(|it| lost.iter().all(|way| way.recoverable.contains(it)));
        let closed = ways.iter().filter(|way| {
            !way.left_out && matches!(way.outcome, Outcome::Dropped | Outcome::Refused)
        });
        let closed_nodes: BTreeSet<_> = closed.clone().flat_map(|way| &*way.nodes).collect();
        Self {
            word,
            doors: ways.iter().map(|way| way.door).collect(),
            client,
            lost_by: lost.iter().filter_map(|way| way.lost_by).collect(),
            cause: lost.iter().find_map(|way| way.cause),
            recoverable: recoverable.copied().collect(),
            closed: closed
                .clone()
                .find_map(|way| way.outcome_cause)
                .map(|cause| (closed_nodes.len(), cause)),
        }
    }
}
