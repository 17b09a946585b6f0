//! The decision table, row by row.
//!
//! Goal: what is predicted from the objects, what was observed and what the two ends saw are the
//! same, and what each file of `tests/scenarios` expects, in every mode and family. Method: the
//! scenarios that can share a lab are played in one, each with a Service of its own.

use std::{env, fs::OpenOptions, io::Write as _};

use anyhow::ensure;
use tests::{
    kubeproxy::ipvs,
    netns::Namespace,
    privilege,
    protocol::Protocol,
    scenario::{Proxy, Scenario, play, table},
};

/// The rows of the decision table, but for the last: what leaves the cluster is not reported.
const ROWS: [&str; 34] = [
    "1", "2", "3", "4", "5", "6", "7", "7i", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
    "33",
];
/// So many scenarios are promised.
const SCENARIOS: usize = 60;

#[test]
fn prediction_observation_and_sockets_agree() {
    if !privilege::granted("prediction_observation_and_sockets_agree") {
        return;
    }
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| {
        let is_everywhere = |proxy| scenario.modes.contains(proxy);
        scenario.protocol != Protocol::Sctp && Proxy::EVERYWHERE.iter().any(is_everywhere)
    });
    assert_agree(&scenarios, &Proxy::EVERYWHERE);
}

#[test]
fn prediction_observation_and_sockets_agree_where_the_kernel_has_sctp() {
    let test = "prediction_observation_and_sockets_agree_where_the_kernel_has_sctp";
    let probe = || {
        ensure!(Protocol::Sctp.has_sockets(), "a socket cannot be made");
        Ok(())
    };
    if !(privilege::granted(test) && privilege::kernel_has(test, "sockets for SCTP", probe)) {
        return;
    }
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| scenario.protocol == Protocol::Sctp);
    assert_agree(&scenarios, &Proxy::EVERYWHERE);
}

/// The same by virtual servers, and the rows that differ there.
#[test]
fn prediction_observation_and_sockets_agree_where_the_kernel_has_ipvs() {
    let test = "prediction_observation_and_sockets_agree_where_the_kernel_has_ipvs";
    let probe = || ipvs::prepare(&Namespace::create("probe")?);
    if !(privilege::granted(test) && privilege::kernel_has(test, "IPVS", probe)) {
        return;
    }
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| scenario.modes.contains(&Proxy::Ipvs));
    scenarios.retain(|scenario| scenario.protocol == Protocol::Tcp);
    assert_agree(&scenarios, &[Proxy::Ipvs]);
}

fn scenarios() -> Vec<Scenario> {
    let scenarios = Scenario::read_all(&Scenario::folder()).expect("scenarios");
    assert!(
        scenarios.len() >= SCENARIOS,
        "only {} scenarios",
        scenarios.len()
    );
    for row in ROWS {
        let is_it = |scenario: &Scenario| {
            let (number, _) = scenario.row.split_once(',').unwrap_or((&scenario.row, ""));
            number == row
        };
        assert!(scenarios.iter().any(is_it), "row {row} has no scenario");
    }
    scenarios
}

/// Plays scenarios, and demands that all answers are the expected ones.
fn assert_agree(scenarios: &[Scenario], proxies: &[Proxy]) {
    let cells = play(scenarios, proxies).expect("played");
    let table = format!(
        "{}\n{} scenarios, {} ways to play one\n",
        table(scenarios, proxies, &cells),
        scenarios.len(),
        cells.len()
    );
    // A test that passes prints nothing; `cargo xtask test` prints this.
    if let Some(path) = env::var_os("SCENARIO_TABLE") {
        let mut file = OpenOptions::new();
        let file = file.create(true).append(true).open(path);
        let mut file = file.expect("a file");
        file.write_all(table.as_bytes()).expect("written");
    }
    let mut disagreements = Vec::new();
    for ((scenario, proxy, family), cell) in &cells {
        if let Err(found) = cell {
            disagreements.push(format!(
                "{scenario}, {proxy}, {family:?}:\n  {}",
                found.join("\n  ")
            ));
        }
    }
    assert!(
        disagreements.is_empty(),
        "{table}\n{}",
        disagreements.join("\n")
    );
}
