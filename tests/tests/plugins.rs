//! Network plugins that rewrite addresses beside kube-proxy.
//!
//! Goal: what a plugin takes is told from what kube-proxy takes (row numbers as in the
//! reference). Method: raise a cluster with a plugin's rules, connect, and look at what the pods'
//! own sockets saw.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rstest::rstest;
use tests::{
    client::{self, Answer},
    kubeproxy::{Backend, Mode},
    lab::{
        Lab,
        network::{Masquerade, Network, Nodes, Pods},
    },
    netns::Namespace,
    privilege,
    scene::Scene,
};

const TIMEOUT: Duration = Duration::from_secs(2);
const NFT: Mode = Mode::Iptables(Backend::Nft);

fn raise(masquerade: Masquerade, mode: Mode) -> Lab {
    let mut scene = Scene::plugins();
    scene.network = Network {
        masquerade,
        ..Network::default()
    };
    if masquerade == Masquerade::Flannel {
        scene.network.pods = Pods::Bridge;
        scene.network.nodes = Nodes::Vxlan;
    }
    scene.raise(scene.settings(mode)).expect("raised")
}

fn saw(from: &Namespace, to: &str) -> Answer {
    let to: SocketAddr = to.parse().expect("an address");
    client::connect(from, to, TIMEOUT).unwrap_or_else(|error| panic!("{to}: {error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pod<'lab>(lab: &'lab Lab, name: &str, node: &str) -> &'lab Namespace {
    &lab.pod(name, node).expect("the pod").namespace
}

/// Straight to a pod: by the pod's own node every client is kept, by another's only flannel
/// rewrites it. Without that the replies would take another way back, past the first node.
#[rstest]
#[case::iptables(NFT)]
#[case::iptables_legacy(Mode::Iptables(Backend::Legacy))]
#[case::beside_nftables(Mode::Nftables)]
fn flannel_takes_the_address_of_whom_it_sends_to_another_node(#[case] mode: Mode) {
    if !privilege::granted("flannel_takes_the_address_of_whom_it_sends_to_another_node") {
        return;
    }
    let lab = raise(Masquerade::Flannel, mode);
    for (pod, entry, expected) in [
        ("10.244.1.9", "node1", "203.0.113.50"),
        ("10.244.2.6", "node2", "203.0.113.50"),
        ("10.244.2.6", "node1", "10.244.1.0"),
        ("fd00:10:244:2::6", "node2", "2001:db8:113::50"),
        ("fd00:10:244:2::6", "node1", "fd00:10:244:1::"),
    ] {
        lab.route_vip(ip(pod), entry).expect("led");
        let answer = saw(lab.client(), &SocketAddr::new(ip(pod), 8080).to_string());
        assert_eq!(answer.peer_seen.ip(), ip(expected), "{pod} by {entry}");
    }
}

/// Row 24: a pod to an endpoint in another node's own network.
#[rstest]
#[case::nobody_masquerades(Masquerade::None, "10.244.1.5")]
#[case::flannel(Masquerade::Flannel, "172.31.0.11")]
#[case::calico(Masquerade::Calico, "172.31.0.11")]
fn a_pod_that_leaves_the_pod_network_is_masqueraded(
    #[case] masquerade: Masquerade,
    #[case] expected: &str,
) {
    if !privilege::granted("a_pod_that_leaves_the_pod_network_is_masqueraded") {
        return;
    }
    let lab = raise(masquerade, NFT);
    let answer = saw(pod(&lab, "web-1", "node1"), "10.96.0.13:9100");
    assert_eq!(answer.peer_seen.ip(), ip(expected));
}

/// Row 20: the client is kept; the pod itself, and the node at its loopback address, are not.
#[rstest]
fn a_host_port_leads_to_its_pod(#[values(NFT, Mode::Nftables)] mode: Mode) {
    if !privilege::granted("a_host_port_leads_to_its_pod") {
        return;
    }
    let lab = raise(Masquerade::None, mode);
    let outside = saw(lab.client(), "172.31.0.11:8081");
    assert_eq!((&*outside.pod, outside.peer_seen), ("edge", outside.local));
    let outside = saw(lab.client(), "[fd00:172:31::11]:8081");
    assert_eq!((&*outside.pod, outside.peer_seen), ("edge", outside.local));
    let itself = saw(pod(&lab, "edge", "node1"), "172.31.0.11:8081");
    assert_eq!(itself.peer_seen.ip(), ip("172.31.0.11"));
    let node = &lab.node("node1").expect("a node").namespace;
    assert_eq!(
        saw(node, "127.0.0.1:8081").peer_seen.ip(),
        ip("172.31.0.11")
    );
}

/// k3s' servicelb: the address is lost where no rule of the host is.
#[test]
fn a_relaying_pod_puts_its_own_address_in_place_of_the_clients() {
    if !privilege::granted("a_relaying_pod_puts_its_own_address_in_place_of_the_clients") {
        return;
    }
    let lab = raise(Masquerade::Flannel, NFT);
    let answer = saw(lab.client(), "172.31.0.11:8088");
    assert!(answer.pod.starts_with("web-"), "{}", answer.pod);
    assert_eq!(answer.peer_seen.ip(), ip("10.244.1.10"));
    let answer = saw(lab.client(), "[fd00:172:31::11]:8088");
    assert_eq!(answer.peer_seen.ip(), ip("fd00:10:244:1::10"));
}
