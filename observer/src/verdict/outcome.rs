//! What became of the opening packet, and why. The wire decides the first, the objects the second.

use super::judge::Scene;
use super::vocabulary::{Outcome, OutcomeCause, OutcomeCauseCode};
use crate::cluster::{Family, FrontDoorKind, TrafficPolicy};
use crate::flow::{Answer, Answered};
use crate::observation::Entry;

impl Scene<'_> {
    pub(super) fn outcome(&self) -> Outcome {
        match (self.connection.answer, self.connection.entry) {
            (Answer::Accepted(_), _) => Outcome::Answered,
            (Answer::Refused(_), _) => Outcome::Refused,
            (Answer::None, _) if self.connection.departure.is_some() => Outcome::Unanswered,
            // It came and never left by an observed interface; what became of it, only conntrack
            // can tell.
            (Answer::None, Some(Entry::Absent)) => Outcome::Dropped,
            (Answer::None, Some(Entry::Present { replied: false, .. })) => Outcome::Unanswered,
            // A reply was seen, but not by us: it may have left translated, or not.
            (Answer::None, Some(Entry::Present { replied: true, .. }) | None) => Outcome::Unknown,
        }
    }

    pub(super) fn outcome_cause(&self, outcome: Outcome) -> Option<OutcomeCause> {
        let (code, explanation) = match outcome {
            Outcome::Answered | Outcome::Unknown => return None,
            Outcome::Refused => self.why_refused(),
            Outcome::Dropped => self.why_dropped(),
            Outcome::Unanswered => self.why_unanswered()?,
        };
        Some(OutcomeCause { code, explanation })
    }

    fn why_refused(&self) -> (OutcomeCauseCode, String) {
        if let Some(why) = self.no_endpoints("rejects") {
            return why;
        }
        match (self.chosen, self.connection.answer) {
            (
                Some((backend, _)),
                Answer::Refused(Answered {
                    arrival: Some(_), ..
                }),
            ) => (
                OutcomeCauseCode::BackendRefused,
                format!("{backend} refused: nothing listens there, or its own host rejects"),
            ),
            _ => (
                OutcomeCauseCode::Unknown,
                "this node refused, and nothing known of the cluster says why".to_owned(),
            ),
        }
    }

    fn why_dropped(&self) -> (OutcomeCauseCode, String) {
        let client = self.client.address.ip();
        // A REJECT whose ICMP error was rate limited is a drop on the wire.
        if let Some(why) = self.no_endpoints("rejects, with an error that was not sent, or drops") {
            return why;
        }
        if let Some(entry) = self.entry {
            let family = Family::of(self.front_door.address.ip());
            let service = &entry.service;
            let name = &service.reference;
            let node = self.knowledge.local.node();
            let mut ranges = service.source_ranges(family).peekable();
            if self.front_door.kind == Some(FrontDoorKind::LoadBalancer)
                && ranges.peek().is_some()
                && !ranges.any(|range| range.contains(&client))
            {
                let explanation = format!(
                    "{client} is in none of the loadBalancerSourceRanges of {name}: kube-proxy \
                     drops the connection"
                );
                return (OutcomeCauseCode::SourceRanges, explanation);
            }
            if self.is_from_outside()
                && service.external_traffic_policy == TrafficPolicy::Local
                && !entry.has_local_endpoint(family, node)
            {
                let explanation = format!(
                    "externalTrafficPolicy is Local and {node} has no usable endpoint of {name}: \
                     kube-proxy drops the connection"
                );
                return (OutcomeCauseCode::NoLocalEndpoints, explanation);
            }
        }
        (
            OutcomeCauseCode::Unknown,
            "netfilter or routing on this node let it die, and nothing known of the cluster says \
             why"
            .to_owned(),
        )
    }

    fn why_unanswered(&self) -> Option<(OutcomeCauseCode, String)> {
        let (backend, _) = self.chosen?;
        let delivered = self.connection.is_silent() && self.knowledge.local.contains(backend.ip());
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

    /// If no endpoint could be chosen, because there is none.
    fn no_endpoints(&self, kube_proxy: &str) -> Option<(OutcomeCauseCode, String)> {
        let family = Family::of(self.front_door.address.ip());
        let entry = self.entry?;
        (self.chosen.is_none() && !entry.has_usable_endpoint(family)).then(|| {
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
