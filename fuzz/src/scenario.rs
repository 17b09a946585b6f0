//! A row of the decision table, as somebody wrote it.

use tests::{
    cluster::Cluster,
    plan::Plan,
    scenario::{Cast, Scenario},
};

/// Reads a scenario. What is one makes a cluster that a lab can be planned for; what is none is
/// refused in one line.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Scenario::parse("any", &text) {
        Ok(scenario) => {
            let cast = Cast::new(&[&scenario]).expect("one has room");
            let cluster = Cluster::parse(&cast.objects().to_string()).expect("a List");
            Plan::of(&cluster).expect("a plan");
        }
        Err(refused) => {
            let why = format!("{refused:#}");
            assert!(!why.is_empty() && why.lines().count() == 1, "{why:?}");
        }
    }
}
