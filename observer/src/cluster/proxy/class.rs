//! Whose an Ingress is.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::super::front::Setting;
use super::super::settings::{set, unset};
use super::super::workload::{annotation, name};
use super::world::World;

const DOCUMENT: &str = "Kubernetes, concepts/services-networking/ingress, \"Ingress class\"";
const GKE: &str = "GKE, concepts/ingress, \"GKE Ingress controller behavior\"";
/// The older way to name a class.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

/// An implementation of Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Nginx,
    /// The AWS load balancer controller.
    Alb,
    /// EKS Auto Mode's own.
    AlbAutoMode,
    Gce,
    /// GKE's for internal load balancers.
    GceInternal,
    Traefik,
    /// jcmoraisjr/haproxy-ingress.
    HaproxyIngress,
    /// haproxytech/kubernetes-ingress.
    HaproxyTech,
    Istio,
    Cilium,
    Contour,
    AzureApplicationGateway,
    /// One that is named, and of which nothing more is known here.
    Named(String),
    Unknown,
}

/// The class of an Ingress.
pub(super) struct Class<'a> {
    /// Its name, if there is one.
    pub(super) name: Option<&'a str>,
    /// Its object.
    pub(super) object: Option<&'a IngressClass>,
    /// Whose it is.
    pub(super) kind: Kind,
    /// What said so.
    pub(super) because: Setting,
}

impl<'a> Class<'a> {
    /// An Ingress's. A controller that has its own way to say so comes first: GKE's reads the
    /// annotation alone.
    pub(super) fn of(world: &World<'a>, ingress: &'a Ingress) -> Self {
        let by_annotation = annotation(&ingress.metadata, ANNOTATION).filter(|it| !it.is_empty());
        let spec = ingress.spec.as_ref();
        let by_field = spec.and_then(|spec| spec.ingress_class_name.as_deref());
        let gke = by_annotation.and_then(|name| Some((name, of_gke(name)?)));
        if let Some((name, kind)) = gke {
            return Self {
                name: Some(name),
                object: None,
                kind,
                because: set(ANNOTATION, name, GKE),
            };
        }
        match (by_field, by_annotation) {
            (Some(name), _) => Self::named(world, name, "spec.ingressClassName"),
            (None, Some(name)) => Self::named(world, name, ANNOTATION),
            (None, None) => Self::none(world),
        }
    }

    fn named(world: &World<'a>, name: &'a str, field: &str) -> Self {
        let object = world.class(name);
        let controller = object
            .and_then(|it| it.spec.as_ref())
            .and_then(|spec| spec.controller.as_deref());
        Self {
            name: Some(name),
            object,
            kind: match controller {
                Some(controller) => of_controller(world, controller),
                None => of_name(world, name),
            },
            because: match controller {
                Some(controller) => set(format!("IngressClass {name}"), controller, DOCUMENT),
                None => set(field, name, DOCUMENT),
            },
        }
    }

    /// Without a class, the default one counts; without that, who takes such Ingresses.
    fn none(world: &World<'a>) -> Self {
        if let Some(object) = world.default_class() {
            return Self::named(world, name(&object.metadata), "default IngressClass");
        }
        let kind = if world.is_on("gce://") {
            Kind::Gce
        } else {
            takes_all(world)
        };
        Self {
            name: None,
            object: None,
            kind,
            because: unset("spec.ingressClassName", "none", DOCUMENT),
        }
    }
}

/// The classes of GKE's controller, which only the annotation can name.
fn of_gke(name: &str) -> Option<Kind> {
    match name {
        "gce" | "gce-regional-external" => Some(Kind::Gce),
        "gce-internal" => Some(Kind::GceInternal),
        _ => None,
    }
}

/// By `IngressClass.spec.controller`.
fn of_controller(world: &World<'_>, controller: &str) -> Kind {
    let runs_nginx = || {
        let nginx = world.running(super::nginx::IMAGES);
        let mut classes = nginx.iter().filter_map(|it| it.flag("--controller-class"));
        classes.any(|class| class == controller)
    };
    let first = controller.split('/').next().unwrap_or_default();
    match controller {
        "k8s.io/ingress-nginx" | "webapprouting.kubernetes.azure.com/nginx" => Kind::Nginx,
        "ingress.k8s.aws/alb" => Kind::Alb,
        "eks.amazonaws.com/alb" => Kind::AlbAutoMode,
        "k8s.io/ingress-gce" => Kind::Gce,
        "traefik.io/ingress-controller" => Kind::Traefik,
        "istio.io/ingress-controller" => Kind::Istio,
        "cilium.io/ingress-controller" => Kind::Cilium,
        "azure/application-gateway" => Kind::AzureApplicationGateway,
        _ if first == "projectcontour.io" => Kind::Contour,
        _ if controller.starts_with(super::haproxy::CONTROLLER) => Kind::HaproxyIngress,
        _ if controller.starts_with("haproxy.org/ingress-controller") => Kind::HaproxyTech,
        _ if runs_nginx() => Kind::Nginx,
        _ => Kind::Named(named(controller)),
    }
}

/// A word for a controller of which only the name is known.
fn named(controller: &str) -> String {
    match controller {
        "ingress-controllers.konghq.com/kong" => "kong",
        "nginx.org/ingress-controller" => "nginx.org",
        "openshift.io/ingress-to-route" => "openshift",
        other => other,
    }
    .to_owned()
}

/// By a class's name alone: those that the controllers' own manifests use, where no object says
/// otherwise.
fn of_name(world: &World<'_>, name: &str) -> Kind {
    let is_flag = |flag, images: &[&str]| {
        let those = world.running(images);
        those.iter().any(|it| it.flag(flag) == Some(name))
    };
    match name {
        "nginx" | "webapprouting.kubernetes.azure.com" => Kind::Nginx,
        "alb" => Kind::Alb,
        "traefik" => Kind::Traefik,
        "istio" => Kind::Istio,
        "cilium" => Kind::Cilium,
        "contour" => Kind::Contour,
        "azure/application-gateway" | "azure-application-gateway" => Kind::AzureApplicationGateway,
        // Both projects' manifests use the name.
        "haproxy" if !world.running(super::haproxy::TECH_IMAGES).is_empty() => Kind::HaproxyTech,
        "haproxy" => Kind::HaproxyIngress,
        "kong" => Kind::Named("kong".to_owned()),
        _ if is_flag("--ingress-class", super::nginx::IMAGES) => Kind::Nginx,
        _ if is_flag(super::traefik::CLASS, super::traefik::IMAGES) => Kind::Traefik,
        _ => Kind::Unknown,
    }
}

/// Who takes Ingresses without a class, if only one does: ingress-nginx when told to, Traefik
/// unless told not to (Traefik, `pkg/provider/kubernetes/ingress/kubernetes.go`,
/// `shouldProcessIngress`).
fn takes_all(world: &World<'_>) -> Kind {
    let nginx = world.running(super::nginx::IMAGES).iter().any(|it| {
        let flag = it.flag("--watch-ingress-without-class");
        matches!(flag, Some("" | "true"))
    });
    let traefik = world
        .running(super::traefik::IMAGES)
        .iter()
        .any(|it| it.flag(super::traefik::CLASS).is_none());
    match (nginx, traefik) {
        (true, false) => Kind::Nginx,
        (false, true) => Kind::Traefik,
        _ => Kind::Unknown,
    }
}
