//! Whose an address is, and what is behind a backend's.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::{AddressKind, Index, Protocol};
use super::{endpoint, index, ip, node, on_node1, plain_pod, pod, slice, slice_with, two_nodes};

/// `pod @ node`, as far as they are known.
fn backend(index: &Index, protocol: Protocol, address: &str, port: u16) -> String {
    let found = index.backend(protocol, ip(address), port);
    let pod = found.pod.map_or("?".to_owned(), ToString::to_string);
    format!("{pod} @ {}", found.node.unwrap_or("?"))
}

fn tcp_backend(items: &[Value], address: &str) -> String {
    backend(&index(items), Protocol::Tcp, address, 8080)
}

fn with_nodes(items: &[Value]) -> Vec<Value> {
    [two_nodes().as_slice(), items].concat()
}

#[test]
fn the_endpoint_tells_pod_and_node() {
    // On a node whose pod CIDR does not hold the address: the endpoint knows better.
    let items = with_nodes(&[slice(
        "web",
        "a",
        json!([endpoint("10.244.2.5", "node1", "p")]),
    )]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "shop/p @ node1");
}

#[rstest]
#[case::the_same("p", "node2", "shop/p @ node2")]
#[case::another_pod("q", "node2", "? @ node2")]
#[case::another_node("p", "node1", "shop/p @ ?")]
fn slices_that_disagree_tell_nothing(#[case] pod: &str, #[case] on: &str, #[case] expected: &str) {
    let items = with_nodes(&[
        slice("web", "a", json!([endpoint("10.244.2.5", "node2", "p")])),
        slice("api", "b", json!([endpoint("10.244.2.5", on, pod)])),
        slice("api", "c", json!([{"addresses": ["10.244.2.5"]}])),
    ]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), expected);
}

#[test]
fn an_endpoint_without_a_node_is_placed_by_address() {
    let bare = |address: &str| json!([{"addresses": [address]}]);
    let items = with_nodes(&[
        slice("web", "a", bare("10.244.2.5")),
        slice("web", "b", bare("172.31.0.12")),
        slice("web", "c", bare("203.0.113.5")),
    ]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "? @ node2");
    assert_eq!(tcp_backend(&items, "172.31.0.12"), "? @ node2");
    assert_eq!(tcp_backend(&items, "203.0.113.5"), "? @ ?");
}

#[test]
fn a_pod_knows_its_node_better_than_the_cidr() {
    let items = with_nodes(&[plain_pod("p", "node1", "10.244.2.5")]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "shop/p @ node1");
}

#[test]
fn a_pod_that_is_over_has_no_address() {
    let over = pod(
        "job",
        "node1",
        "10.244.2.5",
        Value::Null,
        json!({"phase": "Succeeded"}),
    );
    let items = with_nodes(&[over, plain_pod("p", "node2", "10.244.2.5")]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "shop/p @ node2");
}

#[test]
fn two_pods_with_one_address_cancel_each_other() {
    let items = with_nodes(&[
        plain_pod("p", "node2", "10.244.2.5"),
        plain_pod("q", "node2", "10.244.2.5"),
    ]);
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "? @ ?");
}

#[test]
fn overlapping_pod_cidrs_place_by_the_longest() {
    let items = [
        node("wide", &[], &["10.244.0.0/16"]),
        node("narrow", &[], &["10.244.2.0/24"]),
        node("one", &[], &["10.245.0.0/24"]),
        node("other", &[], &["10.245.0.0/24"]),
    ];
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "? @ narrow");
    assert_eq!(tcp_backend(&items, "10.244.3.5"), "? @ wide");
    assert_eq!(tcp_backend(&items, "10.245.0.5"), "? @ ?");
}

#[test]
fn pods_in_the_nodes_network_are_told_apart_by_port() {
    let spec =
        |ports: Value| json!({"hostNetwork": true, "containers": [{"name": "c", "ports": ports}]});
    let of_node2 = |name: &str, ports| pod(name, "node2", "172.31.0.12", spec(ports), Value::Null);
    let index = index(&with_nodes(&[
        of_node2(
            "proxy",
            json!([{"containerPort": 80}, {"containerPort": 9000}]),
        ),
        of_node2(
            "other",
            json!([{"containerPort": 9000}, {"containerPort": 80, "protocol": "UDP"}]),
        ),
    ]));
    assert_eq!(
        backend(&index, Protocol::Tcp, "172.31.0.12", 80),
        "shop/proxy @ node2"
    );
    assert_eq!(
        backend(&index, Protocol::Udp, "172.31.0.12", 80),
        "shop/other @ node2"
    );
    // Two declare it, but the node's address places them both.
    assert_eq!(backend(&index, Protocol::Tcp, "172.31.0.12", 9000), "? @ ?");
    assert_eq!(
        backend(&index, Protocol::Tcp, "172.31.0.12", 22),
        "? @ node2"
    );
}

fn kind<'a>(index: &'a Index, local: &'a super::LocalAddresses, address: &str) -> AddressKind<'a> {
    index.address_kind(ip(address), local)
}

#[rstest]
#[case::of_this_node("172.31.0.11", AddressKind::Node("node1"))]
#[case::of_its_bridge("10.244.1.1", AddressKind::Node("node1"))]
#[case::loopback("127.0.0.1", AddressKind::Node("node1"))]
#[case::loopback_v6("::1", AddressKind::Node("node1"))]
#[case::of_another_node("172.31.0.12", AddressKind::Node("node2"))]
#[case::of_another_node_v6("fd00::12", AddressKind::Node("node2"))]
#[case::endpoint("10.244.2.5", AddressKind::Pod)]
#[case::some_pod("10.244.2.9", AddressKind::Pod)]
#[case::some_pod_v6("fd10:0:0:2::9", AddressKind::Pod)]
#[case::flannels_tunnel("10.244.2.0", AddressKind::Unknown)]
#[case::flannels_tunnel_v6("fd10:0:0:2::", AddressKind::Unknown)]
#[case::near_the_pods("10.244.9.9", AddressKind::Unknown)]
#[case::client("203.0.113.50", AddressKind::External)]
#[case::client_v6("2001:db8::50", AddressKind::External)]
fn whose_address(#[case] address: &str, #[case] expected: AddressKind<'_>) {
    let index = index(&with_nodes(&[slice(
        "web",
        "a",
        json!([endpoint("10.244.2.5", "node2", "p")]),
    )]));
    assert_eq!(kind(&index, &on_node1(), address), expected);
}

/// Once Pods are given, an address of a pod CIDR that none has is a tunnel's or a bridge's.
#[rstest]
#[case::pod("10.244.2.7", AddressKind::Pod)]
#[case::endpoint_without_a_pod("10.244.2.5", AddressKind::Pod)]
#[case::bridge("10.244.2.1", AddressKind::Unknown)]
fn given_pods(#[case] address: &str, #[case] expected: AddressKind<'_>) {
    let index = index(&with_nodes(&[
        plain_pod("p", "node2", "10.244.2.7"),
        slice("web", "a", json!([{"addresses": ["10.244.2.5"]}])),
    ]));
    assert_eq!(kind(&index, &on_node1(), address), expected);
}

/// Calico leaves pod CIDRs unused, the VPC network plugin of EKS has none.
#[rstest]
#[case::pod("10.0.3.7", AddressKind::Pod)]
#[case::near_the_pods("10.0.9.9", AddressKind::Unknown)]
#[case::client("203.0.113.50", AddressKind::External)]
#[case::a_family_without_pods("2001:db8::50", AddressKind::Unknown)]
fn without_pod_cidrs(#[case] address: &str, #[case] expected: AddressKind<'_>) {
    let index = index(&[
        node("node1", &["10.0.1.11"], &[]),
        plain_pod("p", "node1", "10.0.3.7"),
        // In the node's network: says nothing of where Pods live.
        slice("web", "a", json!([endpoint("10.0.1.11", "node1", "q")])),
    ]);
    assert_eq!(kind(&index, &on_node1(), address), expected);
}

#[rstest]
#[case::of_this_node("172.31.0.11", AddressKind::Node("node1"))]
#[case::pod("10.244.2.7", AddressKind::Pod)]
#[case::of_a_node_that_a_pod_knows("172.31.0.12", AddressKind::Node("node2"))]
#[case::anything("203.0.113.50", AddressKind::Unknown)]
fn without_nodes(#[case] address: &str, #[case] expected: AddressKind<'_>) {
    let host = json!({"hostIP": "172.31.0.12"});
    let index = index(&[pod("p", "node2", "10.244.2.7", Value::Null, host)]);
    assert_eq!(kind(&index, &on_node1(), address), expected);
}

#[test]
fn an_empty_state_knows_nothing() {
    let index = Index::default();
    let local = on_node1();
    assert_eq!(kind(&index, &local, "203.0.113.50"), AddressKind::Unknown);
    assert_eq!(
        kind(&index, &local, "127.0.0.1"),
        AddressKind::Node("node1")
    );
    assert_eq!(backend(&index, Protocol::Tcp, "10.244.2.5", 8080), "? @ ?");
    assert!(
        index
            .front_door(Protocol::Tcp, ip("10.96.0.1"), 443, &local)
            .is_none()
    );
}

#[test]
fn a_node_address_of_two_nodes_is_nobodys() {
    let index = index(&[
        node("a", &["172.31.0.100"], &[]),
        node("b", &["172.31.0.100"], &[]),
    ]);
    assert_eq!(
        kind(&index, &on_node1(), "172.31.0.100"),
        AddressKind::Unknown
    );
}

#[test]
fn endpoints_of_the_wrong_family_and_kind_are_ignored() {
    let named = json!([{"addresses": ["db.example.com"]}]);
    let ports = || json!([{"name": "http", "port": 8080}]);
    let mut of_a_vm = endpoint("10.244.2.6", "node2", "vm");
    of_a_vm["targetRef"]["kind"] = json!("VirtualMachine");
    let items = [
        slice_with("web", "a", "FQDN", ports(), named),
        slice_with(
            "web",
            "b",
            "IPv6",
            ports(),
            json!([endpoint("10.244.2.5", "node2", "p")]),
        ),
        slice("web", "c", json!([of_a_vm])),
    ];
    assert_eq!(tcp_backend(&items, "10.244.2.5"), "? @ ?");
    assert_eq!(tcp_backend(&items, "10.244.2.6"), "? @ node2");
}
