//! kubernetes/ingress-nginx: what its `ConfigMap` makes of its `nginx.conf`.
//!
//! `rootfs/etc/nginx/template/nginx.tmpl`: the module `real_ip` replaces `$remote_addr` when
//! `use-forwarded-headers`, `use-proxy-protocol` or `enable-real-ip` is on. With both of the first
//! two it goes by the header, for peers that the PROXY header names and `proxy-real-ip-cidr`
//! trusts; with `use-proxy-protocol` alone by the PROXY header; else by `forwarded-for-header`,
//! recursively, so that with the default of `0.0.0.0/0` the leftmost address counts, which the
//! client may have written. `X-Forwarded-For` is set to `$remote_addr`, unless
//! `use-forwarded-headers` and `compute-full-forwarded-for` are on: then the peer is appended.
//!
//! Older controllers go by the PROXY header alone whenever it is expected
//! (kubernetes/ingress-nginx#13373), newer ones with both by the header alone for those they trust:
//! a client that comes without one is then lost. Both carriers are told as believed, since no
//! object says for sure which of them it is.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::Ingress;

use super::super::finding::{Finding, Reason};
use super::super::front::{Carrier, Setting};
use super::super::settings::{set, setting};
use super::super::workload::{Workload, annotation};
use super::class::Class;
use super::world::{World, full_name, title, value};
use super::{Controller, Served, place};

/// Its images, and copies of them.
pub(super) const IMAGES: &[&str] = &[
    "ingress-nginx/controller",
    "ingress-nginx/controller-chroot",
    "nginx-ingress-controller",
];

/// The header that is appended to by default.
pub(super) const HEADER: &str = "X-Forwarded-For";
/// Which peers it believes.
pub(super) const TRUSTED: &str = "proxy-real-ip-cidr";
/// Whether it expects a PROXY header.
pub(super) const PROXY_PROTOCOL: &str = "use-proxy-protocol";

const CONFIG: &str = "ingress-nginx, user-guide/nginx-configuration/configmap";
const ANNOTATIONS: &str = "ingress-nginx, user-guide/nginx-configuration/annotations";
const UPSTREAM: &str = "nginx.ingress.kubernetes.io/service-upstream";
const PASSTHROUGH: &str = "nginx.ingress.kubernetes.io/ssl-passthrough";

/// Who serves Ingresses of a class.
pub(super) fn served(world: &World<'_>, class: &Class<'_>) -> (Served, Vec<Finding>) {
    let workloads = workloads(world, class);
    let config = config(world, &workloads);
    let mut settings = Settings {
        config,
        findings: Vec::new(),
    };
    let mut served = Served::by(Controller::IngressNginx, None);
    served.config_map = config.map(full_name);
    served.places = if workloads.is_empty() {
        let name = [("app.kubernetes.io/name", "ingress-nginx")];
        place::labelled(world, &name)
    } else {
        place::places(world, &workloads)
    };
    served.adds = vec![Carrier::XForwardedFor];
    settings.believes(&mut served);
    served.to_pods = !settings.is_on("service-upstream", false);
    if !served.to_pods {
        served.because.push(set("service-upstream", "true", CONFIG));
    }
    (served, settings.findings)
}

/// What an Ingress sets for itself.
pub(super) fn specialise(world: &World<'_>, served: &mut Served, ingress: &Ingress) {
    if let Some(upstream) = annotation(&ingress.metadata, UPSTREAM) {
        served.to_pods = !is_true(upstream).unwrap_or(false);
        served
            .because
            .insert(0, set(UPSTREAM, upstream, ANNOTATIONS));
    }
    let passes = annotation(&ingress.metadata, PASSTHROUGH).and_then(is_true) == Some(true);
    // The flag is needed too, and is off by default.
    let is_able = || {
        let nginx = world.running(IMAGES);
        let mut flags = nginx.iter().map(|it| it.flag("--enable-ssl-passthrough"));
        nginx.is_empty() || flags.any(|flag| matches!(flag, Some("" | "true")))
    };
    if passes && is_able() {
        served.adds.clear();
        served
            .because
            .insert(0, set(PASSTHROUGH, "true", ANNOTATIONS));
    }
}

/// The controllers of a class: by its controller's name, or all of them if that tells nothing.
fn workloads<'w, 'a>(world: &'w World<'a>, class: &Class<'a>) -> Vec<&'w Workload<'a>> {
    let all = world.running(IMAGES);
    let spec = class.object.and_then(|it| it.spec.as_ref());
    let controller = spec.and_then(|spec| spec.controller.as_deref());
    let of_class: Vec<_> = all
        .iter()
        .filter(|it| match controller {
            Some(controller) => {
                it.flag("--controller-class")
                    .unwrap_or("k8s.io/ingress-nginx")
                    == controller
            }
            None => it.flag("--ingress-class").unwrap_or("nginx") == class.name.unwrap_or("nginx"),
        })
        .copied()
        .collect();
    if of_class.is_empty() { all } else { of_class }
}

/// The `ConfigMap` that the controller is started with; without a controller, the one of a name
/// that its manifests use.
fn config<'a>(world: &World<'a>, workloads: &[&Workload<'a>]) -> Option<&'a ConfigMap> {
    let Some(first) = workloads.first() else {
        return world.config_map_named(&["ingress-nginx-controller", "nginx-configuration"]);
    };
    world.config_map_of(first)
}

/// Whether it expects a PROXY header of all.
pub(super) fn expects_proxy(config: &ConfigMap) -> bool {
    value(Some(config), PROXY_PROTOCOL).and_then(is_true) == Some(true)
}

struct Settings<'a> {
    config: Option<&'a ConfigMap>,
    findings: Vec<Finding>,
}

impl<'a> Settings<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        value(self.config, key)
    }

    fn object(&self) -> String {
        self.config.map(title).unwrap_or_default()
    }

    fn is_on(&mut self, key: &str, default: bool) -> bool {
        let Some(text) = self.get(key) else {
            return default;
        };
        is_true(text).unwrap_or_else(|| {
            self.findings.push(Finding::ValueNotUnderstood {
                object: self.object(),
                name: key.to_owned(),
                value: text.to_owned(),
            });
            default
        })
    }

    fn ignored(&mut self, key: &str, why: Reason) {
        self.findings.push(Finding::SettingIgnored {
            object: self.object(),
            name: key.to_owned(),
            why,
        });
    }

    fn setting(&self, key: &str, default: &str) -> Setting {
        setting(key, self.get(key), default, CONFIG)
    }

    fn believes(&mut self, served: &mut Served) {
        let forwarded = self.is_on("use-forwarded-headers", false);
        let proxied = self.is_on(PROXY_PROTOCOL, false);
        let real = self.is_on("enable-real-ip", false);
        let full = self.is_on("compute-full-forwarded-for", false);
        let header = self.get("forwarded-for-header").unwrap_or(HEADER);
        let reads_header = forwarded || (real && !proxied);
        if reads_header && header.eq_ignore_ascii_case(HEADER) {
            served.believes.push(Carrier::XForwardedFor);
        }
        if proxied {
            served.believes.extend([Carrier::ProxyV1, Carrier::ProxyV2]);
        }
        served.appends = forwarded && full;
        let because = &mut served.because;
        because.push(self.setting("use-forwarded-headers", "false"));
        because.push(self.setting(PROXY_PROTOCOL, "false"));
        if real {
            because.push(self.setting("enable-real-ip", "false"));
        }
        if reads_header || proxied {
            because.push(self.setting(TRUSTED, "0.0.0.0/0"));
        }
        if reads_header {
            because.push(self.setting("forwarded-for-header", HEADER));
        }
        because.push(self.setting("compute-full-forwarded-for", "false"));
        if full && !forwarded {
            self.ignored(
                "compute-full-forwarded-for",
                Reason::NeedsUseForwardedHeaders,
            );
        }
        if self.get(TRUSTED).is_some() && !reads_header && !proxied {
            self.ignored(TRUSTED, Reason::NeedsForwardedHeadersOrProxyProtocol);
        }
    }
}

/// As Go's `strconv.ParseBool` has it, which the controller reads its `ConfigMap` with.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
