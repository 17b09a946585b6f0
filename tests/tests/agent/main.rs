//! The daemon: what it serves is what happened, nobody makes it stumble, and agents that follow
//! each other count every connection once.
//!
//! Method: `observer agent` on nodes of the demo cluster, connections through its front doors,
//! HTTP by hand in the node's namespace, the sockets as the oracle.

mod cluster;
mod hostile;
mod served;
mod soak;
mod succession;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    demo,
    http::{self, Answer},
    kubeproxy::doors::{Kind, front_doors},
    lab::{Lab, LabNode},
    observer_process::ObserverProcess,
    traffic::{Way, from_outside},
};

/// Where agents are asked by default.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_807);
/// Where metrics and probes are, too.
const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_808);
/// How long anything may take that takes moments.
const SOON: Duration = Duration::from_secs(10);

fn start(node: &LabNode, more: &[&str]) -> ObserverProcess {
    let objects = demo::cluster_file();
    let objects = objects.to_str().expect("text");
    let arguments = [&["--cluster-state", objects], more].concat();
    ObserverProcess::start_agent(node, &arguments).expect("an agent")
}

fn get(node: &LabNode, path: &str) -> Answer {
    http::get(&node.namespace, API, path, &[]).expect("an answer")
}

/// From outside through every node port of a node.
fn ways(lab: &Lab, node: &str) -> Vec<Way> {
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| door.kind == Kind::NodePort && door.entry == node);
    from_outside(lab, &doors)
}

fn records(lines: &[String]) -> Vec<Value> {
    let whole = lines.iter().filter(|line| !line.is_empty());
    let parsed = whole.map(|line| serde_json::from_str(line).expect("JSON"));
    parsed
        .filter(|line: &Value| line["schema"] == "observer.connection/v1")
        .collect()
}

/// The samples of Prometheus' text, by name and labels as they are written.
fn samples(node: &LabNode) -> BTreeMap<String, f64> {
    let answer = http::get(&node.namespace, METRICS, "/metrics", &[]).expect("metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// What was counted of all label sets together.
fn counted(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of_name = samples.iter().filter(|(sample, _)| {
        let bare = sample.split('{').next();
        bare == Some(name)
    });
    of_name.map(|(_, value)| value).sum()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
