//! Trimmed objects give the index that whole ones give.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::proptest;
use serde_json::{Value, json};

use super::super::{Index, KubeProxy, Objects, Protocol, Slice, SliceRef, Trim, View};
use super::hostile::spoiled;
use super::{endpoint, node, objects, pod, service, slice};

fn trimmed(objects: Objects) -> Objects {
    fn all<K: Trim>(objects: Vec<K>) -> Vec<K> {
        objects.into_iter().map(K::trimmed).collect()
    }
    Objects {
        services: all(objects.services),
        endpoint_slices: all(objects.endpoint_slices),
        nodes: all(objects.nodes),
        pods: all(objects.pods),
        config_maps: all(objects.config_maps),
        ..objects
    }
}

fn nothing_is_lost(objects: &Objects) {
    let kept = trimmed(objects.clone());
    assert_eq!(Index::build(&kept), Index::build(objects));
    assert_eq!(trimmed(kept.clone()), kept);
    // As they are kept while they are followed.
    let slices = objects.endpoint_slices.iter().map(Slice::from);
    let slices: Vec<_> = slices.map(Slice::trimmed).collect();
    let mut view = View::from(objects);
    view.endpoint_slices = slices.iter().map(SliceRef::Read).collect();
    assert_eq!(Index::build(view), Index::build(objects));
    let written = slices.iter().map(EndpointSlice::from).collect();
    let written = Objects {
        endpoint_slices: written,
        ..objects.clone()
    };
    assert_eq!(Index::build(&written), Index::build(objects));

    let kube_proxy = |objects: &Objects| {
        KubeProxy::of_cluster(&objects.config_maps).map_err(|error| error.to_string())
    };
    assert_eq!(kube_proxy(&kept), kube_proxy(objects));
}

#[test]
fn recorded_objects_lose_nothing() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clusters");
    let mut files: Vec<PathBuf> = fs::read_dir(tests)
        .expect("the tests' clusters")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    // Kept beside the repository, not in it.
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures/objects.json");
    files.extend(captured.exists().then_some(captured));
    for file in files {
        let document = fs::read(&file).expect("a cluster's objects");
        nothing_is_lost(&Objects::from_list(&document).expect("a List"));
    }
}

/// What the API server keeps of objects, and nobody here reads.
#[test]
fn what_nobody_reads_is_dropped() {
    let burden = json!({
        "managedFields": [{"manager": "SECRET"}], "uid": "SECRET", "resourceVersion": "SECRET",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "SECRET"},
        "labels": {"SECRET": "x"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "SECRET", "name": "x", "uid": "x"},
        ],
    });
    let mut items = vec![
        service(
            "web",
            json!({"selector": {"app": "SECRET"}, "ports": [{"port": 80, "targetPort": "SECRET"}]}),
        ),
        slice(
            "web",
            "a",
            json!([{"addresses": ["10.0.0.1", "SECRET"], "hostname": "SECRET",
                    "targetRef": {"kind": "Pod", "name": "web-0", "uid": "SECRET"}}]),
        ),
        node("node1", &["172.31.0.11"], &[]),
        pod(
            "web-0",
            "node1",
            "10.0.0.1",
            json!({"containers": [{
                "name": "SECRET", "image": "SECRET", "env": [{"name": "SECRET"}],
                "ports": [{"containerPort": 80, "name": "SECRET"}],
            }], "volumes": [{"name": "SECRET"}]}),
            json!({"message": "SECRET"}),
        ),
        json!({
            "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": "kube-proxy"},
            "data": {"config.conf": "kind: KubeProxyConfiguration", "kubeconfig.conf": "SECRET"},
        }),
    ];
    for item in &mut items {
        let metadata = item["metadata"].as_object_mut().expect("metadata");
        for (name, value) in burden.as_object().expect("an object") {
            let kept = metadata.entry(name.as_str()).or_insert_with(|| json!({}));
            match (kept, value) {
                (Value::Object(kept), Value::Object(more)) if !more.is_empty() => {
                    kept.extend(more.clone());
                }
                (kept, value) => *kept = value.clone(),
            }
        }
    }
    let whole = objects(&items);
    assert!(whole.to_list().to_string().contains("SECRET"));
    nothing_is_lost(&whole);
    let text = trimmed(whole).to_list().to_string();
    assert!(!text.contains("SECRET"), "{text}");
    for kept in ["web-0", "KubeProxyConfiguration", "172.31.0.11", "10.0.0.1"] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
}

/// What takes connections over within a pod is known of a trimmed one, too.
#[test]
fn sidecars_are_kept() {
    let container = |name: &str, env: Value, args: Value| {
        json!({"name": name, "image": "SECRET", "env": env, "args": args,
               "ports": [{"containerPort": 15090}]})
    };
    let in_mode = |mode: &str| {
        let env = json!([
            {"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode},
            {"name": "SECRET", "value": "SECRET"},
        ]);
        container("istio-proxy", env, json!(["proxy", "sidecar"]))
    };
    let gateway = container("istio-proxy", json!([]), json!(["proxy", "router"]));
    let linkerd = container("linkerd-proxy", json!([]), json!([]));
    let cases = [
        (in_mode("REDIRECT"), "containers", true),
        (in_mode("REDIRECT"), "initContainers", true),
        (in_mode("TPROXY"), "containers", false),
        (gateway, "containers", false),
        (linkerd, "containers", true),
    ];
    for (sidecar, place, is_kept) in cases {
        let mut spec = json!({"containers": [{"name": "app", "image": "app"}]});
        let list = spec[place].as_array().cloned().unwrap_or_default();
        spec[place] = json!([list, vec![sidecar.clone()]].concat());
        let mut pod = pod("web-0", "node1", "10.0.0.1", spec, json!({}));
        pod["metadata"]["annotations"] = json!({
            "traffic.sidecar.istio.io/excludeInboundPorts": "9090",
            "config.linkerd.io/skip-inbound-ports": "9090", "SECRET": "SECRET",
        });
        let whole = objects(&[pod]);
        nothing_is_lost(&whole);
        let text = trimmed(whole.clone()).to_list().to_string();
        assert!(!text.contains("SECRET"), "{text}");
        let index = Index::build(&whole);
        let backend = index.backend(Protocol::Tcp, super::ip("10.0.0.1"), 8080);
        let its = index.sidecar(backend.pod.expect("a pod"));
        assert_eq!(its.is_some(), is_kept, "{sidecar}");
        let takes = |port| its.is_some_and(|it| it.takes(Protocol::Tcp, port).is_some());
        assert_eq!((takes(8080), takes(9090)), (is_kept, false), "{sidecar}");
    }
}

/// A Node reports every ten seconds that it is well.
#[test]
fn what_changes_without_consequence_is_no_change() {
    let mut node = node("node1", &["172.31.0.11"], &["10.244.1.0/24"]);
    let at = |node: &Value| trimmed(objects(std::slice::from_ref(node)));
    let before = at(&node);
    node["metadata"]["resourceVersion"] = json!("7");
    node["status"]["conditions"] = json!([{
        "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-25T12:00:00Z",
    }]);
    assert_eq!(at(&node), before);
    node["status"]["addresses"][0]["address"] = json!("172.31.0.12");
    assert_ne!(at(&node), before);
}

#[test]
fn the_pods_of_one_node_are_so_in_a_list_too() {
    let mut items: Vec<_> = super::two_nodes().into();
    items.push(super::plain_pod("here", "node1", "10.244.1.5"));
    items.push(slice(
        "web",
        "a",
        json!([endpoint("10.244.2.5", "node2", "p")]),
    ));
    let mut objects = objects(&items);
    let all = Index::build(&objects);
    objects.pods_of = Some("node1".to_owned());
    let of_one = Index::build(&objects);
    let document = objects.to_list().to_string();
    let again = Objects::from_list(document.as_bytes()).expect("a List");
    assert_eq!(again, objects);
    assert_eq!(Index::build(&again), of_one);

    // Of the other node's Pods nothing is known but that they are in its range.
    let local = super::on_node1();
    let kind = |index: &Index, ip| format!("{:?}", index.address_kind(super::ip(ip), &local));
    assert_eq!(kind(&all, "10.244.2.9"), "Unknown");
    assert_eq!(kind(&of_one, "10.244.2.9"), "Pod");
    assert_eq!(kind(&of_one, "10.244.2.0"), "Unknown");
    for index in [&all, &of_one] {
        assert_eq!(kind(index, "10.244.1.9"), "Unknown");
        assert_eq!(kind(index, "10.244.1.5"), "Pod");
        assert_eq!(kind(index, "10.244.2.5"), "Pod");
    }
}

proptest! {
    #[test]
    fn spoiled_objects_lose_nothing(value in spoiled()) {
        if let Ok(objects) = Objects::from_list(value.to_string().as_bytes()) {
            nothing_is_lost(&objects);
        }
    }
}
