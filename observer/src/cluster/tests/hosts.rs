//! Ports of nodes that lead to pods past any Service.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::finding::Finding;
use super::super::host::{HostDoor, doors};
use super::around::{object, overlay, whole, workload};
use super::{node, pod};

/// A workload whose container has these ports.
fn with_ports(kind: &str, name: &str, spec: Value, ports: Value) -> Value {
    let mut workload = workload(kind, name, json!({"spec": spec}));
    workload["spec"]["template"]["spec"]["containers"][0]["ports"] = ports;
    workload
}

fn on_host(kind: &str, name: &str) -> Value {
    with_ports(
        kind,
        name,
        json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
        json!([{"containerPort": 80}]),
    )
}

/// A node with a label `disk`.
fn with_disk(name: &str, address: &str, disk: &str) -> Value {
    let mut node = node(name, &[address], &[]);
    node["metadata"]["labels"] = json!({"disk": disk});
    node
}

/// Two nodes that are no assumption.
fn nodes() -> [Value; 2] {
    [
        with_disk("node1", "10.0.0.1", "ssd"),
        with_disk("node2", "10.0.0.2", "hdd"),
    ]
}

fn findings(items: &[Value]) -> Vec<Finding> {
    doors(&whole(items)).1
}

fn describe(door: &HostDoor) -> String {
    let HostDoor {
        workload,
        host_network,
        protocol,
        port,
        container_port,
        address,
        nodes,
    } = door;
    let how = if *host_network { "network" } else { "port" };
    let at = address.map_or_else(|| "*".to_owned(), |address| address.to_string());
    let nodes = nodes.join(",");
    format!("{workload} {how} {at}:{port}/{protocol} -> {container_port} on [{nodes}]")
}

// Each port that is declared in the node's network is the node's (core/v1 `ContainerPort.hostPort`).
#[rstest]
#[case::host_network(
    json!({"hostNetwork": true}), json!([{"containerPort": 80}]),
    "DaemonSet shop/web network *:80/TCP -> 80 on [node1,node2]"
)]
#[case::host_port(
    json!({}), json!([{"containerPort": 8080, "hostPort": 80, "protocol": "UDP"}]),
    "DaemonSet shop/web port *:80/UDP -> 8080 on [node1,node2]"
)]
#[case::at_one_address(
    json!({}), json!([{"containerPort": 8080, "hostPort": 80, "hostIP": "10.0.0.1"}]),
    "DaemonSet shop/web port 10.0.0.1:80/TCP -> 8080 on [node1,node2]"
)]
#[case::on_chosen_nodes(
    json!({"nodeSelector": {"disk": "ssd"}}), json!([{"containerPort": 8080, "hostPort": 80}]),
    "DaemonSet shop/web port *:80/TCP -> 8080 on [node1]"
)]
fn a_door(#[case] spec: Value, #[case] ports: Value, #[case] expected: &str) {
    let [one, two] = nodes();
    let web = with_ports("DaemonSet", "web", spec, ports);
    let (doors, _) = doors(&whole(&[web, one, two]));
    let doors: Vec<_> = doors.iter().map(describe).collect();
    assert_eq!(doors, [expected]);
}

#[test]
fn a_port_that_is_not_asked_for_is_no_door() {
    let web = with_ports(
        "DaemonSet",
        "web",
        json!({}),
        json!([{"containerPort": 80}]),
    );
    assert_eq!(doors(&whole(&[web])), (Vec::new(), Vec::new()));
}

#[rstest]
#[case::unset(Value::Null, 1)]
#[case::none(json!(0), 0)]
#[case::one(json!(1), 1)]
fn what_is_scaled_down_takes_no_port(
    #[case] replicas: Value,
    #[case] expected: usize,
    #[values("Deployment", "StatefulSet")] kind: &str,
) {
    let mut web = on_host(kind, "web");
    overlay(&mut web, json!({"spec": {"replicas": replicas}}));
    assert_eq!(doors(&whole(&[web])).0.len(), expected);
}

// A Pod whose maker is among the objects counts with it, by the hash in the ReplicaSet's name
// (Kubernetes, concepts/workloads/controllers/deployment, "Pod-template-hash label").
#[rstest]
#[case::deployment("Deployment", "ReplicaSet", "web-5d4f", json!({"pod-template-hash": "5d4f"}))]
#[case::daemon_set("DaemonSet", "DaemonSet", "web", json!({}))]
#[case::stateful_set("StatefulSet", "StatefulSet", "web", json!({}))]
fn a_pod_counts_with_its_maker(
    #[case] kind: &str,
    #[case] owner: &str,
    #[case] owner_name: &str,
    #[case] labels: Value,
    #[values(true, false)] has_maker: bool,
) {
    let ports = json!([{"containerPort": 8080, "hostPort": 80}]);
    let web = with_ports(kind, "web", json!({}), ports.clone());
    let mut items: Vec<_> = has_maker.then_some(web).into_iter().collect();
    for (name, node) in [("web-a", "node1"), ("web-b", "node2")] {
        let container = json!({"name": "web", "ports": ports});
        let mut pod = pod(
            name,
            node,
            "10.244.1.5",
            json!({"containers": [container]}),
            Value::Null,
        );
        overlay(
            &mut pod["metadata"],
            json!({
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "controller": true, "kind": owner,
                    "name": owner_name, "uid": "1",
                }],
            }),
        );
        items.push(pod);
    }
    let (doors, _) = doors(&whole(&items));
    let doors: Vec<_> = doors.iter().map(describe).collect();
    let expected = format!("{kind} shop/web port *:80/TCP -> 8080 on [node1,node2]");
    assert_eq!(doors, [expected]);
}

// Kubernetes, concepts/services-networking/dns-pod-service, "Pod's DNS Policy".
#[rstest]
#[case::unset(json!({"hostNetwork": true}), true)]
#[case::the_default(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"}), true)]
#[case::for_it(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), false)]
#[case::the_nodes_on_purpose(json!({"hostNetwork": true, "dnsPolicy": "Default"}), false)]
#[case::in_its_own_network(json!({}), false)]
fn names_are_found_by_policy(#[case] spec: Value, #[case] is_found: bool) {
    let web = with_ports("DaemonSet", "web", spec, json!([{"containerPort": 80}]));
    let found = findings(&[web]).contains(&Finding::HostNetworkDnsPolicy {
        workload: "DaemonSet shop/web".to_owned(),
    });
    assert_eq!(found, is_found);
}

// Kubernetes, Pod Security Standards, "Host Namespaces" and "Host Ports".
#[rstest]
#[case::baseline("enforce", "baseline", true, Some("hostNetwork"))]
#[case::restricted("enforce", "restricted", true, Some("hostNetwork"))]
#[case::host_port("enforce", "baseline", false, Some("hostPort"))]
#[case::privileged("enforce", "privileged", true, None)]
#[case::only_told("warn", "baseline", true, None)]
fn levels_forbid(
    #[case] mode: &str,
    #[case] level: &str,
    #[case] host_network: bool,
    #[case] what: Option<&str>,
) {
    let web = with_ports(
        "DaemonSet",
        "web",
        json!({"hostNetwork": host_network, "dnsPolicy": "Default"}),
        json!([{"containerPort": 80, "hostPort": 80}]),
    );
    let label = format!("pod-security.kubernetes.io/{mode}");
    let namespace = json!({
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {label: level}},
    });
    let expected = what.map(|what| Finding::PodSecurityForbids {
        namespace: "shop".to_owned(),
        level: level.to_owned(),
        workload: "DaemonSet shop/web".to_owned(),
        what: what.to_owned(),
    });
    assert_eq!(findings(&[web, namespace]), Vec::from_iter(expected));
}

/// The pairs that cannot both run.
fn clashes(items: &[Value]) -> Vec<String> {
    findings(items)
        .into_iter()
        .filter_map(|finding| match finding {
            Finding::HostPortConflict { port, one, other } => Some(format!("{one} {other} {port}")),
            _ => None,
        })
        .collect()
}

fn on_disk(kind: &str, name: &str, disk: &str) -> Value {
    let mut workload = on_host(kind, name);
    workload["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": disk});
    workload
}

// Kubernetes, pkg/scheduler/framework/types.go, `HostPortInfo.CheckConflict`.
#[rstest]
#[case::everywhere([on_host("DaemonSet", "a"), on_host("DaemonSet", "b")], true, true)]
#[case::apart([on_disk("DaemonSet", "a", "ssd"), on_disk("DaemonSet", "b", "hdd")], false, false)]
#[case::together([on_disk("DaemonSet", "a", "ssd"), on_disk("DaemonSet", "b", "ssd")], true, true)]
#[case::one_within([on_host("DaemonSet", "a"), on_disk("DaemonSet", "b", "ssd")], true, true)]
#[case::no_room_beside([on_host("DaemonSet", "a"), on_host("Deployment", "b")], true, true)]
#[case::room_beside([on_disk("DaemonSet", "a", "ssd"), on_host("Deployment", "b")], false, false)]
#[case::two_on_two_nodes([on_host("Deployment", "a"), on_host("Deployment", "b")], false, false)]
#[case::two_on_one_node(
    [on_disk("Deployment", "a", "ssd"), on_disk("StatefulSet", "b", "ssd")], true, false
)]
fn conflicts_are_told_where_certain(
    #[case] workloads: [Value; 2],
    #[case] on_two_nodes: bool,
    #[case] on_unknown_nodes: bool,
) {
    let told = |items: &[Value]| !clashes(items).is_empty();
    let [one, two] = nodes();
    let [a, b] = workloads;
    assert_eq!(told(&[a.clone(), b.clone(), one, two]), on_two_nodes);
    assert_eq!(told(&[a, b]), on_unknown_nodes);
}

#[rstest]
#[case::another_port(json!([{"containerPort": 81}]), false)]
#[case::another_protocol(json!([{"containerPort": 80, "protocol": "UDP"}]), false)]
#[case::the_same(json!([{"containerPort": 80}]), true)]
#[case::at_an_address(json!([{"containerPort": 80, "hostIP": "10.0.0.1"}]), true)]
fn a_conflict_is_one_of_ports(#[case] ports: Value, #[case] expected: bool) {
    let other = with_ports("DaemonSet", "b", json!({"hostNetwork": true}), ports);
    let clashes = clashes(&[on_host("DaemonSet", "a"), other]);
    let told = ["DaemonSet shop/a DaemonSet shop/b 80/TCP".to_owned()];
    assert_eq!(clashes, if expected { &told[..] } else { &[] });
}

#[rstest]
#[case::as_many_as_nodes(2, None, false)]
#[case::more(3, None, true)]
#[case::more_than_may(2, Some("ssd"), true)]
fn replicas_need_nodes(#[case] replicas: i32, #[case] disk: Option<&str>, #[case] expected: bool) {
    let mut web = match disk {
        Some(disk) => on_disk("Deployment", "web", disk),
        None => on_host("Deployment", "web"),
    };
    web["spec"]["replicas"] = json!(replicas);
    let [one, two] = nodes();
    let told = !clashes(&[web.clone(), one, two]).is_empty();
    assert_eq!(told, expected);
    // Nodes that were only assumed tell nothing of how many there are.
    let assumed = ["192.0.2.11", "192.0.2.12"].map(|address| {
        let mut node = node("node-a", &[address], &[]);
        node["metadata"]["annotations"] = json!({"source-ip-observer/assumed": ""});
        node
    });
    let [one, two] = assumed;
    assert!(clashes(&[web, one, two]).is_empty());
}

#[test]
fn a_taint_keeps_a_daemon_away() {
    let [one, mut two] = nodes();
    two["spec"]["taints"] = json!([{"key": "only", "effect": "NoSchedule"}]);
    let both = [
        on_host("DaemonSet", "a"),
        on_host("Deployment", "b"),
        one,
        two,
    ];
    assert_eq!(clashes(&both).len(), 1);
    let mut both = both;
    both[1]["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(clashes(&both), [""; 0]);
    both[0]["spec"]["template"]["spec"]["tolerations"] =
        json!([{"key": "only", "operator": "Exists"}]);
    assert_eq!(clashes(&both).len(), 1);
}

#[test]
fn a_pod_that_is_over_takes_nothing() {
    let container = json!({"name": "web", "ports": [{"containerPort": 80, "hostPort": 80}]});
    let spec = json!({"containers": [container]});
    let over = pod(
        "a",
        "node1",
        "10.244.1.5",
        spec.clone(),
        json!({"phase": "Failed"}),
    );
    assert!(doors(&whole(&[over])).0.is_empty());
    let two = ["a", "b"].map(|name| pod(name, "node1", "10.244.1.5", spec.clone(), Value::Null));
    assert_eq!(clashes(&two), ["Pod shop/a Pod shop/b 80/TCP"]);
}

#[test]
fn nothing_hostile_panics() {
    let ports = json!([{"containerPort": 0}, {"containerPort": 70000, "hostPort": -1}]);
    let web = with_ports("Deployment", "web", json!({"hostNetwork": true}), ports);
    let mut negative = on_host("Deployment", "less");
    negative["spec"]["replicas"] = json!(-5);
    let nameless = object(
        "DaemonSet",
        "",
        json!({"spec": {"selector": {}, "template": {}}}),
    );
    assert_eq!(clashes(&[web, negative, nameless]), [""; 0]);
}
