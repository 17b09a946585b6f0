//! The observer on the hooks of a node, beside others of its kind and other programs.
//!
//! Goal: it sees what it should, changes nothing for its neighbours, and goes without a trace.
//! Method: observers on a node of the demo cluster, by TCX and by clsact; what is attached, and
//! in which order, is the kernel's own answer; connections show whether everybody still works.

use std::{collections::BTreeSet, time::Duration};

use aya::programs::{
    LinkOrder, TcAttachType,
    tc::{NlOptions, TcAttachOptions},
};
use rstest::rstest;
use serde_json::Value;
use tests::{
    attached::{self, SIDES},
    child::poll_until,
    command, demo,
    kubeproxy::doors::{FrontDoor, Kind, front_doors},
    lab::{Lab, LabNode},
    neighbours::{Neighbours, Verdict},
    netns::Namespace,
    observer_process::ObserverProcess,
    privilege,
    traffic::{self, Opened, from_outside},
};

/// The interface of a node towards the client and the other nodes.
const UPLINK: &str = "eth0";
const CONNECTIONS: usize = 5;
/// How long the observer may take to follow a change of interfaces.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many programs TCX takes on one side (`include/linux/bpf_mprog.h`, `bpf_mprog_max`).
const TCX_PROGRAMS_MAX: usize = 63;

/// How a program comes to a hook, in the words of the option `--hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Tcx,
    Clsact,
}

impl Hook {
    fn option(self) -> [&'static str; 2] {
        match self {
            Self::Tcx => ["--hook", "tcx"],
            Self::Clsact => ["--hook", "clsact"],
        }
    }

    /// Before all that are there.
    fn ahead(self) -> TcAttachOptions {
        match self {
            Self::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Self::Clsact => filter(1),
        }
    }

    /// Behind all that are there.
    fn behind(self) -> TcAttachOptions {
        match self {
            Self::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
            Self::Clsact => filter(u16::MAX),
        }
    }
}

fn filter(priority: u16) -> TcAttachOptions {
    TcAttachOptions::Netlink(NlOptions {
        priority,
        ..NlOptions::default()
    })
}

fn start(node: &LabNode, hook: Hook) -> ObserverProcess {
    ObserverProcess::start(node, &demo::cluster_file(), &hook.option()).expect("observes")
}

fn stop(observer: ObserverProcess) -> Vec<Value> {
    let finished = observer.stop().expect("stops");
    assert!(
        finished.status.success(),
        "{}: {}",
        finished.status,
        finished.stderr
    );
    finished.records
}

/// Raises the demo cluster; none if `test` cannot run here.
fn raise(test: &str, hook: Hook) -> Option<Lab> {
    if !privilege::granted(test) {
        return None;
    }
    if hook == Hook::Tcx && !attached::has_tcx().expect("the kernel's word on TCX") {
        privilege::skipped(test, "the kernel has no TCX");
        return None;
    }
    Some(demo::raise().expect("raised"))
}

fn node(lab: &Lab) -> &LabNode {
    lab.node("node1").expect("a node")
}

/// A door by this node that leads to pods.
fn door(lab: &Lab, node: &LabNode) -> FrontDoor {
    let doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    let is_wanted = |door: &&FrontDoor| {
        door.kind == Kind::NodePort
            && door.to.is_ipv4()
            && door.service == "web"
            && door.entry == node.plan.name
    };
    doors.iter().find(is_wanted).expect("a door").clone()
}

fn open(lab: &Lab, node: &LabNode) -> Vec<Opened> {
    let opened = traffic::open(lab, &from_outside(lab, &vec![door(lab, node); CONNECTIONS]))
        .expect("opened");
    for connection in &opened {
        assert!(connection.result.is_ok(), "{connection:?}");
    }
    opened
}

/// Each of the connections, and nothing else, is in the records once.
fn are_reported<'a>(opened: impl IntoIterator<Item = &'a Opened>, records: &[Value]) {
    let mut expected: Vec<String> = opened
        .into_iter()
        .map(|connection| connection.client.to_string())
        .collect();
    let client = |record: &Value| {
        let ip = record.pointer("/client/ip")?.as_str()?;
        let port = record.pointer("/client/port")?.as_u64()?;
        Some(format!("{ip}:{port}"))
    };
    let mut reported: Vec<String> = records.iter().filter_map(client).collect();
    expected.sort();
    reported.sort();
    assert_eq!(reported, expected);
}

fn programs(namespace: &Namespace) -> BTreeSet<u32> {
    attached::programs(namespace).expect("lists what is attached")
}

fn chain(namespace: &Namespace, side: TcAttachType) -> Vec<u32> {
    attached::chain(namespace, UPLINK, side).expect("lists what is attached")
}

fn qdiscs(namespace: &Namespace) -> Vec<String> {
    attached::qdiscs(namespace).expect("lists qdiscs")
}

fn tc(namespace: &Namespace, arguments: &str) {
    command::run(namespace.command("tc").args(arguments.split_whitespace())).expect("tc");
}

fn nothing_is_left(namespace: &Namespace) {
    assert_eq!(programs(namespace), BTreeSet::new(), "programs are left");
    assert_eq!(qdiscs(namespace), [] as [String; 0], "qdiscs are left");
}

#[rstest]
#[case::tcx(Hook::Tcx)]
#[case::clsact(Hook::Clsact)]
fn two_observers_see_the_same_and_either_may_leave_first(#[case] hook: Hook) {
    let Some(lab) = raise(
        "two_observers_see_the_same_and_either_may_leave_first",
        hook,
    ) else {
        return;
    };
    let node = node(&lab);
    let first = start(node, hook);
    let of_first = programs(&node.namespace);
    let second = start(node, hook);
    let of_both = programs(&node.namespace);
    let of_second: BTreeSet<u32> = of_both.difference(&of_first).copied().collect();
    assert_eq!((of_first.len(), of_second.len()), (2, 2));

    let opened = open(&lab, node);
    are_reported(&opened, &stop(first));
    assert_eq!(programs(&node.namespace), of_second);
    let more = open(&lab, node);
    are_reported(opened.iter().chain(&more), &stop(second));
    // By clsact the first has made the qdiscs, and the second found no reason to keep them.
    nothing_is_left(&node.namespace);
}

#[rstest]
#[case::tcx(Hook::Tcx)]
#[case::clsact(Hook::Clsact)]
fn one_observer_killed_leaves_the_other_at_work(#[case] hook: Hook) {
    let Some(lab) = raise("one_observer_killed_leaves_the_other_at_work", hook) else {
        return;
    };
    let node = node(&lab);
    let killed = start(node, hook);
    let of_killed = programs(&node.namespace);
    let living = start(node, hook);
    let of_both = programs(&node.namespace);
    let opened = open(&lab, node);
    killed.wait_for_records(opened.len()).expect("printed");
    are_reported(&opened, &killed.kill().expect("killed"));

    let left = programs(&node.namespace);
    match hook {
        // The links were the process's own.
        Hook::Tcx => assert_eq!(left, of_both.difference(&of_killed).copied().collect()),
        Hook::Clsact => assert_eq!(left, of_both),
    }
    let more = open(&lab, node);
    are_reported(opened.iter().chain(&more), &stop(living));
}

#[rstest]
#[case::tcx(Hook::Tcx)]
#[case::clsact(Hook::Clsact)]
fn programs_of_others_run_ahead_and_behind(#[case] hook: Hook) {
    let Some(lab) = raise("programs_of_others_run_ahead_and_behind", hook) else {
        return;
    };
    let node = node(&lab);
    let namespace = &node.namespace;
    // Theirs; it must outlive ours.
    tc(namespace, &format!("qdisc add dev {UPLINK} clsact"));
    let place = |options: fn(Hook) -> TcAttachOptions, hook: Hook| {
        SIDES.map(|side| {
            Neighbours::one(namespace, UPLINK, side, options(hook), Verdict::Unspecified)
                .expect("attached")
        })
    };
    let behind = place(Hook::ahead, hook);
    // By clsact, the same priority as `behind`; by TCX, on the other hook, which runs later.
    let beside = place(Hook::behind, Hook::Clsact);
    let observer = start(node, hook);
    let ahead = place(Hook::ahead, hook);

    for (side, (ahead, behind)) in SIDES.into_iter().zip(ahead.iter().zip(&behind)) {
        let chain = chain(namespace, side);
        assert_eq!(chain.len(), 4, "{side:?}: {chain:?}");
        assert_eq!(
            (chain[0], chain[2]),
            (ahead.ids()[0], behind.ids()[0]),
            "{side:?}"
        );
    }
    let neighbours = || ahead.iter().chain(&behind).chain(&beside);
    let runs = || -> Vec<u64> { neighbours().map(|it| it.runs().expect("a count")).collect() };
    let before = runs();
    let opened = open(&lab, node);
    for (before, after) in before.into_iter().zip(runs()) {
        let packets = u64::try_from(CONNECTIONS).expect("few");
        assert!(after >= before + packets, "{after} runs after {before}");
    }

    let options = hook.behind();
    let side = TcAttachType::Ingress;
    let drops = Neighbours::one(namespace, UPLINK, side, options, Verdict::Drop);
    let drops = drops.expect("attached");
    let dropped = traffic::open(&lab, &from_outside(&lab, &[door(&lab, node)])).expect("tried");
    assert!(dropped[0].result.is_err(), "{dropped:?}");
    drop(drops);
    let more = open(&lab, node);

    let records = stop(observer);
    are_reported(opened.iter().chain(&dropped).chain(&more), &records);
    for (side, (ahead, behind)) in SIDES.into_iter().zip(ahead.iter().zip(&behind)) {
        let chain = chain(namespace, side);
        assert_eq!(chain[..2], [ahead.ids()[0], behind.ids()[0]], "{side:?}");
    }
    assert_eq!(qdiscs(namespace).len(), 1, "the qdisc was another's");
}

#[test]
fn an_interface_is_taken_whole_or_not_at_all() {
    let Some(lab) = raise("an_interface_is_taken_whole_or_not_at_all", Hook::Tcx) else {
        return;
    };
    let node = node(&lab);
    let crowd = Neighbours::attach(
        &node.namespace,
        UPLINK,
        TcAttachType::Egress,
        (0..TCX_PROGRAMS_MAX).map(|_| Hook::Tcx.ahead()),
        Verdict::Unspecified,
    )
    .expect("attached");
    let error = ObserverProcess::start(node, &demo::cluster_file(), &Hook::Tcx.option())
        .expect_err("there is no place for one more");
    let error = format!("{error:#}");
    assert!(error.contains(UPLINK), "{error}");
    let of_others: BTreeSet<u32> = crowd.ids().iter().copied().collect();
    assert_eq!(programs(&node.namespace), of_others);
}

#[test]
fn an_ingress_qdisc_is_left_alone_and_named() {
    let test = "an_ingress_qdisc_is_left_alone_and_named";
    let Some(lab) = raise(test, Hook::Clsact) else {
        return;
    };
    let node = node(&lab);
    tc(
        &node.namespace,
        &format!("qdisc add dev {UPLINK} handle ffff: ingress"),
    );
    let error = ObserverProcess::start(node, &demo::cluster_file(), &Hook::Clsact.option())
        .expect_err("it has no egress side");
    let error = format!("{error:#}");
    assert!(
        error.contains(UPLINK) && error.contains("ingress qdisc"),
        "{error}"
    );
    assert_eq!(programs(&node.namespace), BTreeSet::new());
    let qdiscs = qdiscs(&node.namespace);
    assert_eq!(qdiscs.len(), 1, "{qdiscs:?}");
    assert!(qdiscs[0].contains("ingress"), "{qdiscs:?}");
}

/// A filter that is no program's holds the priority that ours would like best.
#[test]
fn a_filter_of_another_kind_is_no_obstacle() {
    let test = "a_filter_of_another_kind_is_no_obstacle";
    let Some(lab) = raise(test, Hook::Clsact) else {
        return;
    };
    let node = node(&lab);
    let namespace = &node.namespace;
    tc(namespace, &format!("qdisc add dev {UPLINK} clsact"));
    for side in ["ingress", "egress"] {
        let matches = "protocol all prio 1 u32 match u32 0xffffffff 0xffffffff at 0 flowid 1:1";
        tc(
            namespace,
            &format!("filter add dev {UPLINK} {side} {matches}"),
        );
    }
    let observer = start(node, Hook::Clsact);
    let opened = open(&lab, node);
    are_reported(&opened, &stop(observer));
    assert_eq!(programs(namespace), BTreeSet::new());
    let kept = command::run(
        namespace
            .command("tc")
            .args(["filter", "show", "dev", UPLINK, "egress"]),
    );
    assert!(kept.expect("tc filter").contains("u32"));
}

#[rstest]
#[case::tcx(Hook::Tcx)]
#[case::clsact(Hook::Clsact)]
fn an_interface_asked_for_twice_is_taken_once(#[case] hook: Hook) {
    let Some(lab) = raise("an_interface_asked_for_twice_is_taken_once", hook) else {
        return;
    };
    let node = node(&lab);
    let [option, name] = hook.option();
    let more = [option, name, "--interface", UPLINK, "--interface", UPLINK];
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &more).expect("observes");
    for side in SIDES {
        assert_eq!(chain(&node.namespace, side).len(), 1, "{side:?}");
    }
    stop(observer);
    nothing_is_left(&node.namespace);
}

#[rstest]
#[case::tcx(Hook::Tcx)]
#[case::clsact(Hook::Clsact)]
fn an_interface_may_vanish_and_come_back(#[case] hook: Hook) {
    let Some(lab) = raise("an_interface_may_vanish_and_come_back", hook) else {
        return;
    };
    let node = node(&lab);
    let namespace = &node.namespace;
    let mut pods = lab.pods().iter();
    let pod = pods.find(|pod| pod.plan.node == node.plan.name);
    let interface = pod.expect("a pod").interface();
    let attached = |side| attached::chain(namespace, interface, side).expect("lists");

    let [option, name] = hook.option();
    let more = [option, name, "--interface", interface];
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &more).expect("observes");
    let before = SIDES.map(attached);
    assert!(before.iter().all(|chain| chain.len() == 1), "{before:?}");
    namespace
        .ip(&format!("link delete {interface}"))
        .expect("deleted");
    nothing_is_left(namespace);

    namespace
        .ip(&format!(
            "link add {interface} type veth peer name peer\nlink set {interface} up\n"
        ))
        .expect("added");
    let back = poll_until(PATIENCE, || (SIDES.map(attached) == before).then_some(()));
    assert!(back.is_some(), "{:?} is attached", SIDES.map(attached));
    stop(observer);
    nothing_is_left(namespace);
}
