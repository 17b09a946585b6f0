//! `observer explain`: its forms, its options, and how it ends.
//!
//! Goal: whatever name an object has, Markdown stays a table and Mermaid a picture; and a pipeline
//! learns from the exit code what it asked for. Method: manifests of `tests/manifests`, and some
//! with names that nobody should give, through each form.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    process::Stdio,
};

use rstest::rstest;
use serde_json::Value;
use tests::{
    explained::{self, Said},
    manifest::{self, Manifest},
};

/// As an API server would not take them; a file may have them all the same.
const NAMES: &str = r#"
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec:
  type: LoadBalancer
  loadBalancerClass: "a|b/<i>\"`*[x](y)_%%{init: {}}%%#;&lt;~~"
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: "w\"e[b]|x"}
spec:
  ingressClassName: "c|l\"a[s]s"
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
"#;

fn text(name: &str) -> String {
    let path = Manifest::folder().join(format!("{name}.yaml"));
    Manifest::read(&path).expect("manifests").text
}

fn explain(input: &str, more: &[&str]) -> Said {
    let arguments = [&["-f", "-"], more].concat();
    let command = explained::explain(&arguments).expect("an observer");
    let said = explained::run(command, input).expect("runs");
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    said
}

fn good(input: &str, more: &[&str]) -> String {
    let said = explain(input, more);
    assert_eq!(said.code, Some(0), "{more:?}: {}", said.stderr);
    said.stdout
}

/// The cells of a row of a table in Markdown.
fn cells(row: &str) -> usize {
    let mut cells = 0;
    let mut is_escaped = false;
    for character in row.chars() {
        if character == '|' && !is_escaped {
            cells += 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    cells - 1
}

fn are_tables(markdown: &str, of: &str) {
    let mut rows = 0;
    for (number, line) in markdown.lines().enumerate() {
        if line.starts_with('|') {
            assert_eq!(cells(line), 9, "{of}: {line}");
            assert!(line.ends_with('|'), "{of}: {line}");
            rows += 1;
        } else {
            rows = 0;
        }
        let is_rule = line.chars().all(|it| matches!(it, '|' | '-' | ':'));
        assert_eq!(
            rows == 2,
            is_rule && rows > 0,
            "{of}, line {number}: {line}"
        );
    }
}

#[test]
fn markdown_has_tables_of_equal_rows() {
    for Manifest { name, text, .. } in manifest::all().expect("manifests") {
        for language in ["en", "ko"] {
            let markdown = good(&text, &["-o", "markdown", "--lang", language]);
            are_tables(&markdown, &name);
            let says = explained::run(
                explained::explain(&["-f", "-", "-o", "json"]).expect("an observer"),
                &text,
            );
            let services = says.expect("runs").json().expect("explained")["services"].clone();
            let headings = markdown.lines().filter(|line| line.starts_with("## shop/"));
            let in_shop = services.as_array().expect("Services").iter();
            let in_shop = in_shop.filter(|it| it["service"]["namespace"] == "shop");
            assert_eq!(headings.count(), in_shop.count(), "{name}");
        }
    }
}

#[test]
fn no_name_is_markdowns() {
    let markdown = good(NAMES, &["-o", "markdown"]);
    are_tables(&markdown, "names");
    let escaped = r#"a\|b/\<i\>"\`\*\[x\](y)\_%%{init: {}}%%#;\&lt;\~\~"#;
    let heading = markdown.lines().next().expect("a heading");
    assert!(heading.contains(escaped), "{heading}");
    assert!(
        markdown.contains(r#"| Ingress shop/w"e\[b\]\|x "#),
        "{markdown}"
    );
    assert!(markdown.contains(r#"(c\|l"a\[s\]s)"#), "{markdown}");
}

/// The words of a line of Mermaid outside its labels, and the labels.
fn apart(line: &str) -> (String, Vec<&str>) {
    let mut outside = String::new();
    let mut labels = Vec::new();
    for (place, part) in line.split('"').enumerate() {
        if place % 2 == 0 {
            outside.push_str(part);
            outside.push(' ');
        } else {
            labels.push(part);
        }
    }
    (outside, labels)
}

/// What a picture refers to is there; its labels hold nothing that Mermaid reads; subgraphs end.
fn is_a_picture(mermaid: &str, of: &str) {
    let (mut defined, mut named) = (BTreeSet::new(), BTreeSet::new());
    assert!(mermaid.starts_with("flowchart LR\n"), "{of}: {mermaid}");
    assert_eq!(mermaid.matches("flowchart").count(), 1, "{of}: one picture");
    let (mut open, mut ways) = (0, 0);
    for line in mermaid.lines().map(str::trim) {
        assert!(!line.contains("%%{"), "{of}: a directive: {line}");
        if line.is_empty() || line == "flowchart LR" {
            continue;
        }
        assert_eq!(line.matches('"').count() % 2, 0, "{of}: {line}");
        let (outside, labels) = apart(line);
        for label in labels {
            let forbidden = ['<', '>', '`', '&', '%'];
            assert!(!label.contains(forbidden), "{of}: {label}");
            for entity in label.split('#').skip(1) {
                let number = entity.split_once(';').map(|(number, _)| number);
                let is_number = number.is_some_and(|it| it.parse::<u32>().is_ok());
                assert!(is_number, "{of}: {label}");
            }
        }
        match outside.split_whitespace().next() {
            Some("subgraph") => {
                open += 1;
                ways += 1;
            }
            Some("end") => open -= 1,
            _ => {
                assert_eq!(open, 2, "{of}: outside of a way of a Service: {line}");
                let nodes = outside.split(|it: char| !it.is_alphanumeric() && it != '[');
                for node in nodes.filter(|it| it.starts_with('w')) {
                    let name = node.trim_end_matches('[');
                    if node.ends_with('[') {
                        assert!(defined.insert(name.to_owned()), "{of}: {name} twice");
                    }
                    named.insert(name.to_owned());
                }
            }
        }
    }
    assert_eq!(open, 0, "{of}");
    assert_eq!(named, defined, "{of}");
    assert!(defined.len() >= ways, "{of}");
}

#[test]
fn each_picture_in_mermaid_holds_together() {
    for Manifest { name, text, .. } in manifest::all().expect("manifests") {
        is_a_picture(&good(&text, &["--diagram=mermaid"]), &name);
    }
    let mermaid = good(NAMES, &["--diagram=mermaid"]);
    is_a_picture(&mermaid, "names");
    assert!(
        mermaid.contains("proxy Ingress shop/w#34;e[b]|x\"]"),
        "{mermaid}"
    );
}

#[test]
fn a_way_is_drawn() {
    let text = text("nlb-instance-local-preservation-off");
    insta::assert_snapshot!("diagram-text", good(&text, &["--diagram"]));
    insta::assert_snapshot!("diagram-mermaid", good(&text, &["--diagram=mermaid"]));
    assert_eq!(
        good(&text, &["--diagram"]),
        good(&text, &["--diagram=text"])
    );
}

#[rstest]
#[case::lost("metallb-l2-cluster", "lost", 3)]
#[case::nowhere("metallb-l2-cluster", "unrecoverable", 3)]
#[case::comes_in("metallb-l2-cluster", "dropped", 0)]
#[case::one_of_several("metallb-l2-cluster", "dropped,lost", 3)]
#[case::kept("metallb-l2-local", "lost", 0)]
#[case::kept_all("metallb-l2-local", "lost,unrecoverable", 0)]
#[case::kept_but_not_everywhere("node-port-local", "lost", 0)]
#[case::on_nodes_that_are_only_assumed("node-port-local", "dropped", 0)]
#[case::left_out("nlb-instance-local", "dropped", 0)]
#[case::lost_behind_a_proxy("nginx-metallb-local", "lost", 3)]
#[case::but_told("nginx-metallb-local", "unrecoverable", 0)]
#[case::not_told("nginx-metallb-cluster", "unrecoverable", 3)]
#[case::nobody_serves_it("bare-metal-pending", "dropped", 3)]
#[case::only_from_inside("cluster-ip", "lost,unrecoverable,dropped", 0)]
fn a_pipeline_fails_on_what_it_names(#[case] name: &str, #[case] fail_on: &str, #[case] code: i32) {
    let text = text(name);
    for form in [
        &[][..],
        &["-o", "json"],
        &["-o", "markdown"],
        &["--diagram"],
    ] {
        let said = explain(&text, &[&["--fail-on", fail_on], form].concat());
        assert_eq!(
            said.code,
            Some(code),
            "{form:?}: {}{}",
            said.stdout,
            said.stderr
        );
        assert!(!said.stdout.is_empty(), "it is told all the same");
    }
}

#[test]
fn a_pipeline_fails_on_a_node_that_lets_nothing_through() {
    let node = |name: &str, address: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, status: {{addresses: \
             [{{type: InternalIP, address: {address}}}]}}}}\n"
        )
    };
    let nodes = node("node-a", "192.0.2.11") + &node("node-b", "192.0.2.12");
    for (name, code) in [("node-port-local", 3), ("node-port-cluster", 0)] {
        let text = text(name) + &nodes;
        let said = explain(&text, &["--fail-on", "dropped"]);
        assert_eq!(said.code, Some(code), "{}{}", said.stdout, said.stderr);
    }
}

#[test]
fn a_pipeline_fails_on_the_service_that_it_names_only() {
    let text = format!(
        "{}---\n{}",
        text("node-port-cluster"),
        text("metallb-l2-local").replace("web", "api")
    );
    for (service, code) in [("shop/web", 3), ("shop/api", 0)] {
        let said = explain(&text, &[service, "--fail-on", "lost"]);
        assert_eq!(
            said.code,
            Some(code),
            "{service}: {}{}",
            said.stdout,
            said.stderr
        );
    }
    // What is changed counts, not what was.
    let said = explain(&text, &["--apply", "--fail-on", "lost"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn the_language_is_the_one_asked_for() {
    let text = text("metallb-l2-cluster");
    let run = |lang: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["-f", "-"], lang].concat();
        let mut command = explained::explain(&arguments).expect("an observer");
        command.envs(environment.iter().copied());
        let said = explained::run(command, &text).expect("runs");
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        said.stdout + &said.stderr
    };
    let is_korean = |text: &str| text.contains("잃음(kube-proxy)") && !text.contains("LOST by");
    let english = run(&[], &[]);
    let korean = run(&["--lang", "ko"], &[]);
    assert!(is_korean(&korean), "{korean}");
    assert!(english.contains("LOST by kube-proxy: "), "{english}");
    assert_eq!(run(&[], &[("LANG", "ko_KR.UTF-8")]), korean);
    assert_eq!(
        run(&[], &[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C")]),
        english
    );
    assert_eq!(run(&[], &[("LANG", "de_DE.UTF-8")]), english);
    assert_eq!(run(&["--lang", "en"], &[("LANG", "ko_KR.UTF-8")]), english);
}

#[test]
fn the_words_of_the_json_are_the_same_in_every_language() {
    fn without_sentences(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for sentence in ["text", "price", "why", "assumed"] {
                    fields.remove(sentence);
                }
                fields.values_mut().for_each(without_sentences);
            }
            Value::Array(items) => items.iter_mut().for_each(without_sentences),
            _ => {}
        }
    }
    for Manifest { name, text, .. } in manifest::all().expect("manifests") {
        let [english, korean] = ["en", "ko"].map(|language| {
            let text = good(&text, &["-o", "json", "--lang", language]);
            let mut document = serde_json::from_str(&text).expect("JSON");
            without_sentences(&mut document);
            document
        });
        assert_eq!(english, korean, "{name}");
    }
}

#[test]
fn only_the_ways_of_the_client_that_is_named_are_told() {
    let text = text("metallb-source-ranges");
    let ways = |client: &str| {
        let printed = good(&text, &["--client", client, "-o", "json"]);
        let document: Value = serde_json::from_str(&printed).expect("JSON");
        let service = &document["services"][0];
        let ways = service["ways"].as_array().expect("ways").clone();
        let clients = ways.iter().filter_map(|way| way["client"].as_str());
        let clients: BTreeSet<String> = clients.map(str::to_owned).collect();
        (service["verdict"]["code"].clone(), clients, ways)
    };
    let (verdict, clients, _) = ways("203.0.113.9");
    assert_eq!(
        (verdict, clients),
        ("lost".into(), ["external".to_owned()].into())
    );
    let (verdict, clients, told) = ways("192.0.2.200");
    assert_eq!(
        (verdict, clients),
        ("unreachable".into(), ["external".to_owned()].into())
    );
    let mut by_load_balancer = told.iter().filter(|way| way["door"] == "LoadBalancer");
    assert!(by_load_balancer.all(|way| way["outcome_cause"] == "source-ranges"));
    // A node is one on itself, and to the others somebody from outside the rules.
    let (_, clients, told) = ways("192.0.2.11");
    assert!(clients.contains("node"), "{clients:?}");
    let of_node = told.iter().filter(|way| way["client"] == "node");
    for way in of_node {
        assert_eq!(way["nodes"], serde_json::json!(["node-a"]), "{way}");
    }
}

#[test]
fn only_the_service_that_is_named_is_told() {
    let text = text("nginx-metallb-local");
    let whole = good(&text, &[]);
    let other = "ingress-nginx/ingress-nginx-controller, type";
    assert!(
        whole.starts_with(other) && whole.contains("\nshop/web, type"),
        "{whole}"
    );
    for name in ["shop/web", "shop/web:http"] {
        let one = good(&text, &[name]);
        assert!(one.starts_with("shop/web, type ClusterIP"), "{one}");
        assert!(!one.contains(other), "{one}");
    }
    let document = good(&text, &["shop/web", "-o", "json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["services"].as_array().map(Vec::len), Some(1));
}

#[rstest]
#[case::near("shop/wep", "did you mean shop/web?")]
#[case::port("shop/web:htt", "did you mean http?")]
#[case::far("blue/green", "there is no Service in a namespace blue; there is shop")]
fn a_service_that_is_not_there_is_told(#[case] name: &str, #[case] says: &str) {
    let said = explain(&text("node-port-local"), &[name]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    assert!(
        said.stderr.contains(says) && said.stderr.lines().count() == 1,
        "{}",
        said.stderr
    );
}

#[test]
fn that_nobody_reads_is_no_error() {
    for form in ["table", "json", "markdown"] {
        let arguments = ["-f", "-", "-o", form, "--fail-on", "lost"];
        let mut command = explained::explain(&arguments).expect("an observer");
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        command
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let text = text("metallb-l2-cluster");
        stdin.write_all(text.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("stdout"), "{stderr}");
        assert_eq!(output.status.code(), Some(3), "{stderr}");
    }
}

#[rstest]
#[case::client(&["--client", "everyone"])]
#[case::form(&["-o", "yaml"])]
#[case::picture(&["--diagram=png"])]
#[case::two_forms(&["--diagram", "-o", "json"])]
#[case::fail_on(&["--fail-on", "everything"])]
#[case::language(&["--lang", "tlh"])]
#[case::change(&["--apply=everything"])]
#[case::two_sources(&["--cluster-state", "objects.json"])]
#[case::service(&["/"])]
#[case::option(&["--nothing"])]
fn wrong_use_is_told_as_such(#[case] arguments: &[&str]) {
    let said = explain(&text("node-port-local"), arguments);
    assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout, "");
    assert!(said.stderr.contains("--help"), "{}", said.stderr);
}
