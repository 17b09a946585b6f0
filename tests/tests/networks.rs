//! The observer on nodes that are wired in other ways.
//!
//! Goal: one packet that passes several hooks (a bridge and its port, a tunnel and the wire, a
//! VLAN or a bond and what is below) is one connection, with its first arrival and its last egress. Method: raise the demo cluster
//! with each wiring, open every front door, and compare with the oracle; then look at the
//! interfaces that the records name.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    attached::{self, SIDES},
    child::poll_until,
    client::{self, Failure},
    demo,
    lab::{
        Lab, Options,
        network::{Masquerade, Network, Nodes, Pods, Uplink},
    },
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
};

const PLAIN: Network = Network {
    pods: Pods::Veths,
    nodes: Nodes::Routes,
    uplink: Uplink::Plain,
    bridge_netfilter: true,
    masquerade: Masquerade::None,
};
/// Longer than the observer waits for an answer.
const GIVES_UP: Duration = Duration::from_secs(4);
/// The observer looks at its interfaces ten times a second; a busy machine gets more.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

fn raise(network: Network) -> Lab {
    let options = Options {
        network,
        ..Options::default()
    };
    demo::raise_with(options).expect("raised")
}

#[rstest]
#[case::a_bridge_of_pods(Network { pods: Pods::Bridge, ..PLAIN })]
#[case::a_bridge_past_netfilter(Network { pods: Pods::Bridge, bridge_netfilter: false, ..PLAIN })]
#[case::vxlan(Network { nodes: Nodes::Vxlan, ..PLAIN })]
#[case::flannel(Network { pods: Pods::Bridge, nodes: Nodes::Vxlan, ..PLAIN })]
#[case::a_bridge_as_uplink(Network { uplink: Uplink::Bridge, bridge_netfilter: false, ..PLAIN })]
#[case::devices_without_a_link_header(Network { pods: Pods::Tuns, ..PLAIN })]
#[case::bridges_everywhere(Network { pods: Pods::Bridge, nodes: Nodes::Vxlan, uplink: Uplink::Bridge, ..PLAIN })]
fn every_wiring_gives_the_same_verdicts(#[case] network: Network) {
    if !privilege::granted("every_wiring_gives_the_same_verdicts") {
        return;
    }
    gives_the_same_verdicts(network);
}

fn gives_the_same_verdicts(network: Network) {
    let lab = raise(network);
    let ways = demo::ways_from_outside(&lab).expect("ways");
    let run = demo::observe(&lab, &ways).expect("observed");
    run.assert_right(&lab);
    for record in run.records.values().flatten() {
        arrived_by_the_wire(record, network);
    }
}

/// Whatever came from outside came by the wire first, also where that is a bridge's port, or by
/// what is stacked on the wire, which is not observed then; what another node forwarded came by
/// the tunnel, if there is one.
fn arrived_by_the_wire(record: &Value, network: Network) {
    let is_second_half = record.pointer("/front_door/kind") == Some(&json!("Pod"));
    let expected = if is_second_half && network.nodes == Nodes::Vxlan {
        "flannel.1"
    } else {
        match network.uplink {
            Uplink::Plain | Uplink::Bridge => "eth0",
            Uplink::Vlan => "eth0.100",
            Uplink::Bond => "bond0",
        }
    };
    assert_eq!(
        record.pointer("/path/0/in"),
        Some(&json!(expected)),
        "{record}"
    );
}

/// A VLAN or a bond is the uplink, and what lies below it is not observed: every packet passes
/// the upper device too, as one packet. In virtual machines only, if need be.
#[rstest]
#[case::a_vlan(Network { uplink: Uplink::Vlan, ..PLAIN })]
#[case::a_tunnel_over_a_vlan(Network { pods: Pods::Bridge, nodes: Nodes::Vxlan, uplink: Uplink::Vlan, ..PLAIN })]
#[case::a_bond(Network { uplink: Uplink::Bond, ..PLAIN })]
fn stacked_devices_give_the_same_verdicts(#[case] network: Network) {
    if !stackable("stacked_devices_give_the_same_verdicts", network.uplink) {
        return;
    }
    gives_the_same_verdicts(network);
}

/// Where a device and those below it are observed, all asked for by name, a packet is seen at
/// each: still one connection, which came by the first of them and left by the last.
#[rstest]
#[case::a_vlan(Uplink::Vlan, &["eth0", "eth0.100"])]
#[case::a_bond(Uplink::Bond, &["eth0", "eth1", "bond0"])]
fn stacked_devices_are_one_way_though_each_is_observed(
    #[case] uplink: Uplink,
    #[case] named: &[&str],
) {
    if !stackable(
        "stacked_devices_are_one_way_though_each_is_observed",
        uplink,
    ) {
        return;
    }
    let lab = raise(Network { uplink, ..PLAIN });
    let node = lab.node("node1").expect("a node");
    let options: Vec<&str> = named
        .iter()
        .flat_map(|name| ["--interface", name])
        .collect();
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &options);
    let observer = observer.expect("observes");
    // The client's way to cluster IPs is through node1, and the only endpoint is on node2: what
    // came by the wire leaves by it.
    lab.connect(cluster_ip(&lab, "far"), GIVES_UP)
        .expect("answered");
    let finished = observer.stop().expect("stops");
    let [record] = &finished.records[..] else {
        panic!(
            "one connection was opened: {:?}; {}",
            finished.records, finished.stderr
        )
    };
    for (field, expected) in [
        ("/outcome", json!("answered")),
        ("/source_ip", json!("lost")),
        ("/path/0/in", json!("eth0")),
        ("/path/0/out", json!("eth0")),
        ("/lost_at/interface", json!("eth0")),
    ] {
        assert_eq!(record.pointer(field), Some(&expected), "{field}: {record}");
    }
}

/// Whether `test` can run here, with such an uplink.
fn stackable(test: &str, uplink: Uplink) -> bool {
    let (what, link) = match uplink {
        Uplink::Vlan => (
            "VLANs",
            "link add below type veth peer name other\n\
             link add link below name probe type vlan id 1\n",
        ),
        Uplink::Bond => ("bonds", "link add probe type bond\n"),
        Uplink::Plain | Uplink::Bridge => unreachable!("nothing is stacked there"),
    };
    let probe = || -> Result<()> { Namespace::create("probe")?.ip(link) };
    privilege::granted(test) && privilege::kernel_has(test, what, probe)
}

/// Two pods on one bridge, and a Service between them. With netfilter on the bridge the reply is
/// translated back; without, the client's host gets a reply from a stranger.
#[rstest]
#[case::through_netfilter(true, "answered", Value::Null)]
#[case::past_netfilter(false, "unanswered", json!("asymmetric-return"))]
fn a_reply_that_is_bridged_past_netfilter_goes_astray(
    #[case] bridge_netfilter: bool,
    #[case] outcome: &str,
    #[case] cause: Value,
) {
    if !privilege::granted("a_reply_that_is_bridged_past_netfilter_goes_astray") {
        return;
    }
    let lab = raise(Network {
        pods: Pods::Bridge,
        bridge_netfilter,
        ..PLAIN
    });
    let node = lab.node("node2").expect("a node");
    // Its only endpoint is on node2.
    let far: SocketAddr = cluster_ip(&lab, "far");
    let client = lab
        .pods()
        .iter()
        .find(|pod| pod.plan.node == "node2" && !pod.plan.name.starts_with("far-"))
        .expect("another pod there");
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let opened = client::connect(&client.namespace, far, GIVES_UP);
    let finished = observer.stop().expect("stops");
    match opened {
        Ok(_) => assert_eq!(outcome, "answered"),
        Err(error) => {
            assert_eq!(outcome, "unanswered");
            assert!(matches!(error.failure, Failure::TimedOut), "{error}");
        }
    }
    let [record] = &finished.records[..] else {
        panic!("one connection was opened: {:?}", finished.records)
    };
    assert_eq!(
        record.pointer("/outcome"),
        Some(&json!(outcome)),
        "{record}"
    );
    let code = record
        .pointer("/outcome_cause/code")
        .unwrap_or(&Value::Null);
    assert_eq!(*code, cause, "{record}");
    assert_eq!(record.pointer("/client/kind"), Some(&json!("pod")));
    assert_eq!(record.pointer("/source_ip"), Some(&json!("preserved")));
}

/// A pod that is replaced has an interface of another number; its connections are observed on
/// that, by the name it has.
#[test]
fn interfaces_are_followed_as_they_come_and_go() {
    if !privilege::granted("interfaces_are_followed_as_they_come_and_go") {
        return;
    }
    let mut lab = raise(PLAIN);
    let far = |lab: &Lab| {
        let mut pods = lab.pods().iter();
        let pod = pods.find(|pod| pod.plan.name.starts_with("far-"));
        let pod = pod.expect("the pod");
        (pod.plan.name.clone(), pod.interface().to_owned())
    };
    let (pod, interface) = far(&lab);
    let node = lab.node("node2").expect("a node");
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    lab.rejoin(&pod).expect("joined again");
    assert_eq!(far(&lab).1, interface, "the same name");
    let node = lab.node("node2").expect("a node");
    let is_observed = || {
        let chains = SIDES.map(|side| attached::chain(&node.namespace, &interface, side));
        let chains = chains.map(|chain| chain.expect("the kernel's word"));
        chains.iter().all(|chain| !chain.is_empty()).then_some(())
    };
    poll_until(FOLLOWED_WITHIN, is_observed).expect("followed");
    let door = "172.31.0.12:30085".parse().expect("an address");
    lab.connect(door, GIVES_UP).expect("answered");
    let finished = observer.stop().expect("stops");
    let [record] = &finished.records[..] else {
        panic!(
            "one connection was opened: {:?}; {}",
            finished.records, finished.stderr
        )
    };
    assert_eq!(record.pointer("/outcome"), Some(&json!("answered")));
    assert_eq!(
        record.pointer("/path/0/out"),
        Some(&json!(interface)),
        "{record}"
    );
}

fn cluster_ip(lab: &Lab, name: &str) -> SocketAddr {
    let service = lab
        .cluster()
        .services
        .iter()
        .find(|service| service.metadata.name.as_deref() == Some(name));
    let spec = service.and_then(|service| service.spec.as_ref());
    let address = spec.and_then(|spec| spec.cluster_ip.clone());
    let address = address.expect("a cluster IP").parse().expect("an address");
    SocketAddr::new(address, 80)
}
