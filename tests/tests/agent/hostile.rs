//! Requests from the network are anything at all.

use std::{
    io::{self, Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use tests::{
    demo,
    http::{self, Follower},
    privilege,
};

use super::{API, SOON, counted, get, samples, start, until};

const CUT_OFF: &str = "source_ip_observer_followers_cut_off_total";
/// Connections that one address takes at a time.
const CONNECTIONS_MAX: usize = 256;
const FOLLOWERS_MAX: usize = 64;

#[test]
fn what_is_no_request_is_refused_and_said_once() {
    if !privilege::granted("what_is_no_request_is_refused_and_said_once") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let ask = |bytes: &[u8]| {
        let mut stream = http::connect(&node.namespace, API).expect("connected");
        // It may hang up before it has read everything.
        let _hung_up = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long_line = [b"GET /", &*vec![b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    let many = "X-More: of the same\r\n".repeat(1_000);
    let many = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let answers = [
        (ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ""),
        (ask(b"\r\n\r\n\r\nHELLO\r\n\r\n"), "HTTP/1.1 400 "),
        (ask(&long_line), "HTTP/1.1 4"),
        (ask(many.as_bytes()), "HTTP/1.1 431 "),
        (
            ask(b"POST /v1/node HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n"),
            "HTTP/1.0 405 ",
        ),
        (
            ask(b"GET /../../etc/passwd HTTP/1.0\r\n\r\n"),
            "HTTP/1.0 404 ",
        ),
        (ask(b"GET /v1/node%00 HTTP/1.0\r\n\r\n"), "HTTP/1.0 404 "),
    ];
    for (answer, start) in answers {
        assert!(answer.starts_with(start), "{start}: {answer:?}");
    }
    for _ in 0..20 {
        assert_eq!(get(node, "/nowhere").status, 404);
    }
    let refused = counted(&samples(node), "source_ip_observer_requests_refused_total");
    assert!(refused >= 24.0, "{refused}");
    let finished = agent.stop().expect("stops");
    assert_eq!(
        finished.stderr.matches("not_found").count(),
        1,
        "{}",
        finished.stderr
    );
    assert!(finished.status.success());
}

/// One that sends its request a byte at a time, and one that never does.
#[test]
fn the_slow_are_hung_up_on() {
    if !privilege::granted("the_slow_are_hung_up_on") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let mut silent = http::connect(&node.namespace, API).expect("connected");
    let mut slow = http::connect(&node.namespace, API).expect("connected");
    let started = Instant::now();
    while slow.write_all(b"G").is_ok() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "it may drip for ever"
        );
        thread::sleep(Duration::from_millis(500));
    }
    // It has been silent for longer than that.
    let mut end = [0];
    match silent.read(&mut end) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("the silent one is not hung up on: {other:?}"),
    }
    assert_eq!(get(node, "/healthz").status, 200);
    agent.stop().expect("stops");
}

#[test]
fn no_number_of_connections_or_followers_keeps_it_from_its_work() {
    if !privilege::granted("no_number_of_connections_or_followers_keeps_it_from_its_work") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let followers: Vec<_> = (0..FOLLOWERS_MAX)
        .map(|_| Follower::start(&node.namespace, API, "/v1/connections?follow=1").expect("one"))
        .collect();
    let more = http::get(&node.namespace, API, "/v1/connections?follow=1", &[]).expect("answered");
    assert_eq!(more.status, 503, "{more:?}");
    let idle: Vec<_> = (FOLLOWERS_MAX..CONNECTIONS_MAX * 2)
        .map(|_| http::connect(&node.namespace, API).expect("connected"))
        .collect();
    // At the other address there is room: probes and Prometheus get in.
    assert!(counted(&samples(node), "source_ip_observer_followers") >= 64.0);
    let refused = || counted(&samples(node), "source_ip_observer_requests_refused_total");
    until("what is too much is refused", || refused() > 100.0);
    lab.connect(([172, 31, 0, 11], 30_080).into(), Duration::from_secs(2))
        .expect("answered");
    for follower in &followers {
        follower.wait_for(1, SOON).expect("it goes on");
    }
    drop(idle);
    for follower in followers {
        follower.stop().expect("hung up");
    }
    until("there is room again", || {
        http::get(&node.namespace, API, "/healthz", &[]).is_ok_and(|answer| answer.status == 200)
    });
    agent.stop().expect("stops");
}

/// One that reads nothing: it is cut off, and nobody waits for it.
#[test]
fn a_stuck_follower_is_cut_off() {
    if !privilege::granted("a_stuck_follower_is_cut_off") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let door = ([172, 31, 0, 11], 30_080).into();
    for _ in 0..300 {
        lab.connect(door, Duration::from_secs(2)).expect("answered");
    }
    // Its window is small, and what is recent is more than that and the agent's own buffers hold.
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let stream = http::connect(&node.namespace, API).expect("connected");
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &4_096)
            .expect("set");
        let request = b"GET /v1/connections?follow=1&recent=1 HTTP/1.0\r\n\r\n";
        (&stream).write_all(request).expect("asked");
        stuck.push(stream);
    }
    let well = Follower::start(&node.namespace, API, "/v1/connections?follow=1").expect("one");
    let started = Instant::now();
    let mut opened = 0;
    while counted(&samples(node), CUT_OFF) < 4.0 {
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "they are never cut off"
        );
        for _ in 0..20 {
            lab.connect(door, Duration::from_secs(2)).expect("answered");
            opened += 1;
        }
    }
    well.wait_for(opened, SOON)
        .expect("the others miss nothing");
    let followers = || counted(&samples(node), "source_ip_observer_followers");
    until("only one is left", || (followers() - 1.0).abs() < 0.5);
    well.stop().expect("hung up");
    agent.stop().expect("stops");
}

/// Prometheus keeps its connection from scrape to scrape: that it is closed in between is no
/// refusal.
#[test]
fn a_connection_that_idles_after_its_answer_is_no_refusal() {
    if !privilege::granted("a_connection_that_idles_after_its_answer_is_no_refusal") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let mut stream = http::connect(&node.namespace, API).expect("connected");
    stream.set_read_timeout(Some(2 * SOON)).expect("set");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n")
        .expect("asked");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("closed in the end");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let refused = counted(&samples(node), "source_ip_observer_requests_refused_total");
    assert!(refused < 0.5, "{refused}");
    agent.stop().expect("stops");
}

/// However much passes by its filter.
#[test]
fn a_follower_that_nothing_comes_for_hears_that_the_agent_lives() {
    if !privilege::granted("a_follower_that_nothing_comes_for_hears_that_the_agent_lives") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let agent = start(node, &[]);
    let query = "/v1/connections?follow=1&client=192.0.2.1";
    let follower = Follower::start(&node.namespace, API, query).expect("one");
    let started = Instant::now();
    while follower.lines().len() < 2 {
        assert!(started.elapsed() < 2 * SOON, "it hears nothing");
        lab.connect(([172, 31, 0, 11], 30_080).into(), Duration::from_secs(2))
            .expect("answered");
    }
    assert!(
        started.elapsed() > Duration::from_secs(9),
        "and not too often"
    );
    assert_eq!(follower.stop().expect("hung up"), ["", ""]);
    agent.stop().expect("stops");
}
