//! The two ingress controllers around `HAProxy`.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::Ingress;

use super::super::front::Carrier;
use super::super::settings::{set, setting};
use super::super::workload::{Workload, annotation};
use super::class::Class;
use super::nginx::PROXY_PROTOCOL;
use super::world::{World, full_name, value};
use super::{Controller, Served, place};

/// jcmoraisjr/haproxy-ingress.
pub(super) const IMAGES: &[&str] = &["haproxy-ingress"];
/// haproxytech/kubernetes-ingress.
pub(super) const TECH_IMAGES: &[&str] = &["haproxytech/kubernetes-ingress"];

/// What an `IngressClass` names it by; a path behind tells several apart.
pub(super) const CONTROLLER: &str = "haproxy-ingress.github.io/controller";

/// By which name the latter is told.
pub(super) const TECH: &str = "haproxytech";

const KEYS: &str = "HAProxy Ingress, configuration/keys";
const TECH_KEYS: &str = "HAProxy Kubernetes Ingress Controller, documentation/annotations.md";
const UPSTREAM: &str = "haproxy-ingress.github.io/service-upstream";

/// By jcmoraisjr/haproxy-ingress: `forwardfor` is `add` by default, which replaces the header.
pub(super) fn served(world: &World<'_>) -> Served {
    served_by(world, &world.running(IMAGES))
}

/// The same, of the controllers of one class.
pub(super) fn served_of<'a>(world: &World<'a>, class: &Class<'a>) -> Served {
    served_by(world, &workloads(world, class))
}

fn served_by<'a>(world: &World<'a>, workloads: &[&Workload<'a>]) -> Served {
    let config = config(world, workloads, "haproxy-ingress");
    let mut served = Served::by(Controller::Haproxy, None);
    served.config_map = config.map(full_name);
    served.places = place::places(world, workloads);
    let mode = value(config, "forwardfor");
    match mode {
        None | Some("add") => served.adds.push(Carrier::XForwardedFor),
        Some("update") => {
            served.adds.push(Carrier::XForwardedFor);
            served.appends = true;
        }
        Some("ifmissing") => {
            served.adds.push(Carrier::XForwardedFor);
            served.believes.push(Carrier::XForwardedFor);
            served.appends = true;
        }
        // `ignore`, and what is not understood.
        Some(_) => {}
    }
    served
        .because
        .push(setting("forwardfor", mode, "add", KEYS));
    let proxied = value(config, PROXY_PROTOCOL);
    if config.is_some_and(expects_proxy) {
        served.believes.extend([Carrier::ProxyV1, Carrier::ProxyV2]);
    }
    served
        .because
        .push(setting(PROXY_PROTOCOL, proxied, "false", KEYS));
    if value(config, "service-upstream") == Some("true") {
        served.to_pods = false;
        served.because.push(set("service-upstream", "true", KEYS));
    }
    served
}

/// The controllers of a class (`HAProxy` Ingress, configuration/command-line, `--controller-class`
/// and `--ingress-class`), or all of them if that tells nothing.
fn workloads<'w, 'a>(world: &'w World<'a>, class: &Class<'a>) -> Vec<&'w Workload<'a>> {
    let all = world.running(IMAGES);
    let spec = class.object.and_then(|it| it.spec.as_ref());
    let controller = spec.and_then(|spec| spec.controller.as_deref());
    let path = controller.and_then(|it| it.strip_prefix(CONTROLLER));
    let without = |path: &'a str| path.trim_start_matches('/');
    let is_of_class = |it: &&&Workload<'a>| match path {
        Some(path) => without(it.flag("--controller-class").unwrap_or_default()) == without(path),
        None => it.flag("--ingress-class").unwrap_or("haproxy") == class.name.unwrap_or("haproxy"),
    };
    let of_class: Vec<_> = all.iter().filter(is_of_class).copied().collect();
    if of_class.is_empty() { all } else { of_class }
}

/// Whether jcmoraisjr/haproxy-ingress expects a PROXY header of all.
pub(super) fn expects_proxy(config: &ConfigMap) -> bool {
    value(Some(config), PROXY_PROTOCOL) == Some("true")
}

/// What an Ingress or a Service sets for itself.
pub(super) fn specialise(served: &mut Served, ingress: &Ingress, service: Option<&Service>) {
    let of_service = service.and_then(|service| annotation(&service.metadata, UPSTREAM));
    let upstream = of_service.or_else(|| annotation(&ingress.metadata, UPSTREAM));
    if let Some(upstream) = upstream {
        served.to_pods = upstream != "true";
        served.because.insert(0, set(UPSTREAM, upstream, KEYS));
    }
}

/// By haproxytech/kubernetes-ingress: `forwarded-for` is on by default and adds a header after
/// those that are there; `proxy-protocol` names the peers that send one, and others need not.
pub(super) fn served_by_tech(world: &World<'_>) -> Served {
    let workloads = world.running(TECH_IMAGES);
    let config = config(world, &workloads, "haproxy-kubernetes-ingress");
    let mut served = Served::by(Controller::Haproxy, Some(TECH.to_owned()));
    served.config_map = config.map(full_name);
    served.places = place::places(world, &workloads);
    let forwarded = value(config, "forwarded-for");
    if forwarded != Some("false") {
        served.adds.push(Carrier::XForwardedFor);
        served.appends = true;
    }
    served
        .because
        .push(setting("forwarded-for", forwarded, "true", TECH_KEYS));
    if let Some(peers) = value(config, "proxy-protocol") {
        served.believes.extend([Carrier::ProxyV1, Carrier::ProxyV2]);
        served.because.push(set("proxy-protocol", peers, TECH_KEYS));
    }
    if let Some(header) = value(config, "src-ip-header") {
        if header.eq_ignore_ascii_case(super::nginx::HEADER) {
            served.believes.push(Carrier::XForwardedFor);
        }
        served.because.push(set("src-ip-header", header, TECH_KEYS));
    }
    served
}

/// Whether haproxytech/kubernetes-ingress reads the PROXY headers of some.
pub(super) fn tech_reads_proxy(config: &ConfigMap) -> bool {
    value(Some(config), "proxy-protocol").is_some()
}

fn config<'a>(
    world: &World<'a>,
    workloads: &[&Workload<'a>],
    usual: &str,
) -> Option<&'a ConfigMap> {
    let Some(first) = workloads.first() else {
        return world.config_map_named(&[usual]);
    };
    world.config_map_of(first)
}
