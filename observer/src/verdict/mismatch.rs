//! What does not fit together on a connection's way, as its first bytes and the objects prove it.

use super::judge::Scene;
use super::parts::{Backend, Loss};
use super::vocabulary::{Beyond, ClientKind, Finding, FindingCode, Hider, RewriteOwner};
use crate::cluster::front::{self, Keeps};
use crate::cluster::plane::Mesh;
use crate::cluster::proxy::HeaderReader;
use crate::cluster::{Family, ServiceEntry, TrafficPolicy};
use crate::payload::{Carrier, Chain, Reading, Reason};

impl Scene<'_> {
    /// What does not fit.
    pub(super) fn findings(&self, losses: &[Loss]) -> Vec<Finding> {
        // What reached no backend went wrong before any of this.
        if self.chosen.is_none() {
            return Vec::new();
        }
        [
            self.header_not_understood(),
            self.header_missing(),
            self.local_in_vain(losses),
            self.forwarded_for_overwritten(),
            self.forwarded_for_appended_twice(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What a sidecar in the backend's pod does behind the last that a node sees.
    pub(super) fn beyond(&self, backend: Option<&Backend>) -> Option<Beyond> {
        let Backend { address, pod, .. } = backend?;
        let pod = pod.as_ref()?;
        let protocol = self.connection.identity.protocol;
        let sidecar = self.knowledge.index?.sidecar(pod)?;
        let (who, shown) = match sidecar.takes(protocol, address.port())?.what {
            Mesh::IstioRedirect if Family::of(address.ip()) == Family::V6 => ("Istio's", "::6"),
            Mesh::IstioRedirect => ("Istio's", "127.0.0.6"),
            // Since 2.11 it connects to the pod itself, before to 127.0.0.1 (linkerd2#6495).
            Mesh::Linkerd => (
                "unless its namespace is told to skip this port, Linkerd's",
                "the pod's own address, or, before 2.11, a loopback address,",
            ),
            Mesh::IstioTproxy | Mesh::IstioAmbient => return None,
        };
        Some(Beyond {
            by: Hider::Sidecar,
            explanation: format!(
                "{who} sidecar in the pod {} takes this connection over, and opens its own from \
                 {shown} to the application: what that sees as its client is not visible from a \
                 node",
                pod.name
            ),
        })
    }

    fn reading(&self) -> Option<&Reading> {
        self.connection.first_bytes.as_ref()
    }

    /// What the objects say of the proxy that this Service leads to.
    fn reader(&self) -> Option<&HeaderReader> {
        let service = &self.entry?.service.reference;
        let mut readers = self.knowledge.readers.iter();
        readers.find(|reader| {
            (&*reader.namespace, &*reader.name) == (&*service.namespace, &*service.name)
        })
    }

    fn header_not_understood(&self) -> Option<Finding> {
        let reader = self.reader()?;
        // What a client writes of itself is its own mistake.
        let is_sent = self.knowledge.before.is_believed
            && !matches!(self.client.kind, ClientKind::External | ClientKind::Unknown)
            && begins_with_proxy(self.reading()?);
        (is_sent && !reader.reads && self.is_for_requests()).then(|| Finding {
            code: FindingCode::ProxyHeaderNotUnderstood,
            explanation: format!(
                "{} sends a PROXY header, and {} does not read it: to it that is a broken request",
                self.client.address.ip(),
                reader.who
            ),
            change: format!(
                "let {} read the PROXY header (ingress-nginx: use-proxy-protocol: \"true\"), or do \
                 not send it",
                reader.who
            ),
        })
    }

    fn header_missing(&self) -> Option<Finding> {
        let reader = self.reader()?;
        let is_other = begins_without_proxy(self.reading()?);
        (is_other && reader.demands && self.is_for_requests()).then(|| Finding {
            code: FindingCode::ProxyHeaderMissing,
            explanation: format!(
                "{} waits for a PROXY header, and the connection begins without one: it is refused",
                reader.who
            ),
            change: format!(
                "let the load balancer in front send a PROXY header, or do not let {} expect one \
                 (ingress-nginx: use-proxy-protocol: \"false\")",
                reader.who
            ),
        })
    }

    /// The ports of a proxy's Service that are for clients: a webhook's or the metrics' expect no
    /// header.
    fn is_for_requests(&self) -> bool {
        self.entry.is_some_and(ServiceEntry::is_for_requests)
    }

    /// A policy that keeps an address which is not the client's. By its address alone a load
    /// balancer's health check cannot be told from a client that it replaced: what it says or the
    /// objects must.
    fn local_in_vain(&self, losses: &[Loss]) -> Option<Finding> {
        let entry = self.entry?;
        let [loss] = losses else {
            return None;
        };
        let is_before = self.client.kind == ClientKind::LoadBalancer
            && loss.at.node.is_none()
            && matches!(loss.at.by, RewriteOwner::LoadBalancer | RewriteOwner::Proxy);
        let front = entry.service.load_balancer.as_deref();
        let replaces = match self.speaks_by() {
            // With what the backend reads nothing is in vain.
            Some(carrier) => self.is_not_read(carrier),
            None => front.is_some_and(|it| {
                let front = it.at(entry.protocol, entry.port);
                let is_header =
                    |added| matches!(added, front::Carrier::ProxyV1 | front::Carrier::ProxyV2);
                let unread = || self.reader().is_some_and(|reader| !reader.reads);
                front.keeps == Keeps::Own
                    && (front.adds.is_empty()
                        || (front.adds.iter().copied().all(is_header) && unread()))
            }),
        };
        let is_local = entry.service.external_traffic_policy == TrafficPolicy::Local;
        (is_local && self.is_from_outside() && is_before && replaces).then(|| Finding {
            code: FindingCode::LocalBehindReplacingLoadBalancer,
            explanation: format!(
                "externalTrafficPolicy is Local, and what it keeps is the address of {}, which \
                 replaced the client's",
                self.client.address.ip()
            ),
            change:
                "let the load balancer preserve its clients' addresses, or take the client from \
                     the PROXY header or X-Forwarded-For that it sends"
                    .to_owned(),
        })
    }

    /// Whether the backend is known not to read what carries the client.
    fn is_not_read(&self, carrier: Carrier) -> bool {
        matches!(carrier, Carrier::ProxyV1 | Carrier::ProxyV2)
            && self.reader().is_some_and(|reader| !reader.reads)
    }

    fn forwarded_for_overwritten(&self) -> Option<Finding> {
        let chain = self.believed_list()?;
        let only = chain.hops.len() == 1;
        (only && self.knowledge.before.replaces).then(|| Finding {
            code: FindingCode::ForwardedForOverwritten,
            explanation: format!(
                "{} names only the load balancer in front of it in X-Forwarded-For, to which that \
                 had named its client: what it had written was replaced",
                self.client.address.ip()
            ),
            change:
                "let the proxy believe the X-Forwarded-For of the load balancer in front of it \
                     (ingress-nginx: use-forwarded-headers: \"true\", and proxy-real-ip-cidr the \
                     load balancer's addresses)"
                    .to_owned(),
        })
    }

    /// As far as the list is believed: right of the client; it may have written the rest, its own
    /// address included.
    fn forwarded_for_appended_twice(&self) -> Option<Finding> {
        let chain = self.believed_list()?;
        let client = self.knowledge.before.said.client();
        let hops = &chain.hops;
        let from = hops
            .iter()
            .rposition(|hop| hop.is_some() && *hop == client)
            .unwrap_or(hops.len().saturating_sub(1));
        let believed = hops.get(from + 1..).unwrap_or_default();
        let is_twice = believed
            .windows(2)
            .any(|pair| pair[0].is_some() && pair[0] == pair[1]);
        is_twice.then(|| Finding {
            code: FindingCode::ForwardedForAppendedTwice,
            explanation:
                "X-Forwarded-For lists one address twice in succession: a proxy added what \
                          was added before it"
                    .to_owned(),
            change:
                "let each proxy add only its own peer: in nginx $realip_remote_addr instead of \
                     $remote_addr where the module realip already took the client from the header"
                    .to_owned(),
        })
    }

    /// What the connection's X-Forwarded-For lists, if who sent it is believed.
    fn believed_list(&self) -> Option<&Chain> {
        self.speaks_by()?;
        match self.reading()? {
            Reading::Found(chains) => chains
                .iter()
                .find(|chain| chain.carrier == Carrier::XForwardedFor),
            Reading::Nothing(_) | Reading::TlsTo(_) => None,
        }
    }
}

fn begins_with_proxy(reading: &Reading) -> bool {
    match reading {
        Reading::Found(chains) => chains
            .iter()
            .any(|chain| matches!(chain.carrier, Carrier::ProxyV1 | Carrier::ProxyV2)),
        Reading::Nothing(reason) => matches!(
            reason,
            Reason::Local | Reason::Unix | Reason::Unspecified | Reason::BadChecksum
        ),
        Reading::TlsTo(_) => false,
    }
}

/// Whether it is something else: not if it cannot be told.
fn begins_without_proxy(reading: &Reading) -> bool {
    match reading {
        Reading::Found(chains) => !chains.is_empty() && !begins_with_proxy(reading),
        Reading::Nothing(reason) => {
            matches!(reason, Reason::Tls | Reason::Http2 | Reason::NoHeader)
        }
        Reading::TlsTo(_) => true,
    }
}
