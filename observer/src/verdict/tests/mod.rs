//! What is made of a connection, seen from node1 of a cluster of two.

mod before;
mod chain;
mod chain_inside;
mod chain_properties;
mod ipvs;
mod mismatch;
mod outcome;
mod plugin;
mod predict;
mod source;

use std::net::SocketAddr;

use rstest::rstest;
use serde_json::{Value, json};

use super::advice::ChangeCode;
use super::*;
use crate::cluster::{FrontDoorKind, Index, KubeProxy, LocalAddresses, Objects, Protocol};
use crate::flow::{Answer, Answered, Connection, Refusal, Translation};
use crate::observation::{
    Arrival, Conntrack, Departure, DropReason, Entry, Identity, IfIndex, Moment, Ttl, Tuple,
};

const CLIENT: &str = "203.0.113.50:49508";
const WEB: &str = "172.31.0.11:30080";
const LOCAL_POD: &str = "10.244.1.5:8080";
const REMOTE_POD: &str = "10.244.2.5:8080";
const NODE1_MASQUERADE: &str = "172.31.0.11:50513";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

fn arrival() -> Arrival {
    Arrival {
        at: Moment(100),
        interface: IfIndex(2),
        ttl: Ttl(64),
    }
}

fn service(name: &str, node_port: u16, mut spec: Value, endpoints: &Value) -> [Value; 2] {
    let object = spec.as_object_mut().expect("a spec");
    object.entry("type").or_insert(json!("NodePort"));
    object.insert(
        "ports".to_owned(),
        json!([{"name": "http", "port": 80, "nodePort": node_port}]),
    );
    let metadata = json!({"namespace": "shop", "name": name});
    let ingress = json!([{"ip": "198.51.100.7"}]);
    let status = if spec["type"] == "LoadBalancer" {
        json!({"loadBalancer": {"ingress": ingress}})
    } else {
        json!({})
    };
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status}),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "shop", "name": name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        }),
    ]
}

fn endpoint(address: &str, node: &str) -> Value {
    let pod = format!("pod-{}", address.replace('.', "-"));
    json!({
        "addresses": [address], "nodeName": node,
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
    })
}

fn index() -> Index {
    built(&items())
}

fn built(items: &[Value]) -> Index {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let objects = Objects::from_list(list.to_string().as_bytes()).expect("the test's objects");
    Index::build(&objects)
}

fn items() -> Vec<Value> {
    let node = |name: &str, address: &str, pods: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [pods]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    let both = json!([
        endpoint("10.244.1.5", "node1"),
        endpoint("10.244.2.5", "node2")
    ]);
    let far = json!([endpoint("10.244.2.5", "node2")]);
    let on_the_host = json!([{"addresses": ["172.31.0.11"], "nodeName": "node1"}]);
    let mut items = vec![
        node("node1", "172.31.0.11", "10.244.1.0/24"),
        node("node2", "172.31.0.12", "10.244.2.0/24"),
    ];
    items.extend(service(
        "web",
        30080,
        json!({"clusterIP": "10.96.0.1"}),
        &both,
    ));
    let local = json!({
        "clusterIP": "10.96.0.2", "externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.8"],
    });
    items.extend(service("far", 30081, local, &far));
    let local = json!({
        "clusterIP": "10.96.0.8", "externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.9"],
    });
    items.extend(service("api", 30086, local, &both));
    let inside = json!({
        "clusterIP": "10.96.0.7", "type": "ClusterIP", "internalTrafficPolicy": "Local",
    });
    items.extend(service("inside", 0, inside, &far));
    items.extend(service(
        "empty",
        30082,
        json!({"clusterIP": "10.96.0.3"}),
        &json!([]),
    ));
    let fenced = json!({
        "clusterIP": "10.96.0.4", "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    });
    items.extend(service("fenced", 30083, fenced, &far));
    items.extend(service(
        "host",
        30084,
        json!({"clusterIP": "10.96.0.5"}),
        &on_the_host,
    ));
    let on_another_host = json!([{"addresses": ["172.31.0.12"], "nodeName": "node2"}]);
    items.extend(service(
        "agent",
        30085,
        json!({"clusterIP": "10.96.0.6", "externalTrafficPolicy": "Local"}),
        &on_another_host,
    ));
    items
}

fn node1() -> LocalAddresses {
    let addresses = ["172.31.0.11", "10.244.1.1"].map(|ip| ip.parse().expect("an address"));
    LocalAddresses::new("node1", addresses)
}

/// What is known with kube-proxy's defaults and no word of who waits for headers.
fn knowing<'a>(
    index: Option<&'a Index>,
    local: &'a LocalAddresses,
    before: Before<'a>,
) -> Knowledge<'a> {
    Knowledge {
        index,
        kube_proxy: None,
        local,
        all: false,
        before,
        readers: &[],
    }
}

fn judged_with(connection: &Connection, index: Option<&Index>) -> Option<Verdict> {
    judge(connection, knowing(index, &node1(), Before::default()))
}

fn judged(connection: &Connection) -> Verdict {
    judged_with(connection, Some(&index())).expect("reported")
}

/// A connection that came, left towards `backend` with the source `seen`, and was answered.
fn answered(client: &str, door: &str, backend: &str, seen: &str) -> Connection {
    Connection {
        identity: Identity {
            protocol: Protocol::Tcp,
            zone: 0,
            original: Tuple {
                source: socket(client),
                destination: socket(door),
            },
            sequence: 7,
        },
        opened_at: Some(Moment(100)),
        arrival: Some(arrival()),
        departure: Some(Departure {
            at: Moment(200),
            interface: IfIndex(9),
            ttl: Ttl(63),
        }),
        translation: Some(Translation {
            reply: Tuple {
                source: socket(backend),
                destination: socket(seen),
            },
            conntrack: Conntrack::Entry,
        }),
        answer: Answer::Accepted(Answered {
            at: Moment(300),
            arrival: Some(arrival()),
        }),
        stray: None,
        doubtful: false,
        entry: None,
        drop_reason: None,
        repeated: false,
        first_bytes: None,
    }
}

/// A connection that came, and of which no more was seen.
fn silent(client: &str, door: &str) -> Connection {
    Connection {
        departure: None,
        translation: None,
        answer: Answer::None,
        ..answered(client, door, door, client)
    }
}

fn code(verdict: &Verdict) -> Option<CauseCode> {
    verdict.cause.as_ref().map(|cause| cause.code)
}

fn lost_at(verdict: &Verdict) -> Option<&Lost> {
    verdict.losses.first().map(|loss| &loss.at)
}

fn outcome_code(verdict: &Verdict) -> Option<OutcomeCauseCode> {
    verdict.outcome_cause.as_ref().map(|cause| cause.code)
}
