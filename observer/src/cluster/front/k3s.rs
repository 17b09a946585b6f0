//! k3s' servicelb: a pod on each node has the Service's ports as host ports, and leads on what
//! comes by them.
//!
//! What such a pod does (`klipper-lb`, `entry`): it sends to the cluster IP, or under policy
//! `Local` to its own node's address and the node port (`k3s`, `pkg/cloudprovider/servicelb.go`),
//! and masquerades either, so that its own address is what the backend sees.
//!
//! But the status of the Service names the nodes' addresses, so kube-proxy takes what goes to them
//! for the Service's own. Its chain comes before the one of host ports: it is put first in
//! `PREROUTING` (`pkg/proxy/iptables/proxier.go`), theirs last (`containernetworking/plugins`,
//! `portmap`). The pod is reached only by what has another destination at the node: a node that the
//! status does not name, or one behind address translation.

use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;

use super::asked::Asked;
use super::environment::Environment;
use super::{Answer, Delivers, Keeps, LoadBalancer, Setting, System};

/// By which a `DaemonSet` of servicelb belongs to a Service.
const SERVICE_NAME: &str = "svccontroller.k3s.cattle.io/svcname";
const SERVICE_NAMESPACE: &str = "svccontroller.k3s.cattle.io/svcnamespace";
/// How its name begins.
const PREFIX: &str = "svclb-";

const DOCUMENT: &str = "k3s, Networking Services: Service Load Balancer";
const STATUS: &str = "k3s, pkg/cloudprovider/servicelb.go: addresses of nodes as status";
const ORDER: &str = "klipper-lb issue 54: kube-proxy's rules for the status come before its pods";
const ENTRY: &str = "klipper-lb, entry";

/// Namespace and name of the Service that a `DaemonSet` was made for; no namespace if only its own
/// name tells.
pub(super) fn served(daemon_set: &DaemonSet) -> Option<(&str, &str)> {
    let labels = daemon_set.metadata.labels.as_ref();
    let label = |name| {
        labels
            .and_then(|labels| labels.get(name))
            .map(String::as_str)
    };
    if let Some(name) = label(SERVICE_NAME) {
        return Some((label(SERVICE_NAMESPACE).unwrap_or_default(), name));
    }
    let rest = daemon_set.metadata.name.as_deref()?.strip_prefix(PREFIX)?;
    // The Service's name, cut at 48 letters, and the beginning of its UID.
    let is_uid = |end: &str| end.len() == 8 && end.bytes().all(|it| it.is_ascii_hexdigit());
    match rest.rsplit_once('-') {
        Some((name, end)) if is_uid(end) => Some(("", name)),
        _ => Some(("", rest)),
    }
}

/// That a `DaemonSet` tells.
pub(super) fn by_daemon_set(service: &str) -> Setting {
    Setting::set("DaemonSet", &format!("{PREFIX}{service}"), DOCUMENT)
}

/// That it is part of k3s.
pub(super) fn by_default() -> Setting {
    Setting::default_of("--disable=servicelb", "false", DOCUMENT)
}

/// Whether its status is one that servicelb may have written: addresses of nodes.
pub(super) fn may_have_made(asked: Asked<'_>, environment: &Environment<'_>) -> bool {
    let is_node =
        |ip: &IpAddr| environment.internal.contains_key(ip) || environment.external.contains(ip);
    asked.addresses().all(|ip| is_node(&ip))
}

/// How servicelb brings traffic to the Service.
pub(super) fn answer(asked: Asked<'_>, environment: &Environment<'_>, setting: Setting) -> Answer {
    let (delivers, keeps, how) = if is_at_the_nodes(asked, environment) {
        let how = match asked.addresses().next() {
            Some(ip) => Setting::set("status.loadBalancer.ingress[].ip", &ip.to_string(), ORDER),
            None => Setting::default_of("status.loadBalancer.ingress[].ip", "InternalIP", STATUS),
        };
        (Delivers::VirtualIp, Keeps::Client, how)
    } else {
        // An external address may be one of the node's interfaces, or be translated in front of
        // it. Under policy Cluster the client is lost either way.
        let how = Setting::set("status.addresses[].type", "ExternalIP", ENTRY);
        if asked.is_local() {
            (Delivers::Unknown, Keeps::Unknown, how)
        } else {
            (Delivers::Relay, Keeps::Own, how)
        }
    };
    let load_balancer = LoadBalancer::new(System::K3sServicelb, delivers, keeps)
        // Since 1.26 the status names only nodes with a ready pod under policy Local.
        .leaves_out(Some(true))
        .because([setting, how]);
    let only_node = only_node(asked, environment).filter(|_| delivers == Delivers::VirtualIp);
    LoadBalancer {
        only_nodes: only_node.map(|node| vec![node.to_owned()]),
        ..load_balancer
    }
    .into()
}

/// The one node whose addresses the status has: nothing comes by another one.
fn only_node<'a>(asked: Asked<'_>, environment: &Environment<'a>) -> Option<&'a str> {
    let mut nodes = asked
        .addresses()
        .map(|ip| environment.internal.get(&ip).copied());
    let first = nodes.next()??;
    nodes.all(|node| node == Some(first)).then_some(first)
}

/// Whether packets come to the nodes with the addresses of the status. Those are the nodes'
/// external addresses if any has one, and else the internal ones.
fn is_at_the_nodes(asked: Asked<'_>, environment: &Environment<'_>) -> bool {
    let mut status = asked.addresses().peekable();
    if status.peek().is_none() {
        return environment.external.is_empty();
    }
    let is_nodes = |ip: IpAddr| {
        environment.internal.contains_key(&ip)
            || (!environment.external.contains(&ip) && is_private(ip))
    };
    status.all(is_nodes)
}

/// Whether nobody translates an address to it from the Internet (RFC 1918, RFC 4193).
const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
