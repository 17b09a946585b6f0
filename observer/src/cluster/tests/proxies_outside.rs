//! Ways through load balancers outside the cluster that serve Ingresses.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::finding::Finding;
use super::super::front::{Carrier, Delivers, Keeps, System};
use super::super::proxy::{Controller, Place, fronts, mismatches, routes};
use super::around::{overlay, whole};
use super::proxies::{class, ingress, route, service_of, service_ref};
use super::proxies_elsewhere::{running, web};

const XFF: &[Carrier] = &[Carrier::XForwardedFor];
const TARGET: &str = "alb.ingress.kubernetes.io/target-type";
const ATTRIBUTES: &str = "alb.ingress.kubernetes.io/load-balancer-attributes";

fn outside(delivers: Delivers) -> Vec<Place> {
    vec![Place::Outside { delivers }]
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
