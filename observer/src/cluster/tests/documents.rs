//! What is read from documents and files, and what is said of those that are something else.

use std::fs;

use insta::assert_snapshot;
use rstest::rstest;

use super::super::{Counts, Objects, file};

fn error(document: &str) -> String {
    let error = Objects::from_list(document.as_bytes()).expect_err("the document is wrong");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn kinds_are_kept_or_counted() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": []},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": null},
        {"apiVersion": "v1", "kind": "Node"},
        {"kind": "Pod"},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    ]}"#;
    let counts = Counts {
        services: 1,
        endpoint_slices: 1,
        nodes: 1,
        pods: 1,
        // The ConfigMap stands around.
        others: 1,
    };
    assert_eq!(
        Objects::from_list(list.as_bytes())
            .expect("it is a List")
            .counts(),
        counts
    );
}

/// What `trace` never read must not stop it now.
#[test]
fn what_stands_around_is_taken_by_its_version_or_counted() {
    let list = r#"{"kind": "List", "items": [
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "b"}, "spec": 7},
        {"apiVersion": "extensions/v1beta1", "kind": "Ingress"},
        {"kind": "Ingress"},
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"rules": [{}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "Gateway"},
        {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "spec": {"addresses": ["198.51.100.0/24"]}},
        {"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement"},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"selector": {}, "template": {}}}
    ]}"#;
    let (objects, passed_over) = Objects::from_list_noting(list.as_bytes()).expect("it is a List");
    assert_eq!(objects.others, 4);
    assert_eq!(
        passed_over,
        ["items[1], Ingress b, does not parse: invalid type: integer `7`, expected IngressSpec"]
    );
    let around = objects.around;
    assert_eq!(around.ingresses.len(), 1);
    assert_eq!(around.routes.len(), 1);
    assert_eq!(around.routes[0].kind, "HTTPRoute");
    assert_eq!(around.ip_address_pools.len(), 1);
    assert_eq!(around.bgp_advertisements.len(), 1);
    assert_eq!(around.daemon_sets.len(), 1);
}

#[rstest]
#[case::no_items(r#"{"kind": "List"}"#)]
#[case::null_items(r#"{"kind": "List", "items": null}"#)]
#[case::byte_order_mark("\u{feff}{\"kind\": \"List\", \"items\": []}")]
#[case::white_space("\n\n {\"items\": [], \"kind\": \"List\"} \n")]
fn an_empty_list_is_a_list(#[case] document: &str) {
    assert_eq!(
        Objects::from_list(document.as_bytes()).expect("it is"),
        Objects::default()
    );
}

#[test]
fn errors_are_one_clear_line() {
    let all = [
        "",
        " \n",
        "apiVersion: v1\nitems: []\n",
        "{\"kind\": \"List\",\n \"items\": [",
        r#"{"kind": "List", "items": []} more"#,
        "[]",
        r#"{"kind": "List", "items": {}}"#,
        r#"{"kind": "Deployment", "spec": {"items": []}}"#,
        r#"{"kind": "Odd", "items": [1, {"kind": "Service", "spec": 7}]}"#,
        r#"{"kind": 7}"#,
        r#"{"kind": "A\nB"}"#,
        r#"{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "a\nb"}, "spec": 1}]}"#,
        r#"{"items": []}"#,
        r#"{"kind": "List", "items": [{"kind": "Node"}, {"kind": "Service", "metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [{"port": "http"}]}}]}"#,
        r#"{"kind": "List", "items": [{"kind": "Node", "metadata": {"name": "node1"}, "spec": []}]}"#,
        r#"{"kind": "List", "items": [3]}"#,
    ];
    let all: Vec<_> = all.into_iter().map(error).collect();
    let expected = "expected a List as `kubectl get services,endpointslices,nodes,pods,configmaps -A -o json` prints it";
    assert_snapshot!(all.join("\n").replace(expected, "EXPECTED"), @r#"
    is empty; EXPECTED
    is empty; EXPECTED
    is not JSON: expected value at line 1 column 1; EXPECTED
    is not JSON: EOF while parsing a list at line 2 column 11; EXPECTED
    is not JSON: trailing characters at line 1 column 31; EXPECTED
    is not a List: invalid type: sequence, expected an object of kind List at line 1 column 2; EXPECTED
    is not a List: invalid type: map, expected a list of items at line 1 column 28; EXPECTED
    kind is Deployment; EXPECTED
    kind is Odd; EXPECTED
    kind is 7; EXPECTED
    kind is A\nB; EXPECTED
    items[0], Pod a\nb, does not parse: invalid type: integer `1`, expected PodSpec
    has no kind; EXPECTED
    items[1], Service shop/web, does not parse: invalid type: string "http", expected i32
    items[0], Node node1, does not parse: invalid type: sequence, expected NodeSpec
    items[0], an object without a name, does not parse: it has no kind
    "#);
}

#[test]
fn bytes_that_are_no_text_are_not_json() {
    let error = Objects::from_list(b"{\"kind\": \"\xff\xfe\"}").expect_err("no text");
    assert!(error.to_string().starts_with("is not JSON"), "{error}");
}

#[test]
fn files() {
    let directory = std::env::temp_dir().join(format!("observer-files-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("state.json");
    let read = || file::objects(&path).map(|objects| objects.counts().others);

    let missing = read().expect_err("missing").to_string();
    fs::write(&path, "").expect("a file");
    let empty = read().expect_err("empty").to_string();
    fs::write(&path, r#"{"kind": "List", "items": [{"kind": "Secret"}]}"#).expect("a file");
    assert_eq!(read().expect("a List"), 1);
    let not_a_file = file::objects(&directory)
        .expect_err("a directory")
        .to_string();
    fs::remove_dir_all(&directory).expect("removed");

    let shown = [missing, empty, not_a_file].join("\n");
    assert_snapshot!(shown.replace(&directory.display().to_string(), "DIR"), @r"
    cluster state DIR/state.json: cannot be read: No such file or directory (os error 2)
    cluster state DIR/state.json: is empty; expected a List as `kubectl get services,endpointslices,nodes,pods,configmaps -A -o json` prints it
    cluster state DIR: cannot be read: Is a directory (os error 21)
    ");
}
