//! The bench measures what it says it does.
//!
//! Goal: under each condition what should be at work is at work, on the interfaces that traffic
//! passes, and sees that traffic whole; and a quick run has all its parts. Method: paced connections
//! under each condition, counted by the pods' sockets, beside what the condition told.

use std::{thread, time::Duration};

use aya::sys::{Stats, enable_stats};
use tests::{
    attached::{self, SIDES},
    bench::{
        self, Options,
        condition::{Condition, Holding, Told},
        ground::Ground,
        load::{Load, Sample},
        packets::Class,
    },
    privilege,
};

/// Few enough that nobody loses one.
const LOAD: Load = Load::Paced(200);
/// What leads up to a record, and the way to one who follows.
const SOON: Duration = Duration::from_millis(500);

/// What a condition told of the load, how many connections the sockets accepted, and what passed.
fn under(ground: &Ground, condition: Condition) -> (Told, u64, Sample) {
    let holding = Holding::start(condition, ground, true).expect("holds");
    let sample = LOAD.run(ground, 1).expect("flows");
    thread::sleep(SOON);
    let told = holding.stop().expect("ends");
    assert_eq!(told.lost, 0, "{}: {}", condition.name(), told.said);
    (told, number(sample.done.work), sample)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small count"
)]
fn number(work: f64) -> u64 {
    work.round() as u64
}

#[test]
fn every_condition_sees_all_that_flows() {
    if !privilege::granted("every_condition_sees_all_that_flows") {
        return;
    }
    let ground = Ground::raise().expect("raised");
    for condition in [Condition::Trace, Condition::Agent] {
        let (told, opened, _) = under(&ground, condition);
        assert!(opened > 150, "{opened}");
        assert_eq!(told.told, Some(opened), "{}", condition.name());
    }
    let (told, opened, _) = under(&ground, Condition::Conntrack);
    // At least that each began and that its state changed.
    assert!(told.told >= Some(2 * opened), "{told:?} of {opened}");
    let (told, opened, _) = under(&ground, Condition::Tcpdump);
    // SYN, SYN+ACK, ACK, data, FIN and its ACK, each at two interfaces.
    assert!(told.told >= Some(12 * opened), "{told:?} of {opened}");
    let (told, _, sample) = under(&ground, Condition::Naive);
    // All but what is no IP.
    assert!(
        told.told >= Some(sample.packets / 100 * 95),
        "{told:?} of {}",
        sample.packets
    );
}

#[test]
fn what_is_compared_is_attached_to_the_same_interfaces() {
    if !privilege::granted("what_is_compared_is_attached_to_the_same_interfaces") {
        return;
    }
    let ground = Ground::raise().expect("raised");
    let node = &ground.node().namespace;
    let _until_the_end = enable_stats(Stats::RunTime).expect("statistics");
    for condition in [Condition::Floor, Condition::Naive, Condition::Trace] {
        let holding = Holding::start(condition, &ground, false).expect("holds");
        for interface in ground.interfaces() {
            for side in SIDES {
                let chain = attached::chain(node, &interface, side).expect("listed");
                assert_eq!(chain.len(), 1, "{} on {interface}", condition.name());
            }
        }
        let all = attached::programs(node).expect("listed");
        // One for each side, and the same for the flood's device, which has no link header.
        let expected = if condition == Condition::Trace { 4 } else { 1 };
        assert_eq!(all.len(), expected, "{}", condition.name());
        if let Some(program) = holding.program() {
            let sample = LOAD.run(&ground, 1).expect("flows");
            let ran = program.program().expect("there").info().expect("told");
            assert!(ran.run_count() >= sample.packets, "{ran:?}");
        }
        holding.stop().expect("ends");
        let left = attached::programs(node).expect("listed");
        assert!(left.is_empty(), "{} left {left:?}", condition.name());
    }
}

#[test]
fn a_quick_run_has_all_its_parts() {
    if !privilege::granted("a_quick_run_has_all_its_parts") {
        return;
    }
    let options = Options {
        rounds: 1,
        seconds: 1,
        only: ["kernel", "growth", "rest", "connections-paced"]
            .map(str::to_owned)
            .to_vec(),
        quick: true,
        userspace: None,
    };
    let results = bench::run(&options, &mut |_| {}).expect("measured");
    for class in Class::SAME.into_iter().chain(Class::DIFFERENT) {
        for program in ["floor", "naive", "ingress", "egress"] {
            for payload in [false, true] {
                let found = results.kernel.iter().any(|row| {
                    (row.class, row.program, row.payload) == (class.name(), program, payload)
                        && row.ns_min > 0.0
                });
                assert!(found, "{} on {program}", class.name());
            }
        }
    }
    for curve in &results.growth {
        for point in &curve.points[..curve.points.len().min(1)] {
            let told = point.told_percent;
            assert!((told - 100.0).abs() < 0.01, "{}: {told} %", curve.with);
        }
    }
    for condition in Condition::ALL {
        let rows = results.compared.rows.iter();
        let of_condition = rows.filter(|row| row.condition == condition.name());
        assert_eq!(of_condition.count(), 4, "{}", condition.name());
    }
    let svg = bench::chart::svg(&results).expect("drawn");
    let table = bench::table::text(&results);
    for condition in Condition::ALL {
        assert!(svg.contains(condition.name()) && table.contains(condition.name()));
    }
}
