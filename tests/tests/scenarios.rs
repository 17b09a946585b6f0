//! The decision table, row by row.
//!
//! Goal: what is predicted from the objects, what was observed and what the two ends saw are the
//! same, and what each file of `tests/scenarios` expects, in every mode and family. Method: the
//! scenarios that can share a lab are played in one, each with a Service of its own.

use std::{env, fs};

use tests::{
    privilege,
    scenario::{Proxy, Scenario, play, table},
};

/// So many rows are promised.
const SCENARIOS: usize = 60;

#[test]
fn prediction_observation_and_sockets_agree() {
    if !privilege::granted("prediction_observation_and_sockets_agree") {
        return;
    }
    let scenarios = Scenario::read_all(&Scenario::folder()).expect("scenarios");
    assert!(
        scenarios.len() >= SCENARIOS,
        "only {} scenarios",
        scenarios.len()
    );
    let cells = play(&scenarios, &Proxy::ALL).expect("played");
    let table = format!(
        "{}\n{} scenarios, {} ways to play one\n",
        table(&scenarios, &cells),
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
