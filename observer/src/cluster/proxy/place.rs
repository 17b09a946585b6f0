//! Where a proxy's pods are reached.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::convert::container_ports;
use super::super::workload::{Workload, label, name, namespace};
use super::world::World;
use super::{Place, reference};

/// By which ways clients come to these workloads.
pub(super) fn places(world: &World<'_>, workloads: &[&Workload<'_>]) -> Vec<Place> {
    let mut places = Vec::new();
    for workload in workloads {
        if workload.host_network() {
            places.push(Place::OnNodes { host_network: true });
        } else if container_ports(workload.spec).any(|it| it.host_port.is_some_and(|it| it > 0)) {
            places.push(Place::OnNodes {
                host_network: false,
            });
        }
    }
    let before: Vec<_> = workloads
        .iter()
        .flat_map(|workload| services_of(world, workload))
        .collect();
    let outward: Vec<_> = before.iter().filter(|it| leads_in(it)).collect();
    places.extend(outward.iter().map(|service| behind(service)));
    if places.is_empty() {
        let inward = before.iter().filter(|service| is_for_requests(service));
        places.extend(inward.map(|service| behind(service)));
    }
    let mut seen = Vec::new();
    places.retain(|place| {
        let is_new = !seen.contains(place);
        if is_new {
            seen.push(place.clone());
        }
        is_new
    });
    places
}

/// The Services for clients outside that bear a label: where no workload is among the objects.
pub(super) fn labelled(world: &World<'_>, labels: &[(&str, &str)]) -> Vec<Place> {
    let services = world.objects.services.iter();
    services
        .filter(|it| leads_in(it))
        .filter(|it| {
            let mut labels = labels.iter();
            labels.all(|(key, value)| label(&it.metadata, key) == Some(value))
        })
        .map(behind)
        .collect()
}

pub(super) fn behind(service: &Service) -> Place {
    let metadata = &service.metadata;
    Place::Behind {
        service: reference(namespace(metadata), name(metadata)),
    }
}

/// Whether clients outside come in by it.
pub(super) fn leads_in(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let has_addresses = spec.external_ips.as_ref().is_some_and(|it| !it.is_empty());
    let type_ = spec.type_.as_deref();
    matches!(type_, Some("NodePort" | "LoadBalancer")) || has_addresses
}

/// Whether it is for requests, and not for a webhook or for metrics.
fn is_for_requests(service: &Service) -> bool {
    let ports = service.spec.iter().flat_map(|it| it.ports.iter().flatten());
    ports.into_iter().any(|port| {
        let to = match &port.target_port {
            Some(IntOrString::String(name)) => name.as_str(),
            _ => "",
        };
        matches!(port.port, 80 | 443) && !matches!(to, "webhook" | "metrics")
    })
}

fn services_of<'a>(
    world: &'a World<'_>,
    workload: &'a Workload<'_>,
) -> impl Iterator<Item = &'a Service> {
    let services = world.objects.services.iter();
    services.filter(|service| {
        let spec = service.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        namespace(&service.metadata) == workload.namespace
            && selector.is_some_and(|selector| workload.is_selected(selector))
    })
}
