//! `observer doctor`, on a node of the lab as on one that something is wrong with.
//!
//! Goal: what is there is found, what is not is missed, and nothing is guessed. Method: raise the
//! demo cluster, look, change one thing of the node, and look again.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    command, demo,
    lab::{Lab, LabNode},
    observer_process, privilege,
};

/// Nobody.
const UNPRIVILEGED: &str = "65534";

/// What doctor says of a node, as JSON, and with which exit code it ends.
fn doctor(node: &LabNode, more: &[&str]) -> (Value, Option<i32>) {
    doctor_as(&node.plan.name, node, more)
}

/// The same, of a node that believes to be another.
fn doctor_as(name: &str, node: &LabNode, more: &[&str]) -> (Value, Option<i32>) {
    let mut command = node
        .namespace
        .command(observer_process::binary().expect("an observer"));
    command
        .args(["doctor", "-o", "json", "--node", name])
        .arg("--cluster-state")
        .arg(demo::cluster_file())
        .args(more);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("runs");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(stderr, "", "what doctor has to say is its report");
    let report = serde_json::from_slice(&stdout).expect("JSON");
    (report, status.code())
}

/// The checks of a name: status and what was found.
fn checks<'a>(report: &'a Value, name: &str) -> Vec<(&'a str, &'a str)> {
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .filter(|check| check["name"] == name)
        .map(|check| {
            let text = |field: &str| check[field].as_str().expect("text");
            (text("status"), text("found"))
        })
        .collect()
}

fn has(report: &Value, name: &str, status: &str, found: &str) {
    let checks = checks(report, name);
    assert!(
        checks
            .iter()
            .any(|(its_status, its_found)| *its_status == status && its_found.contains(found)),
        "no {status} {name} with {found:?} among {checks:?}"
    );
}

fn node1(lab: &Lab) -> &LabNode {
    lab.node("node1").expect("a node")
}

/// Answers one request at kube-proxy's metrics port as kube-proxy's own server does, which no
/// package brings here.
fn answer_as_kube_proxy(node: &LabNode, mode: &'static str) {
    let serve = move || {
        let address: SocketAddr = ([127, 0, 0, 1], 10249).into();
        let listener = TcpListener::bind(address)?;
        Ok(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut request = [0; 512];
            let length = stream.read(&mut request).expect("a request");
            assert!(request[..length].starts_with(b"GET /proxyMode HTTP/1."));
            let answer = format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n\r\n{mode}",
                mode.len()
            );
            stream.write_all(answer.as_bytes()).expect("answered");
        })
    };
    node.namespace.spawn(serve).expect("a thread");
}

#[test]
fn a_node_that_is_well_is_told_so_and_one_that_is_not_what_it_lacks() {
    if !privilege::granted("a_node_that_is_well_is_told_so") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = node1(&lab);

    let (report, code) = doctor(node, &[]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["schema"], "observer.doctor/v1");
    assert_eq!(report["can_observe"], json!(true));
    let worse = report["checks"].as_array().expect("checks").iter();
    let worse: Vec<_> = worse.filter(|check| check["status"] != "ok").collect();
    assert!(worse.is_empty(), "{worse:?}");
    has(&report, "kube-proxy", "ok", "rules of its iptables mode");
    has(&report, "conntrack", "ok", "tracks IPv4 and IPv6");
    has(&report, "interfaces", "ok", "eth0 observed");
    has(&report, "interfaces", "ok", "lo not observed");
    has(&report, "node", "ok", "");

    answer_as_kube_proxy(node, "iptables");
    let (report, _) = doctor(node, &[]);
    has(&report, "kube-proxy", "ok", "iptables mode, and its rules");
    answer_as_kube_proxy(node, "nftables");
    let (report, code) = doctor(node, &[]);
    has(
        &report,
        "kube-proxy",
        "warning",
        "rules of iptables are here",
    );
    assert_eq!(code, Some(0), "a warning is no reason not to observe");

    let (report, code) = doctor_as("node9", node, &[]);
    has(&report, "node", "missing", "did you mean node1 or node2?");
    assert_eq!(code, Some(1));
}

#[test]
fn what_bypasses_connection_tracking_is_recognised() {
    if !privilege::granted("what_bypasses_connection_tracking_is_recognised") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = node1(&lab);
    let run = |line: &str| {
        let mut words = line.split(' ');
        let mut command = node.namespace.command(words.next().expect("a program"));
        command::run(command.args(words)).expect("done");
    };

    run("iptables-nft -t raw -A PREROUTING -p udp --dport 4789 -j NOTRACK");
    run("ip6tables-nft -t raw -A OUTPUT -p udp --dport 4789 -j CT --notrack");
    run("nft add table inet bypass");
    run("nft add chain inet bypass early { type filter hook prerouting priority -300; }");
    run("nft add rule inet bypass early ip daddr 169.254.20.10 notrack");
    let (report, _) = doctor(node, &[]);
    for place in ["ip raw PREROUTING", "ip6 raw OUTPUT", "inet bypass early"] {
        has(&report, "NOTRACK", "warning", place);
    }

    for (interface, found) in [
        ("cilium_host", "Cilium (interface cilium_host)"),
        ("bpfin.cali", "Calico's eBPF dataplane"),
        ("ovs-system", "Open vSwitch"),
    ] {
        let line = format!("link add {interface} type bridge");
        node.namespace.ip(&line).expect("an interface");
        let (report, code) = doctor(node, &[]);
        has(&report, "dataplane", "warning", found);
        assert_eq!(code, Some(0));
    }

    node.namespace
        .ip("link add kube-ipvs0 type bridge")
        .expect("an interface");
    let (report, _) = doctor(node, &[]);
    has(&report, "kube-proxy", "ok", "rules of its ipvs mode");
    run("nft add table ip kube-proxy");
    let (report, _) = doctor(node, &[]);
    has(&report, "kube-proxy", "warning", "nftables and ipvs");
}

#[test]
fn a_flowtable_is_recognised() {
    if !privilege::granted("a_flowtable_is_recognised") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = node1(&lab);
    let mut command = node.namespace.command("nft");
    let rules = "add table inet bypass; add flowtable inet bypass fast \
                 { hook ingress priority 0; devices = { eth0 }; }";
    // A kernel may be built without (CONFIG_NF_FLOW_TABLE): then none must be told of.
    let is_there = command::run(command.arg(rules)).is_ok();
    let (report, _) = doctor(node, &[]);
    if is_there {
        has(&report, "offload", "ok", "flowtable inet bypass fast");
    } else {
        assert_eq!(checks(&report, "offload"), []);
    }
}

#[test]
fn rules_of_the_legacy_tables_are_seen_too() {
    if !privilege::granted("rules_of_the_legacy_tables_are_seen_too") {
        return;
    }
    let namespace = tests::netns::Namespace::create("legacy").expect("a namespace");
    let ask = || {
        let mut command = namespace.command(observer_process::binary().expect("an observer"));
        let output = command.args(["doctor", "-o", "json"]).output();
        let report: Value = serde_json::from_slice(&output.expect("runs").stdout).expect("JSON");
        report
    };
    has(&ask(), "kube-proxy", "warning", "no rules of it are here");
    let used = |family: &str| {
        let list = format!("/proc/thread-self/net/{family}_tables_names");
        namespace.run(|| fs::read_to_string(&list)).expect("inside")
    };
    let before = used("ip").unwrap_or_default();
    assert_eq!(before, "", "looking must not create tables");

    // A kernel may be built without (CONFIG_IP_NF_IPTABLES_LEGACY): then none must be told of.
    let is_there = [
        "iptables-legacy -t nat -N KUBE-SERVICES",
        "iptables-legacy -t raw -A OUTPUT -p udp -j CT --notrack",
    ]
    .iter()
    .all(|line| {
        let mut words = line.split(' ');
        let mut command = namespace.command(words.next().expect("a program"));
        command::run(command.args(words)).is_ok()
    });
    let report = ask();
    if !is_there {
        has(&report, "kube-proxy", "warning", "no rules of it are here");
        return;
    }
    has(&report, "kube-proxy", "ok", "rules of its iptables mode");
    has(&report, "NOTRACK", "warning", "legacy");
}

#[test]
fn without_privilege_it_says_what_it_could_not_see() {
    if !privilege::granted("without_privilege_it_says_what_it_could_not_see") {
        return;
    }
    let lab = demo::raise().expect("raised");
    // Nobody may not reach a binary or a file below a developer's home.
    let directory = TempDir::new().expect("a directory");
    let observer = directory.path().join("observer");
    fs::copy(observer_process::binary().expect("an observer"), &observer).expect("copied");
    for path in [directory.path(), &observer] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("opened");
    }
    let mut command = node1(&lab).namespace.command("setpriv");
    command
        .args(["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED])
        .arg("--clear-groups")
        .arg(&observer)
        .args(["doctor", "-o", "json"]);
    let Output { status, stdout, .. } = command.output().expect("runs");
    let report: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!(status.code(), Some(1), "{report:#}");
    assert_eq!(report["can_observe"], json!(false));
    let lacks = "without CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN";
    has(&report, "capabilities", "missing", lacks);
    has(&report, "programs", "unseen", "");
    has(&report, "kube-proxy", "unseen", "");
    has(&report, "dataplane", "unseen", "");
    has(&report, "conntrack", "unseen", "");
    // What anybody may see is seen.
    has(&report, "kernel", "ok", "Linux");
    has(&report, "BTF", "ok", "");
    has(&report, "interfaces", "ok", "lo not observed");
}

#[test]
fn a_bundle_holds_what_was_seen_and_no_address() {
    if !privilege::granted("a_bundle_holds_what_was_seen_and_no_address") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("bundle.json");
    let node = node1(&lab);
    let (report, code) = doctor(node, &["--bundle", path.to_str().expect("text")]);
    assert_eq!(code, Some(0));
    let text = fs::read_to_string(&path).expect("a bundle");
    let bundle: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(bundle["report"], report);
    let facts = &bundle["facts"];
    assert!(facts["environment"]["release"].is_string(), "{facts:#}");
    // What the maps take: something, and less than may be asked of every node.
    let taken = |map: &str| facts["programs"]["Ok"][map].as_u64();
    let bytes = taken("all").expect("what maps take");
    assert!((1 << 20..32 << 20).contains(&bytes), "{facts:#}");
    // And as much as is asked for.
    let path = directory.path().join("sized.json");
    let mut arguments = vec!["--max-pending", "1024", "--ring-buffer-size", "4"];
    arguments.extend(["--bundle", path.to_str().expect("text")]);
    let (_, code) = doctor(node, &arguments);
    assert_eq!(code, Some(0));
    let other = fs::read(&path).expect("a bundle");
    let other: Value = serde_json::from_slice(&other).expect("JSON");
    let other = &other["facts"]["programs"]["Ok"];
    let ring_buffer = other["ring_buffer"].as_u64().expect("what it takes");
    assert!((4 << 20..5 << 20).contains(&ring_buffer), "{other:#}");
    assert!(other["pending"].as_u64() < taken("pending"), "{other:#}");
    assert_eq!(other["udp_flows"].as_u64(), taken("udp_flows"));

    let plan = lab.plan();
    let of_nodes = plan.nodes.iter().flat_map(|node| &node.addresses);
    let of_pods = plan.pods.iter().flat_map(|pod| &pod.addresses);
    let addresses: Vec<_> = of_nodes
        .chain(of_pods)
        .copied()
        .chain(lab.client_addresses())
        .collect();
    assert!(addresses.len() > 4);
    for address in addresses {
        assert!(!text.contains(&address.to_string()), "{address}: {text}");
    }
}

#[test]
fn people_get_a_line_for_each_thing() {
    if !privilege::granted("people_get_a_line_for_each_thing") {
        return;
    }
    let observer: &Path = &observer_process::binary().expect("an observer");
    let text = command::run(Command::new(observer).arg("doctor")).expect("it can observe here");
    assert!(text.contains("ok       kernel        Linux "), "{text}");
    assert!(text.contains("observing can work here"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "colour is for terminals: {text:?}"
    );
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{text}");
}
