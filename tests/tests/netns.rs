//! Namespaces end with their owner, however it ends.
//!
//! Goal: no run, not even one that was killed, leaves a machine with namespaces. Method: end an
//! owner in each way there is and look at what the kernel still has.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use tests::{
    child::{ChildGuard, poll_until},
    netns::{self, Namespace},
    privilege,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The namespaces that the process `pid` made and that exist.
fn namespaces_of(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.map(|entry| {
        entry
            .expect("listed")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names
        .filter(|name| name.starts_with(&format!("sipo-{pid}-")))
        .collect()
}

fn exists(name: &str) -> bool {
    namespaces_of(std::process::id())
        .iter()
        .any(|existing| existing == name)
}

/// A whole lab in a process of its own, raised.
fn raised_lab() -> ChildGuard {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab starts");
    let stdout = child.stdout.take().expect("piped");
    let child = ChildGuard::new(child);
    let (ready, when_ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("ready") {
                let _gave_up_waiting = ready.send(());
            }
        }
    });
    when_ready
        .recv_timeout(PATIENCE)
        .expect("the lab is raised");
    assert!(
        !namespaces_of(child.id()).is_empty(),
        "a raised lab has namespaces"
    );
    child
}

#[test]
fn a_dropped_namespace_is_gone() {
    if !privilege::granted("a_dropped_namespace_is_gone") {
        return;
    }
    let namespace = Namespace::create("drop").expect("a namespace");
    let name = namespace.name().to_owned();
    assert!(exists(&name));
    drop(namespace);
    assert!(!exists(&name));
}

#[test]
fn a_panic_leaves_nothing_behind() {
    if !privilege::granted("a_panic_leaves_nothing_behind") {
        return;
    }
    let mut name = String::new();
    catch_unwind(AssertUnwindSafe(|| {
        let namespace = Namespace::create("panic").expect("a namespace");
        namespace.name().clone_into(&mut name);
        panic!("on purpose");
    }))
    .expect_err("it panics");
    assert!(!name.is_empty());
    assert!(!exists(&name));
}

#[test]
fn work_runs_inside_and_only_there() {
    if !privilege::granted("work_runs_inside_and_only_there") {
        return;
    }
    let here = || fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
    let namespace = Namespace::create("inside").expect("a namespace");
    let outside = here();
    let inside = namespace.run(here).expect("runs");
    assert_ne!(inside, outside);
    assert_eq!(here(), outside, "the caller stays where it was");
    assert_eq!(
        namespace
            .run(|| thread::spawn(here).join().expect("joins"))
            .expect("runs"),
        inside
    );
}

#[test]
fn a_panic_inside_comes_out() {
    if !privilege::granted("a_panic_inside_comes_out") {
        return;
    }
    let namespace = Namespace::create("panics-inside").expect("a namespace");
    let panicked = catch_unwind(AssertUnwindSafe(|| namespace.run(|| panic!("on purpose"))))
        .expect_err("panics");
    assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    if !privilege::granted("ctrl_c_leaves_nothing_behind") {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut lab = raised_lab();
        lab.signal(signal).expect("signals");
        let status = lab.wait(PATIENCE).expect("waits").expect("it ends");
        assert_eq!(status.code(), Some(130), "{signal}");
        assert_eq!(namespaces_of(lab.id()), [] as [String; 0], "{signal}");
    }
}

#[test]
fn the_next_start_cleans_up_after_a_kill() {
    if !privilege::granted("the_next_start_cleans_up_after_a_kill") {
        return;
    }
    let mut killed = raised_lab();
    let pid = killed.id();
    // A process that the lab would have ended, had it lived.
    let inside = namespaces_of(pid)
        .into_iter()
        .find(|name| name.contains("node"))
        .expect("a node");
    let mut orphan = ChildGuard::new(
        Command::new("ip")
            .args(["netns", "exec", &inside, "sleep", "600"])
            .spawn()
            .expect("sleeps"),
    );
    let entered = || {
        fs::read_to_string(format!("/proc/{}/comm", orphan.id()))
            .is_ok_and(|name| name == "sleep\n")
    };
    poll_until(PATIENCE, || entered().then_some(())).expect("it is inside");

    killed.signal(Signal::SIGKILL).expect("signals");
    killed.wait(PATIENCE).expect("waits").expect("it ends");
    drop(raised_lab());
    assert_eq!(namespaces_of(pid), [] as [String; 0]);
    orphan
        .wait(PATIENCE)
        .expect("waits")
        .expect("the orphan was ended, too");
    // The lab above was killed as well when it was dropped.
    netns::sweep().expect("sweeps");
}
