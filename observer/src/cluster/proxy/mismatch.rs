//! What a proxy expects of who stands before it, and what that does.

use super::super::finding::Finding;
use super::super::front::{Carrier, Keeps, LoadBalancer, System};
use super::nginx::{PROXY_PROTOCOL, TRUSTED};
use super::{Controller, Route};

/// What does not fit between a proxy in the cluster and the load balancer before it; `None` if
/// clients come straight, as far as the objects tell.
///
/// Nothing is said of a proxy whose settings are not among the objects.
pub fn mismatches(route: &Route, before: Option<&LoadBalancer>) -> Vec<Finding> {
    if !is_known(route) {
        return Vec::new();
    }
    [
        not_read(route, before),
        not_sent(route, before),
        overwritten(route, before),
        spoofable(route),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether its settings can be read.
pub(super) const fn is_known(route: &Route) -> bool {
    matches!(
        route.controller,
        Controller::IngressNginx | Controller::Traefik | Controller::Haproxy
    )
}

/// A PROXY header is no beginning of a request: nginx answers 400, `HAProxy` and Traefik alike.
fn not_read(route: &Route, before: Option<&LoadBalancer>) -> Option<Finding> {
    let before = before?;
    (sends_proxy(before) && !reads_proxy(route)).then(|| Finding::ProxyProtocolNotRead {
        by: word(before),
        reader: route.who(),
    })
}

/// nginx and `HAProxy` refuse a connection that does not begin with the header that they were
/// told to expect (nginx, `listen … proxy_protocol`; `HAProxy`, `accept-proxy`).
fn not_sent(route: &Route, before: Option<&LoadBalancer>) -> Option<Finding> {
    let is_missing = before.is_none_or(|it| says_all(it) && !sends_proxy(it));
    let reader = || route.who();
    (demands_proxy(route) && is_missing).then(|| match before {
        Some(before) => Finding::ProxyProtocolNotSent {
            by: word(before),
            reader: reader(),
        },
        None => Finding::ProxyProtocolNobodySends { reader: reader() },
    })
}

/// Whether it was told to expect one.
pub(super) fn demands_proxy(route: &Route) -> bool {
    let mut settings = route.because.iter();
    let is_set =
        settings.any(|it| it.name == PROXY_PROTOCOL && !it.is_default && it.value != "false");
    is_set && reads_proxy(route)
}

/// What the load balancer has written is gone, and the proxy's own peer is the load balancer.
fn overwritten(route: &Route, before: Option<&LoadBalancer>) -> Option<Finding> {
    let before = before?;
    let is_lost = before.adds.contains(&Carrier::XForwardedFor)
        && !route.believes.contains(&Carrier::XForwardedFor)
        && !route.appends;
    is_lost.then(|| Finding::ForwardedHeaderOverwritten {
        by: route.who(),
        before: word(before),
    })
}

/// Where every peer is trusted, the leftmost address counts, and that is the client's to write:
/// load balancers append to what it sent.
fn spoofable(route: &Route) -> Option<Finding> {
    let trusts_all = route.because.iter().any(|it| {
        let by_network = it.name == TRUSTED || it.name.ends_with(".forwardedheaders.trustedips");
        let trusts = || it.value.split(',').any(|net| net.trim().ends_with("/0"));
        let is_ifmissing = it.name == "forwardfor" && it.value == "ifmissing";
        let is_source = it.name == "src-ip-header";
        (by_network && trusts())
            || it.name.ends_with(".forwardedheaders.insecure")
            || is_ifmissing
            || is_source
    });
    let believes = route.believes.contains(&Carrier::XForwardedFor);
    (believes && trusts_all).then(|| Finding::ForwardedHeaderSpoofable { by: route.who() })
}

fn sends_proxy(before: &LoadBalancer) -> bool {
    let adds = &before.adds;
    adds.contains(&Carrier::ProxyV1) || adds.contains(&Carrier::ProxyV2)
}

pub(super) fn reads_proxy(route: &Route) -> bool {
    route.believes.contains(&Carrier::ProxyV1)
}

/// Whether what is known of it is all that it does.
const fn says_all(before: &LoadBalancer) -> bool {
    !matches!(before.system, System::Unknown | System::Nobody)
        && !matches!(before.keeps, Keeps::Unknown)
}

fn word(before: &LoadBalancer) -> String {
    let provider = before.provider.clone();
    provider.unwrap_or_else(|| before.system.to_string())
}
