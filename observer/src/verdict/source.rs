//! What became of the source address: on this node, and on the whole way.

use super::judge::Scene;
use super::parts::{Loss, Lost};
use super::vocabulary::{Basis, Cause, CauseCode, ClientKind, SourceIp};
use crate::cluster::FrontDoorKind;

/// What became of a source address.
pub(super) struct Source {
    pub(super) fate: SourceIp,
    pub(super) losses: Vec<Loss>,
    pub(super) cause: Option<Cause>,
}

impl Source {
    const fn unknown(cause: Option<Cause>) -> Self {
        Self {
            fate: SourceIp::Unknown,
            losses: Vec::new(),
            cause,
        }
    }

    fn lost(losses: Vec<Loss>) -> Self {
        Self {
            fate: SourceIp::Lost,
            cause: losses.first().map(|loss| loss.cause.clone()),
            losses,
        }
    }
}

impl Scene<'_> {
    /// What became of the source on the whole way, given what became of it here.
    pub(super) fn whole(&self, here: Source) -> Source {
        if self.chosen.is_none() {
            return here;
        }
        if let Some(before) = self.loss_before() {
            let mut losses = vec![before];
            losses.extend(here.losses);
            return Source::lost(losses);
        }
        let Some(cause) = self.doubt_before() else {
            return here;
        };
        match here.fate {
            // What arrived was replaced here, whosever it was.
            SourceIp::Lost => self.with_the_gateway(here),
            SourceIp::Preserved | SourceIp::Unknown => Source::unknown(Some(cause)),
        }
    }

    /// Why it is not known whether what arrived is the client's.
    pub(super) fn doubt_before(&self) -> Option<Cause> {
        self.by_its_own_word().or_else(|| self.by_gateway())
    }

    fn with_the_gateway(&self, mut here: Source) -> Source {
        let Some(more) = self.beyond_the_gateway() else {
            return here;
        };
        let causes = here.losses.iter_mut().map(|loss| &mut loss.cause);
        for cause in causes.take(1).chain(&mut here.cause) {
            cause.explanation.push_str(&more);
        }
        here
    }

    /// What became on this node of the source that arrived.
    pub(super) fn here(&self) -> Source {
        let Some((_, source_seen)) = self.chosen else {
            return Source::unknown(None);
        };
        if self.masqueraded_before() {
            let cause = Cause {
                code: CauseCode::MasqueradedBeforeThisNode,
                basis: Basis::Inferred,
                explanation: format!(
                    "{} is an address of the cluster's nodes, not of a client: whoever opened \
                     this was rewritten before it reached this node",
                    self.client.address.ip()
                ),
            };
            return Source::unknown(Some(cause));
        }
        // Joined with its arrival by its own header, it was not rewritten in between.
        if self.is_untracked() && self.connection.arrival.is_none() {
            let cause = Cause {
                code: CauseCode::Unknown,
                basis: Basis::Observed,
                explanation: "its packets are exempted from connection tracking (NOTRACK): what \
                              became of its addresses behind that, nothing on this node records"
                    .to_owned(),
            };
            return Source::unknown(Some(cause));
        }
        if source_seen.ip() == self.client.address.ip() {
            return Source {
                fate: SourceIp::Preserved,
                losses: Vec::new(),
                cause: None,
            };
        }
        let (by, cause) = self.loss(source_seen.ip());
        let departure = self.connection.departure;
        let at = Lost {
            node: Some(self.knowledge.local.shared_node()),
            interface: departure.map(|departure| departure.interface),
            by,
        };
        Source::lost(vec![Loss { at, cause }])
    }

    /// Whether this node is not the first: it sees an address that another node put there, or
    /// one that cannot be told from such.
    fn masqueraded_before(&self) -> bool {
        self.front_door.kind == Some(FrontDoorKind::Pod)
            && !self.rewritten()
            && match self.client.kind {
                ClientKind::External | ClientKind::Pod | ClientKind::LoadBalancer => false,
                ClientKind::Node => !self.opened_here() && self.speaks_by().is_none(),
                ClientKind::Unknown => true,
            }
    }
}
