//! What takes kube-proxy's place on the nodes, or comes after it in the pods.

use serde::Serialize;
use strum::{Display, VariantNames};

use super::front::Setting;

/// Who translates the addresses of Services on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Dataplane {
    /// kube-proxy, as far as the objects tell.
    KubeProxy,
    /// Cilium, which masquerades what goes on to another node.
    CiliumSnat,
    /// Cilium, whose second node answers the client itself.
    CiliumDsr,
    /// Cilium: TCP by direct return, UDP by masquerade.
    CiliumHybrid,
    /// Cilium; how it forwards, no object tells.
    Cilium,
    /// Calico's eBPF dataplane.
    CalicoEbpf,
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

/// STUB
pub fn dataplane(_: &super::Objects) -> Found<Dataplane> {
    Found {
        what: Dataplane::KubeProxy,
        because: Vec::new(),
    }
}
/// STUB
pub fn meshes(_: &super::Objects) -> std::collections::HashMap<super::ServiceRef, Found<Mesh>> {
    std::collections::HashMap::new()
}
