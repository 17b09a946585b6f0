//! AWS: which of its load balancers a Service gets, and from which controller.
//!
//! Three make them: the cloud provider (`cloud-provider-aws`, "in-tree"), the AWS load balancer
//! controller, and EKS Auto Mode. A class chooses between them, and without one the annotation
//! `aws-load-balancer-type` (AWS load balancer controller, docs/guide/service/annotations.md,
//! "Legacy Cloud Provider").

use k8s_openapi::api::apps::v1::Deployment;

use super::asked::Asked;
use super::environment::Environment;
use super::fronts::HOSTNAME;
use super::{Answer, Keeps, LoadBalancer, OfPort, Setting, System};

mod attributes;
mod classic;
mod nlb;

pub(super) use nlb::preservation;

/// `aws-load-balancer-…`, as all three read them.
const TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-type";
const TARGET_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
const SCHEME: &str = "service.beta.kubernetes.io/aws-load-balancer-scheme";
const INTERNAL: &str = "service.beta.kubernetes.io/aws-load-balancer-internal";
const PROXY_PROTOCOL: &str = "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol";
const IP_ADDRESS_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-ip-address-type";
const ATTRIBUTES: &str = "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes";
const BACKEND_PROTOCOL: &str = "service.beta.kubernetes.io/aws-load-balancer-backend-protocol";
const CERTIFICATE: &str = "service.beta.kubernetes.io/aws-load-balancer-ssl-cert";
const TLS_PORTS: &str = "service.beta.kubernetes.io/aws-load-balancer-ssl-ports";

/// The class of the AWS load balancer controller.
const CONTROLLER_CLASS: &str = "service.k8s.aws/nlb";
/// The class of EKS Auto Mode.
const AUTO_MODE_CLASS: &str = "eks.amazonaws.com/nlb";

const CONTROLLER: &str = "AWS load balancer controller, docs/guide/service/annotations.md";
const CONTROLLER_NLB: &str = "AWS load balancer controller, docs/guide/service/nlb.md";
const INSTALLATION: &str = "AWS load balancer controller, docs/deploy/installation.md";
const IN_TREE: &str = "cloud-provider-aws, docs/service_controller.md";
const AUTO_MODE: &str = "Amazon EKS user guide, auto-configure-nlb";
/// Where names of load balancers are told apart (`pkg/providers/v1/aws_validations.go`).
pub(super) const HOSTNAMES: &str = "cloud-provider-aws, pkg/providers/v1/aws_validations.go";

/// Who makes a Network Load Balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    InTree,
    Controller,
    AutoMode,
}

/// Which of the two a name in a status is.
enum Kind {
    Network,
    Classic,
}

/// The load balancer of a Service with a class, if that is AWS'.
pub(super) fn by_class(asked: Asked<'_>, class: &str) -> Option<Answer> {
    let (by, source) = match class {
        CONTROLLER_CLASS => (By::Controller, CONTROLLER_NLB),
        AUTO_MODE_CLASS => (By::AutoMode, AUTO_MODE),
        _ => return None,
    };
    let setting = Setting::set("spec.loadBalancerClass", class, source);
    Some(nlb::answer(asked, by, setting))
}

/// The load balancer of a Service of type `LoadBalancer` without a class, on AWS.
pub(super) fn answer(asked: Asked<'_>, environment: &Environment<'_>, setting: Setting) -> Answer {
    let kind = asked.annotation(TYPE).filter(|kind| !kind.is_empty());
    let is_new = asked.ingress().is_empty();
    if is_new && environment.is_auto_mode && !environment.has_aws_controller {
        // It gives the class to what is created.
        return nlb::answer(
            asked,
            By::AutoMode,
            default_class(AUTO_MODE_CLASS, AUTO_MODE),
        );
    }
    match kind {
        Some(kind @ ("nlb-ip" | "external")) => {
            let mut answer =
                nlb::answer(asked, By::Controller, Setting::set(TYPE, kind, CONTROLLER));
            if kind == "external" && asked.annotation(TARGET_TYPE).is_none() {
                // Without both, the controller takes it only for its class, which its webhook
                // gives to what is created (docs/guide/service/nlb.md).
                let class = default_class(CONTROLLER_CLASS, CONTROLLER_NLB);
                answer.load_balancer.because.push(class);
            }
            answer
        }
        Some("nlb") => nlb::answer(asked, By::InTree, Setting::set(TYPE, "nlb", IN_TREE)),
        other => {
            let mut answer = match told_by_name(asked) {
                Some((name, Kind::Network)) => nlb::answer(
                    asked,
                    By::Controller,
                    Setting::set(HOSTNAME, name, HOSTNAMES),
                ),
                Some((name, Kind::Classic)) => {
                    classic::answer(asked, Setting::set(HOSTNAME, name, HOSTNAMES))
                }
                // Its webhook gives the class to what is created.
                None if is_new && environment.has_aws_controller => {
                    let class = default_class(CONTROLLER_CLASS, CONTROLLER);
                    nlb::answer(asked, By::Controller, class)
                }
                None if is_for_the_controller(asked) => of_either(asked, setting),
                None => classic::answer(asked, setting),
            };
            let kind = other.map(|kind| asked.not_understood(TYPE, kind));
            answer.findings.extend(kind);
            answer
        }
    }
}

/// Whether a setting is there that only the AWS load balancer controller and EKS Auto Mode read.
fn is_for_the_controller(asked: Asked<'_>) -> bool {
    let mut names = [TARGET_TYPE, SCHEME, IP_ADDRESS_TYPE].into_iter();
    names.any(|name| asked.annotation(name).is_some_and(|it| !it.is_empty()))
}

/// Of one that asks for the controller's settings, and not for the controller: its webhook, since
/// version 2.5, gives the class to what is created, and without it the cloud provider makes a
/// Classic Load Balancer that reads none of them (docs/deploy/installation.md).
fn of_either(asked: Asked<'_>, setting: Setting) -> Answer {
    let class = default_class(CONTROLLER_CLASS, INSTALLATION);
    let network = nlb::answer(asked, By::Controller, class);
    let classic = classic::answer(asked, setting);
    let ports = asked.each_port(|port| {
        let at = |answer: &Answer| {
            answer
                .load_balancer
                .at(port.protocol, port.number)
                .into_owned()
        };
        let either = at(&network).or(at(&classic));
        OfPort {
            port: port.number,
            protocol: port.protocol,
            delivers: either.delivers,
            // Whose address pods see then depends on the way that it takes too.
            keeps: Keeps::Unknown,
            adds: either.adds,
        }
    });
    let findings = network.findings.into_iter();
    let findings = findings
        .filter(|it| classic.findings.contains(it))
        .collect();
    let either = network.load_balancer.or(classic.load_balancer);
    Answer {
        load_balancer: LoadBalancer {
            system: System::Other,
            provider: Some("aws".to_owned()),
            keeps: Keeps::Unknown,
            ..either.with_ports(ports)
        },
        findings,
    }
}

fn default_class(class: &str, source: &'static str) -> Setting {
    Setting::default_of("spec.loadBalancerClass", class, source)
}

/// The load balancer of a Service of another type: the controller makes one where the annotations
/// ask for it (`pkg/service/service_utils.go`).
pub(super) fn of_another_type(asked: Asked<'_>) -> Option<Answer> {
    let kind = asked.annotation(TYPE)?;
    let target = asked.annotation(TARGET_TYPE);
    let is_its =
        kind == "nlb-ip" || (kind == "external" && matches!(target, Some("ip" | "instance")));
    let is_served = !asked.is("ExternalName") && asked.class().is_none();
    (is_its && is_served).then(|| {
        nlb::answer(
            asked,
            By::Controller,
            Setting::set(TYPE, kind, CONTROLLER_NLB),
        )
    })
}

/// Whether it is the AWS load balancer controller.
pub(super) fn is_controller(deployment: &Deployment) -> bool {
    let spec = deployment.spec.as_ref();
    let pods = spec.and_then(|spec| spec.template.spec.as_ref());
    let mut images = pods
        .into_iter()
        .flat_map(|pods| pods.containers.iter().filter_map(|it| it.image.as_deref()));
    images.any(|image| image.contains("aws-load-balancer-controller"))
}

/// Whether a name is one of AWS' load balancers'.
pub(super) fn names(hostname: &str) -> bool {
    kind_of(hostname).is_some()
}

/// `NAME.REGION.elb.amazonaws.com` is a Classic Load Balancer's, `NAME.elb.REGION.amazonaws.com` a
/// Network Load Balancer's.
fn kind_of(hostname: &str) -> Option<Kind> {
    let suffixes = [".amazonaws.com", ".amazonaws.com.cn"];
    let name = suffixes
        .iter()
        .find_map(|suffix| hostname.strip_suffix(suffix))?;
    let labels: Vec<_> = name.split('.').collect();
    match labels[..] {
        [.., "elb"] => Some(Kind::Classic),
        [.., "elb", _] => Some(Kind::Network),
        [..] => None,
    }
}

fn told_by_name(asked: Asked<'_>) -> Option<(&str, Kind)> {
    let mut names = asked
        .ingress()
        .iter()
        .filter_map(|it| it.hostname.as_deref());
    names.find_map(|name| Some((name, kind_of(name)?)))
}
