//! What IPVS mode does otherwise (`pkg/proxy/ipvs/proxier.go`, `net/netfilter/ipvs/`).
//!
//! Every Service address is the node's own, so the filter table sees a connection before a virtual
//! server does, and what the node itself sends to such an address has it as source. Policy Local
//! marks nothing and spares nobody: where the node has no endpoint, all of the Service's are taken
//! (kubernetes#97081). Such a connection is not masqueraded, so it is answered only if the reply
//! returns through this node by itself.

use super::{
    Prediction, Question, Terms, hairpin, is_fenced_out, is_pod_of_another_node, is_served, mark,
    nobody, reached, settled,
};
use crate::cluster::{FrontDoorKind, TrafficPolicy};
use crate::verdict::vocabulary::{ClientKind, Outcome, OutcomeCauseCode};

pub(super) fn predict(question: &Question<'_>, from_outside: bool, terms: Terms<'_>) -> Prediction {
    let Question {
        entry,
        door,
        family,
        ..
    } = *question;
    let nobody = |outcome, cause| nobody(outcome, cause, terms);
    if door == FrontDoorKind::LoadBalancer && is_fenced_out(&by_node_address(question, terms)) {
        return nobody(Outcome::Dropped, OutcomeCauseCode::SourceRanges);
    }
    if door == FrontDoorKind::NodePort && !is_served(question, terms) {
        return nobody(Outcome::Refused, OutcomeCauseCode::NotANodePortAddress);
    }
    // A virtual server without endpoints answers with an ICMP error (`ip_vs_leave`).
    if !entry.has_usable_endpoint(family) {
        return nobody(Outcome::Refused, OutcomeCauseCode::NoEndpoints);
    }
    let policy = if from_outside {
        entry.service.external_traffic_policy
    } else {
        entry.service.internal_traffic_policy
    };
    let local = match policy {
        TrafficPolicy::Local => entry.usable_local_endpoints(family, &terms.node.name),
        TrafficPolicy::Cluster => Vec::new(),
    };
    let may_leave = policy == TrafficPolicy::Cluster || entry.is_externally_accessible(family);
    let falls_back = policy == TrafficPolicy::Local && local.is_empty();
    let candidates = if !local.is_empty() {
        local
    } else if may_leave {
        entry.cluster_endpoints(family, terms.node)
    } else {
        return nobody(Outcome::Refused, OutcomeCauseCode::NoLocalEndpoints);
    };
    let question = &settled(question, &candidates);
    let mark = if from_outside && policy == TrafficPolicy::Local {
        hairpin(question)
    } else {
        mark(question, from_outside, terms)
    };
    let prediction = reached(question, mark, &candidates, terms);
    if falls_back && mark.is_none() && !returns_here(question, terms) {
        Prediction {
            outcome: Outcome::Unanswered,
            outcome_cause: Some(OutcomeCauseCode::NoLocalEndpoints),
            ..prediction
        }
    } else {
        prediction
    }
}

/// The same of what the node itself sends, whose source address says nothing: it is admitted if
/// the node's own address is (`KUBE-IPVS-OUT-FILTER`).
fn by_node_address<'a>(question: &Question<'a>, terms: Terms<'_>) -> Question<'a> {
    let address = match question.client {
        ClientKind::Node => terms.node.primary_address(question.family),
        _ => question.address,
    };
    Question {
        address,
        ..*question
    }
}

/// Whether the reply to a connection that left with its own source comes back to this node: a
/// pod's does, and the node's own, unless its source is a Service's address, which every node
/// takes for its own.
fn returns_here(question: &Question<'_>, terms: Terms<'_>) -> bool {
    match question.client {
        ClientKind::Pod => !is_pod_of_another_node(question, terms),
        ClientKind::Node => question.door == FrontDoorKind::NodePort,
        ClientKind::External | ClientKind::LoadBalancer | ClientKind::Unknown => false,
    }
}
