//! What is served is what happened.

use std::{collections::BTreeSet, fs, io::Write as _, net::IpAddr};

use serde_json::json;
use tempfile::NamedTempFile;
use tests::{
    attached, demo,
    http::{self, Follower},
    lab::LabNode,
    observer_process::ObserverProcess,
    oracle::{self, Records},
    privilege, traffic,
};

use super::{API, METRICS, SOON, counted, get, records, samples, start, until, ways};

#[test]
fn followers_get_what_the_sockets_saw_and_metrics_count_it() {
    if !privilege::granted("followers_get_what_the_sockets_saw_and_metrics_count_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut config = NamedTempFile::new().expect("a file");
    write!(config, "{}", lab.kube_proxy()).expect("written");
    let config = config.path().to_str().expect("text");
    let agent = start(node, &["--kube-proxy-config", config]);
    let other = lab.node("node2").expect("a node");
    let other_agent = start(other, &["--kube-proxy-config", config]);
    let follow = |node: &LabNode| {
        Follower::start(&node.namespace, API, "/v1/connections?follow=1").expect("followed")
    };
    let (reader, other_reader) = (follow(node), follow(other));
    let opened = traffic::open(&lab, &ways(&lab, "node1")).expect("opened");
    reader.wait_for(opened.len(), SOON).expect("all of them");

    let recent = records(
        &get(node, "/v1/connections")
            .body
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    let samples = samples(node);
    let metrics = counted(&samples, "source_ip_observer_connections_total");
    let finished = agent.stop().expect("stops");
    other_agent.stop().expect("stops");
    let lines = reader.wait().expect("the agent hangs up");
    let of_other = records(&other_reader.wait().expect("the agent hangs up"));
    let end = lines.last().expect("lines");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(end).expect("JSON"),
        json!({"schema": "observer.notice/v1", "node": "node1", "kind": "ending"}),
    );
    let followed = records(&lines);
    assert_eq!(followed, recent, "what is recent is what was followed");
    let number = u32::try_from(followed.len()).expect("few");
    assert!(
        (metrics - f64::from(number)).abs() < 0.5,
        "{metrics} of {number}"
    );
    let lost = followed
        .iter()
        .filter(|record| record["source_ip"] == "lost");
    let lost = u32::try_from(lost.count()).expect("few");
    let counted: f64 = samples
        .iter()
        .filter(|(sample, _)| {
            sample.contains("connections_total{") && sample.contains(r#"source_ip="lost""#)
        })
        .map(|(_, value)| value)
        .sum();
    assert!(
        lost > 0 && (counted - f64::from(lost)).abs() < 0.5,
        "{counted} of {lost}"
    );
    let report = oracle::judge(
        &lab,
        &opened,
        Records::from([
            ("node1".to_owned(), followed),
            ("node2".to_owned(), of_other),
        ]),
    );
    let complaints = report.complaints();
    let complaints: Vec<_> = complaints.iter().map(ToString::to_string).collect();
    assert_eq!(complaints, [] as [&str; 0], "{}", finished.stderr);
    assert!(finished.status.success(), "{}", finished.stderr);
}

#[test]
fn a_node_tells_what_it_has_and_that_it_is_ready() {
    if !privilege::granted("a_node_tells_what_it_has_and_that_it_is_ready") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    for address in [API, METRICS] {
        for (path, body) in [
            ("/healthz", "ok\n"),
            ("/readyz", "programs: attached to eth0"),
        ] {
            until(path, || {
                let answer = http::get(&node.namespace, address, path, &[]).expect("an answer");
                answer.status == 200 && answer.body.starts_with(body)
            });
        }
    }
    // Nothing of clients at the address that more can reach.
    let answer = http::get(&node.namespace, METRICS, "/v1/connections", &[]).expect("an answer");
    assert_eq!(answer.status, 404);

    let answer = get(node, "/v1/node");
    assert!(
        answer.head.contains("observer-version: "),
        "{}",
        answer.head
    );
    let told: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(told["schema"], "observer.node/v1");
    assert_eq!(told["node"], "node1");
    let interfaces = told["interfaces"].as_array().expect("a list");
    assert!(interfaces.contains(&json!("eth0")), "{told}");
    let addresses: BTreeSet<IpAddr> = told["addresses"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|address| address["interface"] == "eth0")
        .map(|address| {
            address["ip"]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address")
        })
        .collect();
    let there: BTreeSet<IpAddr> = node
        .namespace
        .addresses("eth0")
        .expect("addresses")
        .into_iter()
        .collect();
    assert!(addresses.is_superset(&there), "{addresses:?} {there:?}");

    let programs = attached::programs(&node.namespace).expect("programs");
    assert!(!programs.is_empty());
    let finished = agent
        .stop_by(nix::sys::signal::Signal::SIGTERM)
        .expect("stops");
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(attached::surviving_programs(&programs), BTreeSet::new());
}

#[test]
fn what_stands_in_its_way_is_said_in_a_line() {
    if !privilege::granted("what_stands_in_its_way_is_said_in_a_line") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let taken = node
        .namespace
        .run(|| std::net::TcpListener::bind(API))
        .expect("inside")
        .expect("free");
    for (arguments, wrong) in [
        (
            &[][..],
            "cannot listen at 127.0.0.1:9807: Address already in use",
        ),
        (&["--interface", "eth7"][..], "there is no interface eth7"),
        (
            &["--state-dir", "/nowhere"][..],
            "the state directory /nowhere",
        ),
        (
            &["--token-file", "/nowhere"][..],
            "the token file /nowhere cannot be read",
        ),
    ] {
        let beside = ["--listen", "127.0.0.1:9817"];
        let arguments = if arguments.is_empty() {
            Vec::new()
        } else {
            [arguments, &beside].concat()
        };
        let failed = ObserverProcess::start_agent(node, &arguments).expect_err("it cannot");
        let said = format!("{failed:#}");
        assert!(said.contains(wrong), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    drop(taken);
}

#[test]
fn what_is_asked_for_comes_and_no_more() {
    if !privilege::granted("what_is_asked_for_comes_and_no_more") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let opened = traffic::open(&lab, &ways(&lab, "node1")).expect("opened");
    let asked = |query: &str| {
        let answer = get(node, &format!("/v1/connections{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines: Vec<_> = answer.body.lines().map(str::to_owned).collect();
        records(&lines)
    };
    until("all are there", || asked("").len() >= opened.len());
    let all = asked("");
    let lost = asked("?lost=true");
    assert!(!lost.is_empty() && lost.len() < all.len());
    assert!(lost.iter().all(|record| record["source_ip"] == "lost"));
    let web = asked("?service=shop/web");
    assert!(!web.is_empty() && web.len() < all.len());
    assert!(web.iter().all(|record| record["service"]["name"] == "web"));
    assert_eq!(asked("?client=192.0.2.0/24").len(), 0);
    assert_eq!(asked("?limit=2"), all[all.len() - 2..]);
    let wrong = get(node, "/v1/connections?servce=shop/web");
    assert_eq!(wrong.status, 400);
    assert!(
        wrong
            .body
            .starts_with(r#"{"error":"servce: there is no such parameter"#),
        "{wrong:?}"
    );
    agent.stop().expect("stops");
}

#[test]
fn clients_addresses_are_shortened_if_that_is_asked_for() {
    if !privilege::granted("clients_addresses_are_shortened_if_that_is_asked_for") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &["--anonymize"]);
    let opened = traffic::open(&lab, &ways(&lab, "node1")).expect("opened");
    until("all are there", || {
        get(node, "/v1/connections").body.lines().count() >= opened.len()
    });
    let served = get(node, "/v1/connections").body;
    let metrics = http::get(&node.namespace, METRICS, "/metrics", &[]).expect("metrics");
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    for opened in opened {
        let client = opened.client.ip().to_string();
        // By itself, before a port, or at the end of a sentence.
        let has_it = |text: &str| {
            let mut words = text.split(|c| !is_part(c));
            words.any(|word| {
                let behind = word.strip_prefix(&client);
                behind.is_some_and(|behind| behind.is_empty() || behind.starts_with([':', '.']))
            })
        };
        assert!(!has_it(&served), "{client}");
        assert!(!has_it(&metrics.body), "{client}");
    }
    assert!(served.contains("\"203.0.113.0\"") && served.contains("\"2001:db8:113::\""));
    agent.stop().expect("stops");
}

#[test]
fn beyond_the_host_a_token_is_asked_for() {
    if !privilege::granted("beyond_the_host_a_token_is_asked_for") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let address = node.plan.addresses.first().expect("an address");
    let listen = std::net::SocketAddr::new(*address, 9_807);
    let refused = ObserverProcess::start_agent(node, &["--listen", &listen.to_string()])
        .expect_err("nobody asks for a token");
    assert!(
        format!("{refused:#}").contains("give --token-file"),
        "{refused:#}"
    );

    let token = NamedTempFile::new().expect("a file");
    fs::write(token.path(), "open sesame\n").expect("written");
    let file = token.path().to_str().expect("text");
    let agent = start(
        node,
        &["--listen", &listen.to_string(), "--token-file", file],
    );
    let status = |headers: &[&str]| {
        http::get(&node.namespace, listen, "/v1/connections", headers)
            .expect("an answer")
            .status
    };
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&["Authorization: Bearer open"]), 401);
    assert_eq!(status(&["Authorization: Basic open sesame"]), 401);
    assert_eq!(status(&["Authorization: Bearer open sesame"]), 200);
    let probe = http::get(&node.namespace, listen, "/healthz", &[]).expect("an answer");
    assert_eq!(probe.status, 200);
    let finished = agent.stop().expect("stops");
    assert!(!finished.stderr.contains("sesame"), "{}", finished.stderr);
}
