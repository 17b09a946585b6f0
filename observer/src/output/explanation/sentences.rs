//! Sentences on a Service.

use crate::cluster::ServiceType;
use crate::cluster::front::{Carrier, Delivers};
use crate::verdict::chain::{Door, Explained, Health, Loser, Verdict, Way, Word};
use crate::verdict::{ClientKind, OutcomeCauseCode, SourceIp};
use crate::words::Words;

use crate::output::paint::clean;
use crate::output::word;

/// `type LoadBalancer (AWS Network Load Balancer, delivers to pods), externalTrafficPolicy Local`.
pub(super) fn heading(explained: &Explained<'_>, words: &Words) -> String {
    let name = clean(&explained.service.to_string());
    let Some(entry) = explained.entries.first() else {
        return name;
    };
    let service = &entry.service;
    let front = explained.load_balancer.map_or_else(String::new, |front| {
        let system = front
            .provider
            .clone()
            .unwrap_or_else(|| words.say(&format!("system-{}", front.system), &[]));
        let delivers = words.say(&format!("delivers-{}", front.delivers), &[]);
        format!(" ({}, {delivers})", clean(&system))
    });
    let has_external_policy =
        service.service_type != ServiceType::ClusterIP || !service.external_ips.is_empty();
    let external = if has_external_policy {
        let policy = service.external_traffic_policy;
        format!(", externalTrafficPolicy {policy}")
    } else {
        String::new()
    };
    format!(
        "{name}, type {:?}{front}{external}, internalTrafficPolicy {}",
        service.service_type, service.internal_traffic_policy
    )
}

/// The verdict in one line.
pub(super) fn verdict(explained: &Explained<'_>, words: &Words) -> String {
    let Verdict {
        word: in_a_word,
        client,
        lost_by,
        recoverable,
        closed,
        ..
    } = &explained.verdict;
    let who: Vec<_> = lost_by
        .iter()
        .map(|loser| words.say(&format!("lost-by-{loser}"), &[]))
        .collect();
    let who = who.join(", ");
    let mut sentences = vec![match (in_a_word, client) {
        (Word::Preserved, ClientKind::Pod) => words.say("verdict-inside-preserved", &[]),
        (Word::Lost, _) => lost(explained, &who, words),
        (Word::Unknown, ClientKind::External) if is_preserved_by_some(explained) => {
            words.say("verdict-unknown-by-some", &[])
        }
        _ => words.say(&format!("verdict-{in_a_word}"), &[("who", &who)]),
    }];
    if *in_a_word == Word::Unknown {
        sentences.extend(by_nodes(explained, words));
    }
    if !recoverable.is_empty() {
        let carriers = carriers(recoverable, words);
        sentences.push(words.say("verdict-recoverable", &[("carriers", &carriers)]));
    }
    if let Some((nodes, cause)) = closed {
        let why = closed_by(explained, *cause, words);
        sentences.push(if *nodes == 0 {
            words.say("verdict-closed-somewhere", &[("why", &why)])
        } else {
            words.count("verdict-closed", "nodes", *nodes, &[("why", &why)])
        });
    }
    sentences.join(" ")
}

/// By whom it is lost; and of kube-proxy why, and for which Service if that is a proxy's.
fn lost(explained: &Explained<'_>, who: &str, words: &Words) -> String {
    let why = || {
        let mut losers = explained.verdict.lost_by.iter();
        if losers.any(|loser| *loser != Loser::KubeProxy) {
            return None;
        }
        let cause = explained.verdict.cause?;
        let way = explained.ways.iter().find(|way| {
            way.cause == Some(cause) && way.client == explained.verdict.client && way.is_open()
        })?;
        let prediction = way.lost_with.as_ref()?;
        let why = words.say(&format!("why-{}", prediction.why()), &[]);
        let of = way.decided_by.as_ref();
        Some((why, of.filter(|of| **of != explained.service)))
    };
    match why() {
        Some((why, None)) => words.say("verdict-lost-because", &[("who", who), ("why", &why)]),
        Some((why, Some(service))) => {
            let service = clean(&service.to_string());
            let set = [("who", who), ("why", &*why), ("service", &*service)];
            words.say("verdict-lost-because-of", &set)
        }
        None => words.say("verdict-lost", &[("who", who)]),
    }
}

fn is_preserved_by_some(explained: &Explained<'_>) -> bool {
    let mut ways = explained.ways.iter();
    ways.any(|way| {
        way.client == ClientKind::External
            && way.source_ip == SourceIp::Preserved
            && way.is_open()
            && explained.verdict.doors.contains(&way.door)
    })
}

/// Where the load balancer is not known: what becomes of what it sends to the node ports.
fn by_nodes(explained: &Explained<'_>, words: &Words) -> Option<String> {
    let front = explained.load_balancer?;
    let mut by_node_port = explained.ways.iter().filter(|way| {
        way.door == Door::NodePort && way.client == ClientKind::External && way.is_open()
    });
    let first = by_node_port.next()?;
    let alike = by_node_port.all(|way| way.source_ip == first.source_ip);
    if front.delivers == Delivers::NodePort || !alike {
        return None;
    }
    let why = why(first, words)?;
    let fate = words.say(&format!("source-ip-{}", word(&first.source_ip)), &[]);
    let set = [("fate", &*fate), ("why", &*why)];
    Some(words.say("verdict-by-nodes", &set))
}

fn closed_by(explained: &Explained<'_>, cause: OutcomeCauseCode, words: &Words) -> String {
    let mut ways = explained.ways.iter();
    let way = ways.find(|way| way.outcome_cause == Some(cause));
    way.and_then(|way| why(way, words)).unwrap_or_default()
}

/// What kube-proxy does on a way, if it has a part in it.
pub(super) fn why(way: &Way<'_>, words: &Words) -> Option<String> {
    let prediction = way.prediction.as_ref()?;
    Some(words.say(&format!("why-{}", prediction.why()), &[]))
}

pub(super) fn carriers(carriers: &[Carrier], words: &Words) -> String {
    let said = carriers
        .iter()
        .map(|carrier| words.say(&format!("carrier-{carrier}"), &[]));
    said.collect::<Vec<_>>().join(", ")
}

/// Whose address the pod sees, and what became of the connection if none does.
pub(super) fn outcome(way: &Way<'_>) -> String {
    let outcome = word(&way.outcome);
    match &way.outcome_cause {
        Some(cause) => format!("{outcome}: {}", word(cause)),
        None => outcome,
    }
}

/// All who changed the source, first to last, and because of what.
pub(super) fn loser(way: &Way<'_>) -> String {
    let mut losers: Vec<_> = way
        .losers()
        .map(|loser| match (loser, way.cause) {
            (Loser::KubeProxy | Loser::Cni, Some(cause)) => format!("{loser}: {}", word(&cause)),
            _ => loser.to_string(),
        })
        .collect();
    losers.dedup();
    if losers.is_empty() {
        return way
            .cause
            .map_or_else(|| "-".to_owned(), |cause| word(&cause));
    }
    losers.join("\n")
}

/// What the nodes say of a Service's health, one line for each answer.
pub(super) fn health(health: &Health<'_>, words: &Words) -> Vec<String> {
    let mut counts: Vec<usize> = health.nodes.iter().map(|(.., ready)| *ready).collect();
    counts.sort_unstable();
    counts.dedup();
    let named = |serves: &dyn Fn(usize) -> bool| {
        let nodes = health.nodes.iter().filter(|(.., ready)| serves(*ready));
        let mut names: Vec<_> = nodes.map(|(name, ..)| clean(name)).collect();
        let more = names.len().saturating_sub(NODES_MAX);
        if more > 0 {
            names.truncate(NODES_MAX);
            names.push(words.count("label-and-others", "count", more, &[]));
        }
        names.join(", ")
    };
    let mut lines: Vec<_> = counts
        .iter()
        .rev()
        .map(|count| {
            let nodes = named(&|ready| ready == *count);
            words.count("label-health-serves", "count", *count, &[("nodes", &nodes)])
        })
        .collect();
    let used = named(&|ready| ready > 0);
    let used = if used.is_empty() {
        words.say("label-health-nobody", &[])
    } else {
        used
    };
    lines.push(words.say("label-health-used", &[("nodes", &used)]));
    lines
}

/// Names in one line.
const NODES_MAX: usize = 8;
