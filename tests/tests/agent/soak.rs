//! A busy node: a thousand new connections a second, with one who follows and one who is stuck.
//!
//! Goal: none is missing, none is counted twice, each is judged as its socket saw it; nothing is
//! lost; memory stays where it is. `cargo xtask soak` goes on for five minutes; the suite takes
//! less.

use std::{
    env,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    client,
    http::{self, Follower},
    kubeproxy::{
        Mode,
        doors::{Found, Kind, front_doors},
    },
    lab::{Lab, LabNode},
    privilege,
    protocol::Protocol,
    scene::Scene,
};

use super::{API, SOON, counted, samples, start};

/// How many seconds it goes on.
const SECONDS_VARIABLE: &str = "SOAK_SECONDS";
const SECONDS: u64 = 15;
/// Connections a second, all clients together.
const RATE: u32 = 1_000;
/// Addresses of the external client: ports of one would run out.
const CLIENTS: u8 = 8;
/// Ports are free again after so long; the kernel's two minutes would run out of them, too.
const TIME_WAIT: (&str, &str) = ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
const PATIENCE: Duration = Duration::from_secs(5);
const RESIDENT_MAX: f64 = 100.0 * 1_048_576.0;
/// From a third of the time on nothing more is allotted for good.
const GROWTH_MAX: f64 = 8.0 * 1_048_576.0;

/// Who connected, and whether the pod saw another address.
type Seen = (SocketAddr, bool);

/// Connects at an even pace until it is time; what the sockets saw.
fn connect(source: IpAddr, doors: &[SocketAddr], until: Instant) -> Vec<Seen> {
    let interval = Duration::from_secs(1) * u32::from(CLIENTS) / RATE;
    let start = Instant::now();
    let mut seen = Vec::new();
    for (number, door) in (0_u32..).zip(doors.iter().cycle()) {
        if Instant::now() >= until {
            break;
        }
        thread::sleep((start + interval * number).saturating_duration_since(Instant::now()));
        let answer = client::connect_from_here(Protocol::Tcp, Some(source), *door, PATIENCE)
            .expect("answered");
        seen.push((answer.local, answer.peer_seen.ip() != answer.local.ip()));
    }
    seen
}

/// What a line says of the same; `None` if it is no record.
fn told(line: &str) -> Option<Seen> {
    let record: Value = serde_json::from_str(line).ok()?;
    let ip = record.pointer("/client/ip")?.as_str()?.parse().ok()?;
    let port = record.pointer("/client/port")?.as_u64()?;
    let is_lost = record.get("source_ip")? == "lost";
    Some((SocketAddr::new(ip, u16::try_from(port).ok()?), is_lost))
}

/// Asks for everything and reads nothing; again, when it is cut off.
fn be_stuck(node: &LabNode, stop: &AtomicBool) {
    let mut stuck: Option<TcpStream> = None;
    while !stop.load(Ordering::Relaxed) {
        let is_cut_off = stuck.as_ref().is_none_or(|stream| {
            let error = stream.take_error().expect("a socket");
            error.is_some()
        });
        if is_cut_off {
            let mut stream = http::connect(&node.namespace, API).expect("connected");
            nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &4_096)
                .expect("set");
            stream
                .write_all(b"GET /v1/connections?follow=1&recent=1 HTTP/1.0\r\n\r\n")
                .expect("asked");
            stuck = Some(stream);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn raised() -> Lab {
    let mut scene = Scene::demo();
    scene.client = (0..CLIENTS)
        .map(|number| format!("203.0.113.{}/24", 50 + number))
        .map(|address| address.parse().expect("a range"))
        .collect();
    let lab = scene.raise(scene.settings(Mode::Nftables)).expect("raised");
    for node in lab.nodes() {
        node.namespace.set_parameters(&[TIME_WAIT]).expect("set");
    }
    lab
}

/// By node1, to wherever somebody answers.
fn doors(lab: &Lab) -> Vec<SocketAddr> {
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let wanted = doors.iter().filter(|door| {
        door.kind == Kind::NodePort
            && door.endpoints == Found::Some
            && door.entry == "node1"
            && door.to.is_ipv4()
            && door.protocol == Protocol::Tcp
    });
    wanted.map(|door| door.to).collect()
}

#[test]
fn a_busy_node_is_told_whole_and_costs_no_more_and_more() {
    if !privilege::granted("a_busy_node_is_told_whole_and_costs_no_more_and_more") {
        return;
    }
    let seconds = env::var(SECONDS_VARIABLE).map_or(SECONDS, |seconds| {
        seconds
            .parse()
            .expect("SOAK_SECONDS is a number of seconds")
    });
    let lab = raised();
    let node = lab.node("node1").expect("a node");
    let doors = doors(&lab);
    let agent = start(node, &[]);
    let followed = std::sync::Arc::new(Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&followed);
    let reader = Follower::start_with(
        &node.namespace,
        API,
        "/v1/connections?follow=1",
        move |line| {
            kept.lock().expect("no one died").extend(told(&line));
        },
    )
    .expect("followed");

    let before = samples(node);
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let stop = AtomicBool::new(false);
    let (mut seen, resident) = thread::scope(|scope| {
        scope.spawn(|| be_stuck(node, &stop));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (lab, doors) = (&lab, &doors);
                let source = IpAddr::from([203, 0, 113, 50 + number]);
                scope.spawn(move || {
                    let connecting = || connect(source, doors, until);
                    lab.client().run(connecting).expect("inside")
                })
            })
            .collect();
        let mut resident = Vec::new();
        while Instant::now() < until {
            thread::sleep(Duration::from_secs(1));
            resident.push(counted(&samples(node), "process_resident_memory_bytes"));
        }
        let seen: Vec<Seen> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("connected"))
            .collect();
        stop.store(true, Ordering::Relaxed);
        (seen, resident)
    });
    let took = started.elapsed().as_secs_f64();
    let deadline = Instant::now() + SOON;
    while followed.lock().expect("no one died").len() < seen.len() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let after = samples(node);
    agent.stop().expect("stops");
    reader.wait().expect("hung up");
    let mut followed = std::mem::take(&mut *followed.lock().expect("no one died"));

    let spent = |name| counted(&after, name) - counted(&before, name);
    let number = u32::try_from(seen.len()).expect("fewer");
    let highest = resident.iter().copied().fold(0.0, f64::max);
    let settled = resident[resident.len() / 3..].iter().copied();
    let growth = settled.clone().fold(0.0, f64::max) - settled.fold(f64::MAX, f64::min);
    let cut_off = spent("source_ip_observer_followers_cut_off_total");
    let cost = format!(
        "{number} connections in {took:.0} s, {:.0} a second; of the agent: {:.1} % of a core, \
         {:.0} µs each; at most {:.1} MiB resident, {:.1} MiB between its least and its most after \
         a third of the time; {cut_off:.0} times a stuck follower was cut off",
        f64::from(number) / took,
        100.0 * spent("process_cpu_seconds_total") / took,
        1e6 * spent("process_cpu_seconds_total") / f64::from(number),
        highest / 1_048_576.0,
        growth / 1_048_576.0,
    );
    writeln!(io::stderr(), "{cost}").expect("written");
    assert!(counted(&after, "source_ip_observer_observations_lost_total") < 0.5);
    let counted = spent("source_ip_observer_connections_total");
    assert!(
        (counted - f64::from(number)).abs() < 0.5,
        "{counted} of {number}"
    );
    seen.sort_unstable();
    followed.sort_unstable();
    assert_eq!(followed.len(), seen.len());
    assert!(
        followed == seen,
        "what was told is not what the sockets saw"
    );
    assert!(highest < RESIDENT_MAX, "{resident:?}");
    assert!(growth < GROWTH_MAX, "{resident:?}");
    assert!(cut_off >= 1.0, "the stuck one never was cut off");
}
