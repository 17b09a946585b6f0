//! All load balancers of a cluster.

use k8s_openapi::api::core::v1::{Node, Service};

use super::super::Objects;
use super::super::around::Around;
use super::super::finding::Finding;
use super::asked::Asked;
use super::environment::Environment;
use super::names::{Maker, named, naming};
use super::{
    Answer, Delivers, Keeps, LoadBalancer, Setting, System, aws, bound, clouds, findings, k3s,
    kube_vip, providers, routed,
};

/// `core/v1`: what decides who serves a Service.
const CLASS: &str = "Kubernetes, Services: load balancer class";
/// `core/v1` `NodeSpec.providerID`.
const PROVIDER: &str = "Kubernetes, Node: spec.providerID";
/// KEP-1860.
const IP_MODE: &str = "Kubernetes, KEP-1860: ipMode of load balancer status";
/// Where a prefix of annotations is described.
const ANNOTATION: &str = "the provider's documents of its annotations";

/// What stands in front of the Services of a cluster.
#[derive(Debug)]
pub struct Fronts<'a> {
    environment: Environment<'a>,
}

impl<'a> Fronts<'a> {
    /// Looks once for what decides for all Services.
    pub fn new(objects: &'a Objects) -> Self {
        let nodes: Vec<_> = objects.nodes.iter().collect();
        Self::of(&nodes, &objects.around)
    }

    /// The same of Nodes, and what is known around the Services.
    pub fn of(nodes: &[&'a Node], around: &'a Around) -> Self {
        Self {
            environment: Environment::of(nodes, around),
        }
    }

    /// The load balancer of a Service; `None` if it has none, because it is of another type and
    /// bound to none.
    pub fn load_balancer(&self, service: &Service) -> Option<LoadBalancer> {
        let answer = self.answer(Asked::of(service)?)?;
        Some(answer.load_balancer)
    }

    /// What the Service's settings and its load balancer's alone tell to be wrong, or to surprise.
    pub fn findings(&self, service: &Service) -> Vec<Finding> {
        let Some(asked) = Asked::of(service) else {
            return Vec::new();
        };
        let answer = self.answer(asked);
        let mut found = findings::of(asked, answer.as_ref().map(|it| &it.load_balancer));
        found.extend(answer.into_iter().flat_map(|it| it.findings));
        found.sort_unstable();
        found.dedup();
        found
    }

    fn answer(&self, asked: Asked<'_>) -> Option<Answer> {
        let bindings = self.environment.bindings_of(asked.key());
        if !asked.is("LoadBalancer") {
            let bound = || bound::answer(asked, bindings, None);
            return aws::of_another_type(asked).or_else(bound);
        }
        let own = self.own(asked);
        let is_known = !matches!(own.load_balancer.system, System::Unknown | System::Nobody);
        if is_known {
            return Some(own);
        }
        let bound = bound::answer(asked, bindings, Some(&own.load_balancer));
        bound.or(Some(own))
    }

    /// The load balancer that a Service of type `LoadBalancer` gets for it.
    fn own(&self, asked: Asked<'_>) -> Answer {
        if let Some(class) = asked.class() {
            return self.by_class(asked, class);
        }
        let environment = &self.environment;
        let (namespace, name) = asked.key();
        if [(namespace, name), ("", name)]
            .iter()
            .any(|it| environment.servicelb.contains(it))
        {
            return k3s::answer(asked, environment, k3s::by_daemon_set(name));
        }
        let candidates = self.candidates(asked);
        match candidates[..] {
            [(maker, ref setting)] => self.by(maker, asked, setting.clone()),
            [] => self.nobody(asked),
            [..] => {
                let settings = candidates.into_iter().map(|(_, setting)| setting);
                unknown(asked).because(settings).into()
            }
        }
    }

    /// Who may serve it, and by what that is told.
    fn candidates(&self, asked: Asked<'_>) -> Vec<(Maker, Setting)> {
        let environment = &self.environment;
        if let Some(setting) = environment.metallb.assigned(asked) {
            return vec![(Maker::Metallb, setting)];
        }
        let cloud = environment.cloud();
        let by_annotation = named(asked)
            .into_iter()
            // A chart may have annotations for many clouds; the Nodes tell which it is.
            .filter(|maker| cloud.is_none() || maker.cloud().is_none() || maker.cloud() == cloud)
            .filter_map(|maker| {
                let (name, value) = naming(asked, maker)?;
                Some((maker, Setting::set(name, value, ANNOTATION)))
            });
        let by_annotation: Vec<_> = by_annotation.collect();
        if !by_annotation.is_empty() {
            return by_annotation;
        }
        let hostname = asked.ingress().iter().find_map(|it| it.hostname.as_deref());
        if let Some(name) = hostname.filter(|name| aws::names(name)) {
            let setting = Setting::set(HOSTNAME, name, aws::HOSTNAMES);
            return vec![(Maker::Aws, setting)];
        }
        self.installed(asked)
    }

    /// Who serves Services that name nobody.
    fn installed(&self, asked: Asked<'_>) -> Vec<(Maker, Setting)> {
        let environment = &self.environment;
        let mut makers: Vec<_> = environment
            .cloud()
            .map(|cloud| (cloud, provider_id(environment.a_scheme())))
            .into_iter()
            .collect();
        let metallb = environment.metallb.installed();
        makers.extend(metallb.map(|setting| (Maker::Metallb, setting)));
        let kube_vip = environment
            .kube_vip
            .as_ref()
            .and_then(|it| it.serves(asked));
        makers.extend(kube_vip.map(|setting| (Maker::KubeVip, setting)));
        // What k3s brings along is turned off where another is installed.
        let may_be_k3s = makers.is_empty() && environment.is_k3s();
        if may_be_k3s && k3s::may_have_made(asked, environment) {
            makers.push((Maker::K3s, k3s::by_default()));
        }
        makers
    }

    fn by(&self, maker: Maker, asked: Asked<'_>, setting: Setting) -> Answer {
        let environment = &self.environment;
        match maker {
            Maker::Aws => aws::answer(asked, environment, setting),
            Maker::Gke => clouds::gke(asked, setting).into(),
            Maker::Azure => clouds::azure(asked, setting),
            Maker::Metallb => environment.metallb.answer(asked),
            Maker::KubeVip => {
                kube_vip::answer(asked, environment.kube_vip.as_ref(), setting).into()
            }
            Maker::K3s => k3s::answer(asked, environment, setting),
            Maker::Cilium => routed::cilium(asked, setting).into(),
            Maker::Calico => routed::calico(setting).into(),
            other => providers::answer(other, asked, setting),
        }
    }

    fn by_class(&self, asked: Asked<'_>, class: &str) -> Answer {
        let setting = Setting::set("spec.loadBalancerClass", class, CLASS);
        if let Some(answer) = aws::by_class(asked, class) {
            return answer;
        }
        if self.environment.metallb.serves_class(class) {
            return self.environment.metallb.answer(asked);
        }
        let kube_vip = self.environment.kube_vip.as_ref();
        if class == kube_vip::CLASS || kube_vip.is_some_and(|it| it.class == Some(class)) {
            return kube_vip::answer(asked, kube_vip, setting).into();
        }
        if class.starts_with("networking.gke.io/l4-regional-") {
            return clouds::gke(asked, setting).into();
        }
        if class.starts_with("io.cilium/") {
            return routed::cilium(asked, setting).into();
        }
        if class == "calico" {
            return routed::calico(setting).into();
        }
        let unknown = unknown(asked);
        LoadBalancer::named(class, unknown.delivers, Keeps::Unknown)
            .because([setting])
            .because(unknown.because)
            .into()
    }

    /// What becomes of a Service that nobody is known to serve.
    fn nobody(&self, asked: Asked<'_>) -> Answer {
        let environment = &self.environment;
        if !asked.ingress().is_empty() || !environment.is_bare_metal() {
            return unknown(asked).into();
        }
        LoadBalancer::new(System::Nobody, Delivers::Nothing, Keeps::Unknown)
            .because([provider_id(environment.a_scheme())])
            .into()
    }
}

/// A status may hold a name instead of an address.
pub(super) const HOSTNAME: &str = "status.loadBalancer.ingress[].hostname";

/// The cloud that the Nodes tell.
fn provider_id(scheme: &str) -> Setting {
    if scheme.is_empty() {
        Setting::default_of("spec.providerID", "", PROVIDER)
    } else {
        Setting::set("spec.providerID", &format!("{scheme}://"), PROVIDER)
    }
}

/// A load balancer of which only the Service's status tells.
fn unknown(asked: Asked<'_>) -> LoadBalancer {
    let delivers = if asked.has_virtual_ip() {
        Delivers::VirtualIp
    } else {
        Delivers::Unknown
    };
    let setting = asked.ingress().first().map(|first| {
        let mode = "status.loadBalancer.ingress[].ipMode";
        match (&first.ip, &first.ip_mode, &first.hostname) {
            (Some(_), Some(its), _) => Setting::set(mode, its, IP_MODE),
            (Some(_), None, _) => Setting::default_of(mode, "VIP", IP_MODE),
            (None, _, Some(name)) => Setting::set(HOSTNAME, name, IP_MODE),
            (None, _, None) => Setting::default_of(HOSTNAME, "", IP_MODE),
        }
    });
    LoadBalancer::new(System::Unknown, delivers, Keeps::Unknown).because(setting)
}
