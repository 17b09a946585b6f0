//! The command as a user meets it, where only a live run shows: when it ends, what it needs, and
//! what it reports that nobody asks about.
//!
//! Method: observe a node of the demo cluster with the options in question, connect, and look at
//! what was printed and how the run ended.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    child::{ChildGuard, poll_until},
    client::{self, Failure},
    demo,
    kubeproxy::{
        Settings,
        doors::{FrontDoor, Kind, front_doors},
    },
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::{self, Finished, ObserverProcess, READY},
    privilege,
    traffic::{self, CONNECT_TIMEOUT, from_outside},
};

/// The exit status with `--fail-on`, when it is met.
const FOUND: i32 = 3;
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The front doors of a node that are meant for clients outside.
fn doors(lab: &Lab, node: &str) -> Vec<FrontDoor> {
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors
        .into_iter()
        .filter(|door| door.entry == node && door.kind != Kind::ClusterIp)
        .collect()
}

#[test]
fn a_live_run_ends_when_its_reader_has_gone() {
    if !privilege::granted("a_live_run_ends_when_its_reader_has_gone") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut command = node
        .namespace
        .command(observer_process::binary().expect("an observer"));
    command
        .args(["trace", "--node", "node1", "--cluster-state"])
        .arg(demo::cluster_file())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let stdout = child.stdout.take().expect("a pipe");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut child = ChildGuard::new(child);
    let mut ready = String::new();
    stderr.read_line(&mut ready).expect("readiness");
    assert!(ready.starts_with(READY), "{ready}");
    let doors = doors(&lab, "node1");
    let ways = from_outside(&lab, &doors);
    traffic::open(&lab, &ways[..1]).expect("opened");
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(1, stdout);
    stdout.read_line(&mut line).expect("a line");
    assert!(line.contains(" → "), "{line}");

    // No other connection comes; that nobody reads any more must be noticed all the same.
    drop(stdout);
    let status = child.wait(END_TIMEOUT).expect("waited for");
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let said: Vec<_> = stderr.lines().map(|line| line.expect("text")).collect();
    assert!(
        !said.iter().any(|line| line.starts_with("observer:")),
        "{said:?}"
    );
}

/// Its rules are other than those that are expected without a word of its configuration.
#[test]
fn ipvs_mode_must_be_told() {
    if !privilege::granted("ipvs_mode_must_be_told") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let said = |arguments: &[&str]| {
        let observer = ObserverProcess::start(node, &demo::cluster_file(), arguments);
        let finished = observer.expect("observes").stop().expect("stops");
        finished.stderr.contains("kube-ipvs0 is here")
    };
    assert!(!said(&[]), "it is not");
    node.namespace
        .ip("link add kube-ipvs0 type bridge")
        .expect("a link of that name");
    assert!(said(&[]));
    let directory = TempDir::new().expect("a directory");
    let config = directory.path().join("config");
    fs::write(&config, "kind: KubeProxyConfiguration\nmode: ipvs\n").expect("written");
    let config = config.to_str().expect("text");
    assert!(!said(&["--kube-proxy-config", config]), "it is told");
}

#[test]
fn a_live_run_counts_and_fails_on_what_it_printed() {
    if !privilege::granted("a_live_run_counts_and_fails_on_what_it_printed") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let arguments = ["shop/web", "--lost", "--count", "1", "--fail-on", "lost"];
    let observer =
        ObserverProcess::start(node, &demo::cluster_file(), &arguments).expect("observes");
    let ways = from_outside(&lab, &doors(&lab, "node1"));
    traffic::open(&lab, &ways).expect("opened");
    let process = format!("/proc/{}/stat", observer.id());
    let ended = poll_until(END_TIMEOUT, || {
        // Nobody waits for it yet: a process that has ended stays as a zombie.
        let stat = fs::read_to_string(&process).ok()?;
        stat.contains(") Z ").then_some(())
    });
    assert!(ended.is_some(), "it does not end after --count connections");
    let finished = observer.stop_by(Signal::SIGKILL).expect("ended");
    assert_eq!(finished.status.code(), Some(FOUND), "{}", finished.stderr);
    let [record] = &finished.records[..] else {
        panic!("one was asked for, not: {:?}", finished.records)
    };
    assert_eq!(record["service"]["name"], "web");
    assert_eq!(record["source_ip"], "lost");
}

/// A configuration that kube-proxy does not run with: what a pod meets is not what follows from
/// it, what a client outside meets is.
#[test]
fn what_was_not_predicted_is_found() {
    if !privilege::granted("what_was_not_predicted_is_found") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let directory = TempDir::new().expect("a directory");
    let configuration = directory.path().join("kube-proxy.yaml");
    let text = "kind: KubeProxyConfiguration\nmode: iptables\nclusterCIDR: 10.244.0.0/16\n\
                iptables:\n  masqueradeAll: true\n";
    fs::write(&configuration, text).expect("written");
    let pod = lab.pods().iter().find(|pod| pod.plan.node == "node1");
    let pod = &pod.expect("a pod").namespace;
    let node = lab.node("node1").expect("a node");
    let web = |door: &&FrontDoor| door.service == "web" && door.to.is_ipv4();
    let inside = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let mut inside = inside.iter().filter(web);
    let inside = inside.find(|door| door.kind == Kind::ClusterIp);
    let inside = inside.expect("a cluster IP").to;
    let outside: Vec<_> = doors(&lab, "node1").iter().filter(web).cloned().collect();

    let configuration = configuration.to_str().expect("text");
    let arguments = [
        "--kube-proxy-config",
        configuration,
        "--fail-on",
        "unexpected",
    ];
    let arguments = [&arguments[..], &["--unexpected"]].concat();
    let observer =
        ObserverProcess::start(node, &demo::cluster_file(), &arguments).expect("observes");
    traffic::open(&lab, &from_outside(&lab, &outside)).expect("opened");
    client::connect(pod, inside, CONNECT_TIMEOUT).expect("answered");
    let finished = observer.stop().expect("ended");
    let [record] = &finished.records[..] else {
        panic!("one was not predicted, not: {:?}", finished.records)
    };
    assert_eq!(record["front_door"]["ip"], json!(inside.ip()));
    assert_eq!(record["expected"]["source_ip"], "lost");
    assert_eq!(record["as_expected"], json!(false));
    assert_eq!(finished.status.code(), Some(FOUND), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("more not asked for"),
        "{}",
        finished.stderr
    );
}

#[test]
fn what_nobody_asks_about_is_reported_with_all_alone() {
    if !privilege::granted("what_nobody_asks_about_is_reported_with_all_alone") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let pod = lab.pods().first().expect("a pod");
    let node = lab.node(&pod.plan.node).expect("its node");
    let of_family = |ip: &IpAddr| ip.is_ipv4() == pod.plan.addresses[0].is_ipv4();
    let outside = lab.client_addresses().into_iter().find(of_family);
    let outside = outside.expect("an address");
    let connect = |lab: &Lab| {
        let pod = lab.pods().first().expect("a pod");
        // Nobody listens there: an answer all the same.
        let failed = client::connect(&pod.namespace, (outside, 9).into(), CONNECT_TIMEOUT);
        assert!(
            matches!(
                failed.expect_err("nobody listens").failure,
                Failure::Refused
            ),
            "a pod can reach the outside"
        );
    };
    let leaves = |record: &Value| record["front_door"]["ip"] == json!(outside);
    for (arguments, reported) in [(&[][..], 0), (&["--all"], 1)] {
        let observer =
            ObserverProcess::start(node, &demo::cluster_file(), arguments).expect("observes");
        connect(&lab);
        let finished = observer.stop().expect("ended");
        let records = finished.records.iter().filter(|record| leaves(record));
        assert_eq!(
            records.count(),
            reported,
            "{arguments:?}: {}",
            finished.stderr
        );
    }
}

/// Three capabilities are enough; which, the error tells who has fewer.
#[test]
fn nobody_with_three_capabilities_can_observe() {
    if !privilege::granted("nobody_with_three_capabilities_can_observe") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    // Nobody may not reach a binary or a file below a developer's home.
    let directory = TempDir::new().expect("a directory");
    let observer = directory.path().join("observer");
    fs::copy(observer_process::binary().expect("an observer"), &observer).expect("copied");
    for path in [directory.path(), &observer] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("opened");
    }
    let capabilities = "+bpf,+perfmon,+net_admin";
    let mut command = node.namespace.command("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
        .arg(&observer)
        .args(["trace", "--node", "node1", "--duration", "1s"]);
    let Output { status, stderr, .. } = command.output().expect("runs");
    let stderr = String::from_utf8(stderr).expect("text");
    assert!(status.success(), "{stderr}");
    assert!(stderr.contains(READY), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
}

/// Without a file and without a `ConfigMap`, the node's own kube-proxy is asked: here, for what
/// nothing else tells.
#[test]
fn kube_proxy_is_asked_for_its_configuration() {
    if !privilege::granted("kube_proxy_is_asked_for_its_configuration") {
        return;
    }
    let kube_proxy = Settings {
        masquerade_all: true,
        ..Settings::default()
    };
    let options = Options {
        kube_proxy,
        ..Options::default()
    };
    let lab = demo::raise_with(options).expect("raised");
    let node = lab.node("node1").expect("a node");
    let pod = lab.pods().iter().find(|pod| pod.plan.node == "node1");
    let pod = &pod.expect("a pod").namespace;
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let mut doors = doors.iter();
    let far = doors.find(|door| door.kind == Kind::ClusterIp && door.service == "far");
    let far = far.expect("a cluster IP").to;
    let observed = |expected: [Value; 2]| {
        let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
        client::connect(pod, far, CONNECT_TIMEOUT).expect("answered");
        let Finished {
            records, stderr, ..
        } = observer.stop().expect("stops");
        let [record] = &records[..] else {
            panic!("one connection was opened: {records:?}")
        };
        let cause = ["/cause/code", "/cause/basis"];
        let cause = cause.map(|field| record.pointer(field).cloned().unwrap_or_default());
        assert_eq!(cause, expected, "{record}");
        stderr
    };
    let stderr = observed([json!("unknown"), json!("observed")]);
    assert!(!stderr.contains("10249"), "{stderr}");

    let served = json!({"kubeproxy.config.k8s.io": {
        "Linux": {"MasqueradeAll": true}, "Mode": "iptables", "DetectLocalMode": "ClusterCIDR",
        "DetectLocal": {"ClusterCIDRs": ["10.244.0.0/16"]},
    }});
    serve(&node.namespace, "127.0.0.1:10249", served.to_string(), 2);
    let stderr = observed([json!("masquerade-all"), json!("config")]);
    assert!(stderr.contains("serves at 127.0.0.1:10249"), "{stderr}");

    serve(&node.namespace, "127.0.0.1:10249", "nothing".to_owned(), 2);
    let stderr = observed([json!("unknown"), json!("observed")]);
    assert!(stderr.contains("warning: kube-proxy at"), "{stderr}");
}

/// Answers so many requests, whatever they ask for.
fn serve(namespace: &Namespace, at: &'static str, body: String, requests: usize) {
    let prepare = move || {
        let listener = TcpListener::bind(at)?;
        Ok(move || {
            for connection in listener.incoming().take(requests) {
                let mut connection = connection.expect("a request");
                // The head of a request is short, and comes at once.
                let _request = connection.read(&mut [0; 1024]).expect("read");
                write!(connection, "HTTP/1.0 200 OK\r\n\r\n{body}").expect("answered");
            }
        })
    };
    namespace.spawn(prepare).expect("serves");
}
