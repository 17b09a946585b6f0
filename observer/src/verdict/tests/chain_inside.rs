//! What happens to a way within the cluster: at proxies that open connections of their own, and
//! in pods with a sidecar.

use rstest::rstest;
use serde_json::{Value, json};

use super::chain::{World, front, ingress_nginx, nodes, service};
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer};
use crate::verdict::ClientKind;
use crate::verdict::chain::{Door, Loser, Seen, StageKind, Way};

/// ingress-nginx with these settings in front of shop/web.
fn nginx(policy: &str, data: &Value) -> Vec<Value> {
    [
        nodes(),
        service("shop/web", "Cluster", "TCP", &[1]),
        service("ingress/ingress-nginx", policy, "TCP", &[1, 2, 3]),
        ingress_nginx(data),
    ]
    .concat()
}

const XFF: &[Carrier] = &[Carrier::XForwardedFor];
const PROXY: &[Carrier] = &[Carrier::ProxyV2];
const NONE: &[Carrier] = &[];

/// Which of a proxy's settings decide what it believes (ingress-nginx,
/// user-guide/nginx-configuration/configmap).
#[rstest]
#[case::it_sees_the_client("Local", Keeps::Client, NONE, json!({}), Loser::Proxy, XFF)]
#[case::it_sees_the_node("Cluster", Keeps::Client, NONE, json!({}), Loser::KubeProxy, NONE)]
#[case::nobody_says("Local", Keeps::Own, NONE, json!({}), Loser::LoadBalancer, NONE)]
#[case::it_overwrites("Local", Keeps::Own, XFF, json!({}), Loser::LoadBalancer, NONE)]
#[case::it_believes(
    "Local", Keeps::Own, XFF, json!({"use-forwarded-headers": "true"}), Loser::LoadBalancer, XFF
)]
#[case::it_believes_what_nobody_says(
    "Local", Keeps::Own, NONE, json!({"use-forwarded-headers": "true"}), Loser::LoadBalancer, NONE
)]
#[case::it_believes_another(
    "Local", Keeps::Own, PROXY, json!({"use-forwarded-headers": "true"}), Loser::LoadBalancer, NONE
)]
#[case::it_appends_only_what_it_believes(
    "Local",
    Keeps::Own,
    XFF,
    json!({"compute-full-forwarded-for": "true"}),
    Loser::LoadBalancer,
    NONE
)]
#[case::it_appends(
    "Local",
    Keeps::Own,
    XFF,
    json!({"compute-full-forwarded-for": "true", "use-forwarded-headers": "true"}),
    Loser::LoadBalancer,
    XFF
)]
#[case::it_reads_the_header(
    "Local", Keeps::Own, PROXY, json!({"use-proxy-protocol": "true"}), Loser::LoadBalancer, XFF
)]
#[case::in_spite_of_the_node(
    "Cluster", Keeps::Client, PROXY, json!({"use-proxy-protocol": "true"}), Loser::KubeProxy, XFF
)]
fn a_proxy_tells_whom_it_knows(
    #[case] policy: &str,
    #[case] keeps: Keeps,
    #[case] adds: &[Carrier],
    #[case] data: Value,
    #[case] lost_by: Loser,
    #[case] recoverable: &[Carrier],
) {
    let front = LoadBalancer {
        adds: adds.to_vec(),
        leaves_out_unhealthy_nodes: Some(true),
        ..front(Delivers::NodePort, keeps)
    };
    let world = World::of(&nginx(policy, &data)).behind("ingress/ingress-nginx", front);
    let explained = world.explained("shop/web");
    let ways = explained.ways.iter();
    let ways: Vec<_> = ways.filter(|way| way.door == Door::Proxy).collect();
    let [way] = ways[..] else {
        panic!("one way, not {ways:?}");
    };
    assert_eq!(way.by.as_deref(), Some("Ingress shop/edge"));
    assert_eq!(way.seen, Some(Seen::Proxy));
    assert_eq!(way.lost_by, Some(lost_by));
    assert_eq!(way.recoverable, recoverable);
    let kinds: Vec<_> = way.stages.iter().map(|stage| stage.kind).collect();
    let expected = [
        StageKind::Client,
        StageKind::LoadBalancer,
        StageKind::Node,
        StageKind::Proxy,
        StageKind::Pod,
    ];
    assert_eq!(kinds, expected);
    // One hop more at most behind the proxy, and one before it where any pod of it will do.
    let before = u8::from(policy == "Cluster");
    assert_eq!(way.extra_hops, Some(0..=1 + before));
}

#[test]
fn a_proxy_of_which_nothing_is_known_tells_nothing() {
    let mut items = nginx("Local", &json!({}));
    items.retain(|item| item["kind"] != "IngressClass");
    for item in &mut items {
        if item["kind"] == "Ingress" {
            item["spec"]["ingressClassName"] = json!("edge");
        }
    }
    let world = World::of(&items);
    let explained = world.explained("shop/web");
    let mut ways = explained.ways.iter();
    let way = ways.find(|way| way.door == Door::Proxy).expect("a way");
    assert_eq!((way.seen, way.lost_by), (Some(Seen::Unknown), None));
    assert_eq!(way.recoverable, []);
}

/// A Pod of shop/web that the API server has.
fn pod(name: &str, sidecar: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": name, "uid": name, "labels": {"app": "web"},
            "annotations": sidecar["annotations"],
        },
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": "web"}, sidecar["container"]],
        },
        "status": {"phase": "Running", "podIP": "10.244.1.5", "podIPs": [{"ip": "10.244.1.5"}]},
    })
}

fn with(pods: &[Value], protocol: &str) -> Vec<Value> {
    let mut items = [nodes(), service("shop/web", "Local", protocol, &[1])].concat();
    for item in &mut items {
        if item["kind"] == "Service" {
            item["spec"]["selector"] = json!({"app": "web"});
        }
    }
    [items, pods.to_vec()].concat()
}

fn container(name: &str) -> Value {
    json!({"container": {"name": name}, "annotations": {}})
}

const PLAIN: &str = "other";

#[rstest]
#[case::none(&[container(PLAIN)], "TCP", Some(Seen::Client), None)]
#[case::istio(&[container("istio-proxy")], "TCP", Some(Seen::Loopback), Some(Loser::Mesh))]
#[case::istio_udp(&[container("istio-proxy")], "UDP", Some(Seen::Client), None)]
#[case::tproxy(&[json!({
    "container": {
        "name": "istio-proxy",
        "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"}],
    },
    "annotations": {},
})], "TCP", Some(Seen::Client), None)]
#[case::ambient(&[json!({
    "container": {"name": PLAIN},
    "annotations": {"ambient.istio.io/redirection": "enabled"},
})], "TCP", Some(Seen::Client), None)]
#[case::linkerd(&[container("linkerd-proxy")], "TCP", Some(Seen::Loopback), Some(Loser::Mesh))]
#[case::some(&[container("linkerd-proxy"), container(PLAIN)], "TCP", Some(Seen::Unknown), None)]
fn a_sidecar_takes_connections_over(
    #[case] pods: &[Value],
    #[case] protocol: &str,
    #[case] seen: Option<Seen>,
    #[case] lost_by: Option<Loser>,
) {
    let pods: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(number, sidecar)| pod(&format!("web-{number}"), sidecar))
        .collect();
    let world = World::of(&with(&pods, protocol));
    let explained = world.explained("shop/web");
    let fate = |way: &Way<'_>| (way.seen, way.lost_by);
    let mut open = explained.ways.iter().filter(|way| {
        way.client == ClientKind::External && way.door == Door::NodePort && way.is_open()
    });
    let way = open.next().expect("a way");
    assert_eq!(fate(way), (seen, lost_by));
    // It stands before every client alike, and where nothing comes through it changes nothing.
    let of_pods = |way: &&Way<'_>| way.client == ClientKind::Pod && way.door == Door::ClusterIP;
    let way = explained.ways.iter().find(of_pods).expect("a way of pods");
    assert_eq!(fate(way), (seen, lost_by));
    let closed = explained.ways.iter().filter(|way| way.seen.is_none());
    for way in closed {
        assert_eq!(way.lost_by, None);
        assert!(way.stages.iter().all(|stage| stage.kind != StageKind::Mesh));
    }
}
