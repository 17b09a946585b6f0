//! Who translates on the nodes, and what takes over in the pods.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::plane::{Dataplane, Mesh, Meshed, dataplane, mesh, meshes};
use super::super::{Protocol, ServiceRef};
use super::around::{object, overlay, whole, workload};
use super::{endpoint, pod, service, slice};

fn cilium(data: Value) -> Value {
    object(
        "ConfigMap",
        "kube-system/cilium-config",
        json!({"data": data}),
    )
}

fn agent() -> Value {
    workload("DaemonSet", "kube-system/cilium", json!({}))
}

fn felix(on: Value) -> Value {
    object(
        "FelixConfiguration",
        "/default",
        json!({"spec": {"bpfEnabled": on}}),
    )
}

fn installation(dataplane: &str) -> Value {
    let network = json!({"linuxDataplane": dataplane});
    object(
        "Installation",
        "/default",
        json!({"spec": {"calicoNetwork": network}}),
    )
}

fn calico_node(bpf: &str) -> Value {
    let container = json!({
        "name": "calico-node",
        "env": [{"name": "FELIX_BPFENABLED", "value": bpf}],
    });
    let spec = json!({"containers": [container]});
    workload(
        "DaemonSet",
        "kube-system/calico-node",
        json!({"spec": spec}),
    )
}

fn antrea(document: &str) -> Value {
    let data = json!({"antrea-agent.conf": document});
    object(
        "ConfigMap",
        "kube-system/antrea-config",
        json!({"data": data}),
    )
}

fn with_args(kind: &str, name: &str, args: Value) -> Value {
    let mut workload = workload(kind, name, json!({}));
    workload["spec"]["template"]["spec"]["containers"][0]["args"] = args;
    workload
}

// Cilium, network/kubernetes/kubeproxy-free: what replaces kube-proxy, and the mode, `snat` by
// default.
#[rstest]
#[case::default_mode(&[cilium(json!({"kube-proxy-replacement": "true"}))], Dataplane::CiliumSnat)]
#[case::strict(&[cilium(json!({"kube-proxy-replacement": "strict"}))], Dataplane::CiliumSnat)]
#[case::snat(
    &[cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-mode": "snat"}))],
    Dataplane::CiliumSnat
)]
#[case::dsr(
    &[cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-mode": "dsr"}))],
    Dataplane::CiliumDsr
)]
#[case::hybrid(
    &[cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-mode": "hybrid"}))],
    Dataplane::CiliumHybrid
)]
#[case::older_name(
    &[cilium(json!({"kube-proxy-replacement": "strict", "node-port-mode": "dsr"}))],
    Dataplane::CiliumDsr
)]
#[case::mode_of_the_future(
    &[cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-mode": "other"}))],
    Dataplane::Cilium
)]
#[case::off(
    &[cilium(json!({"kube-proxy-replacement": "false", "bpf-lb-mode": "dsr"})), agent()],
    Dataplane::KubeProxy
)]
#[case::disabled(&[cilium(json!({"kube-proxy-replacement": "disabled"}))], Dataplane::KubeProxy)]
#[case::partial(&[cilium(json!({"kube-proxy-replacement": "partial"}))], Dataplane::KubeProxy)]
#[case::partial_with_node_ports(
    &[cilium(json!({"kube-proxy-replacement": "partial", "enable-node-port": "true"}))],
    Dataplane::CiliumSnat
)]
#[case::probe(&[cilium(json!({"kube-proxy-replacement": "probe"}))], Dataplane::Cilium)]
#[case::only_the_agent(&[agent()], Dataplane::Cilium)]
#[case::by_argument(
    &[with_args(
        "DaemonSet", "kube-system/cilium",
        json!(["--kube-proxy-replacement=true", "--bpf-lb-mode=dsr"])
    )],
    Dataplane::CiliumDsr
)]
// Calico, operations/ebpf/enabling-ebpf; the environment comes first (reference/felix/configuration).
#[case::felix(&[felix(json!(true))], Dataplane::CalicoEbpf)]
#[case::felix_off(&[felix(json!(false))], Dataplane::KubeProxy)]
#[case::felix_unset(&[felix(Value::Null)], Dataplane::KubeProxy)]
#[case::operator(&[installation("BPF")], Dataplane::CalicoEbpf)]
#[case::operator_iptables(&[installation("Iptables")], Dataplane::KubeProxy)]
#[case::environment(&[calico_node("true")], Dataplane::CalicoEbpf)]
#[case::environment_first(&[calico_node("false"), felix(json!(true))], Dataplane::KubeProxy)]
// Antrea, docs/antrea-proxy.md.
#[case::antrea_default(&[antrea("antreaProxy:\n  enable: true\n  proxyAll: false\n")], Dataplane::KubeProxy)]
#[case::antrea_all(&[antrea("antreaProxy:\n  # proxyAll: false\n  proxyAll: true\n")], Dataplane::AntreaNat)]
#[case::antrea_dsr(
    &[antrea("antreaProxy:\n  proxyAll: true # all\n  defaultLoadBalancerMode: \"dsr\"\n")],
    Dataplane::AntreaDsr
)]
#[case::gke(&[workload("DaemonSet", "kube-system/anetd", json!({}))], Dataplane::GkeDataplaneV2)]
#[case::ovn(
    &[workload("DaemonSet", "ovn-kubernetes/ovnkube-node", json!({}))],
    Dataplane::OvnKubernetes
)]
// kube-router, docs/user-guide.md: `--run-service-proxy` is true by default.
#[case::kube_router(&[workload("DaemonSet", "kube-system/kube-router", json!({}))], Dataplane::KubeRouter)]
#[case::kube_router_without(
    &[with_args("DaemonSet", "kube-system/kube-router", json!(["--run-service-proxy=false"]))],
    Dataplane::KubeProxy
)]
#[case::nothing(&[], Dataplane::KubeProxy)]
fn the_dataplane(#[case] items: &[Value], #[case] expected: Dataplane) {
    let found = dataplane(&whole(items));
    assert_eq!(found.what, expected);
    assert!(!found.because.is_empty());
}

fn namespace(metadata: Value) -> Value {
    let mut namespace = json!({"kind": "Namespace", "metadata": {"name": "shop"}});
    overlay(&mut namespace["metadata"], metadata);
    namespace
}

fn labelled(key: &str, value: &str) -> Value {
    namespace(json!({"labels": {key: value}}))
}

/// What takes over in pods of a template, by its metadata, in a namespace.
fn to_come(namespace: Value, metadata: Value) -> Option<Mesh> {
    let web = workload("Deployment", "web", json!({"metadata": metadata}));
    of_web(&[namespace, web]).map(|it| it.found.what)
}

fn of_web(items: &[Value]) -> Option<Meshed> {
    let spec = json!({"clusterIP": "10.96.0.1", "selector": {"app": "web"}});
    let items = [&[service("web", spec)], items].concat();
    meshes(&whole(&items)).remove(&web())
}

fn web() -> ServiceRef {
    ServiceRef {
        namespace: "shop".into(),
        name: "web".into(),
    }
}

// istio, manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml, and
// pkg/kube/inject/inject.go, `injectRequired`.
#[rstest]
#[case::namespace(labelled("istio-injection", "enabled"), json!({}), true)]
#[case::revision(labelled("istio.io/rev", "canary"), json!({}), true)]
#[case::no_label(namespace(json!({})), json!({}), false)]
#[case::disabled(labelled("istio-injection", "disabled"), json!({}), false)]
#[case::pod_declines(
    labelled("istio-injection", "enabled"), json!({"labels": {"sidecar.istio.io/inject": "false"}}), false
)]
#[case::pod_declines_by_annotation(
    labelled("istio-injection", "enabled"), json!({"annotations": {"sidecar.istio.io/inject": "false"}}), false
)]
#[case::label_before_annotation(
    labelled("istio-injection", "enabled"),
    json!({"labels": {"sidecar.istio.io/inject": "true"}, "annotations": {"sidecar.istio.io/inject": "false"}}),
    true
)]
#[case::pod_asks(namespace(json!({})), json!({"labels": {"sidecar.istio.io/inject": "true"}}), true)]
#[case::pod_asks_where_disabled(
    labelled("istio-injection", "disabled"), json!({"labels": {"sidecar.istio.io/inject": "true"}}), false
)]
#[case::the_annotation_alone_does_not_ask(
    namespace(json!({})), json!({"annotations": {"sidecar.istio.io/inject": "true"}}), false
)]
#[case::a_gateway(
    labelled("istio-injection", "enabled"),
    json!({"annotations": {"inject.istio.io/templates": "gateway"}}), false
)]
fn istio_injects(#[case] namespace: Value, #[case] metadata: Value, #[case] expected: bool) {
    let expected = expected.then_some(Mesh::IstioRedirect);
    assert_eq!(to_come(namespace, metadata), expected);
}

// Istio, reference/config/annotations.
#[rstest]
#[case::redirect("REDIRECT", Some(Mesh::IstioRedirect))]
#[case::tproxy("TPROXY", Some(Mesh::IstioTproxy))]
#[case::none("NONE", None)]
fn istio_intercepts(#[case] mode: &str, #[case] expected: Option<Mesh>) {
    let annotations = json!({"annotations": {"sidecar.istio.io/interceptionMode": mode}});
    let found = to_come(labelled("istio-injection", "enabled"), annotations);
    assert_eq!(found, expected);
}

// istio, cni/README.md; linkerd2, pkg/inject/report.go, `disabledByAnnotation`.
#[rstest]
#[case::ambient(labelled("istio.io/dataplane-mode", "ambient"), json!({}), Some(Mesh::IstioAmbient))]
#[case::ambient_but_the_pod(
    labelled("istio.io/dataplane-mode", "ambient"),
    json!({"labels": {"istio.io/dataplane-mode": "none"}}), None
)]
#[case::ambient_pod(
    namespace(json!({})), json!({"labels": {"istio.io/dataplane-mode": "ambient"}}),
    Some(Mesh::IstioAmbient)
)]
#[case::linkerd(
    namespace(json!({"annotations": {"linkerd.io/inject": "enabled"}})), json!({}), Some(Mesh::Linkerd)
)]
#[case::linkerd_pod(
    namespace(json!({})), json!({"annotations": {"linkerd.io/inject": "enabled"}}), Some(Mesh::Linkerd)
)]
#[case::linkerd_but_the_pod(
    namespace(json!({"annotations": {"linkerd.io/inject": "enabled"}})),
    json!({"annotations": {"linkerd.io/inject": "disabled"}}), None
)]
fn other_meshes(#[case] namespace: Value, #[case] metadata: Value, #[case] expected: Option<Mesh>) {
    assert_eq!(to_come(namespace, metadata), expected);
}

#[rstest]
#[case::istio(json!({"labels": {"istio-injection": "enabled"}}))]
#[case::ambient(json!({"labels": {"istio.io/dataplane-mode": "ambient"}}))]
#[case::linkerd(json!({"annotations": {"linkerd.io/inject": "enabled"}}))]
fn none_in_the_nodes_network(#[case] metadata: Value) {
    let spec = json!({"spec": {"hostNetwork": true}});
    let web = workload("Deployment", "web", spec);
    assert_eq!(of_web(&[namespace(metadata), web]), None);
}

/// A Pod that the API server has, with a second container.
fn live(name: &str, container: Value, metadata: Value) -> Value {
    let containers = json!([{"name": "web"}, container]);
    let mut pod = pod(
        name,
        "node1",
        "10.244.1.5",
        json!({"containers": containers}),
        Value::Null,
    );
    overlay(
        &mut pod["metadata"],
        json!({"uid": name, "labels": {"app": "web"}}),
    );
    overlay(&mut pod["metadata"], metadata);
    pod
}

#[rstest]
#[case::istio(json!({"name": "istio-proxy", "args": ["proxy", "sidecar"]}), Some(Mesh::IstioRedirect))]
#[case::tproxy(
    json!({"name": "istio-proxy", "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"}]}),
    Some(Mesh::IstioTproxy)
)]
#[case::istio_gateway(json!({"name": "istio-proxy", "args": ["proxy", "router"]}), None)]
#[case::linkerd(json!({"name": "linkerd-proxy"}), Some(Mesh::Linkerd))]
#[case::nothing(json!({"name": "other"}), None)]
fn a_live_pod_has_what_is_in_it(#[case] container: Value, #[case] expected: Option<Mesh>) {
    // What the namespace would bring came too late for it.
    let namespace = labelled("istio-injection", "enabled");
    let found = of_web(&[namespace, live("web-1", container, json!({}))]);
    assert_eq!(found.map(|it| it.found.what), expected);
}

#[test]
fn ambient_marks_the_pods_that_it_took() {
    let marked = json!({"annotations": {"ambient.istio.io/redirection": "enabled"}});
    let found = of_web(&[live("web-1", json!({"name": "other"}), marked)]);
    assert_eq!(found.map(|it| it.found.what), Some(Mesh::IstioAmbient));
}

#[test]
fn a_sidecar_may_be_an_init_container() {
    let sidecar = json!({"name": "istio-proxy", "restartPolicy": "Always"});
    let mut pod = live("web-1", json!({"name": "other"}), json!({}));
    pod["spec"]["initContainers"] = json!([sidecar]);
    assert!(of_web(&[pod]).is_some());
}

// Istio, reference/config/annotations; Linkerd, reference/proxy-configuration.
#[rstest]
#[case::all(json!({}), &[80, 443], &[])]
#[case::excluded(
    json!({"traffic.sidecar.istio.io/excludeInboundPorts": "80, 9000-9010"}), &[443, 8999], &[80, 9005]
)]
#[case::included(json!({"traffic.sidecar.istio.io/includeInboundPorts": "80"}), &[80], &[443])]
#[case::included_all(json!({"traffic.sidecar.istio.io/includeInboundPorts": "*"}), &[80], &[])]
#[case::included_none(json!({"traffic.sidecar.istio.io/includeInboundPorts": ""}), &[], &[80])]
#[case::no_ports(json!({"traffic.sidecar.istio.io/excludeInboundPorts": "x,-,99999"}), &[80], &[])]
fn ports_are_spared(#[case] annotations: Value, #[case] taken: &[u16], #[case] spared: &[u16]) {
    let metadata = json!({"annotations": annotations});
    let web = workload("Deployment", "web", json!({"metadata": metadata}));
    let found = of_web(&[labelled("istio-injection", "enabled"), web]).expect("a mesh");
    for port in taken {
        assert!(found.takes(Protocol::Tcp, *port).is_some(), "{port}");
        assert!(found.takes(Protocol::Udp, *port).is_none(), "{port}");
    }
    for port in spared {
        assert!(found.takes(Protocol::Tcp, *port).is_none(), "{port}");
    }
}

#[test]
fn linkerd_skips_ports_of_the_namespace() {
    let annotations = json!({"annotations": {
        "linkerd.io/inject": "enabled", "config.linkerd.io/skip-inbound-ports": "25,80",
    }});
    let web = workload("Deployment", "web", json!({}));
    let found = of_web(&[namespace(annotations), web]).expect("a mesh");
    assert!(found.takes(Protocol::Tcp, 80).is_none());
    assert!(found.takes(Protocol::Tcp, 81).is_some());
}

#[test]
fn some_pods_are_told_from_all() {
    let with = |name| live(name, json!({"name": "linkerd-proxy"}), json!({}));
    let without = live("web-9", json!({"name": "other"}), json!({}));
    let all = of_web(&[with("web-1"), with("web-2")]).expect("a mesh");
    assert!(all.in_all_pods);
    let some = of_web(&[without, with("web-1")]).expect("a mesh");
    assert!(!some.in_all_pods);
}

#[rstest]
#[case::alike("REDIRECT", json!({}), json!({}), Mesh::IstioRedirect, true)]
#[case::other_mesh("TPROXY", json!({}), json!({}), Mesh::IstioRedirect, false)]
#[case::other_ports(
    "REDIRECT",
    json!({"traffic.sidecar.istio.io/excludeInboundPorts": "80"}),
    json!({}),
    Mesh::IstioRedirect,
    false
)]
#[case::the_same_ports(
    "REDIRECT",
    json!({"traffic.sidecar.istio.io/excludeInboundPorts": "443"}),
    json!({"traffic.sidecar.istio.io/excludeInboundPorts": "443"}),
    Mesh::IstioRedirect,
    true
)]
fn pods_may_differ(
    #[case] mode: &str,
    #[case] of_one: Value,
    #[case] of_other: Value,
    #[case] what: Mesh,
    #[case] in_all_pods: bool,
) {
    let mode = json!({"annotations": {"sidecar.istio.io/interceptionMode": mode}});
    let sidecar = || json!({"name": "istio-proxy"});
    let mut one = live("web-1", sidecar(), json!({"annotations": of_one}));
    overlay(&mut one["metadata"], mode);
    let other = live("web-2", sidecar(), json!({"annotations": of_other}));
    let found = of_web(&[one, other]).expect("a mesh");
    assert_eq!((found.found.what, found.in_all_pods), (what, in_all_pods));
    // What one of them takes is taken in some pods.
    assert!(found.takes(Protocol::Tcp, 80).is_some());
}

#[test]
fn a_service_without_a_selector_has_the_pods_of_its_endpoints() {
    let items = [
        service("web", json!({"clusterIP": "10.96.0.1"})),
        slice(
            "web",
            "a",
            json!([endpoint("10.244.1.5", "node1", "web-1")]),
        ),
        live("web-1", json!({"name": "linkerd-proxy"}), json!({})),
    ];
    let found = meshes(&whole(&items));
    assert_eq!(
        found.get(&web()).map(|it| it.found.what),
        Some(Mesh::Linkerd)
    );
}

#[test]
fn a_namespace_tells_where_no_workload_does() {
    let found = of_web(&[labelled("istio-injection", "enabled")]);
    assert_eq!(found.map(|it| it.found.what), Some(Mesh::IstioRedirect));
    assert_eq!(of_web(&[namespace(json!({}))]), None);
}

#[test]
fn another_namespace_tells_nothing() {
    let other = json!({"kind": "Namespace", "metadata": {
        "name": "other", "labels": {"istio-injection": "enabled"},
    }});
    assert_eq!(
        of_web(&[other, workload("Deployment", "web", json!({}))]),
        None
    );
    assert!(mesh(&ObjectMeta::default(), &PodSpec::default(), None).is_none());
}
