//! Ways through proxies other than ingress-nginx, and whose an Ingress or a Gateway is.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::finding::Finding;
use super::super::front::{Carrier, Delivers, Keeps, System};
use super::super::proxy::{Controller, Place, Route, fronts, mismatches, routes};
use super::around::{object, overlay, whole, workload};
use super::node;
use super::proxies::{class, ingress, route, service_of, service_ref};

const XFF: &[Carrier] = &[Carrier::XForwardedFor];
const PROXY: &[Carrier] = &[Carrier::ProxyV1, Carrier::ProxyV2];
const TARGET: &str = "alb.ingress.kubernetes.io/target-type";
const ATTRIBUTES: &str = "alb.ingress.kubernetes.io/load-balancer-attributes";

/// A workload with one container.
fn running(name: &str, image: &str, args: Value) -> Value {
    let mut workload = workload("Deployment", name, json!({}));
    let container = &mut workload["spec"]["template"]["spec"]["containers"][0];
    overlay(container, json!({"image": image, "args": args}));
    workload
}

fn web(kind: &str, annotations: Value) -> Value {
    let mut web = service_of(kind, "web", "web");
    web["metadata"]["annotations"] = annotations;
    web
}

fn outside(delivers: Delivers) -> Vec<Place> {
    vec![Place::Outside { delivers }]
}

// IngressClass.spec.controller, as each project's manifests have it; by the class's name where no
// object is there.
#[rstest]
#[case::nginx("nginx", Some("k8s.io/ingress-nginx"), Controller::IngressNginx, None)]
#[case::nginx_by_name("nginx", None, Controller::IngressNginx, None)]
#[case::alb("any", Some("ingress.k8s.aws/alb"), Controller::AwsAlb, None)]
#[case::alb_by_name("alb", None, Controller::AwsAlb, None)]
#[case::traefik(
    "any",
    Some("traefik.io/ingress-controller"),
    Controller::Traefik,
    None
)]
#[case::traefik_by_name("traefik", None, Controller::Traefik, None)]
#[case::haproxy(
    "any",
    Some("haproxy-ingress.github.io/controller/x"),
    Controller::Haproxy,
    None
)]
#[case::haproxytech(
    "any",
    Some("haproxy.org/ingress-controller/haproxy"),
    Controller::Haproxy,
    Some("haproxytech")
)]
#[case::istio("istio", Some("istio.io/ingress-controller"), Controller::Istio, None)]
#[case::cilium(
    "any",
    Some("cilium.io/ingress-controller"),
    Controller::Other,
    Some("cilium")
)]
#[case::contour(
    "any",
    Some("projectcontour.io/projectcontour/contour"),
    Controller::Other,
    Some("contour")
)]
#[case::kong(
    "any",
    Some("ingress-controllers.konghq.com/kong"),
    Controller::Other,
    Some("kong")
)]
#[case::azure(
    "any",
    Some("azure/application-gateway"),
    Controller::Other,
    Some("azure-application-gateway")
)]
#[case::named(
    "any",
    Some("example.org/own"),
    Controller::Other,
    Some("example.org/own")
)]
#[case::the_object_counts(
    "nginx",
    Some("example.org/own"),
    Controller::Other,
    Some("example.org/own")
)]
#[case::unknown("any", None, Controller::Unknown, Some("any"))]
fn whose_it_is(
    #[case] name: &str,
    #[case] controller: Option<&str>,
    #[case] expected: Controller,
    #[case] provider: Option<&str>,
) {
    let object = controller.map(|controller| class(name, controller));
    let with_field = ingress(Some(name), json!({}));
    let with_annotation = ingress(None, json!({"kubernetes.io/ingress.class": name}));
    for ingress in [with_field, with_annotation] {
        let items: Vec<_> = object.iter().cloned().chain([ingress]).collect();
        let (routes, findings) = routes(&whole(&items));
        let [route] = &routes[..] else {
            panic!("one way")
        };
        assert_eq!(
            (route.controller, route.provider.as_deref()),
            (expected, provider)
        );
        let named = [Some("kong"), Some("example.org/own"), Some("any")];
        let unknown = provider.filter(|_| named.contains(&provider));
        let unknown = unknown.map(|class| Finding::ControllerUnknown {
            by: "Ingress shop/web".to_owned(),
            class: class.to_owned(),
        });
        assert_eq!(findings, Vec::from_iter(unknown));
    }
}

fn default_class(name: &str, controller: &str) -> Value {
    let mut class = class(name, controller);
    class["metadata"]["annotations"] =
        json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    class
}

fn on_gke() -> Value {
    let mut node = node("node1", &["10.0.0.1"], &[]);
    node["spec"]["providerID"] = json!("gce://project/zone/node1");
    node
}

// Kubernetes, concepts/services-networking/ingress, "Default IngressClass"; GKE,
// concepts/ingress, "GKE Ingress controller behavior".
#[rstest]
#[case::nobody(&[], Controller::Unknown)]
#[case::default_class(&[default_class("a", "ingress.k8s.aws/alb")], Controller::AwsAlb)]
#[case::two_defaults(
    &[default_class("a", "ingress.k8s.aws/alb"), default_class("b", "k8s.io/ingress-nginx")],
    Controller::Unknown
)]
#[case::not_the_default(&[class("a", "ingress.k8s.aws/alb")], Controller::Unknown)]
#[case::gke(&[on_gke()], Controller::Gke)]
#[case::traefik(&[running("kube-system/traefik", "rancher/mirrored-library-traefik:3", json!([]))], Controller::Traefik)]
#[case::traefik_of_a_class(
    &[running("kube-system/traefik", "traefik", json!(["--providers.kubernetesingress.ingressclass=own"]))],
    Controller::Unknown
)]
#[case::nginx_told_so(
    &[running("ingress/nginx", "registry.k8s.io/ingress-nginx/controller:v1", json!(["--watch-ingress-without-class=true"]))],
    Controller::IngressNginx
)]
#[case::nginx(
    &[running("ingress/nginx", "registry.k8s.io/ingress-nginx/controller:v1", json!([]))],
    Controller::Unknown
)]
fn without_a_class(#[case] items: &[Value], #[case] expected: Controller) {
    let items = [&[ingress(None, json!({}))], items].concat();
    assert_eq!(route(&items).controller, expected);
}

#[test]
fn gke_does_not_read_the_field() {
    let by_field = route(&[ingress(Some("gce"), json!({})), on_gke()]);
    assert_eq!(by_field.controller, Controller::Unknown);
    let annotation = json!({"kubernetes.io/ingress.class": "gce"});
    let by_annotation = route(&[ingress(Some("other"), annotation)]);
    assert_eq!(by_annotation.controller, Controller::Gke);
}

fn params(name: &str, spec: Value) -> Value {
    json!({"kind": "IngressClassParams", "metadata": {"name": name}, "spec": spec})
}

fn alb_class(params: &str) -> Value {
    let mut class = class("alb", "ingress.k8s.aws/alb");
    class["spec"]["parameters"] =
        json!({"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": params});
    class
}

fn controller(args: Value) -> Value {
    let image = "public.ecr.aws/eks/aws-load-balancer-controller:v3.0.0";
    running("kube-system/aws-load-balancer-controller", image, args)
}

// AWS load balancer controller, guide/ingress/annotations, "target-type", and
// guide/ingress/ingress_class, "spec.targetType".
#[rstest]
#[case::default(json!({}), json!({}), &[], Delivers::NodePort)]
#[case::instance(json!({TARGET: "instance"}), json!({}), &[], Delivers::NodePort)]
#[case::ip(json!({TARGET: "ip"}), json!({}), &[], Delivers::Pod)]
#[case::the_service_first(json!({TARGET: "instance"}), json!({TARGET: "ip"}), &[], Delivers::Pod)]
#[case::the_class_before(
    json!({TARGET: "instance"}), json!({}),
    &[alb_class("a"), params("a", json!({"targetType": "ip"}))], Delivers::Pod
)]
#[case::the_class_is_silent(
    json!({TARGET: "instance"}), json!({}), &[alb_class("a"), params("a", json!({}))], Delivers::NodePort
)]
#[case::another_class(
    json!({}), json!({}), &[alb_class("a"), params("b", json!({"targetType": "ip"}))], Delivers::NodePort
)]
#[case::the_controllers_default(
    json!({}), json!({}), &[controller(json!(["--default-target-type=ip"]))], Delivers::Pod
)]
#[case::auto_mode(json!({}), json!({}), &[class("alb", "eks.amazonaws.com/alb")], Delivers::Pod)]
#[case::auto_mode_instance(
    json!({TARGET: "instance"}), json!({}), &[class("alb", "eks.amazonaws.com/alb")], Delivers::NodePort
)]
#[case::no_such_type(json!({TARGET: "lambda"}), json!({}), &[], Delivers::Unknown)]
fn where_an_alb_delivers(
    #[case] of_ingress: Value,
    #[case] of_service: Value,
    #[case] items: &[Value],
    #[case] expected: Delivers,
) {
    let own = [
        ingress(Some("alb"), of_ingress),
        web("NodePort", of_service),
    ];
    let route = route(&[&own, items].concat());
    assert_eq!(route.places, outside(expected));
}

// The same, "`instance` mode … service must be of type NodePort or LoadBalancer".
#[rstest]
#[case::cluster_ip("ClusterIP", json!({}), "instance", true)]
#[case::node_port("NodePort", json!({}), "instance", false)]
#[case::load_balancer("LoadBalancer", json!({}), "instance", false)]
#[case::without_node_ports("LoadBalancer", json!({"allocateLoadBalancerNodePorts": false}), "instance", true)]
#[case::pods("ClusterIP", json!({}), "ip", false)]
fn an_alb_needs_node_ports(
    #[case] kind: &str,
    #[case] spec: Value,
    #[case] target: &str,
    #[case] expected: bool,
) {
    let mut web = web(kind, json!({}));
    overlay(&mut web["spec"], spec);
    let items = [ingress(Some("alb"), json!({TARGET: target})), web];
    let (routes, findings) = routes(&whole(&items));
    let finding = Finding::TargetNeedsNodePort {
        by: "Ingress shop/web".to_owned(),
        service: "shop/web".to_owned(),
    };
    assert_eq!(findings.contains(&finding), expected);
    let is_nothing = routes
        .iter()
        .any(|it| it.places == outside(Delivers::Nothing));
    assert_eq!(is_nothing, expected);
}

// Elastic Load Balancing, application/x-forwarded-headers.
#[rstest]
#[case::default(json!({}), &[], XFF)]
#[case::append(json!({ATTRIBUTES: "routing.http.xff_header_processing.mode=append"}), &[], XFF)]
#[case::preserve(
    json!({ATTRIBUTES: "idle_timeout.timeout_seconds=60, routing.http.xff_header_processing.mode=preserve"}),
    &[], &[]
)]
#[case::remove(json!({ATTRIBUTES: "routing.http.xff_header_processing.mode=remove"}), &[], &[])]
#[case::by_class(
    json!({}),
    &[alb_class("a"), params("a", json!({"loadBalancerAttributes": [
        {"key": "routing.http.xff_header_processing.mode", "value": "remove"},
    ]}))],
    &[]
)]
fn what_an_alb_adds(#[case] annotations: Value, #[case] items: &[Value], #[case] adds: &[Carrier]) {
    let route = route(&[&[ingress(Some("alb"), annotations)], items].concat());
    assert_eq!(route.adds, adds);
    assert_eq!(route.appends, !adds.is_empty());
}

#[test]
fn an_alb_before_nginx_is_a_load_balancer() {
    let mut alb = ingress(Some("alb"), json!({TARGET: "ip"}));
    alb["metadata"] = json!({"namespace": "ingress", "name": "alb", "annotations": {TARGET: "ip"}});
    alb["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("nginx");
    let image = "registry.k8s.io/ingress-nginx/controller:v1";
    let items = [
        alb,
        ingress(Some("nginx"), json!({})),
        running("ingress/nginx", image, json!([])),
        service_of("ClusterIP", "ingress/nginx", "nginx"),
    ];
    let (routes, _) = routes(&whole(&items));
    let fronts = fronts(&routes);
    let before = fronts
        .get(&service_ref("ingress", "nginx"))
        .expect("the ALB");
    assert_eq!((before.system, before.keeps), (System::AwsAlb, Keeps::Own));
    let through = routes
        .iter()
        .find(|it| it.controller == Controller::IngressNginx);
    let through = through.expect("a way through nginx");
    let expected = Finding::ForwardedHeaderOverwritten {
        by: "ingress-nginx".to_owned(),
        before: "aws-alb".to_owned(),
    };
    assert_eq!(mismatches(through, Some(before)), [expected]);
    assert_eq!(fronts.len(), 1);
}

// GKE, how-to/container-native-load-balancing.
#[rstest]
#[case::group("gce", json!({"cloud.google.com/neg": "{\"ingress\": true}"}), false, Delivers::Pod)]
#[case::declined("gce", json!({"cloud.google.com/neg": "{\"ingress\": false}"}), false, Delivers::NodePort)]
#[case::exposed("gce", json!({"cloud.google.com/neg": "{\"exposed_ports\": {\"80\": {}}}"}), false, Delivers::NodePort)]
#[case::not_json("gce", json!({"cloud.google.com/neg": "true"}), false, Delivers::NodePort)]
#[case::as_the_cluster_has_it("gce", json!({}), true, Delivers::NodePort)]
#[case::not_there_yet("gce", json!({}), false, Delivers::Unknown)]
#[case::internal("gce-internal", json!({}), false, Delivers::Pod)]
fn where_gke_delivers(
    #[case] class: &str,
    #[case] annotations: Value,
    #[case] is_live: bool,
    #[case] expected: Delivers,
) {
    let mut web = web("NodePort", annotations);
    if is_live {
        web["metadata"]["uid"] = json!("1");
    }
    let by_class = json!({"kubernetes.io/ingress.class": class});
    let route = route(&[ingress(None, by_class), web]);
    assert_eq!(route.places, outside(expected));
    assert_eq!(route.adds, XFF);
}

fn traefik(args: Value) -> Route {
    route(&[
        ingress(Some("traefik"), json!({})),
        running("kube-system/traefik", "docker.io/traefik:v3.5", args),
        service_of("LoadBalancer", "kube-system/traefik", "traefik"),
    ])
}

// Traefik, reference/install-configuration/entrypoints.
#[rstest]
#[case::default(json!([]), &[], false)]
#[case::insecure(json!(["--entryPoints.web.forwardedHeaders.insecure"]), XFF, true)]
#[case::insecure_off(json!(["--entryPoints.web.forwardedHeaders.insecure=false"]), &[], false)]
#[case::trusted(json!(["--entrypoints.web.forwardedheaders.trustedips=10.0.0.0/8"]), XFF, true)]
#[case::proxied(json!(["--entrypoints.web.proxyprotocol.trustedips=10.0.0.0/8"]), PROXY, false)]
#[case::proxied_by_all(json!(["--entrypoints.web.proxyProtocol.insecure=true"]), PROXY, false)]
fn what_traefik_believes(#[case] args: Value, #[case] believes: &[Carrier], #[case] appends: bool) {
    let route = traefik(args);
    assert_eq!((&*route.believes, route.appends), (believes, appends));
    assert_eq!((&*route.adds, route.to_pods), (XFF, true));
    let service = service_ref("kube-system", "traefik");
    assert_eq!(route.places, [Place::Behind { service }]);
}

#[test]
fn traefik_is_set_by_its_environment_too() {
    let mut traefik = running("kube-system/traefik", "traefik", json!([]));
    traefik["spec"]["template"]["spec"]["containers"][0]["env"] = json!([
        {"name": "TRAEFIK_ENTRYPOINTS_WEB_FORWARDEDHEADERS_TRUSTEDIPS", "value": "10.0.0.0/8"},
    ]);
    let route = route(&[ingress(Some("traefik"), json!({})), traefik]);
    assert_eq!(route.believes, XFF);
}

#[rstest]
#[case::takes_both(json!(["--entrypoints.web.proxyprotocol.insecure"]), false)]
#[case::from_all(json!(["--entrypoints.web.forwardedheaders.insecure"]), true)]
#[case::from_everywhere(json!(["--entrypoints.web.forwardedheaders.trustedips=0.0.0.0/0"]), true)]
#[case::from_some(json!(["--entrypoints.web.forwardedheaders.trustedips=10.0.0.0/8"]), false)]
fn traefik_needs_no_proxy_header(#[case] args: Value, #[case] is_spoofable: bool) {
    let found = mismatches(&traefik(args), None);
    let spoofable = Finding::ForwardedHeaderSpoofable {
        by: "traefik".to_owned(),
    };
    let expected = is_spoofable.then_some(spoofable);
    assert_eq!(found, Vec::from_iter(expected));
}

// Traefik, reference/routing-configuration/kubernetes/ingress.
#[test]
fn traefik_may_leave_the_choice_to_the_service() {
    let native = json!({"traefik.ingress.kubernetes.io/service.nativelb": "true"});
    let route = route(&[
        ingress(Some("traefik"), json!({})),
        web("ClusterIP", native),
    ]);
    assert!(!route.to_pods);
}

// HAProxy Ingress, configuration/keys, "Forwardfor" and "Proxy protocol".
#[rstest]
#[case::default(json!({}), &[], XFF, false, true)]
#[case::update(json!({"forwardfor": "update"}), &[], XFF, true, true)]
#[case::if_missing(json!({"forwardfor": "ifmissing"}), XFF, XFF, true, true)]
#[case::ignore(json!({"forwardfor": "ignore"}), &[], &[], false, true)]
#[case::proxied(json!({"use-proxy-protocol": "true"}), PROXY, XFF, false, true)]
#[case::upstream(json!({"service-upstream": "true"}), &[], XFF, false, false)]
fn what_haproxy_ingress_does(
    #[case] data: Value,
    #[case] believes: &[Carrier],
    #[case] adds: &[Carrier],
    #[case] appends: bool,
    #[case] to_pods: bool,
) {
    let image = "quay.io/jcmoraisjr/haproxy-ingress:v0.15.0";
    let args = json!(["--configmap=ingress/haproxy"]);
    let route = route(&[
        ingress(Some("haproxy"), json!({})),
        running("ingress/haproxy", image, args),
        object("ConfigMap", "ingress/haproxy", json!({"data": data})),
    ]);
    assert_eq!((&*route.believes, &*route.adds), (believes, adds));
    assert_eq!((route.appends, route.to_pods), (appends, to_pods));
}

// HAProxy Kubernetes Ingress Controller, documentation/annotations.md.
#[rstest]
#[case::default(json!({}), &[], XFF)]
#[case::off(json!({"forwarded-for": "false"}), &[], &[])]
#[case::proxied(json!({"proxy-protocol": "192.168.1.0/24"}), PROXY, XFF)]
#[case::by_header(json!({"src-ip-header": "X-Forwarded-For"}), XFF, XFF)]
#[case::by_another(json!({"src-ip-header": "True-Client-IP"}), &[], XFF)]
fn what_haproxytechs_does(
    #[case] data: Value,
    #[case] believes: &[Carrier],
    #[case] adds: &[Carrier],
) {
    let args = json!(["--configmap=$(POD_NAMESPACE)/haproxy"]);
    let route = route(&[
        ingress(Some("haproxy"), json!({})),
        running(
            "ingress/haproxy",
            "haproxytech/kubernetes-ingress:3.1",
            args,
        ),
        object("ConfigMap", "ingress/haproxy", json!({"data": data})),
    ]);
    assert_eq!(route.provider.as_deref(), Some("haproxytech"));
    assert_eq!((&*route.believes, &*route.adds), (believes, adds));
}

// Cilium, network/servicemesh/ingress-reference, "Source IP Visibility".
#[test]
fn cilium_takes_over_on_every_node() {
    let items = [
        ingress(Some("cilium"), json!({})),
        object(
            "Service",
            "kube-system/cilium-ingress",
            json!({"spec": {"type": "LoadBalancer"}}),
        ),
        object(
            "Service",
            "other/cilium-ingress-web",
            json!({"spec": {"type": "LoadBalancer"}}),
        ),
    ];
    let shared = route(&items);
    let service = service_ref("kube-system", "cilium-ingress");
    assert_eq!(shared.places, [Place::OnEveryNode { service }]);
    assert_eq!((&*shared.adds, shared.appends), (XFF, true));
    let own = object(
        "Service",
        "cilium-ingress-web",
        json!({"spec": {"type": "LoadBalancer"}}),
    );
    let own = route(&[&items[..], &[own]].concat());
    let service = service_ref("shop", "cilium-ingress-web");
    assert_eq!(own.places, [Place::OnEveryNode { service }]);
}

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
    assert_eq!(findings.is_empty(), !adds.is_empty());
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
    let unknown = unknown.map(|class| Finding::ControllerUnknown {
        by: "HTTPRoute shop/web".to_owned(),
        class: class.to_owned(),
    });
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
