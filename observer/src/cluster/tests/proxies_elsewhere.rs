//! Ways through proxies other than ingress-nginx, and whose an Ingress or a Gateway is.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::finding::Finding;
use super::super::front::Carrier;
use super::super::proxy::{Controller, Place, Route, mismatches, routes};
use super::around::{object, overlay, whole, workload};
use super::node;
use super::proxies::{class, ingress, route, service_of, service_ref};

const XFF: &[Carrier] = &[Carrier::XForwardedFor];
const PROXY: &[Carrier] = &[Carrier::ProxyV1, Carrier::ProxyV2];

/// A workload with one container.
pub(super) fn running(name: &str, image: &str, args: Value) -> Value {
    let mut workload = workload("Deployment", name, json!({}));
    let container = &mut workload["spec"]["template"]["spec"]["containers"][0];
    overlay(container, json!({"image": image, "args": args}));
    workload
}

pub(super) fn web(kind: &str, annotations: Value) -> Value {
    let mut web = service_of(kind, "web", "web");
    web["metadata"]["annotations"] = annotations;
    web
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

// HAProxy Ingress, configuration/command-line, "--controller-class".
#[test]
fn each_haproxy_ingress_has_its_own_settings() {
    let image = "quay.io/jcmoraisjr/haproxy-ingress:v0.15.0";
    let controller = "haproxy-ingress.github.io/controller";
    let args = json!(["--configmap=ingress/first"]);
    let other = json!(["--controller-class=other", "--configmap=ingress/other"]);
    let proxied = json!({"data": {"use-proxy-protocol": "true"}});
    let mut second = ingress(Some("other"), json!({}));
    second["metadata"]["name"] = json!("other");
    let items = [
        ingress(Some("first"), json!({})),
        second,
        class("first", controller),
        class("other", &format!("{controller}/other")),
        running("ingress/first", image, args),
        running("ingress/other", image, other),
        object("ConfigMap", "ingress/first", json!({"data": {}})),
        object("ConfigMap", "ingress/other", proxied),
    ];
    let (routes, _) = routes(&whole(&items));
    let believed: Vec<_> = routes.iter().map(|route| &*route.believes).collect();
    assert_eq!(believed, [&[], PROXY]);
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
