//! A day's work of a small Service, in a minute.
//!
//! Goal: over ten thousand connections at a steady rate none is missing, nothing is lost, and the
//! observer does not grow. Method: observe every node of the demo cluster while clients with many
//! addresses (so that ports do not run out) connect through its node ports; compare all records
//! with the oracle, the counters with zero, and the memory in the middle with that at the end.

use std::{fs, time::Duration};

use tests::{
    kubeproxy::{
        Mode,
        doors::{Found, Kind, front_doors},
    },
    privilege,
    run::Observers,
    scene::Scene,
    traffic::{Client, Pace, Way, steadily, ways},
};

/// Until all that is allotted once has been.
const FIRST: usize = 2_000;
/// After that.
const THEN: usize = 8_000;
/// Two hundred in a second.
const INTERVAL: Duration = Duration::from_millis(5);
/// What remembering eight thousand connections may cost, lest a repeated packet is reported as
/// one more.
const GROWTH_BYTES_MAX: u64 = 4 << 20;
/// Addresses of the external client in each family.
const CLIENTS: u8 = 4;

/// The resident memory of a process.
fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory");
    let kibibytes: u64 = line
        .trim()
        .strip_suffix(" kB")
        .and_then(|number| number.parse().ok())
        .expect("a number of kB");
    kibibytes << 10
}

#[test]
fn ten_thousand_connections_cost_nothing_lasting_and_none_is_missing() {
    if !privilege::granted("ten_thousand_connections_cost_nothing_lasting_and_none_is_missing") {
        return;
    }
    let mut scene = Scene::demo();
    scene.client = (0..CLIENTS)
        .flat_map(|number| {
            [
                format!("203.0.113.{}/24", 50 + number),
                format!("2001:db8:113::{}/64", 50 + number),
            ]
        })
        .map(|address| address.parse().expect("a range"))
        .collect();
    let lab = scene.raise(scene.settings(Mode::Nftables)).expect("raised");
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| door.kind == Kind::NodePort && door.endpoints == Found::Some);
    let ways: Vec<Way> = ways(&lab, &Client::external(&lab), &doors);
    let pace = |connections| Pace {
        connections,
        interval: INTERVAL,
    };

    let observers = Observers::start(&lab, &scene.objects).expect("observing");
    let mut opened = steadily(&lab, &ways, pace(FIRST)).expect("opened");
    let before: Vec<u64> = observers.ids().map(resident_bytes).collect();
    opened.extend(steadily(&lab, &ways, pace(THEN)).expect("opened"));
    let after: Vec<u64> = observers.ids().map(resident_bytes).collect();
    let run = observers.stop(opened).expect("stopped");

    run.assert_right(&lab);
    for opened in &run.opened {
        assert!(opened.result.is_ok(), "{}: {:?}", opened.way, opened.result);
    }
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.saturating_sub(*before) <= GROWTH_BYTES_MAX,
            "it had {before} bytes and grew to {after}"
        );
    }
    for (node, stderr) in &run.stderr {
        let summary = stderr.lines().last().unwrap_or_default();
        assert_eq!(summary, "0 observations lost", "{node}: {stderr}");
    }
}
