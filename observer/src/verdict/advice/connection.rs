//! What to change for one connection that was seen.

use super::super::chain::Loser;
use super::super::parts::Loss;
use super::super::vocabulary::{CauseCode, OutcomeCauseCode, RewriteOwner};
use super::{Case, Change, ChangeCode, Detail, for_loss, without_local_endpoints};
use crate::cluster::plane::Dataplane;
use crate::cluster::{FrontDoorKind, Index, Service};
use crate::payload::{Carrier, Reading, Reason};

/// What is known of a connection that is to be mended.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The cluster's objects.
    pub(crate) index: &'a Index,
    /// Its Service.
    pub(crate) service: &'a Service,
    /// By what it entered.
    pub(crate) door: Option<FrontDoorKind>,
    /// Where the address was replaced.
    pub(crate) losses: &'a [Loss],
    /// Why the outcome is what it is.
    pub(crate) outcome_cause: Option<OutcomeCauseCode>,
    /// What it began with, if that was read.
    pub(crate) reading: Option<&'a Reading>,
    /// By what its peer is believed to speak for another.
    pub(crate) carrier: Option<Carrier>,
}

/// What mends what happened to one connection, best first. A masquerade that any setting of the
/// Service's leaves in place has nothing to be changed: hairpins, and what the node itself sends.
///
/// Only the first loss counts: what a later stage would keep is not the client's address.
pub(crate) fn of_connection(seen: Seen<'_>) -> Vec<ChangeCode> {
    let changes = all_of_connection(seen).into_iter();
    changes.map(|change| change.code).collect()
}

fn all_of_connection(seen: Seen<'_>) -> Vec<Change> {
    let Seen { index, service, .. } = seen;
    if seen.outcome_cause == Some(OutcomeCauseCode::NoLocalEndpoints) {
        let is_internal = seen.door == Some(FrontDoorKind::ClusterIP);
        return without_local_endpoints(service, is_internal, Detail::Word);
    }
    let known = Case {
        index,
        service,
        load_balancer: service.load_balancer.as_deref(),
        dataplane: Dataplane::KubeProxy,
        routes: &[],
        config_map: None,
        findings: &[],
        detail: Detail::Word,
    };
    let Some(Loss { at, cause }) = seen.losses.first() else {
        return Vec::new();
    };
    let lost_by = match at.by {
        RewriteOwner::KubeProxy => Loser::KubeProxy,
        RewriteOwner::LoadBalancer => Loser::LoadBalancer,
        RewriteOwner::Proxy => Loser::Proxy,
        RewriteOwner::Cni | RewriteOwner::Unknown => return Vec::new(),
    };
    let mut changes = for_loss(known, None, Some(lost_by), Some(cause.code));
    let is_before = matches!(
        cause.code,
        CauseCode::UpstreamLoadBalancer | CauseCode::L7Proxy
    );
    let more = by_first_bytes(seen, changes.is_empty()).filter(|_| is_before);
    let is_new = |code: &ChangeCode| changes.iter().all(|known| known.code != *code);
    let more = more.filter(is_new).map(Change::word);
    changes.extend(more);
    changes
}

/// What the first bytes of a connection from a load balancer or proxy say: what can be read of
/// them, or, where no object knows better, that it sends nothing.
fn by_first_bytes(seen: Seen<'_>, is_all: bool) -> Option<ChangeCode> {
    match seen.carrier {
        Some(Carrier::XForwardedFor | Carrier::Forwarded) => Some(ChangeCode::ReadForwardedFor),
        Some(Carrier::ProxyV1 | Carrier::ProxyV2) => Some(ChangeCode::ReadProxyProtocol),
        // That is in no bytes.
        Some(Carrier::InboundConnection | Carrier::Unknown) => None,
        None => {
            let is_without = matches!(
                seen.reading,
                Some(
                    Reading::TlsTo(_)
                        | Reading::Nothing(
                            Reason::Tls | Reason::Http2 | Reason::NoHeader | Reason::Unrecognised
                        )
                )
            );
            (is_all && is_without).then_some(ChangeCode::SendProxyProtocol)
        }
    }
}
