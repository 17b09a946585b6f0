//! The decision table, row by row.
//!
//! Goal: what is predicted from the objects, what was observed and what the two ends saw are the
//! same, and what each file of `tests/scenarios` expects, in every mode and family. Method: the
//! scenarios that can share a lab are played in one, each with a Service of its own.

use std::{env, fs};

use anyhow::ensure;
use tests::{
    kubeproxy::ipvs,
    netns::Namespace,
    privilege,
    protocol::Protocol,
    scenario::{Proxy, Scenario, play, table},
};

/// So many rows are promised.
const SCENARIOS: usize = 60;

#[test]
fn prediction_observation_and_sockets_agree() {
    let test = "prediction_observation_and_sockets_agree";
    if !privilege::granted(test) {
        return;
    }
    let scenarios = scenarios();
    let kernel_has_sctp = privilege::kernel_has(test, "sockets for SCTP", || {
        ensure!(Protocol::Sctp.has_sockets(), "a socket cannot be made");
        Ok(())
    });
    let (mut played, in_machines): (Vec<_>, Vec<_>) = scenarios
        .into_iter()
        .partition(|scenario| scenario.protocol != Protocol::Sctp || kernel_has_sctp);
    played.retain(|scenario| {
        Proxy::EVERYWHERE
            .iter()
            .any(|proxy| scenario.modes.contains(proxy))
    });
    assert_agree(&played, &Proxy::EVERYWHERE, in_machines.len());
}

/// The same by virtual servers, and the rows that differ there.
#[test]
fn prediction_observation_and_sockets_agree_in_mode_ipvs() {
    let test = "prediction_observation_and_sockets_agree_in_mode_ipvs";
    let probe = || ipvs::prepare(&Namespace::create("probe")?);
    if !(privilege::granted(test) && privilege::kernel_has(test, "IPVS", probe)) {
        return;
    }
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| scenario.modes.contains(&Proxy::Ipvs));
    assert_agree(&scenarios, &[Proxy::Ipvs], 0);
}

fn scenarios() -> Vec<Scenario> {
    let scenarios = Scenario::read_all(&Scenario::folder()).expect("scenarios");
    assert!(
        scenarios.len() >= SCENARIOS,
        "only {} scenarios",
        scenarios.len()
    );
    scenarios
}

/// Plays scenarios, and demands that all answers are the expected ones.
fn assert_agree(scenarios: &[Scenario], proxies: &[Proxy], elsewhere: usize) {
    let cells = play(scenarios, proxies).expect("played");
    let elsewhere = match elsewhere {
        0 => String::new(),
        more => format!("; {more} more in virtual machines (SCTP)"),
    };
    let table = format!(
        "{}\n{} scenarios, {} ways to play one{elsewhere}\n",
        table(scenarios, proxies, &cells),
        scenarios.len(),
        cells.len()
    );
    // A test that passes prints nothing; `cargo xtask test` prints this.
    if let Some(path) = env::var_os("SCENARIO_TABLE") {
        fs::write(path, &table).expect("written");
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
