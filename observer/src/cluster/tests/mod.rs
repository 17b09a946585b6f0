//! What the index answers, behaviour by behaviour.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the helpers are called with json! in place"
)]

mod addresses;
mod around;
mod capture;
mod documents;
mod front;
mod front_aws;
mod front_doors;
mod front_findings;
mod front_metallb;
mod front_others;
mod gateways;
mod hostile;
mod hosts;
mod planes;
mod proxies;
mod proxies_elsewhere;
mod proxies_outside;
mod proxy_pods;
mod services;
mod trimmed;

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Index, LocalAddresses, Objects};

/// The index of a List of these items.
fn index(items: &[Value]) -> Index {
    Index::build(&objects(items))
}

fn objects(items: &[Value]) -> Objects {
    let list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {}});
    Objects::from_list(list.to_string().as_bytes()).expect("the test's objects parse")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test's address parses")
}

/// The observer on node1, with its own addresses.
fn on_node1() -> LocalAddresses {
    LocalAddresses::new("node1", ["172.31.0.11", "10.244.1.1", "fd00::11"].map(ip))
}

/// A Service of namespace `shop`.
fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}

/// A Service with one port, 80 by the name of `http`, at one cluster address.
fn web(name: &str, cluster_ip: &str) -> Value {
    service(
        name,
        json!({"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]}),
    )
}

/// A slice of the Service `shop/<service>`, with port 8080 by the name of `http`.
fn slice(service: &str, name: &str, endpoints: Value) -> Value {
    slice_with(
        service,
        name,
        "IPv4",
        json!([{"name": "http", "port": 8080}]),
        endpoints,
    )
}

fn slice_with(service: &str, name: &str, family: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": name,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

/// An endpoint that is a Pod of namespace `shop`.
fn endpoint(address: &str, node: &str, pod: &str) -> Value {
    json!({
        "addresses": [address], "nodeName": node,
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
    })
}

fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Value {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|a| json!({"type": "InternalIP", "address": a}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": pod_cidrs},
        "status": {"addresses": addresses},
    })
}

/// Two nodes with pod CIDRs of both families.
fn two_nodes() -> [Value; 2] {
    [
        node(
            "node1",
            &["172.31.0.11", "fd00::11"],
            &["10.244.1.0/24", "fd10:0:0:1::/64"],
        ),
        node(
            "node2",
            &["172.31.0.12", "fd00::12"],
            &["10.244.2.0/24", "fd10:0:0:2::/64"],
        ),
    ]
}

/// A running Pod of namespace `shop`; `spec` and `status` are laid over its own.
fn pod(name: &str, node: &str, ip: &str, spec: Value, status: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    });
    for (part, more) in [("spec", spec), ("status", status)] {
        let Value::Object(more) = more else { continue };
        pod[part].as_object_mut().expect("an object").extend(more);
    }
    pod
}

fn plain_pod(name: &str, node: &str, ip: &str) -> Value {
    pod(name, node, ip, Value::Null, Value::Null)
}
