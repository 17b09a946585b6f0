//! The agent as Prometheus sees it: what it serves is what the reference says, what the alerts and
//! the dashboard ask for is there.
//!
//! Method: run an agent on a node of the demo cluster, open connections, have a real Prometheus
//! scrape it, and put to that every query of the dashboard and of the alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use tests::{
    api_server::{ApiServer, Options, items},
    command, demo,
    deploy::{Tool, file, prometheus::Prometheus, tools, workspace},
    http,
    lab::{Lab, LabNode},
    observer_process::ObserverProcess,
    privilege, traffic,
};

/// Where an agent is asked.
const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9807);
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9808);
/// What the dashboard's queries say of time.
const RATE_INTERVAL: &str = "10s";
const RANGE: &str = "5m";
/// Long enough for some scrapes, and for what is pending to come out.
const SCRAPES: Duration = Duration::from_secs(5);
/// Metrics that are not there where all is well.
const ONLY_WHEN_ILL: [&str; 2] = [
    "source_ip_observer_mismatched_connections_total",
    "source_ip_observer_unexpected_connections_total",
];

fn agent(node: &LabNode, server: &ApiServer, state: &Path) -> ObserverProcess {
    let kubeconfig = server.kubeconfig();
    let arguments = [
        "--kubeconfig",
        kubeconfig.to_str().expect("text"),
        "--state-dir",
        state.to_str().expect("text"),
    ];
    ObserverProcess::start_agent(node, &arguments).expect("an agent")
}

fn open(lab: &Lab) {
    let ways = demo::ways_from_outside(lab).expect("ways");
    traffic::open(lab, &ways).expect("opened");
}

fn yaml(path: &str) -> Value {
    let text = fs::read_to_string(file(path)).expect("read");
    serde_saphyr::from_str(&text).expect("YAML")
}

/// How Prometheus is told to scrape.
fn job() -> Value {
    yaml("prometheus/scrape.yaml")["scrape_configs"][0].take()
}

/// What the operator makes of the pod monitor is what the scrape configuration says.
#[test]
fn the_pod_monitor_says_the_same_as_the_scrape_configuration() {
    let monitor = yaml("prometheus/podmonitor.yaml");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let job = job();
    assert_eq!(endpoint["honorLabels"], job["honor_labels"]);
    let relabelings = endpoint["relabelings"].to_string();
    let relabelings = relabelings
        .replace("sourceLabels", "source_labels")
        .replace("targetLabel", "target_label");
    let relabelings: Value = serde_json::from_str(&relabelings).expect("JSON");
    assert_eq!(relabelings, job["relabel_configs"]);
    let label = monitor["spec"]["jobLabel"].as_str().expect("a label");
    let selected = &monitor["spec"]["selector"]["matchLabels"][label];
    assert_eq!(*selected, job["job_name"]);
}

/// Every expression of the dashboard, with the title of its panel.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(file("grafana/source-ip-observer.json")).expect("read");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let mut expressions = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array();
        for target in targets.into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            expressions.push((title.to_owned(), expression.to_owned()));
        }
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    for variable in variables.iter().filter(|one| one["type"] == "query") {
        // label_values(SERIES, LABEL)
        let query = variable["definition"].as_str().expect("a query");
        let inside = query.strip_prefix("label_values(").expect("label values");
        let (series, _) = inside.rsplit_once(", ").expect("a label");
        let name = variable["name"].as_str().expect("a name");
        expressions.push((format!("${name}"), series.to_owned()));
    }
    expressions
}

/// As Grafana would put it to Prometheus, with everything chosen.
fn filled_in(expression: &str) -> String {
    let mut expression = expression
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$__range", RANGE);
    for variable in ["namespace", "service", "instance"] {
        expression = expression.replace(&format!("${variable}"), ".*");
    }
    assert!(!expression.contains('$'), "{expression}");
    expression
}

#[test]
fn the_rules_are_right_and_fire_for_what_they_say() {
    let test = "the_rules_are_right_and_fire_for_what_they_say";
    let Some([promtool]) = tools(test, [Tool::Promtool]) else {
        return;
    };
    let folder = file("prometheus");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&promtool);
        command::run(command.args(arguments).current_dir(&folder)).expect("right");
    };
    run(&[
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "alerts.yaml",
    ]);
    run(&["test", "rules", "alerts_test.yaml"]);
    run(&["check", "config", "--syntax-only", "scrape.yaml"]);
    let alerts = fs::read_to_string(folder.join("alerts.yaml")).expect("read");
    let tests = fs::read_to_string(folder.join("alerts_test.yaml")).expect("read");
    let guide = fs::read_to_string(workspace().join("docs/operating.md")).expect("read");
    for alert in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert}");
        assert!(guide.contains(&format!("`{alert}`")), "{alert}");
    }
}

#[test]
fn prometheus_scrapes_what_alerts_and_dashboard_ask_for() {
    let test = "prometheus_scrapes_what_alerts_and_dashboard_ask_for";
    let Some([promtool, prometheus]) = tools(test, [Tool::Promtool, Tool::Prometheus]) else {
        return;
    };
    if !privilege::granted(test) {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let state = tempfile::TempDir::new().expect("a directory");
    let objects = items(&demo::cluster_file()).expect("the demo's objects");
    let options = Options {
        within: Some((&node.namespace, Ipv4Addr::LOCALHOST.into())),
        ..Options::default()
    };
    let server = ApiServer::start(&objects, &options).expect("an API server");
    // The second one tells how long there was none.
    agent(node, &server, state.path()).stop().expect("stops");
    sleep(Duration::from_secs(1));
    let agent = agent(node, &server, state.path());
    let get = |from, path| http::get(&node.namespace, from, path, &[]).expect("an answer");
    let refused = get(API, "/v1/connections?no=such");
    assert_eq!(refused.status, 400, "{refused:?}");

    let rules = [file("prometheus/alerts.yaml")];
    let prometheus = Prometheus::start(&prometheus, &node.namespace, &job(), &rules);
    let prometheus = prometheus.expect("started");
    // Twice, since what grows is seen between two scrapes.
    for _ in 0..2 {
        open(&lab);
        sleep(SCRAPES);
    }

    let metrics = get(METRICS, "/metrics").body;
    let mut check = Command::new(&promtool);
    let lint = command::run_with_input(check.args(["check", "metrics"]), &metrics);
    assert_eq!(lint.expect("no complaint"), "", "{metrics}");
    compare(&documented(), &served(&metrics));

    for (panel, expression) in dashboard() {
        let elements = prometheus.query(&filled_in(&expression));
        let elements = elements.unwrap_or_else(|error| panic!("{panel}: {error:#}"));
        let may_be_empty = ONLY_WHEN_ILL.iter().any(|ill| expression.contains(ill));
        assert!(
            may_be_empty || !elements.is_empty(),
            "{panel}: nothing for {expression}"
        );
    }
    let rules = prometheus.rules().expect("rules");
    assert!(!rules.is_empty());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // Clients came to a node without a pod of a Service that wants local ones.
    let pending = "ALERTS{alertname=\"DroppedWithoutLocalEndpoint\"}";
    let pending = prometheus
        .query_until_there_is(pending, SCRAPES)
        .expect("it is seen");
    let of_service = |element: &Value| element["metric"]["namespace"] == "shop";
    assert!(pending.iter().all(of_service), "{pending:?}");
    // And no address was lost to a Service that is to keep them.
    let lost = prometheus.query("ALERTS{alertname=\"SourceIPLostUnderLocal\"}");
    assert_eq!(lost.expect("answered"), [] as [Value; 0]);
    agent.stop().expect("stops");
}

/// A metric.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// What `docs/metrics.md` says: rows of name, type, labels, and what it means.
fn documented() -> BTreeMap<String, Metric> {
    let text = fs::read_to_string(workspace().join("docs/metrics.md")).expect("read");
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        match cells[..] {
            [name, kind, labels, _] if name.starts_with('`') => {
                let labels = labels.split(", ").filter(|label| !label.is_empty());
                let metric = Metric {
                    kind: kind.to_owned(),
                    labels: labels.map(plain).collect(),
                };
                Some((plain(name), metric))
            }
            _ => None,
        }
    });
    rows.collect()
}

/// What an agent serves, in the text format of Prometheus.
fn served(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            let metric = Metric {
                kind: kind.to_owned(),
                ..Metric::default()
            };
            metrics.insert(name.to_owned(), metric);
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let end = line.find(['{', ' ']).expect("a value");
        let name = &line[..end];
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| {
                let family = name.strip_suffix(part)?;
                metrics.contains_key(family).then_some(family)
            })
            .unwrap_or(name);
        let metric = metrics.get_mut(family).expect("declared before");
        let inside = line[end..]
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'));
        for label in inside
            .into_iter()
            .flat_map(|(inside, _)| inside.split("\","))
        {
            let (label, _) = label.split_once('=').expect("a label");
            if label != "le" {
                metric.labels.insert(label.to_owned());
            }
        }
    }
    metrics
}

fn compare(documented: &BTreeMap<String, Metric>, served: &BTreeMap<String, Metric>) {
    for (name, metric) in served {
        let known = documented.get(name);
        let known = known.unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(known.kind, metric.kind, "{name}");
        // One that has counted nothing yet has no labels.
        assert!(
            metric.labels.is_empty() || known.labels == metric.labels,
            "{name}: {known:?}, {metric:?}"
        );
    }
    for name in documented.keys() {
        assert!(
            ONLY_WHEN_ILL.contains(&&**name) || served.contains_key(name),
            "{name} is not served"
        );
    }
}
