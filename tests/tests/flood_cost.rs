//! What openings cost where they really pass, and what a flood of them costs the node's own traffic.
//!
//! Goal: what an opening costs in both hooks together is told, and is no ten times what it was (whether
//! it is under a microsecond is judged by `cargo xtask bench`); in a flood the node's own
//! traffic is as fast with an observer as without, or five hundredths slower at most. Method: the kernel's own
//! statistics over ten thousand openings, less their clock; and bytes through a socket
//! of the node while a flood is poured into it, with an observer and without, in turns: that one by
//! `cargo test -p tests --test flood_cost -- --ignored --nocapture`, since a busy machine cannot tell.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use tests::{
    attached, demo,
    flood::Flood,
    lab::{Lab, LabNode},
    observer_process::ObserverProcess,
    privilege,
};

const DOOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 30_081);
/// A socket of the node itself.
const OWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 9_999);
const OPENINGS: u32 = 12_000;
/// Fewer than the observer follows, and than its ring buffer holds.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Ten times what it is, or it is no accident.
const OPENING_NS_MAX: f64 = 10_000.0;

const WINDOW: Duration = Duration::from_millis(1_500);
/// Until the flood is sampled and both hooks have settled for that.
const SETTLED: Duration = Duration::from_millis(2_500);
const ROUNDS_MAX: usize = 12;
/// A round counts if what is before and after it differs by less.
const SPREAD_MAX: f64 = 0.05;
const ROUNDS_ENOUGH: usize = 5;
const RATIO_MIN: f64 = 0.95;

/// Prints a figure for whoever reads the log.
fn say(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").expect("printed");
}

/// How long the observer's programs ran on a node, and how often, by name.
fn ran(node: &LabNode) -> Vec<(String, f64, f64)> {
    let attached = attached::programs(&node.namespace).expect("listed");
    let of = |info: ProgramInfo| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let runs = info.run_count() as f64;
        let name = info.name_as_str().unwrap_or_default().to_owned();
        (name, info.run_time().as_secs_f64() * 1e9, runs)
    };
    let programs = loaded_programs().flatten();
    programs
        .filter(|info| attached.contains(&info.id()))
        .map(of)
        .collect()
}

/// Nanoseconds per run of each program while `work` is done.
fn per_run(node: &LabNode, work: impl FnOnce()) -> Vec<(String, f64)> {
    let before = ran(node);
    work();
    let after = ran(node);
    let pairs = before.into_iter().zip(after);
    pairs
        .map(|((name, ns_before, before), (_, ns, runs))| {
            (name, (ns - ns_before) / (runs - before))
        })
        .collect()
}

fn of(costs: &[(String, f64)], program: &str) -> f64 {
    let found = costs.iter().find(|(name, _)| name == program);
    found.expect("it is attached").1
}

#[test]
fn an_opening_costs_little_where_it_passes() {
    if !privilege::granted("an_opening_costs_little_where_it_passes") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut flood = Flood::through(&node.namespace, DOOR).expect("a device");
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let _until_the_end = enable_stats(Stats::RunTime).expect("counted");
    let nothing = per_run(node, || flood.acknowledge(OPENINGS).expect("sent"));
    let openings = per_run(node, || {
        for _ in 0..OPENINGS / AT_ONCE {
            flood.send(AT_ONCE).expect("sent");
            thread::sleep(PAUSE);
        }
    });
    observer.stop().expect("stops");
    let clock = of(&nothing, "observer_in_ip");
    // An opening arrives at the device and leaves towards the pod; its answer goes the other way.
    let [arrives, leaves, answer_arrives, answer_leaves] = [
        "observer_in_ip",
        "observer_out",
        "observer_in",
        "observer_out_ip",
    ]
    .map(|program| of(&openings, program) - clock);
    say(&format!(
        "an opening {arrives:.0} ns in, {leaves:.0} ns out; its answer {answer_arrives:.0} ns in, \
         {answer_leaves:.0} ns out; less {clock:.0} ns that a segment of nobody's costs, its clock \
         included"
    ));
    let opening = arrives + leaves;
    assert!(opening > 0.0 && opening < OPENING_NS_MAX, "{opening}");
}

/// Bytes a second through a socket of the node.
fn own_traffic(lab: &Lab, node: &LabNode) -> f64 {
    let receive = || {
        let listener = TcpListener::bind(OWN).expect("a port");
        let work = move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut buffer = vec![0; 1 << 16];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        };
        Ok(work)
    };
    let receiver = node.namespace.spawn(receive).expect("listens");
    let send = || {
        let mut stream = TcpStream::connect(OWN).expect("connected");
        let buffer = vec![0; 1 << 16];
        let start = Instant::now();
        let mut sent = 0_u32;
        while start.elapsed() < WINDOW {
            stream.write_all(&buffer).expect("sent");
            sent += 1;
        }
        f64::from(sent) * 65_536.0 / start.elapsed().as_secs_f64()
    };
    let rate = lab.client().run(send).expect("inside");
    receiver.join().expect("received");
    rate
}

#[test]
#[ignore = "a measurement for a quiet machine: on a busy one it fails"]
fn in_a_flood_the_nodes_own_traffic_is_as_fast_as_unobserved() {
    if !privilege::granted("in_a_flood_the_nodes_own_traffic_is_as_fast_as_unobserved") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let mut flood = Flood::through(&node.namespace, DOOR).expect("a device");
    let is_over = AtomicBool::new(false);
    let (ratios, flooded) = thread::scope(|scope| {
        let start = Instant::now();
        let pouring = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                flood.send(AT_ONCE).expect("sent");
            }
        });
        let ratios = {
            let _until_here = Ends(&is_over);
            rounds(&lab, node)
        };
        pouring.join().expect("poured");
        (ratios, start.elapsed())
    });
    say(&format!(
        "{:.0} packets of the flood a second",
        f64::from(u32::try_from(flood.sent()).expect("few")) / flooded.as_secs_f64()
    ));
    assert!(
        ratios.len() >= ROUNDS_ENOUGH,
        "too noisy: of {ROUNDS_ENOUGH} rounds in which the machine is steady there were {}",
        ratios.len()
    );
    let ratio = ratios[ratios.len() / 2];
    assert!(
        ratio >= RATIO_MIN,
        "{ratio:.3} of the unobserved rate: {ratios:.3?}"
    );
}

/// Ends the flood, also when a round fails.
struct Ends<'over>(&'over AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The rate with an observer, of that without, in each round that counts; in order.
fn rounds(lab: &Lab, node: &LabNode) -> Vec<f64> {
    let mut ratios = Vec::new();
    thread::sleep(SETTLED);
    let mut before = own_traffic(lab, node);
    for _ in 0..ROUNDS_MAX {
        let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
        thread::sleep(SETTLED);
        let between = own_traffic(lab, node);
        let finished = observer.stop().expect("stops");
        let after = own_traffic(lab, node);
        let spread = (before - after).abs() / before.max(after);
        let ratio = 2.0 * between / (before + after);
        let counts = spread <= SPREAD_MAX;
        say(&format!(
            "{:.2} Gbit/s with an observer, of {:.2} and {:.2} without: {ratio:.3}{}; {}",
            between * 8e-9,
            before * 8e-9,
            after * 8e-9,
            if counts { "" } else { ", does not count" },
            finished.stderr.lines().last().unwrap_or_default()
        ));
        if counts {
            ratios.push(ratio);
        }
        if ratios.len() == ROUNDS_ENOUGH {
            break;
        }
        before = after;
    }
    ratios.sort_by(f64::total_cmp);
    ratios
}
