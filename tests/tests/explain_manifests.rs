//! `observer explain -f`: what is wrong with manifests, each in one line, all of it.
//!
//! Goal: who gives broken manifests learns what to change and where, and nothing else happens.
//! Method: files are written, the command is run, and its lines are compared word by word.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use tests::observer_process;

/// The exit status of an error at run time.
const ERROR: i32 = 1;

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80}]}
";

fn explain(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(observer_process::binary().expect("an observer"));
    command
        .arg("explain")
        .args(arguments)
        .current_dir(directory.path());
    command
}

/// What it prints, says beside, and how it ends.
fn run(mut command: Command, input: &str) -> (String, String, Option<i32>) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Who is given files reads nothing, and may have ended.
    if let Err(error) = stdin.write_all(input.as_bytes()) {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    }
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code())
}

fn files(all: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    for (name, text) in all {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a directory");
        fs::write(path, text).expect("written");
    }
    directory
}

/// The lines that a run says which fails.
fn complaints(directory: &TempDir, arguments: &[&str], input: &str) -> Vec<String> {
    let (stdout, stderr, code) = run(explain(directory, arguments), input);
    assert_eq!(code, Some(ERROR), "{stderr}");
    assert_eq!(stdout, "");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr.lines().map(str::to_owned).collect()
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let web = format!(
        "{SERVICE}---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: api}}
spec:
  externalTrafficPolicy: Local
  ports:
  - name: http
    port: \"80\"
  - name: https
    port: 70000
---
apiVersion: v1
kind: Service
metadata:
  name: broken
   namespace: shop
---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: twice}}
spec:
  type: NodePort
  ports:
  - {{name: a, port: 80, nodePort: 30080}}
  - {{name: b, port: 81, nodePort: 30081}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: again}}
spec:
  type: NodePort
  ports: [{{port: 80, nodePort: 30080}}]
"
    );
    let ingress = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: web}
spec:
  rules:
  - http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: gone, port: {number: 80}}}
      - path: /web
        pathType: Prefix
        backend: {service: {name: web, port: {name: https}}}
";
    let directory = files(&[("web.yaml", &web), ("ingress.yml", ingress)]);
    let expected = [
        "web.yaml, document 2, line 10, column 26: Service shop/api: spec.externalTrafficPolicy: \
         the API refuses it on type ClusterIP without externalIPs, where nobody comes from \
         outside; remove it, or make the type NodePort or LoadBalancer",
        "web.yaml, document 2, line 13, column 11: Service shop/api: spec.ports[0].port: \"80\" is \
         a string; a number is needed: write it without quotes",
        "web.yaml, document 2, line 15, column 11: Service shop/api: spec.ports[1].port: 70000 is \
         no port; ports go from 1 to 65535",
        "web.yaml, document 3, line 21, column 13: is not YAML: mapping values are not allowed in \
         this context",
        "web.yaml, document 5, line 37, column 32: Service shop/again: spec.ports[0].nodePort: \
         node port 30080 is Service shop/twice's already; give it another",
        "ingress.yml, document 1, line 11, column 35: Ingress shop/web: \
         spec.rules[0].http.paths[0].backend.service.name: there is no Service shop/gone; give \
         its manifest too",
        "ingress.yml, document 1, line 14, column 53: Ingress shop/web: \
         spec.rules[0].http.paths[1].backend.service.port.name: Service shop/web has no port \
         https; it has 80 (\"http\")",
    ];
    let told = complaints(&directory, &["-f", "web.yaml", "-f", "ingress.yml"], "");
    assert_eq!(told, expected);
    // The names of a directory are in order, and below it.
    let mut expected: Vec<_> = expected.map(|line| format!("./{line}")).to_vec();
    expected.rotate_right(2);
    assert_eq!(complaints(&directory, &["-f", "."], ""), expected);
}

#[test]
fn what_cannot_be_read_is_told_for_all_files() {
    let directory = files(&[("empty/notes.txt", "nothing")]);
    fs::write(directory.path().join("latin.yaml"), b"a: b\nc: \xe4\n").expect("written");
    let arguments = ["-f", "missing.yaml", "-f", "-", "-f", "empty"];
    let told = complaints(&directory, &arguments, "kind: Service\n");
    assert_eq!(
        told,
        [
            "missing.yaml: cannot be read: No such file or directory (os error 2)",
            "empty: there are no manifests (.yaml, .yml, .json) in this directory; -R looks below \
             it too",
            "stdin, document 1, line 1, column 1: has kind Service and no apiVersion",
        ]
    );
    let told = complaints(&directory, &["-f", "latin.yaml"], "");
    assert_eq!(told, ["latin.yaml: is not text: line 2 is not UTF-8"]);
}

#[test]
fn a_template_of_helm_is_told_as_one() {
    let template = "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\n";
    let told = complaints(&files(&[]), &["-f", "-"], template);
    assert_eq!(
        told,
        [
            "stdin, document 1, line 4, column 9: is a template (`{{`), not a manifest; render it \
             first: helm template … | observer explain -f -"
        ]
    );
}

#[test]
fn manifests_are_found_as_kubectl_finds_them() {
    let other = SERVICE.replace("name: web", "name: other");
    let below = SERVICE.replace("name: web", "name: below");
    let directory = files(&[
        ("app/web.yaml", SERVICE),
        ("app/notes.txt", "{{"),
        ("app/more/below.yml", &below),
        ("other.json.txt", &other),
    ]);
    let of = |arguments: &[&str]| {
        let (stdout, stderr, code) = run(explain(&directory, arguments), &other);
        assert_eq!(code, Some(0), "{stderr}");
        ["shop/web", "shop/below", "shop/other"].map(|name| stdout.contains(name))
    };
    assert_eq!(of(&["-f", "app"]), [true, false, false]);
    assert_eq!(of(&["-R", "-f", "app"]), [true, true, false]);
    assert_eq!(of(&["-f", "app/web.yaml", "-f", "-"]), [true, false, true]);
    assert_eq!(of(&["--filename", "other.json.txt"]), [false, false, true]);
}

#[test]
fn the_namespace_is_that_of_the_option_where_none_is_named() {
    let service = SERVICE.replace("namespace: shop, ", "");
    for (arguments, expected) in [
        (&["-f", "-"][..], "default/web"),
        (&["-n", "blue", "-f", "-"], "blue/web"),
    ] {
        let (stdout, stderr, code) = run(explain(&files(&[]), arguments), &service);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(expected), "{stdout}");
    }
}
