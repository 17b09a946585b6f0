//! Proxies around Envoy: as an edge it takes the peer's address for the client's, and appends it
//! (Envoy, `configuration/http/http_conn_man/headers`, "x-forwarded-for", `use_remote_address`).

use super::super::front::Carrier;
use super::super::settings::unset;
use super::super::workload::{Workload, name, namespace};
use super::world::World;
use super::{Controller, Place, Served, place, reference};

const ISTIO: &str = "Istio, ops/configuration/traffic-management/network-topologies";
const ENVOY_GATEWAY: &str = "Envoy Gateway, tasks/traffic/client-traffic-policy";
const CONTOUR: &str = "Contour, docs/main/configuration, \"num-trusted-hops\"";
const CILIUM: &str = "Cilium, network/servicemesh/ingress-reference, \"Source IP Visibility\"";

fn appending(
    controller: Controller,
    provider: Option<&str>,
    trusted: &str,
    source: &'static str,
) -> Served {
    let mut served = Served::by(controller, provider.map(str::to_owned));
    served.adds.push(Carrier::XForwardedFor);
    served.appends = true;
    served.because.push(unset(trusted, "0", source));
    served
}

/// An Istio gateway. How many proxies before it are trusted is told by what is not among these
/// objects.
pub(super) fn istio() -> Served {
    appending(Controller::Istio, None, "numTrustedProxies", ISTIO)
}

/// Istio's gateway for Ingresses, by the label that its installation has.
pub(super) fn istio_ingress(world: &World<'_>) -> Served {
    let mut served = istio();
    let gateways: Vec<_> = world
        .workloads
        .iter()
        .filter(|it| it.label("istio") == Some("ingressgateway"))
        .collect();
    served.places = place::places(world, &gateways);
    served
}

/// Envoy Gateway; a `ClientTrafficPolicy` is not among these objects.
pub(super) fn envoy_gateway() -> Served {
    appending(
        Controller::EnvoyGateway,
        None,
        "ClientTrafficPolicy: numTrustedHops",
        ENVOY_GATEWAY,
    )
}

/// Contour, whose Envoys are pods of their own.
pub(super) fn contour(world: &World<'_>) -> Served {
    let mut served = appending(
        Controller::Other,
        Some("contour"),
        "num-trusted-hops",
        CONTOUR,
    );
    let is_envoy = |it: &&Workload<'_>| {
        let component = it.label("app.kubernetes.io/component");
        let part = [
            it.label("app.kubernetes.io/name"),
            it.label("app.kubernetes.io/part-of"),
        ];
        let is_named = it.namespace == "projectcontour" && it.label("app") == Some("envoy");
        is_named || (component == Some("envoy") && part.contains(&Some("contour")))
    };
    let envoys: Vec<_> = world.workloads.iter().filter(is_envoy).collect();
    served.places = place::places(world, &envoys);
    served
}

/// Cilium, whose Envoys are on every node, and get what comes for their Service with its source.
pub(super) fn cilium() -> Served {
    appending(
        Controller::Other,
        Some("cilium"),
        "xffNumTrustedHops",
        CILIUM,
    )
}

/// Cilium for an Ingress: behind the Service of all, or of its own.
pub(super) fn cilium_ingress(world: &World<'_>, its_namespace: &str, ingress: &str) -> Served {
    let mut served = cilium();
    let own = format!("cilium-ingress-{ingress}");
    let own = world.service(its_namespace, &own);
    // Where Cilium is: one of these two, by its documents.
    let mut homes = ["kube-system", "cilium"].into_iter();
    let shared = homes.find_map(|home| world.service(home, "cilium-ingress"));
    served.places = own
        .or(shared)
        .into_iter()
        .map(|service| Place::OnEveryNode {
            service: reference(namespace(&service.metadata), name(&service.metadata)),
        })
        .collect();
    served
}
