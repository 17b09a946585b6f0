//! How packets pass the nodes of a lab: by which interfaces, and with which TTL.

use serde_json::json;

use super::Expected;
use crate::{
    client::Answer,
    kubeproxy::Mode,
    lab::Lab,
    traffic::{Client, Opened},
};

/// What every packet of a lab sets out with.
pub(super) const TTL: u8 = 64;

/// How a connection passed a node.
pub(super) struct Step<'lab> {
    /// By which interface it came, and with which TTL; none for a client on the node.
    pub(super) arrival: Option<(&'lab str, u8)>,
    /// By which it left; none if it was delivered to the host.
    pub(super) out: Option<&'lab str>,
    pub(super) ttl_out: u8,
    /// With which TTL the reply came, if it came by an interface.
    pub(super) reply_ttl: u8,
}

pub(super) fn step(step: &Step<'_>) -> Expected {
    let Step {
        arrival,
        out,
        ttl_out,
        reply_ttl,
    } = step;
    let mut expected = vec![
        ("/path/0/in", json!(arrival.map(|(interface, _)| interface))),
        ("/path/0/ttl_in", json!(arrival.map(|(_, ttl)| ttl))),
        ("/path/0/out", json!(out)),
        ("/path/0/ttl_out", json!(out.map(|_| ttl_out))),
        ("/path/0/reply_ttl_in", json!(out.map(|_| reply_ttl))),
    ];
    if out.is_none() || arrival.is_none() {
        expected.push(("/path/0/forward_ns", json!(null)));
    }
    expected
}

/// By which interface the client's packets come to the node they enter by, and with which TTL.
pub(super) fn arrival<'lab>(lab: &'lab Lab, opened: &Opened) -> Option<(&'lab str, u8)> {
    let interface = match &opened.way.client {
        Client::External(_) => lab.wire(),
        // Its own node forwarded it.
        Client::Pod { node, .. } if *node != opened.way.door.entry => {
            return Some((lab.wire(), TTL - 1));
        }
        Client::Pod { name, node } => lab.pod(name, node)?.interface(),
        Client::Node(_) => return None,
    };
    Some((interface, TTL))
}

/// Whether a bridge alone brought the packet from pod to pod, and no router: what netfilter on a
/// bridge sends back to the same bridge is not routed (`net/bridge/br_netfilter_hooks.c`,
/// `br_nf_pre_routing_finish`, `bridged_dnat`).
pub(super) fn is_bridged(lab: &Lab, opened: &Opened, answer: &Answer) -> bool {
    matches!(&opened.way.client, Client::Pod { node, .. } if *node == opened.way.door.entry)
        && lab.bridges_pods_by_netfilter()
        // A virtual server routes anew.
        && lab.kube_proxy().mode != Mode::Ipvs
        && lab.plan().is_of_pod(answer.backend.ip())
        && lab.plan().node_of(answer.backend.ip()) == Some(&opened.way.door.entry)
}

/// With which TTL a connection leaves the node that it enters by. Forwarding takes one, and so does
/// a virtual server, also of what the node itself sends (`net/netfilter/ipvs/ip_vs_xmit.c`,
/// `decrement_ttl`).
pub(super) fn ttl_out(lab: &Lab, opened: &Opened, bridged: bool) -> u8 {
    let arrival = arrival(lab, opened);
    let forwarded = arrival.is_some() || lab.kube_proxy().mode == Mode::Ipvs;
    let from = arrival.map_or(TTL, |(_, ttl)| ttl);
    from - u8::from(forwarded && !bridged)
}

/// Whether a node's own network answered, on that node.
pub(super) fn is_of_host(lab: &Lab, node: &str, answer: &Answer) -> bool {
    let backend = answer.backend.ip();
    lab.plan().is_of_host(backend) && lab.plan().node_of(backend) == Some(node)
}
