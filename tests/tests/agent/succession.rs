//! Agents that follow each other on one node.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    demo,
    http::{self, Follower},
    lab::Lab,
    observer_process::ObserverProcess,
    privilege,
};

use super::{API, SOON, get, records, samples, start, until};

const GAP: &str = "source_ip_observer_gap_seconds";
/// A restart of the process may leave so much unobserved, in seconds.
const GAP_MAX: f64 = 1.0;

/// Where the next agent listens while the first still does; beside it.
const NEXT: [&str; 4] = [
    "--listen",
    "127.0.0.1:9817",
    "--metrics-listen",
    "127.0.0.1:9818",
];

fn clients(records: &[Value]) -> Vec<(String, u64)> {
    let client = |record: &Value| {
        let ip = record["client"]["ip"].as_str().expect("an address");
        let port = record["client"]["port"].as_u64().expect("a port");
        (ip.to_owned(), port)
    };
    records.iter().map(client).collect()
}

/// Connects, one after the other, until told to stop; who connected.
fn connect_until(lab: &Lab, stop: &AtomicBool) -> Vec<(String, u64)> {
    let door = ([172, 31, 0, 11], 30_080).into();
    let mut clients = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let answer = lab.connect(door, Duration::from_secs(2)).expect("answered");
        clients.push((answer.local.ip().to_string(), answer.local.port().into()));
    }
    clients
}

/// An update of the `DaemonSet` that starts the next agent before it ends the first.
#[test]
fn the_next_agent_takes_over_and_no_connection_is_missed_or_counted_twice() {
    if !privilege::granted("the_next_agent_takes_over_and_no_connection_is_missed_or_counted_twice")
    {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let first = start(node, &[]);
    let of_first =
        Follower::start(&node.namespace, API, "/v1/connections?follow=1").expect("followed");
    let stop = AtomicBool::new(false);
    let (connected, of_next, next) = thread::scope(|scope| {
        let connecting = scope.spawn(|| connect_until(&lab, &stop));
        of_first.wait_for(50, SOON).expect("the first counts");
        let next = start(node, &NEXT);
        let of_first_before = of_first.lines().len();
        until("the first goes on while the next waits", || {
            of_first.lines().len() > of_first_before + 50
        });
        first.stop_by(Signal::SIGTERM).expect("stops");
        let next_api = NEXT[1].parse().expect("an address");
        until("the next is asked", || {
            http::get(&node.namespace, next_api, "/readyz", &[])
                .is_ok_and(|ready| ready.status == 200)
        });
        let of_next = Follower::start(
            &node.namespace,
            next_api,
            "/v1/connections?follow=1&recent=1",
        )
        .expect("followed");
        of_next.wait_for(100, SOON).expect("the next counts");
        stop.store(true, Ordering::Relaxed);
        let connected = connecting.join().expect("connected");
        (connected, of_next, next)
    });
    let of_first = clients(&records(&of_first.wait().expect("hung up")));
    let lines = connected.len() - of_first.len();
    of_next.wait_for(lines, SOON).expect("all the rest");
    let finished = next.stop().expect("stops");
    let of_next = clients(&records(&of_next.wait().expect("hung up")));

    // Ports may be used again: as often as they were.
    let mut counted: Vec<_> = of_first.into_iter().chain(of_next).collect();
    counted.sort();
    let mut connected = connected;
    connected.sort();
    assert_eq!(counted.len(), connected.len());
    assert!(counted == connected, "others than those that connected");
    assert!(
        finished.stderr.contains("waiting for its last word"),
        "{}",
        finished.stderr
    );
}

/// A third that somebody starts by hand waits, too, and only one of those that wait is next.
#[test]
fn of_three_agents_one_counts_at_a_time() {
    if !privilege::granted("of_three_agents_one_counts_at_a_time") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let first = start(node, &[]);
    let others = [
        ("127.0.0.1:9817", "127.0.0.1:9818"),
        ("127.0.0.1:9827", "127.0.0.1:9828"),
    ];
    let started = others
        .map(|(listen, metrics)| start(node, &["--listen", listen, "--metrics-listen", metrics]));
    let ready = || {
        others.map(|(listen, _)| {
            let listen = listen.parse().expect("an address");
            let answer = http::get(&node.namespace, listen, "/readyz", &[]);
            answer.is_ok_and(|answer| answer.status == 200)
        })
    };
    first.stop_by(Signal::SIGTERM).expect("stops");
    until("one is next", || ready().contains(&true));
    thread::sleep(Duration::from_secs(1));
    let is_ready = ready();
    assert_ne!(is_ready, [true; 2], "only one");
    let [mut one, mut another] = started.map(Some);
    let next = if is_ready[0] { &mut one } else { &mut another };
    next.take()
        .expect("one")
        .stop_by(Signal::SIGTERM)
        .expect("stops");
    until("then the other is", || ready().contains(&true));
    one.or(another).expect("one is left").stop().expect("stops");
}

/// It was opened before the hand-over, and answered after it: the first sees it through.
#[test]
fn a_connection_in_flight_is_the_first_ones_and_answered() {
    if !privilege::granted("a_connection_in_flight_is_the_first_ones_and_answered") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let first = start(node, &[]);
    let of_first =
        Follower::start(&node.namespace, API, "/v1/connections?follow=1").expect("followed");
    let next = start(node, &NEXT);
    // The answer is held up, and sent again a second after it was first.
    let hold_up = |action: &str| {
        for pod in lab.pods() {
            let rule = format!("{action} OUTPUT -p tcp --tcp-flags SYN,ACK SYN,ACK -j DROP");
            let mut command = pod.namespace.command("iptables");
            command.arg("-w").args(rule.split_whitespace());
            tests::command::run(&mut command).expect("a rule");
        }
    };
    hold_up("-A");
    let client = thread::scope(|scope| {
        let connecting =
            scope.spawn(|| lab.connect(([172, 31, 0, 11], 30_080).into(), Duration::from_secs(5)));
        thread::sleep(Duration::from_millis(200));
        let stopping = scope.spawn(|| first.stop_by(Signal::SIGTERM).expect("stops"));
        thread::sleep(Duration::from_millis(300));
        hold_up("-D");
        stopping.join().expect("stopped");
        connecting.join().expect("connected").expect("answered")
    });
    let told = records(&of_first.wait().expect("hung up"));
    let [record] = &told[..] else {
        panic!("one connection: {told:?}")
    };
    assert_eq!(record["client"]["port"], client.local.port());
    assert_eq!(record["outcome"], "answered", "{record}");
    let next_api = NEXT[1].parse().expect("an address");
    until("the next is asked", || {
        http::get(&node.namespace, next_api, "/readyz", &[]).is_ok_and(|ready| ready.status == 200)
    });
    let of_next = http::get(&node.namespace, next_api, "/v1/connections", &[]).expect("an answer");
    assert_eq!(of_next.body, "", "it is the first one's");
    next.stop().expect("stops");
}

/// A container that is restarted.
#[test]
fn what_a_restart_misses_is_measured_and_less_than_a_second() {
    if !privilege::granted("what_a_restart_misses_is_measured_and_less_than_a_second") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let directory = TempDir::new().expect("a directory");
    let directory = ["--state-dir", directory.path().to_str().expect("text")];
    let gap = |agent: &ObserverProcess| {
        until("it is measured", || {
            agent.id() > 0 && !samples(node).is_empty()
        });
        samples(node).get(GAP).copied()
    };

    let agent = start(node, &directory);
    assert_eq!(gap(&agent), None, "nobody knows what was before the first");
    agent.stop_by(Signal::SIGTERM).expect("stops");
    let stopped = Instant::now();
    let agent = start(node, &directory);
    let at_most = stopped.elapsed().as_secs_f64() + 0.6;
    let after_a_stop = gap(&agent).expect("known");
    assert!(
        after_a_stop <= at_most.min(GAP_MAX),
        "{after_a_stop} of {at_most}"
    );

    agent.kill().expect("killed");
    let agent = start(node, &directory);
    let after_a_kill = gap(&agent).expect("known");
    assert!(after_a_kill <= GAP_MAX, "{after_a_kill}");
    // Killed or not, it is the next one's turn.
    lab.connect(([172, 31, 0, 11], 30_080).into(), Duration::from_secs(2))
        .expect("answered");
    until("it counts", || {
        !get(node, "/v1/connections").body.is_empty()
    });
    agent.stop().expect("stops");
}

/// The other left no word: what came out by then is its own.
#[test]
fn an_agent_whose_predecessor_was_killed_takes_its_turn() {
    if !privilege::granted("an_agent_whose_predecessor_was_killed_takes_its_turn") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let first = start(node, &[]);
    let next = start(node, &NEXT);
    first.kill().expect("killed");
    let next_api = NEXT[1].parse().expect("an address");
    until("the next is ready", || {
        http::get(&node.namespace, next_api, "/readyz", &[]).is_ok_and(|ready| ready.status == 200)
    });
    lab.connect(([172, 31, 0, 11], 30_080).into(), Duration::from_secs(2))
        .expect("answered");
    until("it counts", || {
        let answer = http::get(&node.namespace, next_api, "/v1/connections", &[]);
        answer.is_ok_and(|answer| answer.body.lines().count() == 1)
    });
    next.stop().expect("stops");
}
