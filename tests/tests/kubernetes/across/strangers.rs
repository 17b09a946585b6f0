//! Who is no agent, or one of another version, and what else stands in the way.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    api_server::{ApiServer, Faults, Options},
    netns::Namespace,
    observer_process::{self, ObserverProcess},
    privilege,
};

use super::{super::demo_items, API, NAMESPACE, error, error_of, pod, summary};

/// An API server that knows of agents, none of which is there.
fn without_agents(pods: &[&str]) -> ApiServer {
    let pods = pods.iter().map(|node| pod(node, "a"));
    let items: Vec<_> = demo_items().into_iter().chain(pods).collect();
    ApiServer::start(&items, &Options::default()).expect("an API server")
}

#[rstest]
#[case::no_agents(&[], |_: &mut Faults| {}, &[], &["no agents", "name=source-ip-observer", "kubectl apply"])]
#[case::none_in_a_namespace(
    &["node1"], |_: &mut Faults| {}, &["--agent-namespace", "else"],
    &["in the namespace else"]
)]
#[case::no_pods_allowed(
    &["node1"], |faults: &mut Faults| faults.forbidden.push("pods".to_owned()), &[],
    &["403", "resources: [pods]", "get, list, watch"]
)]
#[case::no_port_forward_allowed(
    &["node1", "node2"],
    |faults: &mut Faults| faults.forbidden.push("pods/portforward".to_owned()), &[],
    &["none of 2 agents", "resources: [pods/portforward]", "verbs: [get, create]"]
)]
#[case::unauthorized(&["node1"], |faults: &mut Faults| faults.unauthorized = true, &[], &["401"])]
#[case::no_such_pod_any_more(&["node1"], |_: &mut Faults| {}, &[], &["404"])]
#[case::no_such_service(&["node1"], |_: &mut Faults| {}, &["shop/wep"], &["did you mean shop/web"])]
fn what_stands_in_the_way_is_told_in_a_line(
    #[case] pods: &[&str],
    #[case] fault: fn(&mut Faults),
    #[case] more: &[&str],
    #[case] says: &[&str],
) {
    let server = without_agents(pods);
    server.misbehave(fault);
    let told = error(&server, more);
    for part in says {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn an_api_server_that_is_not_there_is_told() {
    let server = without_agents(&[]);
    server.go_away();
    let told = error(&server, &[]);
    assert!(
        told.contains("refused") && told.contains(&server.at().to_string()),
        "{told}"
    );
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let plugin = directory.path().join("kubectl-source_ip");
    let binary = observer_process::binary().expect("an observer");
    std::os::unix::fs::symlink(binary, &plugin).expect("linked");
    let server = without_agents(&[]);
    let told = error_of(&plugin, &["shop/web"], &server, &[]);
    assert!(told.contains("there are no agents"), "{told}");
}

/// An agent that says whatever it is told to say.
struct Fake {
    _network: Namespace,
    server: ApiServer,
}

impl Fake {
    /// `itself`: what it says of itself; `says`: the lines that follow, after which it is silent.
    fn start(itself: &str, says: &str) -> Self {
        let network = Namespace::create("agent").expect("a namespace");
        let answers = [answer(itself, true), answer(says, false)];
        let thread = network.spawn(move || {
            let listener = TcpListener::bind(API)?;
            Ok(move || {
                for stream in listener.incoming().flatten() {
                    // Whoever hangs up has heard enough.
                    let _gone = serve(stream, &answers);
                }
            })
        });
        // It ends with the process.
        drop(thread.expect("serves"));
        let server = without_agents(&["node1"]);
        server.place(NAMESPACE, "agent-node1-a", &network);
        Self {
            _network: network,
            server,
        }
    }
}

/// With a length, or without an end.
fn answer(body: &str, is_whole: bool) -> String {
    if is_whole {
        let length = body.len();
        return format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    }
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n")
}

/// The first answer to the first request, the second to the second.
fn serve(stream: TcpStream, answers: &[String; 2]) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    for answer in answers {
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        writer.write_all(answer.as_bytes())?;
    }
    // Until the other end hangs up.
    reader.read_to_end(&mut Vec::new()).map(drop)
}

const ITSELF: &str = r#"{"schema":"observer.node/v1","version":"0.9.1","node":"node1","more":[1]}"#;

/// A record as a later agent may send it.
fn record_of_the_future() -> Value {
    json!({
        "schema": "observer.connection/v1", "node": "node1", "from": "start", "protocol": "TCP",
        "observed_at": "2026-11-25T12:00:00.000000Z", "service": null,
        "front_door": {"kind": "NodePort", "ip": "172.31.0.11", "port": 30080, "more": 1},
        "client": {"ip": "203.0.113.50", "port": 50_000, "kind": "external", "recovered": null},
        "backend": null, "source_seen": null, "source_ip": "unknown", "lost_at": null,
        "cause": null, "outcome": "teleported", "outcome_cause": null, "extra_hops": null,
        "extra_hop_ns": null, "hop_check": null, "path": [], "round_trip_ns": null,
        "expected": null, "as_expected": null, "advice": [], "more": {"much": "more"},
    })
}

#[test]
fn an_agent_of_another_version_is_understood_as_far_as_can_be() {
    if !privilege::granted("an_agent_of_another_version_is_understood_as_far_as_can_be") {
        return;
    }
    let mut unreadable = record_of_the_future();
    unreadable["protocol"] = json!("QUIC");
    let says = [
        json!({"schema": "observer.notice/v1", "kind": "sings", "node": "node1"}),
        json!({"schema": "observer.weather/v3"}),
        unreadable.clone(),
        unreadable,
        record_of_the_future(),
    ];
    let says = says.map(|line| line.to_string()).join("\n\n") + "\n";
    let fake = Fake::start(ITSELF, &says);
    let trace = ObserverProcess::start_across(&fake.server.kubeconfig(), &["--count", "1"]);
    let finished = trace.expect("follows").wait().expect("ends by itself");
    assert_eq!(finished.records.len(), 1);
    assert_eq!(finished.records[0]["outcome"], "unknown");
    let said = &finished.stderr;
    assert_eq!(said.matches("a record cannot be read").count(), 1, "{said}");
    assert!(
        !said.contains("version 0.9.1"),
        "a minor version is no matter: {said}"
    );
    let told = summary(&finished, "node1");
    assert!(
        told.contains("1 records") && told.contains("2 unreadable"),
        "{told}"
    );

    let fake = Fake::start(&ITSELF.replace("0.9.1", "7.0.0"), &says);
    let trace = ObserverProcess::start_across(&fake.server.kubeconfig(), &["--count", "1"]);
    let finished = trace.expect("follows").wait().expect("ends by itself");
    let said = &finished.stderr;
    assert_eq!(
        said.matches("the agent on node1 is of version 7.0.0")
            .count(),
        1,
        "{said}"
    );
}

#[test]
fn what_was_missed_is_told() {
    if !privilege::granted("what_was_missed_is_told") {
        return;
    }
    let lagged = r#"{"schema":"observer.notice/v1","node":"node1","kind":"lagged","missed":123}"#;
    let fake = Fake::start(ITSELF, &format!("{}\n{lagged}\n", record_of_the_future()));
    let trace = ObserverProcess::start_across(&fake.server.kubeconfig(), &["--count", "2"]);
    let finished = trace.expect("follows").wait().expect("ends by itself");
    let said = &finished.stderr;
    assert!(
        said.contains("node1: its agent let go: it was read too slowly, and 123"),
        "{said}"
    );
    let told = summary(&finished, "node1");
    assert!(told.contains("123 missing"), "{told}");
}

#[rstest]
#[case::no_http(["SSH-2.0\r\n", ""], "does not answer")]
#[case::no_agent(["HTTP/1.1 404 Not Found\r\ncontent-length: 17\r\n\r\n{\"error\": \"else\"}", ""], "404: else")]
#[case::no_json(["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]", ""], "cannot be read")]
#[case::hangs_up(["", ""], "does not answer")]
fn what_is_no_agent_is_told(#[case] answers: [&str; 2], #[case] says: &str) {
    if !privilege::granted("what_is_no_agent_is_told") {
        return;
    }
    let network = Namespace::create("agent").expect("a namespace");
    let answers = answers.map(str::to_owned);
    let thread = network.spawn(move || {
        let listener = TcpListener::bind(API)?;
        Ok(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 64];
                let _asked = stream.read(&mut head);
                let _gone = stream.write_all(answers[0].as_bytes());
            }
        })
    });
    drop(thread.expect("serves"));
    let server = without_agents(&["node1"]);
    server.place(NAMESPACE, "agent-node1-a", &network);
    let told = error(&server, &[]);
    assert!(told.contains(says), "{told}");
}

#[test]
fn a_pod_where_nobody_listens_is_told() {
    if !privilege::granted("a_pod_where_nobody_listens_is_told") {
        return;
    }
    let network = Namespace::create("agent").expect("a namespace");
    let server = without_agents(&["node1"]);
    server.place(NAMESPACE, "agent-node1-a", &network);
    let told = error(&server, &[]);
    assert!(
        told.contains("port 9807") && told.contains("refused"),
        "{told}"
    );
}
