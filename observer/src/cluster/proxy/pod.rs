//! What a Pod tells of the proxy in it: by which Service clients come to it, and what says whether
//! it reads PROXY headers. So that whoever follows a cluster need not read all that stands around
//! its Services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use super::super::service::{ServiceEntry, ServiceType};
use super::super::{Family, Index, Objects, PodRef, ServiceRef, is_dns_label, is_dns_subdomain};
use super::reader::HeaderReader;
use super::world::{World, settings_of};
use super::{Controller, haproxy, nginx, traefik};

/// Services whose Pods are looked at; a cluster has a few proxies for clients outside, and its other
/// Services for them are looked at in vain.
const SERVICES_MAX: usize = 1 << 8;

/// A proxy of which it can be known whether it reads PROXY headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProxy {
    who: String,
    settings: Settings,
}

/// What says it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Settings {
    /// The Pod: whether it reads them. None needs come.
    Own(bool),
    /// A `ConfigMap`, by namespace and name.
    In((String, String), Kind),
}

/// Whose settings a `ConfigMap` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
    HaproxyTech,
}

/// What is made of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expects {
    reads: bool,
    demands: bool,
}

/// The Services by which clients outside come to what may be a proxy, those of load balancers first;
/// each with one of the Pods behind it, which stands for all of them: one that is known, as long as
/// one is there to stay, whether it is ready at the moment or not.
pub fn behind_doors(
    index: &Index,
    is_known: impl Fn(&PodRef) -> bool,
) -> Vec<(ServiceRef, PodRef)> {
    let mut found = BTreeMap::new();
    let entries = index.entries().iter();
    for entry in entries.filter(|it| it.is_for_requests() && leads_in(it)) {
        if let Some(pod) = pod_of(entry, &is_known) {
            let service = &entry.service;
            let is_other = service.service_type != ServiceType::LoadBalancer;
            let key = (is_other, service.reference.clone());
            found.entry(key).or_insert_with(|| pod.clone());
        }
    }
    let found = found.into_iter().map(|((_, service), pod)| (service, pod));
    found.take(SERVICES_MAX).collect()
}

fn leads_in(entry: &ServiceEntry) -> bool {
    let service = &entry.service;
    service.service_type != ServiceType::ClusterIP || !service.external_ips.is_empty()
}

fn pod_of(entry: &ServiceEntry, is_known: impl Fn(&PodRef) -> bool) -> Option<&PodRef> {
    const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
    let all = FAMILIES.into_iter().flat_map(|it| entry.endpoints(it));
    let mut staying = all
        .filter(|it| !it.terminating)
        .filter_map(|it| it.pod.as_ref());
    staying.find(|pod| is_known(pod)).or_else(|| {
        let mut usable = FAMILIES
            .into_iter()
            .flat_map(|it| entry.usable_endpoints(it));
        usable.find_map(|it| it.pod.as_ref().filter(|pod| is_name(pod)))
    })
}

/// Whether a Pod can be called that: whoever writes an `EndpointSlice` says what a target is.
fn is_name(pod: &PodRef) -> bool {
    is_dns_label(&pod.namespace) && is_dns_subdomain(&pod.name)
}

impl PodProxy {
    /// The one in a Pod, if there is one, and what says it is known.
    pub fn of(pod: Pod) -> Option<Self> {
        let objects = Objects {
            pods: vec![pod],
            ..Objects::default()
        };
        let world = World::of(&objects);
        let by_config_map = [
            (nginx::IMAGES, Kind::Nginx),
            (haproxy::IMAGES, Kind::Haproxy),
            (haproxy::TECH_IMAGES, Kind::HaproxyTech),
        ];
        for (images, kind) in by_config_map {
            if let [workload, ..] = world.running(images)[..] {
                return Some(Self {
                    who: kind.who(),
                    settings: Settings::In(settings_of(workload)?, kind),
                });
            }
        }
        let [workload, ..] = world.running(traefik::IMAGES)[..] else {
            return None;
        };
        Some(Self {
            who: Controller::Traefik.to_string(),
            settings: Settings::Own(traefik::reads_proxy(workload)?),
        })
    }

    /// The `ConfigMap` that says it, if one does: namespace and name.
    pub const fn config_map(&self) -> Option<&(String, String)> {
        match &self.settings {
            Settings::Own(_) => None,
            Settings::In(name, _) => Some(name),
        }
    }

    /// What it makes of a PROXY header by that `ConfigMap`, or by itself.
    pub fn expects(&self, config_map: Option<&ConfigMap>) -> Option<Expects> {
        let (reads, demands) = match self.settings {
            Settings::Own(reads) => (reads, false),
            Settings::In(_, kind) => kind.expects(config_map?),
        };
        Some(Expects { reads, demands })
    }

    /// The same by the Service that leads there.
    pub fn reader(&self, service: &ServiceRef, expects: Expects) -> HeaderReader {
        let Expects { reads, demands } = expects;
        HeaderReader {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            who: self.who.clone(),
            reads,
            demands,
        }
    }
}

impl Kind {
    fn who(self) -> String {
        match self {
            Self::Nginx => Controller::IngressNginx.to_string(),
            Self::Haproxy => Controller::Haproxy.to_string(),
            Self::HaproxyTech => haproxy::TECH.to_owned(),
        }
    }

    /// Whether it reads one, and refuses what begins otherwise.
    fn expects(self, config_map: &ConfigMap) -> (bool, bool) {
        let both = |expects| (expects, expects);
        match self {
            Self::Nginx => both(nginx::expects_proxy(config_map)),
            Self::Haproxy => both(haproxy::expects_proxy(config_map)),
            Self::HaproxyTech => (haproxy::tech_reads_proxy(config_map), false),
        }
    }
}
