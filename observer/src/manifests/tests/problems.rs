//! Documents, Lists, and what is wrong with them.

use insta::assert_snapshot;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::strategy::Union;
use rstest::rstest;

use super::super::{complete, missing, read};
use super::{objects, source, wrong};
use crate::cluster::Index;

const WEB: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n";

#[rstest]
#[case::one(WEB.to_owned(), 1)]
#[case::two(format!("{WEB}---\n{NODE}"), 2)]
#[case::marked(format!("---\n{WEB}---\n---\n# nothing\n---\n{NODE}---\n"), 2)]
#[case::comments(format!("# one\n\n--- # two\n# three\n{WEB}"), 1)]
#[case::ended(format!("{WEB}...\n# between\n{NODE}...\n"), 2)]
#[case::directive(format!("%YAML 1.2\n---\n{WEB}"), 1)]
#[case::windows(format!("\u{feff}{WEB}---\n{NODE}").replace('\n', "\r\n"), 2)]
#[case::list(r#"{"kind": "List", "apiVersion": "v1", "items": [
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}}]}"#.to_owned(), 2)]
#[case::of_one_kind("kind: NodeList\napiVersion: v1\nitems: [{metadata: {name: a}}]".to_owned(), 1)]
#[case::stream(r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}}"#.to_owned(), 2)]
#[case::tabs("{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"a\"}\n}".to_owned(), 1)]
#[case::flow("{apiVersion: v1, kind: Node, metadata: {name: a}}".to_owned(), 1)]
#[case::anchors("apiVersion: v1\nkind: Node\nmetadata: {name: &n a, labels: {x: *n}}".to_owned(), 1)]
#[case::empty(String::new(), 0)]
fn documents_are_taken_apart_as_kubectl_does(#[case] text: String, #[case] number: usize) {
    let objects = objects(&text);
    assert_eq!(objects.services.len() + objects.nodes.len(), number);
    assert_eq!(objects.others, 0);
}

#[test]
fn what_is_not_read_is_counted() {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: 7\n---\n\
                apiVersion: v1\nkind: Secret\nmetadata: {name: [1]}\n";
    assert_eq!(objects(text).others, 2);
}

#[test]
fn an_object_without_a_namespace_is_in_that_of_the_option() {
    let text = format!("{WEB}---\n{NODE}");
    let objects = read(&[source("it.yaml", &text)], "shop").expect("nothing is wrong");
    let namespace = |of: &Option<String>| of.clone();
    assert_eq!(
        namespace(&objects.services[0].metadata.namespace).as_deref(),
        Some("shop")
    );
    assert_eq!(namespace(&objects.nodes[0].metadata.namespace), None);
}

/// kubectl's library knows YAML 1.1, where these are a boolean and an octal number.
#[test]
fn words_of_old_yaml_mean_what_they_mean_to_kubectl() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: null}\nspec:\n  hostNetwork: yes\n  \
                containers: [{name: a}]\n  volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]\n";
    let pod = &objects(text).pods[0];
    let spec = pod.spec.as_ref().expect("a spec");
    assert_eq!(spec.host_network, Some(true));
    let volumes = spec.volumes.as_ref().expect("volumes");
    let source = volumes[0].config_map.as_ref().expect("a source");
    assert_eq!(source.default_mode, Some(0o644));
}

#[test]
fn broken_documents_do_not_hide_the_next() {
    let text = "kind: [1\n---\na: b: c\n---\n- 1\n---\nkind: Service\n---\napiVersion: v1\n---\n\
                x: \"\n---\na: *b\n---\na: 1\na: 2\n---\nx: {{ .Values.x }}\n---\ny: {{ .Values.y }}\n\
                ---\napiVersion: v1\nkind: Service\n---\nfoo\n";
    assert_snapshot!(wrong(text), @r#"
    it.yaml, document 1, line 1, column 7: is not YAML: unclosed bracket '['
    it.yaml, document 2, line 3, column 5: is not YAML: mapping values are not allowed in this context
    it.yaml, document 3, line 5, column 1: a list is not an object with apiVersion and kind
    it.yaml, document 4, line 7, column 1: has kind Service and no apiVersion
    it.yaml, document 5, line 9, column 1: has no kind; every manifest begins with apiVersion and kind
    it.yaml, document 6, line 11, column 4: is not YAML: unclosed quote
    it.yaml, document 7, line 13, column 4: is not YAML: reference to unknown value
    it.yaml, document 8, line 16, column 1: is not YAML: duplicate mapping key `a` is not allowed here
    it.yaml, document 9, line 18, column 4: is a template (`{{`), not a manifest; render it first: helm template … | observer explain -f -
    it.yaml, document 11, line 22, column 1: Service without a name: metadata.name: is missing
    it.yaml, document 12, line 25, column 1: "foo" is not an object with apiVersion and kind
    "#);
}

#[test]
fn broken_json_is_told_by_line_and_column() {
    assert_snapshot!(wrong("\n{\"kind\": \"List\",\n  oops\n}"), @"it.yaml, document 1, line 3, column 3: is not JSON: key must be a string");
    let list = "{\"kind\": \"List\", \"apiVersion\": \"v1\",\n \"items\": [\n  {\"kind\": \"Node\"},\n  7,\n  \
                {\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {\"name\": 7}}]}";
    assert_snapshot!(wrong(list), @"
    it.yaml, document 1, line 3, column 3: has kind Node and no apiVersion
    it.yaml, document 1, line 4, column 3: 7 is not an object with apiVersion and kind
    it.yaml, document 1, line 5, column 61: Node without a name: metadata.name: 7 is a number; a string is needed: write it in quotes
    ");
}

#[test]
fn values_of_the_wrong_type_are_all_told_with_their_fields() {
    let text = "\
apiVersion: v1
kind: Service
metadata:
  namespace: shop
  name: web
  annotations:
    example.com/on: true
    example.com/size: 7
spec:
  type: [NodePort]
  externalIPs: 203.0.113.7
  ports:
  - name: http
    port: \"80\"
    nodePort: http
  - 8080
  - name: other
    port: 99999999999
    protocol: {is: TCP}
  - name: fraction
    port: 80.5
    targetPort: [80]
";
    assert_snapshot!(wrong(text), @r#"
    it.yaml, document 1, line 7, column 21: Service shop/web: metadata.annotations[example.com/on]: true is a boolean; a string is needed: write it in quotes
    it.yaml, document 1, line 8, column 23: Service shop/web: metadata.annotations[example.com/size]: 7 is a number; a string is needed: write it in quotes
    it.yaml, document 1, line 10, column 9: Service shop/web: spec.type: is a list; a string is needed
    it.yaml, document 1, line 11, column 16: Service shop/web: spec.externalIPs: "203.0.113.7" is a string; a list is needed
    it.yaml, document 1, line 14, column 11: Service shop/web: spec.ports[0].port: "80" is a string; a number is needed: write it without quotes
    it.yaml, document 1, line 15, column 15: Service shop/web: spec.ports[0].nodePort: "http" is a string; a number is needed
    it.yaml, document 1, line 16, column 5: Service shop/web: spec.ports[1]: 8080 is a number; an object is needed
    it.yaml, document 1, line 18, column 11: Service shop/web: spec.ports[2].port: 99999999999 is out of range
    it.yaml, document 1, line 19, column 15: Service shop/web: spec.ports[2].protocol: is an object; a string is needed
    it.yaml, document 1, line 21, column 11: Service shop/web: spec.ports[3].port: 80.5 is a number with a fraction; a whole number is needed
    it.yaml, document 1, line 22, column 17: Service shop/web: spec.ports[3].targetPort: is a list; a number or a string is needed
    "#);
}

#[test]
fn what_the_api_refuses_of_services_is_told() {
    let text = "\
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: Web}
spec:
  externalTrafficPolicy: Local
  internalTrafficPolicy: local
  healthCheckNodePort: 30000
  loadBalancerSourceRanges: [10.0.0.0]
  sessionAffinity: ClientIp
  externalIPs: []
  ports: []
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: ports}
spec:
  type: NodePort
  externalTrafficPolicy: Node
  clusterIP: None
  externalIPs: [127.0.0.1, 169.254.1.1, 0.0.0.0, nowhere, 203.0.113.7]
  ports:
  - {port: 0}
  - {name: a, port: 80, nodePort: 65536, protocol: HTTP}
  - {name: a, port: 80, targetPort: \"8080\"}
  - {name: b, port: 80, targetPort: 99999, nodePort: 30080}
  - {name: c, port: 81, targetPort: a-name-that-is-too-long, nodePort: 30080}
  - {name: d, port: 80, protocol: UDP, nodePort: 30080}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: other}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 30080
  loadBalancerSourceRanges: [' 10.0.0.0/8 ', 10.0.0.0/33, '::/0']
  ports: [{port: 80, nodePort: 30081}]
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: alias}
spec: {type: ExternalName, externalTrafficPolicy: Cluster}
";
    assert_snapshot!(wrong(text), @r#"
    it.yaml, document 1, line 3, column 35: Service shop/Web: metadata.name: "Web": a Service's name has at most 63 characters, a-z, 0-9 and hyphens, and begins with a letter
    it.yaml, document 1, line 5, column 26: Service shop/Web: spec.externalTrafficPolicy: the API refuses it on type ClusterIP without externalIPs, where nobody comes from outside; remove it, or make the type NodePort or LoadBalancer
    it.yaml, document 1, line 6, column 26: Service shop/Web: spec.internalTrafficPolicy: "local" is none of Cluster, Local
    it.yaml, document 1, line 7, column 24: Service shop/Web: spec.healthCheckNodePort: only type LoadBalancer with externalTrafficPolicy Local may have it; remove it
    it.yaml, document 1, line 8, column 29: Service shop/Web: spec.loadBalancerSourceRanges: only a Service of type LoadBalancer may have it; remove it
    it.yaml, document 1, line 8, column 30: Service shop/Web: spec.loadBalancerSourceRanges[0]: "10.0.0.0" is no network such as 192.0.2.0/24
    it.yaml, document 1, line 9, column 20: Service shop/Web: spec.sessionAffinity: "ClientIp" is none of ClientIP, None
    it.yaml, document 1, line 11, column 10: Service shop/Web: spec.ports: is missing; a Service needs at least one port
    it.yaml, document 2, line 18, column 26: Service shop/ports: spec.externalTrafficPolicy: "Node" is none of Cluster, Local
    it.yaml, document 2, line 19, column 14: Service shop/ports: spec.clusterIP: may not be None on type NodePort
    it.yaml, document 2, line 20, column 17: Service shop/ports: spec.externalIPs[0]: "127.0.0.1" is a loopback address; the API refuses it
    it.yaml, document 2, line 20, column 28: Service shop/ports: spec.externalIPs[1]: "169.254.1.1" is a link-local address; the API refuses it
    it.yaml, document 2, line 20, column 41: Service shop/ports: spec.externalIPs[2]: "0.0.0.0" is no address that anything can have
    it.yaml, document 2, line 20, column 50: Service shop/ports: spec.externalIPs[3]: "nowhere" is no address
    it.yaml, document 2, line 22, column 5: Service shop/ports: spec.ports[0].name: is missing; with several ports each needs a name
    it.yaml, document 2, line 22, column 12: Service shop/ports: spec.ports[0].port: 0 is no port; ports go from 1 to 65535
    it.yaml, document 2, line 23, column 35: Service shop/ports: spec.ports[1].nodePort: 65536 is no port; ports go from 1 to 65535
    it.yaml, document 2, line 23, column 52: Service shop/ports: spec.ports[1].protocol: "HTTP" is none of TCP, UDP, SCTP
    it.yaml, document 2, line 24, column 12: Service shop/ports: spec.ports[2].name: "a" is there twice
    it.yaml, document 2, line 24, column 37: Service shop/ports: spec.ports[2].targetPort: "8080": a port's name has at least one letter; a number is written without quotes
    it.yaml, document 2, line 25, column 21: Service shop/ports: spec.ports[3].port: TCP 80 is there twice
    it.yaml, document 2, line 25, column 37: Service shop/ports: spec.ports[3].targetPort: 99999 is no port; ports go from 1 to 65535
    it.yaml, document 2, line 26, column 37: Service shop/ports: spec.ports[4].targetPort: "a-name-that-is-too-long": a port's name has at most 15 characters
    it.yaml, document 2, line 26, column 72: Service shop/ports: spec.ports[4].nodePort: TCP 30080 is there twice
    it.yaml, document 3, line 35, column 24: Service shop/other: spec.healthCheckNodePort: node port 30080 is Service shop/ports's already; give it another
    it.yaml, document 3, line 36, column 46: Service shop/other: spec.loadBalancerSourceRanges[1]: "10.0.0.0/33" is no network such as 192.0.2.0/24
    it.yaml, document 4, line 42, column 7: Service shop/alias: spec.externalName: is missing; type ExternalName needs it
    it.yaml, document 4, line 42, column 51: Service shop/alias: spec.externalTrafficPolicy: the API refuses it on type ExternalName; remove it
    "#);
}

#[test]
fn what_is_led_to_and_is_not_there_is_told() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  defaultBackend: {service: {name: gone, port: {number: 80}}}
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}
      - {path: /a, pathType: Prefix, backend: {service: {name: web, port: {number: 81}}}}
      - {path: /b, pathType: Prefix, backend: {service: {name: redirect, port: {name: use-annotation}}}}
      - {path: /c, pathType: Prefix, backend: {resource: {kind: Bucket, name: x}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  rules:
  - backendRefs:
    - {name: web, port: 80}
    - {name: web, namespace: other, port: 80}
    - {name: web, port: 8080}
    - {name: import, kind: ServiceImport, group: multicluster.x-k8s.io, port: 80}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata: {name: web}
spec: {serviceRef: {name: web, port: https}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80, targetPort: http}], selector: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, ports: [{name: http, containerPort: 8080, protocol: UDP}]}]}
";
    assert_snapshot!(wrong(text), @r#"
    it.yaml, document 1, line 5, column 36: Ingress default/web: spec.defaultBackend.service.name: there is no Service default/gone; give its manifest too
    it.yaml, document 1, line 10, column 84: Ingress default/web: spec.rules[0].http.paths[1].backend.service.port.number: Service default/web has no port 81; it has 80 ("http")
    it.yaml, document 2, line 21, column 14: HTTPRoute default/web: spec.rules[0].backendRefs[1].name: there is no Service other/web; give its manifest too
    it.yaml, document 2, line 22, column 25: HTTPRoute default/web: spec.rules[0].backendRefs[2].port: Service default/web has no port 8080; it has 80 ("http")
    it.yaml, document 3, line 28, column 38: TargetGroupBinding default/web: spec.serviceRef.port: Service default/web has no port https; it has 80 ("http")
    it.yaml, document 4, line 33, column 51: Service default/web: spec.ports[0].targetPort: no container of Pod default/web has a TCP port named "http"; name one so, or give its number
    "#);
}

#[test]
fn problems_of_several_files_come_in_their_order() {
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {}\n";
    let sources = [source("b.yaml", bad), source("a.yaml", bad)];
    let problems = read(&sources, "default").expect_err("both are wrong");
    assert_snapshot!(problems, @"
    b.yaml, document 1, line 4, column 7: Service default/web: spec.ports: is missing; a Service needs at least one port
    a.yaml, document 1, line 1, column 1: Service default/web: the same object is in b.yaml, document 1 already; keep one of them
    ");
}

#[test]
fn aliases_expand_to_no_more_than_is_read() {
    let level = |level: usize| {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{items}]\n")
    };
    let first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let text: String = std::iter::once(first).chain((1..12).map(level)).collect();
    assert!(wrong(&text).contains("is not YAML"));
    let deep = "[".repeat(100_000);
    assert!(wrong(&deep).contains("is not YAML"));
}

const SHOP: &str = include_str!("../../../../fuzz/seeds/manifests/shop.yaml");
const LIST: &str = include_str!("../../../../fuzz/seeds/manifests/list.json");

fn whatever_it_is(text: &str) {
    match read(&[source("it.yaml", text)], "default") {
        Ok(objects) => {
            assert_eq!(missing(&objects), []);
            let (objects, _) = complete(objects);
            let _ = Index::build(&objects);
            let (again, assumed) = complete(objects.clone());
            assert_eq!(assumed, []);
            assert_eq!(again, objects);
        }
        Err(problems) => {
            assert!(!problems.shown.is_empty());
            for problem in problems.shown {
                assert_eq!(problem.to_string().lines().count(), 1, "{problem:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "(\\PC|[\n\t{}\\[\\]:,\"'#&*!|>-]| ){0,200}") {
        whatever_it_is(&text);
    }

    #[test]
    fn no_change_of_manifests_breaks_them(
        json in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, token()), 1..4),
    ) {
        let text = if json { LIST } else { SHOP };
        let mut text: Vec<char> = text.chars().collect();
        for (at, length, token) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, token.chars());
        }
        whatever_it_is(&text.into_iter().collect::<String>());
    }
}

/// What means something somewhere.
fn token() -> impl Strategy<Value = String> {
    let tokens = [
        "",
        "0",
        "-1",
        "65536",
        "99999999999",
        "null",
        "true",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ": ",
        ", ",
        "\n",
        "\n---\n",
        "  ",
        "- ",
        "&a ",
        "*a",
        "{{",
        "None",
        "LoadBalancer",
        "IPv6",
        "::1",
        "web",
        "x/y",
    ];
    prop_oneof![
        Union::new(tokens.map(Just)).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}
