//! Services, their ports, and which endpoints kube-proxy can use.

use std::time::Duration;

use insta::assert_debug_snapshot;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::{Endpoint, Family, Index, Protocol, ServiceRef, SessionAffinity, TrafficPolicy};
use super::{endpoint, index, service, slice, slice_with, web};

/// `address:port` and the letters of the conditions that hold.
fn list<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Vec<String> {
    let describe = |e: &Endpoint| {
        let letters: String = [(e.ready, 'r'), (e.serving, 's'), (e.terminating, 't')]
            .into_iter()
            .filter_map(|(holds, letter)| holds.then_some(letter))
            .collect();
        format!("{}:{} {letters}", e.address, e.port)
    };
    endpoints.into_iter().map(describe).collect()
}

fn only_entry(index: &Index) -> &super::super::ServiceEntry {
    let [entry] = index.entries() else {
        panic!("one entry: {:?}", index.entries())
    };
    entry
}

#[test]
fn endpoints_are_found_by_port_name_and_protocol() {
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": "web"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
        {"name": "lonely", "port": 99},
    ]);
    let targets = |http: u16| {
        json!([
            {"name": "http", "port": http, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
            {"name": "lonely", "port": 99, "protocol": "UDP"},
            {"name": "http", "port": 0},
            {"name": "http"},
        ])
    };
    let index = index(&[
        service("web", json!({"clusterIP": "10.96.0.10", "ports": ports})),
        // The number behind a named port may differ from slice to slice.
        slice_with(
            "web",
            "a",
            "IPv4",
            targets(8080),
            json!([endpoint("10.244.1.5", "n", "p")]),
        ),
        slice_with(
            "web",
            "b",
            "IPv4",
            targets(8081),
            json!([endpoint("10.244.1.6", "n", "q")]),
        ),
        slice_with(
            "web",
            "c",
            "IPv6",
            targets(8080),
            json!([endpoint("fd10::5", "n", "p")]),
        ),
        slice_with(
            "other",
            "d",
            "IPv4",
            targets(1),
            json!([endpoint("10.244.1.9", "n", "x")]),
        ),
    ]);
    let web = ServiceRef {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let of = |protocol, port, family| list(index.endpoints_of(&web, protocol, port, family));
    assert_debug_snapshot!([
        of(Protocol::Tcp, 80, Family::V4),
        of(Protocol::Tcp, 80, Family::V6),
        of(Protocol::Udp, 53, Family::V4),
        of(Protocol::Tcp, 99, Family::V4),
        of(Protocol::Tcp, 53, Family::V4),
    ], @r#"
    [
        [
            "10.244.1.5:8080 rs",
            "10.244.1.6:8081 rs",
        ],
        [
            "fd10::5:8080 rs",
        ],
        [
            "10.244.1.5:5353 rs",
            "10.244.1.6:5353 rs",
        ],
        [],
        [],
    ]
    "#);
}

#[test]
fn a_port_without_a_name_is_named_by_nothing() {
    let index = index(&[
        service(
            "web",
            json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}),
        ),
        slice_with(
            "web",
            "a",
            "IPv4",
            json!([{"name": "", "port": 80}]),
            json!([endpoint("10.244.1.5", "n", "p")]),
        ),
        slice_with(
            "web",
            "b",
            "IPv4",
            json!([{"port": 80}]),
            json!([endpoint("10.244.1.6", "n", "p")]),
        ),
    ]);
    let entry = only_entry(&index);
    assert_eq!(entry.service_port().to_string(), "shop/web");
    assert_eq!(
        list(entry.endpoints(Family::V4)),
        ["10.244.1.5:80 rs", "10.244.1.6:80 rs"]
    );
}

#[rstest]
#[case::nothing(json!({}), "rs")]
#[case::no_conditions(Value::Null, "rs")]
#[case::not_ready(json!({"ready": false}), "s")]
#[case::nulls(json!({"ready": null, "serving": null, "terminating": null}), "rs")]
#[case::all(json!({"ready": false, "serving": false, "terminating": true}), "t")]
fn unset_conditions(#[case] conditions: Value, #[case] expected: &str) {
    let mut one = endpoint("10.244.1.5", "n", "p");
    one["conditions"] = conditions;
    let index = index(&[web("web", "10.96.0.10"), slice("web", "a", json!([one]))]);
    let expected = format!("10.244.1.5:8080 {expected}");
    assert_eq!(list(only_entry(&index).endpoints(Family::V4)), [expected]);
}

/// `r` ready, `s` serving and terminating, `-` neither; the first on node1, the others on node2.
#[rstest]
#[case::ready("rr", "10.244.1.1 10.244.2.2", "10.244.1.1")]
#[case::terminating_is_not_needed("sr", "10.244.2.2", "10.244.1.1")]
#[case::nowhere_ready("ss", "10.244.1.1 10.244.2.2", "10.244.1.1")]
#[case::not_here("-r", "10.244.2.2", "")]
#[case::here_only("r-", "10.244.1.1", "10.244.1.1")]
#[case::ready_and_terminating_here("-s", "10.244.2.2", "")]
#[case::none("--", "", "")]
fn usable_endpoints(#[case] states: &str, #[case] cluster: &str, #[case] local: &str) {
    let endpoints: Vec<_> = states
        .chars()
        .zip(1..)
        .map(|(state, n)| {
            let on = n.min(2);
            let mut one = endpoint(&format!("10.244.{on}.{n}"), &format!("node{on}"), "p");
            one["conditions"] = match state {
                'r' => json!({"ready": true, "serving": true, "terminating": false}),
                's' => json!({"ready": false, "serving": true, "terminating": true}),
                _ => json!({"ready": false, "serving": false, "terminating": false}),
            };
            one
        })
        .collect();
    let index = index(&[
        web("web", "10.96.0.10"),
        slice("web", "a", json!(endpoints)),
    ]);
    let entry = only_entry(&index);
    let addresses = |usable: Vec<&Endpoint>| {
        usable
            .iter()
            .map(|e| e.address.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(addresses(entry.usable_endpoints(Family::V4)), cluster);
    assert_eq!(
        addresses(entry.usable_local_endpoints(Family::V4, "node1")),
        local
    );
    assert_eq!(entry.has_usable_endpoint(Family::V4), !cluster.is_empty());
    assert_eq!(
        entry.has_local_endpoint(Family::V4, "node1"),
        !local.is_empty()
    );
    assert!(!entry.has_usable_endpoint(Family::V6));
    assert!(!entry.has_local_endpoint(Family::V4, "node3"));
}

/// An endpoint that moves between slices is in both for a moment.
#[test]
fn an_endpoint_in_two_slices_is_one() {
    let mut leaving = endpoint("10.244.1.5", "node1", "p");
    leaving["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    let index = index(&[
        web("web", "10.96.0.10"),
        slice("web", "a", json!([leaving, {"addresses": ["10.244.1.5"]}])),
        slice("web", "b", json!([endpoint("10.244.1.5", "node2", "p")])),
    ]);
    let [one] = only_entry(&index).endpoints(Family::V4) else {
        panic!("one endpoint")
    };
    assert!(one.ready && one.serving && !one.terminating);
    assert_eq!(
        one.pod.as_ref().map(ToString::to_string).as_deref(),
        Some("shop/p")
    );
    assert_eq!(one.node, None);
}

#[test]
fn hints_and_zones_are_kept() {
    let mut hinted = endpoint("10.244.1.5", "node1", "p");
    hinted["zone"] = json!("zone-a");
    hinted["hints"] = json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "node1"}]});
    let mut unhinted = endpoint("10.244.1.6", "node1", "q");
    unhinted["hints"] = json!({"forZones": []});
    let index = index(&[
        web("web", "10.96.0.10"),
        slice("web", "a", json!([hinted, unhinted])),
    ]);
    let [hinted, unhinted] = only_entry(&index).endpoints(Family::V4) else {
        panic!("two")
    };
    assert_eq!(hinted.zone.as_deref(), Some("zone-a"));
    assert_debug_snapshot!(hinted.hints, @r#"
    Some(
        Hints {
            zones: [
                "zone-a",
            ],
            nodes: [
                "node1",
            ],
        },
    )
    "#);
    assert_eq!(unhinted.hints, None);
}

#[test]
fn a_service_tells_its_settings() {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIPs": ["fd00:96::a", "10.96.0.10"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
            "loadBalancerSourceRanges": [" 192.0.2.7/24 ", "2001:db8::/64", "nonsense"],
            "healthCheckNodePort": 30200, "trafficDistribution": "PreferSameZone",
        }),
    );
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let index = index(&[web]);
    let entry = only_entry(&index);
    assert_debug_snapshot!(entry.service, @r#"
    Service {
        reference: ServiceRef {
            namespace: "shop",
            name: "web",
        },
        service_type: LoadBalancer,
        external_traffic_policy: Local,
        internal_traffic_policy: Local,
        session_affinity: ClientIp(
            600s,
        ),
        traffic_distribution: Some(
            "PreferSameZone",
        ),
        load_balancer_source_ranges: [
            192.0.2.0/24,
            2001:db8::/64,
        ],
        load_balancer: Some(
            LoadBalancer {
                system: Unknown,
                provider: None,
                delivers: VirtualIp,
                keeps: Unknown,
                adds: [],
                leaves_out_unhealthy_nodes: None,
                only_nodes: None,
                ports: [],
                because: [
                    Setting {
                        name: "status.loadBalancer.ingress[].ipMode",
                        value: "VIP",
                        is_default: true,
                        source: "Kubernetes, KEP-1860: ipMode of load balancer status",
                    },
                ],
            },
        ),
        health_check_node_port: Some(
            30200,
        ),
        cluster_ips: [
            fd00:96::a,
            10.96.0.10,
        ],
        external_ips: [],
        load_balancer_vips: [
            192.0.2.1,
        ],
        load_balancer_proxies: [],
    }
    "#);
    let ranges = |family| {
        entry
            .service
            .source_ranges(family)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(ranges(Family::V4), ["192.0.2.0/24"]);
    assert_eq!(ranges(Family::V6), ["2001:db8::/64"]);
}

#[rstest]
#[case::unset(json!({"clusterIP": "10.96.0.1"}), TrafficPolicy::Cluster)]
#[case::not_externally_accessible(json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}), TrafficPolicy::Cluster)]
#[case::external_ips(json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.1"]}), TrafficPolicy::Local)]
#[case::node_port(json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "type": "NodePort"}), TrafficPolicy::Local)]
fn external_policy(#[case] mut spec: Value, #[case] expected: TrafficPolicy) {
    spec["ports"] = json!([{"port": 80}]);
    let index = index(&[service("web", spec)]);
    assert_eq!(only_entry(&index).service.external_traffic_policy, expected);
}

#[rstest]
#[case::unset(json!({}), SessionAffinity::None)]
#[case::by_default(json!({"sessionAffinity": "ClientIP"}), SessionAffinity::ClientIp(Duration::from_hours(3)))]
fn affinity(#[case] mut spec: Value, #[case] expected: SessionAffinity) {
    spec["ports"] = json!([{"port": 80}]);
    let index = index(&[service("web", spec)]);
    assert_eq!(only_entry(&index).service.session_affinity, expected);
}

#[test]
fn duplicates_count_once() {
    let again = |items: &[Value]| [items, items].concat();
    let index = index(&again(&[
        web("web", "10.96.0.10"),
        slice("web", "a", json!([endpoint("10.244.1.5", "node1", "p")])),
    ]));
    assert_eq!(index.entries().len(), 1);
    assert_eq!(index.counts().services, 2);
    assert_eq!(
        list(only_entry(&index).endpoints(Family::V4)),
        ["10.244.1.5:8080 rs"]
    );
}

#[test]
fn entries_are_sorted_and_found_by_service() {
    let ports = json!([
        {"name": "b", "port": 81}, {"name": "a", "port": 80},
        {"name": "u", "port": 80, "protocol": "UDP"},
    ]);
    let index = index(&[
        web("zoo", "10.96.0.3"),
        service("web", json!({"clusterIP": "10.96.0.10", "ports": ports})),
        web("api", "10.96.0.2"),
    ]);
    let names = |entries: &[super::super::ServiceEntry]| {
        entries
            .iter()
            .map(|e| e.service_port().to_string())
            .collect::<Vec<_>>()
    };
    let web = ["shop/web:a", "shop/web:u", "shop/web:b"];
    assert_eq!(names(index.service("shop", "web")), web);
    assert_eq!(names(&index.entries()[1..4]), web);
    assert!(index.service("shop", "we").is_empty());
    assert!(index.service("default", "web").is_empty());
}
