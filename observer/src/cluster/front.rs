//! What stands in front of a Service's nodes, as its objects tell: which load balancer, whom it
//! delivers to, and what it does to the client's address.
//!
//! [`Fronts`] answers for all Services of a cluster. One file per system below.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Service;
use serde::Serialize;
use strum::{Display, VariantNames};

use super::finding::Finding;
use super::{Objects, Protocol};

mod asked;
mod aws;
mod bound;
mod clouds;
mod environment;
mod findings;
mod fronts;
mod k3s;
mod kube_vip;
mod labels;
mod metallb;
mod names;
mod pools;
mod providers;
mod routed;

pub use environment::scheme;
pub use fronts::Fronts;
pub use names::{NODE_LABEL, is_telling};

/// A header or prefix by which a proxy or load balancer passes the client's address on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Carrier {
    /// `X-Forwarded-For`, in HTTP requests.
    XForwardedFor,
    /// The PROXY protocol's text, before the first byte
    /// (`haproxy/doc/proxy-protocol.txt`, 2.1).
    ProxyV1,
    /// The PROXY protocol's binary header, before the first byte (2.2 of the same).
    ProxyV2,
}

/// A system that brings traffic from outside to a cluster's nodes or pods.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum System {
    /// AWS Network Load Balancer.
    AwsNlb,
    /// AWS Application Load Balancer.
    AwsAlb,
    /// AWS Classic Load Balancer, what the in-tree provider makes without annotations.
    AwsClassic,
    /// `MetalLB`, by ARP and NDP.
    MetallbL2,
    /// `MetalLB`, by BGP.
    MetallbBgp,
    /// `MetalLB`; how it announces, no object tells.
    Metallb,
    /// kube-vip.
    KubeVip,
    /// k3s' servicelb (klipper-lb).
    K3sServicelb,
    /// GKE's passthrough network load balancer.
    GkePassthrough,
    /// GKE's proxy load balancers with network endpoint groups (container-native).
    GkeContainerNative,
    /// GKE's proxy load balancers by way of node ports.
    GkeProxy,
    /// Azure's standard load balancer.
    AzureLoadBalancer,
    /// Cilium's own announcements (LB-IPAM).
    CiliumLb,
    /// A provider's that is named by its annotations or class, and of which nothing more is known.
    Other,
    /// Nobody: no load balancer will serve it.
    Nobody,
    /// Not known which.
    Unknown,
}

/// To whom a load balancer delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Delivers {
    /// To a node's address and the Service's node port.
    NodePort,
    /// To a node, with its own address as the destination (`ipMode: VIP`).
    VirtualIp,
    /// To a pod's address and port: kube-proxy has no part in it.
    Pod,
    /// Through a pod of its own on the node that was reached, which opens the way to the cluster
    /// IP (k3s' servicelb).
    Relay,
    /// Not at all.
    Nothing,
    /// Not known to whom.
    Unknown,
}

/// Which source address comes out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Keeps {
    /// The client's.
    Client,
    /// Its own.
    Own,
    /// Not known which.
    Unknown,
}

/// A setting that decided, or the default of one that is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// A field or annotation: `spec.loadBalancerClass`.
    pub name: String,
    /// Its value; that of the default if it is not set.
    pub value: String,
    /// Whether it is not set.
    pub is_default: bool,
    /// The document that says what it does.
    pub source: &'static str,
}

/// The load balancer of a Service of type `LoadBalancer`, or of one that is bound to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancer {
    /// Which.
    pub system: System,
    /// Its name, where `system` has none: `digitalocean`, or a load balancer class.
    pub provider: Option<String>,
    /// To whom it delivers.
    pub delivers: Delivers,
    /// Which source address comes out.
    pub keeps: Keeps,
    /// By what it passes the client's address on, whatever it keeps.
    pub adds: Vec<Carrier>,
    /// Whether it asks nodes or pods for their health, and sends nothing to those without an
    /// endpoint under policy `Local`; `None` if that is not known.
    pub leaves_out_unhealthy_nodes: Option<bool>,
    /// The only nodes that it may bring traffic to, by name; `None` for all, as far as it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_nodes: Option<Vec<String>>,
    /// The ports for which it is otherwise: all of them, if they differ; see [`LoadBalancer::at`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<OfPort>,
    /// What decided, most telling first.
    pub because: Vec<Setting>,
}

/// What a load balancer does with one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfPort {
    /// The Service's port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// To whom it delivers.
    pub delivers: Delivers,
    /// Which source address comes out.
    pub keeps: Keeps,
    /// By what it passes the client's address on.
    pub adds: Vec<Carrier>,
}

impl Setting {
    /// One that is set.
    fn set(name: &str, value: &str, source: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
            is_default: false,
            source,
        }
    }

    /// The default of one that is not.
    fn default_of(name: &str, value: &str, source: &'static str) -> Self {
        Self {
            is_default: true,
            ..Self::set(name, value, source)
        }
    }
}

impl LoadBalancer {
    /// One of which only this is known yet.
    const fn new(system: System, delivers: Delivers, keeps: Keeps) -> Self {
        Self {
            system,
            provider: None,
            delivers,
            keeps,
            adds: Vec::new(),
            leaves_out_unhealthy_nodes: None,
            only_nodes: None,
            ports: Vec::new(),
            because: Vec::new(),
        }
    }

    /// One that is known by its name only.
    fn named(provider: &str, delivers: Delivers, keeps: Keeps) -> Self {
        Self {
            provider: Some(provider.to_owned()),
            ..Self::new(System::Other, delivers, keeps)
        }
    }

    fn because(mut self, settings: impl IntoIterator<Item = Setting>) -> Self {
        self.because.extend(settings);
        self
    }

    const fn leaves_out(mut self, unhealthy_nodes: Option<bool>) -> Self {
        self.leaves_out_unhealthy_nodes = unhealthy_nodes;
        self
    }

    /// What it does with each port: what all agree on that it delivers is the whole's, the rest is
    /// not known of it.
    fn with_ports(mut self, ports: Vec<OfPort>) -> Self {
        let served = || {
            ports
                .iter()
                .filter(|port| port.delivers != Delivers::Nothing)
        };
        let Some(first) = served().next().or(ports.first()) else {
            return self;
        };
        self.delivers = if served().all(|other| other.delivers == first.delivers) {
            first.delivers
        } else {
            Delivers::Unknown
        };
        self.keeps = if served().all(|other| other.keeps == first.keeps) {
            first.keeps
        } else {
            Keeps::Unknown
        };
        self.adds = first
            .adds
            .iter()
            .filter(|carrier| served().all(|other| other.adds.contains(carrier)))
            .copied()
            .collect();
        let is_same = |port: &OfPort| {
            (port.delivers, port.keeps, &port.adds) == (self.delivers, self.keeps, &self.adds)
        };
        if !ports.iter().all(is_same) {
            self.ports = ports;
        }
        self
    }

    /// The same, as it is for one port of the Service.
    pub fn at(&self, protocol: Protocol, port: u16) -> Cow<'_, Self> {
        let mut ports = self.ports.iter();
        match ports.find(|it| (it.protocol, it.port) == (protocol, port)) {
            Some(it) => Cow::Owned(Self {
                delivers: it.delivers,
                keeps: it.keeps,
                adds: it.adds.clone(),
                ports: Vec::new(),
                ..self.clone()
            }),
            None => Cow::Borrowed(self),
        }
    }

    /// One of two, no object tells which: what they agree on is known. Both without ports of
    /// their own.
    fn or(self, other: Self) -> Self {
        let mut because = self.because;
        for setting in other.because {
            if !because.contains(&setting) {
                because.push(setting);
            }
        }
        Self {
            system: agreed(&self.system, &other.system).unwrap_or(System::Unknown),
            provider: self
                .provider
                .filter(|its| Some(its) == other.provider.as_ref()),
            delivers: agreed(&self.delivers, &other.delivers).unwrap_or(Delivers::Unknown),
            keeps: agreed(&self.keeps, &other.keeps).unwrap_or(Keeps::Unknown),
            adds: self
                .adds
                .into_iter()
                .filter(|it| other.adds.contains(it))
                .collect(),
            leaves_out_unhealthy_nodes: self
                .leaves_out_unhealthy_nodes
                .filter(|its| Some(*its) == other.leaves_out_unhealthy_nodes),
            only_nodes: self
                .only_nodes
                .filter(|its| Some(its) == other.only_nodes.as_ref()),
            ports: Vec::new(),
            because,
        }
    }

    /// Its name for people and findings: the provider's, where the system has none.
    pub fn name(&self) -> String {
        match &self.provider {
            Some(provider) => provider.clone(),
            None => self.system.to_string(),
        }
    }
}

/// A load balancer, and what its settings alone tell of it.
#[derive(Debug)]
struct Answer {
    load_balancer: LoadBalancer,
    findings: Vec<Finding>,
}

fn agreed<T: Copy + PartialEq>(one: &T, other: &T) -> Option<T> {
    (one == other).then_some(*one)
}

impl Answer {
    /// It is not made at all, if something is refused.
    fn unless(mut self, refused: Vec<Finding>) -> Self {
        if !refused.is_empty() {
            self.load_balancer.delivers = Delivers::Nothing;
            self.load_balancer.ports.clear();
            self.findings.extend(refused);
        }
        self
    }
}

impl From<LoadBalancer> for Answer {
    fn from(load_balancer: LoadBalancer) -> Self {
        Self {
            load_balancer,
            findings: Vec::new(),
        }
    }
}

/// The load balancer of a Service; `None` if it has none. For many Services, make [`Fronts`] once.
pub fn load_balancer(service: &Service, objects: &Objects) -> Option<LoadBalancer> {
    Fronts::new(objects).load_balancer(service)
}

/// What is wrong with the load balancer of a Service, or will surprise. For many Services, make
/// [`Fronts`] once.
pub fn findings(service: &Service, objects: &Objects) -> Vec<Finding> {
    Fronts::new(objects).findings(service)
}
