//! What Pods tell of the proxies in them, without all that stands around.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use rstest::rstest;
use serde_json::{Value, json};

use super::super::Index;
use super::super::proxy::{PodProxy, behind_doors};
use super::proxies::service_ref;
use super::{objects, service};

fn pod(image: &str, args: &[&str]) -> Pod {
    let pod = json!({
        "metadata": {"namespace": "ingress", "name": "proxy-0"},
        "spec": {"containers": [{"name": "proxy", "image": image, "args": args}]},
    });
    serde_json::from_value(pod).expect("a Pod")
}

fn config_map(data: Value) -> ConfigMap {
    serde_json::from_value(json!({"data": data})).expect("a ConfigMap")
}

const NGINX: &str = "registry.k8s.io/ingress-nginx/controller:v1.15.1@sha256:594c";
const HAPROXY: &str = "quay.io/jcmoraisjr/haproxy-ingress:v0.15.0";
const TECH: &str = "haproxytech/kubernetes-ingress:3.1";

// The documents that `cluster/proxy/nginx.rs` and `haproxy.rs` name.
#[rstest]
#[case::nginx(NGINX, json!({}), "ingress-nginx", (false, false))]
#[case::nginx_expects(NGINX, json!({"use-proxy-protocol": "true"}), "ingress-nginx", (true, true))]
#[case::nginx_as_go(NGINX, json!({"use-proxy-protocol": "T"}), "ingress-nginx", (true, true))]
#[case::nginx_broken(NGINX, json!({"use-proxy-protocol": "yes"}), "ingress-nginx", (false, false))]
#[case::haproxy(HAPROXY, json!({}), "haproxy", (false, false))]
#[case::haproxy_expects(HAPROXY, json!({"use-proxy-protocol": "true"}), "haproxy", (true, true))]
#[case::tech(TECH, json!({}), "haproxytech", (false, false))]
#[case::tech_of_some(TECH, json!({"proxy-protocol": "10.0.0.0/8"}), "haproxytech", (true, false))]
fn by_the_config_map_that_its_arguments_name(
    #[case] image: &str,
    #[case] data: Value,
    #[case] who: &str,
    #[case] expected: (bool, bool),
) {
    let proxy = PodProxy::of(pod(image, &["--configmap=$(POD_NAMESPACE)/settings"]));
    let proxy = proxy.expect("a proxy");
    let name = ("ingress".to_owned(), "settings".to_owned());
    assert_eq!(proxy.config_map(), Some(&name));
    assert_eq!(proxy.expects(None), None);
    let expects = proxy.expects(Some(&config_map(data))).expect("known");
    let reader = proxy.reader(&service_ref("ingress", "nginx"), expects);
    assert_eq!((&*reader.namespace, &*reader.name), ("ingress", "nginx"));
    assert_eq!(reader.who, who);
    assert_eq!((reader.reads, reader.demands), expected);
}

// Traefik, reference/install-configuration/entrypoints: who has no header is served all the same.
#[rstest]
#[case::trusts(
    &["--entryPoints.web.address=:80", "--entryPoints.web.proxyProtocol.trustedIPs=10.0.0.0/8"],
    Some(true)
)]
#[case::trusts_nobody(&["--entryPoints.web.address=:80"], Some(false))]
#[case::set_up_by_a_file(&["--configFile=/etc/traefik/traefik.yaml"], None)]
#[case::nothing_said(&[], None)]
fn traefik_by_its_own_arguments(#[case] args: &[&str], #[case] reads: Option<bool>) {
    let proxy = PodProxy::of(pod("traefik:v3.4", args));
    let reader = proxy.map(|proxy| {
        assert_eq!(proxy.config_map(), None);
        let expects = proxy.expects(None).expect("known");
        proxy.reader(&service_ref("kube-system", "traefik"), expects)
    });
    let told = reader.map(|reader| {
        assert_eq!((&*reader.who, reader.demands), ("traefik", false));
        reader.reads
    });
    assert_eq!(told, reads);
}

#[rstest]
#[case::another("nginx:1.27", &["--configmap=ingress/settings"])]
#[case::without_settings(NGINX, &["--ingress-class=nginx"])]
#[case::settings_without_a_namespace(NGINX, &["--configmap=settings"])]
// No ConfigMap can be called that.
#[case::two_names(NGINX, &["--configmap=a/b,c"])]
#[case::a_path(NGINX, &["--configmap=../secrets"])]
#[case::two_paths(NGINX, &["--configmap=a/b/c"])]
#[case::a_space(NGINX, &["--configmap=a b/c"])]
#[case::two_lines(NGINX, &["--configmap=a/b\nc"])]
#[case::without_a_name(NGINX, &["--configmap=a/"])]
#[case::escaped(NGINX, &["--configmap=a%2fb/c"])]
fn of_others_nothing_is_known(#[case] image: &str, #[case] args: &[&str]) {
    assert_eq!(PodProxy::of(pod(image, args)), None);
}

// `apimachinery`, `DNS1123LabelMaxLength` and `DNS1123SubdomainMaxLength`.
#[rstest]
#[case::the_longest(63, 253, true)]
#[case::of_a_namespace(64, 253, false)]
#[case::of_a_config_map(63, 254, false)]
fn a_name_has_a_greatest_length(
    #[case] namespace: usize,
    #[case] name: usize,
    #[case] is_known: bool,
) {
    let argument = format!("--configmap={}/{}", "a".repeat(namespace), "b".repeat(name));
    assert_eq!(PodProxy::of(pod(NGINX, &[&argument])).is_some(), is_known);
}

/// A Service of namespace `shop` with one port, and what is behind it.
fn led(name: &str, kind: &str, port: (&str, u16), targets: &[Value]) -> [Value; 2] {
    let (port, number) = port;
    let spec = json!({
        "type": kind, "clusterIP": format!("10.96.0.{}", name.len()),
        "ports": [{"name": port, "port": number}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": port, "port": 80}],
        "endpoints": targets,
    });
    [service(name, spec), slice]
}

fn target(address: &str, pod: &str, is_ready: bool) -> Value {
    json!({
        "addresses": [address], "conditions": {"ready": is_ready},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
    })
}

#[test]
fn what_clients_outside_come_to_with_requests_is_looked_at() {
    let ready = |address, pod| vec![target(address, pod, true)];
    let of_two = [
        target("10.244.1.1", "not-ready", false),
        target("10.244.1.2", "web-0", true),
    ];
    let items = [
        led("node-port", "NodePort", ("web", 8_000), &of_two),
        led(
            "balanced",
            "LoadBalancer",
            ("", 443),
            &ready("10.244.1.3", "tls-0"),
        ),
        led(
            "inside",
            "ClusterIP",
            ("http", 80),
            &ready("10.244.1.4", "inside-0"),
        ),
        led(
            "metrics",
            "NodePort",
            ("metrics", 9_000),
            &ready("10.244.1.5", "metrics-0"),
        ),
        led("nobody", "NodePort", ("http", 80), &[]),
        led(
            "no-pod-behind-it",
            "NodePort",
            ("http", 80),
            &[json!({"addresses": ["192.0.2.1"]})],
        ),
    ];
    let found = behind_doors(&Index::build(&objects(&items.concat())), |_| false);
    let names: Vec<_> = found
        .iter()
        .map(|(service, pod)| (&*service.name, &*pod.name))
        .collect();
    // Those of load balancers first.
    assert_eq!(names, [("balanced", "tls-0"), ("node-port", "web-0")]);
}

#[test]
fn one_that_is_known_stands_for_its_service_as_long_as_it_stays() {
    let mut leaving = target("10.244.1.3", "leaving", false);
    leaving["conditions"]["terminating"] = json!(true);
    let targets = [
        target("10.244.1.1", "not/a/name", true),
        target("10.244.1.2", "ready", true),
        leaving,
        target("10.244.1.4", "not-ready", false),
    ];
    let items = led("web", "NodePort", ("http", 80), &targets);
    let index = Index::build(&objects(&items));
    for (known, stands) in [
        ("", "ready"),
        ("not-ready", "not-ready"),
        ("leaving", "ready"),
    ] {
        let found = behind_doors(&index, |pod| &*pod.name == known);
        let names: Vec<_> = found.iter().map(|(_, pod)| &*pod.name).collect();
        assert_eq!(names, [stands], "{known}");
    }
}
