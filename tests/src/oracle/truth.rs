//! What a record must say of a connection, field by field.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::claims::{self, only_service, pod_name};
use crate::{
    client::{Answer, Failure},
    kubeproxy::doors::{Found, FrontDoor, Kind, Policy},
    lab::{Lab, LabPod},
    protocol::Protocol,
    traffic::{Client, Opened},
};

mod passage;

use passage::{Step, TTL, arrival, is_bridged, is_of_host, step, ttl_out};

/// Fields of a record by their JSON pointers, and what they must be.
pub(super) type Expected = Vec<(&'static str, Value)>;

/// What the nodes on the way of a connection must say.
pub(super) struct Halves {
    /// The node of a pod that came to another node's front door.
    pub(super) before: Option<Half>,
    /// The node that the client enters by.
    pub(super) first: Half,
    /// The backend's node, if it is another and could know that this came through a Service.
    pub(super) second: Option<Half>,
}

/// What one node must say.
pub(super) struct Half {
    pub(super) node: String,
    pub(super) protocol: Protocol,
    pub(super) client: SocketAddr,
    pub(super) front_door: SocketAddr,
    /// Whether it must say anything. Packets that never left a node's own stack pass no device
    /// that is observed.
    pub(super) must_be_reported: bool,
    pub(super) expected: Expected,
}

impl Halves {
    pub(super) fn of(lab: &Lab, opened: &Opened) -> Self {
        let before = half_before(lab, opened);
        let first = first_half(lab, opened);
        let second = opened
            .result
            .as_ref()
            .ok()
            .and_then(|answer| second_half(lab, opened, answer));
        Self {
            before,
            first,
            second,
        }
    }
}

/// What the node of a pod must say that came to another node's front door: that it went there, and
/// what it heard. What became of it there, it cannot know.
fn half_before(lab: &Lab, opened: &Opened) -> Option<Half> {
    let Opened {
        way,
        client,
        result,
    } = opened;
    let door = &way.door;
    let Client::Pod { name, node } = &way.client else {
        return None;
    };
    if *node == door.entry {
        return None;
    }
    let outcome = match result {
        Ok(_) | Err(Failure::Silent) => "answered",
        Err(Failure::Refused) => "refused",
        Err(_) => "unanswered",
    };
    let mut expected = common(node, door.protocol);
    expected.extend([
        ("/service", service(lab, door)),
        ("/front_door", front_door(door)),
        ("/client", self::client(*client, "pod")),
        ("/backend", json!(null)),
        ("/source_seen", json!(null)),
        ("/source_ip", json!("unknown")),
        ("/lost_at", json!(null)),
        ("/cause", json!(null)),
        ("/extra_hops", json!(null)),
        ("/expected", json!(null)),
        ("/outcome", json!(outcome)),
        (
            "/path/0/in",
            json!(lab.pod(name, node).map(LabPod::interface)),
        ),
        ("/path/0/ttl_in", json!(TTL)),
        ("/path/0/out", json!(lab.wire())),
        ("/path/0/ttl_out", json!(TTL - 1)),
    ]);
    Some(Half {
        node: node.clone(),
        protocol: door.protocol,
        client: *client,
        front_door: door.to,
        must_be_reported: true,
        expected,
    })
}

fn client(address: SocketAddr, kind: &str) -> Value {
    json!({
        "ip": address.ip(), "port": address.port(), "kind": kind, "recovered": null,
        "recovered_from": null, "hops_listed": null, "not_recovered": null, "server_name": null,
    })
}

fn front_door(door: &FrontDoor) -> Value {
    json!({"kind": door.kind.as_str(), "ip": door.to.ip(), "port": door.to.port()})
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
    let mut expected = common(&door.entry, door.protocol);
    expected.extend([
        ("/service", service(lab, door)),
        ("/front_door", front_door(door)),
        ("/client", self::client(*client, kind)),
        ("/as_expected", json!(as_expected(lab, opened))),
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
        protocol: door.protocol,
        client: *client,
        front_door: door.to,
        must_be_reported: !(delivered_here && matches!(way.client, Client::Node(_))),
        expected,
    }
}

/// The Service of a front door.
fn service(lab: &Lab, door: &FrontDoor) -> Value {
    match door.kind {
        Kind::HostPort => Value::Null,
        Kind::Pod => only_service(lab, door.protocol, door.to),
        _ => claims::service(lab, &door.namespace, &door.service, &door.port_name),
    }
}

/// Whether kube-proxy's promise is kept; none where it has no part. A lab's kube-proxy does what a
/// kube-proxy should do: only another can break it.
fn as_expected(lab: &Lab, opened: &Opened) -> Option<bool> {
    let Opened {
        way,
        client,
        result,
    } = opened;
    let answer = result.as_ref().ok();
    let lost_to_another = answer.is_some_and(|answer| {
        answer.peer_seen.ip() != client.ip() && why_lost(lab, opened, answer).0 == "cni"
            // Of what is no pod, nobody promises a pod anything.
            && (lab.plan().is_of_pod(answer.backend.ip())
                || !matches!(way.client, Client::Pod { .. }))
    });
    way.door.kind.is_of_service().then_some(!lost_to_another)
}

fn answered(lab: &Lab, opened: &Opened, answer: &Answer) -> Expected {
    let door = &opened.way.door;
    let node = lab.plan().node_of(answer.backend.ip());
    let service = (&*door.namespace, &*door.service);
    let of_service = door.kind.is_of_service().then_some(service);
    let mut expected = chosen(lab, door.protocol, answer, of_service);
    let extra_hops = node.map(|node| u8::from(node != door.entry));
    expected.push(("/extra_hops", json!(extra_hops)));
    let out = lab.interface_towards(&door.entry, answer.backend.ip());
    if answer.peer_seen.ip() == opened.client.ip() {
        expected.extend(kept());
    } else {
        let (by, why) = why_lost(lab, opened, answer);
        expected.extend([
            ("/source_ip", json!("lost")),
            (
                "/lost_at",
                json!({"node": door.entry, "interface": out, "by": by}),
            ),
            ("/cause/code", json!(why)),
        ]);
    }
    let arrival = arrival(lab, opened);
    let routed_there =
        node.is_some_and(|node| node != door.entry) && !lab.plan().is_of_host(answer.backend.ip());
    let bridged = is_bridged(lab, opened, answer);
    expected.extend(step(&Step {
        arrival,
        out,
        ttl_out: ttl_out(lab, opened, bridged),
        reply_ttl: TTL - u8::from(routed_there),
    }));
    expected
}

/// Who masqueraded, and why. What calls itself and what the node itself sends is masqueraded
/// under any setting; of the rest, the setting decides that the front door is under. What no
/// setting of kube-proxy's masquerades, the lab's network plugin does.
fn why_lost(lab: &Lab, opened: &Opened, answer: &Answer) -> (&'static str, &'static str) {
    let door = &opened.way.door;
    let by = if door.kind == Kind::HostPort {
        "cni"
    } else {
        "kube-proxy"
    };
    let is_pod = matches!(opened.way.client, Client::Pod { .. });
    let cidrs = &lab.kube_proxy().cluster_cidrs;
    let is_inside = cidrs.iter().any(|cidr| cidr.contains(&opened.client.ip()));
    match (&opened.way.client, door.policy) {
        _ if answer.backend.ip() == opened.client.ip() => (by, "hairpin"),
        (Client::Node(_), _) if door.kind != Kind::Pod => (by, "node-local-client"),
        _ if !door.kind.is_of_service() => ("cni", "cni-masquerade"),
        (_, Policy::Cluster) if door.is_external() => {
            ("kube-proxy", "external-traffic-policy-cluster")
        }
        (_, Policy::Local) if door.is_external() => ("cni", "cni-masquerade"),
        _ if lab.kube_proxy().masquerade_all => ("kube-proxy", "masquerade-all"),
        _ if is_pod && is_inside => ("cni", "cni-masquerade"),
        _ => ("kube-proxy", "outside-cluster-cidr"),
    }
}

/// What the backend's node must say of what another node sent it: only what it saw itself.
/// Nothing, where a pod's own address reached it: that is how pods call each other without any
/// Service, too.
fn second_half(lab: &Lab, opened: &Opened, answer: &Answer) -> Option<Half> {
    let FrontDoor {
        entry, protocol, ..
    } = &opened.way.door;
    let protocol = *protocol;
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
    let mut expected = common(node, protocol);
    expected.extend(chosen(lab, protocol, answer, None));
    expected.extend([
        ("/service", only_service(lab, protocol, *backend)),
        (
            "/front_door",
            json!({"kind": "Pod", "ip": backend.ip(), "port": backend.port()}),
        ),
        ("/client", client(*peer_seen, kind)),
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
    let ttl_in = ttl_out(lab, opened, false);
    expected.extend(step(&Step {
        arrival: Some((lab.interface_between_nodes(backend.ip()), ttl_in)),
        out: lab.interface_towards(node, backend.ip()),
        ttl_out: ttl_in - 1,
        reply_ttl: TTL,
    }));
    Some(Half {
        node: node.to_owned(),
        protocol,
        client: *peer_seen,
        front_door: *backend,
        must_be_reported: true,
        expected,
    })
}

fn common(node: &str, protocol: Protocol) -> Expected {
    vec![
        ("/schema", json!("observer.connection/v1")),
        ("/node", json!(node)),
        ("/from", json!("start")),
        ("/protocol", json!(protocol.as_str())),
    ]
}

/// An endpoint was chosen, and it answered. `service`: whose endpoint it is known to be.
fn chosen(
    lab: &Lab,
    protocol: Protocol,
    answer: &Answer,
    service: Option<(&str, &str)>,
) -> Expected {
    let Answer {
        local: _,
        peer_seen,
        backend,
        pod: _,
    } = answer;
    let node = lab.plan().node_of(backend.ip());
    let pod = pod_name(lab, protocol, *backend, service);
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
        // No ICMP error but one ends an association (`net/sctp/input.c`, `sctp_v4_err`).
        Failure::TimedOut
            if opened.way.door.protocol == Protocol::Sctp
                && opened.way.door.endpoints == Found::Nothing =>
        {
            "refused"
        }
        Failure::TimedOut => "dropped",
        // Nothing in a lab ends so; the observer's own word then shows up as a disagreement.
        Failure::Silent
        | Failure::Reset
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
