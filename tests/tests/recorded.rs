//! The lab against the recorded cluster: do pods see what a real cluster's pods saw?
//!
//! Goal: the lab's answers, not only its rules, are those of a cluster with a real kube-proxy.
//! Method: raise the recorded objects, open the recorded connections, and look whether a pod
//! sees a peer that its twin never saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use tests::{
    client, command, explained,
    kubeproxy::{Backend, Family, Mode},
    lab::Lab,
    observer_process, privilege, recording,
    scene::Scene,
};

/// A Service with session affinity: each client has one pod, so that six connections of one
/// client show one of three.
const STICKY: &str = "10.96.119.91";

/// Who connects where: whether it is the pod 10.244.1.10 rather than the client, and the front
/// door.
type Way = (bool, SocketAddr);

/// The pod that answered and the peer that it saw.
type Seen = (IpAddr, IpAddr);

/// What was recorded of one way.
#[derive(Default)]
struct Recorded {
    seen: BTreeSet<Seen>,
    fails: bool,
}

/// Reads `kp-client http://10.99.0.11:30080/ 3 pod-1-10 saw ::ffff:10.99.0.11; 1 rc=28; `.
fn recorded(line: &str) -> Option<(Way, Recorded)> {
    let mut words = line.split_whitespace();
    let (from, url) = (words.next()?, words.next()?);
    let to = url.strip_prefix("http://")?.trim_end_matches('/');
    let to: SocketAddr = to
        .parse()
        .or_else(|_| format!("{to}:80").parse())
        .expect("an address");
    let rest: Vec<&str> = words.collect();
    // The port 30200 is a listener of kube-proxy itself, which a lab does not have.
    if rest.iter().any(|word| word.contains("serviceProxyHealthy")) {
        return None;
    }
    let mut seen = BTreeSet::new();
    for case in rest
        .join(" ")
        .split(';')
        .filter(|case| case.contains(" saw "))
    {
        let words: Vec<&str> = case.split_whitespace().collect();
        let [_, pod, _, peer] = words[..] else {
            panic!("{case:?}")
        };
        let peer: IpAddr = peer.parse().expect("an address");
        seen.insert((pod_address(pod, to), peer.to_canonical()));
    }
    let fails = line.contains("rc=");
    Some(((from == "kp-pod-1-10", to), Recorded { seen, fails }))
}

/// The address of a recorded pod (`pod-1-10`) in the family that it was reached by.
fn pod_address(pod: &str, reached_by: SocketAddr) -> IpAddr {
    let numbers = pod
        .split('-')
        .skip(1)
        .map(|number| number.parse().expect("a number"));
    let numbers: Vec<u16> = numbers.collect();
    let [node, host] = numbers[..] else {
        panic!("{pod:?}")
    };
    let address = if reached_by.is_ipv4() {
        format!("10.244.{node}.{host}")
    } else {
        format!("fd00:244:{node}::{host:x}")
    };
    address.parse().expect("an address")
}

/// The recorded connections that were sent to a pod which never ran there: where the client
/// connected to, the pod, and the peer it would have seen. A lab's pods all run.
fn unanswered(conntrack: &str) -> BTreeSet<(SocketAddr, Seen)> {
    let entry = |line: &str| {
        let values = |name: &str| -> Vec<String> {
            let words = line.split_whitespace();
            let values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.map(str::to_owned).collect()
        };
        let (sources, destinations, ports) = (values("src"), values("dst"), values("dport"));
        let to = format!("{}:{}", destinations[0], ports[0]);
        let pod = sources[1].parse().expect("an address");
        (
            to.parse().expect("an address"),
            (pod, destinations[1].parse().expect("an address")),
        )
    };
    let lines = conntrack
        .lines()
        .filter(|line| line.contains("[UNREPLIED]"));
    lines.map(entry).collect()
}

/// All that was recorded. Six connections show a choice of three pods only in part; the two
/// modes, recorded on the same cluster, answer the same clients with the same addresses.
fn all_recorded(captures: &Path) -> BTreeMap<Way, Recorded> {
    let read = |file: &str| fs::read_to_string(captures.join(file)).expect("the recording");
    let mut all: BTreeMap<Way, Recorded> = BTreeMap::new();
    for mode in ["iptables", "nftables"] {
        let smoke = read(&format!("{mode}/smoke.txt"));
        for (way, Recorded { seen, fails }) in smoke.lines().filter_map(recorded) {
            let known = all.entry(way).or_default();
            known.seen.extend(seen);
            known.fails |= fails;
        }
        let unanswered = unanswered(&read(&format!("{mode}/conntrack-L-after-smoke.txt")));
        for ((_, to), recorded) in &mut all {
            let here = unanswered.iter().filter(|(unanswered, _)| unanswered == to);
            recorded.seen.extend(here.map(|(_, seen)| *seen));
        }
    }
    assert!(all.len() >= 20, "only {} ways were understood", all.len());
    all
}

/// The ways of one mode and family that were recorded in it.
fn recorded_ways(captures: &Path, mode: Mode, family: Family) -> BTreeSet<Way> {
    let file = captures.join(mode.to_string()).join("smoke.txt");
    let smoke = fs::read_to_string(file).expect("the recording");
    smoke
        .lines()
        .filter_map(recorded)
        .map(|(way, _)| way)
        .filter(|(_, to)| family.holds(to.ip()))
        .collect()
}

fn raise(captures: &Path, mode: Mode) -> Lab {
    let scene = Scene::recorded(captures);
    let lab = scene.raise(scene.settings(mode)).expect("raised");
    for vip in ["10.99.0.200", "10.99.0.201", "10.99.0.202", "10.99.0.210"] {
        lab.route_vip(vip.parse().expect("an address"), "node1")
            .expect("routed");
    }
    lab
}

/// Whatever a pod of the lab sees, its twin in the recorded cluster saw, too.
#[rstest]
fn pods_see_what_the_recorded_ones_saw(
    #[values(
        Mode::Iptables(Backend::Nft),
        Mode::Iptables(Backend::Legacy),
        Mode::Nftables
    )]
    mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("pods_see_what_the_recorded_ones_saw") {
        return;
    }
    let Some(captures) = recording::captures("pods_see_what_the_recorded_ones_saw") else {
        return;
    };
    let lab = raise(&captures, mode);
    let inside = "10.244.1.10".parse().expect("an address");
    let mut pods = lab.pods().iter();
    let pod = pods
        .find(|pod| pod.plan.addresses.contains(&inside))
        .expect("the pod");
    let all = all_recorded(&captures);
    let ways = recorded_ways(&captures, mode, family);
    assert!(ways.len() >= 4, "only {} ways were recorded", ways.len());

    for way in ways {
        let (from_pod, to) = way;
        let Recorded { seen, fails } = &all[&way];
        let from = if from_pod {
            &pod.namespace
        } else {
            lab.client()
        };
        let (times, milliseconds) = if *fails { (2, 300) } else { (6, 2_000) };
        let mut answered = BTreeSet::new();
        for _ in 0..times {
            match client::connect(from, to, Duration::from_millis(milliseconds)) {
                Ok(answer) => {
                    answered.insert((answer.backend.ip(), answer.peer_seen.ip()));
                }
                Err(error) => assert!(fails, "{to}: {error}, and never so in the recording"),
            }
        }
        if to.ip().to_string() == STICKY {
            assert_eq!(answered.len(), 1, "{to}: one client, one pod");
        } else {
            let new: Vec<&Seen> = answered.difference(seen).collect();
            assert!(
                new.is_empty(),
                "{to}: {new:?} was never recorded, only {seen:?}"
            );
        }
    }
}

/// What `observer explain` says of the recorded cluster to one client, by node1.
fn explanation(captures: &Path, mode: &str, client: IpAddr) -> (Value, Vec<Value>) {
    let mut explain = Command::new(observer_process::binary().expect("an observer"));
    explain
        .args(["explain", "-o", "json", "--client", &client.to_string()])
        .arg("--cluster-state")
        .arg(captures.join("objects.json"))
        .arg("--kube-proxy-config")
        .arg(captures.join(mode).join("kube-proxy.yaml"));
    let text = command::run(&mut explain).expect("explains");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let mut cells = explained::cells(&document);
    cells.retain(|cell| cell["node"] == "node1" && cell["protocol"] == "TCP");
    (document, cells)
}

/// The recorded cluster, explained: nothing that a pod saw contradicts it, and what it is sure of
/// was seen. Needs no lab.
#[rstest]
fn what_is_explained_is_what_was_recorded(#[values("iptables", "nftables")] mode: &str) {
    let Some(captures) = recording::captures("what_is_explained_is_what_was_recorded") else {
        return;
    };
    let read = |file| fs::read_to_string(captures.join(mode).join(file)).expect("the recording");
    let unanswered = unanswered(&read("conntrack-L-after-smoke.txt"));
    let mut compared = 0;
    for ((from_pod, to), recorded) in read("smoke.txt").lines().filter_map(recorded) {
        let Recorded {
            mut seen,
            mut fails,
        } = recorded;
        // Sent to a pod that never ran.
        let sent = unanswered.iter().filter(|(its, _)| *its == to);
        seen.extend(sent.map(|(_, seen)| *seen));
        fails &= seen.is_empty();
        let client: IpAddr = match (from_pod, to.is_ipv6()) {
            (true, _) => "10.244.1.10",
            (false, false) => "10.99.0.100",
            (false, true) => "fd99::100",
        }
        .parse()
        .expect("an address");
        let (_, cells) = explanation(&captures, mode, client);
        let said: Vec<_> = cells
            .iter()
            .filter(|cell| {
                cell["front_door"]["ip"] == to.ip().to_string()
                    && cell["front_door"]["port"] == to.port()
            })
            .collect();
        let [said] = said[..] else {
            panic!("{to} is explained {} times", said.len())
        };
        let kept: BTreeSet<bool> = seen.iter().map(|(_, peer)| *peer == client).collect();
        let source_ip = said["source_ip"].as_str().expect("a word");
        let expected: &[&str] = match (fails, kept.len(), kept.first()) {
            (true, ..) => {
                let outcome = said["outcome"].as_str().expect("a word");
                assert!(["dropped", "refused"].contains(&outcome), "{to}: {said}");
                &["unknown"]
            }
            // One client, one pod: which, no object tells.
            _ if to.ip().to_string() == STICKY => &["unknown"],
            (false, 1, Some(true)) => &["preserved"],
            (false, 1, _) => &["lost"],
            _ => &["unknown"],
        };
        assert!(
            expected.contains(&source_ip),
            "{client} to {to}: {seen:?}, but {said}"
        );
        compared += 1;
    }
    assert_eq!(compared, 22, "ways of the recording");
}

/// What kube-proxy's own listener said of `shop/lb-local` on node1 is what is explained.
#[test]
fn a_health_check_is_explained_as_it_was_recorded() {
    let Some(captures) = recording::captures("a_health_check_is_explained_as_it_was_recorded")
    else {
        return;
    };
    for mode in ["iptables", "nftables"] {
        let smoke = fs::read_to_string(captures.join(mode).join("smoke.txt")).expect("recorded");
        let line = smoke.lines().find(|line| line.contains("localEndpoints"));
        let line = line.expect("the health check was recorded");
        assert!(line.contains("http://10.99.0.11:30200/"), "{line}");
        let client = "10.99.0.100".parse().expect("an address");
        let (document, _) = explanation(&captures, mode, client);
        let services = document["services"].as_array().expect("Services");
        let service = services
            .iter()
            .find(|it| it["service"]["name"] == "lb-local")
            .expect("the Service");
        let health = &service["health_check"];
        assert_eq!(health["port"], 30200);
        let node1 = &health["nodes"][0];
        assert_eq!(node1["node"], "node1");
        assert_eq!(node1["status"], 200);
        let count = format!("\"localEndpoints\": {}", node1["local_endpoints"]);
        assert!(line.contains(&count), "{count} in {line}");
        assert_eq!(node1["body"]["localEndpoints"], node1["local_endpoints"]);
        assert!(line.contains("\"serviceProxyHealthy\": true"), "{line}");
        assert_eq!(node1["body"]["serviceProxyHealthy"], true);
    }
}
