//! UDP flows.
//!
//! Goal: a flow is reported once, by its first datagram, and is another when conntrack made
//! another entry for it. Method: raise the demo cluster with a few UDP Services more, talk over
//! sockets that stay open, change a rule in between, and look at the records.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    thread,
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::{self, Failure, Udp},
    cluster::Cluster,
    command, demo,
    lab::{
        Lab, LabPod, Options,
        network::{Network, Pods},
    },
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
    protocol::Protocol,
};

const NODE1: &str = "172.31.0.11";
const NODE2: &str = "172.31.0.12";
/// Where the Service `echo` is, with a pod on node2.
const ECHO: u16 = 30090;
/// Where `host` is, with an endpoint in node1's own network.
const HOST: u16 = 30091;
/// Where `empty` is, without any endpoint.
const EMPTY: u16 = 30092;
const CLUSTER_IP: &str = "10.96.99.90";
/// Enough for any answer in a lab, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);
/// Enough to see that there is none.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// Longer than the observer waits for an answer.
const SILENCE: Duration = Duration::from_millis(3_500);
/// Longer than a flow may be silent (`observer_ebpf::FLOW_IDLE_NS`).
const IDLE: Duration = Duration::from_secs(31);

struct World {
    objects: PathBuf,
    lab: Lab,
    _directory: TempDir,
}

impl World {
    fn raise() -> Self {
        Self::raise_with(Options::default())
    }

    fn raise_with(options: Options) -> Self {
        let demo = fs::read_to_string(demo::cluster_file()).expect("the demo cluster");
        let mut list: Value = serde_json::from_str(&demo).expect("JSON");
        let items = list["items"].as_array_mut().expect("items");
        items.extend(service("echo", ECHO, Some(("10.244.2.90", "node2"))));
        items.extend(service("host", HOST, Some((NODE1, "node1"))));
        items.extend(service("empty", EMPTY, None));
        let directory = TempDir::new().expect("a directory");
        let objects = directory.path().join("cluster.json");
        fs::write(&objects, list.to_string()).expect("written");
        let cluster = Cluster::read(&objects).expect("the objects");
        let lab = Lab::raise(cluster, options).expect("raised");
        Self {
            objects,
            lab,
            _directory: directory,
        }
    }

    fn node(&self, name: &str) -> &Namespace {
        &self.lab.node(name).expect("a node").namespace
    }

    /// What `node` says while `talk` runs.
    fn records_of(&self, node: &str, more: &[&str], talk: impl FnOnce()) -> Vec<Value> {
        let node = self.lab.node(node).expect("a node");
        let observer = ObserverProcess::start(node, &self.objects, more).expect("observes");
        talk();
        let finished = observer.stop().expect("stops");
        assert!(finished.status.success(), "{}", finished.stderr);
        finished.records
    }

    fn record_of(&self, node: &str, talk: impl FnOnce()) -> Value {
        let records = self.records_of(node, &[], talk);
        let [record] = &records[..] else {
            panic!("one flow: {records:?}")
        };
        record.clone()
    }
}

/// A NodePort Service with one UDP port, and the only endpoint that it has.
fn service(name: &str, node_port: u16, endpoint: Option<(&str, &str)>) -> [Value; 2] {
    let cluster_ip = format!("10.96.99.{}", node_port % 1000);
    let endpoints = endpoint.map(|(address, node)| {
        json!({
            "addresses": [address], "nodeName": node,
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("{name}-pod")},
        })
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "type": "NodePort", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "ask", "port": 7, "nodePort": node_port, "targetPort": 7000, "protocol": "UDP"}],
        },
        "status": {"loadBalancer": {}},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": format!("{name}-slice"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": "ask", "port": 7000, "protocol": "UDP"}],
        "endpoints": endpoints.into_iter().collect::<Vec<_>>(),
    });
    [service, slice]
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

fn iptables(namespace: &Namespace, rule: &str) {
    command::run(namespace.command("iptables").args(rule.split_whitespace())).expect("a rule");
}

fn ask(socket: &Udp) -> client::Answer {
    socket.exchange(PATIENCE).expect("answered")
}

fn failure(socket: &Udp) -> Failure {
    let unanswered = socket.exchange(LITTLE_PATIENCE);
    unanswered.expect_err("no answer").failure
}

/// The ends of an answer as a record must have them, by JSON pointers.
fn ends(answer: &client::Answer) -> [(&'static str, Value); 3] {
    let end = |address: SocketAddr| json!({"ip": address.ip(), "port": address.port()});
    [
        ("/source_seen", end(answer.peer_seen)),
        ("/backend/ip", json!(answer.backend.ip())),
        ("/client/port", json!(answer.local.port())),
    ]
}

fn expect<const N: usize>(record: &Value, fields: [(&str, Value); N]) {
    for (field, expected) in fields {
        assert_eq!(
            record.pointer(field),
            Some(&expected),
            "{field} of {record}"
        );
    }
}

fn outcome(record: &Value, outcome: &str, cause: Option<&str>) {
    expect(
        record,
        [("/protocol", json!("UDP")), ("/outcome", json!(outcome))],
    );
    let code = record.pointer("/outcome_cause/code");
    assert_eq!(code.and_then(Value::as_str), cause, "{record}");
}

/// Forwarded, delivered to the node itself, and from a process of the node.
#[rstest]
#[case::to_a_pod(NODE1, ECHO, "eth0")]
#[case::to_the_node_itself(NODE1, HOST, "eth0")]
#[case::from_the_node(CLUSTER_IP, 7, "")]
fn a_flow_is_reported_once_however_long_it_is(
    #[case] ip: &str,
    #[case] port: u16,
    #[case] came_by: &str,
) {
    if !privilege::granted("a_flow_is_reported_once_however_long_it_is") {
        return;
    }
    let world = World::raise();
    let client = match came_by {
        "" => world.node("node1"),
        _ => world.lab.client(),
    };
    let mut answer = None;
    let record = world.record_of("node1", || {
        let socket = Udp::open(client, at(ip, port)).expect("opened");
        for _ in 0..20 {
            answer = Some(ask(&socket));
        }
        thread::sleep(SILENCE);
        ask(&socket);
        thread::sleep(SILENCE);
    });
    outcome(&record, "answered", None);
    expect(&record, ends(&answer.expect("answered")));
    let came_by = (!came_by.is_empty()).then_some(came_by);
    expect(&record, [("/path/0/in", json!(came_by))]);
}

/// Where a bridge and its port are observed, both asked for by name, a datagram is seen at each:
/// still one flow, which left by the last of them.
#[test]
fn a_flow_over_two_observed_devices_is_one() {
    if !privilege::granted("a_flow_over_two_observed_devices_is_one") {
        return;
    }
    let world = World::raise_with(Options {
        network: Network {
            pods: Pods::Bridge,
            ..Network::default()
        },
        ..Options::default()
    });
    let pod = world.lab.pod("echo-pod", "node2").map(LabPod::interface);
    let pod = pod.expect("the pod");
    let named: Vec<&str> = ["eth0", "cni0", pod]
        .into_iter()
        .flat_map(|name| ["--interface", name])
        .collect();
    let records = world.records_of("node2", &named, || {
        let socket = Udp::open(world.lab.client(), at(NODE2, ECHO)).expect("opened");
        for _ in 0..5 {
            ask(&socket);
        }
        thread::sleep(SILENCE);
    });
    let [record] = &records[..] else {
        panic!("one flow: {records:?}")
    };
    outcome(record, "answered", None);
    expect(
        record,
        [
            ("/path/0/in", json!("eth0")),
            ("/path/0/ttl_in", json!(64)),
            ("/path/0/out", json!(pod)),
            ("/path/0/ttl_out", json!(63)),
            ("/path/0/reply_ttl_in", json!(64)),
        ],
    );
}

/// Like syslog: nobody ever answers, and that is what is said, once.
#[rstest]
#[case::to_a_pod(NODE1, ECHO)]
#[case::to_the_node_itself(NODE1, HOST)]
fn a_flow_that_nobody_answers_is_unanswered_once(#[case] ip: &str, #[case] port: u16) {
    if !privilege::granted("a_flow_that_nobody_answers_is_unanswered_once") {
        return;
    }
    let mut world = World::raise();
    let name = if port == ECHO { "echo-pod" } else { "host-pod" };
    world.lab.silence(name);
    let silent = match world.lab.pod(name, "node2") {
        Some(pod) => &pod.namespace,
        None => world.node("node1"),
    };
    let _takes_all = silent
        .run(|| UdpSocket::bind("0.0.0.0:7000"))
        .expect("inside")
        .expect("bound");
    let record = world.record_of("node1", || {
        let socket = Udp::open(world.lab.client(), at(ip, port)).expect("opened");
        for _ in 0..8 {
            assert!(matches!(failure(&socket), Failure::TimedOut));
        }
    });
    outcome(&record, "unanswered", None);
    expect(&record, [("/backend/port", json!(7000))]);
}

#[test]
fn a_refused_flow_is_refused_once() {
    if !privilege::granted("a_refused_flow_is_refused_once") {
        return;
    }
    let mut world = World::raise();
    world.lab.silence("echo-pod");
    for (port, cause) in [(EMPTY, "no-endpoints"), (ECHO, "backend-refused")] {
        let record = world.record_of("node1", || {
            let socket = Udp::open(world.lab.client(), at(NODE1, port)).expect("opened");
            for _ in 0..4 {
                let failure = failure(&socket);
                // The kernel limits the rate of its ICMP errors.
                assert!(
                    matches!(failure, Failure::Refused | Failure::TimedOut),
                    "{failure}"
                );
            }
            thread::sleep(SILENCE);
        });
        outcome(&record, "refused", Some(cause));
    }
}

/// What is dropped has no conntrack entry: each datagram is judged anew by the rules, and the
/// first that passes makes one.
#[test]
fn a_dropped_flow_is_dropped_once_and_another_when_it_passes() {
    if !privilege::granted("a_dropped_flow_is_dropped_once_and_another_when_it_passes") {
        return;
    }
    let world = World::raise();
    let node1 = world.node("node1");
    iptables(node1, "-I FORWARD -p udp --dport 7000 -j DROP");
    let mut answer = None;
    let records = world.records_of("node1", &[], || {
        let socket = Udp::open(world.lab.client(), at(NODE1, ECHO)).expect("opened");
        for _ in 0..6 {
            assert!(matches!(failure(&socket), Failure::TimedOut));
        }
        iptables(node1, "-D FORWARD -p udp --dport 7000 -j DROP");
        answer = Some(ask(&socket));
        ask(&socket);
    });
    let [dropped, answered] = &records[..] else {
        panic!("two connections: {records:?}")
    };
    outcome(dropped, "dropped", Some("network-policy-or-firewall"));
    outcome(answered, "answered", None);
    expect(answered, ends(&answer.expect("answered")));
    for record in [dropped, answered] {
        expect(
            record,
            [("/path/0/in", json!("eth0")), ("/path/0/ttl_in", json!(64))],
        );
    }
}

/// A flow keeps what was decided of its first datagram for as long as conntrack holds it: a new
/// rule that would take the source address comes too late.
#[test]
fn a_flow_keeps_its_first_verdict() {
    if !privilege::granted("a_flow_keeps_its_first_verdict") {
        return;
    }
    let world = World::raise();
    let client = world.lab.client();
    let node2 = world.node("node2");
    // Nothing is masqueraded, as if the policy were Local.
    iptables(node2, "-t nat -I POSTROUTING -j ACCEPT");
    let mut answers = Vec::new();
    let records = world.records_of("node2", &[], || {
        let socket = Udp::open(client, at(NODE2, ECHO)).expect("opened");
        answers.push(ask(&socket));
        iptables(node2, "-t nat -D POSTROUTING -j ACCEPT");
        assert_eq!(ask(&socket).peer_seen, socket.local(), "the first verdict");
        let later = Udp::open(client, at(NODE2, ECHO)).expect("opened");
        answers.push(ask(&later));
    });
    let sources: Vec<_> = records.iter().map(|record| &record["source_ip"]).collect();
    assert_eq!(sources, ["preserved", "lost"]);
    for (record, answer) in records.iter().zip(&answers) {
        outcome(record, "answered", None);
        expect(record, ends(answer));
    }
}

/// Conntrack may forget a flow sooner than the programs do: by other time-outs, or as kube-proxy
/// makes it forget those of endpoints that are gone. What it makes anew is another connection, and
/// its datagram did arrive.
#[test]
fn a_flow_that_conntrack_made_anew_is_another() {
    if !privilege::granted("a_flow_that_conntrack_made_anew_is_another") {
        return;
    }
    let world = World::raise();
    let timeouts =
        ["", "_stream"].map(|which| format!("netfilter/nf_conntrack_udp_timeout{which}"));
    world
        .node("node1")
        .set_parameters(&timeouts.map(|parameter| (parameter, "1")))
        .expect("set");
    let mut answers = Vec::new();
    let records = world.records_of("node1", &[], || {
        let socket = Udp::open(world.lab.client(), at(NODE1, ECHO)).expect("opened");
        for _ in 0..2 {
            answers.push(ask(&socket));
            ask(&socket);
            thread::sleep(Duration::from_millis(2_500));
        }
    });
    assert_ne!(answers[0].peer_seen, answers[1].peer_seen, "chosen anew");
    assert_eq!(records.len(), 2, "{records:?}");
    for (record, answer) in records.iter().zip(&answers) {
        outcome(record, "answered", None);
        expect(record, ends(answer));
        expect(
            record,
            [("/path/0/in", json!("eth0")), ("/path/0/ttl_in", json!(64))],
        );
    }
}

/// After a silence in which conntrack forgets a flow the same socket opens another.
#[test]
fn a_flow_that_was_silent_for_long_is_another() {
    if !privilege::granted("a_flow_that_was_silent_for_long_is_another") {
        return;
    }
    let world = World::raise();
    let records = world.records_of("node1", &[], || {
        let to = [at(NODE1, ECHO), at(NODE1, HOST)];
        let sockets = to.map(|to| Udp::open(world.lab.client(), to).expect("opened"));
        for pause in [IDLE, Duration::ZERO] {
            for socket in &sockets {
                ask(socket);
            }
            thread::sleep(pause);
        }
    });
    let mut ports: Vec<_> = records
        .iter()
        .filter_map(|record| record.pointer("/front_door/port")?.as_u64())
        .collect();
    ports.sort_unstable();
    let [echo, host] = [u64::from(ECHO), u64::from(HOST)];
    assert_eq!(ports, [echo, echo, host, host], "{records:?}");
    for record in &records {
        outcome(record, "answered", None);
        expect(record, [("/path/0/in", json!("eth0"))]);
    }
}

/// Neither a request nor a reply of it is taken for one that opens a flow, with the objects or
/// without.
#[rstest]
fn a_flow_that_is_older_than_the_observation_is_not_told(#[values(true, false)] has_objects: bool) {
    if !privilege::granted("a_flow_that_is_older_than_the_observation_is_not_told") {
        return;
    }
    let world = World::raise();
    let node1 = world.lab.node("node1").expect("a node");
    let sockets = [
        (world.lab.client(), at(NODE1, ECHO)),
        (&node1.namespace, at(CLUSTER_IP, 7)),
        (&node1.namespace, at(NODE2, ECHO)),
    ]
    .map(|(from, to)| Udp::open(from, to).expect("opened"));
    let ask_all = || {
        for socket in &sockets {
            ask(socket);
        }
    };
    ask_all();
    let observer = if has_objects {
        ObserverProcess::start(node1, &world.objects, &[])
    } else {
        ObserverProcess::start_with(node1, &[])
    };
    let observer = observer.expect("observes");
    ask_all();
    thread::sleep(SILENCE);
    ask_all();
    let finished = observer.stop().expect("stops");
    assert_eq!(finished.records, [] as [Value; 0], "{}", finished.stderr);
}

/// Without the objects nobody knows the ports of front doors: every port is followed, and what is
/// rewritten is reported.
#[test]
fn without_cluster_state_every_port_is_followed() {
    if !privilege::granted("without_cluster_state_every_port_is_followed") {
        return;
    }
    let world = World::raise();
    let node = world.lab.node("node1").expect("a node");
    let observer = ObserverProcess::start_with(node, &[]).expect("observes");
    let answer = client::connect_by(Protocol::Udp, world.lab.client(), at(NODE1, ECHO), PATIENCE)
        .expect("answered");
    // A process of the node whose reply stays there.
    let of_the_node = client::connect_by(
        Protocol::Udp,
        world.node("node1"),
        at(CLUSTER_IP, 7),
        PATIENCE,
    )
    .expect("answered");
    observer.wait_for_records(2).expect("printed");
    let finished = observer.stop().expect("stops");
    let [one, two] = &finished.records[..] else {
        panic!("two flows: {:?}", finished.records)
    };
    outcome(one, "answered", None);
    expect(one, [("/source_ip", json!("lost"))]);
    expect(one, ends(&answer));
    outcome(two, "answered", None);
    expect(two, ends(&of_the_node));
}
