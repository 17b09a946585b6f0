//! How long `observer explain` takes for a large cluster, and how much memory.
//!
//! Goal: 5,000 Services, 50,000 endpoints and 200 Nodes in under two seconds; a second figure with
//! a Pod for each endpoint. Method: a file of such objects as kubectl prints them, the command
//! run a few times, its clock and its peak.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::observer_process;

const SERVICES: usize = 5_000;
const ENDPOINTS_PER_SERVICE: usize = 10;
const NODES: usize = 200;
/// What an optimised observer may take.
const WITHIN: Duration = Duration::from_secs(2);
/// The quickest of them counts: others use the machine too.
const TRIES: usize = 3;
/// What it may take at the very most, in KiB: the system gives it no more, so that a mistake costs
/// this test and not the machine.
const KIBIBYTES_MAX: u64 = 3 << 20;
/// As long at the very most, whatever it was built for.
const LONGEST: Duration = Duration::from_mins(5);
/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// As the API server keeps it: with what nobody here reads.
fn metadata(name: &str, namespace: Option<&str>) -> Value {
    json!({
        "name": name, "namespace": namespace, "uid": "6d9b7d1e-9f4e-4f0e-8a61-9f9d0a0b7c55",
        "creationTimestamp": "2026-11-25T12:00:00Z", "resourceVersion": "123456",
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": name},
    })
}

fn node_name(number: usize) -> String {
    format!("ip-172-30-{number}.example.internal")
}

fn service(number: usize) -> Value {
    let name = format!("service-{number}");
    let ip = format!("10.97.{}.{}", number / 250, number % 250 + 1);
    let (kind, policy) = match number % 3 {
        0 => ("LoadBalancer", "Local"),
        1 => ("NodePort", "Cluster"),
        _ => ("ClusterIP", ""),
    };
    let mut port = json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080});
    let mut spec = json!({
        "type": kind, "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
        "internalTrafficPolicy": "Cluster", "selector": {"app.kubernetes.io/name": name},
    });
    if kind != "ClusterIP" {
        port["nodePort"] = json!(1_024 + number);
        spec["externalTrafficPolicy"] = json!(policy);
    }
    spec["ports"] = json!([port]);
    let mut status = json!({"loadBalancer": {}});
    if kind == "LoadBalancer" {
        spec["healthCheckNodePort"] = json!(40_000 + number);
        let ip = format!("198.18.{}.{}", number / 250, number % 250 + 1);
        status["loadBalancer"]["ingress"] = json!([{"ip": ip, "ipMode": "VIP"}]);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(&name, Some("large")),
        "spec": spec, "status": status,
    })
}

fn pod_ip(number: usize) -> String {
    format!(
        "10.{}.{}.{}",
        128 + number / 62_500,
        number / 250 % 250,
        number % 250 + 1
    )
}

fn pod_name(number: usize) -> String {
    format!(
        "service-{}-7f9c6d5b8-{number:05}",
        number / ENDPOINTS_PER_SERVICE
    )
}

fn slice(service: usize) -> Value {
    let mut metadata = metadata(&format!("service-{service}-x7k2p"), Some("large"));
    metadata["labels"]["kubernetes.io/service-name"] = json!(format!("service-{service}"));
    let endpoint = |index: usize| {
        let number = service * ENDPOINTS_PER_SERVICE + index;
        json!({
            "addresses": [pod_ip(number)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node_name(number % NODES), "zone": "eu-central-1a",
            "targetRef": {"kind": "Pod", "namespace": "large", "name": pod_name(number)},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS_PER_SERVICE).map(endpoint).collect::<Vec<_>>(),
    })
}

fn node(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata(&node_name(number), None),
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 128 + number / 250, number % 250)},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.{number}.1")}]},
    })
}

fn pod(number: usize) -> Value {
    let ip = pod_ip(number);
    let host = format!("172.30.{}.1", number % NODES);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(&pod_name(number), Some("large")),
        "spec": {
            "nodeName": node_name(number % NODES), "dnsPolicy": "ClusterFirst",
            "containers": [{
                "name": "web", "image": "registry.example/web:1",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "100m"}},
            }],
        },
        "status": {
            "phase": "Running", "hostIP": host, "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn written(items: impl Iterator<Item = Value>, path: &Path) {
    let mut file = std::io::BufWriter::new(File::create(path).expect("a file"));
    let mut write = |text: &str| file.write_all(text.as_bytes()).expect("written");
    write("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [");
    for (number, item) in items.enumerate() {
        if number > 0 {
            write(",\n");
        }
        write(&item.to_string());
    }
    write("]}");
}

/// What the children of this process have taken of the processor.
fn taken() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("this process has children");
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros(time.num_microseconds().cast_unsigned()));
    user + system
}

/// How long it took of the processor, and by the clock; and its peak in MiB.
fn explained(state: &Path, output: &Path) -> (Duration, Duration, u64) {
    let (begun, before) = (Instant::now(), taken());
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -v {KIBIBYTES_MAX} && exec \"$0\" \"$@\""),
        ])
        .arg(observer_process::binary().expect("an observer"))
        .args(["explain", "-o", "json", "--cluster-state"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(File::create(output).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        // It only grows; what is read last is less than a look away from the peak.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        peak = number.and_then(|it| it.parse().ok()).unwrap_or(peak);
        if begun.elapsed() > LONGEST {
            child.kill().expect("a child");
            child.wait().expect("a child");
            panic!("it took longer than {LONGEST:?}, and {peak} KiB");
        }
        thread::sleep(LOOK);
    };
    let took = begun.elapsed();
    let worked = taken().saturating_sub(before);
    assert!(ended.success(), "{ended}");
    let printed = fs::metadata(output).expect("what it printed").len();
    assert!(printed > 1 << 20, "it printed {printed} bytes");
    (worked, took, peak / 1_024)
}

#[test]
fn a_large_cluster_is_explained_in_time() {
    let directory = TempDir::new().expect("a directory");
    let output = directory.path().join("explained.json");
    let endpoints = SERVICES * ENDPOINTS_PER_SERVICE;
    let base = || {
        let services = (0..SERVICES).map(service);
        let slices = (0..SERVICES).map(slice);
        services.chain(slices).chain((0..NODES).map(node))
    };
    let without = directory.path().join("without.json");
    let with = directory.path().join("with.json");
    written(base(), &without);
    written(base().chain((0..endpoints).map(pod)), &with);
    let binary = observer_process::binary().expect("an observer");
    let is_optimised = !binary.components().any(|part| part.as_os_str() == "debug");
    for (state, more, within) in [
        (&without, "", Some(WITHIN)),
        (&with, ", and as many Pods", None),
    ] {
        let tries = (0..TRIES).map(|_| explained(state, &output));
        let (worked, took, peak) = tries.min().expect("tried");
        let size = fs::metadata(state).expect("a file").len() >> 20;
        let told = format!(
            "{SERVICES} Services, {endpoints} endpoints, {NODES} Nodes{more} ({size} MiB): {:.2} s, \
             {:.2} s of them at work, {peak} MiB at most\n",
            took.as_secs_f64(),
            worked.as_secs_f64()
        );
        std::io::stderr()
            .write_all(told.as_bytes())
            .expect("stderr");
        if is_optimised && let Some(within) = within {
            // By the clock it is no more on a machine that is not busy with something else.
            assert!(worked < within, "{told}");
        }
    }
}
