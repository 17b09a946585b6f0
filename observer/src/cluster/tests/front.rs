//! What stands in front of Services: what the tests of each system share, and who is asked when
//! nothing names anybody.

use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::Objects;
use super::super::finding::Finding;
use super::super::front::{Fronts, LoadBalancer, is_telling};
use super::{objects, service};

/// A Service `shop/web` of type `LoadBalancer` with ports 80 and 443, and these annotations; `spec`
/// is laid over its own.
pub(super) fn web(annotations: &[(&str, &str)], spec: Value) -> Value {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10",
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
                {"name": "https", "port": 443, "nodePort": 30443},
            ],
        }),
    );
    let annotations = annotations
        .iter()
        .copied()
        .collect::<std::collections::BTreeMap<_, _>>();
    web["metadata"]["annotations"] = json!(annotations);
    if let Value::Object(spec) = spec {
        web["spec"].as_object_mut().expect("an object").extend(spec);
    }
    web
}

/// The same, reached at `ingress`.
pub(super) fn reached_at(mut service: Value, ingress: Value) -> Value {
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}

/// A Node with a `providerID`, as a kubelet writes it.
pub(super) fn node_of(provider_id: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "node1"}},
        "spec": {"providerID": provider_id},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.11"}]},
    })
}

pub(super) fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's object parses")
}

/// The load balancer of the first Service.
pub(super) fn front(objects: &Objects) -> Option<LoadBalancer> {
    Fronts::new(objects).load_balancer(&objects.services[0])
}

/// What is found of the first Service.
pub(super) fn found(objects: &Objects) -> Vec<Finding> {
    Fronts::new(objects).findings(&objects.services[0])
}

/// The codes of that.
pub(super) fn codes(objects: &Objects) -> Vec<String> {
    let code = |finding: &Finding| {
        let value = serde_json::to_value(finding).expect("a finding is an object");
        value["code"].as_str().expect("it has a code").to_owned()
    };
    found(objects).iter().map(code).collect()
}

/// `system delivers keeps carriers…`, and `out` if it leaves out unhealthy nodes, `all` if it does
/// not.
pub(super) fn line(front: &LoadBalancer) -> String {
    let mut words = vec![
        front.name(),
        front.delivers.to_string(),
        front.keeps.to_string(),
    ];
    words.extend(front.adds.iter().map(ToString::to_string));
    let health = front.leaves_out_unhealthy_nodes;
    words.extend(health.map(|out| if out { "out" } else { "all" }.to_owned()));
    words.join(" ")
}

/// That of the first Service.
pub(super) fn told(objects: &Objects) -> String {
    front(objects).map_or("none".to_owned(), |front| line(&front))
}

/// That of one Service, on Nodes of a provider; no Nodes without.
pub(super) fn told_on(provider_id: &str, service: Value) -> String {
    told(&on(provider_id, service))
}

pub(super) fn on(provider_id: &str, service: Value) -> Objects {
    let mut items = vec![service];
    if !provider_id.is_empty() {
        items.push(node_of(provider_id));
    }
    objects(&items)
}

/// Who serves a Service that names nobody: the cloud of its Nodes, and nobody where they are of none
/// (`core/v1` `NodeSpec.providerID`).
#[rstest]
#[case::no_nodes("", "unknown unknown unknown")]
#[case::aws("aws:///eu-west-1a/i-0", "aws-classic node-port own out")]
#[case::google("gce://project/zone/vm", "gke-passthrough virtual-ip client out")]
#[case::azure(
    "azure:///subscriptions/0",
    "azure-load-balancer virtual-ip client out"
)]
#[case::hetzner("hcloud://1", "hetzner node-port own out")]
#[case::oracle("ocid1.instance.oc1..x", "oracle-lb node-port own out")]
#[case::k3s("k3s://node1", "k3s-servicelb virtual-ip client out")]
#[case::kind("kind://docker/kind/kind-worker", "nobody nothing unknown")]
#[case::not_known("vsphere://4203", "unknown unknown unknown")]
#[case::only_named("civo://x", "civo unknown unknown")]
fn without_a_name_the_nodes_tell(#[case] provider_id: &str, #[case] expected: &str) {
    assert_eq!(told_on(provider_id, web(&[], Value::Null)), expected);
}

#[rstest]
#[case::kubeadm(json!({}), "nobody nothing unknown")]
// As the completion of manifests marks those that it assumes.
#[case::assumed(json!({"source-ip-observer/assumed": ""}), "unknown unknown unknown")]
fn nodes_of_no_provider_have_nobody(#[case] annotations: Value, #[case] expected: &str) {
    let mut node = node_of("");
    node["metadata"] = json!({"name": "node-a", "annotations": annotations});
    node["spec"] = json!({});
    assert_eq!(told(&objects(&[web(&[], Value::Null), node])), expected);
}

/// What only a status tells (KEP-1860).
#[rstest]
#[case::an_address(json!([{"ip": "192.0.2.1"}]), "unknown virtual-ip unknown")]
#[case::mode_vip(json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]), "unknown virtual-ip unknown")]
#[case::mode_proxy(json!([{"ip": "192.0.2.1", "ipMode": "Proxy"}]), "unknown unknown unknown")]
#[case::a_name(json!([{"hostname": "lb.example.com"}]), "unknown unknown unknown")]
#[case::a_network_load_balancer(
    json!([{"hostname": "k8s-shop-web-0.elb.eu-west-1.amazonaws.com"}]),
    "aws-nlb node-port client out"
)]
#[case::a_classic_load_balancer(
    json!([{"hostname": "a0.eu-west-1.elb.amazonaws.com"}]),
    "aws-classic node-port own out"
)]
fn a_status_tells_some(#[case] ingress: Value, #[case] expected: &str) {
    let service = reached_at(web(&[], Value::Null), ingress);
    assert_eq!(told(&objects(&[service])), expected);
}

/// `spec.loadBalancerClass` goes before annotations and Nodes (Kubernetes, Services).
#[rstest]
#[case::aws("service.k8s.aws/nlb", "aws-nlb node-port client out")]
#[case::eks_auto_mode("eks.amazonaws.com/nlb", "aws-nlb pod own out")]
#[case::google(
    "networking.gke.io/l4-regional-external",
    "gke-passthrough virtual-ip client out"
)]
#[case::kube_vip("kube-vip.io/kube-vip-class", "kube-vip virtual-ip client")]
#[case::cilium_l2("io.cilium/l2-announcer", "cilium-lb virtual-ip client all")]
#[case::cilium_bgp("io.cilium/bgp-control-plane", "cilium-lb virtual-ip client out")]
#[case::metallb("metallb", "metallb virtual-ip client out")]
#[case::calico("calico", "calico virtual-ip client out")]
#[case::not_known("tailscale", "tailscale unknown unknown")]
fn a_class_decides(#[case] class: &str, #[case] expected: &str) {
    let service = web(
        &[("load-balancer.hetzner.cloud/name", "web")],
        json!({"loadBalancerClass": class}),
    );
    assert_eq!(told_on("hcloud://1", service), expected);
}

/// A chart may have annotations of several clouds.
#[rstest]
#[case::the_nodes_decide("azure:///x", "azure-load-balancer virtual-ip client out")]
#[case::of_neither("gce://x", "gke-passthrough virtual-ip client out")]
#[case::nothing_decides("", "unknown unknown unknown")]
fn annotations_of_several_clouds(#[case] provider_id: &str, #[case] expected: &str) {
    let annotations = [
        ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb"),
        (
            "service.beta.kubernetes.io/azure-load-balancer-internal",
            "true",
        ),
    ];
    assert_eq!(
        told_on(provider_id, web(&annotations, Value::Null)),
        expected
    );
}

#[rstest]
#[case::cluster_ip("ClusterIP")]
#[case::node_port("NodePort")]
#[case::external_name("ExternalName")]
fn other_types_have_none(#[case] kind: &str) {
    assert_eq!(told_on("aws:///x", web(&[], json!({"type": kind}))), "none");
}

#[rstest]
#[case("service.beta.kubernetes.io/aws-load-balancer-type", true)]
#[case("service.beta.kubernetes.io/load-balancer-source-ranges", true)]
#[case("service.beta.kubernetes.io/port_80_no_probe_rule", true)]
#[case("metallb.universe.tf/address-pool", true)]
#[case("kubectl.kubernetes.io/last-applied-configuration", false)]
#[case("service.kubernetes.io/topology-mode", false)]
fn few_annotations_are_telling(#[case] name: &str, #[case] expected: bool) {
    assert_eq!(is_telling(name), expected);
}

/// What a setting is, and which document says so.
#[test]
fn it_says_what_decided() {
    let service = web(
        &[("service.beta.kubernetes.io/aws-load-balancer-type", "nlb")],
        Value::Null,
    );
    let front = front(&on("aws:///x", service)).expect("it has one");
    let because: Vec<_> = front
        .because
        .iter()
        .map(|it| (it.name.as_str(), it.value.as_str(), it.is_default))
        .collect();
    let kind = "service.beta.kubernetes.io/aws-load-balancer-type";
    assert_eq!(
        because,
        [
            (kind, "nlb", false),
            ("target type", "instance", true),
            ("preserve_client_ip.enabled", "true", true),
        ]
    );
    assert!(front.because.iter().all(|it| !it.source.is_empty()));
}
