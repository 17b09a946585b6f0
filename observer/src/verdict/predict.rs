//! What kube-proxy should do with a connection, from the objects alone.
//!
//! As kube-proxy's modes `iptables` and `nftables` do it (`pkg/proxy/iptables/proxier.go`,
//! `pkg/proxy/nftables/proxier.go`); both mark for masquerade and choose endpoints by the same
//! rules. IPVS mode has others. What a network plugin or a load balancer adds is not in here.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use strum::{Display, VariantNames};

use super::vocabulary::{Basis, CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};
use crate::cluster::{
    AddressKind, Endpoint, Family, FrontDoorKind, Index, KubeProxy, LocalAddresses, Node,
    ProxyMode, ServiceEntry, TrafficPolicy,
};

mod ipvs;

/// What the objects say of one node and of kube-proxy.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The node that the connection enters by.
    pub node: &'a Node,
    /// kube-proxy's configuration; `None`: taken to be as kubeadm sets it up.
    pub kube_proxy: Option<&'a KubeProxy>,
    /// The cluster's objects, which tell pods from what is none.
    pub index: Option<&'a Index>,
}

/// A connection that may come.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The Service port it goes to.
    pub entry: &'a ServiceEntry,
    /// By which kind of front door.
    pub door: FrontDoorKind,
    /// At which address of that, if a single one is meant.
    pub at: Option<IpAddr>,
    /// In which family.
    pub family: Family,
    /// Who opens it: from outside, a pod of the node, or the node itself.
    pub client: ClientKind,
    /// From which address, if a single one is meant.
    pub address: Option<IpAddr>,
    /// Which endpoint it will get, if a single one is meant.
    pub endpoint: Option<IpAddr>,
}

/// What should become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// What becomes of the client's address; `Unknown` if that depends on what the objects do not
    /// tell, or on which endpoint is chosen.
    pub source_ip: SourceIp,
    /// Why it is masqueraded, if it is marked for that.
    pub cause: Option<CauseCode>,
    /// What becomes of the opening packet.
    pub outcome: Outcome,
    /// Why.
    pub outcome_cause: Option<OutcomeCauseCode>,
    /// Nodes on the way beyond this one, at least and at most; `None` if no endpoint is chosen, or
    /// where one lives is not known.
    pub extra_hops: Option<RangeInclusive<u8>>,
    /// What that rests on.
    pub basis: Basis,
    /// Why it cannot be told what becomes of the client's address, where no rule of kube-proxy's
    /// touches it.
    pub doubt: Option<Doubt>,
}

/// What decides about an address beside kube-proxy's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Chance: the client may get itself.
    Itself,
    /// The network plugin: the pod leaves the pod network.
    PodNetwork,
}

/// Why a prediction is as it is. The sentences are in the language files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Why {
    /// No endpoint is ready anywhere: kube-proxy rejects.
    NoEndpoints,
    /// Policy Local, none here: a virtual server rejects.
    LocalRejected,
    /// Policy Local, none here: sent elsewhere, and the reply goes past this node.
    LocalPastThisNode,
    /// Policy Local, none here: kube-proxy drops.
    LocalDropped,
    /// The client is in none of `loadBalancerSourceRanges`.
    SourceRanges,
    /// No node ports at this address (`nodePortAddresses`).
    NotANodePortAddress,
    /// It does not get through.
    NotThrough,
    /// Marked for masquerade, and delivered to the node itself.
    MarkedInVain,
    /// What the node itself sends is masqueraded.
    NodeLocalClient,
    /// Whoever reaches itself is masqueraded.
    Hairpin,
    /// Whatever enters here is masqueraded.
    ExternalTrafficPolicyCluster,
    /// Whatever goes to a cluster address is.
    MasqueradeAll,
    /// What is not taken for a pod's is.
    OutsideClusterCidr,
    /// A rule masquerades it.
    SomeRule,
    /// The reply goes past this node.
    AnsweredPastThisNode,
    /// It does if the endpoint is elsewhere.
    MayBeAnsweredPastThisNode,
    /// No rule, unless the pod gets itself.
    NoRuleUnlessItself,
    /// No rule of kube-proxy's; the network plugin may have one.
    NoRuleButThePlugin,
    /// No rule.
    NoRule,
}

impl Prediction {
    /// What becomes of a connection of which it is not known whether it is this one's or another's:
    /// what both say, as far as they agree.
    pub(super) fn or(self, other: &Self) -> Self {
        let hops = self.extra_hops.zip(other.extra_hops.clone());
        Self {
            source_ip: if self.source_ip == other.source_ip {
                self.source_ip
            } else {
                SourceIp::Unknown
            },
            outcome: if self.outcome == other.outcome {
                self.outcome
            } else {
                Outcome::Unknown
            },
            cause: self.cause.filter(|cause| other.cause == Some(*cause)),
            outcome_cause: self
                .outcome_cause
                .filter(|cause| other.outcome_cause == Some(*cause)),
            extra_hops: hops
                .map(|(one, other)| *one.start().min(other.start())..=*one.end().max(other.end())),
            basis: self.basis,
            doubt: self.doubt.or(other.doubt),
        }
    }

    /// Why: a word of the language files.
    pub const fn why(&self) -> Why {
        match (self.outcome_cause, self.cause, self.source_ip) {
            (Some(OutcomeCauseCode::NoEndpoints), ..) => Why::NoEndpoints,
            (Some(OutcomeCauseCode::NoLocalEndpoints), ..) => match self.outcome {
                Outcome::Refused => Why::LocalRejected,
                Outcome::Unanswered => Why::LocalPastThisNode,
                _ => Why::LocalDropped,
            },
            (Some(OutcomeCauseCode::SourceRanges), ..) => Why::SourceRanges,
            (Some(OutcomeCauseCode::NotANodePortAddress), ..) => Why::NotANodePortAddress,
            (Some(_), ..) => Why::NotThrough,
            (None, Some(_), SourceIp::Preserved) => Why::MarkedInVain,
            (None, Some(CauseCode::NodeLocalClient), _) => Why::NodeLocalClient,
            (None, Some(CauseCode::Hairpin), _) => Why::Hairpin,
            (None, Some(CauseCode::ExternalTrafficPolicyCluster), _) => {
                Why::ExternalTrafficPolicyCluster
            }
            (None, Some(CauseCode::MasqueradeAll), _) => Why::MasqueradeAll,
            (None, Some(CauseCode::OutsideClusterCidr), _) => Why::OutsideClusterCidr,
            (None, Some(_), _) => Why::SomeRule,
            (None, None, _) => match (self.outcome, self.doubt) {
                (Outcome::Unanswered, _) => Why::AnsweredPastThisNode,
                (Outcome::Unknown, _) => Why::MayBeAnsweredPastThisNode,
                (_, Some(Doubt::Itself)) => Why::NoRuleUnlessItself,
                (_, Some(Doubt::PodNetwork)) => Why::NoRuleButThePlugin,
                (_, None) => Why::NoRule,
            },
        }
    }
}

/// Predicts. `None`: kube-proxy has no part in it (a pod reached directly, a host port, another
/// proxy mode's business), or the client is of a kind that the rules do not tell apart.
pub fn predict(question: &Question<'_>, terms: Terms<'_>) -> Option<Prediction> {
    let Question {
        entry,
        door,
        family,
        client,
        ..
    } = *question;
    let from_outside = match door {
        FrontDoorKind::NodePort | FrontDoorKind::LoadBalancer | FrontDoorKind::ExternalIP => true,
        FrontDoorKind::ClusterIP => false,
        FrontDoorKind::HostPort | FrontDoorKind::Pod => return None,
    };
    if !matches!(
        client,
        ClientKind::External | ClientKind::Pod | ClientKind::Node
    ) {
        return None;
    }
    if terms
        .kube_proxy
        .is_some_and(|config| config.mode == ProxyMode::Ipvs)
    {
        return Some(ipvs::predict(question, from_outside, terms));
    }
    let nobody = |outcome, cause| nobody(outcome, cause, terms);
    // First, since no endpoint would help.
    if door == FrontDoorKind::NodePort && !is_served(question, terms) {
        return Some(nobody(
            Outcome::Refused,
            OutcomeCauseCode::NotANodePortAddress,
        ));
    }
    if !entry.has_usable_endpoint(family) {
        return Some(nobody(Outcome::Refused, OutcomeCauseCode::NoEndpoints));
    }
    if door == FrontDoorKind::LoadBalancer && is_fenced_out(question) {
        return Some(nobody(Outcome::Dropped, OutcomeCauseCode::SourceRanges));
    }
    let local_only = if from_outside {
        entry.service.external_traffic_policy == TrafficPolicy::Local && !is_spared(question, terms)
    } else {
        entry.service.internal_traffic_policy == TrafficPolicy::Local
    };
    let candidates = if local_only {
        entry.usable_local_endpoints(family, &terms.node.name)
    } else {
        entry.cluster_endpoints(family, terms.node)
    };
    if candidates.is_empty() {
        return Some(nobody(Outcome::Dropped, OutcomeCauseCode::NoLocalEndpoints));
    }
    let question = &settled(question, &candidates);
    let mark = mark(question, from_outside, terms);
    Some(reached(question, mark, &candidates, terms))
}

/// Which endpoint it gets, if there is but one.
fn settled<'a>(question: &Question<'a>, candidates: &[&Endpoint]) -> Question<'a> {
    let endpoint = match candidates {
        [only] => Some(only.address),
        _ => question.endpoint,
    };
    Question {
        endpoint,
        ..*question
    }
}

/// No endpoint is chosen.
fn nobody(outcome: Outcome, cause: OutcomeCauseCode, terms: Terms<'_>) -> Prediction {
    Prediction {
        source_ip: SourceIp::Unknown,
        cause: None,
        outcome,
        outcome_cause: Some(cause),
        extra_hops: None,
        basis: terms.basis(),
        doubt: None,
    }
}

/// One of `candidates` is chosen, and answers.
fn reached(
    question: &Question<'_>,
    mark: Option<CauseCode>,
    candidates: &[&Endpoint],
    terms: Terms<'_>,
) -> Prediction {
    let may_get_itself = || {
        candidates
            .iter()
            .any(|one| Some(one.address) == question.address)
    };
    let doubt = match (mark, question.endpoint) {
        (None, None) if may_get_itself() => Some(Doubt::Itself),
        // That it does not let a pod's address out is the rule.
        (None, _) if may_leave_the_pod_network(question, candidates, terms) => {
            Some(Doubt::PodNetwork)
        }
        _ => None,
    };
    let source_ip = match (mark, question.endpoint) {
        (None, _) if doubt.is_some() => SourceIp::Unknown,
        (None, _) => SourceIp::Preserved,
        // A node's own connection has the address of the interface it leaves by, and so has its
        // masquerade: whether they differ is a matter of routes.
        (Some(_), _) if question.client == ClientKind::Node => SourceIp::Unknown,
        (Some(_), Some(endpoint)) => masqueraded([endpoint], terms.node),
        (Some(_), None) => masqueraded(candidates.iter().map(|one| one.address), terms.node),
    };
    Prediction {
        source_ip,
        cause: mark,
        outcome: if mark.is_none() && is_pod_of_another_node(question, terms) {
            past_this_node(question, candidates, terms.node)
        } else {
            Outcome::Answered
        },
        outcome_cause: None,
        extra_hops: extra_hops(candidates, terms.node),
        basis: terms.basis(),
        doubt,
    }
}

/// Whether the client is a pod that lives elsewhere: replies to its own address do not return here.
fn is_pod_of_another_node(question: &Question<'_>, terms: Terms<'_>) -> bool {
    let node = question
        .address
        .zip(terms.index)
        .and_then(|(address, index)| {
            // No endpoint has this port: the address alone tells.
            index.backend(question.entry.protocol, address, 0).node
        });
    question.client == ClientKind::Pod && node.is_some_and(|node| node != &*terms.node.name)
}

/// What becomes of a connection whose replies return here only from this node's own endpoints
/// (kubernetes/kubernetes#44916).
fn past_this_node(question: &Question<'_>, candidates: &[&Endpoint], node: &Node) -> Outcome {
    let mut may_be = candidates
        .iter()
        .filter(|one| {
            question
                .endpoint
                .is_none_or(|endpoint| endpoint == one.address)
        })
        .map(|one| one.node.as_deref() == Some(&*node.name));
    let first = may_be.next();
    match first {
        Some(is_here) if may_be.all(|other| other == is_here) => {
            if is_here {
                Outcome::Answered
            } else {
                Outcome::Unanswered
            }
        }
        _ => Outcome::Unknown,
    }
}

/// Whether a pod may get an endpoint on another node that is no pod.
fn may_leave_the_pod_network(
    question: &Question<'_>,
    candidates: &[&Endpoint],
    terms: Terms<'_>,
) -> bool {
    let Terms { node, index, .. } = terms;
    let nobody = LocalAddresses::new(&*node.name, []);
    let is_outside = |address: &IpAddr| {
        !node.addresses.contains(address)
            && index.is_some_and(|index| index.address_kind(*address, &nobody) != AddressKind::Pod)
    };
    let may_be = candidates.iter().map(|one| one.address);
    question.client == ClientKind::Pod
        && match question.endpoint {
            Some(endpoint) => is_outside(&endpoint),
            None => may_be.into_iter().any(|address| is_outside(&address)),
        }
}

impl Terms<'_> {
    fn basis(self) -> Basis {
        match self.kube_proxy {
            Some(_) => Basis::Config,
            None => Basis::Inferred,
        }
    }
}

/// Whether the client is in none of the ranges that may come by the load balancer's address.
/// Without an address a client from outside is taken for one that may.
fn is_fenced_out(question: &Question<'_>) -> bool {
    let service = &question.entry.service;
    let mut ranges = service.source_ranges(question.family).peekable();
    question.address.is_some_and(|address| {
        ranges.peek().is_some() && !ranges.any(|range| range.contains(&address))
    })
}

/// Whether kube-proxy serves node ports at the address.
fn is_served(question: &Question<'_>, terms: Terms<'_>) -> bool {
    terms
        .kube_proxy
        .zip(question.at)
        .is_none_or(|(config, address)| config.serves_node_ports_at(address, terms.node))
}

/// Whether policy `Local` is not for this client: the node itself, and what kube-proxy takes for a
/// pod, get any endpoint.
fn is_spared(question: &Question<'_>, terms: Terms<'_>) -> bool {
    match question.client {
        ClientKind::Node => true,
        ClientKind::Pod => terms
            .kube_proxy
            .zip(question.address)
            .and_then(|(config, address)| config.is_local(address, Some(terms.node)))
            .unwrap_or(true),
        ClientKind::External | ClientKind::LoadBalancer | ClientKind::Unknown => false,
    }
}

/// Why the connection is marked for masquerade, if it is.
fn mark(question: &Question<'_>, from_outside: bool, terms: Terms<'_>) -> Option<CauseCode> {
    let Question { entry, client, .. } = *question;
    if let Some(hairpin) = hairpin(question) {
        return Some(hairpin);
    }
    let cluster = entry.service.external_traffic_policy == TrafficPolicy::Cluster;
    match client {
        // `! -s clusterCIDR` for a cluster IP, `--src-type LOCAL` or everything for the others.
        ClientKind::Node if !from_outside && takes_the_node_for_a_pod(question, terms) => None,
        ClientKind::Node => Some(CauseCode::NodeLocalClient),
        _ if from_outside => cluster.then_some(CauseCode::ExternalTrafficPolicyCluster),
        _ if terms.kube_proxy.is_some_and(|config| config.masquerade_all) => {
            Some(CauseCode::MasqueradeAll)
        }
        _ => is_outside(question, terms).then_some(CauseCode::OutsideClusterCidr),
    }
}

/// Why a connection that comes back to its client is, under any policy.
fn hairpin(question: &Question<'_>) -> Option<CauseCode> {
    let comes_back = question.endpoint.is_some()
        && question.endpoint == question.address
        // What the node delivers to itself passes no such rule.
        && question.client != ClientKind::Node;
    comes_back.then_some(CauseCode::Hairpin)
}

/// Whether kube-proxy is known to have no rule for what the node itself sends to a cluster IP: its
/// cluster CIDR holds the node's address, or there is none.
fn takes_the_node_for_a_pod(question: &Question<'_>, terms: Terms<'_>) -> bool {
    terms.kube_proxy.is_some_and(|config| {
        let address = question
            .address
            .or(terms.node.primary_address(question.family));
        !config.masquerade_all
            && address.and_then(|own| config.is_outside(own, Some(terms.node))) == Some(false)
    })
}

/// Whether kube-proxy takes the client for one outside the cluster.
fn is_outside(question: &Question<'_>, terms: Terms<'_>) -> bool {
    let configured = terms
        .kube_proxy
        .zip(question.address)
        .and_then(|(config, address)| config.is_outside(address, Some(terms.node)));
    configured.unwrap_or(question.client == ClientKind::External)
}

/// What becomes of the source on the way to any of `endpoints` under a mark for masquerade: what
/// is delivered to the node itself never reaches the chain that masquerades.
fn masqueraded(endpoints: impl IntoIterator<Item = IpAddr>, node: &Node) -> SourceIp {
    let mut fates = endpoints.into_iter().map(|endpoint| {
        if node.addresses.contains(&endpoint) {
            SourceIp::Preserved
        } else {
            SourceIp::Lost
        }
    });
    let first = fates.next().unwrap_or(SourceIp::Unknown);
    if fates.all(|fate| fate == first) {
        first
    } else {
        SourceIp::Unknown
    }
}

fn extra_hops(candidates: &[&Endpoint], node: &Node) -> Option<RangeInclusive<u8>> {
    let hops: Option<Vec<_>> = candidates
        .iter()
        .map(|endpoint| Some(u8::from(*endpoint.node.as_ref()? != node.name)))
        .collect();
    let hops = hops?;
    Some(*hops.iter().min()?..=*hops.iter().max()?)
}
