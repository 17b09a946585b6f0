//! Connections that come by the node's default gateway, as docker's and kind's nodes get all from
//! outside.
//!
//! Goal: its address is nobody's in particular, and the observer says `unknown` of it; of whoever
//! else comes it says what it always said, and what this node rewrites it knows. Method: the client
//! is the gateway of a node, and connects from that address and from its own; the pods' sockets say
//! what they saw.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use tests::{
    client::connect_from_here,
    demo,
    kubeproxy::{
        Family,
        doors::{FrontDoor, Kind, front_doors},
    },
    lab::{Lab, Options},
    observer_process::ObserverProcess,
    privilege,
    protocol::Protocol,
};

const TIMEOUT: Duration = Duration::from_secs(2);
const ENTRY: &str = "node1";

/// In the network that the nodes share.
fn gateway(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("172.31.0.1", "24"),
        Family::V6 => ("fd00:172:31::1", "64"),
    }
}

/// Makes the client the default gateway of the node.
fn lead_through(lab: &Lab, family: Family) {
    let ((address, prefix), interface) = (gateway(family), "eth0");
    let add = format!("address add {address}/{prefix} dev {interface}\n");
    lab.client().ip(&add).expect("added");
    let node = lab.node(ENTRY).expect("the node");
    let route = format!("route replace default via {address} dev {interface}\n");
    node.namespace.ip(&route).expect("routed");
}

/// Every node port of the entry node, and the source that a pod saw behind it.
fn connections(lab: &Lab, family: Family, from: IpAddr) -> Vec<(FrontDoor, SocketAddr)> {
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("doors");
    let doors = doors.into_iter().filter(|door| {
        door.kind == Kind::NodePort
            && door.protocol == Protocol::Tcp
            && door.entry == ENTRY
            && family.holds(door.to.ip())
    });
    let connect = |door: FrontDoor| {
        let connected = lab
            .client()
            .run(|| connect_from_here(Protocol::Tcp, Some(from), door.to, TIMEOUT));
        let answer = connected.expect("in the namespace").ok()?;
        Some((door, answer.peer_seen))
    };
    doors.filter_map(connect).collect()
}

#[rstest]
fn the_gateways_address_may_be_anybodys(#[values(Family::V4, Family::V6)] family: Family) {
    if !privilege::granted("the_gateways_address_may_be_anybodys") {
        return;
    }
    let lab = demo::raise_with(Options::default()).expect("raised");
    let own = lab.client_addresses();
    let own = own.into_iter().find(|address| family.holds(*address));
    let own = own.expect("an address of the client's");
    lead_through(&lab, family);
    let node = lab.node(ENTRY).expect("the node");
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observing");
    let by_gateway: IpAddr = gateway(family).0.parse().expect("an address");
    let mut opened = connections(&lab, family, by_gateway);
    opened.extend(connections(&lab, family, own));
    let finished = observer.stop().expect("stopped");
    let (mut kept, mut unknown, mut lost) = (0, 0, 0);
    for (door, peer) in &opened {
        let is_it = |record: &&Value| {
            let seen = &record["source_seen"];
            seen["ip"] == peer.ip().to_string() && seen["port"] == peer.port()
        };
        let mut records = finished.records.iter().filter(is_it);
        let record = records.next().expect("a record");
        assert!(records.next().is_none(), "one: {record}");
        assert_eq!(record["as_expected"], true, "{record}");
        let (expected, cause) = if peer.ip() == by_gateway {
            unknown += 1;
            ("unknown", "gateway-masquerade")
        } else if peer.ip() == own {
            kept += 1;
            ("preserved", "")
        } else {
            lost += 1;
            ("lost", "external-traffic-policy-cluster")
        };
        assert_eq!(record["source_ip"], expected, "{door:?}: {record}");
        let code = record["cause"]["code"].as_str();
        assert_eq!(code.unwrap_or_default(), cause, "{record}");
    }
    assert!(kept > 0 && unknown == kept && lost > 0, "{opened:?}");
}
