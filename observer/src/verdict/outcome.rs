//! What became of the opening packet, and why. The wire decides the first, the objects the second.

use super::judge::Scene;
use super::vocabulary::{ClientKind, Outcome, OutcomeCause, OutcomeCauseCode};
use crate::cluster::{Family, FrontDoorKind, Protocol, TrafficPolicy};
use crate::flow::{Answer, Refusal};
use crate::observation::{Conntrack, DropReason, Entry};

type Why = (OutcomeCauseCode, String);

impl Scene<'_> {
    pub(super) fn outcome(&self) -> Outcome {
        let existed_before = self.connection.opened_at.is_none();
        match (self.connection.answer, self.connection.entry) {
            (Answer::Accepted(_), _) => Outcome::Answered,
            (Answer::Refused(..), _) => Outcome::Refused,
            (Answer::None, Some(Entry::Present { replied: true, .. })) if existed_before => {
                Outcome::Answered
            }
            (Answer::None, _) if self.connection.doubtful => Outcome::Unknown,
            // An association that nobody answers is forgotten within the answer time-out
            // (`net/netfilter/nf_conntrack_proto_sctp.c`, COOKIE_WAIT: 3 s).
            (Answer::None, Some(Entry::Absent { .. }))
                if self.connection.identity.protocol == Protocol::Sctp
                    && self.connection.departure.is_some() =>
            {
                Outcome::Unanswered
            }
            // Bridges and queues may lose it after it left the first device.
            (Answer::None, Some(Entry::Absent { table_full: false })) if self.is_tracked() => {
                Outcome::Dropped
            }
            (Answer::None, _) if self.connection.departure.is_some() => Outcome::Unanswered,
            // It came and never left by an observed interface; what became of it, only conntrack
            // can tell.
            (Answer::None, Some(Entry::Absent { .. })) => Outcome::Dropped,
            (Answer::None, Some(Entry::Present { replied: false, .. })) => Outcome::Unanswered,
            // A reply was seen, but not by us: it may have left translated, or not.
            (Answer::None, Some(Entry::Present { replied: true, .. }) | None) => Outcome::Unknown,
        }
    }

    /// Whether it left with a conntrack entry.
    fn is_tracked(&self) -> bool {
        self.connection
            .translation
            .is_some_and(|translation| translation.conntrack == Conntrack::Entry)
    }

    pub(super) fn outcome_cause(&self, outcome: Outcome) -> Option<OutcomeCause> {
        let (code, mut explanation) = match outcome {
            Outcome::Answered | Outcome::Unknown => return None,
            Outcome::Refused => self.why_refused(),
            Outcome::Dropped => self.why_dropped(),
            Outcome::Unanswered => self.why_unanswered()?,
        };
        if outcome == Outcome::Dropped
            && let Some(DropReason(reason)) = &self.connection.drop_reason
        {
            explanation = format!("{explanation} (the kernel's drop reason: {reason})");
        }
        Some(OutcomeCause { code, explanation })
    }

    fn why_refused(&self) -> Why {
        if let Some(why) = self.no_endpoints("rejects") {
            return why;
        }
        let Answer::Refused(refusal, answered) = self.connection.answer else {
            return unknown("refused");
        };
        if let Some((backend, _)) = self.chosen {
            let never_got_there = answered.arrival.is_none()
                && self.connection.departure.is_none()
                && !self.knowledge.local.contains(backend.ip());
            return if never_got_there {
                (
                    OutcomeCauseCode::NetworkPolicyOrFirewall,
                    format!(
                        "a network policy or a firewall of this node rejected it on its way to \
                         {backend}"
                    ),
                )
            } else {
                (
                    OutcomeCauseCode::BackendRefused,
                    format!("{backend} refused: nothing listens there, or its own host rejects"),
                )
            };
        }
        let foreseen = self
            .prediction()
            .and_then(|foreseen| foreseen.outcome_cause);
        if foreseen == Some(OutcomeCauseCode::NoLocalEndpoints)
            && let Some(why) = self.no_local_endpoints("kube-proxy's virtual server rejects it")
        {
            return why;
        }
        // kube-proxy rejects by ICMP error; a RST is the host's own word.
        let likely = self.knowledge.kube_proxy.is_none()
            && self.front_door.kind == Some(FrontDoorKind::NodePort)
            && refusal == Refusal::Reset;
        if self.is_no_node_port_address() || likely {
            return (
                OutcomeCauseCode::NotANodePortAddress,
                format!(
                    "kube-proxy serves no node ports at {} (nodePortAddresses): the connection \
                     went to the host itself, where nothing listens",
                    self.front_door.address.ip()
                ),
            );
        }
        unknown("refused")
    }

    fn why_dropped(&self) -> Why {
        // A REJECT whose ICMP error was rate limited is a drop on the wire.
        if let Some(why) = self
            .no_endpoints("rejects, with an error that was not sent, or drops")
            .or_else(|| self.dropped_by_kube_proxy())
            .or_else(|| self.not_spared())
        {
            return why;
        }
        if let Some(Entry::Absent { table_full: true }) = self.connection.entry {
            return (
                OutcomeCauseCode::ConntrackFull,
                "conntrack has no room for another entry (nf_conntrack_max), and drops what \
                 would need one"
                    .to_owned(),
            );
        }
        match (self.entry, self.prediction()) {
            (Some(entry), Some(_)) => (
                OutcomeCauseCode::NetworkPolicyOrFirewall,
                format!(
                    "kube-proxy would have let it pass to {}: a network policy, a firewall or the \
                     reverse path filter of this node did not",
                    entry.service.reference
                ),
            ),
            _ => unknown("dropped"),
        }
    }

    /// Which rule of kube-proxy drops what comes by this front door.
    fn dropped_by_kube_proxy(&self) -> Option<Why> {
        let code = self.prediction()?.outcome_cause?;
        let name = &self.entry?.service.reference;
        let explanation = match code {
            OutcomeCauseCode::SourceRanges => format!(
                "{} is in none of the loadBalancerSourceRanges of {name}: kube-proxy drops the \
                 connection",
                self.client.address.ip()
            ),
            OutcomeCauseCode::NoLocalEndpoints => {
                return self.no_local_endpoints("kube-proxy drops the connection");
            }
            _ => return None,
        };
        Some((code, explanation))
    }

    /// A pod that policy Local would spare, if kube-proxy took it for one; its configuration, which
    /// is not known, says whether it does.
    fn not_spared(&self) -> Option<Why> {
        let entry = self.entry?;
        let family = Family::of(self.front_door.address.ip());
        let here = entry.usable_local_endpoints(family, self.knowledge.local.node());
        let may_be_why = self.knowledge.kube_proxy.is_none()
            && self.client.kind == ClientKind::Pod
            && self.is_from_outside()
            && entry.service.external_traffic_policy == TrafficPolicy::Local
            && here.is_empty();
        if !may_be_why {
            return None;
        }
        self.no_local_endpoints(
            "kube-proxy spares pods that, but drops the connection of one that its cluster CIDR \
             does not hold; its configuration would tell",
        )
    }

    fn why_unanswered(&self) -> Option<Why> {
        let (backend, _) = self.chosen?;
        let returned = matches!(
            self.connection.entry,
            Some(Entry::Present { replied: true, .. })
        );
        if self.connection.stray.is_some() || returned {
            return Some((
                OutcomeCauseCode::AsymmetricReturn,
                format!(
                    "a reply came back, but never left towards the client as one of its \
                     connection: it took a way on which this node does not translate what \
                     {backend} sends"
                ),
            ));
        }
        if self.prediction().is_some_and(|foreseen| {
            foreseen.outcome == Outcome::Unanswered && foreseen.outcome_cause.is_some()
        }) {
            return self.no_local_endpoints(&format!(
                "in IPVS mode kube-proxy sends the connection to {backend} all the same, with the \
                 source it came with, and the reply does not return through this node"
            ));
        }
        // A UDP socket takes what comes, and need not answer.
        let delivered = self.connection.identity.protocol != Protocol::Udp
            && self.connection.is_silent()
            && self.knowledge.local.contains(backend.ip());
        delivered.then(|| {
            (
                OutcomeCauseCode::ListenQueue,
                format!(
                    "this node's own socket at {backend} got it and did not take it: its accept \
                     queue is full"
                ),
            )
        })
    }

    /// Whether kube-proxy is known to serve no node port at this address.
    fn is_no_node_port_address(&self) -> bool {
        let foreseen = self.prediction();
        foreseen.and_then(|foreseen| foreseen.outcome_cause)
            == Some(OutcomeCauseCode::NotANodePortAddress)
    }

    /// Policy Local finds nobody on this node: `fate` is what comes of it.
    fn no_local_endpoints(&self, fate: &str) -> Option<Why> {
        let policy = if self.is_from_outside() {
            "externalTrafficPolicy"
        } else {
            "internalTrafficPolicy"
        };
        let explanation = format!(
            "{policy} is Local and {} has no usable endpoint of {}: {fate}",
            self.knowledge.local.node(),
            self.entry?.service.reference
        );
        Some((OutcomeCauseCode::NoLocalEndpoints, explanation))
    }

    /// If no endpoint could be chosen, because there is none, and one would have been.
    fn no_endpoints(&self, kube_proxy: &str) -> Option<Why> {
        let family = Family::of(self.front_door.address.ip());
        let entry = self.entry?;
        let is_why = self.chosen.is_none()
            && !entry.has_usable_endpoint(family)
            && !self.is_no_node_port_address();
        is_why.then(|| {
            (
                OutcomeCauseCode::NoEndpoints,
                format!(
                    "{} has no usable endpoint: kube-proxy {kube_proxy} the connection",
                    entry.service.reference
                ),
            )
        })
    }
}

fn unknown(what: &str) -> Why {
    (
        OutcomeCauseCode::Unknown,
        format!("this node {what} it, and nothing known of the cluster says why"),
    )
}
