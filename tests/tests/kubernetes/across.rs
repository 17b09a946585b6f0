//! `observer trace --cluster`: what agents on several nodes saw, joined as it comes.
//!
//! Method: an agent on each node of the demo cluster, and an API server that leads to them; the
//! sockets are the oracle.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::{
    api_server::{ApiServer, Options},
    demo,
    http::Follower,
    kubeproxy::doors::{Kind, front_doors},
    lab::Lab,
    observer_process::{self, Finished, ObserverProcess, join},
    oracle::{self, Crossing},
    privilege,
    traffic::{self, Opened, Way, from_outside},
};

use super::demo_items;

mod strangers;

pub(super) const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_807);
pub(super) const NAMESPACE: &str = "source-ip-observer";
const SOON: Duration = Duration::from_secs(15);
/// How long a record waits for its other half, at most: the answer time-out and two seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A lab with an agent on each node, and an API server that leads to them.
///
/// In the order of the dismantling.
struct Cluster {
    agents: Vec<(String, ObserverProcess)>,
    server: ApiServer,
    config: NamedTempFile,
    lab: Lab,
}

impl Cluster {
    fn raise(more: &[&str]) -> Self {
        let lab = demo::raise().expect("raised");
        let mut config = NamedTempFile::new().expect("a file");
        write!(config, "{}", lab.kube_proxy()).expect("written");
        let server = ApiServer::start(&demo_items(), &Options::default()).expect("an API server");
        let mut cluster = Self {
            agents: Vec::new(),
            server,
            config,
            lab,
        };
        for node in ["node1", "node2"] {
            cluster.start_agent(node, more);
            cluster.server.put(pod(node, "a"));
            cluster.place(node, "a");
        }
        cluster
    }

    fn start_agent(&mut self, node: &str, more: &[&str]) {
        let objects = demo::cluster_file();
        let arguments = [
            "--cluster-state",
            objects.to_str().expect("text"),
            "--kube-proxy-config",
            self.config.path().to_str().expect("text"),
        ];
        let its = self.lab.node(node).expect("a node");
        let agent = ObserverProcess::start_agent(its, &[&arguments, more].concat());
        self.agents
            .push((node.to_owned(), agent.expect("an agent")));
    }

    fn stop_agent(&mut self, node: &str) {
        let place = self.agents.iter().position(|(its, _)| its == node);
        let (_, agent) = self.agents.remove(place.expect("it runs"));
        agent.stop().expect("stops");
    }

    fn place(&self, node: &str, pod: &str) {
        let network = &self.lab.node(node).expect("a node").namespace;
        self.server
            .place(NAMESPACE, &format!("agent-{node}-{pod}"), network);
    }

    fn trace(&self, more: &[&str]) -> ObserverProcess {
        ObserverProcess::start_across(&self.server.kubeconfig(), more).expect("follows")
    }

    fn follow(&self, node: &str) -> Follower {
        let its = self.lab.node(node).expect("a node");
        Follower::start(&its.namespace, API, "/v1/connections?follow=1").expect("followed")
    }

    /// From outside through every node port of a node.
    fn ways(&self, node: &str) -> Vec<Way> {
        let mut doors =
            front_doors(self.lab.cluster(), self.lab.kube_proxy()).expect("front doors");
        doors.retain(|door| door.kind == Kind::NodePort && door.entry == node);
        from_outside(&self.lab, &doors)
    }

    fn open(&self, ways: &[Way]) -> Vec<Opened> {
        traffic::open(&self.lab, ways).expect("opened")
    }
}

fn times(number: usize, ways: &[Way]) -> Vec<Way> {
    vec![ways; number].concat()
}

pub(super) fn pod(node: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE, "name": format!("agent-{node}-{name}"),
            "uid": format!("{node}-{name}"),
            "labels": {"app.kubernetes.io/name": "source-ip-observer"},
            "annotations": {"source-ip-observer/api-port": API.port().to_string()},
        },
        "spec": {"nodeName": node, "hostNetwork": true, "containers": []},
        "status": {"phase": "Running"},
    })
}

fn records(lines: &[String]) -> Vec<Value> {
    let whole = lines.iter().filter(|line| !line.is_empty());
    let parsed = whole.map(|line| serde_json::from_str(line).expect("JSON"));
    parsed
        .filter(|line: &Value| line["schema"] == "observer.connection/v1")
        .collect()
}

/// In an order that does not depend on who was first.
fn sorted(records: &[Value]) -> Vec<String> {
    let mut lines: Vec<_> = records.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

fn is_joined(record: &Value) -> bool {
    record["path"]
        .as_array()
        .is_some_and(|path| path.len() == 2)
}

fn summary<'a>(finished: &'a Finished, node: &str) -> &'a str {
    let mut lines = finished.stderr.lines().rev();
    let line = lines.find(|line| line.starts_with(&format!("{node}: ")));
    line.unwrap_or_else(|| panic!("no summary of {node} in\n{}", finished.stderr))
}

/// The one line that it says when it cannot do what it was asked to.
fn error(server: &ApiServer, more: &[&str]) -> String {
    error_of(
        &observer_process::binary().expect("an observer"),
        &["trace", "--cluster"],
        server,
        more,
    )
}

fn error_of(program: &Path, first: &[&str], server: &ApiServer, more: &[&str]) -> String {
    let output = Command::new(program)
        .args(first)
        .arg("--kubeconfig")
        .arg(server.kubeconfig())
        .args(more)
        .output()
        .expect("runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

#[test]
fn what_two_nodes_saw_is_joined_and_is_what_the_sockets_saw() {
    if !privilege::granted("what_two_nodes_saw_is_joined_and_is_what_the_sockets_saw") {
        return;
    }
    let cluster = Cluster::raise(&[]);
    let followers = ["node1", "node2"].map(|node| cluster.follow(node));
    let all = cluster.trace(&[]);
    let of_web = cluster.trace(&["shop/web"]);
    let lost = cluster.trace(&["--lost", "--client", "203.0.113.0/24"]);
    // Chance chooses the pod.
    let ways = times(4, &[cluster.ways("node1"), cluster.ways("node2")].concat());
    let opened = cluster.open(&ways);
    std::thread::sleep(PATIENCE + Duration::from_secs(1));
    let [all, of_web, lost] = [all, of_web, lost].map(|it| it.stop().expect("stops"));
    for finished in [&all, &of_web, &lost] {
        assert!(finished.status.success(), "{}", finished.stderr);
        assert!(!finished.stderr.contains("warning"), "{}", finished.stderr);
    }

    // The same as joining at the end what each agent told.
    let told = followers.map(|follower| records(&follower.stop().expect("stops")));
    let files = told.clone().map(|records| {
        let mut file = NamedTempFile::new().expect("a file");
        for record in &records {
            writeln!(file, "{record}").expect("written");
        }
        file
    });
    let paths = files.each_ref().map(|file| file.path().to_owned());
    let joined = join(&paths, &["-o", "json"]).expect("joined");
    let joined: Vec<_> = joined.lines().map(str::to_owned).collect();
    let expected = records(&joined);
    assert_eq!(sorted(&all.records), sorted(&expected));

    // And that is what the sockets saw: who crossed, with the client's own address.
    let whole = all.records.iter().filter(|record| is_joined(record));
    let mut crossings: Vec<_> = whole
        .map(|record| Crossing::of(record).expect("who and where"))
        .collect();
    crossings.sort();
    assert_eq!(crossings, oracle::crossings(&cluster.lab, &opened));
    assert!(crossings.len() >= 10, "{crossings:?}");
    let names = ["node1".to_owned(), "node2".to_owned()];
    let report = oracle::judge(&cluster.lab, &opened, names.into_iter().zip(told).collect());
    let complaints: Vec<_> = report
        .complaints()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(complaints, [] as [&str; 0]);

    // Filters choose among what is joined.
    let is_of_web = |record: &&Value| {
        record["service"]["namespace"] == "shop" && record["service"]["name"] == "web"
    };
    let is_lost = |record: &&Value| {
        let client = record["client"]["ip"].as_str().expect("an address");
        record["source_ip"] == "lost" && client.starts_with("203.0.113.")
    };
    let of = |passes: &dyn Fn(&&Value) -> bool| -> Vec<Value> {
        all.records.iter().filter(passes).cloned().collect()
    };
    assert_eq!(sorted(&of_web.records), sorted(&of(&is_of_web)));
    assert_eq!(sorted(&lost.records), sorted(&of(&is_lost)));
    for finished in [&of_web, &lost] {
        assert!(finished.records.iter().any(is_joined));
        assert!(finished.records.len() < all.records.len());
    }
    for node in ["node1", "node2"] {
        let told = summary(&all, node).strip_prefix(&format!("{node}: "));
        let number = told.and_then(|told| told.split(' ').next()?.parse::<u32>().ok());
        assert!(number.is_some_and(|number| number > 0), "{}", all.stderr);
    }
}

/// What it says so far cannot be read while it runs, but what it prints at its end can be waited
/// for: so connections are opened until it follows again.
fn open_until_joined(cluster: &Cluster, trace: ObserverProcess, follower: &str) -> Finished {
    let ways = cluster.ways("node1");
    let deadline = Instant::now() + SOON;
    let others = cluster.follow(follower);
    others.wait_for(0, SOON).expect("followed");
    while Instant::now() < deadline {
        cluster.open(&ways[..2]);
        std::thread::sleep(Duration::from_millis(500));
    }
    cluster.open(&times(4, &ways));
    std::thread::sleep(PATIENCE + Duration::from_secs(1));
    trace.stop().expect("stops")
}

/// The joined ones among the last records of a run.
fn joined_at_the_end(finished: &Finished) -> usize {
    let last = finished.records.iter().rev().take(40);
    last.filter(|record| is_joined(record)).count()
}

#[test]
fn an_agent_that_is_replaced_is_followed_again() {
    if !privilege::granted("an_agent_that_is_replaced_is_followed_again") {
        return;
    }
    let mut cluster = Cluster::raise(&[]);
    let trace = cluster.trace(&[]);
    // As a DaemonSet does it: the pod ends, then there is another.
    cluster.stop_agent("node2");
    cluster.server.delete("Pod", NAMESPACE, "agent-node2-a");
    cluster.start_agent("node2", &[]);
    cluster.server.put(pod("node2", "b"));
    cluster.place("node2", "b");
    let finished = open_until_joined(&cluster, trace, "node2");
    let said = &finished.stderr;
    for part in [
        "warning: node2: its agent has ended",
        "node2 is followed again, after",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("node1 is followed"), "{said}");
    assert!(joined_at_the_end(&finished) > 0, "{said}");
    assert!(
        summary(&finished, "node2").contains("not followed for"),
        "{said}"
    );
}

/// While a `DaemonSet` is updated with a surge, two pods share their node's ports: both lead to the
/// agent that still listens.
#[test]
fn two_pods_of_a_node_are_one_agent() {
    if !privilege::granted("two_pods_of_a_node_are_one_agent") {
        return;
    }
    let cluster = Cluster::raise(&[]);
    for node in ["node1", "node2"] {
        cluster.server.put(pod(node, "b"));
        cluster.place(node, "b");
    }
    let trace = cluster.trace(&[]);
    let opened = cluster.open(&times(4, &cluster.ways("node1")));
    std::thread::sleep(PATIENCE + Duration::from_secs(1));
    let finished = trace.stop().expect("stops");
    assert_eq!(finished.records.len(), opened.len(), "{}", finished.stderr);
    let whole = finished.records.iter().filter(|record| is_joined(record));
    let crossings = oracle::crossings(&cluster.lab, &opened).len();
    assert_eq!(whole.count(), crossings, "{}", finished.stderr);
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_is_no_end() {
    if !privilege::granted("an_api_server_that_goes_away_and_comes_back_is_no_end") {
        return;
    }
    let cluster = Cluster::raise(&[]);
    let trace = cluster.trace(&[]);
    cluster.server.go_away();
    std::thread::sleep(Duration::from_secs(2));
    cluster.server.come_back().expect("listens again");
    let finished = open_until_joined(&cluster, trace, "node1");
    let said = &finished.stderr;
    let times = |part: &str| said.matches(part).count();
    for node in ["node1", "node2"] {
        assert_eq!(
            times(&format!(
                "warning: {node}: the connection to its agent broke"
            )),
            1,
            "{said}"
        );
        assert_eq!(times(&format!("{node} is followed again")), 1, "{said}");
    }
    assert_eq!(
        times("agents that come and go are not noticed"),
        1,
        "{said}"
    );
    assert!(joined_at_the_end(&finished) > 0, "{said}");
}

/// Whether Nodes may be read or not: then it is known as soon as a connection goes there.
#[rstest]
#[case::by_its_object(&[], "what comes by there is not seen")]
#[case::by_a_connection(&["nodes"], "what it saw of connections is missing")]
fn a_node_without_an_agent_is_named_and_not_waited_for(
    #[case] forbidden: &[&str],
    #[case] says: &str,
) {
    if !privilege::granted("a_node_without_an_agent_is_named_and_not_waited_for") {
        return;
    }
    let cluster = Cluster::raise(&[]);
    cluster.server.misbehave(|faults| {
        faults.forbidden = forbidden.iter().map(|it| (*it).to_owned()).collect();
    });
    cluster.server.delete("Pod", NAMESPACE, "agent-node2-a");
    let trace = cluster.trace(&[]);
    let opened = cluster.open(&times(4, &cluster.ways("node1")));
    // Less than a half that is waited for would take.
    std::thread::sleep(Duration::from_secs(1));
    let finished = trace.stop().expect("stops");
    let said = &finished.stderr;
    assert_eq!(
        said.matches("there is no agent on node2").count(),
        1,
        "{said}"
    );
    assert!(said.contains(says), "{said}");
    assert_eq!(summary(&finished, "node2"), "node2: no agent", "{said}");
    let answered = opened.iter().filter(|opened| opened.result.is_ok());
    assert!(finished.records.len() >= answered.count(), "{said}");
    assert!(!finished.records.iter().any(is_joined));
}

#[test]
fn a_token_is_asked_for_and_given() {
    if !privilege::granted("a_token_is_asked_for_and_given") {
        return;
    }
    let mut token = NamedTempFile::new().expect("a file");
    writeln!(token, "sesame").expect("written");
    let token = token.path().to_str().expect("text");
    let cluster = Cluster::raise(&["--token-file", token]);
    let told = error(&cluster.server, &[]);
    assert!(
        told.contains("none of 2 agents") && told.contains("--token-file"),
        "{told}"
    );
    let trace = cluster.trace(&["--token-file", token]);
    cluster.open(&times(4, &cluster.ways("node1")));
    std::thread::sleep(PATIENCE + Duration::from_secs(1));
    let finished = trace.stop().expect("stops");
    assert!(joined_at_the_end(&finished) > 0, "{}", finished.stderr);
}
