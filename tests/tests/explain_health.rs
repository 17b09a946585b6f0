//! `observer explain --health`: what nodes really say at a Service's `healthCheckNodePort`.
//!
//! Goal: whoever asks is told of each node whether it says what is expected of it, and of a node
//! that says nothing, or nonsense, within seconds. Method: a network namespace has the addresses
//! of the nodes; listeners there answer as kube-proxy does (`pkg/proxy/healthcheck`,
//! `service_health.go`), or do not.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::{
    explained::{self, Said},
    netns::Namespace,
    privilege,
};

const PORT: u16 = 30_999;
/// Nobody is waited for longer than three seconds; a busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod on node-a and none on node-b.
const MANIFESTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"},
     "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-b"},
     "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.12"}]}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
     "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
              "healthCheckNodePort": 30999, "loadBalancerClass": "shop.example/lb",
              "ports": [{"name": "http", "port": 80}]}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
     "metadata": {"namespace": "shop", "name": "web-1",
                  "labels": {"kubernetes.io/service-name": "web"}},
     "ports": [{"name": "http", "port": 8080}],
     "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "node-a"}]}
]}"#;

/// What a node does with a connection to its port.
#[derive(Clone, Copy)]
enum Node {
    /// Answers as kube-proxy does: the status, and so many endpoints.
    Answers(u16, usize),
    /// Takes it and says nothing.
    Silent,
    /// Says what is not HTTP.
    Garbage,
    /// Hangs up.
    HangsUp,
    /// Has no such port.
    Closed,
}

/// As `service_health.go` writes it.
fn answer(status: u16, endpoints: usize) -> String {
    let healthy = endpoints > 0;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t}},\n\t\
         \"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n\
         X-Content-Type-Options: nosniff\r\nX-Load-Balancing-Endpoint-Weight: {endpoints}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Node {
    fn serve(self, namespace: &Namespace, address: &str) -> Result<()> {
        if matches!(self, Self::Closed) {
            return Ok(());
        }
        let at = SocketAddr::new(address.parse()?, PORT);
        let listener = namespace.run(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("failed to listen at {at}"))?;
        thread::spawn(move || {
            // Those of whom nothing is said are held, not hung up on.
            let mut held = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let text = match self {
                    Self::Answers(status, endpoints) => answer(status, endpoints),
                    Self::Garbage => "\0\x1b[2J kube-proxy\r\n\r\n".to_owned(),
                    Self::Silent | Self::HangsUp | Self::Closed => String::new(),
                };
                let mut asked = [0; 4096];
                let _gone = stream.read(&mut asked);
                let _gone = stream.write_all(text.as_bytes());
                if matches!(self, Self::Silent) {
                    held.push(stream);
                }
            }
        });
        Ok(())
    }
}

fn ask(a: Node, b: Node, more: &[&str]) -> Said {
    let namespace = Namespace::create("nodes").expect("a namespace");
    let addresses = "addr add 192.0.2.11/32 dev lo\naddr add 192.0.2.12/32 dev lo";
    namespace.ip(addresses).expect("addresses");
    a.serve(&namespace, "192.0.2.11").expect("serves");
    b.serve(&namespace, "192.0.2.12").expect("serves");
    let explain = explained::explain(&[&["--health", "-f", "-"], more].concat());
    let explain = explain.expect("an observer");
    let mut command = namespace.command(explain.get_program());
    command.args(explain.get_args()).env("LC_ALL", "C");
    let began = Instant::now();
    let said = explained::run(command, MANIFESTS).expect("runs");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    said
}

/// The lines that say what a node answered: the last ones.
fn lines(said: &Said) -> [&str; 2] {
    let mut lines = said.stdout.lines().rev();
    let (b, a) = (lines.next().expect("a line"), lines.next().expect("a line"));
    [a, b]
}

#[test]
fn nodes_that_say_what_is_expected_agree() {
    if !privilege::granted("nodes_that_say_what_is_expected_agree") {
        return;
    }
    let said = ask(Node::Answers(200, 1), Node::Answers(503, 0), &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let [a, b] = lines(&said);
    for (line, node, address, status) in [
        (a, "node-a", "192.0.2.11", "200"),
        (b, "node-b", "192.0.2.12", "503"),
    ] {
        assert!(line.starts_with("shop/web: "), "{line}");
        for word in [node, address, status] {
            assert!(line.contains(word), "{word} in {line}");
        }
    }
    // What was found and what nodes said are two things: the worse one counts.
    let said = ask(
        Node::Answers(200, 1),
        Node::Answers(503, 0),
        &["--fail-on", "lost"],
    );
    assert_ne!(said.code, Some(1), "{}", said.stderr);
}

#[test]
fn a_node_that_says_something_else_is_told_with_what_it_says() {
    if !privilege::granted("a_node_that_says_something_else_is_told_with_what_it_says") {
        return;
    }
    let said = ask(Node::Answers(503, 0), Node::Answers(200, 2), &[]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    let [a, b] = lines(&said);
    for (line, words) in [
        (a, ["node-a", "200", "503", "\"localEndpoints\": 0"]),
        (b, ["node-b", "200", "503", "\"localEndpoints\": 2"]),
    ] {
        for word in words {
            assert!(line.contains(word), "{word} in {line}");
        }
    }
}

#[test]
fn a_node_that_says_nothing_that_can_be_read_is_told_apart() {
    if !privilege::granted("a_node_that_says_nothing_that_can_be_read_is_told_apart") {
        return;
    }
    for (node, says) in [
        (Node::Silent, "none within 3 s"),
        (Node::Closed, "refused"),
        (Node::Garbage, "node-b"),
        (Node::HangsUp, "node-b"),
        (Node::Answers(302, 0), "302"),
    ] {
        let said = ask(Node::Answers(200, 1), node, &[]);
        assert_eq!(said.code, Some(1), "{says}: {}{}", said.stdout, said.stderr);
        let [a, b] = lines(&said);
        assert!(a.contains("node-a") && a.contains("200"), "{a}");
        assert!(b.contains("node-b") && b.contains(says), "{says} in {b}");
        assert!(!b.contains(char::is_control), "{b:?}");
    }
}

#[test]
fn a_json_document_stays_one_that_can_be_read() {
    if !privilege::granted("a_json_document_stays_one_that_can_be_read") {
        return;
    }
    let said = ask(
        Node::Answers(200, 1),
        Node::Answers(503, 0),
        &["-o", "json"],
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.json().expect("the document, and nothing after it");
}
