//! A whole cluster through what happens to one: a Service changes its policy and changes it back,
//! an agent is restarted, the API server goes away.
//!
//! Method: two agents and `observer trace --cluster` by one API server, more than five hundred
//! connections in between; each must have been told, and two nodes' halves been one, as the sockets
//! say.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    api_server::{ApiServer, Options},
    cluster::Cluster,
    demo, http,
    kubeproxy::doors::{Kind, front_doors},
    lab::Lab,
    observer_process::{self, ObserverProcess},
    oracle::{self, Crossing},
    privilege,
    traffic::{self, Opened, from_outside},
};

use super::{across, demo_items};

/// Where the API server is: with the clients, since nodes and they reach each other.
const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 50));
const SOON: Duration = Duration::from_secs(20);
/// How late a kube-proxy is, and how long a record may wait for its half.
const LATE: Duration = Duration::from_millis(700);
const HALVES: Duration = Duration::from_secs(6);
/// How often each way is gone in each part.
const TIMES: usize = 6;
const CONNECTIONS_MIN: usize = 500;

fn objects(policy: &str) -> Vec<Value> {
    let mut objects = demo_items();
    let is_web =
        |object: &&mut Value| object["kind"] == "Service" && object["metadata"]["name"] == "web";
    let web = objects.iter_mut().find(is_web).expect("the Service");
    web["spec"]["externalTrafficPolicy"] = json!(policy);
    objects
}

/// As the nodes are programmed now.
fn cluster(policy: &str) -> Cluster {
    let list = json!({"kind": "List", "items": objects(policy)});
    Cluster::parse(&list.to_string()).expect("a cluster")
}

/// Changes the Service, and after a while what the nodes do.
fn change(lab: &Lab, server: &ApiServer, policy: &str) {
    let web = objects(policy)
        .into_iter()
        .find(|object| object["kind"] == "Service" && object["metadata"]["name"] == "web");
    server.put(web.expect("the Service"));
    thread::sleep(LATE);
    lab.program(&cluster(policy)).expect("programmed");
}

/// From outside through every node port of every node.
fn open(lab: &Lab, policy: &str) -> Vec<Opened> {
    let mut doors = front_doors(&cluster(policy), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| door.kind == Kind::NodePort);
    let ways = vec![from_outside(lab, &doors); TIMES].concat();
    traffic::open(lab, &ways).expect("opened")
}

fn start_agent(lab: &Lab, node: &str, kubeconfig: &Path) -> ObserverProcess {
    let node = lab.node(node).expect("a node");
    let arguments = ["--kubeconfig", kubeconfig.to_str().expect("text")];
    let agent = ObserverProcess::start_agent(node, &arguments).expect("an agent");
    let deadline = Instant::now() + SOON;
    let is_ready = || {
        let ready = http::get(&node.namespace, across::API, "/readyz", &[]);
        ready.is_ok_and(|ready| ready.status == 200 && ready.body.contains("cluster: followed"))
    };
    while !is_ready() {
        assert!(Instant::now() < deadline, "it never is ready");
        thread::sleep(Duration::from_millis(50));
    }
    agent
}

/// Until the trace follows so many agents, as the API server sees it.
fn until_followed(lab: &Lab) {
    for node in lab.nodes() {
        let deadline = Instant::now() + SOON;
        let followers = || {
            let metrics = http::get(&node.namespace, across::API, "/metrics", &[]);
            let body = metrics.map(|metrics| metrics.body).unwrap_or_default();
            body.contains("source_ip_observer_followers 1\n")
        };
        while !followers() {
            assert!(
                Instant::now() < deadline,
                "{} is not followed",
                node.plan.name
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// By who connected and where from it was seen: ports are used again.
type Key = (SocketAddr, Option<SocketAddr>);

fn key(record: &Value) -> Key {
    let socket = |of: &Value| -> Option<SocketAddr> {
        let ip = of["ip"].as_str()?.parse().ok()?;
        let port = u16::try_from(of["port"].as_u64()?).ok()?;
        Some(SocketAddr::new(ip, port))
    };
    let client = socket(&record["client"]).expect("a client");
    (client, socket(&record["source_seen"]))
}

#[test]
fn whatever_happens_to_a_cluster_its_connections_are_told_whole() {
    if !privilege::granted("whatever_happens_to_a_cluster_its_connections_are_told_whole") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let options = Options {
        within: Some((lab.client(), SERVER)),
        ..Options::default()
    };
    let server = ApiServer::start(&objects("Cluster"), &options).expect("an API server");
    let kubeconfig = server.kubeconfig();
    let first = start_agent(&lab, "node1", &kubeconfig);
    let second = start_agent(&lab, "node2", &kubeconfig);
    for node in lab.nodes() {
        let name = &node.plan.name;
        server.put(across::pod(name, "a"));
        server.place(
            across::NAMESPACE,
            &format!("agent-{name}-a"),
            &node.namespace,
        );
    }
    let mut trace = lab
        .client()
        .command(observer_process::binary().expect("an observer"));
    trace
        .args(["trace", "--cluster", "-o", "json", "--kubeconfig"])
        .arg(&kubeconfig);
    let trace = ObserverProcess::by(trace).expect("follows");
    until_followed(&lab);

    let mut opened = open(&lab, "Cluster");
    change(&lab, &server, "Local");
    opened.extend(open(&lab, "Local"));
    // What it saw is told before it ends; what comes while it is away is not seen.
    thread::sleep(HALVES);
    second.stop().expect("stops");
    let second = start_agent(&lab, "node2", &kubeconfig);
    until_followed(&lab);
    opened.extend(open(&lab, "Local"));
    thread::sleep(HALVES);
    server.go_away();
    thread::sleep(Duration::from_secs(2));
    server.come_back().expect("listens again");
    until_followed(&lab);
    opened.extend(open(&lab, "Local"));
    change(&lab, &server, "Cluster");
    opened.extend(open(&lab, "Cluster"));
    thread::sleep(HALVES);
    let finished = trace.stop().expect("stops");
    for agent in [first, second] {
        agent.stop().expect("stops");
    }

    assert!(opened.len() >= CONNECTIONS_MIN, "{}", opened.len());
    let joined = |record: &&Value| {
        record["path"]
            .as_array()
            .is_some_and(|path| path.len() == 2)
    };
    let mut crossings: Vec<Crossing> = finished
        .records
        .iter()
        .filter(joined)
        .map(|record| Crossing::of(record).expect("who and where"))
        .collect();
    crossings.sort();
    assert_eq!(
        crossings,
        oracle::crossings(&lab, &opened),
        "{}",
        finished.stderr
    );
    let mut told: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    for record in &finished.records {
        told.entry(key(record)).or_default().push(record);
    }
    assert_eq!(finished.records.len(), opened.len(), "{}", finished.stderr);
    for one in &opened {
        let seen = one.result.as_ref().ok().map(|answer| answer.peer_seen);
        let record = told
            .get_mut(&(one.client, seen))
            .and_then(Vec::pop)
            .unwrap_or_else(|| panic!("{}, seen as {seen:?}, was not told", one.client));
        if let Some(seen) = seen {
            let source_ip = if seen.ip() == one.client.ip() {
                "preserved"
            } else {
                "lost"
            };
            assert_eq!(record["source_ip"], source_ip, "{record}");
            assert_eq!(record["outcome"], "answered", "{record}");
        }
        assert_eq!(record["as_expected"], true, "{record}");
    }
}
