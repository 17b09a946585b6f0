//! What a record must say of a connection, field by field.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::claims::{only_service, pod_name, port_name};
use crate::{
    client::{Answer, Failure},
    kubeproxy::{
        Mode,
        doors::{Found, FrontDoor, Policy},
    },
    lab::Lab,
    traffic::{Client, Opened},
};

/// What every packet of a lab sets out with.
const TTL: u8 = 64;

/// Fields of a record by their JSON pointers, and what they must be.
pub(super) type Expected = Vec<(&'static str, Value)>;

/// What the nodes on the way of a connection must say.
pub(super) struct Halves {
    /// The node that the client enters by.
    pub(super) first: Half,
    /// The backend's node, if it is another and could know that this came through a Service.
    pub(super) second: Option<Half>,
}

/// What one node must say.
pub(super) struct Half {
    pub(super) node: String,
    pub(super) client: SocketAddr,
    pub(super) front_door: SocketAddr,
    /// Whether it must say anything. Packets that never left a node's own stack pass no device
    /// that is observed.
    pub(super) must_be_reported: bool,
    pub(super) expected: Expected,
}

impl Halves {
    pub(super) fn of(lab: &Lab, opened: &Opened) -> Self {
        let first = first_half(lab, opened);
        let second = opened
            .result
            .as_ref()
            .ok()
            .and_then(|answer| second_half(lab, opened, answer));
        Self { first, second }
    }
}

/// What the node that the client entered by must say.
fn first_half(lab: &Lab, opened: &Opened) -> Half {
    let Opened {
        way,
        client,
        result,
    } = opened;
    let door = &way.door;
    let kind = match way.client {
        Client::External(_) => "external",
        Client::Pod { .. } => "pod",
        Client::Node(_) => "node",
    };
    let mut expected = common(&door.entry);
    expected.extend([
        (
            "/service",
            json!({"namespace": door.namespace, "name": door.service, "port": port_name(&door.port_name)}),
        ),
        (
            "/front_door",
            json!({"kind": door.kind.as_str(), "ip": door.to.ip(), "port": door.to.port()}),
        ),
        (
            "/client",
            json!({"ip": client.ip(), "port": client.port(), "kind": kind, "recovered": null}),
        ),
        // A lab's kube-proxy does what a kube-proxy should do.
        ("/as_expected", json!(true)),
    ]);
    match result {
        Ok(answer) => expected.extend(answered(lab, opened, answer)),
        Err(failure) => expected.extend(nobody_chosen(lab, opened, failure)),
    }
    let delivered_here = result
        .as_ref()
        .map_or(true, |answer| is_of_host(lab, &door.entry, answer));
    Half {
        node: door.entry.clone(),
        client: *client,
        front_door: door.to,
        must_be_reported: !(delivered_here && matches!(way.client, Client::Node(_))),
        expected,
    }
}

fn answered(lab: &Lab, opened: &Opened, answer: &Answer) -> Expected {
    let door = &opened.way.door;
    let node = lab.plan().node_of(answer.backend.ip());
    let service = (&*door.namespace, &*door.service);
    let mut expected = chosen(lab, answer, Some(service));
    let extra_hops = node.map(|node| u8::from(node != door.entry));
    expected.push(("/extra_hops", json!(extra_hops)));
    let out = lab.interface_towards(&door.entry, answer.backend.ip());
    if answer.peer_seen.ip() == opened.client.ip() {
        expected.extend(kept());
    } else {
        expected.extend([
            ("/source_ip", json!("lost")),
            (
                "/lost_at",
                json!({"node": door.entry, "interface": out, "by": "kube-proxy"}),
            ),
            ("/cause/code", json!(why_lost(lab, opened, answer))),
        ]);
    }
    let arrival = arrival(lab, opened);
    let routed_there =
        node.is_some_and(|node| node != door.entry) && !lab.plan().is_of_host(answer.backend.ip());
    expected.extend(step(&Step {
        arrival,
        out,
        ttl_out: ttl_out(lab, opened),
        reply_ttl: TTL - u8::from(routed_there),
    }));
    expected
}

/// Why kube-proxy masqueraded. What calls itself and what the node itself sends is masqueraded
/// under any setting; of the rest, the setting decides that the front door is under.
fn why_lost(lab: &Lab, opened: &Opened, answer: &Answer) -> &'static str {
    let door = &opened.way.door;
    match (&opened.way.client, door.policy) {
        _ if answer.backend.ip() == opened.client.ip() => "hairpin",
        (Client::Node(_), _) => "node-local-client",
        (_, Policy::Cluster) if door.is_external() => "external-traffic-policy-cluster",
        (_, Policy::Local) if door.is_external() => "unknown",
        _ if lab.kube_proxy().masquerade_all => "masquerade-all",
        _ => "outside-cluster-cidr",
    }
}

/// What the backend's node must say of what another node sent it: only what it saw itself.
/// Nothing, where a pod's own address reached it: that is how pods call each other without any
/// Service, too.
fn second_half(lab: &Lab, opened: &Opened, answer: &Answer) -> Option<Half> {
    let entry = &opened.way.door.entry;
    let Answer {
        local: _,
        peer_seen,
        backend,
        pod: _,
    } = answer;
    let node = lab
        .plan()
        .node_of(backend.ip())
        .filter(|node| node != entry)?;
    if lab.plan().is_of_pod(peer_seen.ip()) {
        return None;
    }
    let is_client =
        matches!(opened.way.client, Client::External(address) if address == peer_seen.ip());
    let kind = match lab.plan().node_of(peer_seen.ip()) {
        Some(_) => "node",
        None if is_client => "external",
        // A tunnel's or a bridge's, which no object tells of.
        None => "unknown",
    };
    let mut expected = common(node);
    expected.extend(chosen(lab, answer, None));
    expected.extend([
        ("/service", only_service(lab, *backend)),
        (
            "/front_door",
            json!({"kind": "Pod", "ip": backend.ip(), "port": backend.port()}),
        ),
        (
            "/client",
            json!({
                "ip": peer_seen.ip(), "port": peer_seen.port(), "kind": kind, "recovered": null,
            }),
        ),
        ("/expected", json!(null)),
        ("/as_expected", json!(null)),
    ]);
    if is_client {
        expected.extend(kept());
    } else {
        expected.extend([
            ("/source_ip", json!("unknown")),
            ("/cause/code", json!("masqueraded-before-this-node")),
            ("/lost_at", json!(null)),
            ("/extra_hops", json!(null)),
        ]);
    }
    let ttl_in = ttl_out(lab, opened);
    expected.extend(step(&Step {
        arrival: Some((lab.interface_between_nodes(backend.ip()), ttl_in)),
        out: lab.interface_towards(node, backend.ip()),
        ttl_out: ttl_in - 1,
        reply_ttl: TTL,
    }));
    Some(Half {
        node: node.to_owned(),
        client: *peer_seen,
        front_door: *backend,
        must_be_reported: true,
        expected,
    })
}

fn common(node: &str) -> Expected {
    vec![
        ("/schema", json!("observer.connection/v1")),
        ("/node", json!(node)),
        ("/from", json!("start")),
        ("/protocol", json!("TCP")),
    ]
}

/// An endpoint was chosen, and it answered. `service`: whose endpoint it is known to be.
fn chosen(lab: &Lab, answer: &Answer, service: Option<(&str, &str)>) -> Expected {
    let Answer {
        local: _,
        peer_seen,
        backend,
        pod: _,
    } = answer;
    let node = lab.plan().node_of(backend.ip());
    let pod = pod_name(lab, *backend, service);
    vec![
        (
            "/backend",
            json!({"ip": backend.ip(), "port": backend.port(), "pod": pod, "node": node}),
        ),
        (
            "/source_seen",
            json!({"ip": peer_seen.ip(), "port": peer_seen.port()}),
        ),
        ("/outcome", json!("answered")),
        ("/outcome_cause", json!(null)),
    ]
}

fn kept() -> Expected {
    vec![
        ("/source_ip", json!("preserved")),
        ("/lost_at", json!(null)),
        ("/cause", json!(null)),
    ]
}

/// No endpoint was chosen. The refusals of a lab all reach their client, so what the client
/// felt is what happened.
fn nobody_chosen(lab: &Lab, opened: &Opened, failure: &Failure) -> Expected {
    let outcome = match failure {
        Failure::Refused => "refused",
        Failure::TimedOut => "dropped",
        // Nothing in a lab ends so; the observer's own word then shows up as a disagreement.
        Failure::Reset
        | Failure::Unreachable(_)
        | Failure::Other(_)
        | Failure::NotABackend { .. }
        | Failure::Lab(_) => "no outcome that a lab knows",
    };
    let mut expected = vec![
        ("/source_ip", json!("unknown")),
        ("/outcome", json!(outcome)),
        (
            "/outcome_cause/code",
            json!(why_nobody(&opened.way.door, opened.client)),
        ),
    ];
    expected.extend(
        [
            "/backend",
            "/source_seen",
            "/lost_at",
            "/cause",
            "/extra_hops",
            "/path/0/out",
            "/path/0/ttl_out",
            "/path/0/reply_ttl_in",
            "/path/0/forward_ns",
        ]
        .map(|field| (field, json!(null))),
    );
    let arrival = arrival(lab, opened);
    expected.extend([
        ("/path/0/in", json!(arrival.map(|(interface, _)| interface))),
        ("/path/0/ttl_in", json!(arrival.map(|(_, ttl)| ttl))),
    ]);
    expected
}

fn why_nobody(door: &FrontDoor, client: SocketAddr) -> &'static str {
    let admitted =
        door.admits.is_empty() || door.admits.iter().any(|range| range.contains(&client.ip()));
    match door.endpoints {
        _ if !door.served => "not-a-node-port-address",
        Found::Nothing => "no-endpoints",
        _ if !admitted => "source-ranges",
        Found::NoneHere => "no-local-endpoints",
        Found::Some => "unknown",
    }
}

/// How a connection passed a node.
struct Step<'lab> {
    /// By which interface it came, and with which TTL; none for a client on the node.
    arrival: Option<(&'lab str, u8)>,
    /// By which it left; none if it was delivered to the host.
    out: Option<&'lab str>,
    ttl_out: u8,
    /// With which TTL the reply came, if it came by an interface.
    reply_ttl: u8,
}

fn step(step: &Step<'_>) -> Expected {
    let Step {
        arrival,
        out,
        ttl_out,
        reply_ttl,
    } = step;
    let mut expected = vec![
        ("/path/0/in", json!(arrival.map(|(interface, _)| interface))),
        ("/path/0/ttl_in", json!(arrival.map(|(_, ttl)| ttl))),
        ("/path/0/out", json!(out)),
        ("/path/0/ttl_out", json!(out.map(|_| ttl_out))),
        ("/path/0/reply_ttl_in", json!(out.map(|_| reply_ttl))),
    ];
    if out.is_none() || arrival.is_none() {
        expected.push(("/path/0/forward_ns", json!(null)));
    }
    expected
}

/// By which interface the client's packets come to the node they enter by, and with which TTL.
fn arrival<'lab>(lab: &'lab Lab, opened: &Opened) -> Option<(&'lab str, u8)> {
    let interface = match &opened.way.client {
        Client::External(_) => lab.wire(),
        Client::Pod { name, node } => lab.pod(name, node)?.interface(),
        Client::Node(_) => return None,
    };
    Some((interface, TTL))
}

/// With which TTL a connection leaves the node that it enters by. Forwarding takes one, and so does
/// a virtual server, also of what the node itself sends (`net/netfilter/ipvs/ip_vs_xmit.c`,
/// `decrement_ttl`).
fn ttl_out(lab: &Lab, opened: &Opened) -> u8 {
    let forwarded = arrival(lab, opened).is_some() || lab.kube_proxy().mode == Mode::Ipvs;
    TTL - u8::from(forwarded)
}

/// Whether a node's own network answered, on that node.
fn is_of_host(lab: &Lab, node: &str, answer: &Answer) -> bool {
    let backend = answer.backend.ip();
    lab.plan().is_of_host(backend) && lab.plan().node_of(backend) == Some(node)
}
