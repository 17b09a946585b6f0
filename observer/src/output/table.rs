//! A record for people: where it went, and what became of the client's address.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::record::Record;
use crate::verdict::{CauseCode, Outcome, RewriteOwner, SourceIp};

/// Two lines: the way, then the verdict.
pub(super) fn render(record: &Record) -> String {
    format!("{}\n    {}", way(record), verdict(record))
}

/// `client → front door → service → backend (pod, node)`.
fn way(record: &Record) -> String {
    let mut line = socket(record.client.ip, record.client.port);
    let kind = record
        .front_door
        .kind
        .map_or_else(String::new, |kind| format!("{kind} "));
    let door = socket(record.front_door.ip, record.front_door.port);
    let mut add = |part: std::fmt::Arguments<'_>| {
        line.push_str(" → ");
        // Writing to a String cannot fail.
        let _ = line.write_fmt(part);
    };
    add(format_args!("{kind}{door}"));
    if let Some(service) = &record.service {
        let port = service
            .port
            .as_ref()
            .map_or_else(String::new, |port| format!(":{port}"));
        add(format_args!("{}/{}{port}", service.namespace, service.name));
    }
    if let Some(backend) = &record.backend {
        let whose: Vec<_> = [&backend.pod, &backend.node]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let place = if whose.is_empty() {
            String::new()
        } else {
            format!(" ({})", whose.join(", "))
        };
        add(format_args!("{}{place}", socket(backend.ip, backend.port)));
    }
    line
}

fn verdict(record: &Record) -> String {
    let mut parts = vec![match record.source_ip {
        SourceIp::Preserved => "PRESERVED".to_owned(),
        SourceIp::Lost => lost(record),
        SourceIp::Unknown => unknown(record),
    }];
    if let Some(seen) = record.source_seen {
        parts.push(format!("pod saw {}", seen.ip));
    }
    match (record.extra_hops, &record.backend) {
        (Some(0), _) => parts.push("no extra hop".to_owned()),
        (Some(hops), Some(backend)) => {
            let plural = if hops == 1 { "" } else { "s" };
            let to = backend.node.as_deref().unwrap_or("?");
            parts.push(format!("{hops} extra hop{plural} ({} → {to})", record.node));
        }
        _ => {}
    }
    match record.outcome {
        Outcome::Answered => {}
        Outcome::Refused => parts.push("refused".to_owned()),
        Outcome::Dropped => parts.push("dropped".to_owned()),
        Outcome::Unanswered => parts.push("unanswered".to_owned()),
        Outcome::Unknown => parts.push("came in and never left, no answer".to_owned()),
    }
    if let Some(cause) = &record.outcome_cause {
        parts.push(cause.explanation.clone());
    }
    parts.join(" · ")
}

fn lost(record: &Record) -> String {
    let Some(at) = &record.lost_at else {
        return "LOST".to_owned();
    };
    let place = at.interface.as_ref().map_or_else(
        || at.node.clone(),
        |interface| format!("{}, {interface}", at.node),
    );
    let by = match at.by {
        RewriteOwner::KubeProxy => "kube-proxy masquerade",
        RewriteOwner::Cni => "network plugin",
        RewriteOwner::LoadBalancer => "load balancer",
        RewriteOwner::Proxy => "proxy",
        RewriteOwner::Unknown => "rewritten, nobody known",
    };
    let why = match record.cause.as_ref().map(|cause| cause.code) {
        Some(CauseCode::ExternalTrafficPolicyCluster) => " (externalTrafficPolicy: Cluster)",
        Some(CauseCode::Hairpin) => " (hairpin)",
        Some(CauseCode::NodeLocalClient) => " (client on this node)",
        _ => "",
    };
    format!("LOST at {place}: {by}{why}")
}

fn unknown(record: &Record) -> String {
    match record.cause.as_ref().map(|cause| cause.code) {
        Some(CauseCode::MasqueradedBeforeThisNode) => {
            "UNKNOWN here: rewritten before this node".to_owned()
        }
        _ => "UNKNOWN".to_owned(),
    }
}

/// As URLs have it: IPv6 in brackets.
fn socket(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
