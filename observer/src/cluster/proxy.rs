//! Proxies that open connections of their own to a Service's pods: Ingress and Gateway
//! controllers.

use std::collections::HashMap;

use serde::Serialize;
use strum::{Display, VariantNames};

use super::finding::Finding;
use super::front::{Carrier, Delivers, Keeps, LoadBalancer, Setting, System};
use super::{Objects, Protocol, ServiceRef};

mod class;
mod cloud;
mod envoy;
mod gateway;
mod haproxy;
mod ingress;
mod mismatch;
mod nginx;
mod place;
mod pod;
mod reader;
mod traefik;
mod world;

pub use mismatch::mismatches;
pub use pod::{Expects, PodProxy, behind_doors};
pub use reader::{HeaderReader, readers};
use world::World;

/// Who serves an Ingress or a Gateway.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Controller {
    /// kubernetes/ingress-nginx.
    IngressNginx,
    /// The AWS load balancer controller: an Application Load Balancer.
    AwsAlb,
    /// The AWS load balancer controller, for Gateways of layer 4: a Network Load Balancer.
    AwsNlb,
    /// GKE's: a proxy load balancer outside the cluster.
    Gke,
    /// Traefik, k3s' default.
    Traefik,
    /// An Istio gateway.
    Istio,
    /// Envoy Gateway.
    EnvoyGateway,
    /// `HAProxy`'s.
    Haproxy,
    /// Another one: by its name.
    Other,
    /// Not known which.
    Unknown,
}

/// Where a proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "where")]
pub enum Place {
    /// Outside the cluster: it is the load balancer itself, and delivers to nodes or pods.
    Outside {
        /// To whom.
        delivers: Delivers,
    },
    /// In pods, which clients reach by a Service.
    Behind {
        /// The Service.
        #[serde(serialize_with = "as_text")]
        service: ServiceRef,
    },
    /// On every node, where it takes what comes for a Service over before any rule rewrites it,
    /// with the source address that it came with (Cilium, network/servicemesh/ingress-reference,
    /// "Source IP Visibility").
    OnEveryNode {
        /// The Service.
        #[serde(serialize_with = "as_text")]
        service: ServiceRef,
    },
    /// In pods in their nodes' own network, or with host ports: clients reach it at the nodes.
    OnNodes {
        /// Whether by `hostNetwork`, else by `hostPort`.
        host_network: bool,
    },
    /// No object tells.
    Unknown,
}

/// A way to a Service through a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The kind of the object that says so: `Ingress`, `HTTPRoute`.
    pub kind: String,
    /// Its namespace and name.
    pub name: String,
    /// Where it leads.
    #[serde(serialize_with = "as_text")]
    pub service: ServiceRef,
    /// To which port of that, a number or a name, if it says.
    pub port: Option<String>,
    /// Of which protocol that port is.
    pub protocol: Protocol,
    /// Who serves it.
    pub controller: Controller,
    /// Its name, where `controller` has none.
    pub provider: Option<String>,
    /// Where that is. More than one if clients may come by several ways.
    pub places: Vec<Place>,
    /// From what it takes the client's address, instead of from its socket.
    pub believes: Vec<Carrier>,
    /// By what it passes the client's address on.
    pub adds: Vec<Carrier>,
    /// Whether what it believes is added to rather than replaced; the rest of a chain stays.
    pub appends: bool,
    /// Namespace and name of the `ConfigMap` that sets it up, if it has one.
    pub config_map: Option<(String, String)>,
    /// Whether it goes to the pods themselves; else to the Service's cluster IP.
    pub to_pods: bool,
    /// What decided, most telling first.
    pub because: Vec<Setting>,
}

/// The ways through proxies, and what is wrong with them.
pub fn routes(objects: &Objects) -> (Vec<Route>, Vec<Finding>) {
    let world = World::of(objects);
    let (mut routes, mut findings) = ingress::routes(&world);
    let (more, of_gateways) = gateway::routes(&world);
    routes.extend(more);
    findings.extend(of_gateways);
    findings.sort_unstable();
    findings.dedup();
    (routes, findings)
}

/// By what clients come to a proxy in the cluster, once for each of its places that is known: a
/// Service, or the nodes themselves.
pub fn places_before(route: &Route) -> impl Iterator<Item = Option<&ServiceRef>> {
    route.places.iter().filter_map(|place| match place {
        Place::Behind { service } | Place::OnEveryNode { service } => Some(Some(service)),
        Place::OnNodes { .. } => Some(None),
        Place::Outside { .. } | Place::Unknown => None,
    })
}

/// The proxies outside the cluster, by the Services that they deliver to, told as load balancers:
/// what stands before a proxy in the cluster may be one of them.
pub fn fronts(routes: &[Route]) -> HashMap<ServiceRef, LoadBalancer> {
    let front = |route: &Route| Some((route.service.clone(), route.front()?));
    routes.iter().filter_map(front).collect()
}

/// What is known of who serves, before it is known what.
#[derive(Clone, Debug)]
struct Served {
    controller: Controller,
    provider: Option<String>,
    places: Vec<Place>,
    believes: Vec<Carrier>,
    adds: Vec<Carrier>,
    appends: bool,
    config_map: Option<(String, String)>,
    to_pods: bool,
    because: Vec<Setting>,
}

impl Served {
    /// By somebody of whom nothing is known but, if so, a name.
    const fn by(controller: Controller, provider: Option<String>) -> Self {
        Self {
            controller,
            provider,
            places: Vec::new(),
            believes: Vec::new(),
            adds: Vec::new(),
            appends: false,
            config_map: None,
            to_pods: true,
            because: Vec::new(),
        }
    }

    /// A way of it, by an object to a Service.
    fn leads(self, kind: &str, name: String, service: ServiceRef, port: Option<String>) -> Route {
        let Self {
            controller,
            provider,
            mut places,
            believes,
            adds,
            appends,
            config_map,
            to_pods,
            because,
        } = self;
        if places.is_empty() {
            places.push(Place::Unknown);
        }
        Route {
            kind: kind.to_owned(),
            name,
            service,
            port,
            protocol: protocol_of(kind),
            controller,
            provider,
            places,
            believes,
            adds,
            appends,
            config_map,
            to_pods,
            because,
        }
    }
}

impl Route {
    /// The object that says so: `Ingress shop/web`.
    pub fn object(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// The same as a load balancer, if it is outside the cluster: it opens connections of its own,
    /// but for AWS' of layer 4. That one keeps the client's address or not by the type and the
    /// attributes of its target groups (Elastic Load Balancing, Network Load Balancers,
    /// edit-target-group-attributes), which are in a `TargetGroupConfiguration` that is not read.
    pub fn front(&self) -> Option<LoadBalancer> {
        let delivers = self.places.iter().find_map(|place| match place {
            Place::Outside { delivers } => Some(*delivers),
            _ => None,
        })?;
        let system = match (self.controller, delivers) {
            (Controller::AwsAlb, _) => System::AwsAlb,
            (Controller::AwsNlb, _) => System::AwsNlb,
            (Controller::Gke, Delivers::Pod) => System::GkeContainerNative,
            (Controller::Gke, _) => System::GkeProxy,
            _ => System::Other,
        };
        let keeps = if system == System::AwsNlb {
            Keeps::Unknown
        } else {
            Keeps::Own
        };
        Some(LoadBalancer {
            system,
            provider: self.provider.clone(),
            delivers,
            keeps,
            adds: self.adds.clone(),
            leaves_out_unhealthy_nodes: None,
            only_nodes: None,
            ports: Vec::new(),
            because: self.because.clone(),
        })
    }

    /// Who serves it, by a word.
    pub fn who(&self) -> String {
        let Self {
            provider,
            controller,
            ..
        } = self;
        provider.clone().unwrap_or_else(|| controller.to_string())
    }
}

/// Of which protocol the ports are that an object of a kind leads to: an Ingress and all routes but
/// one lead TCP connections on (Gateway API, reference/spec; QUIC ends at the proxy).
fn protocol_of(kind: &str) -> Protocol {
    if kind == "UDPRoute" {
        Protocol::Udp
    } else {
        Protocol::Tcp
    }
}

fn reference(namespace: &str, name: &str) -> ServiceRef {
    ServiceRef {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn as_text<S: serde::Serializer>(name: &ServiceRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}
