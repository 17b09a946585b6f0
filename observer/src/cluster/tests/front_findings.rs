//! What a Service's settings tell together with its load balancer.

use rstest::rstest;
use serde_json::{Value, json};

use super::front::{codes, on, reached_at, web};

const HETZNER: &str = "hcloud://1";
const GOOGLE: &str = "gce://project/zone/vm";
const BARE: &str = "kind://x";

#[rstest]
#[case::all_well(GOOGLE, json!({"externalTrafficPolicy": "Local"}), &[])]
#[case::cluster(HETZNER, json!({}), &[])]
#[case::pending(BARE, json!({}), &["load-balancer-pending"])]
// Kubernetes, "Using Source IP": Local keeps what reaches the node.
#[case::local_in_vain(HETZNER, json!({"externalTrafficPolicy": "Local"}), &[
    "local-behind-replacing-load-balancer",
])]
#[case::affinity(HETZNER, json!({"sessionAffinity": "ClientIP"}), &[
    "affinity-sees-the-load-balancer",
])]
#[case::affinity_that_works(GOOGLE, json!({"sessionAffinity": "ClientIP"}), &[])]
// pkg/proxy/iptables/proxier.go: the ranges are of the load balancer's addresses.
#[case::ranges(GOOGLE, json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]}), &[
    "source-ranges-do-not-fence-node-ports",
])]
#[case::ranges_without_node_ports(
    GOOGLE,
    json!({
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}],
    }),
    &[]
)]
#[case::no_ranges(GOOGLE, json!({"loadBalancerSourceRanges": []}), &[])]
#[case::no_node_ports(
    HETZNER,
    json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}),
    &["target-needs-node-port"]
)]
#[case::some_node_ports(
    HETZNER,
    json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80, "nodePort": 30080}]}),
    &[]
)]
#[case::no_node_ports_needed(
    GOOGLE,
    json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}),
    &[]
)]
#[case::a_name(
    GOOGLE,
    json!({"type": "ExternalName", "externalName": "db.example.com"}),
    &["external-name"]
)]
#[case::headless(GOOGLE, json!({"type": "ClusterIP", "clusterIP": "None"}), &["headless"])]
fn findings(#[case] provider_id: &str, #[case] spec: Value, #[case] expected: &[&str]) {
    assert_eq!(codes(&on(provider_id, web(&[], spec))), expected);
}

/// KEP-1860: pods go past a load balancer whose address kube-proxy takes for its own.
#[rstest]
#[case::no_mode(json!([{"ip": "192.0.2.1"}]), true)]
#[case::vip(json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]), true)]
#[case::proxy(json!([{"ip": "192.0.2.1", "ipMode": "Proxy"}]), false)]
#[case::a_name(json!([{"hostname": "lb.example.com"}]), false)]
fn pods_bring_no_header(#[case] ingress: Value, #[case] expected: bool) {
    let name = "load-balancer.hetzner.cloud/uses-proxyprotocol";
    let codes_of = |value| {
        let service = reached_at(web(&[(name, value)], Value::Null), ingress.clone());
        codes(&on(HETZNER, service))
    };
    let told = codes_of("true").contains(&"pods-bypass-the-load-balancer".to_owned());
    assert_eq!(told, expected);
    assert!(codes_of("false").is_empty());
}

/// With a header, `Local` saves a hop and loses nothing.
#[test]
fn local_behind_one_that_adds_a_header_is_no_surprise() {
    let service = web(
        &[("load-balancer.hetzner.cloud/uses-proxyprotocol", "true")],
        json!({"externalTrafficPolicy": "Local"}),
    );
    assert!(codes(&on(HETZNER, service)).is_empty());
}

#[test]
fn a_spec_that_is_missing_is_no_panic() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
    assert!(codes(&on(GOOGLE, service)).is_empty());
}
