//! What takes kube-proxy's place on the nodes, or comes after it in the pods.

use serde::Serialize;
use strum::{Display, VariantNames};

use super::front::Setting;

mod mesh;
mod nodes;

pub(super) use mesh::kept;
pub use mesh::{Meshed, mesh, meshes, sidecar};
pub use nodes::dataplane;

/// Who translates the addresses of Services on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Dataplane {
    /// kube-proxy, as far as the objects tell.
    KubeProxy,
    /// Cilium, which masquerades what goes on to another node: its default (Cilium,
    /// network/kubernetes/kubeproxy-free, "Direct Server Return (DSR)").
    CiliumSnat,
    /// Cilium, whose second node answers the client itself.
    CiliumDsr,
    /// Cilium: TCP by direct return, UDP by masquerade (the same, "Hybrid DSR and SNAT Mode").
    CiliumHybrid,
    /// Cilium; how it forwards, no object tells.
    Cilium,
    /// Calico's eBPF dataplane: it keeps the source all the way to the pod, under either policy
    /// (Calico, operations/ebpf/enabling-ebpf, "Value").
    CalicoEbpf,
    /// GKE's Dataplane V2, built on Cilium; no object tells how it forwards.
    GkeDataplaneV2,
    /// Antrea, which masquerades what goes on to another node (Antrea, docs/antrea-proxy.md,
    /// "Configuring load balancer mode for external traffic").
    AntreaNat,
    /// Antrea, whose second node answers the client itself (the same).
    AntreaDsr,
    /// OVN-Kubernetes, by load balancers of OVN and flows on the nodes.
    OvnKubernetes,
    /// kube-router's service proxy.
    KubeRouter,
}

/// What takes connections over within a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Mesh {
    /// An Istio sidecar that redirects: the application sees 127.0.0.6.
    IstioRedirect,
    /// An Istio sidecar in mode TPROXY: the application sees the peer.
    IstioTproxy,
    /// Istio's ambient mode: ztunnel keeps the peer's address.
    IstioAmbient,
    /// A Linkerd proxy: the application sees 127.0.0.1.
    Linkerd,
}

/// What was found, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found<T> {
    /// Which.
    pub what: T,
    /// By what, most telling first.
    pub because: Vec<Setting>,
}
