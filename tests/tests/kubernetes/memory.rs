//! What a large cluster takes: measured on an agent that follows one.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};
use tests::privilege;

use super::follow::Followed;

const SERVICES: usize = 5_000;
const SLICES: usize = 500;
/// As many as a slice has at most (`discovery.k8s.io` validation; controllers fill 100).
const ENDPOINTS_PER_SLICE: usize = 100;
const NODES: usize = 200;
/// How much an agent may take, in MiB.
const MEBIBYTES_MAX: u64 = 150;
/// How often the cluster changes while it is watched.
const CHANGES: usize = 20;

/// As the API server keeps it: with what nobody here reads.
fn metadata(name: &str, namespace: Option<&str>) -> Value {
    json!({
        "name": name, "namespace": namespace, "uid": "6d9b7d1e-9f4e-4f0e-8a61-9f9d0a0b7c55",
        "creationTimestamp": "2026-11-25T12:00:00Z", "generation": 1,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": name, "checksum/config": "c0ffee".repeat(10)},
        "managedFields": [{
            "manager": "helm", "operation": "Update", "apiVersion": "v1",
            "time": "2026-11-25T12:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {}}, "f:spec": {"f:ports": {}}},
        }],
    })
}

fn service(number: usize) -> Value {
    let name = format!("service-{number}");
    let octets = (number / 250, number % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(&name, Some("large")),
        "spec": {
            "type": "NodePort", "externalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "clusterIP": format!("10.97.{}.{}", octets.0, octets.1),
            "clusterIPs": [format!("10.97.{}.{}", octets.0, octets.1)],
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http",
                       "nodePort": 1_024 + number}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(number: usize) -> Value {
    let name = format!("service-{number}-x7k2p");
    let mut metadata = metadata(&name, Some("large"));
    metadata["labels"]["kubernetes.io/service-name"] = json!(format!("service-{number}"));
    let endpoint = |index: usize| {
        let all = number * ENDPOINTS_PER_SLICE + index;
        json!({
            "addresses": [format!("10.{}.{}.{}", 128 + all / 62_500, all / 250 % 250, all % 250 + 1)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("ip-172-31-{}.example.internal", all % NODES),
            "zone": "eu-central-1a",
            "targetRef": {
                "kind": "Pod", "namespace": "large",
                "name": format!("service-{number}-7f9c6d5b8-{index:05}"),
                "uid": "6d9b7d1e-9f4e-4f0e-8a61-9f9d0a0b7c55",
            },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS_PER_SLICE).map(endpoint).collect::<Vec<_>>(),
    })
}

fn node(number: usize) -> Value {
    let name = format!("ip-172-31-{number}.example.internal");
    let images: Vec<_> = (0..50)
        .map(|image| json!({"names": [format!("registry.example/{image}@sha256:0")], "sizeBytes": 1}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata(&name, None),
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 128 + number / 250, number % 250)},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("172.30.{number}.1")}],
            "images": images,
        },
    })
}

/// Of `/proc/PID/status`, in MiB.
fn mebibytes(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: u64 = kibibytes.expect("a field").parse().expect("a number");
    kibibytes / 1_024
}

#[test]
fn a_large_cluster_fits() {
    if !privilege::granted("a_large_cluster_fits") {
        return;
    }
    let items: Vec<Value> = (0..SERVICES)
        .map(service)
        .chain((0..SLICES).map(slice))
        .chain((0..NODES).map(node))
        .collect();
    for streaming_lists in [false, true] {
        let followed = Followed::of(&items, streaming_lists, |_| {});
        followed.until_ready();
        followed.until_it_knows("Service", SERVICES);
        let process = followed.agent_id();
        let at_first = mebibytes(process, "VmRSS:");
        // Old indexes and new ones are there at the same time.
        for change in 0..CHANGES {
            let mut changed = slice(change);
            changed["endpoints"][0]["conditions"]["ready"] = json!(false);
            let before = followed.rebuilds();
            followed.server.put(changed);
            followed.until("another index", |it| it.rebuilds() > before);
        }
        thread::sleep(Duration::from_millis(500));
        let later = mebibytes(process, "VmRSS:");
        let most = mebibytes(process, "VmHWM:");
        let told = format!(
            "{SERVICES} Services, {} endpoints, {NODES} Nodes, {}: {at_first} MiB at first, {later} \
             MiB after {CHANGES} changes, {most} MiB at most",
            SLICES * ENDPOINTS_PER_SLICE,
            if streaming_lists {
                "streamed"
            } else {
                "in pages"
            },
        );
        std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes())
            .expect("stderr");
        assert!(most <= MEBIBYTES_MAX, "{told}");
    }
}
