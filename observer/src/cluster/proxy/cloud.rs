//! Load balancers outside the cluster that serve Ingresses: AWS's, Google's, Azure's.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;

use super::super::finding::Finding;
use super::super::front::{Carrier, Delivers, Setting};
use super::super::settings::{set, setting, unset};
use super::super::workload::{annotation, name, namespace};
use super::class::{Class, Kind};
use super::world::World;
use super::{Controller, Place, Served};

const ALB: &str = "AWS load balancer controller, guide/ingress/annotations";
const ALB_CLASS: &str = "AWS load balancer controller, guide/ingress/ingress_class";
const ALB_FLAGS: &str = "AWS load balancer controller, deploy/configurations";
const AUTO_MODE: &str = "EKS user guide, automode/auto-networking, \"Load balancing\"";
const XFF: &str = "Elastic Load Balancing, application/x-forwarded-headers";
const NEG: &str = "GKE, how-to/container-native-load-balancing";
const INTERNAL: &str = "GKE, how-to/internal-load-balance-ingress";
const GOOGLE_XFF: &str = "Cloud Load Balancing, docs/https, \"X-Forwarded-For header\"";
const AZURE: &str = "Azure, application-gateway/ingress-controller-overview";
const AZURE_XFF: &str = "Azure, application-gateway/how-application-gateway-works";

const TARGET_TYPE: &str = "alb.ingress.kubernetes.io/target-type";
const ATTRIBUTES: &str = "alb.ingress.kubernetes.io/load-balancer-attributes";
const XFF_MODE: &str = "routing.http.xff_header_processing.mode";
const NEG_ANNOTATION: &str = "cloud.google.com/neg";

/// The images of AWS' controller.
pub(super) const ALB_IMAGES: &[&str] = &["aws-load-balancer-controller"];

/// By an Application Load Balancer, to one Service.
pub(super) fn alb(
    world: &World<'_>,
    class: &Class<'_>,
    ingress: &Ingress,
    service: Option<&Service>,
) -> (Served, Vec<Finding>) {
    let mut served = Served::by(Controller::AwsAlb, None);
    let (target, because) = alb_target(world, class, ingress, service);
    served.because.push(because);
    let mut findings = Vec::new();
    let object = || {
        let metadata = &ingress.metadata;
        format!("Ingress {}/{}", namespace(metadata), name(metadata))
    };
    let delivers = match target.as_str() {
        "ip" => Delivers::Pod,
        "instance" => Delivers::NodePort,
        _ => {
            findings.push(Finding::ValueNotUnderstood {
                object: object(),
                name: TARGET_TYPE.to_owned(),
                value: target,
            });
            Delivers::Unknown
        }
    };
    let delivers = match service {
        Some(service) if delivers == Delivers::NodePort && !has_node_ports(service) => {
            findings.push(Finding::TargetNeedsNodePort {
                by: object(),
                service: full_name(service),
            });
            Delivers::Nothing
        }
        _ => delivers,
    };
    served.places.push(Place::Outside { delivers });
    xff_mode(world, class, ingress, &mut served);
    (served, findings)
}

/// `IngressClassParams` come first, then the Service's annotation, then the Ingress's, then the
/// controller's default (`pkg/ingress/model_build_target_group.go`, `buildTargetGroupTargetType`).
fn alb_target(
    world: &World<'_>,
    class: &Class<'_>,
    ingress: &Ingress,
    service: Option<&Service>,
) -> (String, Setting) {
    let params = world.params(class.object);
    let by_params = params.and_then(|it| it.spec.target_type.as_deref());
    let of_service = service.and_then(|it| annotation(&it.metadata, TARGET_TYPE));
    let by_annotation = of_service.or_else(|| annotation(&ingress.metadata, TARGET_TYPE));
    let controllers = world.running(ALB_IMAGES);
    let mut by_flag = controllers
        .iter()
        .filter_map(|it| it.flag("--default-target-type"));
    let because = match (by_params, by_annotation) {
        (Some(target), _) => set("IngressClassParams: spec.targetType", target, ALB_CLASS),
        (None, Some(target)) => set(TARGET_TYPE, target, ALB),
        (None, None) if class.kind == Kind::AlbAutoMode => unset(TARGET_TYPE, "ip", AUTO_MODE),
        (None, None) => match by_flag.next() {
            Some(target) => set("--default-target-type", target, ALB_FLAGS),
            None => unset(TARGET_TYPE, "instance", ALB),
        },
    };
    (because.value.clone(), because)
}

/// What becomes of the header: `append` by default; `preserve` leaves it as the client sent it,
/// `remove` takes it away.
fn xff_mode(world: &World<'_>, class: &Class<'_>, ingress: &Ingress, served: &mut Served) {
    let params = world.params(class.object);
    let mut of_params = params
        .iter()
        .flat_map(|it| &it.spec.load_balancer_attributes);
    let by_params = of_params.find(|it| it.key == XFF_MODE);
    let by_annotation = annotation(&ingress.metadata, ATTRIBUTES).and_then(|attributes| {
        let mut pairs = attributes
            .split(',')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| key.trim() == XFF_MODE)
    });
    let mode = match (by_params, by_annotation) {
        (Some(attribute), _) => Some(attribute.value.as_str()),
        (None, Some((_, value))) => Some(value.trim()),
        (None, None) => None,
    };
    if matches!(mode, None | Some("append")) {
        served.adds.push(Carrier::XForwardedFor);
        served.appends = true;
    }
    served.because.push(setting(XFF_MODE, mode, "append", XFF));
}

/// By Google's Application Load Balancer, to one Service: to pods where it has network endpoint
/// groups. VPC-native clusters annotate new Services themselves, so of a Service that the API
/// server has not seen yet, no annotation tells nothing.
pub(super) fn gce(kind: &Kind, service: Option<&Service>) -> (Served, Vec<Finding>) {
    let mut served = Served::by(Controller::Gke, None);
    let neg = service.and_then(|it| annotation(&it.metadata, NEG_ANNOTATION));
    let is_live = service.is_some_and(|it| it.metadata.uid.is_some());
    let (delivers, because) = match neg {
        Some(neg) if has_neg(neg) => (Delivers::Pod, set(NEG_ANNOTATION, neg, NEG)),
        Some(neg) => (Delivers::NodePort, set(NEG_ANNOTATION, neg, NEG)),
        None if *kind == Kind::GceInternal => {
            let because = set("kubernetes.io/ingress.class", "gce-internal", INTERNAL);
            (Delivers::Pod, because)
        }
        None if is_live => (Delivers::NodePort, unset(NEG_ANNOTATION, "none", NEG)),
        None => (
            Delivers::Unknown,
            unset(NEG_ANNOTATION, "the cluster's", NEG),
        ),
    };
    let mut findings = Vec::new();
    if let Some(service) = service
        && delivers == Delivers::NodePort
        && !has_node_ports(service)
    {
        findings.push(Finding::TargetNeedsNodePort {
            by: Controller::Gke.to_string(),
            service: full_name(service),
        });
    }
    served.places.push(Place::Outside { delivers });
    served.adds.push(Carrier::XForwardedFor);
    served.appends = true;
    served.because.push(because);
    served.because.push(google_appends());
    (served, findings)
}

/// What Google's load balancers do with the header.
pub(super) fn google_appends() -> Setting {
    unset("X-Forwarded-For", "appended", GOOGLE_XFF)
}

/// (ingress-gce, `pkg/negannotation/negannotation.go`.)
fn has_neg(annotation: &str) -> bool {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(annotation);
    parsed.is_ok_and(|it| it.get("ingress").and_then(serde_json::Value::as_bool) == Some(true))
}

/// By Azure's Application Gateway, which goes to the pods and needs no node ports.
pub(super) fn azure() -> Served {
    let mut served = Served::by(
        Controller::Other,
        Some("azure-application-gateway".to_owned()),
    );
    served.places.push(Place::Outside {
        delivers: Delivers::Pod,
    });
    served.adds.push(Carrier::XForwardedFor);
    served.appends = true;
    served.because.push(unset("targets", "pods", AZURE));
    served
        .because
        .push(unset("X-Forwarded-For", "appended", AZURE_XFF));
    served
}

fn full_name(service: &Service) -> String {
    let metadata = &service.metadata;
    format!("{}/{}", namespace(metadata), name(metadata))
}

/// Whether it has node ports, or will have some once the API server has seen it.
fn has_node_ports(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => {
            let mut ports = spec.ports.iter().flatten();
            spec.allocate_load_balancer_node_ports != Some(false)
                || ports.any(|port| port.node_port.is_some_and(|port| port > 0))
        }
        _ => false,
    }
}
