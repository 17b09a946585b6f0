//! The cluster's objects come from its API server, change, and cannot be had for a while.

use std::{net::IpAddr, thread, time::Duration};

use serde_json::{Value, json};
use tests::{
    api_server::{ApiServer, Options, items},
    client, demo,
    kubeproxy::{
        Mode,
        doors::{Found, Kind, front_doors},
    },
    lab::{Lab, LabNode},
    observer_process::ObserverProcess,
    privilege,
    protocol::Protocol,
    scene::Scene,
    traffic::CONNECT_TIMEOUT,
};

use super::{counted, get, records, samples, until};

const DOOR: ([u8; 4], u16) = ([172, 31, 0, 11], 30_080);

fn server(node: &LabNode) -> ApiServer {
    let objects = items(&demo::cluster_file()).expect("the demo's objects");
    let options = Options {
        within: Some((&node.namespace, IpAddr::from([127, 0, 0, 1]))),
        ..Options::default()
    };
    ApiServer::start(&objects, &options).expect("an API server")
}

fn start(node: &LabNode, server: &ApiServer) -> ObserverProcess {
    let kubeconfig = server.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("text");
    ObserverProcess::start_agent(node, &["--kubeconfig", kubeconfig]).expect("an agent")
}

/// The record of a connection made now.
fn connect(lab: &Lab, node: &LabNode) -> Value {
    let answer = lab
        .connect(DOOR.into(), Duration::from_secs(2))
        .expect("answered");
    let mut record = None;
    until("it is recorded", || {
        let lines: Vec<_> = get(node, "/v1/connections")
            .body
            .lines()
            .map(str::to_owned)
            .collect();
        record = records(&lines)
            .into_iter()
            .rev()
            .find(|record| record["client"]["port"] == answer.local.port());
        record.is_some()
    });
    record.expect("one")
}

fn is_ready(node: &LabNode, line: &str) -> bool {
    let answer = get(node, "/readyz");
    answer.status == 200 && answer.body.contains(line)
}

/// The demo's Service with this policy, and the nodes programmed for it.
fn change(lab: &Lab, server: &ApiServer, policy: &str) {
    let mut objects = items(&demo::cluster_file()).expect("the demo's objects");
    let is_web =
        |object: &&mut Value| object["kind"] == "Service" && object["metadata"]["name"] == "web";
    let web = objects.iter_mut().find(is_web).expect("the Service");
    web["spec"]["externalTrafficPolicy"] = json!(policy);
    server.put(web.clone());
    let list = json!({"kind": "List", "items": objects}).to_string();
    let cluster = tests::cluster::Cluster::parse(&list).expect("a cluster");
    lab.program(&cluster).expect("programmed");
}

#[test]
fn a_change_of_a_service_is_known_at_once() {
    if !privilege::granted("a_change_of_a_service_is_known_at_once") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let server = server(node);
    let agent = start(node, &server);
    until("it is ready", || is_ready(node, "cluster: followed"));
    for (policy, source_ip) in [
        ("Cluster", "lost"),
        ("Local", "preserved"),
        ("Cluster", "lost"),
    ] {
        change(&lab, &server, policy);
        thread::sleep(Duration::from_millis(1_200));
        let record = connect(&lab, node);
        assert_eq!(record["source_ip"], source_ip, "{record}");
        assert_eq!(
            record["service"]["external_traffic_policy"], policy,
            "{record}"
        );
        assert_eq!(record["as_expected"], true, "{record}");
        assert_eq!(record["cluster_stale_s"], Value::Null, "{record}");
    }
    let samples = samples(node);
    assert!(counted(&samples, "source_ip_observer_index_rebuilds_total") >= 3.0);
    assert!((counted(&samples, "source_ip_observer_api_up") - 1.0).abs() < 0.5);
    let services = samples.get(r#"source_ip_observer_cluster_objects{kind="Service"}"#);
    assert!(
        services.is_some_and(|services| *services > 1.0),
        "{services:?}"
    );
    agent.stop().expect("stops");
}

/// It observes on what it last knew, and says so.
#[test]
fn while_the_api_is_away_records_say_how_long() {
    if !privilege::granted("while_the_api_is_away_records_say_how_long") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let server = server(node);
    let agent = start(node, &server);
    until("it is ready", || is_ready(node, "cluster: followed"));
    server.go_away();
    until("that is noticed", || {
        is_ready(node, "cluster: last heard from")
    });
    thread::sleep(Duration::from_secs(2));
    let record = connect(&lab, node);
    assert_eq!(record["service"]["name"], "web", "{record}");
    let stale_s = record["cluster_stale_s"].as_u64();
    assert!(
        stale_s.is_some_and(|stale_s| (1..30).contains(&stale_s)),
        "{record}"
    );
    let away = samples(node);
    assert!(counted(&away, "source_ip_observer_api_up") < 0.5);
    assert!(counted(&away, "source_ip_observer_index_age_seconds") >= 1.0);

    server.come_back().expect("back");
    until("that is noticed, too", || {
        is_ready(node, "cluster: followed")
    });
    let record = connect(&lab, node);
    assert_eq!(record["cluster_stale_s"], Value::Null, "{record}");
    let finished = agent.stop().expect("stops");
    assert!(
        finished.stderr.contains("are followed again"),
        "{}",
        finished.stderr
    );
}

/// Observing waits for nobody: what came before the objects were known is judged by them.
#[test]
fn an_agent_that_starts_before_its_api_misses_nothing() {
    if !privilege::granted("an_agent_that_starts_before_its_api_misses_nothing") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let server = server(node);
    server.go_away();
    let agent = start(node, &server);
    assert_eq!(get(node, "/readyz").status, 503);
    lab.connect(DOOR.into(), Duration::from_secs(2))
        .expect("answered");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(get(node, "/v1/connections").body, "", "it waits");
    server.come_back().expect("back");
    until("it is told", || {
        let body = get(node, "/v1/connections").body;
        body.contains(r#""name":"web""#)
    });
    until("it is ready", || is_ready(node, "cluster: followed"));
    agent.stop().expect("stops");
}

/// Whether an object of the API makes a UDP port one that is looked at.
fn is_of_udp(object: &Value) -> bool {
    let ports = object.pointer("/spec/ports").or(object.get("ports"));
    let ports = ports.and_then(Value::as_array);
    matches!(object["kind"].as_str(), Some("Service" | "EndpointSlice"))
        && ports.is_some_and(|ports| ports.iter().any(|port| port["protocol"] == "UDP"))
}

/// Datagrams are looked at by the ports of Services: also of those that come later.
#[test]
fn the_udp_ports_of_a_service_that_comes_later_are_looked_at() {
    if !privilege::granted("the_udp_ports_of_a_service_that_comes_later_are_looked_at") {
        return;
    }
    let scene = Scene::edges();
    let lab = scene.raise(scene.settings(Mode::Nftables)).expect("raised");
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| {
        door.protocol == Protocol::Udp
            && door.kind == Kind::NodePort
            && door.endpoints == Found::Some
            && door.to.is_ipv4()
    });
    let door = doors.first().expect("a door");
    let node = lab.node(&door.entry).expect("a node");
    let (of_udp, rest): (Vec<Value>, Vec<Value>) = items(&scene.objects)
        .expect("the objects")
        .into_iter()
        .partition(is_of_udp);
    let options = Options {
        within: Some((&node.namespace, IpAddr::from([127, 0, 0, 1]))),
        ..Options::default()
    };
    let server = ApiServer::start(&rest, &options).expect("an API server");
    let agent = start(node, &server);
    until("it is ready", || is_ready(node, "cluster: followed"));
    let ask = || {
        let answer = client::connect_by(Protocol::Udp, lab.client(), door.to, CONNECT_TIMEOUT);
        answer.expect("answered").local.port()
    };
    let of_port = |port: u16| {
        let body = get(node, "/v1/connections").body;
        let lines: Vec<_> = body.lines().map(str::to_owned).collect();
        records(&lines)
            .into_iter()
            .find(|record| record["client"]["port"] == port && record["protocol"] == "UDP")
    };
    let before = ask();
    let rebuilds = || counted(&samples(node), "source_ip_observer_index_rebuilds_total");
    let known = rebuilds();
    for object in of_udp {
        server.put(object);
    }
    until("they are known", || rebuilds() > known);
    thread::sleep(Duration::from_millis(1_200));
    let after = ask();
    until("it is told", || of_port(after).is_some());
    let record = of_port(after).expect("one");
    assert_eq!(record["service"]["name"], *door.service, "{record}");
    assert_eq!(record["front_door"]["kind"], "NodePort", "{record}");
    assert_eq!(record["outcome"], "answered", "{record}");
    assert_eq!(of_port(before), None, "nobody knew that this was one");
    agent.stop().expect("stops");
}
