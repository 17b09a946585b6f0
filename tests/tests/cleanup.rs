//! What the observer leaves behind: nothing.
//!
//! Goal: after its end no program, filter, map or qdisc of it remains. Method: while it runs,
//! list what is attached in the node's namespace; after its end, look for each of them.

use std::{collections::BTreeSet, time::Duration};

use tests::{attached, child::poll_until, demo, observer_process::ObserverProcess, privilege};

/// The kernel frees programs and maps a moment after their last user is gone.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn nothing_of_an_observer_outlives_it() {
    if !privilege::granted("nothing_of_an_observer_outlives_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let attached = || attached::programs(&node.namespace).expect("lists what is attached");
    assert_eq!(
        attached(),
        BTreeSet::new(),
        "a fresh node has nothing attached"
    );

    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let programs = attached();
    assert!(
        !programs.is_empty(),
        "an observer at work has programs attached"
    );
    let maps = attached::maps(&programs).expect("lists their maps");
    assert!(!maps.is_empty(), "its programs have maps");
    assert_eq!(attached::surviving_programs(&programs), programs);
    assert_eq!(attached::surviving_maps(&maps), maps);
    let finished = observer.stop().expect("stops");
    assert!(
        finished.status.success(),
        "{}: {}",
        finished.status,
        finished.stderr
    );

    assert_eq!(attached(), BTreeSet::new(), "attached after its end");
    assert_eq!(
        attached::qdiscs(&node.namespace).expect("lists qdiscs"),
        [] as [String; 0],
        "a qdisc after its end"
    );
    let gone = || {
        let gone = attached::surviving_programs(&programs).is_empty()
            && attached::surviving_maps(&maps).is_empty();
        gone.then_some(())
    };
    assert!(
        poll_until(PATIENCE, gone).is_some(),
        "programs {:?} and maps {:?} outlived the observer",
        attached::surviving_programs(&programs),
        attached::surviving_maps(&maps)
    );
}
