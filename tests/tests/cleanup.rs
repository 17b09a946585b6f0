//! What the observer leaves behind: nothing.
//!
//! Goal: after its end, and after SIGKILL and the next start, no program, filter, map or qdisc of
//! it remains. Method: while it runs, list what is attached in the node's namespace; after its
//! end, look for each of them.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use rstest::rstest;
use tests::{
    attached,
    child::poll_until,
    demo,
    lab::{Lab, LabNode},
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
};

/// The kernel frees programs and maps a moment after their last user is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than the silence after which an observer is taken for dead.
const SILENCE: Duration = Duration::from_secs(11);

/// By clsact, whose filters outlive their process.
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

#[rstest]
#[case::by_trying(&[], Signal::SIGINT)]
#[case::clsact(&CLSACT, Signal::SIGINT)]
#[case::terminated(&CLSACT, Signal::SIGTERM)]
#[case::terminal_closed(&CLSACT, Signal::SIGHUP)]
fn nothing_of_an_observer_outlives_it(#[case] more: &[&str], #[case] signal: Signal) {
    if !privilege::granted("nothing_of_an_observer_outlives_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    nothing_is_attached(&node.namespace);
    let observer = start(node, more);
    let footprint = Footprint::take(&node.namespace, &[]);
    stop(observer, signal);
    nothing_is_attached(&node.namespace);
    footprint.must_vanish();
}

/// A node with an observer that was killed, and beside it one that lives.
struct Scene<'lab> {
    node: &'lab LabNode,
    of_killed: Footprint,
    living: ObserverProcess,
    of_living: Footprint,
}

impl<'lab> Scene<'lab> {
    fn set(lab: &'lab Lab, node: &str) -> Self {
        let node = lab.node(node).expect("a node");
        let killed = start(node, &CLSACT);
        let of_killed = Footprint::take(&node.namespace, &[]);
        let living = start(node, &CLSACT);
        let of_living = Footprint::take(&node.namespace, &[&of_killed]);
        killed.kill().expect("killed");
        assert_eq!(of_killed.surviving(), of_killed.whole());
        Self {
            node,
            of_killed,
            living,
            of_living,
        }
    }

    /// After the start of `next`, whoever lives has what is theirs, and nobody else.
    fn swept_by(self, next: ObserverProcess) {
        let Self {
            node: LabNode { namespace, .. },
            of_killed,
            living,
            of_living,
        } = self;
        of_killed.must_vanish();
        let of_next = Footprint::take(namespace, &[&of_living]);
        let of_both = of_living.programs.union(&of_next.programs).copied();
        assert_eq!(attached(namespace), of_both.collect());
        assert_eq!(of_living.surviving(), of_living.whole());
        stop(next, Signal::SIGINT);
        assert_eq!(attached(namespace), of_living.programs);
        stop(living, Signal::SIGINT);
        // The qdiscs came with the one that was killed.
        nothing_is_attached(namespace);
    }
}

/// On one node the next start comes at once, as that of a container does, and on the other after
/// the silence.
#[test]
fn the_next_start_removes_what_a_killed_observer_left() {
    if !privilege::granted("the_next_start_removes_what_a_killed_observer_left") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let [at_once, later] = ["node1", "node2"].map(|node| Scene::set(&lab, node));
    let early = start(at_once.node, &CLSACT);
    assert_eq!(
        at_once.of_killed.surviving(),
        at_once.of_killed.whole(),
        "so soon, it could be alive"
    );
    sleep(SILENCE);
    let late = start(later.node, &CLSACT);
    later.swept_by(late);
    at_once.swept_by(early);
}
