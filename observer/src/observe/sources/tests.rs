//! What there is no room for.

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
    let texts = |networks: &BTreeSet<IpNet>| {
        networks
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    let kept = |room| {
        let Sources { asked, left_out } = Sources::within(&asking, Some(&index), &local, room);
        (texts(&asked), texts(&left_out))
    };
    let order = [
        "203.0.113.0/24",
        "192.0.2.10/32",
        "172.31.0.11/32",
        "172.31.0.10/32",
        "10.244.1.9/32",
    ];
    for room in 0..=order.len() + 1 {
        let texts = |part: &[&str]| part.iter().map(ToString::to_string).collect();
        let (first, rest) = order.split_at(room.min(order.len()));
        assert_eq!(kept(room), (texts(first), texts(rest)));
    }
}

#[test]
fn who_is_in_a_network_that_is_asked_for_is_not_left_out() {
    let networks = |texts: &[&str]| {
        texts
            .iter()
            .map(|it| it.parse().expect("a network"))
            .collect()
    };
    let left_out = LeftOut::from(Sources {
        asked: networks(&["198.51.100.0/24", "192.0.2.10/32"]),
        left_out: networks(&[
            "198.51.100.7/32",
            "192.0.2.0/24",
            "172.31.0.10/32",
            "fd00::10/128",
        ]),
    });
    let is_left_out = |address: &str| left_out.contains(address.parse().expect("an address"));
    for address in ["192.0.2.11", "172.31.0.10", "fd00::10"] {
        assert!(is_left_out(address), "{address}");
    }
    for address in ["198.51.100.7", "192.0.2.10", "203.0.113.50", "fd00::11"] {
        assert!(!is_left_out(address), "{address}");
    }
}
