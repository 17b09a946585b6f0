//! More than anybody can follow, on purpose.
//!
//! Goal: a flood of opening packets takes from the node no more than the flood itself does; those who
//! connect meanwhile get right verdicts, as many as is said; every opening is reported or counted;
//! and when it is over, all is as before. Method: pour opening packets of invented clients into a node
//! of the demo cluster, as many as this machine makes, beside real connections; then count.

use std::{
    collections::HashMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tests::{
    client::Answer,
    demo,
    flood::{Flood, counted},
    lab::Lab,
    observer_process::{Finished, ObserverProcess},
    privilege,
};

/// Whose pods see the client; and whose see the node, if their own is another.
const API: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 30_081);
const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 30_080);
const FLOOD_TIME: Duration = Duration::from_secs(6);
/// The observer's programs stop when it was silent for ten seconds; far less, then.
const STUCK: Duration = Duration::from_secs(4);
/// After a flood it follows twice as many every half second, and settles for one.
const UNTIL_ALL_IS_FOLLOWED: Duration = Duration::from_secs(7);
/// From one real connection to the next.
const INTERVAL: Duration = Duration::from_millis(4);
/// How many are opened when it is over.
const AFTER: usize = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Every way in which an opening can be counted instead of being reported.
const INSTEAD: [&str; 5] = [
    "not followed, of too many",
    "ring buffer full",
    "too many pending",
    "arrivals let go by the full map",
    "arrivals refused by the map",
];

/// Prints a figure for whoever reads the log.
fn say(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").expect("printed");
}

fn client_of(record: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = record.pointer("/client/ip")?.as_str()?.parse().ok()?;
    let port = record.pointer("/client/port")?.as_u64()?;
    Some((ip, u16::try_from(port).ok()?).into())
}

fn is_of_flood(record: &Value) -> bool {
    let client = client_of(record).map(|client| client.ip());
    matches!(client, Some(IpAddr::V4(ip)) if Flood::is_client(ip))
}

fn start(lab: &Lab) -> ObserverProcess {
    let node = lab.node("node1").expect("a node");
    ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes")
}

/// Connects some times, each to be answered, and waits for the last one's record.
fn connect(lab: &Lab, times: usize) -> Vec<Answer> {
    let connect = |_| {
        lab.connect(API.into(), CONNECT_TIMEOUT)
            .expect("answered, now that all is over")
    };
    let answers = (0..times).map(connect).collect();
    thread::sleep(Duration::from_millis(500));
    answers
}

/// Demands that each of these was reported, once.
fn assert_reported(finished: &Finished, answers: &[Answer]) {
    for Answer { local, .. } in answers {
        let reported = finished
            .records
            .iter()
            .filter(|record| client_of(record) == Some(*local));
        assert_eq!(reported.count(), 1, "{local}: {}", finished.stderr);
    }
}

/// Demands that each opening was reported or counted, of so many.
fn assert_none_is_missing(finished: &Finished, opened: u64) {
    let Finished {
        records, stderr, ..
    } = finished;
    let instead = INSTEAD.map(|reason| counted(stderr, reason));
    let reported = records.len() as u64;
    say(&format!(
        "{opened} opened, {reported} reported, instead {instead:?}"
    ));
    assert_eq!(reported + instead.iter().sum::<u64>(), opened, "{stderr}");
}

#[test]
fn of_a_flood_all_is_reported_or_counted_and_then_all_is_reported() {
    if !privilege::granted("of_a_flood_all_is_reported_or_counted_and_then_all_is_reported") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut flood = Flood::through(&node.namespace, API).expect("a device");
    let observer = start(&lab);
    flood.pour(Instant::now() + FLOOD_TIME).expect("sent");
    say(&format!("{} a second", flood.sent() / FLOOD_TIME.as_secs()));
    thread::sleep(UNTIL_ALL_IS_FOLLOWED);
    let answers = connect(&lab, AFTER);
    let finished = observer.stop().expect("stops");
    assert_reported(&finished, &answers);
    assert_none_is_missing(&finished, flood.sent() + answers.len() as u64);
    assert!(
        counted(&finished.stderr, INSTEAD[0]) > 0,
        "{}",
        finished.stderr
    );
    for said in [
        "more connections open than can be followed",
        "every connection is followed again",
        "s only one connection in ",
    ] {
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
}

/// A connection, by the client's end and the front door's port. A port may serve for two doors, and
/// for one after the other through the same.
type End = (SocketAddr, u16);

/// As many real connections as there may be at this pace.
fn connect_until(lab: &Lab, until: Instant) -> HashMap<End, Vec<Answer>> {
    let mut answers = HashMap::<End, Vec<Answer>>::new();
    for door in [API, WEB].into_iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        // One that fails in a flood is no affair of this test.
        if let Ok(answer) = lab.connect(door.into(), CONNECT_TIMEOUT) {
            let end = (answer.local, door.port());
            answers.entry(end).or_default().push(answer);
        }
        thread::sleep(INTERVAL);
    }
    answers
}

#[test]
fn who_connects_in_a_flood_gets_the_verdict_that_the_socket_saw() {
    if !privilege::granted("who_connects_in_a_flood_gets_the_verdict_that_the_socket_saw") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut flood = Flood::through(&node.namespace, API).expect("a device");
    let observer = start(&lab);
    let until = Instant::now() + FLOOD_TIME;
    let answers = thread::scope(|scope| {
        let real = scope.spawn(|| connect_until(&lab, until));
        flood.pour(until).expect("sent");
        real.join().expect("connected")
    });
    thread::sleep(Duration::from_secs(4));
    let finished = observer.stop().expect("stops");
    let real = finished
        .records
        .iter()
        .filter(|record| !is_of_flood(record));
    let mut reported = 0;
    for record in real {
        let client = client_of(record).expect("a client");
        let door = record.pointer("/front_door/port").and_then(Value::as_u64);
        let door = u16::try_from(door.expect("a front door")).expect("a port");
        let Some(answers) = answers.get(&(client, door)) else {
            continue;
        };
        reported += 1;
        let is_right = |answer: &Answer| {
            let seen = answer.peer_seen;
            let kept = if seen == client { "preserved" } else { "lost" };
            let source = json!({"ip": seen.ip(), "port": seen.port()});
            record.pointer("/source_ip") == Some(&json!(kept))
                && record.pointer("/source_seen") == Some(&source)
        };
        assert!(answers.iter().any(is_right), "{answers:?}: {record}");
        let outcome = record.pointer("/outcome").and_then(Value::as_str);
        assert!(matches!(outcome, Some("answered" | "unknown")), "{record}");
    }
    say(&format!(
        "{} of the flood, {} real connections, {reported} reported; {}",
        flood.sent(),
        answers.values().map(Vec::len).sum::<usize>(),
        finished.stderr.lines().last().unwrap_or_default()
    ));
    assert!(reported > 0, "{}", finished.stderr);
}

#[test]
fn an_observer_that_is_stuck_in_a_flood_counts_and_recovers() {
    if !privilege::granted("an_observer_that_is_stuck_in_a_flood_counts_and_recovers") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut flood = Flood::through(&node.namespace, API).expect("a device");
    let observer = start(&lab);
    let pid = Pid::from_raw(i32::try_from(observer.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    flood.pour(Instant::now() + STUCK).expect("sent");
    kill(pid, Signal::SIGCONT).expect("goes on");
    flood
        .pour(Instant::now() + Duration::from_secs(1))
        .expect("sent");
    thread::sleep(UNTIL_ALL_IS_FOLLOWED);
    let answers = connect(&lab, AFTER);
    let finished = observer.stop().expect("stops");
    assert_reported(&finished, &answers);
    assert_none_is_missing(&finished, flood.sent() + answers.len() as u64);
    assert!(
        counted(&finished.stderr, "ring buffer full") > 0,
        "{}",
        finished.stderr
    );
}
