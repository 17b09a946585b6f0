//! kube-proxy's IPVS mode: what is predicted, what is observed, and what the sockets saw.
//!
//! Goal: the three agree on every kind of client at every front door, also where IPVS mode does
//! what the other modes do not (rows 7i, 25, 31 and 33 of the decision table, row 8 by virtual
//! servers). Method: raise a cluster with kube-proxy's virtual servers, sets and rules, predict
//! from its objects alone, observe every node, connect from everywhere, and compare. Few kernels
//! that people develop on have the modules: the virtual machines of `cargo xtask kernels` do.

use std::{
    collections::BTreeSet,
    fmt,
    io::{ErrorKind, Write as _},
    net::IpAddr,
    process::Command,
};

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::{
    client::{self, Failure},
    command, explained,
    kubeproxy::{
        Family, Mode,
        doors::{Found, FrontDoor, Kind, Policy, front_doors},
        ipvs,
    },
    lab::Lab,
    netns::Namespace,
    observer_process, privilege,
    run::{self, Run},
    scene::Scene,
    traffic::{CONNECT_TIMEOUT, Client, Opened, Way, ways},
};

/// Raises a cluster in this mode; none if `test` cannot run here.
fn raise(test: &str, scene: &Scene) -> Option<Lab> {
    let probe = || -> Result<()> { ipvs::prepare(&Namespace::create("probe")?) };
    let possible = privilege::granted(test) && privilege::kernel_has(test, "IPVS", probe);
    possible.then(|| scene.raise(scene.settings(Mode::Ipvs)).expect("raised"))
}

/// The ways of every client through every front door of some families, in two parts: those that
/// lead to an endpoint or to a refusal, and those that go astray.
fn all_ways(lab: &Lab, families: &[Family]) -> (Vec<Way>, Vec<Way>) {
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| families.iter().any(|family| family.holds(door.to.ip())));
    let ways = ways(lab, &Client::all(lab), &doors);
    ways.into_iter().partition(|way| !goes_astray(way))
}

/// Whether a connection is sent to another node with the source it came with, and that node does
/// not send the reply back through this one. A pod's own node gets what is for the pod, and a
/// `NodePort`'s client what is for the node; any other Service address is every node's own.
fn goes_astray(Way { client, door }: &Way) -> bool {
    let falls_back =
        door.is_external() && door.policy == Policy::Local && door.endpoints == Found::NoneHere;
    let returns = match client {
        Client::External(_) => false,
        Client::Pod { .. } => true,
        Client::Node(_) => door.kind == Kind::NodePort,
    };
    falls_back && !returns
}

/// What `observer explain` says of a lab's cluster.
struct Explained(Vec<Value>);

impl Explained {
    fn of(lab: &Lab, scene: &Scene) -> Self {
        let mut config = NamedTempFile::new().expect("a file");
        write!(config, "{}", lab.kube_proxy()).expect("written");
        let mut explain = Command::new(observer_process::binary().expect("an observer"));
        explain.args(["explain", "-o", "json", "--cluster-state"]);
        explain.arg(&scene.objects).arg("--kube-proxy-config");
        let text = command::run(explain.arg(config.path())).expect("explains");
        Self(explained::cells(
            &serde_json::from_str(&text).expect("JSON"),
        ))
    }

    /// What is said of a way. Of a node's addresses only the first of a family is spoken of.
    fn said(&self, Way { client, door }: &Way) -> Option<&Value> {
        let client = match client {
            Client::External(_) => "external",
            Client::Pod { .. } => "pod",
            Client::Node(_) => "node",
        };
        self.0.iter().find(|cell| {
            cell["client"] == client
                && cell["node"] == json!(door.entry)
                && cell["front_door"]["ip"] == json!(door.to.ip())
                && cell["front_door"]["port"] == json!(door.to.port())
        })
    }

    /// Compares what was said of a way with what its two ends know.
    fn assert_met(&self, opened: &Opened) {
        let Opened {
            way,
            client,
            result,
        } = opened;
        let Some(said) = self.said(way) else {
            assert_eq!(way.door.kind, Kind::NodePort, "{way} is not explained");
            return;
        };
        // It is said of a client that may come, and not of a pod that gets itself.
        let is_kept_out = is_kept_out(&way.door, client.ip());
        match result {
            _ if is_kept_out && !matches!(way.client, Client::Node(_)) => {}
            Ok(answer) if answer.backend.ip() == client.ip() => {}
            Ok(answer) => {
                let kept = answer.peer_seen.ip() == client.ip();
                let source_ip = if kept { "preserved" } else { "lost" };
                assert!(
                    said["outcome"] == "answered"
                        && (said["source_ip"] == source_ip || said["source_ip"] == "unknown"),
                    "{way}: {answer:?}, but {said}"
                );
            }
            Err(failure) => {
                let outcomes: &[&str] = match failure {
                    Failure::Refused => &["refused"],
                    // What a node's own rule rejects or drops is the sender's own error (5.10).
                    Failure::Other(error) if error.kind() == ErrorKind::PermissionDenied => {
                        &["refused", "dropped"]
                    }
                    _ => &["dropped", "unanswered"],
                };
                assert!(
                    outcomes.iter().any(|outcome| said["outcome"] == *outcome),
                    "{way}: {failure}, but {said}"
                );
            }
        }
    }
}

fn is_kept_out(door: &FrontDoor, client: IpAddr) -> bool {
    !door.admits.is_empty() && !door.admits.iter().any(|range| range.contains(&client))
}

/// The only record that a node has of a client's connection.
fn record_of<'run>(run: &'run Run, node: &str, opened: &Opened) -> &'run Value {
    let client = json!({"ip": opened.client.ip(), "port": opened.client.port()});
    let mut records = run.records.get(node).into_iter().flatten().filter(|one| {
        one["client"]["ip"] == client["ip"] && one["client"]["port"] == client["port"]
    });
    let record = records.next();
    assert_eq!(records.next(), None, "{} is reported once", opened.way);
    record.unwrap_or_else(|| panic!("{node} did not report {}", opened.way))
}

/// Compares fields of a record, by their JSON pointers.
fn expect(what: &impl fmt::Display, record: &Value, fields: &[(&str, Value)]) {
    for (field, expected) in fields {
        assert_eq!(
            record.pointer(field),
            Some(expected),
            "{what}: {field} of {record}"
        );
    }
}

/// Which outcomes came about, with their causes.
fn fates(run: &Run) -> BTreeSet<(&str, &str)> {
    run.records
        .values()
        .flatten()
        .filter_map(|record| {
            let outcome = record["outcome"].as_str()?;
            Some((outcome, record["outcome_cause"]["code"].as_str()?))
        })
        .collect()
}

#[rstest]
#[case::demo(Scene::demo(), &[("refused", "no-endpoints")])]
#[case::edges(Scene::edges(), &[("refused", "no-local-endpoints"), ("dropped", "source-ranges")])]
fn every_client_is_reported_once_and_as_predicted(
    #[case] scene: Scene,
    #[case] failures: &[(&str, &str)],
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let test = "every_client_is_reported_once_and_as_predicted";
    let Some(lab) = raise(test, &scene) else {
        return;
    };
    let (ways, _) = all_ways(&lab, &[family]);
    let run = run::observe(&lab, &scene.objects, &ways).expect("observed");
    run.assert_right(&lab);
    run.assert_replayed();
    let explained = Explained::of(&lab, &scene);
    for opened in &run.opened {
        explained.assert_met(opened);
    }
    let fates = fates(&run);
    for (outcome, cause) in failures {
        assert!(
            fates.contains(&(*outcome, *cause)),
            "{outcome} by {cause} never came about: {fates:?}"
        );
    }
}

/// Rows 7i and 31: the connection is neither answered nor dropped. It reaches the endpoint with
/// the client's own address; of the reply, nothing returns to the node that could translate it.
#[rstest]
#[case::demo(Scene::demo(), &["external"])]
#[case::edges(Scene::edges(), &["external", "node"])]
fn without_a_local_endpoint_policy_local_sends_it_on_and_nobody_answers(
    #[case] scene: Scene,
    #[case] kinds: &[&str],
) {
    let test = "without_a_local_endpoint_policy_local_sends_it_on_and_nobody_answers";
    let Some(lab) = raise(test, &scene) else {
        return;
    };
    let (_, ways) = all_ways(&lab, &Family::ALL);
    let run = run::observe(&lab, &scene.objects, &ways).expect("observed");
    let explained = Explained::of(&lab, &scene);
    let mut seen = BTreeSet::new();
    for opened in &run.opened {
        let Opened {
            way,
            client,
            result,
        } = opened;
        assert!(matches!(result, Err(Failure::TimedOut)), "{opened:?}");
        explained.assert_met(opened);
        if let Some(said) = explained.said(way) {
            let fields = [
                ("/outcome", json!("unanswered")),
                ("/outcome_cause", json!("no-local-endpoints")),
                ("/source_ip", json!("preserved")),
                ("/extra_hops", json!({"least": 1, "most": 1})),
            ];
            expect(way, said, &fields);
        }
        let record = record_of(&run, &way.door.entry, opened);
        let fields = [
            ("/front_door/ip", json!(way.door.to.ip())),
            ("/outcome", json!("unanswered")),
            ("/outcome_cause/code", json!("no-local-endpoints")),
            ("/source_ip", json!("preserved")),
            (
                "/source_seen",
                json!({"ip": client.ip(), "port": client.port()}),
            ),
            ("/extra_hops", json!(1)),
            ("/path/0/out", json!("eth0")),
            ("/as_expected", json!(true)),
        ];
        expect(way, record, &fields);
        seen.extend(record["client"]["kind"].as_str());
        // That it got there, the endpoint's own node tells.
        if let Client::External(_) = way.client {
            let node = record["backend"]["node"].as_str().expect("a node");
            let there = record_of(&run, node, opened);
            let fields = [
                ("/front_door/kind", json!("Pod")),
                ("/backend", record["backend"].clone()),
                ("/source_ip", json!("preserved")),
                ("/path/0/ttl_in", json!(63)),
            ];
            expect(way, there, &fields);
        }
    }
    assert_eq!(seen, kinds.iter().copied().collect(), "who went astray");
}

/// Row 33: no virtual server is at the loopback address.
#[test]
fn the_loopback_address_serves_no_node_ports() {
    let Some(lab) = raise("the_loopback_address_serves_no_node_ports", &Scene::demo()) else {
        return;
    };
    let node = &lab.node("node1").expect("a node").namespace;
    let at = |to: &str| {
        let to = to.parse().expect("an address");
        client::connect(node, to, CONNECT_TIMEOUT).map_err(|error| error.failure)
    };
    at("172.31.0.11:30080").expect("answered");
    for to in ["127.0.0.1:30080", "[::1]:30080"] {
        let refused = at(to);
        assert!(
            matches!(refused, Err(Failure::Refused)),
            "{to}: {refused:?}"
        );
    }
}
