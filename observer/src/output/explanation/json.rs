//! For programs: `observer.explanation/v1`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Ground, sentences};
use crate::cluster::finding::Finding;
use crate::cluster::front::{Carrier, System};
use crate::cluster::host::HostDoor;
use crate::cluster::patch::Patch;
use crate::cluster::{Protocol, ServiceRef};
use crate::verdict::advice::Change;
use crate::verdict::chain::{Door, Explained, Health, Loser, Seen, Stage, Way};
use crate::verdict::{Basis, CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};
use crate::words::Words;

/// The contract that the document keeps: fields are only ever added.
pub const SCHEMA: &str = "observer.explanation/v1";

/// At least and at most.
#[derive(Serialize)]
struct Range {
    least: u8,
    most: u8,
}

/// A way, as it is written: there are many.
#[derive(Serialize)]
struct Written<'a> {
    port: Option<&'a str>,
    protocol: Protocol,
    door: Door,
    by: Option<&'a str>,
    system: Option<System>,
    addresses: &'a [IpAddr],
    to_port: Option<u16>,
    nodes: Vec<&'a str>,
    client: ClientKind,
    source_ip: SourceIp,
    seen: Option<Seen>,
    lost_by: Option<Loser>,
    cause: Option<CauseCode>,
    outcome: Outcome,
    outcome_cause: Option<OutcomeCauseCode>,
    extra_hops: Option<Range>,
    recoverable: &'a [Carrier],
    left_out: bool,
    stages: &'a [Stage],
    kube_proxy: Option<Predicted>,
}

/// kube-proxy's part of a way.
#[derive(Serialize)]
struct Predicted {
    source_ip: SourceIp,
    cause: Option<CauseCode>,
    outcome: Outcome,
    outcome_cause: Option<OutcomeCauseCode>,
    extra_hops: Option<Range>,
    basis: Basis,
    why: String,
}

#[derive(Serialize)]
struct Judged<'a> {
    code: crate::verdict::chain::Word,
    text: String,
    client: ClientKind,
    lost_by: &'a BTreeSet<Loser>,
    recoverable: &'a [Carrier],
}

#[derive(Serialize)]
struct Named<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// What the nodes say at a Service's `healthCheckNodePort`.
#[derive(Serialize)]
struct HealthCheck<'a> {
    port: u16,
    nodes: Vec<Answer<'a>>,
}

/// What one of them says.
#[derive(Serialize)]
struct Answer<'a> {
    node: &'a str,
    addresses: &'a [IpAddr],
    status: u16,
    local_endpoints: usize,
    body: Body<'a>,
}

/// As a kube-proxy that is healthy itself says it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Named<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct OfService<'a> {
    service: Named<'a>,
    r#type: Value,
    external_traffic_policy: Value,
    internal_traffic_policy: Value,
    load_balancer: Value,
    verdict: Judged<'a>,
    ways: Vec<Written<'a>>,
    health_check: Option<HealthCheck<'a>>,
    findings: Value,
    advice: Vec<Value>,
}

/// What comes before the Services.
pub(super) fn head(ground: Ground<'_>) -> String {
    let Ground {
        facts,
        assumed,
        kube_proxy,
        others,
        ..
    } = ground;
    let head = json!({
        "schema": SCHEMA,
        "kube_proxy": {"known": kube_proxy.is_some(), "mode": kube_proxy.unwrap_or("iptables")},
        "dataplane": facts.dataplane,
        "assumed": assumed,
        "other_objects": others,
    });
    let head = head.to_string();
    format!("{},\"services\":[", head.strip_suffix('}').unwrap_or(&head))
}

/// What comes after the Services.
pub(super) fn tail(ground: Ground<'_>, words: &Words) -> String {
    let Ground { facts, whole, .. } = ground;
    let (hosts, findings) = if whole {
        (hosts(&facts.hosts), findings(&facts.findings, words))
    } else {
        (json!([]), json!([]))
    };
    format!("],\"hosts\":{hosts},\"findings\":{findings}}}")
}

/// A Service.
pub(super) fn service(explained: &Explained<'_>, words: &Words) -> String {
    let Explained {
        service,
        entries,
        all_nodes: _,
        load_balancer,
        ways,
        verdict,
        health,
        findings: of_service,
        advice,
    } = explained;
    let first = entries.first().map(|entry| &entry.service);
    let written = OfService {
        service: named(service),
        r#type: json!(first.map(|it| it.service_type)),
        external_traffic_policy: json!(first.map(|it| it.external_traffic_policy)),
        internal_traffic_policy: json!(first.map(|it| it.internal_traffic_policy)),
        load_balancer: json!(load_balancer),
        verdict: Judged {
            code: verdict.word,
            text: sentences::verdict(explained, words),
            client: verdict.client,
            lost_by: &verdict.lost_by,
            recoverable: &verdict.recoverable,
        },
        ways: ways.iter().map(|it| way(it, words)).collect(),
        health_check: health.as_ref().map(|health| health_check(health, service)),
        findings: findings(of_service, words),
        advice: advice.iter().map(|it| change(it, words)).collect(),
    };
    serde_json::to_string(&written).unwrap_or_default()
}

fn range(hops: Option<&RangeInclusive<u8>>) -> Option<Range> {
    let hops = hops?;
    Some(Range {
        least: *hops.start(),
        most: *hops.end(),
    })
}

fn way<'a>(way: &'a Way<'_>, words: &Words) -> Written<'a> {
    let kube_proxy = way.prediction.as_ref().map(|prediction| Predicted {
        source_ip: prediction.source_ip,
        cause: prediction.cause,
        outcome: prediction.outcome,
        outcome_cause: prediction.outcome_cause,
        extra_hops: range(prediction.extra_hops.as_ref()),
        basis: prediction.basis,
        why: words.say(&format!("why-{}", prediction.why()), &[]),
    });
    Written {
        port: way.entry.name.as_deref(),
        protocol: way.entry.protocol,
        door: way.door,
        by: way.by.as_deref(),
        system: way.system,
        addresses: &way.addresses,
        to_port: way.to_port,
        nodes: way.nodes.iter().map(|name| &**name).collect(),
        client: way.client,
        source_ip: way.source_ip,
        seen: way.seen,
        lost_by: way.lost_by,
        cause: way.cause,
        outcome: way.outcome,
        outcome_cause: way.outcome_cause,
        extra_hops: range(way.extra_hops.as_ref()),
        recoverable: &way.recoverable,
        left_out: way.left_out,
        stages: &way.stages,
        kube_proxy,
    }
}

/// What each node answers, and to how many endpoints (`pkg/proxy/healthcheck/service_health.go`).
fn health_check<'a>(health: &'a Health<'_>, service: &'a ServiceRef) -> HealthCheck<'a> {
    let nodes = health.nodes.iter().map(|(name, addresses, ready)| Answer {
        node: name,
        addresses,
        status: Health::status(*ready),
        local_endpoints: *ready,
        body: Body {
            service: named(service),
            local_endpoints: *ready,
            service_proxy_healthy: true,
        },
    });
    HealthCheck {
        port: health.port,
        nodes: nodes.collect(),
    }
}

fn named(service: &ServiceRef) -> Named<'_> {
    Named {
        namespace: &service.namespace,
        name: &service.name,
    }
}

/// Nobody rewrites what comes to a pod by its node from outside (CNI plugins, `portmap`).
fn hosts(hosts: &[HostDoor]) -> Value {
    let told = hosts.iter().map(|door| {
        let mut value = json!(door);
        value["source_ip"] = json!(SourceIp::Preserved);
        value
    });
    told.collect()
}

fn findings(findings: &[Finding], words: &Words) -> Value {
    let told = findings.iter().map(|finding| {
        let mut value = json!(finding);
        value["severity"] = json!(finding.severity());
        value["text"] = json!(words.tell("finding", finding));
        value
    });
    told.collect()
}

fn change(change: &Change, words: &Words) -> Value {
    let name = format!("change-{}", change.code);
    let commands = change.patches.iter().map(Patch::command);
    json!({
        "code": change.code,
        "text": words.say(&name, &[]),
        "price": words.price(&name),
        "patches": change.patches,
        "commands": commands.collect::<Vec<_>>(),
    })
}
