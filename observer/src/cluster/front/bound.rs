//! Services that are bound to a load balancer made elsewhere (AWS load balancer controller,
//! docs/guide/targetgroupbinding/targetgroupbinding.md).

use serde_json::Value;

use super::super::Protocol;
use super::super::around::custom::TargetGroupBinding;
use super::asked::{Asked, Port};
use super::{Answer, Carrier, Delivers, Keeps, LoadBalancer, OfPort, Setting, System, aws};

const BINDING: &str = "AWS load balancer controller, docs/guide/targetgroupbinding/spec.md";
const ALB: &str = "Elastic Load Balancing, Application Load Balancers, x-forwarded-headers";

/// Labels of the bindings that the controller writes itself, for what is told elsewhere.
const OWN: &[&str] = &[
    "ingress.k8s.aws/",
    "service.k8s.aws/",
    "gateway.k8s.aws.alb/",
    "gateway.k8s.aws.nlb/",
    "gateway.k8s.aws/",
];

/// The load balancer that a Service's bindings tell of, each for its port; what they differ in is
/// not known. Of ports without one, `rest` tells: nothing is delivered to them if there is none.
pub(super) fn answer(
    asked: Asked<'_>,
    bindings: &[&TargetGroupBinding],
    rest: Option<&LoadBalancer>,
) -> Option<Answer> {
    let all: Vec<_> = bindings.iter().filter(|it| !is_own(it)).copied().collect();
    let whole = together(all.iter().copied())?;
    let (delivers, keeps) = rest.map_or((Delivers::Nothing, Keeps::Unknown), |rest| {
        (rest.delivers, rest.keeps)
    });
    let ports = asked.each_port(|port| {
        let of_port = all.iter().filter(|it| binds(it, port)).copied();
        let of_port = together(of_port);
        let (delivers, keeps, adds) = match of_port {
            Some(its) => (its.delivers, its.keeps, its.adds),
            None => (delivers, keeps, Vec::new()),
        };
        OfPort {
            port: port.number,
            protocol: port.protocol,
            delivers,
            keeps,
            adds,
        }
    });
    Some(whole.with_ports(ports).into())
}

/// What several bindings tell together.
fn together<'a>(bindings: impl Iterator<Item = &'a TargetGroupBinding>) -> Option<LoadBalancer> {
    bindings.map(of).reduce(LoadBalancer::or)
}

/// Whether a binding is for a port: by its number, or by its name
/// (`pkg/k8s/service_utils.go`, `LookupServicePort`), and of the protocol that its group has.
fn binds(binding: &TargetGroupBinding, port: Port<'_>) -> bool {
    let spec = &binding.spec;
    let is_its = match &spec.service_ref.port {
        Some(Value::Number(number)) => number.as_u64() == Some(port.number.into()),
        Some(Value::String(name)) => port.name == Some(name),
        _ => true,
    };
    let protocol = match spec.target_group_protocol.as_deref() {
        Some("TCP" | "TLS" | "HTTP" | "HTTPS") => Some(Protocol::Tcp),
        Some("UDP" | "QUIC") => Some(Protocol::Udp),
        _ => None,
    };
    is_its && protocol.is_none_or(|protocol| protocol == port.protocol)
}

fn is_own(binding: &TargetGroupBinding) -> bool {
    let labels = binding.metadata.labels.iter().flatten();
    let mut names = labels.map(|(name, _)| name);
    names.any(|name| OWN.iter().any(|prefix| name.starts_with(prefix)))
}

fn of(binding: &TargetGroupBinding) -> LoadBalancer {
    let spec = &binding.spec;
    let target = spec.target_type.as_deref();
    let target_setting = match target {
        Some(target) => Setting::set("spec.targetType", target, BINDING),
        None => Setting::default_of("spec.targetType", "as AWS tells the controller", BINDING),
    };
    let protocol = spec.target_group_protocol.as_deref();
    let protocol_setting = protocol.map(|it| Setting::set("spec.targetGroupProtocol", it, BINDING));
    let (delivers, keeps, default) =
        aws::preservation(target.unwrap_or_default(), protocol.unwrap_or_default());
    // It asks nodes and pods for their health, but at which port is AWS' affair alone.
    let leaves_out = (delivers == Delivers::Pod).then_some(true);
    let load_balancer = match protocol {
        Some("HTTP" | "HTTPS") => LoadBalancer {
            adds: vec![Carrier::XForwardedFor],
            ..LoadBalancer::new(System::AwsAlb, delivers, Keeps::Own)
        }
        .because([Setting::default_of(
            "routing.http.xff_header_processing.mode",
            "append",
            ALB,
        )]),
        // Its attributes, which may set it otherwise, are AWS' alone.
        Some(protocol) => {
            let is_settable = matches!(protocol, "TCP" | "TLS");
            let keeps = if is_settable { Keeps::Unknown } else { keeps };
            LoadBalancer::new(System::AwsNlb, delivers, keeps).because([default])
        }
        // Of either kind.
        None => LoadBalancer::named("aws-target-group", delivers, Keeps::Unknown),
    };
    LoadBalancer {
        because: [target_setting]
            .into_iter()
            .chain(protocol_setting)
            .chain(load_balancer.because)
            .collect(),
        ..load_balancer
    }
    .leaves_out(leaves_out)
}
