//! A record for people: where it went, and what became of the client's address.
//!
//! Two lines, the way and the verdict, each broken where it does not fit:
//!
//! ```text
//! 203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
//!     LOST at node1, eth0: kube-proxy masquerade (externalTrafficPolicy: Cluster)
//!       · pod saw 172.31.0.11 · 1 extra hop (node1 → node2)
//! ```
//!
//! Where it was lost more than once, the stages stand in the order of the way: `LOST before node1:
//! load balancer 192.0.2.7; then again at node1, eth0: …`.
//!
//! A third has the first part of the way, where the client is a proxy on the node; and one the path,
//! where two nodes' records were joined.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::paint::{Page, Tone, bind, clean};
use super::{microseconds, through, word};
use crate::cluster::Protocol;
use crate::record::{Backend, From, HopCheck, Loss, LostAt, Record};
use crate::verdict::{
    Basis, Beyond, CauseCode, ClientKind, Hider, Outcome, RewriteOwner, SourceIp,
};

/// The lines of a record: of one that is joined, a third with its path.
pub(super) fn render(record: &Record, page: Page) -> String {
    let way = page.wrap(&way(record), "", "  ");
    let verdict = page.wrap(&verdict(record, page), "    ", "      ");
    let path = path(record).map_or_else(String::new, |path| {
        format!("\n{}", page.wrap(&path, "    ", "      "))
    });
    let through = through::line(record).map_or_else(String::new, |through| {
        format!("\n{}", page.wrap(&through, "    ", "      "))
    });
    format!("{way}\n{verdict}{through}{path}")
}

/// `node1: eth0 → flannel.1 · node2: flannel.1 → cali1`, where more than one node observed.
fn path(record: &Record) -> Option<String> {
    let name = |interface: &Option<Arc<str>>| {
        let interface = interface.as_deref();
        interface.map_or_else(|| "the node itself".to_owned(), clean)
    };
    let steps: Vec<_> = record
        .path
        .iter()
        .map(|step| {
            let (from, to) = (name(&step.r#in), name(&step.out));
            bind(&format!("{}: {from} → {to}", clean(&step.node)))
        })
        .collect();
    (steps.len() > 1).then(|| steps.join(&format!(" {}", bind("· "))))
}

/// `client → front door → service → backend (pod, node)`.
fn way(record: &Record) -> String {
    let client = socket(record.client.ip, record.client.port);
    let speaker = match record.client.kind {
        ClientKind::External | ClientKind::Unknown => client,
        ClientKind::Pod => format!("{client} (pod)"),
        ClientKind::Node => format!("{client} (node)"),
        ClientKind::LoadBalancer => format!("{client} (load balancer)"),
    };
    let mut stations = vec![
        match (record.client.recovered, record.client.recovered_from) {
            (Some(client), Some(carrier)) => format!("{client} ({}) → {speaker}", word(&carrier)),
            _ => speaker,
        },
    ];
    let door = record.front_door;
    let protocol = match record.protocol {
        Protocol::Tcp => String::new(),
        other => format!("/{other}"),
    };
    let kind = door
        .kind
        .map_or_else(String::new, |kind| format!("{kind} "));
    let mut front_door = format!("{kind}{}{protocol}", socket(door.ip, door.port));
    let service = record.service.as_ref().map(service);
    match &record.backend {
        // The front door is the backend.
        Some(backend) if (backend.ip, backend.port) == (door.ip, door.port) => {
            front_door.push_str(&place(backend));
            if let Some(service) = service {
                front_door = format!("{front_door} of {service}");
            }
            stations.push(front_door);
        }
        backend => {
            stations.push(front_door);
            stations.extend(service);
            stations.extend(
                backend.as_ref().map(|backend| {
                    format!("{}{}", socket(backend.ip, backend.port), place(backend))
                }),
            );
        }
    }
    let stations: Vec<_> = stations.iter().map(|station| bind(station)).collect();
    stations.join(&format!(" {}", bind("→ ")))
}

fn verdict(record: &Record, page: Page) -> String {
    let mut parts = Vec::new();
    let outcome = outcome(record, page);
    if record.backend.is_none() {
        // No endpoint was chosen: there is no source that one could have seen.
        parts.extend(outcome);
    } else {
        parts.push(source(record, page));
        parts.extend(recovered(record));
        parts.extend(seen(record));
        parts.extend(beyond(record));
        parts.extend(hops(record));
        parts.extend(wrong_way(record, page));
        parts.extend(outcome);
    }
    if record.from == From::Conntrack {
        parts.push(bind("existed before"));
    }
    for finding in &record.findings {
        let code = bind(&format!(": {}", word(&finding.code)));
        parts.push(page.paint(Tone::Bad, "MISMATCH") + &code);
    }
    if let (Some(false), Some(expected)) = (record.as_expected, record.expected) {
        let predicted = format!(
            " (predicted: {}, {})",
            word(&expected.source_ip),
            word(&expected.outcome)
        );
        parts.push(page.paint(Tone::Bad, "UNEXPECTED") + &bind(&predicted));
    }
    parts.join(&format!(" {}", bind("· ")))
}

/// What became of the client's address.
fn source(record: &Record, page: Page) -> String {
    match record.source_ip {
        SourceIp::Preserved => page.paint(Tone::Good, "PRESERVED"),
        SourceIp::Lost => lost(record, page),
        SourceIp::Unknown => {
            let why = match record.cause.as_ref().map(|cause| cause.code) {
                Some(CauseCode::MasqueradedBeforeThisNode) => {
                    format!(": rewritten before it reached {}", clean(&record.node))
                }
                Some(CauseCode::GatewayMasquerade) => format!(
                    ": {} is the gateway of {}, which may have put it there",
                    record.client.ip,
                    clean(&record.node)
                ),
                _ => format!(" at {}", clean(&record.node)),
            };
            format!("{}{why}", page.paint(Tone::Doubt, "UNKNOWN"))
        }
    }
}

fn lost(record: &Record, page: Page) -> String {
    let lost = page.paint(Tone::Bad, "LOST");
    let losses = record.stages();
    if losses.is_empty() {
        return lost;
    }
    let stages: Vec<_> = losses
        .iter()
        .enumerate()
        .map(|(number, loss)| {
            let is_first = number == 0;
            let again = if is_first { "" } else { "then again " };
            format!("{again}{}", stage(record, loss, is_first))
        })
        .collect();
    format!("{lost} {}", stages.join("; "))
}

/// Where the address was replaced, by whom and why.
fn stage(record: &Record, loss: &Loss, is_first: bool) -> String {
    let Loss { at, cause } = loss;
    let by = match at.by {
        RewriteOwner::KubeProxy => "kube-proxy masquerade",
        RewriteOwner::Cni => "network plugin masquerade",
        RewriteOwner::LoadBalancer => "load balancer",
        RewriteOwner::Proxy => "proxy",
        RewriteOwner::Unknown => "rewritten, by whom is not known",
    };
    // Who stands in front is told by its address: it is the client that arrived.
    let (client, kind) = match &record.through {
        Some(through) if is_first && through.source_ip == SourceIp::Lost => (
            through.client.map(|it| it.ip),
            through.client.map(|it| it.kind),
        ),
        _ => (Some(record.client.ip), Some(record.client.kind)),
    };
    let place = match (&at.node, &at.interface) {
        (Some(node), Some(interface)) => format!("at {}, {}", clean(node), clean(interface)),
        (Some(node), None) => format!("at {}", clean(node)),
        (None, _) if is_before(at, kind) => format!("before {}", clean(&record.node)),
        (None, _) if at.by == RewriteOwner::Proxy => "at a proxy".to_owned(),
        (None, _) => "at a node that is not known".to_owned(),
    };
    let is_in_front = matches!(at.by, RewriteOwner::LoadBalancer | RewriteOwner::Proxy);
    let whose = client
        .filter(|_| is_in_front && is_first)
        .map_or_else(String::new, |client| format!(" {client}"));
    let why = match cause.code {
        CauseCode::ExternalTrafficPolicyCluster => "externalTrafficPolicy: Cluster",
        CauseCode::MasqueradeAll => "masqueradeAll",
        CauseCode::OutsideClusterCidr => "client outside the cluster CIDR",
        CauseCode::Hairpin => "hairpin: the pod reached itself",
        CauseCode::NodeLocalClient => "client on this node",
        CauseCode::CniMasquerade
        | CauseCode::MasqueradedBeforeThisNode
        | CauseCode::UpstreamLoadBalancer
        | CauseCode::L7Proxy
        | CauseCode::GatewayMasquerade
        | CauseCode::Unknown => "",
    };
    let why = match (why, cause.basis) {
        ("", _) => String::new(),
        (why, Basis::Observed | Basis::Config) => format!(" ({why})"),
        (why, Basis::Inferred) => format!(" ({why}, inferred)"),
    };
    if at.node.is_none() && at.by == RewriteOwner::Proxy && !is_before(at, kind) {
        return format!("{place}{whose}{why}");
    }
    format!("{place}: {by}{whose}{why}")
}

/// Whether that is before any node: a load balancer, or a proxy that stands as one. Another proxy may
/// be on a node.
pub(super) fn is_before(at: &LostAt, client: Option<ClientKind>) -> bool {
    at.by == RewriteOwner::LoadBalancer || client == Some(ClientKind::LoadBalancer)
}

/// Whether what stands in front told whom it speaks for.
fn recovered(record: &Record) -> Option<String> {
    let client = &record.client;
    match (
        client.recovered,
        client.recovered_from,
        client.not_recovered,
    ) {
        (Some(address), Some(carrier), _) => Some(bind(&format!(
            "client recovered from {}: {address}",
            word(&carrier)
        ))),
        (_, _, Some(why)) if is_lost_before(record) => {
            Some(bind(&format!("client not recovered ({})", word(&why))))
        }
        _ => None,
    }
}

fn is_lost_before(record: &Record) -> bool {
    let stages = record.stages();
    let first = stages.first();
    first.is_some_and(|loss| matches!(loss.at.by, RewriteOwner::LoadBalancer | RewriteOwner::Proxy))
}

/// What the application sees behind a sidecar, no node does.
fn beyond(record: &Record) -> Option<String> {
    let Beyond { by, .. } = record.beyond.as_ref()?;
    let who = match by {
        Hider::Sidecar => "sidecar",
        Hider::Unknown => "something",
    };
    Some(bind(&format!(
        "a {who} in the pod hides what the application sees"
    )))
}

/// Which source the backend was shown.
fn seen(record: &Record) -> Option<String> {
    let seen = record.source_seen?;
    let whose = match &record.backend {
        Some(Backend { pod: Some(_), .. }) => "pod",
        _ => "backend",
    };
    let verb = match record.outcome {
        Outcome::Answered | Outcome::Refused => "saw",
        // Whether it arrived is not known.
        Outcome::Dropped | Outcome::Unanswered | Outcome::Unknown => "is shown",
    };
    Some(bind(&format!("{whose} {verb} {}", seen.ip)))
}

fn hops(record: &Record) -> Option<String> {
    let hops = record.extra_hops?;
    if hops == 0 {
        return Some(bind("no extra hop"));
    }
    let plural = if hops == 1 { "" } else { "s" };
    let to = record.backend.as_ref()?.node.as_deref().unwrap_or("?");
    let cost = record
        .extra_hop_ns
        .map_or_else(String::new, |cost| format!(", {} µs", microseconds(cost)));
    Some(bind(&format!(
        "{hops} extra hop{plural} ({} → {}{cost})",
        clean(&record.node),
        clean(to)
    )))
}

/// Where TTLs disagree with the path.
fn wrong_way(record: &Record, page: Page) -> Option<String> {
    let HopCheck { forwards, expected } = record.hop_check?;
    (forwards != i16::from(expected)).then(|| {
        page.paint(Tone::Doubt, &bind("ANOTHER WAY"))
            + &bind(&format!(
                " (by TTL {forwards} forwards, on the path {expected})"
            ))
    })
}

/// What became of the opening packet; nothing if it was answered.
fn outcome(record: &Record, page: Page) -> Option<String> {
    let (tone, what) = match record.outcome {
        Outcome::Answered if record.backend.is_some() => return None,
        Outcome::Answered => (Tone::Good, "ANSWERED"),
        Outcome::Refused => (Tone::Bad, "REFUSED"),
        Outcome::Dropped => (Tone::Bad, "DROPPED"),
        Outcome::Unanswered => (Tone::Doubt, "UNANSWERED"),
        Outcome::Unknown => (Tone::Doubt, "NO ANSWER SEEN"),
    };
    let what = page.paint(tone, what);
    // With a backend the place is said already: where the source was lost, or kept.
    let came_in = record
        .path
        .first()
        .filter(|_| record.backend.is_none())
        .map(|step| {
            let interface = step.r#in.as_ref();
            let by = interface.map_or_else(String::new, |name| format!(", {}", clean(name)));
            format!(" at {}{by}", clean(&step.node))
        });
    let why = record
        .outcome_cause
        .as_ref()
        .map(|cause| format!(": {}", clean(&cause.explanation)));
    Some(format!(
        "{what}{}{}",
        came_in.unwrap_or_default(),
        why.unwrap_or_default()
    ))
}

pub(super) fn service(service: &crate::record::Service) -> String {
    let port = service
        .port
        .as_ref()
        .map_or_else(String::new, |port| format!(":{}", clean(port)));
    format!(
        "{}/{}{port}",
        clean(&service.namespace),
        clean(&service.name)
    )
}

/// ` (pod, node)`, as far as they are known.
fn place(backend: &Backend) -> String {
    let whose: Vec<_> = [&backend.pod, &backend.node]
        .into_iter()
        .flatten()
        .map(|name| clean(name))
        .collect();
    if whose.is_empty() {
        String::new()
    } else {
        format!(" ({})", whose.join(", "))
    }
}

/// As URLs have it: IPv6 in brackets.
pub(super) fn socket(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
