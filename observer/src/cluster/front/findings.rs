//! What a Service's settings tell together with its load balancer, whoever that is.

use super::super::finding::{Finding, Reason};
use super::asked::Asked;
use super::names::SOURCE_RANGES;
use super::{Carrier, Delivers, Keeps, LoadBalancer, System};

/// All that is told of a Service.
pub(super) fn of(asked: Asked<'_>, load_balancer: Option<&LoadBalancer>) -> Vec<Finding> {
    let mut found = Vec::new();
    let service = asked.name();
    if asked.is("ExternalName") {
        let to = asked.spec().external_name.clone().unwrap_or_default();
        found.push(Finding::ExternalName { service, to });
        return found;
    }
    if asked.spec().cluster_ip.as_deref() == Some("None") {
        found.push(Finding::Headless { service });
    }
    if asked.is("LoadBalancer") && has_ranges(asked) && asked.has_node_port() {
        found.push(Finding::SourceRangesDoNotFenceNodePorts {
            service: asked.name(),
        });
    }
    if let Some(load_balancer) = load_balancer {
        found.extend(of_both(asked, load_balancer));
    }
    found
}

fn of_both(asked: Asked<'_>, load_balancer: &LoadBalancer) -> Vec<Finding> {
    let service = || asked.name();
    let system = || load_balancer.name();
    let LoadBalancer {
        system: which,
        delivers,
        keeps,
        adds,
        ..
    } = load_balancer;
    let by_nodes = matches!(
        delivers,
        Delivers::NodePort | Delivers::VirtualIp | Delivers::Relay
    );
    let replaces = *keeps == Keeps::Own && by_nodes;
    let mut found = Vec::new();
    if *which == System::Nobody {
        found.push(Finding::LoadBalancerPending { service: service() });
    }
    if *delivers == Delivers::NodePort && asked.lacks_node_port() {
        found.push(Finding::TargetNeedsNodePort {
            by: system(),
            service: service(),
        });
    }
    if replaces && asked.is_local() && adds.is_empty() {
        found.push(Finding::LocalBehindReplacingLoadBalancer {
            service: service(),
            system: system(),
        });
    }
    // kube-proxy compares only what has the load balancer's address as its destination.
    if *keeps == Keeps::Own && *delivers == Delivers::VirtualIp && has_ranges(asked) {
        found.push(Finding::SourceRangesSeeTheLoadBalancer {
            service: service(),
            system: system(),
        });
    }
    if replaces && asked.has_affinity() {
        found.push(Finding::AffinitySeesTheLoadBalancer {
            service: service(),
            system: system(),
        });
    }
    if *delivers == Delivers::Pod {
        if asked.is_local() {
            found.push(asked.does_not_apply("externalTrafficPolicy", Reason::PastKubeProxy));
        }
        if asked.has_affinity() {
            found.push(asked.does_not_apply("sessionAffinity", Reason::PastKubeProxy));
        }
    }
    let sends_header = |carriers: &[Carrier]| {
        carriers
            .iter()
            .any(|it| matches!(it, Carrier::ProxyV1 | Carrier::ProxyV2))
    };
    let on_some_port = load_balancer
        .ports
        .iter()
        .any(|port| sends_header(&port.adds));
    if (sends_header(adds) || on_some_port) && asked.has_virtual_ip() {
        found.push(Finding::PodsBypassTheLoadBalancer {
            service: service(),
            system: system(),
        });
    }
    found
}

/// Whether the field or its annotation has ranges.
fn has_ranges(asked: Asked<'_>) -> bool {
    let field = asked.spec().load_balancer_source_ranges.as_deref();
    let annotation = asked.annotation(SOURCE_RANGES);
    field.is_some_and(|ranges| !ranges.is_empty())
        || annotation.is_some_and(|ranges| !ranges.trim().is_empty())
}
