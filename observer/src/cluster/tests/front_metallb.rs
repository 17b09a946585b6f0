//! `MetalLB`: website/content/usage/_index.md and website/content/configuration, and what the
//! controller and the speakers do (`controller/service.go`, `internal/config/config.go`).

use rstest::rstest;
use serde_json::{Value, json};

use super::super::Objects;
use super::front::{codes, node_of, on, parse, reached_at, told, web};
use super::objects;

/// Pools `one` (192.0.2.0/25) and `two` (192.0.2.200-192.0.2.210), the second not assigned unasked.
fn pools(objects: &mut Objects) {
    objects.around.ip_address_pools = vec![
        parse(json!({
            "metadata": {"namespace": "metallb-system", "name": "one", "labels": {"zone": "a"}},
            "spec": {"addresses": ["192.0.2.0/25", "2001:db8::/120"]},
        })),
        parse(json!({
            "metadata": {"namespace": "metallb-system", "name": "two", "labels": {"zone": "b"}},
            "spec": {"addresses": ["192.0.2.200-192.0.2.210"], "autoAssign": false},
        })),
    ];
}

fn advertise(objects: &mut Objects, kind: &str, spec: Value) {
    let namespaced =
        |namespace: &str| json!({"metadata": {"namespace": namespace, "name": kind}, "spec": spec});
    match kind {
        "l2" => objects
            .around
            .l2_advertisements
            .push(parse(namespaced("metallb-system"))),
        "bgp" => objects
            .around
            .bgp_advertisements
            .push(parse(namespaced("metallb-system"))),
        "elsewhere" => objects
            .around
            .l2_advertisements
            .push(parse(namespaced("default"))),
        other => panic!("{other} is none"),
    }
}

/// Advertisements: all pools where they name and select none.
#[rstest]
#[case::layer2(&[("l2", json!({}))], "metallb-l2 virtual-ip client out")]
#[case::bgp(&[("bgp", json!({}))], "metallb-bgp virtual-ip client out")]
#[case::both(&[("l2", json!({})), ("bgp", json!({}))], "metallb virtual-ip client out")]
#[case::by_name(
    &[("bgp", json!({"ipAddressPools": ["one"]}))],
    "metallb-bgp virtual-ip client out"
)]
#[case::of_another_pool(&[("l2", json!({"ipAddressPools": ["two"]}))], "metallb nothing unknown")]
#[case::by_labels(
    &[("l2", json!({"ipAddressPoolSelectors": [{"matchLabels": {"zone": "a"}}]}))],
    "metallb-l2 virtual-ip client out"
)]
#[case::by_other_labels(
    &[("l2", json!({"ipAddressPoolSelectors": [{"matchExpressions": [
        {"key": "zone", "operator": "NotIn", "values": ["a"]},
    ]}]}))],
    "metallb nothing unknown"
)]
#[case::for_other_services(
    &[("l2", json!({"serviceSelectors": [{"matchLabels": {"app": "other"}}]}))],
    "metallb nothing unknown"
)]
#[case::in_another_namespace(&[("elsewhere", json!({}))], "metallb nothing unknown")]
#[case::none(&[], "metallb nothing unknown")]
fn advertisements(#[case] all: &[(&str, Value)], #[case] expected: &str) {
    let mut objects = on("", web(&[], Value::Null));
    pools(&mut objects);
    for (kind, spec) in all {
        advertise(&mut objects, kind, spec.clone());
    }
    assert_eq!(told(&objects), expected);
    let says_nothing = codes(&objects).contains(&"nothing-announces".to_owned());
    assert_eq!(says_nothing, expected.contains("nothing"));
}

/// Of which pool a Service's address is; `one` is announced by layer 2, `two` by BGP.
#[rstest]
#[case::unasked(&[], json!({}), None, "metallb-l2 virtual-ip client out")]
#[case::asked(
    &[("metallb.io/address-pool", "two")], json!({}), None,
    "metallb-bgp virtual-ip client out"
)]
#[case::asked_of_old(
    &[("metallb.universe.tf/address-pool", "two")], json!({}), None,
    "metallb-bgp virtual-ip client out"
)]
#[case::an_address(
    &[("metallb.io/loadBalancerIPs", "192.0.2.205")], json!({}), None,
    "metallb-bgp virtual-ip client out"
)]
#[case::the_field(
    &[], json!({"loadBalancerIP": "192.0.2.205"}), None,
    "metallb-bgp virtual-ip client out"
)]
#[case::the_status(&[], json!({}), Some("192.0.2.210"), "metallb-bgp virtual-ip client out")]
#[case::the_status_in_ipv6(&[], json!({}), Some("2001:db8::7"), "metallb-l2 virtual-ip client out")]
#[case::where_it_is_allocated(
    &[("metallb.io/ip-allocated-from-pool", "two")], json!({}), Some("192.0.2.7"),
    "metallb-bgp virtual-ip client out"
)]
#[case::no_such_pool(
    &[("metallb.io/address-pool", "three")], json!({}), None,
    "metallb virtual-ip client out"
)]
fn pools_of_a_service(
    #[case] annotations: &[(&str, &str)],
    #[case] spec: Value,
    #[case] status: Option<&str>,
    #[case] expected: &str,
) {
    let mut service = web(annotations, spec);
    if let Some(ip) = status {
        service = reached_at(service, json!([{"ip": ip}]));
    }
    let mut objects = on("", service);
    pools(&mut objects);
    advertise(&mut objects, "l2", json!({"ipAddressPools": ["one"]}));
    advertise(&mut objects, "bgp", json!({"ipAddressPools": ["two"]}));
    assert_eq!(told(&objects), expected);
    let is_none = codes(&objects).contains(&"value-not-understood".to_owned());
    assert_eq!(
        is_none,
        annotations.contains(&("metallb.io/address-pool", "three"))
    );
}

/// `serviceAllocation`: a pool of other namespaces is none for it.
#[rstest]
#[case::its_own("shop", "metallb-l2 virtual-ip client out")]
#[case::another("bank", "metallb nothing unknown")]
fn pools_of_namespaces(#[case] namespace: &str, #[case] expected: &str) {
    let mut objects = on("", web(&[], Value::Null));
    objects.around.ip_address_pools = vec![parse(json!({
        "metadata": {"name": "one"},
        "spec": {
            "addresses": ["192.0.2.0/25"],
            "serviceAllocation": {"namespaces": [namespace]},
        },
    }))];
    advertise(&mut objects, "l2", json!({}));
    assert_eq!(told(&objects), expected);
}

/// Beside a cloud's own, only a status tells which of them serves a Service.
#[rstest]
#[case::nothing(None, "unknown unknown unknown")]
#[case::of_a_pool(Some("192.0.2.7"), "metallb-l2 virtual-ip client out")]
fn beside_a_cloud(#[case] status: Option<&str>, #[case] expected: &str) {
    let mut service = web(&[], Value::Null);
    if let Some(ip) = status {
        service = reached_at(service, json!([{"ip": ip}]));
    }
    let mut objects = objects(&[service, node_of("openstack:///0")]);
    pools(&mut objects);
    advertise(&mut objects, "l2", json!({}));
    assert_eq!(told(&objects), expected);
}

/// `--lb-class` (installation, "Setting the LoadBalancer Class").
#[rstest]
#[case::its_class(Some("example.com/lb"), "metallb virtual-ip client out")]
#[case::another_class(Some("metallb"), "metallb unknown unknown")]
#[case::no_class(None, "nobody nothing unknown")]
fn classes(#[case] class: Option<&str>, #[case] expected: &str) {
    let spec = class.map_or(json!({}), |class| json!({"loadBalancerClass": class}));
    let mut objects = on("kind://docker/kind/worker", web(&[], spec));
    objects.around.daemon_sets.push(parse(json!({
        "metadata": {"namespace": "metallb-system", "name": "speaker"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{
            "name": "speaker",
            "image": "quay.io/metallb/speaker:v0.15.2",
            "args": ["--port=7472", "--lb-class=example.com/lb"],
        }]}}},
    })));
    assert_eq!(told(&objects), expected);
}

#[test]
fn an_annotation_alone_tells_that_it_is_metallb() {
    let service = web(&[("metallb.io/address-pool", "public")], Value::Null);
    assert_eq!(told(&on("", service)), "metallb virtual-ip client out");
}
