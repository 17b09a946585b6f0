//! AWS' Network Load Balancer.

use super::super::super::Protocol;
use super::super::super::finding::Reason;
use super::super::asked::{Asked, Port};
use super::super::{
    Answer, Carrier, Delivers, Finding, Keeps, LoadBalancer, OfPort, Setting, System,
};
use super::attributes::{self, Attribute, PRESERVE};
use super::{
    ATTRIBUTES, AUTO_MODE, By, CONTROLLER, CONTROLLER_NLB, IN_TREE, INTERNAL, IP_ADDRESS_TYPE,
    PROXY_PROTOCOL, SCHEME, TARGET_TYPE, TYPE, classic,
};

/// The defaults of client IP preservation.
const PRESERVATION: &str =
    "Elastic Load Balancing, Network Load Balancers, edit-target-group-attributes";
/// The default target type of Auto Mode.
const AUTO_NETWORKING: &str = "Amazon EKS user guide, automode/auto-networking";
const TCP_UDP: &str = "service.beta.kubernetes.io/aws-load-balancer-enable-tcp-udp-listener";
const QUIC: &str = "service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports";
const CHECK_PORT: &str = "service.beta.kubernetes.io/aws-load-balancer-healthcheck-port";

/// To what a target group leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Instance,
    Ip,
    Unknown,
}

impl Target {
    fn of(name: &str) -> Self {
        match name {
            "instance" => Self::Instance,
            "ip" => Self::Ip,
            _ => Self::Unknown,
        }
    }

    const fn delivers(self) -> Delivers {
        match self {
            Self::Instance => Delivers::NodePort,
            Self::Ip => Delivers::Pod,
            Self::Unknown => Delivers::Unknown,
        }
    }

    /// Whose address TCP and TLS targets see where nothing is set.
    const fn keeps(self) -> Keeps {
        match self {
            Self::Instance => Keeps::Client,
            Self::Ip => Keeps::Own,
            Self::Unknown => Keeps::Unknown,
        }
    }
}

/// To whom a target group of a type and protocol delivers, with which source where no attribute is
/// set, and why.
pub(in super::super) fn preservation(
    target_type: &str,
    protocol: &str,
) -> (Delivers, Keeps, Setting) {
    let target = Target::of(target_type);
    let keeps = match protocol {
        "UDP" | "TCP_UDP" | "QUIC" | "TCP_QUIC" => Keeps::Client,
        _ => target.keeps(),
    };
    (target.delivers(), keeps, default_preservation(keeps))
}

fn default_preservation(keeps: Keeps) -> Setting {
    let value = match keeps {
        Keeps::Client => "true",
        Keeps::Own => "false",
        Keeps::Unknown => "",
    };
    Setting::default_of(PRESERVE, value, PRESERVATION)
}

/// A Network Load Balancer that one of the three makes.
pub(super) fn answer(asked: Asked<'_>, by: By, setting: Setting) -> Answer {
    let (target, target_setting) = target(asked, by);
    let ports = asked.each_port(|port| OfPort {
        port: port.number,
        protocol: port.protocol,
        delivers: target.delivers(),
        keeps: keeps(asked, by, target, port),
        adds: attributes::sends_proxy_header(asked, by, port)
            .then_some(Carrier::ProxyV2)
            .into_iter()
            .collect(),
    });
    let families = asked
        .if_set(IP_ADDRESS_TYPE, CONTROLLER)
        .filter(|_| by != By::InTree);
    let mut load_balancer = LoadBalancer::new(System::AwsNlb, target.delivers(), target.keeps())
        .leaves_out(leaves_out(asked, target))
        .because([setting, target_setting])
        .with_ports(ports)
        .because(attributes::settings(asked, by));
    if asked.has_udp() {
        let udp = Setting::set("spec.ports[].protocol", "UDP", PRESERVATION);
        load_balancer.because.push(udp);
    }
    let is_set = |port| attributes::preserve(asked, by, port) != Attribute::NotSet;
    if !asked.ports().any(is_set) {
        load_balancer
            .because
            .push(default_preservation(load_balancer.keeps));
    }
    load_balancer.because.extend(families);
    let findings = findings(asked, by, target, &mut load_balancer);
    let answer = Answer {
        load_balancer,
        findings,
    };
    if by == By::InTree {
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let refused = classic::refused(asked, System::AwsNlb, &protocols);
        return answer.unless(refused);
    }
    answer
}

/// To what it leads, and by which setting.
fn target(asked: Asked<'_>, by: By) -> (Target, Setting) {
    if by == By::InTree {
        let setting = Setting::default_of("target type", "instance", IN_TREE);
        return (Target::Instance, setting);
    }
    if by == By::Controller && asked.annotation(TYPE) == Some("nlb-ip") {
        return (Target::Ip, Setting::set(TYPE, "nlb-ip", CONTROLLER));
    }
    let (default, source) = match by {
        By::AutoMode => ("ip", AUTO_NETWORKING),
        By::InTree | By::Controller => ("instance", CONTROLLER),
    };
    let setting = asked.setting(TARGET_TYPE, default, source);
    (Target::of(&setting.value), setting)
}

fn keeps(asked: Asked<'_>, by: By, target: Target, port: Port<'_>) -> Keeps {
    if always_keeps(asked, by, port) {
        return Keeps::Client;
    }
    match attributes::preserve(asked, by, port) {
        Attribute::On => Keeps::Client,
        Attribute::Off => Keeps::Own,
        Attribute::NotUnderstood => Keeps::Unknown,
        Attribute::NotSet => target.keeps(),
    }
}

/// Whether its target group is of a protocol of which the address is always preserved: UDP,
/// `TCP_UDP`, QUIC, `TCP_QUIC`.
fn always_keeps(asked: Asked<'_>, by: By, port: Port<'_>) -> bool {
    if port.protocol == Protocol::Udp {
        return true;
    }
    let is_quic = asked
        .annotation(QUIC)
        .is_some_and(|ports| port.is_in(ports));
    let mut others = asked.ports();
    let shares = others.any(|other| (other.number, other.protocol) == (port.number, Protocol::Udp));
    by == By::Controller && (is_quic || (shares && asked.says(TCP_UDP)))
}

/// Under policy `Local` it asks the health check node port, unless another is set. Pods it asks
/// themselves.
fn leaves_out(asked: Asked<'_>, target: Target) -> Option<bool> {
    let port = asked.annotation(CHECK_PORT);
    let of_service = asked
        .spec()
        .health_check_node_port
        .map(|port| port.to_string());
    match (target, port) {
        (Target::Instance, Some(port)) => {
            // Nodes without a pod do not answer at the node port either.
            (port == "traffic-port" || Some(port) == of_service.as_deref()).then_some(true)
        }
        (Target::Instance, None) | (Target::Ip, _) => Some(true),
        (Target::Unknown, _) => None,
    }
}

fn findings(
    asked: Asked<'_>,
    by: By,
    target: Target,
    load_balancer: &mut LoadBalancer,
) -> Vec<Finding> {
    let mut found = attributes::not_understood(asked, by);
    if target == Target::Unknown {
        let value = asked.annotation(TARGET_TYPE).unwrap_or_default();
        found.push(asked.not_understood(TARGET_TYPE, value));
    }
    found.extend(ignored(asked, by));
    let keeps_client = load_balancer.keeps == Keeps::Client
        || load_balancer
            .ports
            .iter()
            .any(|port| port.keeps == Keeps::Client);
    let (is_internal, scheme) = scheme(asked, by);
    if is_internal && keeps_client {
        load_balancer.because.extend(scheme);
        found.push(Finding::HairpinThroughLoadBalancer {
            service: asked.name(),
            system: System::AwsNlb.to_string(),
        });
    }
    let families = asked.annotation(IP_ADDRESS_TYPE).unwrap_or_default();
    if by != By::InTree && families.starts_with("dualstack") {
        found.push(Finding::FamilyTranslated {
            service: asked.name(),
            system: System::AwsNlb.to_string(),
        });
    }
    let sends_header = asked
        .ports()
        .any(|port| attributes::sends_proxy_header(asked, by, port));
    if sends_header && target == Target::Instance && asked.is_local() {
        // The checks come with a header too, which kube-proxy's port does not read.
        found.push(Finding::ProxyProtocolNotRead {
            by: System::AwsNlb.to_string(),
            reader: "spec.healthCheckNodePort".to_owned(),
        });
    }
    if by == By::InTree && load_balancer.keeps == Keeps::Own && has_ranges(asked) {
        // It opens the nodes' security groups for the ranges, and its own address meets them.
        found.push(Finding::SourceRangesSeeTheLoadBalancer {
            service: asked.name(),
            system: System::AwsNlb.to_string(),
        });
    }
    found
}

fn has_ranges(asked: Asked<'_>) -> bool {
    let ranges = asked.spec().load_balancer_source_ranges.as_deref();
    ranges.is_some_and(|ranges| !ranges.is_empty())
}

/// Whether it has a private address only, and what says so.
fn scheme(asked: Asked<'_>, by: By) -> (bool, Option<Setting>) {
    let source = match by {
        By::InTree => IN_TREE,
        By::Controller => CONTROLLER,
        By::AutoMode => AUTO_MODE,
    };
    let scheme = asked.if_set(SCHEME, source).filter(|_| by != By::InTree);
    let internal = asked
        .if_set(INTERNAL, source)
        .filter(|_| by != By::AutoMode);
    match (by, scheme, internal) {
        (_, Some(scheme), _) => (scheme.value == "internal", Some(scheme)),
        // In-tree, any value but `false` says so.
        (By::InTree, None, Some(it)) => (!matches!(&*it.value, "" | "false"), Some(it)),
        (_, None, Some(it)) => (asked.says(INTERNAL), Some(it)),
        (By::Controller, None, None) => (
            true,
            Some(Setting::default_of(SCHEME, "internal", CONTROLLER_NLB)),
        ),
        (By::InTree | By::AutoMode, None, None) => (false, None),
    }
}

/// Settings that are not read.
fn ignored(asked: Asked<'_>, by: By) -> Vec<Finding> {
    let (names, why): (&[&str], _) = match by {
        By::InTree => {
            let names = &[PROXY_PROTOCOL, TARGET_TYPE, SCHEME, IP_ADDRESS_TYPE];
            (names, Reason::InTreeController)
        }
        By::Controller => (&[], Reason::AlwaysPreserved),
        By::AutoMode => (&[PROXY_PROTOCOL, INTERNAL], Reason::EksAutoMode),
    };
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| asked.ignored(name, why))
        .collect();
    let refuses = asked.ports().any(|port| {
        always_keeps(asked, by, port) && attributes::preserve(asked, by, port) == Attribute::Off
    });
    if refuses {
        found.extend(asked.ignored(ATTRIBUTES, Reason::AlwaysPreserved));
    }
    found
}
