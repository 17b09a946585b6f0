//! The image as a container with the privileges of the manifests: read-only root, three
//! capabilities, no new privileges, the runtime's seccomp profile, the memory limit.
//!
//! Method: make the image's root file system as the Dockerfile does, render an overlay, and have
//! runc run that on a node of the lab, which is what a kubelet and its container runtime do with
//! the same.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Output,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tests::{
    attached,
    child::{ChildGuard, poll_until},
    demo,
    deploy::{
        Tool,
        cluster::{ACCOUNT, Cluster},
        container::{Container, Setup},
        file, image,
        manifests::Manifests,
        roles, tools,
    },
    http,
    kubeproxy::doors::{Kind, Policy, front_doors},
    lab::Lab,
    netns::Namespace,
    observer_process::ObserverProcess,
    oracle::{self, Records},
    privilege,
    traffic::{self, from_outside},
};

/// Of the agent's roles.
const NAME: &str = "source-ip-observer";
/// Where an agent is asked.
const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9807);
/// Longer than the answer time-out, and than the kernel takes to free programs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What each test needs.
struct Deployed {
    lab: Lab,
    root: TempDir,
    seccomp_profile: PathBuf,
    kubectl: PathBuf,
}

impl Deployed {
    fn prepare(test: &str) -> Option<Self> {
        let [kubectl, seccomp_profile] = tools(test, [Tool::Kubectl, Tool::SeccompProfile])?;
        if !privilege::granted(test) {
            return None;
        }
        Some(Self {
            lab: demo::raise().expect("raised"),
            root: image::root().expect("a root file system"),
            seccomp_profile,
            kubectl,
        })
    }

    fn overlay(&self, name: &str) -> Manifests {
        let folder = file("overlays").join(name);
        Manifests::render(&self.kubectl, &folder).expect("rendered")
    }

    /// A container on node1 that runs the observer with other arguments.
    fn observer(&self, arguments: &[&str]) -> Setup<'_> {
        let own = ["observer"].iter().chain(arguments);
        Setup {
            root: self.root.path(),
            seccomp_profile: &self.seccomp_profile,
            node: "node1",
            namespace: &self.lab.node("node1").expect("a node").namespace,
            shown: vec![(demo::cluster_file(), demo::cluster_file())],
            instead: Some(own.map(ToString::to_string).collect()),
            more: Vec::new(),
            environment: Vec::new(),
            without: None,
        }
    }

    /// What doctor says in a container of an overlay, perhaps without a capability.
    fn doctor(&self, overlay: &str, without: Option<&str>) -> Value {
        let objects = demo::cluster_file();
        let objects = objects.to_str().expect("text");
        let setup = Setup {
            without,
            ..self.observer(&["doctor", "-o", "json", "--cluster-state", objects])
        };
        let output = output(&self.overlay(overlay), &setup);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

fn output(manifests: &Manifests, setup: &Setup<'_>) -> Output {
    let container = Container::new(manifests, setup).expect("a container");
    container.command().output().expect("runs")
}

/// What is attached on node1.
fn attached(lab: &Lab) -> BTreeSet<u32> {
    attached::programs(&lab.node("node1").expect("a node").namespace).expect("lists programs")
}

/// What an agent remembers of connections.
fn connections(namespace: &Namespace) -> Vec<Value> {
    let answer = http::get(namespace, API, "/v1/connections", &[]).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let lines = answer.body.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

/// The checks of a report that are not ok, with what was found.
fn worse(report: &Value) -> Vec<(&str, &str, &str)> {
    let checks = report["checks"].as_array().expect("checks").iter();
    checks
        .filter(|check| check["status"] != "ok")
        .map(|check| {
            let text = |field: &str| check[field].as_str().unwrap_or_default();
            (text("name"), text("status"), text("found"))
        })
        .collect()
}

#[test]
fn the_image_holds_all_that_the_observer_needs() {
    let Some(deployed) = Deployed::prepare("the_image_holds_all_that_the_observer_needs") else {
        return;
    };
    let manifests = deployed.overlay("capabilities");
    let version = output(&manifests, &deployed.observer(&["--version"]));
    assert!(version.stdout.starts_with(b"observer "), "{version:?}");
}

/// A name of /etc/hosts, and one that a DNS server knows: by each the observer finds its way to an
/// API server.
#[test]
fn names_are_resolved_in_the_image() {
    let Some(deployed) = Deployed::prepare("names_are_resolved_in_the_image") else {
        return;
    };
    let manifests = deployed.overlay("capabilities");
    let namespace = &deployed.lab.node("node1").expect("a node").namespace;
    namespace.spawn(dns).expect("a DNS server");
    let folder = TempDir::new().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let hosts = file("hosts", "127.0.0.1 by-hosts.test\n");
    let resolv = file("resolv.conf", "nameserver 127.0.0.1\n");
    for name in ["by-hosts.test", "by-dns.test"] {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("inside").expect("listens");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("an address").port();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{name}:{port}")}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        let kubeconfig = file("kubeconfig", &kubeconfig.to_string());
        let setup = Setup {
            shown: vec![
                (hosts.clone(), "/etc/hosts".into()),
                (resolv.clone(), "/etc/resolv.conf".into()),
                (kubeconfig, "/kubeconfig".into()),
            ],
            ..deployed.observer(&["explain", "--kubeconfig", "/kubeconfig"])
        };
        let container = Container::new(&manifests, &setup).expect("a container");
        let _killed_when_asked = ChildGuard::new(container.command().spawn().expect("runs"));
        let asked = poll_until(PATIENCE, || listener.accept().ok());
        let (mut stream, _) = asked.unwrap_or_else(|| panic!("{name} leads nowhere"));
        stream.set_nonblocking(false).expect("set");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut asked = [0; 1024];
        let length = stream.read(&mut asked).expect("a request");
        let asked = String::from_utf8_lossy(&asked[..length]);
        assert!(asked.contains(&format!("host: {name}:{port}")), "{asked}");
    }
}

/// A DNS server (RFC 1035) that answers whoever asks: 127.0.0.1. It ends when nobody asks any more.
fn dns() -> anyhow::Result<impl FnOnce()> {
    let socket = UdpSocket::bind("127.0.0.1:53")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let question = &query[12..length];
            let name = question.iter().position(|byte| *byte == 0).expect("a name");
            let question = &question[..name + 5];
            let asks_for_ipv4 = question[name + 1..].starts_with(&[0, 1]);
            let answers = u8::from(asks_for_ipv4);
            let mut answer = query[..2].to_vec();
            // A response without an error, to one question.
            answer.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
            answer.extend(question);
            if asks_for_ipv4 {
                // The name of the question, type A, class IN, a minute, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, from).expect("answered");
        }
    })
}

#[test]
fn a_container_of_either_overlay_can_observe() {
    let Some(deployed) = Deployed::prepare("a_container_of_either_overlay_can_observe") else {
        return;
    };
    let privileged = deployed.doctor("privileged", None);
    assert_eq!(worse(&privileged), []);
    assert_eq!(privileged["can_observe"], true);
    // All that CAP_SYS_ADMIN would add: to see the BPF programs of others.
    let least = deployed.doctor("capabilities", None);
    assert_eq!(
        worse(&least),
        [(
            "dataplane",
            "unseen",
            "no interface of one that bypasses conntrack; BPF programs or rules could not be listed"
        )]
    );
    assert_eq!(least["can_observe"], true);
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let Some(deployed) = Deployed::prepare("a_capability_that_is_missing_is_named") else {
        return;
    };
    for capability in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        let report = deployed.doctor("capabilities", Some(capability));
        assert_eq!(report["can_observe"], false);
        let named = format!("without {capability}");
        let worse = worse(&report);
        assert!(
            worse.contains(&("capabilities", "missing", &named)),
            "{worse:?}"
        );
    }
}

/// As those of runtimes before containerd 1.6.9 and CRI-O 1.31 do, whatever the capabilities.
#[test]
fn a_seccomp_profile_that_refuses_bpf_is_told() {
    let Some(mut deployed) = Deployed::prepare("a_seccomp_profile_that_refuses_bpf_is_told") else {
        return;
    };
    let profile = fs::read_to_string(&deployed.seccomp_profile).expect("a profile");
    let mut profile: Value = serde_json::from_str(&profile).expect("JSON");
    let rules = profile["syscalls"].as_array_mut().expect("rules");
    for rule in rules.iter_mut() {
        let names = rule["names"].as_array_mut().expect("names");
        names.retain(|name| name != "bpf");
    }
    rules.retain(|rule| rule["names"] != json!([]));
    rules.push(json!({"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
    let older = NamedTempFile::new().expect("a file");
    fs::write(older.path(), profile.to_string()).expect("written");
    deployed.seccomp_profile = older.path().to_owned();

    let report = deployed.doctor("capabilities", None);
    assert_eq!(report["can_observe"], false);
    let checks = report["checks"].as_array().expect("checks");
    let programs = checks.iter().find(|check| check["name"] == "programs");
    let programs = programs.expect("a check");
    assert_eq!(programs["status"], "missing", "{programs}");
    let remedy = programs["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("seccomp"), "{remedy}");
}

/// The whole of it, as in a cluster: the agent with the arguments of the manifest alone finds the API
/// server by what a kubelet gives to every pod, asks for nothing that its roles do not allow, judges
/// real connections as the sockets of both ends saw them, and leaves nothing behind.
#[test]
fn a_container_of_either_overlay_observes_and_leaves_nothing() {
    let Some(deployed) =
        Deployed::prepare("a_container_of_either_overlay_observes_and_leaves_nothing")
    else {
        return;
    };
    let lab = &deployed.lab;
    let node = lab.node("node1").expect("a node");
    let cluster = Cluster::start(node, lab.kube_proxy()).expect("a cluster");
    // Of these connections no other node sees anything.
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| {
        door.entry == "node1" && door.kind == Kind::NodePort && door.policy == Policy::Local
    });
    for overlay in ["capabilities", "privileged"] {
        let manifests = deployed.overlay(overlay);
        let setup = Setup {
            shown: vec![(cluster.account().to_owned(), ACCOUNT.into())],
            environment: cluster.environment(),
            instead: None,
            ..deployed.observer(&[])
        };
        let container = Container::new(&manifests, &setup).expect("a container");
        let agent = ObserverProcess::by(container.command()).expect("an agent");
        let ready = || http::get(setup.namespace, API, "/readyz", &[]).ok();
        let is_ready = || {
            ready()
                .is_some_and(|ready| ready.status == 200)
                .then_some(())
        };
        assert!(poll_until(PATIENCE, is_ready).is_some(), "{:?}", ready());
        let programs = attached(lab);
        assert!(!programs.is_empty());

        let opened = traffic::open(lab, &from_outside(lab, &doors)).expect("opened");
        assert!(opened.iter().any(|opened| opened.result.is_ok()));
        let all = || {
            let records = connections(setup.namespace);
            (records.len() >= opened.len()).then_some(records)
        };
        let records = poll_until(PATIENCE, all).expect("every connection is told of");
        let records = Records::from([("node1".to_owned(), records)]);
        let report = oracle::judge(lab, &opened, records);
        let complaints = report.complaints();
        let complaints: Vec<_> = complaints.iter().map(ToString::to_string).collect();
        assert_eq!(complaints, [] as [&str; 0], "{overlay}");

        let finished = agent.stop_by(Signal::SIGTERM).expect("stops");
        assert!(finished.status.success(), "{overlay}: {}", finished.stderr);
        assert_eq!(attached(lab), BTreeSet::new());
        let is_gone = || {
            attached::surviving_programs(&programs)
                .is_empty()
                .then_some(())
        };
        poll_until(PATIENCE, is_gone).expect("its programs are gone");

        let requests = cluster.requests();
        assert!(!requests.is_empty());
        for request in requests {
            let rules = roles::allowing(&manifests, NAME, &request);
            assert_eq!(rules, 1, "{overlay}: {request}");
        }
    }
}
