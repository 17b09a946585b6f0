//! What the observer leaves behind: nothing.
//!
//! Goal: after its end, and after SIGKILL and the next start, no program, filter, map or qdisc of
//! it remains. Method: while it runs, list what is attached in the node's namespace; after its
//! end, look for each of them.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use tests::{
    attached,
    child::poll_until,
    demo,
    kubeproxy::doors::front_doors,
    lab::{Lab, LabNode},
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
    traffic::{self, from_outside},
};

/// The kernel frees programs and maps a moment after their last user is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than the silence after which an observer is taken for dead.
const SILENCE: Duration = Duration::from_secs(11);

const CLSACT: [&str; 2] = ["--hook", "clsact"];

/// What an observer has in the kernel.
#[derive(Debug)]
struct Footprint {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Footprint {
    /// Of what is attached in a namespace beside `others`.
    fn take(namespace: &Namespace, others: &[&Self]) -> Self {
        let mut programs = attached(namespace);
        programs.retain(|id| others.iter().all(|other| !other.programs.contains(id)));
        assert!(!programs.is_empty(), "an observer at work has programs");
        let maps = attached::maps(&programs).expect("lists their maps");
        assert!(!maps.is_empty(), "its programs have maps");
        let footprint = Self { programs, maps };
        assert_eq!(footprint.surviving(), footprint.whole());
        footprint
    }

    fn whole(&self) -> [BTreeSet<u32>; 2] {
        [self.programs.clone(), self.maps.clone()]
    }

    /// The programs and the maps of it that the kernel still holds.
    fn surviving(&self) -> [BTreeSet<u32>; 2] {
        [
            attached::surviving_programs(&self.programs),
            attached::surviving_maps(&self.maps),
        ]
    }

    fn must_vanish(&self) {
        let is_gone = || self.surviving().iter().all(BTreeSet::is_empty);
        assert!(
            poll_until(PATIENCE, || is_gone().then_some(())).is_some(),
            "the programs and maps {:?} outlived the observer",
            self.surviving()
        );
    }
}

fn attached(namespace: &Namespace) -> BTreeSet<u32> {
    attached::programs(namespace).expect("lists what is attached")
}

fn start(node: &LabNode, more: &[&str]) -> ObserverProcess {
    ObserverProcess::start(node, &demo::cluster_file(), more).expect("observes")
}

fn stop(observer: ObserverProcess, signal: Signal) {
    let finished = observer.stop_by(signal).expect("stops");
    assert!(
        finished.status.success(),
        "{}: {}",
        finished.status,
        finished.stderr
    );
}

fn nothing_is_attached(namespace: &Namespace) {
    assert_eq!(attached(namespace), BTreeSet::new());
    assert_eq!(
        attached::qdiscs(namespace).expect("lists qdiscs"),
        [] as [String; 0]
    );
}

#[test]
fn nothing_of_an_observer_outlives_it() {
    if !privilege::granted("nothing_of_an_observer_outlives_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    nothing_is_attached(&node.namespace);
    for (more, signal) in [
        (&[][..], Signal::SIGINT),
        (&CLSACT, Signal::SIGINT),
        (&CLSACT, Signal::SIGTERM),
        // Of a terminal that is closed.
        (&CLSACT, Signal::SIGHUP),
    ] {
        let observer = start(node, more);
        let footprint = Footprint::take(&node.namespace, &[]);
        stop(observer, signal);
        nothing_is_attached(&node.namespace);
        footprint.must_vanish();
    }
}

/// Starts an observer on a node and kills it. By clsact, since TCX links would go with it.
fn left_by_the_killed(node: &LabNode, others: &[&Footprint]) -> Footprint {
    let observer = start(node, &CLSACT);
    let footprint = Footprint::take(&node.namespace, others);
    observer.kill().expect("killed");
    assert_eq!(footprint.surviving(), footprint.whole());
    footprint
}

/// How many counters of a footprint change with a connection to a node.
fn counters_changed(lab: &Lab, node: &LabNode, footprint: &Footprint) -> usize {
    let counters = || attached::per_cpu_array(&footprint.maps, "COUNTERS").expect("counters");
    let before = counters();
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let here = doors.iter().find(|door| door.entry == node.plan.name);
    traffic::open(lab, &from_outside(lab, &[here.expect("a door").clone()])).expect("opened");
    let changed = before.iter().zip(counters());
    changed.filter(|(before, after)| *before != after).count()
}

/// On one node the next start comes at once, as that of a container does, and another observer
/// lives there. On the other it comes after the silence.
#[test]
fn the_next_start_removes_what_a_killed_observer_left() {
    if !privilege::granted("the_next_start_removes_what_a_killed_observer_left") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let [node1, node2] = ["node1", "node2"].map(|name| lab.node(name).expect("a node"));
    let left2 = left_by_the_killed(node2, &[]);
    assert!(counters_changed(&lab, node2, &left2) > 1, "it goes on");
    let beside = start(node1, &CLSACT);
    let of_beside = Footprint::take(&node1.namespace, &[]);
    let left1 = left_by_the_killed(node1, &[&of_beside]);
    let at_once = start(node1, &CLSACT);
    assert_eq!(
        left1.surviving(),
        left1.whole(),
        "so soon, it could be alive"
    );

    sleep(SILENCE);
    let changed = counters_changed(&lab, node2, &left2);
    assert_eq!(changed, 1, "it only counts that it looks away");
    let late = start(node2, &CLSACT);
    left2.must_vanish();
    stop(late, Signal::SIGINT);
    // The qdiscs came with the one that was killed.
    nothing_is_attached(&node2.namespace);

    left1.must_vanish();
    assert_eq!(of_beside.surviving(), of_beside.whole());
    stop(beside, Signal::SIGINT);
    Footprint::take(&node1.namespace, &[&of_beside]);
    stop(at_once, Signal::SIGINT);
    nothing_is_attached(&node1.namespace);
}
