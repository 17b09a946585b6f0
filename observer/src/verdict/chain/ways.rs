//! Every way to a Service port.

use super::doors::{Alike, CLIENTS, Doors};
use super::service::{Explainer, is_served};
use super::walk::Walk;
use super::{Door, Way};
use crate::cluster::front::{Delivers, Keeps, LoadBalancer, System};
use crate::cluster::plane::{Found, Mesh, Meshed};
use crate::cluster::proxy::{Place, Route};
use crate::cluster::{Family, FrontDoorKind, ServiceEntry, ServiceRef};
use crate::verdict::vocabulary::{ClientKind, OutcomeCauseCode};

impl<'a> Explainer<'a> {
    /// All of them.
    pub(super) fn ways(
        self,
        doors: &Doors<'a>,
        entry: &'a ServiceEntry,
        load_balancer: Option<&'a LoadBalancer>,
        mesh: Option<&'a Meshed>,
    ) -> Vec<Way<'a>> {
        let mut ways = Vec::new();
        if doors.may_be_outside() {
            ways.extend(self.by_load_balancer(doors, entry, load_balancer, mesh));
            let routes = self.facts.routes_to(&entry.service.reference).iter();
            for route in routes.filter(|route| leads_to(route, entry)) {
                ways.extend(self.by_proxy(doors, entry, route, mesh));
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
        ways.extend(headless(entry, mesh));
        ways
    }

    /// The ways of clients outside by a Service's load balancer.
    fn by_load_balancer(
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
                // Its health checks ask at the traffic port, where such a node drops (Elastic Load
                // Balancing, "Health checks for Application Load Balancer target groups").
                let leaves_out = front.system == System::AwsAlb
                    || front.leaves_out_unhealthy_nodes == Some(true);
                walks
                    .map(|(walk, alike)| {
                        let cause = alike.and_then(|alike| alike.prediction.outcome_cause);
                        let is_closed = cause == Some(OutcomeCauseCode::NoLocalEndpoints);
                        (walk, Some(front.system), leaves_out && is_closed)
                    })
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
        match Alike::together(by_cluster_ip) {
            Some(alike) => self.by_node(walk, entry, &alike),
            None => walk,
        }
    }

    fn by_node(self, walk: Walk, entry: &ServiceEntry, alike: &Alike) -> Walk {
        let who = match &*alike.nodes {
            [only] => only.to_string(),
            _ => "node".to_owned(),
        };
        walk.node(who, &alike.prediction, &self.facts.dataplane, entry)
    }
}

/// Clients go straight to the pods of a Service without an address.
fn headless<'a>(entry: &'a ServiceEntry, mesh: Option<&Meshed>) -> Option<Way<'a>> {
    let is_headless = entry.service.cluster_ips.is_empty();
    (is_headless && is_served(entry)).then(|| {
        let walk = Walk::from(ClientKind::Pod).pod(taken(entry, mesh));
        walk.way(entry, Door::Pod, ClientKind::Pod)
    })
}

/// Whether a route leads to this port of its Service.
fn leads_to(route: &Route, entry: &ServiceEntry) -> bool {
    let is_its =
        |port: &String| entry.name.as_deref() == Some(port) || port.parse() == Ok(entry.port);
    route.protocol == entry.protocol && route.port.as_ref().is_none_or(is_its)
}

/// What takes connections to a Service port over in its pods: for certain, or in some of them.
fn taken<'a>(entry: &ServiceEntry, mesh: Option<&'a Meshed>) -> Option<(&'a Found<Mesh>, bool)> {
    let mesh = mesh?;
    let families = [Family::V4, Family::V6].into_iter();
    let endpoint = families.flat_map(|family| entry.endpoints(family)).next()?;
    let found = mesh.takes(entry.protocol, endpoint.port)?;
    Some((found, mesh.in_all_pods))
}

fn way(walk: Walk, entry: &ServiceEntry, door: Door, client: ClientKind, alike: Alike) -> Way<'_> {
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
