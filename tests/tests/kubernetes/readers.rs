//! Who waits for a PROXY header, by an API server: found on real connections.
//!
//! Method: the pods of a Service are ingress-nginx by their objects; what their sockets got says how
//! a connection began, and the `ConfigMap` on the server what ingress-nginx makes of that.

use std::{net::Ipv4Addr, thread, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    api_server::{ApiServer, Options},
    kubeproxy::{Backend, Family, Mode},
    observer_process::{Finished, ObserverProcess},
    payload::{Stage, TRUSTED},
    privilege,
};

use super::demo_items;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.50 172.31.0.11 49508 30080\r\n";
const SETTINGS: &str = "ConfigMap shop/settings";

/// The demo's objects, with pods of shop/web that are ingress-nginx.
fn items(use_proxy_protocol: &str) -> Vec<Value> {
    let mut items = demo_items();
    let is_of_web = |item: &&Value| {
        item["kind"] == "EndpointSlice"
            && item["addressType"] == "IPv4"
            && item["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    };
    let slice = items.iter().find(is_of_web).expect("a slice");
    let endpoints = slice["endpoints"].as_array().expect("a list");
    let pods: Vec<Value> = endpoints.iter().map(nginx).collect();
    items.extend(pods);
    items.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "shop", "name": "settings"},
        "data": {"use-proxy-protocol": use_proxy_protocol},
    }));
    items
}

/// The Pod of an endpoint.
fn nginx(endpoint: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": endpoint["targetRef"]["name"]},
        "spec": {
            "nodeName": endpoint["nodeName"],
            "containers": [{
                "name": "controller",
                "image": "registry.k8s.io/ingress-nginx/controller:v1.15.1",
                "args": ["--configmap=$(POD_NAMESPACE)/settings"],
            }],
        },
        "status": {"phase": "Running", "podIP": endpoint["addresses"][0]},
    })
}

/// A cluster, and its API server on the node by which connections enter.
///
/// In the order of the dismantling.
struct Followed {
    server: ApiServer,
    stage: Stage,
}

impl Followed {
    fn raise(use_proxy_protocol: &str) -> Self {
        let stage = Stage::raise(Mode::Iptables(Backend::Nft), Family::V4).expect("raised");
        let node = stage.lab().node("node1").expect("a node");
        let options = Options {
            within: Some((&node.namespace, Ipv4Addr::LOCALHOST.into())),
            ..Options::default()
        };
        let server = ApiServer::start(&items(use_proxy_protocol), &options);
        Self {
            server: server.expect("an API server"),
            stage,
        }
    }

    /// What the node by which they enter says of two connections: a client's, and one of who stands in
    /// front and sends a header.
    fn observe(&self, more: &[&str]) -> Finished {
        let kubeconfig = self.server.kubeconfig();
        let kubeconfig = kubeconfig.to_str().expect("text");
        let arguments = [&["--kubeconfig", kubeconfig], &TRUSTED[..], more].concat();
        let node = self.stage.lab().node("node1").expect("a node");
        let observer = ObserverProcess::start_with(node, &arguments).expect("an observer");
        let Self { stage, .. } = self;
        let (door, pause) = (stage.door().expect("one"), Duration::ZERO);
        let plain = stage.say(stage.clients()[0], door, &[REQUEST], pause);
        plain.expect("a request");
        let begun = [HEADER, REQUEST].concat();
        let sent = stage.say(stage.front().expect("one"), door, &[&begun], pause);
        sent.expect("a header and a request");
        observer.wait_for_records(2).expect("both are told of");
        let finished = observer.stop().expect("stops");
        assert!(finished.status.success(), "{}", finished.stderr);
        finished
    }
}

/// The findings about PROXY headers of what a client and who stands in front opened.
fn found(finished: &Finished) -> [Vec<String>; 2] {
    ["203.0.113.50", "192.0.2.7"].map(|client| {
        let mut records = finished.records.iter();
        let record = records.find(|record| record["client"]["ip"] == client);
        let record = record.unwrap_or_else(|| panic!("{client}: {}", finished.stderr));
        let codes = record["findings"].as_array().expect("a list").iter();
        let codes = codes.map(|finding| finding["code"].as_str().expect("a word").to_owned());
        codes
            .filter(|code| code.starts_with("proxy-header"))
            .collect()
    })
}

#[rstest]
#[case::expected("true", ["proxy-header-missing", ""])]
#[case::not_expected("false", ["", "proxy-header-not-understood"])]
fn who_waits_for_a_header_is_known(#[case] use_proxy_protocol: &str, #[case] expected: [&str; 2]) {
    if !privilege::granted("who_waits_for_a_header_is_known") {
        return;
    }
    let followed = Followed::raise(use_proxy_protocol);
    let finished = followed.observe(&["--payload", "on"]);
    let expected = expected.map(|code| Vec::from_iter((!code.is_empty()).then(|| code.to_owned())));
    assert_eq!(found(&finished), expected);
    // By their names, and nothing else.
    let requests = followed.server.requests();
    let of = |resource: &str| {
        let requests = requests.iter().filter(|it| it.contains(resource));
        requests.cloned().collect::<Vec<_>>()
    };
    for request in of("/configmaps") {
        assert!(request.contains("fieldSelector=metadata.name"), "{request}");
    }
    let settings = of("/namespaces/shop/configmaps");
    assert_eq!(settings.len(), 1, "{settings:#?}");
    for other in ["/deployments", "/daemonsets", "/ingresses", "/secrets"] {
        assert_eq!(of(other), [] as [String; 0]);
    }
}

#[test]
fn without_first_bytes_nothing_of_it_is_asked_for() {
    if !privilege::granted("without_first_bytes_nothing_of_it_is_asked_for") {
        return;
    }
    let followed = Followed::raise("true");
    assert_eq!(found(&followed.observe(&[])), [[] as [&str; 0], []]);
    let requests = followed.server.requests();
    let of_proxies = requests
        .iter()
        .filter(|it| it.contains("/namespaces/shop/"));
    assert_eq!(of_proxies.collect::<Vec<_>>(), [] as [&String; 0]);
}

/// Once, with what is lost; nothing else is missing.
#[test]
fn what_may_not_be_read_is_said_once() {
    if !privilege::granted("what_may_not_be_read_is_said_once") {
        return;
    }
    let followed = Followed::raise("true");
    followed
        .server
        .misbehave(|faults| faults.forbidden.push("configmaps".to_owned()));
    let finished = followed.observe(&["--payload", "on"]);
    assert_eq!(found(&finished), [[] as [&str; 0], []]);
    let lost = format!("findings about PROXY headers need {SETTINGS}");
    let said = finished.stderr.matches(&lost).count();
    assert_eq!(said, 1, "{}", finished.stderr);

    let node = followed.stage.lab().node("node1").expect("a node");
    let kubeconfig = followed.server.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("text");
    let arguments = ["--kubeconfig", kubeconfig, "--payload", "known"];
    let agent = ObserverProcess::start_agent(node, &arguments).expect("an agent");
    // Of a changed cluster it is not asked again.
    for number in 0..3 {
        followed.server.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "more", "name": format!("service-{number}")},
            "spec": {"clusterIP": format!("10.97.0.{number}"), "ports": [{"port": 80}]},
        }));
        thread::sleep(Duration::from_millis(1_200));
    }
    let finished = agent.stop().expect("stops");
    let requests = followed.server.requests();
    let is_refused =
        |it: &&String| it.starts_with("403") && it.contains("metadata.name%3Dsettings");
    let refused = requests.iter().filter(is_refused);
    // One by each.
    assert_eq!(refused.count(), 2, "{requests:#?}");
    assert_eq!(
        finished.stderr.matches(&lost).count(),
        1,
        "{}",
        finished.stderr
    );
}
