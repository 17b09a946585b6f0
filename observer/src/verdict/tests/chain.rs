//! The whole way: what load balancers, nodes, proxies and sidecars make of an address, one after
//! the other.
//!
//! A cluster of three nodes; what is expected follows from the decision table of kube-proxy's
//! modes, and from what each part does by its own documents.

use rstest::rstest;
use serde_json::{Value, json};

use crate::cluster::facts::Facts;
use crate::cluster::finding::Finding;
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer, System};
use crate::cluster::plane::{Dataplane, Found};
use crate::cluster::{Index, Objects, ServiceRef};
use crate::verdict::ClientKind;
use crate::verdict::chain::{Door, Explained, Explainer, Way, Word};

/// The objects, and what is known of them.
pub(super) struct World {
    pub(super) index: Index,
    pub(super) facts: Facts,
}

impl World {
    pub(super) fn of(items: &[Value]) -> Self {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let objects = Objects::from_list(list.to_string().as_bytes());
        let objects = objects.expect("the test's objects");
        Self {
            index: Index::build(&objects),
            facts: Facts::of(&objects),
        }
    }

    /// The same with this in front of a Service.
    pub(super) fn behind(mut self, service: &str, front: LoadBalancer) -> Self {
        self.facts.load_balancers.insert(reference(service), front);
        self
    }

    /// The same with another who translates on the nodes.
    pub(super) fn with(mut self, what: Dataplane) -> Self {
        let because = Vec::new();
        self.facts.dataplane = Found { what, because };
        self
    }

    pub(super) fn explained(&self, service: &str) -> Explained<'_> {
        let explainer = Explainer {
            index: &self.index,
            facts: &self.facts,
            kube_proxy: None,
            client: None,
        };
        let service = reference(service);
        let mut all = explainer.explain(|_| true);
        all.find(|it| it.service == service).expect("the Service")
    }
}

pub(super) fn reference(service: &str) -> ServiceRef {
    let (namespace, name) = service.split_once('/').expect("a namespace");
    ServiceRef {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// Three nodes.
pub(super) fn nodes() -> Vec<Value> {
    let node = |number: u8| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node{number}")},
            "spec": {"podCIDRs": [format!("10.244.{number}.0/24")]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("172.31.0.1{number}")},
            ]},
        })
    };
    (1..=3).map(node).collect()
}

/// An Ingress for shop/web, and ingress-nginx with these settings.
pub(super) fn ingress_nginx(data: &Value) -> Vec<Value> {
    let path = json!({
        "path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"number": 80}}},
    });
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"namespace": "shop", "name": "edge"},
            "spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": [path]}}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "ingress", "name": "ingress-nginx-controller"},
            "data": data,
        }),
    ]
}

/// A Service of type `LoadBalancer` with a pod on each of these nodes.
pub(super) fn service(name: &str, policy: &str, protocol: &str, on: &[u8]) -> Vec<Value> {
    let (namespace, name) = name.split_once('/').expect("a namespace");
    let number = if name == "web" { 1 } else { 2 };
    let endpoint = |node: &u8| {
        json!({
            "addresses": [format!("10.244.{node}.{}", 4 + number)],
            "nodeName": format!("node{node}"),
        })
    };
    let endpoints: Vec<_> = on.iter().map(endpoint).collect();
    let port = json!({
        "name": "http", "port": 80, "nodePort": 30080 + number, "protocol": protocol,
    });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": namespace, "name": name,
                "labels": {"app.kubernetes.io/name": name},
            },
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": policy,
                "clusterIP": format!("10.96.0.{number}"), "ports": [port],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": format!("198.51.100.{number}")}]}},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": namespace, "name": name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": 8080, "protocol": protocol}],
            "endpoints": endpoints,
        }),
    ]
}

/// A load balancer of which only this is known.
pub(super) fn front(delivers: Delivers, keeps: Keeps) -> LoadBalancer {
    LoadBalancer {
        system: System::Other,
        provider: None,
        delivers,
        keeps,
        adds: Vec::new(),
        leaves_out_unhealthy_nodes: None,
        only_nodes: None,
        ports: Vec::new(),
        because: Vec::new(),
    }
}

/// A way as a line: `node1: lost, entry-node by kube-proxy, answered, 0 to 1`.
fn told(way: &Way<'_>) -> String {
    let nodes: Vec<_> = way.nodes.iter().map(|name| &**name).collect();
    let word = |value: Value| value.as_str().unwrap_or("-").to_owned();
    let hops = way.extra_hops.as_ref().map_or_else(
        || "-".to_owned(),
        |hops| format!("{} to {}", hops.start(), hops.end()),
    );
    format!(
        "{}: {}, {} by {}, {}, {hops}",
        nodes.join("+"),
        word(json!(way.source_ip)),
        word(json!(way.seen)),
        word(json!(way.lost_by)),
        word(json!(way.outcome)),
    )
}

/// The ways of clients outside by a door.
fn from_outside(explained: &Explained<'_>, door: Door) -> Vec<String> {
    let ways = explained.ways.iter();
    let ways = ways.filter(|way| way.client == ClientKind::External && way.door == door);
    ways.map(told).collect()
}

const BY_NODES: &[Delivers] = &[Delivers::NodePort, Delivers::VirtualIp, Delivers::Unknown];
const RELAY: &[Delivers] = &[Delivers::Relay];
const POD: &[Delivers] = &[Delivers::Pod];
const NOTHING: &[Delivers] = &[Delivers::Nothing];
const CLUSTER: &[&str] = &["Cluster"];
const LOCAL: &[&str] = &["Local"];
const EITHER: &[&str] = &["Cluster", "Local"];

// One pod, on node1: by the two others the same becomes of a connection, so they are one.
#[rstest]
#[case::nodes_client_cluster(BY_NODES, Keeps::Client, CLUSTER, &[
    "node1: lost, entry-node by kube-proxy, answered, 0 to 0",
    "node2+node3: lost, entry-node by kube-proxy, answered, 1 to 1",
])]
#[case::nodes_client_local(BY_NODES, Keeps::Client, LOCAL, &[
    "node1: preserved, client by -, answered, 0 to 0",
    "node2+node3: unknown, - by -, dropped, -",
])]
#[case::nodes_own_cluster(BY_NODES, Keeps::Own, CLUSTER, &[
    "node1: lost, entry-node by load-balancer, answered, 0 to 0",
    "node2+node3: lost, entry-node by load-balancer, answered, 1 to 1",
])]
#[case::nodes_own_local(BY_NODES, Keeps::Own, LOCAL, &[
    "node1: lost, load-balancer by load-balancer, answered, 0 to 0",
    "node2+node3: unknown, - by -, dropped, -",
])]
#[case::nodes_unknown_cluster(BY_NODES, Keeps::Unknown, CLUSTER, &[
    "node1: lost, entry-node by kube-proxy, answered, 0 to 0",
    "node2+node3: lost, entry-node by kube-proxy, answered, 1 to 1",
])]
#[case::nodes_unknown_local(BY_NODES, Keeps::Unknown, LOCAL, &[
    "node1: unknown, unknown by -, answered, 0 to 0",
    "node2+node3: unknown, - by -, dropped, -",
])]
#[case::pod_client(POD, Keeps::Client, EITHER, &[": preserved, client by -, answered, 0 to 0"])]
#[case::pod_own(POD, Keeps::Own, EITHER, &[
    ": lost, load-balancer by load-balancer, answered, 0 to 0",
])]
#[case::pod_unknown(POD, Keeps::Unknown, EITHER, &[": unknown, unknown by -, answered, 0 to 0"])]
// k3s' servicelb goes to the node port under Local, else from its pod to the cluster address, which
// no external policy touches.
#[case::relay_client_local(RELAY, Keeps::Client, LOCAL, &[
    "node1: preserved, client by -, answered, 0 to 0",
    "node2+node3: unknown, - by -, dropped, -",
])]
#[case::relay_own(RELAY, Keeps::Own, EITHER, &[
    "node1: lost, relay by load-balancer, answered, 0 to 0",
    "node2+node3: lost, relay by load-balancer, answered, 1 to 1",
])]
#[case::relay_unknown(RELAY, Keeps::Unknown, EITHER, &[
    "node1: unknown, unknown by -, answered, 0 to 0",
    "node2+node3: unknown, unknown by -, answered, 1 to 1",
])]
#[case::nothing_client(NOTHING, Keeps::Client, EITHER, &[": unknown, - by -, unanswered, -"])]
#[case::nothing_own(NOTHING, Keeps::Own, EITHER, &[": unknown, - by -, unanswered, -"])]
fn a_load_balancer_and_a_policy(
    #[case] delivers: &[Delivers],
    #[case] keeps: Keeps,
    #[case] policies: &[&str],
    #[case] expected: &[&str],
) {
    for (delivers, policy) in delivers
        .iter()
        .flat_map(|it| policies.iter().map(move |policy| (*it, *policy)))
    {
        let items = [nodes(), service("shop/web", policy, "TCP", &[1])].concat();
        let world = World::of(&items).behind("shop/web", front(delivers, keeps));
        let explained = world.explained("shop/web");
        let ways = from_outside(&explained, Door::LoadBalancer);
        assert_eq!(ways, expected, "{delivers}, {policy}");
    }
}

// Each by its own documents: see `Dataplane`. The pod on node1, and the way by node2.
#[rstest]
#[case::kube_proxy(
    Dataplane::KubeProxy,
    "TCP",
    "lost by kube-proxy",
    "lost by kube-proxy"
)]
#[case::snat(Dataplane::CiliumSnat, "TCP", "preserved by -", "lost by cni")]
#[case::dsr(Dataplane::CiliumDsr, "TCP", "preserved by -", "preserved by -")]
#[case::hybrid_tcp(Dataplane::CiliumHybrid, "TCP", "preserved by -", "preserved by -")]
#[case::hybrid_udp(Dataplane::CiliumHybrid, "UDP", "preserved by -", "lost by cni")]
#[case::cilium(Dataplane::Cilium, "TCP", "preserved by -", "unknown by -")]
#[case::calico(Dataplane::CalicoEbpf, "TCP", "preserved by -", "preserved by -")]
#[case::gke(Dataplane::GkeDataplaneV2, "TCP", "preserved by -", "unknown by -")]
#[case::antrea(Dataplane::AntreaNat, "TCP", "preserved by -", "lost by cni")]
#[case::antrea_dsr(Dataplane::AntreaDsr, "TCP", "preserved by -", "preserved by -")]
#[case::ovn(Dataplane::OvnKubernetes, "TCP", "unknown by -", "unknown by -")]
#[case::kube_router(Dataplane::KubeRouter, "TCP", "unknown by -", "unknown by -")]
fn who_translates_in_kube_proxys_place(
    #[case] what: Dataplane,
    #[case] protocol: &str,
    #[case] here: &str,
    #[case] elsewhere: &str,
) {
    let fate = |way: &&Way<'_>| {
        let [source_ip, lost_by] = [json!(way.source_ip), json!(way.lost_by)];
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        format!("{} by {}", word(&source_ip), word(&lost_by))
    };
    let fates = |policy: &str, door: Door, client: ClientKind| -> Vec<String> {
        let items = [nodes(), service("shop/web", policy, protocol, &[1])].concat();
        let front = front(Delivers::VirtualIp, Keeps::Client);
        let world = World::of(&items).with(what).behind("shop/web", front);
        let explained = world.explained("shop/web");
        let ways = explained.ways.iter();
        let ways = ways.filter(|way| way.client == client && way.door == door);
        ways.map(|way| fate(&way)).collect()
    };
    let outside = ClientKind::External;
    for door in [Door::NodePort, Door::LoadBalancer] {
        assert_eq!(fates("Cluster", door, outside), [here, elsewhere], "{door}");
        let local = ["preserved by -", "unknown by -"];
        assert_eq!(fates("Local", door, outside), local, "{door}");
    }
    let inside = ["preserved by -", "preserved by -"];
    assert_eq!(fates("Cluster", Door::ClusterIP, ClientKind::Pod), inside);
}

#[rstest]
#[case::asks(Some(true), true, None)]
#[case::does_not_ask(Some(false), false, Some(2))]
#[case::not_known(None, false, Some(2))]
fn nodes_without_an_endpoint_are_left_out_by_who_asks(
    #[case] leaves_out: Option<bool>,
    #[case] left_out: bool,
    #[case] closed: Option<usize>,
) {
    let items = [nodes(), service("shop/web", "Local", "TCP", &[1])].concat();
    let front = LoadBalancer {
        leaves_out_unhealthy_nodes: leaves_out,
        ..front(Delivers::NodePort, Keeps::Client)
    };
    let world = World::of(&items).behind("shop/web", front);
    let explained = world.explained("shop/web");
    let by_load_balancer = explained.ways.iter();
    let by_load_balancer: Vec<_> = by_load_balancer
        .filter(|way| way.door == Door::LoadBalancer && way.client == ClientKind::External)
        .map(|way| (way.left_out, way.is_open()))
        .collect();
    assert_eq!(by_load_balancer, [(false, true), (left_out, false)]);
    let verdict = &explained.verdict;
    assert_eq!(verdict.word, Word::Preserved);
    assert_eq!(verdict.closed.map(|(nodes, _)| nodes), closed);
    assert_eq!(verdict.closes(), closed.is_some());
    // At its own node port nobody leaves anything out.
    let at_nodes = explained.ways.iter();
    let mut at_nodes = at_nodes.filter(|way| way.door == Door::NodePort);
    assert!(at_nodes.all(|way| !way.left_out));
}

#[rstest]
#[case::where_the_pod_is(&["node1"], &["node1: preserved, client by -, answered, 0 to 0"], false)]
#[case::where_none_is(&["node2"], &["node2: unknown, - by -, dropped, -"], true)]
#[case::both(&["node1", "node3"], &[
    "node1: preserved, client by -, answered, 0 to 0",
    "node3: unknown, - by -, dropped, -",
], false)]
#[case::gone(&["node9"], &[": unknown, - by -, unanswered, -"], false)]
fn only_some_nodes_are_announced(
    #[case] only: &[&str],
    #[case] expected: &[&str],
    #[case] in_vain: bool,
) {
    let items = [nodes(), service("shop/web", "Local", "TCP", &[1])].concat();
    let front = LoadBalancer {
        only_nodes: Some(only.iter().map(|&name| name.to_owned()).collect()),
        ..front(Delivers::VirtualIp, Keeps::Client)
    };
    let world = World::of(&items).behind("shop/web", front);
    let explained = world.explained("shop/web");
    assert_eq!(from_outside(&explained, Door::LoadBalancer), expected);
    let is_it = |finding: &Finding| matches!(finding, Finding::LocalWithoutEndpoints { .. });
    assert_eq!(explained.findings.iter().any(is_it), in_vain);
}

#[rstest]
#[case::a_pod_on_each(&[1, 2, 3], &["node1+node2+node3: lost, entry-node by kube-proxy, answered, 0 to 1"])]
#[case::on_two(&[1, 3], &[
    "node1+node3: lost, entry-node by kube-proxy, answered, 0 to 1",
    "node2: lost, entry-node by kube-proxy, answered, 1 to 1",
])]
#[case::none(&[], &["node1+node2+node3: unknown, - by -, refused, -"])]
fn nodes_that_are_alike_are_one(#[case] on: &[u8], #[case] expected: &[&str]) {
    let items = [nodes(), service("shop/web", "Cluster", "TCP", on)].concat();
    let explained = World::of(&items);
    let explained = explained.explained("shop/web");
    assert_eq!(from_outside(&explained, Door::NodePort), expected);
}

#[test]
fn ways_that_differ_in_hops_only_take_each_other_in() {
    let items = [nodes(), service("shop/web", "Cluster", "TCP", &[1])].concat();
    let world = World::of(&items);
    let explained = world.explained("shop/web");
    let at_nodes = explained.ways.iter();
    let at_nodes: Vec<_> = at_nodes
        .filter(|way| way.door == Door::NodePort && way.client == ClientKind::External)
        .collect();
    let [near, far] = at_nodes[..] else {
        panic!("two ways, not {at_nodes:?}");
    };
    assert!(near.differs_in_hops_only(far));
    let mut both = near.clone();
    both.take_in(far);
    assert_eq!(
        told(&both),
        "node1+node2+node3: lost, entry-node by kube-proxy, answered, 0 to 1"
    );
    assert_eq!(both.addresses.len(), 3);
    let who: Vec<_> = both.stages.iter().map(|stage| &*stage.who).collect();
    assert_eq!(who, ["external", "node", "pod"]);
    let preserved = explained.ways.iter();
    let mut others = preserved.filter(|way| way.client != ClientKind::External);
    assert!(others.all(|way| !near.differs_in_hops_only(way)));
}

#[rstest]
#[case::nothing(&[], &[])]
#[case::header(&[Carrier::ProxyV2], &[Carrier::ProxyV2])]
fn what_a_load_balancer_adds_is_there_behind_it(
    #[case] adds: &[Carrier],
    #[case] expected: &[Carrier],
    #[values(Keeps::Client, Keeps::Own, Keeps::Unknown)] keeps: Keeps,
) {
    let items = [nodes(), service("shop/web", "Cluster", "TCP", &[1])].concat();
    let front = LoadBalancer {
        adds: adds.to_vec(),
        ..front(Delivers::Pod, keeps)
    };
    let world = World::of(&items).behind("shop/web", front);
    let explained = world.explained("shop/web");
    let mut ways = explained.ways.iter();
    let way = ways.find(|way| way.door == Door::LoadBalancer && way.nodes.is_empty());
    let way = way.expect("a way past the nodes");
    assert_eq!(way.recoverable, expected);
    assert_eq!(way.stages[0].recoverable, [], "not before it");
    let lost = keeps == Keeps::Own;
    assert_eq!(
        explained.verdict.recoverable,
        if lost { expected } else { &[] }
    );
}
