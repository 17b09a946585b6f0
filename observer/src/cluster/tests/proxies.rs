//! Ways through ingress-nginx, and what does not fit before it.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::ServiceRef;
use super::super::finding::{Finding, Reason};
use super::super::front::{Carrier, Delivers, Keeps, LoadBalancer, System};
use super::super::proxy::{
    Controller, HeaderReader, Place, Route, mismatches, places_before, readers, routes,
};
use super::around::{object, overlay, whole, workload};

pub(super) fn service_ref(namespace: &str, name: &str) -> ServiceRef {
    ServiceRef {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// An Ingress that leads to `shop/web`, port 80.
pub(super) fn ingress(class: Option<&str>, annotations: Value) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let mut ingress = object(
        "Ingress",
        "web",
        json!({
            "metadata": {"annotations": annotations},
            "spec": {"rules": [{"http": {"paths": [path]}}]},
        }),
    );
    if let Some(class) = class {
        ingress["spec"]["ingressClassName"] = json!(class);
    }
    ingress
}

pub(super) fn class(name: &str, controller: &str) -> Value {
    json!({
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": controller},
    })
}

/// The only way of these objects.
pub(super) fn route(items: &[Value]) -> Route {
    let (mut routes, _) = routes(&whole(items));
    assert_eq!(routes.len(), 1, "{routes:?}");
    routes.remove(0)
}

pub(super) fn service_of(kind: &str, name: &str, app: &str) -> Value {
    object(
        "Service",
        name,
        json!({
            "spec": {
                "type": kind,
                "selector": {"app": app},
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }),
    )
}

/// ingress-nginx as its manifests have it.
fn nginx(spec: Value) -> Value {
    let mut nginx = workload("Deployment", "ingress/nginx", json!({"spec": spec}));
    overlay(
        &mut nginx["spec"]["template"]["spec"]["containers"][0],
        json!({
            "image": "registry.k8s.io/ingress-nginx/controller:v1.15.1@sha256:594c",
            "args": [
                "/nginx-ingress-controller",
                "--controller-class=k8s.io/ingress-nginx",
                "--configmap=$(POD_NAMESPACE)/settings",
            ],
        }),
    );
    nginx
}

fn settings(data: Value) -> Value {
    object("ConfigMap", "ingress/settings", json!({"data": data}))
}

/// A way through ingress-nginx with these settings, behind a load balancer.
fn with(data: Value) -> Route {
    route(&[
        ingress(Some("nginx"), json!({})),
        class("nginx", "k8s.io/ingress-nginx"),
        nginx(json!({})),
        service_of("LoadBalancer", "ingress/nginx", "nginx"),
        settings(data),
    ])
}

const XFF: &[Carrier] = &[Carrier::XForwardedFor];
const PROXY: &[Carrier] = &[Carrier::ProxyV1, Carrier::ProxyV2];
const BOTH: &[Carrier] = &[Carrier::XForwardedFor, Carrier::ProxyV1, Carrier::ProxyV2];

// ingress-nginx, user-guide/nginx-configuration/configmap, and
// rootfs/etc/nginx/template/nginx.tmpl.
#[rstest]
#[case::defaults(json!({}), &[], false)]
#[case::forwarded(json!({"use-forwarded-headers": "true"}), XFF, false)]
#[case::forwarded_off(json!({"use-forwarded-headers": "false"}), &[], false)]
#[case::real_ip(json!({"enable-real-ip": "true"}), XFF, false)]
#[case::proxied(json!({"use-proxy-protocol": "true"}), PROXY, false)]
#[case::proxied_with_real_ip(
    json!({"use-proxy-protocol": "true", "enable-real-ip": "true"}), PROXY, false
)]
#[case::both(json!({"use-proxy-protocol": "true", "use-forwarded-headers": "true"}), BOTH, false)]
#[case::full(
    json!({"use-forwarded-headers": "true", "compute-full-forwarded-for": "true"}), XFF, true
)]
#[case::full_alone(json!({"compute-full-forwarded-for": "true"}), &[], false)]
#[case::another_header(
    json!({"use-forwarded-headers": "true", "forwarded-for-header": "CF-Connecting-IP"}), &[], false
)]
#[case::as_go_reads_it(json!({"use-forwarded-headers": "T"}), XFF, false)]
fn what_nginx_believes(#[case] data: Value, #[case] believes: &[Carrier], #[case] appends: bool) {
    let route = with(data);
    assert_eq!(route.controller, Controller::IngressNginx);
    assert_eq!((&*route.believes, route.appends), (believes, appends));
    assert_eq!(route.adds, XFF);
    assert!(route.to_pods);
    assert_eq!(
        route.config_map,
        Some(("ingress".to_owned(), "settings".to_owned()))
    );
}

/// By the Service that clients come by; of settings that are not there nothing is known.
#[rstest]
#[case::defaults(Some(json!({})), Some((false, false)))]
#[case::proxied(Some(json!({"use-proxy-protocol": "true"})), Some((true, true)))]
#[case::off(Some(json!({"use-proxy-protocol": "false"})), Some((false, false)))]
#[case::missing(None, None)]
fn what_nginx_makes_of_a_proxy_header(
    #[case] data: Option<Value>,
    #[case] expected: Option<(bool, bool)>,
) {
    let mut items = vec![
        ingress(Some("nginx"), json!({})),
        class("nginx", "k8s.io/ingress-nginx"),
        nginx(json!({})),
        service_of("LoadBalancer", "ingress/nginx", "nginx"),
    ];
    items.extend(data.map(settings));
    let readers = readers(&whole(&items));
    let told = readers.iter().map(|reader| {
        let HeaderReader {
            namespace,
            name,
            who,
            reads,
            demands,
        } = reader;
        assert_eq!(
            (&**namespace, &**name, &**who),
            ("ingress", "nginx", "ingress-nginx")
        );
        (*reads, *demands)
    });
    assert_eq!(told.collect::<Vec<_>>(), Vec::from_iter(expected));
}

fn found(data: Value) -> Vec<Finding> {
    let items = [
        ingress(Some("nginx"), json!({})),
        nginx(json!({})),
        settings(data),
    ];
    routes(&whole(&items)).1
}

#[rstest]
#[case::full(
    json!({"compute-full-forwarded-for": "true"}),
    Some(("compute-full-forwarded-for", Reason::NeedsUseForwardedHeaders))
)]
#[case::trusted(
    json!({"proxy-real-ip-cidr": "10.0.0.0/8"}),
    Some(("proxy-real-ip-cidr", Reason::NeedsForwardedHeadersOrProxyProtocol))
)]
#[case::read(json!({"proxy-real-ip-cidr": "10.0.0.0/8", "use-proxy-protocol": "true"}), None)]
fn settings_that_nothing_reads(#[case] data: Value, #[case] expected: Option<(&str, Reason)>) {
    let expected = expected.map(|(name, why)| Finding::SettingIgnored {
        object: "ConfigMap ingress/settings".to_owned(),
        name: name.to_owned(),
        why,
    });
    assert_eq!(found(data), Vec::from_iter(expected));
}

#[test]
fn a_value_that_is_none() {
    let expected = Finding::ValueNotUnderstood {
        object: "ConfigMap ingress/settings".to_owned(),
        name: "use-proxy-protocol".to_owned(),
        value: "yes".to_owned(),
    };
    assert_eq!(found(json!({"use-proxy-protocol": "yes"})), [expected]);
}

// ingress-nginx, user-guide/nginx-configuration/annotations, "Service Upstream".
#[rstest]
#[case::by_default(json!({}), json!({}), true)]
#[case::by_ingress(json!({"nginx.ingress.kubernetes.io/service-upstream": "true"}), json!({}), false)]
#[case::by_config(json!({}), json!({"service-upstream": "true"}), false)]
#[case::ingress_first(
    json!({"nginx.ingress.kubernetes.io/service-upstream": "false"}),
    json!({"service-upstream": "true"}),
    true
)]
fn the_upstream(#[case] annotations: Value, #[case] data: Value, #[case] to_pods: bool) {
    let items = [
        ingress(Some("nginx"), annotations),
        nginx(json!({})),
        settings(data),
    ];
    assert_eq!(route(&items).to_pods, to_pods);
}

// ingress-nginx, user-guide/tls, "SSL Passthrough": the flag is needed too.
#[rstest]
#[case::with_the_flag(true, &[])]
#[case::without(false, XFF)]
fn what_passes_encrypted_has_no_header(#[case] has_flag: bool, #[case] adds: &[Carrier]) {
    let passes = json!({"nginx.ingress.kubernetes.io/ssl-passthrough": "true"});
    let mut nginx = nginx(json!({}));
    if has_flag {
        let args = &mut nginx["spec"]["template"]["spec"]["containers"][0]["args"];
        *args = json!(["--enable-ssl-passthrough"]);
    }
    assert_eq!(route(&[ingress(Some("nginx"), passes), nginx]).adds, adds);
}

fn behind(name: &str) -> Place {
    Place::Behind {
        service: service_ref("ingress", name),
    }
}

fn with_host_port() -> Value {
    let mut nginx = nginx(json!({}));
    nginx["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80, "hostPort": 80}]);
    nginx
}

/// The Service of its admission webhook has the same pods.
fn webhook() -> Value {
    object(
        "Service",
        "ingress/nginx-admission",
        json!({
            "spec": {"selector": {"app": "nginx"}, "ports": [{"port": 443, "targetPort": "webhook"}]},
        }),
    )
}

// ingress-nginx, deploy/baremetal.
#[rstest]
#[case::host_network(&[nginx(json!({"hostNetwork": true}))], &[Place::OnNodes { host_network: true }])]
#[case::host_port(&[with_host_port()], &[Place::OnNodes { host_network: false }])]
#[case::node_port(
    &[nginx(json!({})), service_of("NodePort", "ingress/nginx", "nginx"), webhook()],
    &[behind("nginx")]
)]
#[case::both_ways(
    &[nginx(json!({"hostNetwork": true})), service_of("LoadBalancer", "ingress/nginx", "nginx")],
    &[Place::OnNodes { host_network: true }, behind("nginx")]
)]
#[case::two_services(
    &[
        nginx(json!({})), service_of("LoadBalancer", "ingress/inside", "nginx"),
        service_of("LoadBalancer", "ingress/outside", "nginx"),
    ],
    &[behind("inside"), behind("outside")]
)]
#[case::only_inside(
    &[nginx(json!({})), service_of("ClusterIP", "ingress/nginx", "nginx"), webhook()],
    &[behind("nginx")]
)]
#[case::another_service(
    &[nginx(json!({})), service_of("NodePort", "ingress/nginx", "other")], &[Place::Unknown]
)]
#[case::another_namespace(
    &[nginx(json!({})), service_of("NodePort", "shop/nginx", "nginx")], &[Place::Unknown]
)]
#[case::no_controller(&[], &[Place::Unknown])]
fn where_nginx_is(#[case] items: &[Value], #[case] expected: &[Place]) {
    let items = [&[ingress(Some("nginx"), json!({}))], items].concat();
    assert_eq!(route(&items).places, expected);
}

#[test]
fn what_comes_before_is_a_service_or_the_nodes() {
    let items = [
        ingress(Some("nginx"), json!({})),
        nginx(json!({"hostNetwork": true})),
        service_of("LoadBalancer", "ingress/nginx", "nginx"),
    ];
    let route = route(&items);
    let before: Vec<_> = places_before(&route).collect();
    let service = service_ref("ingress", "nginx");
    assert_eq!(before, [None, Some(&service)]);
}

#[test]
fn each_class_has_its_controller() {
    let mut other = nginx(json!({"hostNetwork": true}));
    other["metadata"]["name"] = json!("internal");
    let args = &mut other["spec"]["template"]["spec"]["containers"][0]["args"];
    *args = json!([
        "--controller-class",
        "k8s.io/internal-nginx",
        "--configmap=ingress/other"
    ]);
    let mut second = ingress(Some("internal"), json!({}));
    second["metadata"]["name"] = json!("internal");
    let items = [
        ingress(Some("nginx"), json!({})),
        second,
        class("nginx", "k8s.io/ingress-nginx"),
        class("internal", "k8s.io/internal-nginx"),
        nginx(json!({})),
        other,
        settings(json!({"use-proxy-protocol": "true"})),
    ];
    let (routes, findings) = routes(&whole(&items));
    assert!(findings.is_empty(), "{findings:?}");
    let [first, second] = &routes[..] else {
        panic!("two ways: {routes:?}")
    };
    assert_eq!((&*first.believes, &*second.believes), (PROXY, &[][..]));
    assert_eq!(second.controller, Controller::IngressNginx);
    assert_eq!(second.places, [Place::OnNodes { host_network: true }]);
}

#[test]
fn every_backend_is_a_way_once() {
    let backend = |name: &str, port: Value| json!({"service": {"name": name, "port": port}});
    let path = |backend: &Value| json!({"pathType": "Prefix", "backend": backend});
    let named = backend("api", json!({"name": "http"}));
    let web = backend("web", json!({"number": 80}));
    let rule = json!({"http": {"paths": [path(&web), path(&named), path(&web)]}});
    let bucket = json!({"resource": {"apiGroup": "x", "kind": "Bucket", "name": "static"}});
    let rules = json!([rule, {"host": "empty"}, {"http": {"paths": [path(&bucket)]}}]);
    let ingress = object(
        "Ingress",
        "web",
        json!({
            "spec": {
                "ingressClassName": "nginx",
                "defaultBackend": backend("rest", json!({})),
                "rules": rules,
            },
        }),
    );
    let (routes, _) = routes(&whole(&[ingress]));
    let to: Vec<_> = routes
        .iter()
        .map(|it| (it.object(), it.service.to_string(), it.port.as_deref()))
        .collect();
    let by = || "Ingress shop/web".to_owned();
    assert_eq!(
        to,
        [
            (by(), "shop/web".to_owned(), Some("80")),
            (by(), "shop/api".to_owned(), Some("http")),
            (by(), "shop/rest".to_owned(), None),
        ]
    );
}

fn front(system: System, adds: &[Carrier]) -> LoadBalancer {
    LoadBalancer {
        system,
        provider: None,
        delivers: Delivers::NodePort,
        keeps: Keeps::Client,
        adds: adds.to_vec(),
        leaves_out_unhealthy_nodes: None,
        only_nodes: None,
        ports: Vec::new(),
        because: Vec::new(),
    }
}

/// The codes of what does not fit.
fn codes(route: &Route, before: Option<&LoadBalancer>) -> Vec<String> {
    mismatches(route, before)
        .iter()
        .map(|it| json!(it)["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

const V2: &[Carrier] = &[Carrier::ProxyV2];
const READ: &str = "proxy-protocol-not-read";
const SENT: &str = "proxy-protocol-not-sent";
const OVER: &str = "forwarded-header-overwritten";
const SPOOF: &str = "forwarded-header-spoofable";

// Both sides must agree: the PROXY protocol's text, 2; ingress-nginx,
// user-guide/nginx-configuration/configmap, "use-forwarded-headers" and "proxy-real-ip-cidr".
#[rstest]
#[case::nothing(json!({}), &[], &[])]
#[case::proxy_both(json!({"use-proxy-protocol": "true"}), V2, &[])]
#[case::proxy_only_sent(json!({}), V2, &[READ])]
#[case::proxy_only_expected(json!({"use-proxy-protocol": "true"}), &[], &[SENT])]
#[case::header_both(
    json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": "10.0.0.0/8"}), XFF, &[]
)]
#[case::header_only_sent(json!({}), XFF, &[OVER])]
#[case::header_from_anybody(json!({"use-forwarded-headers": "true"}), XFF, &[SPOOF])]
#[case::header_from_clients(json!({"use-forwarded-headers": "true"}), &[], &[SPOOF])]
#[case::some_from_anybody(
    json!({"enable-real-ip": "true", "proxy-real-ip-cidr": "10.0.0.0/8, 0.0.0.0/0"}), XFF, &[SPOOF]
)]
fn what_does_not_fit(#[case] data: Value, #[case] adds: &[Carrier], #[case] expected: &[&str]) {
    let before = front(System::AwsNlb, adds);
    assert_eq!(codes(&with(data), Some(&before)), expected);
}

#[rstest]
#[case::expected(json!({"use-proxy-protocol": "true"}), &["proxy-protocol-nobody-sends"])]
#[case::believed(json!({"use-forwarded-headers": "true"}), &[SPOOF])]
#[case::neither(json!({}), &[])]
fn clients_come_straight(#[case] data: Value, #[case] expected: &[&str]) {
    assert_eq!(codes(&with(data), None), expected);
}

#[rstest]
#[case::not_known_which(System::Unknown, Keeps::Unknown)]
#[case::not_known_how(System::Other, Keeps::Unknown)]
#[case::nobody(System::Nobody, Keeps::Client)]
fn what_is_not_known_does_not_misfit(#[case] system: System, #[case] keeps: Keeps) {
    let before = LoadBalancer {
        keeps,
        ..front(system, &[])
    };
    let route = with(json!({"use-proxy-protocol": "true"}));
    assert_eq!(codes(&route, Some(&before)), [""; 0]);
}

#[test]
fn a_misfit_names_both_sides() {
    let before = front(System::AwsNlb, V2);
    let expected = Finding::ProxyProtocolNotRead {
        by: "aws-nlb".to_owned(),
        reader: "ingress-nginx".to_owned(),
    };
    assert_eq!(mismatches(&with(json!({})), Some(&before)), [expected]);
}
