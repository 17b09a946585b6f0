//! Other load balancers: one document each, named at its test.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::Protocol;
use super::front::{codes, front, line, node_of, on, parse, reached_at, told, told_on, web};
use super::objects;

/// cloud-provider-azure: a floating IP keeps the destination
/// (`pkg/provider/azure_loadbalancer.go`).
#[rstest]
#[case::public(&[], json!({}), "azure-load-balancer virtual-ip client out")]
#[case::internal(
    &[("azure-load-balancer-internal", "true")], json!({}),
    "azure-load-balancer virtual-ip client out"
)]
#[case::no_floating_ip(
    &[("azure-disable-load-balancer-floating-ip", "true")], json!({}),
    "azure-load-balancer node-port client out"
)]
#[case::set_to_the_default(
    &[("azure-disable-load-balancer-floating-ip", "false")], json!({}),
    "azure-load-balancer virtual-ip client out"
)]
#[case::internal_ipv6(
    &[("azure-load-balancer-internal", "true")], json!({"ipFamilies": ["IPv6"]}),
    "azure-load-balancer node-port client out"
)]
#[case::no_probe(
    &[("port_80_no_probe_rule", "true")], json!({}),
    "azure-load-balancer virtual-ip client"
)]
fn azure(#[case] annotations: &[(&str, &str)], #[case] spec: Value, #[case] expected: &str) {
    let service = prefixed("service.beta.kubernetes.io/", annotations, spec);
    assert_eq!(told_on("azure:///subscriptions/0", service), expected);
}

fn prefixed(prefix: &str, annotations: &[(&str, &str)], spec: Value) -> Value {
    let names: Vec<_> = annotations
        .iter()
        .map(|(name, value)| (format!("{prefix}{name}"), *value))
        .collect();
    let annotations: Vec<_> = names.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    web(&annotations, spec)
}

/// Google Kubernetes Engine, LoadBalancer Service parameters: passthrough in any case.
#[rstest]
#[case::internal("networking.gke.io/load-balancer-type", "Internal")]
#[case::internal_of_old("cloud.google.com/load-balancer-type", "Internal")]
#[case::backend_service("cloud.google.com/l4-rbs", "enabled")]
#[case::neg("cloud.google.com/neg", "{\"ingress\": true}")]
fn google(#[case] name: &str, #[case] value: &str) {
    let service = web(&[(name, value)], Value::Null);
    assert_eq!(
        told_on("", service),
        "gke-passthrough virtual-ip client out"
    );
}

/// k3s, Networking Services; klipper-lb, `entry`; `pkg/cloudprovider/servicelb.go`: the status names
/// external addresses of nodes if there are any, and else internal ones.
#[rstest]
#[case::internal("InternalIP", "Cluster", None, "k3s-servicelb virtual-ip client out")]
#[case::internal_local("InternalIP", "Local", None, "k3s-servicelb virtual-ip client out")]
#[case::internal_status(
    "InternalIP",
    "Local",
    Some("172.31.0.11"),
    "k3s-servicelb virtual-ip client out"
)]
#[case::external("ExternalIP", "Cluster", None, "k3s-servicelb relay own out")]
#[case::external_local("ExternalIP", "Local", None, "k3s-servicelb unknown unknown out")]
#[case::external_status(
    "ExternalIP",
    "Cluster",
    Some("172.31.0.11"),
    "k3s-servicelb relay own out"
)]
fn k3s(
    #[case] kind: &str,
    #[case] policy: &str,
    #[case] status: Option<&str>,
    #[case] expected: &str,
) {
    let mut service = web(&[], json!({"externalTrafficPolicy": policy}));
    if let Some(ip) = status {
        service = reached_at(service, json!([{"ip": ip}]));
    }
    let mut node = node_of("k3s://node1");
    node["status"]["addresses"][0]["type"] = json!(kind);
    assert_eq!(told(&objects(&[service, node])), expected);
}

/// An address that is a node's leads through that node alone.
#[rstest]
#[case::one(&["172.31.0.11"], Some("node1"))]
#[case::of_two_families(&["172.31.0.11", "fd00::11"], Some("node1"))]
#[case::of_two_nodes(&["172.31.0.11", "172.31.0.12"], None)]
#[case::none_yet(&[], None)]
fn servicelb_by_one_node(#[case] status: &[&str], #[case] expected: Option<&str>) {
    let ingress: Vec<_> = status.iter().map(|ip| json!({"ip": ip})).collect();
    let service = reached_at(web(&[], Value::Null), json!(ingress));
    let mut one = node_of("k3s://node1");
    one["status"]["addresses"] = json!([
        {"type": "InternalIP", "address": "172.31.0.11"},
        {"type": "InternalIP", "address": "fd00::11"},
    ]);
    let mut other = node_of("k3s://node2");
    other["metadata"]["name"] = json!("node2");
    other["status"]["addresses"][0]["address"] = json!("172.31.0.12");
    let front = front(&objects(&[service, one, other])).expect("it has one");
    let expected = expected.map(|node| vec![node.to_owned()]);
    assert_eq!(front.only_nodes, expected);
}

#[rstest]
#[case::labels(json!({
    "name": "svclb-web-0a1b2c3d",
    "labels": {
        "svccontroller.k3s.cattle.io/svcname": "web",
        "svccontroller.k3s.cattle.io/svcnamespace": "shop",
    },
}), true)]
#[case::another_namespace(json!({
    "name": "svclb-web-0a1b2c3d",
    "labels": {
        "svccontroller.k3s.cattle.io/svcname": "web",
        "svccontroller.k3s.cattle.io/svcnamespace": "bank",
    },
}), false)]
#[case::name(json!({"name": "svclb-web-0a1b2c3d"}), true)]
#[case::name_of_old(json!({"name": "svclb-web"}), true)]
#[case::another(json!({"name": "svclb-other-0a1b2c3d"}), false)]
fn a_daemon_set_tells_servicelb(#[case] metadata: Value, #[case] is_it: bool) {
    let mut objects = on("", web(&[], Value::Null));
    objects.around.daemon_sets.push(parse(json!({
        "metadata": metadata,
        "spec": {"selector": {}, "template": {}},
    })));
    let expected = if is_it {
        "k3s-servicelb virtual-ip client out"
    } else {
        "unknown unknown unknown"
    };
    assert_eq!(told(&objects), expected);
}

/// A status of other addresses is not servicelb's.
#[test]
fn servicelb_has_no_addresses_but_the_nodes() {
    let service = reached_at(web(&[], Value::Null), json!([{"ip": "192.0.2.1"}]));
    assert_eq!(
        told_on("k3s://node1", service),
        "unknown virtual-ip unknown"
    );
}

/// kube-vip, docs/usage/kubernetes-services.md.
#[rstest]
#[case::services(json!({"svc_enable": "true"}), &[], "kube-vip virtual-ip client")]
#[case::election(
    json!({"svc_enable": "true", "svc_election": "true"}), &[],
    "kube-vip virtual-ip client out"
)]
#[case::only_control_plane(json!({"cp_enable": "true"}), &[], "nobody nothing unknown")]
#[case::only_its_class(
    json!({"svc_enable": "true", "lb_class_only": "true"}), &[],
    "nobody nothing unknown"
)]
#[case::ignored(
    json!({"svc_enable": "true"}), &[("kube-vip.io/ignore", "true")],
    "nobody nothing unknown"
)]
#[case::by_annotation(
    json!({}), &[("kube-vip.io/loadbalancerIPs", "192.0.2.1")],
    "kube-vip virtual-ip client"
)]
fn kube_vip(
    #[case] variables: Value,
    #[case] annotations: &[(&str, &str)],
    #[case] expected: &str,
) {
    let variables: Vec<_> = variables
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let mut objects = on("kind://x", web(annotations, Value::Null));
    objects.around.daemon_sets.push(parse(json!({
        "metadata": {"name": "kube-vip-ds"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{
            "name": "kube-vip", "image": "ghcr.io/kube-vip/kube-vip:v1.0.0", "env": variables,
        }]}}},
    })));
    assert_eq!(told(&objects), expected);
}

/// `DigitalOcean` cloud controller manager, docs/controllers/services/annotations.md.
#[rstest]
#[case::network(&[("type", "REGIONAL_NETWORK")], "digitalocean virtual-ip client out")]
#[case::regional(&[("type", "REGIONAL")], "digitalocean node-port own out")]
#[case::which(&[("name", "web")], "digitalocean unknown unknown out")]
#[case::header(
    &[("enable-proxy-protocol", "true")],
    "digitalocean node-port own proxy-v1 out"
)]
#[case::no_header(
    &[("type", "REGIONAL"), ("enable-proxy-protocol", "false")],
    "digitalocean node-port own out"
)]
#[case::http(&[("protocol", "http")], "digitalocean node-port own x-forwarded-for out")]
#[case::passed_through(
    &[("type", "REGIONAL"), ("protocol", "https"), ("tls-passthrough", "true")],
    "digitalocean node-port own out"
)]
fn digital_ocean(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    let prefix = "service.beta.kubernetes.io/do-loadbalancer-";
    assert_eq!(
        told(&on("", prefixed(prefix, annotations, Value::Null))),
        expected
    );
}

/// Hetzner cloud controller manager, `docs/reference/load_balancer_annotations.md`.
#[rstest]
#[case::plain(&[("location", "nbg1")], "hetzner node-port own out")]
#[case::header(&[("uses-proxyprotocol", "true")], "hetzner node-port own proxy-v1 proxy-v2 out")]
#[case::http(&[("protocol", "http")], "hetzner node-port own x-forwarded-for out")]
fn hetzner(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    let prefix = "load-balancer.hetzner.cloud/";
    assert_eq!(
        told(&on("", prefixed(prefix, annotations, Value::Null))),
        expected
    );
}

/// OCI cloud controller manager, docs/load-balancer-annotations.md.
#[rstest]
#[case::default("Local", &[], "oracle-lb node-port own out")]
#[case::nlb_local(
    "Local", &[("oci.oraclecloud.com/load-balancer-type", "nlb")],
    "oracle-nlb node-port client out"
)]
#[case::nlb_cluster(
    "Cluster", &[("oci.oraclecloud.com/load-balancer-type", "nlb")],
    "oracle-nlb node-port own out"
)]
#[case::nlb_not_preserved(
    "Local",
    &[("oci.oraclecloud.com/load-balancer-type", "nlb"),
      ("oci-network-load-balancer.oraclecloud.com/is-preserve-source", "false")],
    "oracle-nlb node-port own out"
)]
#[case::nlb_header(
    "Cluster",
    &[("oci.oraclecloud.com/load-balancer-type", "nlb"),
      ("oci-network-load-balancer.oraclecloud.com/is-ppv2-enabled", "true")],
    "oracle-nlb node-port own proxy-v2 out"
)]
#[case::lb_header(
    "Cluster",
    &[("service.beta.kubernetes.io/oci-load-balancer-connection-proxy-protocol-version", "2")],
    "oracle-lb node-port own proxy-v2 out"
)]
#[case::lb_http(
    "Cluster",
    &[("service.beta.kubernetes.io/oci-load-balancer-backend-protocol", "HTTP")],
    "oracle-lb node-port own x-forwarded-for out"
)]
fn oracle(#[case] policy: &str, #[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    let service = web(annotations, json!({"externalTrafficPolicy": policy}));
    assert_eq!(told_on("oci://ocid1.instance.x", service), expected);
}

#[test]
fn preserving_under_policy_cluster_is_not_read() {
    let annotations = [
        ("oci.oraclecloud.com/load-balancer-type", "nlb"),
        (
            "oci-network-load-balancer.oraclecloud.com/is-preserve-source",
            "true",
        ),
    ];
    let objects = on("oci://x", web(&annotations, Value::Null));
    assert_eq!(codes(&objects), ["setting-ignored"]);
}

/// cloud-provider-openstack, expose-applications-using-loadbalancer-type-service.md: what only
/// `amphora` can do, and which of the two it is no object tells. `OVHcloud`'s are such.
#[rstest]
#[case::which(&[], "openstack node-port unknown")]
#[case::header(
    &[("loadbalancer.openstack.org/proxy-protocol", "true")],
    "openstack node-port own proxy-v1"
)]
#[case::header_v2(
    &[("loadbalancer.openstack.org/proxy-protocol", "v2")],
    "openstack node-port own proxy-v2"
)]
#[case::http(
    &[("loadbalancer.openstack.org/x-forwarded-for", "true")],
    "openstack node-port own x-forwarded-for"
)]
#[case::monitor(
    &[("loadbalancer.openstack.org/enable-health-monitor", "true")],
    "openstack node-port unknown out"
)]
#[case::ovh(
    &[("service.beta.kubernetes.io/ovh-loadbalancer-proxy-protocol", "v2")],
    "ovhcloud node-port own proxy-v2"
)]
#[case::ovh_octavia(
    &[("loadbalancer.ovhcloud.com/class", "octavia"),
      ("loadbalancer.openstack.org/proxy-protocol", "v1")],
    "ovhcloud node-port own proxy-v1"
)]
fn openstack(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    assert_eq!(
        told_on("openstack:///0", web(annotations, Value::Null)),
        expected
    );
}

/// Scaleway cloud controller manager, docs/loadbalancer-annotations.md; Linode cloud controller
/// manager, docs/configuration/annotations.md; Vultr cloud controller manager,
/// docs/load-balancers.md.
#[rstest]
#[case::scaleway("scw-loadbalancer-name", "web", "scaleway node-port own out", "")]
#[case::scaleway_v2("scw-loadbalancer-proxy-protocol-v2", "true", "*", "proxy-v2 proxy-v2")]
#[case::scaleway_v1("scw-loadbalancer-proxy-protocol-v1", "*", "*", "proxy-v1 proxy-v1")]
#[case::scaleway_of_old("scw-loadbalancer-send-proxy-v2", "443", "*", "- proxy-v2")]
#[case::linode(
    "linode-loadbalancer-default-protocol",
    "tcp",
    "linode node-port own",
    ""
)]
#[case::linode_header(
    "linode-loadbalancer-default-proxy-protocol",
    "v2",
    "*",
    "proxy-v2 proxy-v2"
)]
#[case::linode_http(
    "linode-loadbalancer-default-protocol",
    "http",
    "*",
    "x-forwarded-for x-forwarded-for"
)]
#[case::linode_port(
    "linode-loadbalancer-port-443",
    "{\"proxy-protocol\": \"v1\"}",
    "*",
    "- proxy-v1"
)]
#[case::linode_broken("linode-loadbalancer-port-443", "{", "*", "- -")]
#[case::vultr("vultr-loadbalancer-protocol", "tcp", "vultr node-port own", "")]
#[case::vultr_header(
    "vultr-loadbalancer-proxy-protocol",
    "true",
    "*",
    "proxy-v1,proxy-v2 proxy-v1,proxy-v2"
)]
fn headers_of_others(
    #[case] name: &str,
    #[case] value: &str,
    #[case] whole: &str,
    #[case] by_port: &str,
) {
    let service = prefixed("service.beta.kubernetes.io/", &[(name, value)], Value::Null);
    let front = front(&on("", service)).expect("it has one");
    if whole != "*" {
        assert_eq!(line(&front), whole);
        return;
    }
    let adds = |port| {
        let at = front.at(Protocol::Tcp, port);
        let all: Vec<_> = at.adds.iter().map(ToString::to_string).collect();
        if all.is_empty() {
            "-".to_owned()
        } else {
            all.join(",")
        }
    };
    assert_eq!(format!("{} {}", adds(80), adds(443)), by_port);
}

#[rstest]
#[case::alibaba(
    "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-spec",
    "alibaba-cloud"
)]
#[case::ibm(
    "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type",
    "ibm-cloud"
)]
#[case::exoscale("service.beta.kubernetes.io/exoscale-loadbalancer-name", "exoscale")]
fn known_by_name_only(#[case] annotation: &str, #[case] name: &str) {
    let service = web(&[(annotation, "x")], Value::Null);
    assert_eq!(told_on("", service), format!("{name} unknown unknown"));
}

/// Names that are read, of every system.
const NAMES: &[&str] = &[
    "service.beta.kubernetes.io/aws-load-balancer-type",
    "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type",
    "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes",
    "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes.80",
    "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol-per-target-group",
    "service.beta.kubernetes.io/aws-load-balancer-healthcheck-port",
    "service.beta.kubernetes.io/aws-load-balancer-ip-address-type",
    "service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v2",
    "service.beta.kubernetes.io/linode-loadbalancer-port-80",
    "metallb.io/address-pool",
    "metallb.io/loadBalancerIPs",
    "kube-vip.io/ignore",
];

proptest! {
    /// Whatever stands in annotations, classes, pools and statuses, it is answered.
    #[test]
    fn any_text_is_answered(
        annotations in proptest::collection::vec((0..NAMES.len(), ".{0,40}"), 0..4),
        value in "(external|nlb|nlb-ip|instance|ip|[a-z_.=,*0-9 ]{0,30})",
        class in proptest::option::of(".{0,20}"),
        range in "[0-9a-f.:/-]{0,20}",
        ingress in "[0-9a-f.:]{0,15}",
        provider_id in ".{0,12}",
    ) {
        let all: Vec<_> = annotations
            .iter()
            .map(|(name, text)| (NAMES[*name], text.as_str()))
            .chain([(NAMES[annotations.len()], value.as_str())])
            .collect();
        let spec = class.map_or(json!({}), |class| json!({"loadBalancerClass": class}));
        let service = reached_at(web(&all, spec), json!([{"ip": ingress}]));
        let mut objects = objects(&[service, node_of(&provider_id)]);
        objects.around.ip_address_pools.push(parse(json!({
            "metadata": {"name": "one"}, "spec": {"addresses": [range]},
        })));
        let front = front(&objects).expect("a Service of type LoadBalancer has an answer");
        prop_assert!(!front.name().is_empty());
        prop_assert!(codes(&objects).len() < 20);
    }
}
