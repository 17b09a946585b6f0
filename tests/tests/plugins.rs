//! Network plugins that rewrite addresses beside kube-proxy.
//!
//! Goal: what a plugin takes is told from what kube-proxy takes (row numbers as in the
//! reference). Method: raise a cluster with a plugin's rules, connect, and look at what the pods'
//! own sockets saw.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    client::{self, Answer},
    kubeproxy::{
        Backend, Mode,
        doors::{FrontDoor, Kind, doors_of_pods, front_doors},
    },
    lab::{
        Lab,
        network::{Masquerade, Network, Nodes, Pods},
    },
    netns::Namespace,
    observer_process::{ObserverProcess, replay},
    privilege, run,
    scene::Scene,
    traffic::{Client, Way, ways},
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The host port of the pod that relays.
const RELAYED: u16 = 8088;
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

/// Every front door of every Service by every client, host ports, and pods by their own address.
#[rstest]
#[case::flannel(Masquerade::Flannel, NFT)]
#[case::flannel_beside_nftables(Masquerade::Flannel, Mode::Nftables)]
#[case::calico(Masquerade::Calico, Mode::Iptables(Backend::Legacy))]
fn whoever_rewrites_is_told_from_kube_proxy(#[case] masquerade: Masquerade, #[case] mode: Mode) {
    if !privilege::granted("whoever_rewrites_is_told_from_kube_proxy") {
        return;
    }
    let lab = raise(masquerade, mode);
    let ways = all_ways(&lab, masquerade);
    let run = run::observe(&lab, &Scene::plugins().objects, &ways).expect("observed");
    run.assert_right(&lab);
    run.assert_replayed();
    run.assert_joined(&lab);
    let by_plugin = |record: &&Value| record.pointer("/lost_at/by") == Some(&json!("cni"));
    let codes: BTreeSet<&str> = run.records["node1"]
        .iter()
        .filter(by_plugin)
        .filter_map(|record| record.pointer("/cause/code")?.as_str())
        .collect();
    assert_eq!(codes, BTreeSet::from(["cni-masquerade", "hairpin"]));
    // Row 24: a plugin's own rule is no finding, and what must be rewritten no loss to fail on.
    let recording = run.recording("node1");
    let passes = |arguments: &[&str]| replay(&recording, arguments).expect("nothing to fail on");
    passes(&["--client", "10.244.1.0/24", "--fail-on", "unexpected"]);
    if masquerade == Masquerade::Flannel {
        let printed = passes(&["--client", "172.31.0.11", "--lost", "--fail-on", "lost"]);
        assert!(printed.contains("client on this node"), "{printed}");
    }
}

fn all_ways(lab: &Lab, masquerade: Masquerade) -> Vec<Way> {
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let of_pods = doors_of_pods(lab.cluster()).expect("doors of pods");
    // Where nobody rewrites, what comes by another node is answered past that, and dies.
    let by_its_node = |door: &FrontDoor| {
        lab.plan().node_of(door.to.ip()) == Some(&door.entry) || masquerade == Masquerade::Flannel
    };
    let is_relayed = |door: &FrontDoor| door.to.port() == RELAYED;
    doors.extend(
        of_pods
            .into_iter()
            .filter(|door| by_its_node(door) && !is_relayed(door)),
    );
    let mut ways = ways(lab, &Client::all(lab), &doors);
    // How pods and nodes call pods without any Service is nobody's question.
    ways.retain(|way| way.door.kind != Kind::Pod || matches!(way.client, Client::External(_)));
    ways
}

/// k3s' servicelb: the address is lost where no rule of the host is.
#[test]
fn a_relaying_pod_puts_its_own_address_in_place_of_the_clients() {
    if !privilege::granted("a_relaying_pod_puts_its_own_address_in_place_of_the_clients") {
        return;
    }
    let lab = raise(Masquerade::Flannel, NFT);
    let node = lab.node("node1").expect("a node");
    let observer = ObserverProcess::start(node, &Scene::plugins().objects, &[]).expect("observes");
    let answer = saw(lab.client(), "172.31.0.11:8088");
    let records = observer.stop().expect("stops").records;
    assert!(answer.pod.starts_with("web-"), "{}", answer.pod);
    assert_eq!(answer.peer_seen.ip(), ip("10.244.1.10"));
    // The node sees two connections and rewrites the source of neither.
    let mut seen: Vec<[&Value; 4]> = records
        .iter()
        .map(|record| {
            [
                "/front_door/kind",
                "/client/ip",
                "/backend/pod",
                "/source_ip",
            ]
            .map(|field| record.pointer(field).unwrap_or(&Value::Null))
        })
        .collect();
    seen.sort_by_key(|fields| fields[0].to_string());
    let relay = ["ClusterIP", "10.244.1.10", &answer.pod, "preserved"].map(Value::from);
    let outside = ["HostPort", "203.0.113.50", "svclb-web", "preserved"].map(Value::from);
    assert_eq!(seen, [relay.each_ref(), outside.each_ref()]);

    let answer = saw(lab.client(), "[fd00:172:31::11]:8088");
    assert_eq!(answer.peer_seen.ip(), ip("fd00:10:244:1::10"));
}
