//! Services that are bound to a load balancer made elsewhere (AWS load balancer controller,
//! docs/guide/targetgroupbinding/targetgroupbinding.md).

use super::super::around::custom::TargetGroupBinding;
use super::{Answer, Carrier, Delivers, Keeps, LoadBalancer, Setting, System, aws};

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

/// The load balancer that a Service's bindings tell of; what they differ in is not known.
pub(super) fn answer(bindings: &[&TargetGroupBinding]) -> Option<Answer> {
    let mut all = bindings.iter().filter(|it| !is_own(it)).map(|it| of(it));
    let first = all.next()?;
    let merged = all.fold(first, |one, other| LoadBalancer {
        system: if one.system == other.system {
            one.system
        } else {
            System::Unknown
        },
        delivers: if one.delivers == other.delivers {
            one.delivers
        } else {
            Delivers::Unknown
        },
        keeps: if one.keeps == other.keeps {
            one.keeps
        } else {
            Keeps::Unknown
        },
        adds: one
            .adds
            .into_iter()
            .filter(|it| other.adds.contains(it))
            .collect(),
        because: one.because.into_iter().chain(other.because).collect(),
        ..other
    });
    Some(merged.into())
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
