//! What openings cost where they really pass.
//!
//! Goal: what an opening costs in both hooks together is told, and is no ten times what it was.
//! Whether it is under a microsecond, and what a flood costs the node's own traffic, is judged by
//! `cargo xtask bench`, since a busy machine cannot tell. Method: the kernel's own statistics over ten
//! thousand openings, less their clock.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use tests::{
    attached, demo, flood::Flood, lab::LabNode, observer_process::ObserverProcess, privilege,
};

const DOOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 30_081);
const OPENINGS: u32 = 12_000;
/// Fewer than the observer follows, and than its ring buffer holds.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Ten times what it is, or it is no accident.
const OPENING_NS_MAX: f64 = 10_000.0;

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
