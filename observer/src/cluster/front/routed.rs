//! Addresses that a network plugin announces: what goes to them is routed to a node as it is.

use super::asked::Asked;
use super::{Delivers, Keeps, LoadBalancer, Setting, System};

const L2: &str = "Cilium, L2 Announcements: limitations";
const BGP: &str = "Cilium, BGP Control Plane: externalTrafficPolicy";
const NODE: &str = "Cilium, Node IPAM LB";
const CALICO: &str = "Calico, Advertise Kubernetes service IP addresses";

/// Cilium's LB-IPAM, announced by ARP or by BGP.
pub(super) fn cilium(asked: Asked<'_>, setting: Setting) -> LoadBalancer {
    let (leaves_out, source) = match asked.class() {
        // The leader is chosen among all nodes, with or without a pod.
        Some("io.cilium/l2-announcer") => (Some(false), Some(L2)),
        Some("io.cilium/bgp-control-plane") => (Some(true), Some(BGP)),
        Some("io.cilium/node") => (Some(true), Some(NODE)),
        _ => (None, None),
    };
    let policy = source.map(|source| asked.policy(source));
    LoadBalancer::new(System::CiliumLb, Delivers::VirtualIp, Keeps::Client)
        .leaves_out(leaves_out)
        .because([setting])
        .because(policy)
}

/// Calico's own addresses for load balancers, announced by BGP; under policy `Local` by the nodes
/// with a pod.
pub(super) fn calico(setting: Setting) -> LoadBalancer {
    LoadBalancer::named("calico", Delivers::VirtualIp, Keeps::Client)
        .leaves_out(Some(true))
        .because([
            setting,
            Setting::default_of("serviceLoadBalancerIPs", "by BGP", CALICO),
        ])
}
