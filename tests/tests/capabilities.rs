//! What the observer may do: three capabilities are enough, each of them is needed, and whoever
//! lacks one is told so before anything is attached.
//!
//! Method: run it on a node of the demo cluster as root with no other capabilities than those, and
//! with one of them less; with no new privileges, as in a container.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;
use tests::{
    attached,
    child::poll_until,
    demo, http,
    kubeproxy::doors::{Kind, Policy, front_doors},
    lab::LabNode,
    observer_process::{self, ObserverProcess},
    oracle::{self, Records},
    privilege,
    traffic::{self, from_outside},
};

/// What observing needs, as `capabilities(7)` and setpriv call it.
const NEEDED: [(&str, &str); 3] = [
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perfmon"),
    ("CAP_NET_ADMIN", "net_admin"),
];
/// Where an agent is asked.
const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9807);
/// Longer than the answer time-out.
const PATIENCE: Duration = Duration::from_secs(10);

/// The observer on a node with what it needs, or without one of it.
fn observer(node: &LabNode, without: Option<&str>, command: &str, more: &[&str]) -> Command {
    let left = NEEDED.iter().filter(|(name, _)| Some(*name) != without);
    let left: String = left.flat_map(|(_, name)| [",+", *name]).collect();
    let mut observer = node.namespace.command("setpriv");
    observer
        .arg(format!("--bounding-set=-all{left}"))
        .arg("--no-new-privs")
        .arg(observer_process::binary().expect("an observer"))
        .args([command, "--node", &node.plan.name, "--cluster-state"])
        .arg(demo::cluster_file())
        .args(more);
    observer
}

fn attached(node: &LabNode) -> BTreeSet<u32> {
    attached::programs(&node.namespace).expect("lists programs")
}

#[test]
fn whoever_lacks_one_is_told_which_and_attaches_nothing() {
    if !privilege::granted("whoever_lacks_one_is_told_which_and_attaches_nothing") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    for (capability, _) in NEEDED {
        let run = |command, more: &[&str]| {
            let output = observer(node, Some(capability), command, more).output();
            let output = output.expect("runs");
            assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
            output
        };
        let Output { stdout, stderr, .. } = run("doctor", &["-o", "json"]);
        assert_eq!(String::from_utf8_lossy(&stderr), "");
        let report: Value = serde_json::from_slice(&stdout).expect("JSON");
        let missing = report["checks"].as_array().expect("checks").iter();
        let missing: Vec<_> = missing
            .filter(|check| check["status"] == "missing")
            .map(|check| [&check["name"], &check["found"]])
            .collect();
        assert_eq!(
            missing,
            [["capabilities", &format!("without {capability}")]]
        );

        for command in ["trace", "agent"] {
            let Output { stdout, stderr, .. } = run(command, &[]);
            assert_eq!(String::from_utf8_lossy(&stdout), "");
            let said = String::from_utf8_lossy(&stderr);
            let needs = format!("observer: observing needs {capability}, which");
            assert!(said.starts_with(&needs), "{command}: {said}");
            assert_eq!(said.lines().count(), 1, "{command}: {said}");
        }
        assert_eq!(attached(node), BTreeSet::new());
    }
}

#[test]
fn three_are_enough_to_observe_and_to_leave_nothing() {
    if !privilege::granted("three_are_enough_to_observe_and_to_leave_nothing") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let traced = observer(node, None, "trace", &["--duration", "1s"]).output();
    let traced = traced.expect("runs");
    assert!(traced.status.success(), "{traced:?}");

    let mut kube_proxy = NamedTempFile::new().expect("a file");
    write!(kube_proxy, "{}", lab.kube_proxy()).expect("written");
    let kube_proxy = kube_proxy.path().to_str().expect("text");
    // Of these connections no other node sees anything.
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| {
        door.entry == "node1" && door.kind == Kind::NodePort && door.policy == Policy::Local
    });
    let more = ["--kube-proxy-config", kube_proxy];
    let agent = observer(node, None, "agent", &more);
    let agent = ObserverProcess::by(agent).expect("an agent");
    let opened = traffic::open(&lab, &from_outside(&lab, &doors)).expect("opened");
    assert!(opened.iter().any(|opened| opened.result.is_ok()));
    let all = || {
        let answer = http::get(&node.namespace, API, "/v1/connections", &[]).expect("an answer");
        let lines = answer.body.lines();
        let records = lines.map(|line| serde_json::from_str(line).expect("a record"));
        let records: Vec<Value> = records.collect();
        (records.len() >= opened.len()).then_some(records)
    };
    let records = poll_until(PATIENCE, all).expect("every connection is told of");
    let report = oracle::judge(
        &lab,
        &opened,
        Records::from([("node1".to_owned(), records)]),
    );
    let complaints = report.complaints();
    let complaints: Vec<_> = complaints.iter().map(ToString::to_string).collect();
    assert_eq!(complaints, [] as [&str; 0]);

    let programs = attached(node);
    assert!(!programs.is_empty());
    let finished = agent.stop_by(Signal::SIGTERM).expect("stops");
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(attached(node), BTreeSet::new());
}
