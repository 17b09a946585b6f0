//! Ways through the Gateway API.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::Protocol;
use super::super::finding::Finding;
use super::super::front::{Carrier, Delivers, Keeps, System};
use super::super::proxy::{Controller, Place, routes};
use super::around::{object, overlay, whole};
use super::proxies::{route, service_ref};

const XFF: &[Carrier] = &[Carrier::XForwardedFor];

fn gateway(class: &str) -> Value {
    object(
        "Gateway",
        "edge/gate",
        json!({"spec": {"gatewayClassName": class}}),
    )
}

fn gateway_class(name: &str, controller: &str) -> Value {
    json!({
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    })
}

fn gateway_route(kind: &str) -> Value {
    object(
        kind,
        "web",
        json!({"spec": {
            "parentRefs": [{"name": "gate", "namespace": "edge"}],
            "rules": [
                {"backendRefs": [{"name": "web", "port": 80}, {"kind": "Other", "name": "x"}]},
                {"backendRefs": [{"name": "web", "port": 80}]},
            ],
        }}),
    )
}

// GatewayClass.spec.controllerName, as each project's manifests have it.
#[rstest]
#[case::istio("istio.io/gateway-controller", Controller::Istio, XFF, Place::Unknown)]
#[case::envoy_gateway(
    "gateway.envoyproxy.io/gatewayclass-controller",
    Controller::EnvoyGateway,
    XFF,
    Place::Unknown
)]
#[case::cilium("io.cilium/gateway-controller", Controller::Other, XFF, Place::Unknown)]
#[case::traefik(
    "traefik.io/gateway-controller",
    Controller::Traefik,
    XFF,
    Place::Unknown
)]
#[case::gke(
    "networking.gke.io/gateway", Controller::Gke, XFF, Place::Outside { delivers: Delivers::Pod }
)]
#[case::aws(
    "gateway.k8s.aws/alb", Controller::AwsAlb, XFF, Place::Outside { delivers: Delivers::Unknown }
)]
#[case::aws_of_layer_4(
    "gateway.k8s.aws/nlb", Controller::AwsNlb, &[], Place::Outside { delivers: Delivers::Unknown }
)]
#[case::named("example.org/own", Controller::Other, &[], Place::Unknown)]
fn whose_a_gateway_is(
    #[case] controller: &str,
    #[case] expected: Controller,
    #[case] adds: &[Carrier],
    #[case] place: Place,
) {
    let items = |kind| {
        [
            gateway("a"),
            gateway_class("a", controller),
            gateway_route(kind),
        ]
    };
    let http = route(&items("HTTPRoute"));
    assert_eq!((http.controller, &*http.adds), (expected, adds));
    let (_, findings) = routes(&whole(&items("HTTPRoute")));
    assert_eq!(
        findings.is_empty(),
        expected != Controller::Other || !adds.is_empty()
    );
    assert_eq!(http.places, [place]);
    assert_eq!(
        (http.object(), http.port),
        ("HTTPRoute shop/web".to_owned(), Some("80".to_owned()))
    );
    // Only HTTP has headers.
    for kind in ["TLSRoute", "TCPRoute"] {
        assert!(route(&items(kind)).adds.is_empty());
    }
}

#[rstest]
#[case::by_class_name(&[gateway("istio")], Controller::Istio, None)]
#[case::of_gke(&[gateway("gke-l7-global-external-managed")], Controller::Gke, None)]
#[case::no_class(&[gateway("a")], Controller::Unknown, Some("a"))]
#[case::no_gateway(&[], Controller::Unknown, Some(""))]
fn a_gateway_without_its_class(
    #[case] items: &[Value],
    #[case] expected: Controller,
    #[case] unknown: Option<&str>,
) {
    let (routes, findings) = routes(&whole(&[items, &[gateway_route("HTTPRoute")]].concat()));
    assert_eq!(routes.first().map(|it| it.controller), Some(expected));
    let by = "HTTPRoute shop/web".to_owned();
    let unknown = unknown.map(|class| Finding::controller_unknown(by, class));
    assert_eq!(findings, Vec::from_iter(unknown));
}

/// A Service that a controller has made for a Gateway.
fn made(name: &str, labels: Value) -> Value {
    let spec = json!({"type": "LoadBalancer"});
    object(
        "Service",
        name,
        json!({"metadata": {"labels": labels}, "spec": spec}),
    )
}

// GEP-1762; Envoy Gateway, internal/gatewayapi/translator.go.
#[rstest]
#[case::by_name(
    "istio", "edge/gate-istio", json!({"gateway.networking.k8s.io/gateway-name": "gate"}), true
)]
#[case::of_another(
    "istio", "edge/gate-istio", json!({"gateway.networking.k8s.io/gateway-name": "other"}), false
)]
#[case::elsewhere(
    "istio", "shop/gate-istio", json!({"gateway.networking.k8s.io/gateway-name": "gate"}), false
)]
#[case::by_owner(
    "a", "envoy-gateway-system/envoy-1",
    json!({
        "gateway.envoyproxy.io/owning-gateway-name": "gate",
        "gateway.envoyproxy.io/owning-gateway-namespace": "edge",
    }),
    true
)]
fn where_a_gateway_is(
    #[case] class: &str,
    #[case] service: &str,
    #[case] labels: Value,
    #[case] is_its: bool,
) {
    let (namespace, name) = service.split_once('/').expect("two parts");
    let envoy = "gateway.envoyproxy.io/gatewayclass-controller";
    let items = [
        gateway(class),
        gateway_class("a", envoy),
        gateway_route("HTTPRoute"),
        made(service, labels),
    ];
    let expected = if is_its {
        let service = service_ref(namespace, name);
        Place::Behind { service }
    } else {
        Place::Unknown
    };
    assert_eq!(route(&items).places, [expected]);
}

#[test]
fn a_route_of_a_service_mesh_is_no_way_in() {
    let mut mesh = gateway_route("HTTPRoute");
    mesh["spec"]["parentRefs"] = json!([{"group": "", "kind": "Service", "name": "web"}]);
    assert!(routes(&whole(&[mesh])).0.is_empty());
}

/// AWS' load balancer of layer 4 is no proxy for certain: preservation is an attribute of its
/// target groups (edit-target-group-attributes).
#[rstest]
#[case::tcp("TCPRoute", Protocol::Tcp)]
#[case::udp("UDPRoute", Protocol::Udp)]
fn a_gateway_of_layer_4(#[case] kind: &str, #[case] protocol: Protocol) {
    let class = gateway_class("a", "gateway.k8s.aws/nlb");
    let route = route(&[gateway("a"), class, gateway_route(kind)]);
    let front = route.front().expect("it is outside");
    assert_eq!(
        (front.system, front.delivers, front.keeps, &*front.adds),
        (System::AwsNlb, Delivers::Unknown, Keeps::Unknown, &[][..])
    );
    assert_eq!(route.protocol, protocol);
}

#[rstest]
#[case::http("HTTPRoute")]
#[case::grpc("GRPCRoute")]
#[case::tls("TLSRoute")]
fn what_leads_to_tcp_ports(#[case] kind: &str) {
    let route = route(&[gateway("istio"), gateway_route(kind)]);
    assert_eq!(route.protocol, Protocol::Tcp);
}

/// Gateway API, reference/spec, "`ReferenceGrant`".
#[rstest]
#[case::none(None, false)]
#[case::all_services(Some(json!({})), true)]
#[case::one(Some(json!({"spec": {"to": [{"kind": "Service", "name": "db"}]}})), true)]
#[case::another(Some(json!({"spec": {"to": [{"kind": "Service", "name": "web"}]}})), false)]
#[case::of_another_kind(Some(json!({"spec": {"to": [{"kind": "Secret"}]}})), false)]
#[case::for_another_kind(
    Some(json!({"spec": {"from": [{
        "group": "gateway.networking.k8s.io", "kind": "TCPRoute", "namespace": "shop",
    }]}})),
    false
)]
#[case::for_another_namespace(
    Some(json!({"spec": {"from": [{
        "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "edge",
    }]}})),
    false
)]
#[case::elsewhere(Some(json!({"metadata": {"namespace": "shop"}})), false)]
fn a_route_into_another_namespace(#[case] grant: Option<Value>, #[case] is_granted: bool) {
    let backend = json!([{"name": "db", "namespace": "data", "port": 80}]);
    let route = object(
        "HTTPRoute",
        "web",
        json!({"spec": {
            "parentRefs": [{"name": "gate", "namespace": "edge"}],
            "rules": [{"backendRefs": backend}],
        }}),
    );
    let mut items = vec![gateway("istio"), route];
    items.extend(grant.map(|over| {
        let from = json!([{
            "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop",
        }]);
        let to = json!([{"group": "", "kind": "Service"}]);
        let mut grant = object(
            "ReferenceGrant",
            "data/web",
            json!({"spec": {"from": from, "to": to}}),
        );
        overlay(&mut grant, over);
        grant
    }));
    let mut objects = whole(&items);
    let (ways, findings) = routes(&objects);
    assert_eq!(ways.len(), usize::from(is_granted));
    let refused = (!is_granted).then(|| Finding::RouteNotGranted {
        by: "HTTPRoute shop/web".to_owned(),
        service: "data/db".to_owned(),
    });
    assert_eq!(findings, Vec::from_iter(refused));

    // Grants that could not be read may be there.
    objects.around.lacks_reference_grants = true;
    let (ways, findings) = routes(&objects);
    assert_eq!((ways.len(), findings.len()), (1, 0));
}
