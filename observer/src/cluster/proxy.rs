//! Proxies that open connections of their own to a Service's pods: Ingress and Gateway
//! controllers.

use serde::Serialize;
use strum::{Display, VariantNames};

use super::ServiceRef;
use super::front::{Carrier, Delivers, Setting};

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

fn as_text<S: serde::Serializer>(name: &ServiceRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// STUB
pub fn routes(_: &super::Objects) -> (Vec<Route>, Vec<super::finding::Finding>) {
    (Vec::new(), Vec::new())
}
/// STUB
pub fn mismatches(
    _: &Route,
    _: Option<&super::front::LoadBalancer>,
) -> Vec<super::finding::Finding> {
    Vec::new()
}
