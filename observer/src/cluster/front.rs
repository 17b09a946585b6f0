//! What stands in front of a Service's nodes, as its objects tell: which load balancer, whom it
//! delivers to, and what it does to the client's address.

use serde::Serialize;
use strum::{Display, VariantNames};

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
    /// What decided, most telling first.
    pub because: Vec<Setting>,
}

/// STUB
#[expect(dead_code, reason = "stub")]
pub struct Fronts<'a>(&'a super::Objects);
impl<'a> Fronts<'a> {
    /// n
    pub fn new(objects: &'a super::Objects) -> Self {
        Self(objects)
    }
    /// l
    pub fn load_balancer(&self, _: &k8s_openapi::api::core::v1::Service) -> Option<LoadBalancer> {
        None
    }
    /// f
    pub fn findings(
        &self,
        _: &k8s_openapi::api::core::v1::Service,
    ) -> Vec<super::finding::Finding> {
        Vec::new()
    }
}
