//! For programs: `observer.explanation/v1`.

use serde_json::{Value, json};

use super::{Explanation, sentences};
use crate::cluster::finding::Finding;
use crate::cluster::host::HostDoor;
use crate::verdict::advice::Change;
use crate::verdict::chain::{Explained, Health, Way};
use crate::verdict::{Prediction, SourceIp};
use crate::words::Words;

/// The contract that the document keeps: fields are only ever added.
pub const SCHEMA: &str = "observer.explanation/v1";

/// The whole explanation as one document.
pub fn json(explanation: Explanation<'_>) -> Value {
    let Explanation {
        services,
        facts,
        assumed,
        kube_proxy,
        others,
        whole,
        words,
    } = explanation;
    let services = services.iter().map(|it| service(it, words));
    json!({
        "schema": SCHEMA,
        "kube_proxy": {"known": kube_proxy.is_some(), "mode": kube_proxy.unwrap_or("iptables")},
        "dataplane": facts.dataplane,
        "assumed": assumed,
        "other_objects": others,
        "services": services.collect::<Vec<_>>(),
        "hosts": if whole { hosts(&facts.hosts) } else { json!([]) },
        "findings": if whole { findings(&facts.findings, words) } else { json!([]) },
    })
}

fn service(explained: &Explained<'_>, words: &Words) -> Value {
    let Explained {
        service,
        entries,
        load_balancer,
        ways,
        verdict,
        health,
        findings: of_service,
        advice,
    } = explained;
    let first = entries.first().map(|entry| &entry.service);
    json!({
        "service": {"namespace": &*service.namespace, "name": &*service.name},
        "type": first.map(|it| it.service_type),
        "external_traffic_policy": first.map(|it| it.external_traffic_policy),
        "internal_traffic_policy": first.map(|it| it.internal_traffic_policy),
        "load_balancer": load_balancer,
        "verdict": {
            "code": verdict.word,
            "text": sentences::verdict(explained, words),
            "client": verdict.client,
            "lost_by": verdict.lost_by,
            "recoverable": verdict.recoverable,
        },
        "ways": ways.iter().map(|it| way(it, words)).collect::<Vec<_>>(),
        "health_check": health.as_ref().map(health_check),
        "findings": findings(of_service, words),
        "advice": advice.iter().map(|it| change(it, words)).collect::<Vec<_>>(),
    })
}

fn way(way: &Way<'_>, words: &Words) -> Value {
    let range = |hops: &Option<std::ops::RangeInclusive<u8>>| {
        let hops = hops.as_ref();
        hops.map(|hops| json!({"least": hops.start(), "most": hops.end()}))
    };
    let kube_proxy = way.prediction.as_ref().map(|prediction| {
        let Prediction {
            source_ip,
            cause,
            outcome,
            outcome_cause,
            extra_hops,
            basis,
            doubt: _,
        } = prediction;
        json!({
            "source_ip": source_ip,
            "cause": cause,
            "outcome": outcome,
            "outcome_cause": outcome_cause,
            "extra_hops": range(extra_hops),
            "basis": basis,
            "why": words.say(&format!("why-{}", prediction.why()), &[]),
        })
    });
    json!({
        "port": way.entry.name.as_deref(),
        "protocol": way.entry.protocol,
        "door": way.door,
        "by": way.by,
        "system": way.system,
        "addresses": &*way.addresses,
        "to_port": way.to_port,
        "nodes": way.nodes.iter().map(|name| &**name).collect::<Vec<_>>(),
        "client": way.client,
        "source_ip": way.source_ip,
        "seen": way.seen,
        "lost_by": way.lost_by,
        "cause": way.cause,
        "outcome": way.outcome,
        "outcome_cause": way.outcome_cause,
        "extra_hops": range(&way.extra_hops),
        "recoverable": way.recoverable,
        "left_out": way.left_out,
        "stages": way.stages,
        "kube_proxy": kube_proxy,
    })
}

/// What each node answers, and the body (`pkg/proxy/healthcheck/service_health.go`).
fn health_check(health: &Health<'_>) -> Value {
    let nodes = health.nodes.iter().map(|(name, addresses, ready)| {
        json!({
            "node": &***name,
            "addresses": addresses,
            "status": Health::status(*ready),
            "local_endpoints": ready,
        })
    });
    json!({"port": health.port, "nodes": nodes.collect::<Vec<_>>()})
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
    let commands = change.patches.iter().map(|patch| patch.command());
    json!({
        "code": change.code,
        "text": words.say(&name, &[]),
        "price": words.price(&name),
        "patches": change.patches,
        "commands": commands.collect::<Vec<_>>(),
    })
}
