//! What the core costs: a connection's bytes from the ring buffer, to its line of JSON.
//!
//! `cargo run --release -p observer-bench` measures, and prints one JSON object; `-- --absorb` does
//! the same of the whole observer (root, `OBSERVER_BIN` or the release build); `-- --fixed` does a fixed work, single-threaded, for callgrind to count (`fixed_work`).

mod absorb;
mod cluster;
mod counting;
mod feed;
mod wire;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use nix::time::{ClockId, clock_gettime};
use observer::cluster::{LocalAddresses, Protocol, Snapshot};
use observer::observation::{IfIndex, Interfaces, Moment, Observation};
use observer::observe::{Asking, Epoch, Event, Observer, Output, Settings};
use observer::record::write_line;
use serde_json::{Value, json};

use self::counting::{Counted, allotted};
use self::wire::{Answered, connection};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// How many Services the cluster has.
const SERVICES: [usize; 3] = [10, 1_000, 5_000];
/// Connections in a round: so many that what is remembered of them does not fit the caches.
const CONNECTIONS: u32 = 20_000;
/// The figure is the median's.
const ROUNDS: u32 = 7;
/// Of the fixed work.
const FIXED_SERVICES: usize = 1_000;
const FIXED_CONNECTIONS: u32 = 5_000;
/// What the flow keeps at most.
const TRACKED: u32 = 100_000;
const LOOK_UPS: u32 = 200_000;
const SECOND: u64 = 1_000_000_000;

fn main() -> anyhow::Result<()> {
    let is_asked = |what| env::args().any(|argument| argument == what);
    let line = if is_asked("--absorb") {
        json!({"absorb": absorb::absorb()?})
    } else if is_asked("--tracked") {
        json!({"tracked": absorb::only_tracked()?})
    } else if is_asked("--fixed") {
        let mut observer = observer(&cluster::snapshot(FIXED_SERVICES));
        let bytes = fixed_work(&mut observer, &wires(FIXED_SERVICES, FIXED_CONNECTIONS));
        json!({"connections": FIXED_CONNECTIONS, "bytes": bytes})
    } else {
        json!({"core": {
            "connections": SERVICES.map(per_connection),
            "look_ups": SERVICES.map(look_ups),
            "memory": memory(),
        }})
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

/// An observer of node1, which knows this.
fn observer(snapshot: &Arc<Snapshot>) -> Observer {
    let settings = Settings {
        node: "node1".to_owned(),
        epoch: Epoch(jiff::Timestamp::UNIX_EPOCH),
        answer_timeout_ns: 3 * SECOND,
        all: false,
        follows_cluster: true,
        first_bytes: Asking::default(),
    };
    let mut observer = Observer::new(settings, Some(Arc::clone(snapshot)));
    observer.handle(Event::Interfaces(Interfaces {
        names: BTreeMap::from([
            (IfIndex(wire::UPLINK), "eth0".to_owned()),
            (IfIndex(wire::POD), "veth0a1b2c3d".to_owned()),
        ]),
        addresses: [IpAddr::from(cluster::NODE)].into(),
        ..Interfaces::default()
    }));
    observer
}

/// The two observations of each of so many connections.
fn wires(services: usize, connections: u32) -> Vec<[u8; wire::BYTES]> {
    (0..connections)
        .flat_map(|number| connection(number, services, Answered::Yes))
        .collect()
}

/// From the ring buffer's bytes to lines; how many bytes they are. By itself, so that it can be told
/// from what prepares it.
#[inline(never)]
fn fixed_work(observer: &mut Observer, wires: &[[u8; wire::BYTES]]) -> usize {
    let mut lines = Vec::with_capacity(1 << 16);
    let mut bytes = 0;
    for wire in wires {
        let observation = Observation::decode(wire).expect("as the programs write it");
        for output in observer.handle(Event::Observation(observation)) {
            if let Output::Record(_, record) = output {
                write_line(&mut lines, &record).expect("a record is JSON");
            }
        }
        if lines.len() > 1 << 15 {
            bytes += black_box(&lines).len();
            lines.clear();
        }
    }
    bytes + lines.len()
}

/// What this thread ran for so far, whoever else did, in seconds.
fn spent() -> f64 {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("there is such a clock");
    Duration::from(spent).as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// Nanoseconds and allocations of a connection.
fn per_connection(services: usize) -> Value {
    let snapshot = cluster::snapshot(services);
    let wires = wires(services, CONNECTIONS);
    let mut figures = Vec::new();
    let mut allocations = 0.0;
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut observer = observer(&snapshot);
        let before = allotted().times;
        let start = spent();
        bytes = fixed_work(&mut observer, &wires);
        let took = spent() - start;
        let times = f64::from(u32::try_from(allotted().times - before).unwrap_or(u32::MAX));
        allocations = times / f64::from(CONNECTIONS);
        figures.push(took * 1e9 / f64::from(CONNECTIONS));
    }
    let least = figures.iter().copied().fold(f64::MAX, f64::min);
    json!({
        "services": services,
        "ns": rounded(median(figures)),
        "ns_least": rounded(least),
        "allocations": rounded(allocations),
        "line_bytes": bytes / CONNECTIONS as usize,
    })
}

/// Nanoseconds of the index's answers, and what building it takes.
fn look_ups(services: usize) -> Value {
    let start = spent();
    let snapshot = cluster::snapshot(services);
    let built_ms = (spent() - start) * 1e3;
    let index = &snapshot.index;
    let local = LocalAddresses::new("node1", [IpAddr::from(cluster::NODE)]);
    let timed = |look_up: &dyn Fn(u32) -> bool| {
        let rounds = (0..ROUNDS).map(|_| {
            let start = spent();
            let found = (0..LOOK_UPS).filter(|number| look_up(*number)).count();
            assert_eq!(black_box(found), LOOK_UPS as usize, "nothing is found");
            (spent() - start) * 1e9 / f64::from(LOOK_UPS)
        });
        rounded(median(rounds.collect()))
    };
    let of = |number: u32| number as usize % services;
    json!({
        "services": services,
        "build_ms": rounded(built_ms),
        "front_door_ns": timed(&|number| {
            let port = cluster::node_port(of(number));
            index.front_door(Protocol::Tcp, cluster::NODE.into(), port, &local).is_some()
        }),
        "backend_ns": timed(&|number| {
            let pod = cluster::pod(of(number), number as usize / services % 2);
            index.backend(Protocol::Tcp, pod.into(), cluster::POD_PORT).node.is_some()
        }),
        "address_kind_ns": timed(&|number| {
            let client = IpAddr::from(wire::client(number).0);
            matches!(
                index.address_kind(client, &local),
                observer::cluster::AddressKind::External
            )
        }),
    })
}

/// What is resident while as many connections wait for an answer as are tracked, and after as many
/// more came and went.
fn memory() -> Value {
    let snapshot = cluster::snapshot(FIXED_SERVICES);
    let mut observer = observer(&snapshot);
    let (rest, in_use) = (resident(), allotted().bytes);
    for number in 0..TRACKED {
        for wire in connection(number, FIXED_SERVICES, Answered::No) {
            let observation = Observation::decode(&wire).expect("as the programs write it");
            observer.handle(Event::Observation(observation));
        }
    }
    let (tracked, tracked_in_use) = (resident(), allotted().bytes);
    let start = spent();
    let early = observer.handle(Event::Tick(Moment(2 * SECOND)));
    let tick = (spent() - start) * 1e6;
    assert!(early.is_empty(), "none is silent for long enough");
    let mut asked = 0;
    for tenth in 30..50 {
        for output in observer.handle(Event::Tick(Moment(tenth * SECOND / 10))) {
            if let Output::Ask(identity) = output {
                asked += 1;
                observer.handle(Event::LookedUp(identity, None, None));
            }
        }
    }
    assert_eq!(asked, TRACKED, "each waited");
    json!({
        "rest_bytes": rest,
        "tracked": TRACKED,
        "tracked_resident_bytes": tracked,
        "tracked_bytes_each": (tracked_in_use.saturating_sub(in_use)) / u64::from(TRACKED),
        "idle_tick_us": rounded(tick),
        "after_resident_bytes": resident(),
    })
}

/// Of this process, in bytes (proc(5), `/proc/pid/status`).
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
}
