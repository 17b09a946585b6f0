//! The objects around proxies, found by name.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::IngressClass;

use super::super::around::custom::{Gateway, GatewayClass, IngressClassParams};
use super::super::workload::{Workload, annotation, name, namespace};
use super::super::{Objects, ServiceRef, is_dns_label, is_dns_subdomain};
use super::{cloud, haproxy, nginx, traefik};

/// By which annotation an `IngressClass` is the default one (Kubernetes, reference, "Well-Known
/// Labels, Annotations and Taints").
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The group of all kinds of routes.
const GATEWAY: &str = "gateway.networking.k8s.io";

/// The images of all controllers that are looked for.
const CONTROLLERS: [&[&str]; 5] = [
    nginx::IMAGES,
    traefik::IMAGES,
    haproxy::IMAGES,
    haproxy::TECH_IMAGES,
    cloud::ALB_IMAGES,
];

pub(super) struct World<'a> {
    pub(super) objects: &'a Objects,
    pub(super) workloads: Vec<Workload<'a>>,
    /// Those workloads that are controllers, by their images: there are few, and they are looked
    /// for again and again.
    controllers: Vec<usize>,
    services: HashMap<(&'a str, &'a str), &'a Service>,
    config_maps: HashMap<(&'a str, &'a str), &'a ConfigMap>,
    classes: HashMap<&'a str, &'a IngressClass>,
    gateways: HashMap<(&'a str, &'a str), &'a Gateway>,
    gateway_classes: HashMap<&'a str, &'a GatewayClass>,
}

impl<'a> World<'a> {
    pub(super) fn of(objects: &'a Objects) -> Self {
        let around = &objects.around;
        let full = |metadata| (namespace(metadata), name(metadata));
        let workloads = Workload::all(objects);
        let controllers = workloads.iter().enumerate();
        let controllers = controllers
            .filter(|(_, it)| CONTROLLERS.iter().any(|images| runs(it, images)))
            .map(|(index, _)| index);
        Self {
            objects,
            controllers: controllers.collect(),
            workloads,
            services: objects
                .services
                .iter()
                .map(|it| (full(&it.metadata), it))
                .collect(),
            config_maps: around
                .config_maps
                .iter()
                .map(|it| (full(&it.metadata), it))
                .collect(),
            classes: around
                .ingress_classes
                .iter()
                .map(|it| (name(&it.metadata), it))
                .collect(),
            gateways: around
                .gateways
                .iter()
                .map(|it| (full(&it.metadata), it))
                .collect(),
            gateway_classes: around
                .gateway_classes
                .iter()
                .map(|it| (name(&it.metadata), it))
                .collect(),
        }
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.services.get(&(namespace, name)).copied()
    }

    pub(super) fn class(&self, name: &str) -> Option<&'a IngressClass> {
        self.classes.get(name).copied()
    }

    /// The class of Ingresses without one, if there is exactly one.
    pub(super) fn default_class(&self) -> Option<&'a IngressClass> {
        let classes = &self.objects.around.ingress_classes;
        let mut defaults = classes
            .iter()
            .filter(|it| annotation(&it.metadata, IS_DEFAULT) == Some("true"));
        defaults.next().filter(|_| defaults.next().is_none())
    }

    /// The parameters of a class, if they are the AWS load balancer controller's.
    pub(super) fn params(&self, class: Option<&IngressClass>) -> Option<&'a IngressClassParams> {
        let parameters = class?.spec.as_ref()?.parameters.as_ref()?;
        let params = &self.objects.around.ingress_class_params;
        (parameters.kind == "IngressClassParams")
            .then(|| {
                params
                    .iter()
                    .find(|it| name(&it.metadata) == parameters.name)
            })
            .flatten()
    }

    pub(super) fn gateway(&self, namespace: &str, name: &str) -> Option<&'a Gateway> {
        self.gateways.get(&(namespace, name)).copied()
    }

    pub(super) fn gateway_class(&self, name: &str) -> Option<&'a GatewayClass> {
        self.gateway_classes.get(name).copied()
    }

    /// Whether a route may lead to a Service: to one in another namespace only where a
    /// `ReferenceGrant` there allows it (Gateway API, reference/spec, "`ReferenceGrant`"). Yes, if
    /// those could not be read.
    pub(super) fn may_refer(&self, kind: &str, from: &str, to: &ServiceRef) -> bool {
        let around = &self.objects.around;
        if *to.namespace == *from || around.lacks_reference_grants {
            return true;
        }
        let grants = around.reference_grants.iter();
        let mut grants = grants.filter(|it| namespace(&it.metadata) == &*to.namespace);
        grants.any(|it| {
            it.spec
                .allows((GATEWAY, kind, from), ("", "Service", &to.name))
        })
    }

    /// The `ConfigMap` that a controller is started with.
    pub(super) fn config_map_of(&self, controller: &Workload<'_>) -> Option<&'a ConfigMap> {
        let (namespace, name) = settings_of(controller)?;
        self.config_maps.get(&(&*namespace, &*name)).copied()
    }

    /// The only `ConfigMap` of one of these names.
    pub(super) fn config_map_named(&self, names: &[&str]) -> Option<&'a ConfigMap> {
        let maps = &self.objects.around.config_maps;
        let mut found = maps.iter().filter(|it| names.contains(&name(&it.metadata)));
        found.next().filter(|_| found.next().is_none())
    }

    /// The controllers with an image of one of these repositories.
    pub(super) fn running(&self, repositories: &[&str]) -> Vec<&Workload<'a>> {
        let controllers = self.controllers.iter();
        controllers
            .filter_map(|&index| self.workloads.get(index))
            .filter(|it| runs(it, repositories))
            .collect()
    }

    /// Whether the nodes are machines of a provider, by the beginning of their `providerID`.
    pub(super) fn is_on(&self, provider: &str) -> bool {
        self.objects.nodes.iter().any(|node| {
            let spec = node.spec.as_ref();
            spec.and_then(|spec| spec.provider_id.as_deref())
                .is_some_and(|id| id.starts_with(provider))
        })
    }
}

/// Namespace and name of the `ConfigMap` that a controller is started with (ingress-nginx,
/// user-guide/cli-arguments; `HAProxy` Ingress and `HAProxy` Kubernetes Ingress Controller alike).
/// Anybody's argument: `None` if no `ConfigMap` can be called that.
pub(super) fn settings_of(controller: &Workload<'_>) -> Option<(String, String)> {
    let named = controller.flag("--configmap")?;
    let named = named.replace("$(POD_NAMESPACE)", controller.namespace);
    let (namespace, name) = named.split_once('/')?;
    (is_dns_label(namespace) && is_dns_subdomain(name))
        .then(|| (namespace.to_owned(), name.to_owned()))
}

/// Whether a workload has an image of one of these repositories, or of another registry's copy of
/// one.
fn runs(workload: &Workload<'_>, repositories: &[&str]) -> bool {
    workload.images().any(|image| {
        repositories.iter().any(|repository| {
            let rest = image.strip_suffix(repository);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    })
}

/// A value of a `ConfigMap`.
pub(super) fn value<'a>(config: Option<&'a ConfigMap>, key: &str) -> Option<&'a str> {
    config?.data.as_ref()?.get(key).map(String::as_str)
}

/// What a `ConfigMap` calls itself.
pub(super) fn title(config: &ConfigMap) -> String {
    let (namespace, name) = full_name(config);
    format!("ConfigMap {namespace}/{name}")
}

/// The same in two parts.
pub(super) fn full_name(config: &ConfigMap) -> (String, String) {
    let metadata = &config.metadata;
    (namespace(metadata).to_owned(), name(metadata).to_owned())
}
