//! The cluster changes while it is traced.
//!
//! Goal: each connection is judged by what its node went by when it came, and a recording gives the
//! same again. Method: `observer trace` by an API server, a Service that changes its policy while
//! connections come without a pause, and the nodes programmed after it, as late as a kube-proxy
//! may be; the sockets say which policy each connection went by.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    api_server::{ApiServer, Options, items},
    cluster::Cluster,
    demo,
    lab::Lab,
    observer_process::{ObserverProcess, replay},
    privilege,
};

const DOOR: ([u8; 4], u16) = ([172, 31, 0, 11], 30_080);
/// kube-proxy programs within seconds of a change; so late it is here.
const LATE: Duration = Duration::from_millis(1_500);
/// Of each policy, and between the changes.
const WHILE: Duration = Duration::from_millis(3_500);

/// The demo's objects, with this policy of its Service.
fn objects(policy: &str) -> Vec<Value> {
    let mut objects = items(&demo::cluster_file()).expect("the demo's objects");
    let is_web =
        |object: &&mut Value| object["kind"] == "Service" && object["metadata"]["name"] == "web";
    let web = objects.iter_mut().find(is_web).expect("the Service");
    web["spec"]["externalTrafficPolicy"] = json!(policy);
    objects
}

fn program(lab: &Lab, objects: &[Value]) {
    let list = json!({"kind": "List", "items": objects}).to_string();
    let cluster = Cluster::parse(&list).expect("a cluster");
    lab.program(&cluster).expect("programmed");
}

#[test]
fn each_connection_is_judged_by_what_it_went_by_and_so_it_is_again() {
    if !privilege::granted("each_connection_is_judged_by_what_it_went_by_and_so_it_is_again") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let options = Options {
        within: Some((&node.namespace, IpAddr::from([127, 0, 0, 1]))),
        ..Options::default()
    };
    let server = ApiServer::start(&objects("Cluster"), &options).expect("an API server");
    let directory = TempDir::new().expect("a directory");
    let recording = directory.path().join("recording");
    let kubeconfig = server.kubeconfig();
    let observer = ObserverProcess::start_with(
        node,
        &[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--record",
            recording.to_str().expect("text"),
        ],
    )
    .expect("observes");
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = lab.connect(DOOR.into(), Duration::from_secs(2));
                // While rules are replaced there may be none.
                if let Ok(answer) = answer {
                    seen.push((answer.local, answer.peer_seen));
                }
                thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        for policy in ["Local", "Cluster"] {
            thread::sleep(WHILE);
            let objects = objects(policy);
            let is_web = |object: &&Value| {
                object["kind"] == "Service" && object["metadata"]["name"] == "web"
            };
            server.put(objects.iter().find(is_web).expect("the Service").clone());
            thread::sleep(LATE);
            program(&lab, &objects);
        }
        thread::sleep(WHILE);
        stop.store(true, Ordering::Relaxed);
        connecting.join().expect("connected")
    });
    let finished = observer.stop().expect("stops");

    assert!(seen.len() > 100, "{}", seen.len());
    let mut policies = [0, 0];
    for (client, peer) in &seen {
        // The client's port alone may be one that was used before.
        let is_it = |record: &&Value| {
            record["client"]["port"] == client.port()
                && record["source_seen"] == json!({"ip": peer.ip(), "port": peer.port()})
        };
        let record = finished.records.iter().find(is_it).expect("a record");
        let is_lost = client.ip() != peer.ip();
        let (policy, source_ip) = if is_lost {
            ("Cluster", "lost")
        } else {
            ("Local", "preserved")
        };
        policies[usize::from(is_lost)] += 1;
        assert_eq!(record["source_ip"], source_ip, "{record}");
        assert_eq!(
            record["service"]["external_traffic_policy"], policy,
            "{record}"
        );
        assert_eq!(record["as_expected"], true, "{record}");
    }
    assert!(policies.iter().all(|number| *number > 20), "{policies:?}");
    let replayed = replay(&recording, &["-o", "json"]).expect("replayed");
    assert!(
        replayed == finished.stdout,
        "the replay printed something else"
    );
}
