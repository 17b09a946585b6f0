//! What comes of a Service's ways, in one word and what belongs to it.

use std::collections::BTreeSet;

use serde::Serialize;
use strum::{Display, VariantNames};

use super::{Door, Loser, Way};
use crate::cluster::finding::Finding;
use crate::cluster::front::Carrier;
use crate::verdict::vocabulary::{CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};

/// What comes of a Service's ways, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Display, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Word {
    /// Pods see the client.
    Preserved,
    /// They do not.
    Lost,
    /// They do by some ways, or by chance.
    Depends,
    /// Nobody comes through.
    Unreachable,
    /// Connections come through, and requests fail: one side waits for what the other does not
    /// send.
    Broken,
    /// It has no address of its own, or nothing that leads to it is known.
    NoAddress,
    /// Cannot be told.
    Unknown,
}

/// What comes of the ways by which a Service is meant to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In a word.
    pub word: Word,
    /// By which doors.
    pub doors: BTreeSet<Door>,
    /// Who comes by them.
    pub client: ClientKind,
    /// Who loses the address.
    pub lost_by: BTreeSet<Loser>,
    /// Why, if it is kube-proxy.
    pub cause: Option<CauseCode>,
    /// By what the pods can find the client all the same, whichever way it comes.
    pub recoverable: Vec<Carrier>,
    /// Whether the client may be found by what is not known.
    pub may_be_recoverable: bool,
    /// Nodes that do not let it through, and why.
    pub closed: Option<(usize, OutcomeCauseCode)>,
}

impl Verdict {
    /// Whether pods see another address than that of a client outside, by a way that is open.
    pub fn loses(&self) -> bool {
        self.client == ClientKind::External && !self.lost_by.is_empty()
    }

    /// Whether a client outside is let in by no node, or not by every one that it may come by.
    pub fn closes(&self) -> bool {
        self.client == ClientKind::External
            && (self.closed.is_some() || self.word == Word::Unreachable)
    }

    /// By the doors that are for clients outside, the widest first; else by the cluster address.
    pub(super) fn of(ways: &[Way<'_>], findings: &[Finding]) -> Self {
        let main = [
            &[Door::LoadBalancer, Door::Proxy][..],
            &[Door::NodePort, Door::ExternalIP],
        ];
        let outside = |doors: &[Door]| -> Vec<_> {
            let is_main =
                |way: &&Way<'_>| way.client == ClientKind::External && doors.contains(&way.door);
            // At an address where no node port is, nobody is meant to come.
            let is_meant =
                |way: &&Way<'_>| way.outcome_cause != Some(OutcomeCauseCode::NotANodePortAddress);
            ways.iter().filter(is_main).filter(is_meant).collect()
        };
        let all = ways;
        let (ways, client) = main
            .into_iter()
            .map(outside)
            .find(|ways| !ways.is_empty())
            .map_or_else(
                || {
                    let inside = ways.iter().filter(|way| way.client == ClientKind::Pod);
                    (inside.collect::<Vec<_>>(), ClientKind::Pod)
                },
                |ways| (ways, ClientKind::External),
            );
        let open: Vec<_> = ways.iter().filter(|way| way.is_open()).collect();
        let fates: BTreeSet<_> = open.iter().map(|way| way.source_ip).collect();
        let is_broken = findings.iter().any(Finding::breaks_requests);
        let word = match (fates.len(), fates.first()) {
            _ if all.is_empty() => Word::NoAddress,
            (0, _) => Word::Unreachable,
            _ if is_broken => Word::Broken,
            (1, Some(SourceIp::Preserved)) => Word::Preserved,
            (1, Some(SourceIp::Lost)) => Word::Lost,
            _ if fates.contains(&SourceIp::Lost) => Word::Depends,
            _ => Word::Unknown,
        };
        let lost: Vec<_> = open
            .iter()
            .filter(|way| way.source_ip == SourceIp::Lost)
            .collect();
        let recoverable = lost.first().map_or(&[][..], |way| &way.recoverable);
        let recoverable = recoverable
            .iter()
            .filter(|it| lost.iter().all(|way| way.recoverable.contains(it)));
        let closed = ways.iter().filter(|way| {
            !way.left_out && matches!(way.outcome, Outcome::Dropped | Outcome::Refused)
        });
        let closed_nodes: BTreeSet<_> = closed.clone().flat_map(|way| &*way.nodes).collect();
        Self {
            word,
            doors: ways.iter().map(|way| way.door).collect(),
            client,
            lost_by: lost.iter().filter_map(|way| way.lost_by).collect(),
            cause: lost.iter().find_map(|way| way.cause),
            recoverable: recoverable.copied().collect(),
            may_be_recoverable: lost.iter().any(|way| !way.is_whole),
            closed: closed
                .clone()
                .find_map(|way| way.outcome_cause)
                .map(|cause| (closed_nodes.len(), cause)),
        }
    }
}
