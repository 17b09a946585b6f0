//! Whose first bytes the programs are asked for.

use std::collections::BTreeSet;

use ipnet::IpNet;
use observer_ebpf::SOURCES_MAX;

use crate::cluster::{Index, LocalAddresses, Protocol, Snapshot};
use crate::kernel::programs::{FirstBytes, Ports};
use crate::notice::say;
use crate::observe::Asking;

/// What the programs are told, and what they have no room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) first_bytes: FirstBytes,
    /// Sources of which they are not told.
    pub(super) left_out: usize,
}

/// What a source is asked for as: where there is no room for all, those that come first are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    LoadBalancer,
    ThisNode,
    OtherNode,
    Pod,
}

impl Asked {
    /// The connections to front doors, and to what they lead to.
    pub(super) fn of(
        asking: &Asking,
        cluster: Option<&Snapshot>,
        all: bool,
        local: &LocalAddresses,
    ) -> Self {
        let index = cluster.map(|cluster| &cluster.index);
        let ports = match index {
            Some(index) if !all => Ports::Only(index.ports(Protocol::Tcp)),
            _ => Ports::All,
        };
        let (sources, left_out) = with_room(asking, index, local, SOURCES_MAX as usize);
        Self {
            first_bytes: FirstBytes { ports, sources },
            left_out,
        }
    }

    /// Tells how many are left out, if that is not told already.
    pub(super) fn tell(&self, told: usize) {
        let Self { left_out, .. } = self;
        if *left_out > 0 && *left_out != told {
            say(&format!(
                "warning: the programs have room for {SOURCES_MAX} sources of clients' first bytes: \
                 {left_out} more are not asked, pods first, then other nodes; trust a network \
                 instead (--trusted-proxies)"
            ));
        }
    }
}

/// The sources that there is room for, and how many are left out.
fn with_room(
    asking: &Asking,
    index: Option<&Index>,
    local: &LocalAddresses,
    room: usize,
) -> (BTreeSet<IpNet>, usize) {
    let sources = asking.sources(index, local);
    let Some(left_out @ 1..) = sources.len().checked_sub(room) else {
        return (sources, 0);
    };
    let nowhere = LocalAddresses::new(local.node(), []);
    let named = asking.sources(None, &nowhere);
    let rank = |source: &IpNet| {
        let ip = source.addr();
        match index {
            Some(index) if !named.contains(source) => {
                let own = index.node(local.node());
                if local.contains(ip) || own.is_some_and(|own| own.addresses.contains(&ip)) {
                    Rank::ThisNode
                } else if index.has_node_address(ip) {
                    Rank::OtherNode
                } else if index.is_pod(ip) {
                    Rank::Pod
                } else {
                    Rank::LoadBalancer
                }
            }
            None if local.contains(ip) && !named.contains(source) => Rank::ThisNode,
            _ => Rank::Named,
        }
    };
    let mut ordered: Vec<_> = sources.into_iter().collect();
    ordered.sort_by_key(rank);
    ordered.truncate(room);
    (ordered.into_iter().collect(), left_out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Objects;
    use crate::observe::{Trusted, Whose};

    fn index() -> Index {
        let node = |name, address| {
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            })
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            node("node1", "172.31.0.11"),
            node("node0", "172.31.0.10"),
            {
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": "shop", "name": "web"},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}},
            },
            {
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "namespace": "shop", "name": "web",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "ports": [{"port": 80}],
                "endpoints": [{
                    "addresses": ["10.244.1.9"], "nodeName": "node1",
                    "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0"},
                }],
            },
        ]});
        let objects = Objects::from_list(list.to_string().as_bytes()).expect("objects");
        Index::build(&objects)
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_in_the_order_of_worth() {
        let named = "203.0.113.0/24".parse().expect("a network");
        let asking = Asking {
            whose: Whose::Known,
            trusted: vec![Trusted::Network(named)],
            ..Asking::default()
        };
        let index = index();
        let own = "172.31.0.11".parse().expect("an address");
        let local = LocalAddresses::new("node1", [own]);
        let kept = |room| {
            let (sources, left_out) = with_room(&asking, Some(&index), &local, room);
            let sources: BTreeSet<_> = sources.iter().map(ToString::to_string).collect();
            (sources, left_out)
        };
        let order = [
            "203.0.113.0/24",
            "192.0.2.10/32",
            "172.31.0.11/32",
            "172.31.0.10/32",
            "10.244.1.9/32",
        ];
        for room in 0..=order.len() + 1 {
            let expected = order.iter().take(room).map(ToString::to_string).collect();
            assert_eq!(kept(room), (expected, order.len().saturating_sub(room)));
        }
    }
}
