//! What becomes of an opening packet, told apart.
//!
//! Goal: answered, refused, dropped and unanswered are what they are, each for its reason.
//! Method: raise the demo cluster with a few Services more, break one thing, open one connection,
//! and look at the record of the node that it entered by.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket,
};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    child::poll_until,
    client,
    cluster::Cluster,
    command, demo,
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
};

const NODE1: &str = "172.31.0.11";
const NODE2: &str = "172.31.0.12";
/// Longer than the observer waits for an answer, and than the second between a SYN and its first
/// repetition.
const PATIENCE: Duration = Duration::from_millis(3_500);

/// A cluster's objects in a file, and the lab raised from them.
struct World {
    objects: PathBuf,
    lab: Lab,
    _directory: TempDir,
}

impl World {
    /// The demo cluster with two Services whose endpoints live in node1's own network.
    fn raise() -> Self {
        let demo = fs::read_to_string(demo::cluster_file()).expect("the demo cluster");
        let mut list: Value = serde_json::from_str(&demo).expect("JSON");
        let items = list["items"].as_array_mut().expect("items");
        items.extend(on_the_host("host", 30090, 9100));
        items.extend(on_the_host("queue", 30091, 9101));
        let directory = TempDir::new().expect("a directory");
        let objects = directory.path().join("cluster.json");
        fs::write(&objects, list.to_string()).expect("written");
        let cluster = Cluster::read(&objects).expect("the objects");
        let lab = Lab::raise(cluster, Options::default()).expect("raised");
        Self {
            objects,
            lab,
            _directory: directory,
        }
    }

    fn node(&self, name: &str) -> &Namespace {
        &self.lab.node(name).expect("a node").namespace
    }

    /// The pod of the Service `far`, which lives on node2 alone.
    fn far(&self) -> &Namespace {
        let mut pods = self.lab.pods().iter();
        let far = pods.find(|pod| pod.plan.name.starts_with("far-"));
        &far.expect("the pod").namespace
    }

    /// The one record that `node` prints of a connection through `port` while `open` runs.
    fn record_of(&self, node: &str, port: u16, open: impl FnOnce()) -> Value {
        let records = self.records_of(node, &[], open);
        let mut through = records
            .iter()
            .filter(|record| record.pointer("/front_door/port") == Some(&json!(port)));
        let record = through
            .next()
            .unwrap_or_else(|| panic!("nothing of {port} in {records:?}"));
        assert_eq!(through.next(), None, "one connection was opened");
        record.clone()
    }

    fn records_of(&self, node: &str, more: &[&str], open: impl FnOnce()) -> Vec<Value> {
        let node = self.lab.node(node).expect("a node");
        let observer = ObserverProcess::start(node, &self.objects, more).expect("observes");
        open();
        let finished = observer.stop().expect("stops");
        assert!(finished.status.success(), "{}", finished.stderr);
        finished.records
    }
}

/// A NodePort Service whose only endpoint is in node1's own network.
fn on_the_host(name: &str, node_port: u16, port: u16) -> [Value; 2] {
    let metadata = json!({"namespace": "shop", "name": name});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "type": "NodePort", "clusterIP": format!("10.96.99.{}", port % 256),
            "clusterIPs": [format!("10.96.99.{}", port % 256)],
            "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "http", "port": 80, "nodePort": node_port, "targetPort": port, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": format!("{name}-slice"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [NODE1], "nodeName": "node1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("{name}-pod")},
        }],
    });
    [service, slice]
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

/// How many packets the first rule of a chain took.
fn counted(namespace: &Namespace, chain: &str) -> u64 {
    let mut list = namespace.command("iptables");
    let listed = command::run(list.args(["-v", "-S", chain, "1"])).expect("a rule");
    let (_, counters) = listed.split_once(" -c ").expect("its counters");
    let packets = counters.split_whitespace().next().expect("packets");
    packets.parse().expect("a number")
}

fn iptables(namespace: &Namespace, rule: &str) {
    command::run(namespace.command("iptables").args(rule.split_whitespace())).expect("a rule");
}

/// Compares fields of a record, by their JSON pointers.
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
    expect(record, [("/outcome", json!(outcome))]);
    let code = record
        .pointer("/outcome_cause/code")
        .and_then(Value::as_str);
    assert_eq!(code, cause, "{record}");
}

/// Rows 3 and 4: the mark for the masquerade is set, but what is delivered never reaches the
/// chain that would do it.
#[test]
fn an_endpoint_in_the_hosts_network_sees_the_client_on_its_own_node_only() {
    if !privilege::granted("an_endpoint_in_the_hosts_network_sees_the_client_on_its_own_node_only")
    {
        return;
    }
    let world = World::raise();
    let client = world.lab.client();
    let mut answer = None;
    let record = world.record_of("node1", 30090, || {
        answer = client::connect(client, at(NODE1, 30090), PATIENCE).ok();
    });
    let seen = answer.take().expect("answered").peer_seen;
    outcome(&record, "answered", None);
    expect(
        &record,
        [
            ("/source_ip", json!("preserved")),
            (
                "/source_seen",
                json!({"ip": seen.ip(), "port": seen.port()}),
            ),
            ("/backend/ip", json!(NODE1)),
            ("/backend/pod", json!("host-pod")),
            ("/extra_hops", json!(0)),
            ("/path/0/in", json!("eth0")),
            ("/path/0/out", json!(null)),
            ("/path/0/ttl_out", json!(null)),
            ("/path/0/forward_ns", json!(null)),
        ],
    );

    let record = world.record_of("node2", 30090, || {
        answer = client::connect(client, at(NODE2, 30090), PATIENCE).ok();
    });
    let seen = answer.expect("answered").peer_seen;
    expect(
        &record,
        [
            ("/source_ip", json!("lost")),
            (
                "/source_seen",
                json!({"ip": seen.ip(), "port": seen.port()}),
            ),
            ("/extra_hops", json!(1)),
        ],
    );
}

#[test]
fn a_full_accept_queue_is_told_from_a_drop() {
    if !privilege::granted("a_full_accept_queue_is_told_from_a_drop") {
        return;
    }
    let mut world = World::raise();
    world.lab.silence("queue-pod");
    let node = world.node("node1");
    let _listener = node.run(|| never_accepting(9101)).expect("inside");
    // The first ones fill the queue, whatever its exact length is.
    let in_the_queue = node
        .run(|| {
            let to = at("127.0.0.1", 9101);
            let opened =
                (0..4).map(|_| TcpStream::connect_timeout(&to, Duration::from_millis(200)));
            opened.filter_map(Result::ok).collect::<Vec<_>>()
        })
        .expect("inside");
    assert!(!in_the_queue.is_empty(), "the queue took none");

    let record = world.record_of("node1", 30091, || {
        client::connect(world.lab.client(), at(NODE1, 30091), PATIENCE)
            .expect_err("nobody accepts");
    });
    outcome(&record, "unanswered", Some("listen-queue"));
    expect(
        &record,
        [
            ("/source_ip", json!("preserved")),
            ("/backend/ip", json!(NODE1)),
            ("/extra_hops", json!(0)),
        ],
    );
}

/// A listener with the shortest queue there is.
fn never_accepting(port: u16) -> OwnedFd {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .expect("a socket");
    let any = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    bind(socket.as_raw_fd(), &any).expect("bound");
    listen(&socket, Backlog::new(0).expect("a length")).expect("listens");
    socket
}

#[rstest]
#[case::by_rst("REJECT --reject-with tcp-reset", "refused", Some("backend-refused"))]
#[case::by_icmp_error(
    "REJECT --reject-with icmp-port-unreachable",
    "refused",
    Some("backend-refused")
)]
#[case::by_silence("DROP", "unanswered", None)]
fn a_pod_refuses_or_keeps_silent(
    #[case] target: &str,
    #[case] expected: &str,
    #[case] cause: Option<&str>,
    #[values("client", "node2")] from: &str,
) {
    if !privilege::granted("a_pod_refuses_or_keeps_silent") {
        return;
    }
    let world = World::raise();
    iptables(world.far(), &format!("-A INPUT -p tcp -j {target}"));
    // From the node itself by the cluster IP: what a node's own rules rewrite leaves as well.
    let (from, to) = if from == "client" {
        (world.lab.client(), at(NODE2, 30085))
    } else {
        (world.node("node2"), at("10.96.85.16", 80))
    };
    let record = world.record_of("node2", to.port(), || {
        client::connect(from, to, PATIENCE).expect_err("the pod takes nothing");
    });
    outcome(&record, expected, cause);
    expect(
        &record,
        [
            ("/backend/node", json!("node2")),
            ("/source_ip", json!("preserved")),
        ],
    );
}

/// kube-proxy let it pass; a rule behind the DNAT did not.
#[rstest]
#[case::dropped("DROP", "dropped")]
#[case::rejected("REJECT", "refused")]
fn what_a_firewall_stops_is_not_put_on_kube_proxy_nor_on_the_backend(
    #[case] target: &str,
    #[case] expected: &str,
) {
    if !privilege::granted("what_a_firewall_stops_is_not_put_on_kube_proxy_nor_on_the_backend") {
        return;
    }
    let world = World::raise();
    iptables(
        world.node("node2"),
        &format!("-I FORWARD -p tcp -d 10.244.2.0/24 -j {target}"),
    );
    let record = world.record_of("node2", 30085, || {
        client::connect(world.lab.client(), at(NODE2, 30085), PATIENCE).expect_err("dropped");
    });
    outcome(&record, expected, Some("network-policy-or-firewall"));
    expect(&record, [("/as_expected", json!(false))]);
}

/// The rule is behind the DNAT: the packet that it drops no longer has the header that arrived.
#[test]
fn the_kernels_own_reason_stands_beside_a_drop() {
    let test = "the_kernels_own_reason_stands_beside_a_drop";
    let probe = || {
        let symbols = fs::read_to_string("/proc/kallsyms")?;
        anyhow::ensure!(
            symbols.contains(" bpf_probe_register\n"),
            "none of its functions"
        );
        Ok(())
    };
    if !(privilege::granted(test) && privilege::kernel_has(test, "CONFIG_BPF_EVENTS", probe)) {
        return;
    }
    let world = World::raise();
    iptables(
        world.node("node2"),
        "-I FORWARD -p tcp -d 10.244.2.0/24 -j DROP",
    );
    let record = world.record_of("node2", 30085, || {
        client::connect(world.lab.client(), at(NODE2, 30085), PATIENCE).expect_err("dropped");
    });
    outcome(&record, "dropped", Some("network-policy-or-firewall"));
    let explanation = record.pointer("/outcome_cause/explanation");
    let explanation = explanation.and_then(Value::as_str).expect("a sentence");
    let expected = release() >= [5, 17];
    assert_eq!(
        explanation.ends_with(" (the kernel's drop reason: NETFILTER_DROP)"),
        expected,
        "{explanation}"
    );
    assert_eq!(explanation.contains("drop reason"), expected);
}

/// The kernel's version and patch level.
fn release() -> [u32; 2] {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    [(); 2].map(|()| numbers.next().flatten().expect("a number"))
}

#[test]
fn a_repeated_opening_is_one_connection_with_its_whole_wait() {
    if !privilege::granted("a_repeated_opening_is_one_connection_with_its_whole_wait") {
        return;
    }
    let world = World::raise();
    let pod = world.far();
    iptables(pod, "-A INPUT -p tcp -j DROP");
    let record = world.record_of("node2", 30085, || {
        thread::scope(|scope| {
            let opened =
                scope.spawn(|| client::connect(world.lab.client(), at(NODE2, 30085), PATIENCE));
            let is_dropped = || (counted(pod, "INPUT") > 0).then_some(());
            poll_until(PATIENCE, is_dropped).expect("the first is dropped");
            iptables(pod, "-F INPUT");
            opened.join().expect("no panic").expect("answered");
        });
    });
    outcome(&record, "answered", None);
    let waited = record.pointer("/round_trip_ns").and_then(Value::as_u64);
    assert!(waited.expect("a time") >= 900_000_000, "{record}");
}

/// Row 33, and a client of the node by a cluster IP: no packet arrives, and the reply stays.
#[test]
fn clients_on_the_node_have_no_arrival() {
    if !privilege::granted("clients_on_the_node_have_no_arrival") {
        return;
    }
    let world = World::raise();
    for (to, kind) in [
        (at("127.0.0.1", 30080), "NodePort"),
        (at("10.96.80.11", 80), "ClusterIP"),
        (at(NODE1, 30080), "NodePort"),
    ] {
        let mut answer = None;
        let record = world.record_of("node1", to.port(), || {
            answer = client::connect(world.node("node1"), to, PATIENCE).ok();
            // The reply that stays is known as such a moment later.
            thread::sleep(Duration::from_millis(300));
        });
        let answer = answer.expect("answered");
        outcome(&record, "answered", None);
        let lost = answer.peer_seen.ip() != answer.local.ip();
        expect(
            &record,
            [
                ("/client/kind", json!("node")),
                ("/client/ip", json!(answer.local.ip())),
                (
                    "/front_door",
                    json!({"kind": kind, "ip": to.ip(), "port": to.port()}),
                ),
                (
                    "/source_seen",
                    json!({"ip": answer.peer_seen.ip(), "port": answer.peer_seen.port()}),
                ),
                ("/source_ip", json!(if lost { "lost" } else { "preserved" })),
                ("/path/0/in", json!(null)),
                ("/path/0/ttl_in", json!(null)),
            ],
        );
        if lost {
            expect(&record, [("/cause/code", json!("node-local-client"))]);
        }
    }
}

#[test]
fn what_existed_before_is_read_from_conntrack_when_all_is_asked_for() {
    if !privilege::granted("what_existed_before_is_read_from_conntrack_when_all_is_asked_for") {
        return;
    }
    let world = World::raise();
    let client = world.lab.client();
    let held = client
        .run(|| TcpStream::connect_timeout(&at(NODE1, 30080), PATIENCE))
        .expect("inside")
        .expect("connected");
    let local = held.local_addr().expect("an address");

    assert_eq!(
        world.records_of("node1", &[], || {}),
        [] as [Value; 0],
        "by default it is nobody's business"
    );
    let records = world.records_of("node1", &["--all"], || {});
    let of_ours = |record: &&Value| record.pointer("/client/port") == Some(&json!(local.port()));
    let record = records.iter().find(of_ours).expect("ours");
    outcome(record, "answered", None);
    expect(
        record,
        [
            ("/from", json!("conntrack")),
            ("/observed_at", json!(null)),
            ("/path", json!([])),
            ("/round_trip_ns", json!(null)),
            ("/source_ip", json!("lost")),
            ("/front_door/kind", json!("NodePort")),
            ("/service/name", json!("web")),
        ],
    );
}

/// A recording holds conntrack's answers too.
#[test]
fn a_recorded_drop_replays_the_same() {
    if !privilege::granted("a_recorded_drop_replays_the_same") {
        return;
    }
    let world = World::raise();
    let directory = TempDir::new().expect("a directory");
    let recording: &Path = &directory.path().join("recording");
    let path = recording.to_str().expect("text");
    let records = world.records_of("node1", &["--record", path], || {
        client::connect(world.lab.client(), at(NODE1, 30085), PATIENCE).expect_err("dropped");
    });
    let [record] = &records[..] else {
        panic!("one connection was opened: {records:?}")
    };
    outcome(record, "dropped", Some("no-local-endpoints"));
    let replayed = tests::observer_process::replay(recording, &["-o", "json"]).expect("replayed");
    let replayed: Value = serde_json::from_str(&replayed).expect("one record");
    assert_eq!(replayed, *record);
}
