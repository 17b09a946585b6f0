//! `observer explain` by an API server: what it says is compared with what it says of the same
//! objects in a file.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    api_server::{ApiServer, Faults, Options},
    demo, observer_process,
};

use super::{demo_items, server};

/// The observer, without anything of this machine's own clusters.
fn explain(arguments: &[&str]) -> Command {
    let mut command = Command::new(observer_process::binary().expect("an observer"));
    command
        .args(["explain", "-o", "json"])
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HOME", "/nonexistent");
    command
}

fn by(server: &ApiServer, arguments: &[&str]) -> Command {
    let mut command = explain(arguments);
    command.arg("--kubeconfig").arg(server.kubeconfig());
    command
}

/// What it prints and says beside, and how it ends.
fn run(mut command: Command) -> (String, String, Option<i32>) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code())
}

/// The one line that it says when it cannot do what it was asked to.
fn error(command: Command) -> String {
    let (stdout, stderr, code) = run(command);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

fn printed(command: Command) -> String {
    let (stdout, stderr, code) = run(command);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// What is explained of the objects in a file.
fn of_file(path: &Path) -> String {
    let mut command = explain(&["--cluster-state"]);
    command.arg(path);
    printed(command)
}

/// The same is explained; but a server is not asked for kinds that decide nothing.
fn assert_same(by_server: &str, by_file: &str) {
    let explained = |text: &str| {
        let mut document: Value = serde_json::from_str(text).expect("JSON");
        document["other_objects"].take();
        document
    };
    let (by_server, by_file) = (explained(by_server), explained(by_file));
    let services = by_server["services"].as_array();
    assert!(services.is_some_and(|services| !services.is_empty()));
    // Not `assert_eq`, whose message would fill many screens.
    assert!(by_server == by_file, "they differ");
}

/// The demo's objects and many Services more.
fn many_items() -> Vec<Value> {
    let more = (0..1_203_u32).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "many", "name": format!("service-{number}")},
            "spec": {
                "clusterIP": format!("10.97.{}.{}", number / 250, number % 250 + 1),
                "ports": [{"port": 80, "protocol": "TCP"}],
            },
        })
    });
    demo_items().into_iter().chain(more).collect()
}

fn written(items: &[Value], directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("state.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    fs::write(&path, list.to_string()).expect("written");
    path
}

#[rstest]
#[case::http(false)]
#[case::tls(true)]
fn explain_says_the_same_by_the_api_server_as_by_a_file(#[case] tls: bool) {
    let options = Options {
        tls,
        ..Options::default()
    };
    let server = ApiServer::start(&demo_items(), &options).expect("an API server");
    assert_same(&printed(by(&server, &[])), &of_file(&demo::cluster_file()));
    let requests = server.requests();
    for path in [
        "/api/v1/services?limit=500",
        "/apis/discovery.k8s.io/v1/endpointslices?limit=500",
        "/api/v1/nodes?limit=500",
        "/api/v1/pods?limit=500",
        "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dkube-proxy&limit=500",
    ] {
        let wanted = format!("200 {path}");
        assert!(requests.contains(&wanted), "{wanted} in {requests:?}");
    }
}

/// Kinds that nobody has installed are not there, and nothing is said of that; what may not be
/// read is.
#[test]
fn what_stands_around_services_is_read_where_the_cluster_has_it() {
    let server = server();
    let (expected, stderr, code) = run(by(&server, &[]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
    let requests = server.requests();
    for wanted in [
        "200 /apis/apps/v1/deployments?limit=500",
        "200 /apis/apps/v1/daemonsets?limit=500",
        "200 /apis/networking.k8s.io/v1/ingresses?limit=500",
        "200 /api/v1/namespaces?limit=500",
        "200 /api/v1/configmaps?limit=500",
        "200 /apis/gateway.networking.k8s.io/v1/httproutes?limit=500",
        "200 /apis/metallb.io/v1beta1/ipaddresspools?limit=500",
        "404 /apis/gateway.networking.k8s.io/v1/tlsroutes?limit=500",
        "404 /apis/gateway.networking.k8s.io/v1alpha2/tlsroutes?limit=500",
        "404 /apis/elbv2.k8s.aws/v1beta1/targetgroupbindings?limit=500",
    ] {
        assert!(
            requests.iter().any(|request| request == wanted),
            "{wanted} in {requests:?}"
        );
    }
    let forbidden = ["ingresses", "ipaddresspools"];
    server.misbehave(|faults| faults.forbidden.extend(forbidden.map(str::to_owned)));
    let (stdout, stderr, code) = run(by(&server, &[]));
    assert_eq!((stdout, code), (expected, Some(0)));
    for resource in forbidden {
        let warned = stderr.lines().filter(|line| line.contains(resource));
        assert_eq!(warned.count(), 1, "{stderr}");
    }
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let directory = TempDir::new().expect("a directory");
    let items = many_items();
    let server = ApiServer::start(&items, &Options::default()).expect("an API server");
    assert_same(
        &printed(by(&server, &[])),
        &of_file(&written(&items, &directory)),
    );
    let requests = server.requests();
    let pages = requests
        .iter()
        .filter(|request| request.contains("/services?"));
    assert_eq!(pages.count(), 3, "{requests:?}");
}

#[test]
fn kube_proxys_config_map_counts() {
    let server = server();
    let of_services = |server: &ApiServer| printed(by(server, &["shop/web"]));
    let before = of_services(&server);
    let data = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                mode: nftables\nclusterCIDR: 10.244.0.0/16\nnftables:\n  masqueradeAll: true\n";
    server.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "kube-proxy-config"},
        "data": {"config": data, "kubeconfig.conf": "kind: Config\n"},
    }));
    let after = of_services(&server);
    assert_ne!(after, before);
    assert!(after.contains("masquerade-all"), "{after}");
}

#[rstest]
#[case::pods("pods", "\"\"", "list pods")]
#[case::slices("endpointslices", "discovery.k8s.io", "list endpointslices")]
#[case::config_maps("configmaps", "\"\"", "list configmaps")]
fn what_may_not_be_read_counts_as_missing(
    #[case] resource: &str,
    #[case] group: &str,
    #[case] says: &str,
) {
    let directory = TempDir::new().expect("a directory");
    let server = server();
    server.misbehave(|faults| faults.forbidden.push(resource.to_owned()));
    let (stdout, stderr, code) = run(by(&server, &[]));
    assert_eq!(code, Some(0), "{stderr}");
    let warnings: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("{stderr}")
    };
    for part in [says, group, "get, list, watch", "403"] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    let kind = match resource {
        "pods" => "Pod",
        "endpointslices" => "EndpointSlice",
        _ => "ConfigMap",
    };
    let mut items = demo_items();
    items.retain(|item| item["kind"] != kind);
    assert_same(&stdout, &of_file(&written(&items, &directory)));
}

#[test]
fn without_nodes_nothing_is_explained() {
    let server = server();
    server.misbehave(|faults| faults.forbidden.push("nodes".to_owned()));
    let (_, stderr, code) = run(by(&server, &[]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("list nodes") && stderr.contains("no Nodes"),
        "{stderr}"
    );
}

#[rstest]
#[case::unauthorized(|faults: &mut Faults| faults.unauthorized = true, "401")]
#[case::in_trouble(|faults: &mut Faults| faults.status = Some(500), "500 for")]
#[case::busy(|faults: &mut Faults| faults.status = Some(429), "429 for")]
fn a_server_that_does_not_answer_is_an_error_of_one_line(
    #[case] fault: fn(&mut Faults),
    #[case] says: &str,
) {
    let server = server();
    server.misbehave(fault);
    let error = error(by(&server, &[]));
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_told_by_its_address() {
    let server = server();
    server.go_away();
    let told = error(by(&server, &[]));
    let address = format!("http://{}", server.at());
    assert!(
        told.contains(&address) && told.contains("refused"),
        "{told}"
    );
    server.come_back().expect("listens again");
    printed(by(&server, &[]));
}

#[test]
fn a_certificate_of_someone_else_is_told() {
    let options = Options {
        tls: true,
        ..Options::default()
    };
    let [server, other] =
        [(); 2].map(|()| ApiServer::start(&demo_items(), &options).expect("an API server"));
    let kubeconfig = fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
    let of_other = kubeconfig.replace(&server.at().to_string(), &other.at().to_string());
    fs::write(server.kubeconfig(), of_other).expect("written");
    let told = error(by(&server, &[]));
    assert!(
        told.contains("certificate") && told.contains(&other.at().to_string()),
        "{told}"
    );
}

#[test]
fn a_context_is_chosen_and_an_unknown_one_told() {
    let server = server();
    let told = error(by(&server, &["--context", "production"]));
    assert!(
        told.ends_with("there is no context production; there is lab, nobody"),
        "{told}"
    );
    let told = error(by(&server, &["--context", "nobody"]));
    assert!(told.contains("401"), "{told}");
    printed(by(&server, &["--context", "lab"]));
}

/// A change of a kubeconfig.
type Spoil = fn(&mut Value);

#[rstest]
#[case::no_current_context(|config: &mut Value| config["current-context"] = json!(""), "--context")]
#[case::no_cluster(|config: &mut Value| config["clusters"] = json!([]), "lab")]
#[case::no_address(|config: &mut Value| config["clusters"][0]["cluster"] = json!({}), "url")]
#[case::no_kubeconfig(|config: &mut Value| *config = json!("nothing"), "kubeconfig")]
#[case::no_ca(
    |config: &mut Value| config["clusters"][0]["cluster"]["certificate-authority"] = json!("/nonexistent/ca.crt"),
    "/nonexistent/ca.crt"
)]
#[case::no_token(
    |config: &mut Value| config["users"][0]["user"] = json!({"tokenFile": "/nonexistent/token"}),
    "/nonexistent/token"
)]
#[case::no_plugin(
    |config: &mut Value| {
        config["users"][0]["user"] = plugin("");
        config["users"][0]["user"]["exec"]["command"] = json!("/nonexistent/plugin");
    },
    "No such file"
)]
#[case::a_plugin_that_fails(
    |config: &mut Value| config["users"][0]["user"] = plugin("echo secret; echo expired login >&2; exit 7"),
    "expired login"
)]
fn a_kubeconfig_that_leads_nowhere_says_why(#[case] spoil: Spoil, #[case] says: &str) {
    let server = server();
    rewrite(&server, spoil);
    let told = error(by(&server, &[]));
    assert!(told.contains(says) && !told.contains("secret"), "{told}");
}

/// A user whose credentials a script makes.
fn plugin(script: &str) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "interactiveMode": "Never",
    }})
}

fn rewrite(server: &ApiServer, spoil: Spoil) {
    let path = server.kubeconfig();
    let text = fs::read_to_string(&path).expect("a kubeconfig");
    let mut config = serde_json::from_str(&text).expect("JSON");
    spoil(&mut config);
    fs::write(&path, config.to_string()).expect("written");
}

#[test]
fn a_plugin_gives_the_credentials() {
    let server = server();
    rewrite(&server, |config| {
        let token = config["users"][0]["user"]["token"].take();
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": token},
        });
        config["users"][0]["user"] = plugin(&format!("echo '{credential}'"));
    });
    printed(by(&server, &[]));
}

#[test]
fn the_kubeconfig_is_found_as_kubectl_finds_it() {
    let server = server();
    let home = TempDir::new().expect("a directory");
    let mut nowhere = explain(&[]);
    nowhere.env("HOME", home.path());
    let told = error(nowhere);
    for part in ["KUBECONFIG", "--kubeconfig", "--cluster-state"] {
        assert!(told.contains(part), "{told}");
    }
    let mut by_variable = explain(&[]);
    by_variable.env("KUBECONFIG", server.kubeconfig());
    let expected = printed(by_variable);
    fs::create_dir(home.path().join(".kube")).expect("a directory");
    fs::copy(server.kubeconfig(), home.path().join(".kube/config")).expect("copied");
    let mut by_home = explain(&[]);
    by_home.env("HOME", home.path());
    assert_eq!(printed(by_home), expected);
    let mut missing = explain(&[]);
    missing.env("KUBECONFIG", home.path().join("missing"));
    let told = error(missing);
    assert!(told.contains("missing: cannot be read"), "{told}");
}

#[test]
fn a_list_whose_rest_is_gone_is_begun_anew() {
    let items = many_items();
    let server = ApiServer::start(&items, &Options::default()).expect("an API server");
    let expected = printed(by(&server, &[]));
    server.misbehave(|faults| faults.rests_gone = 1);
    assert_eq!(printed(by(&server, &[])), expected);
    let requests = server.requests();
    let gone = requests.iter().filter(|it| it.starts_with("410 "));
    assert_eq!(gone.count(), 1, "{requests:?}");
}

/// The proxy of the environment is for others: a server at a loopback address, or one that
/// `NO_PROXY` names, is reached without it. One in the kubeconfig counts.
#[test]
fn a_proxy_is_gone_through_where_it_should_be() {
    let server = server();
    let mut spared = by(&server, &[]);
    spared.env("HTTPS_PROXY", "http://127.0.0.1:1");
    printed(spared);
    rewrite(&server, |config| {
        config["clusters"][0]["cluster"]["proxy-url"] = json!("http://127.0.0.1:1");
    });
    let told = error(by(&server, &[]));
    assert!(told.contains("cannot be reached"), "{told}");
}
