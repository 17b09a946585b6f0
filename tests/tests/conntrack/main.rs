//! What the observer knows of connection tracking itself: NOTRACK, zones, and the module that
//! comes late.
//!
//! Goal: what a packet's conntrack entry says, or that it has none, is told rightly. Method: rules
//! of the raw table on a node of the demo cluster, connections, and what the observer recorded of
//! them beside what the pods' own sockets saw.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    child::poll_until,
    client::Answer,
    command, demo,
    lab::LabNode,
    observer_process::{Finished, ObserverProcess},
    privilege,
    traffic::CONNECT_TIMEOUT,
};

mod kernel_types;

/// Runs `iptables` in the raw table of a node.
fn raw(node: &LabNode, rule: &str) {
    let mut iptables = node.namespace.command("iptables-nft");
    iptables.args(["-t", "raw"]).args(rule.split_whitespace());
    command::run(&mut iptables).expect("a rule");
}

/// The node port of the Service `web` at node1.
fn web_by_node1() -> SocketAddr {
    SocketAddr::from(([172, 31, 0, 11], 30080))
}

/// An observer that records what it sees of a node.
struct Recorder {
    process: ObserverProcess,
    directory: TempDir,
}

impl Recorder {
    fn start(node: &LabNode, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let recording = Self::recording(&directory);
        let mut options = vec!["--record", &recording];
        options.extend(more);
        let process = ObserverProcess::start(node, &demo::cluster_file(), &options);
        Self {
            process: process.expect("observing"),
            directory,
        }
    }

    fn recording(directory: &TempDir) -> String {
        let path = directory.path().join("recording");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// How the packets of a client's connection left the node, so far.
    fn passages(&self, client: SocketAddr) -> Vec<Value> {
        passages(&self.directory, client)
    }

    /// Ends it. Its records of a client's connection, those passages, and what it said beside.
    fn stop(self, client: SocketAddr) -> (Vec<Value>, Vec<Value>, String) {
        let Self { process, directory } = self;
        let Finished {
            mut records,
            stderr,
            ..
        } = process.stop().expect("stopped");
        records.retain(|record| {
            record.pointer("/client").is_some_and(|end| {
                end.get("ip") == Some(&json!(client.ip()))
                    && end.get("port") == Some(&json!(client.port()))
            })
        });
        (records, passages(&directory, client), stderr)
    }
}

fn passages(directory: &TempDir, client: SocketAddr) -> Vec<Value> {
    let recording = fs::read_to_string(Recorder::recording(directory)).expect("a recording");
    recording
        .lines()
        // The last line may be half written.
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|event| event.pointer("/observation/passage").cloned())
        .filter(|passage| {
            passage.pointer("/identity/original/source") == Some(&json!(client.to_string()))
        })
        .collect()
}

fn each<'a>(passages: &'a [Value], field: &str) -> Vec<&'a Value> {
    let field = |passage: &'a Value| passage.pointer(field).expect("such a field");
    passages.iter().map(field).collect()
}

#[test]
fn a_packet_exempted_from_tracking_is_told_from_a_tracked_one() {
    if !privilege::granted("a_packet_exempted_from_tracking_is_told_from_a_tracked_one") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node2 = lab.node("node2").expect("a node");
    let pod = lab
        .pods()
        .iter()
        .find(|pod| pod.plan.node == "node2" && pod.plan.name.starts_with("web-"))
        .expect("a pod");
    let address = pod.plan.addresses.iter().find(|address| address.is_ipv4());
    let address = *address.expect("an address");
    lab.route_vip(address, "node2").expect("routed");

    for (notrack, word) in [(false, "entry"), (true, "untracked")] {
        if notrack {
            raw(
                node2,
                &format!("-A PREROUTING -d {address} -j CT --notrack"),
            );
            raw(
                node2,
                &format!("-A PREROUTING -s {address} -j CT --notrack"),
            );
        }
        let recorder = Recorder::start(node2, &[]);
        let answer = lab.connect((address, 8080).into(), CONNECT_TIMEOUT);
        let Answer { local, .. } = answer.expect("answered");
        let (records, passages, _) = recorder.stop(local);
        assert_eq!(each(&passages, "/conntrack"), [word, word]);
        assert_eq!(each(&passages, "/kind"), ["forward", "reply"]);
        let [record] = &records[..] else {
            panic!("reported once: {records:?}")
        };
        assert_eq!(record["front_door"]["kind"], "Pod");
        assert_eq!(record["outcome"], "answered");
        assert_eq!(record["source_ip"], "preserved");
    }
}

#[rstest]
#[case::of_both_directions("--zone", 5)]
#[case::of_the_original_direction("--zone-orig", 5)]
// The original direction is then in the default zone.
#[case::of_replies("--zone-reply", 0)]
fn a_connection_in_a_zone_is_reported_once_and_in_it(#[case] option: &str, #[case] zone: u16) {
    if !privilege::granted("a_connection_in_a_zone_is_reported_once_and_in_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node1 = lab.node("node1").expect("a node");
    raw(node1, &format!("-A PREROUTING -j CT {option} 5"));
    let door = web_by_node1();
    let recorder = Recorder::start(node1, &[]);
    let answer = lab.connect(door, CONNECT_TIMEOUT).expect("answered");
    let (records, passages, _) = recorder.stop(answer.local);
    assert_eq!(each(&passages, "/conntrack"), ["entry", "entry"]);
    assert_eq!(each(&passages, "/identity/zone"), [zone, zone]);
    // The arrival was joined, though it knew no zone.
    assert!(
        each(&passages, "/arrival")
            .iter()
            .all(|arrival| arrival.is_object())
    );
    is_reported_once_as_lost(&records, &answer);
}

/// Goal: rewrites are followed from when conntrack's module comes. Method: the kernel's own types,
/// with those of conntrack in a module of their own, in a sysfs that is made for the test.
#[test]
fn a_module_that_is_loaded_later_is_followed() {
    if !privilege::granted("a_module_that_is_loaded_later_is_followed") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node1 = lab.node("node1").expect("a node");
    let door = web_by_node1();
    let sysfs = tempfile::tempdir().expect("a directory");
    let path = |name: &str| sysfs.path().join("kernel/btf").join(name);
    fs::create_dir_all(path("")).expect("a directory");
    let [kernel, module] = kernel_types::apart(Path::new("/sys/kernel/btf"));
    fs::write(path("vmlinux"), kernel).expect("a file");

    let recorder = Recorder::start(node1, &["--sysfs", sysfs.path().to_str().expect("UTF-8")]);
    let connect = || lab.connect(door, CONNECT_TIMEOUT).expect("answered");
    let word = |client| {
        let passages = poll_until(Duration::from_secs(2), || {
            let passages = recorder.passages(client);
            (!passages.is_empty()).then_some(passages)
        });
        passages.expect("it left by this node")[0]["conntrack"].clone()
    };
    assert_eq!(word(connect().local), "none", "nothing is known yet");

    fs::write(path("nf_conntrack"), module).expect("a file");
    fs::create_dir_all(sysfs.path().join("module/nf_conntrack")).expect("a directory");
    let followed = poll_until(Duration::from_secs(5), || {
        let answer = connect();
        (word(answer.local) == "entry").then_some(answer)
    });
    let followed = followed.expect("followed soon");
    let (records, _, stderr) = recorder.stop(followed.local);
    is_reported_once_as_lost(&records, &followed);
    for (line, times) in [
        (
            "connection tracking is a module, nf_conntrack, and not loaded",
            1,
        ),
        ("nf_conntrack is loaded now", 1),
    ] {
        assert_eq!(stderr.matches(line).count(), times, "{line}: {stderr}");
    }
}

fn is_reported_once_as_lost(records: &[Value], answer: &Answer) {
    let [record] = records else {
        panic!("reported once: {records:?}")
    };
    assert_eq!(record["outcome"], "answered");
    assert_eq!(record["source_ip"], "lost");
    assert_eq!(record["source_seen"]["ip"], json!(answer.peer_seen.ip()));
    assert_eq!(
        record["source_seen"]["port"],
        json!(answer.peer_seen.port())
    );
}
