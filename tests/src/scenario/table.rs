//! The decision table, as it came out.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::{Proxy, Scenario};
use crate::kubeproxy::Family;

/// What came of a scenario, by its name, in one mode and family: in short, or where the answers
/// disagree.
pub type Cells = BTreeMap<(String, Proxy, Family), Result<String, Vec<String>>>;

/// A row for each scenario, a column for each mode. What is the same in both families is said once.
pub fn table(scenarios: &[Scenario], cells: &Cells) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let names = ["row", "scenario"].map(str::to_owned);
    table.set_header(
        names
            .into_iter()
            .chain(Proxy::ALL.map(|proxy| proxy.to_string())),
    );
    for scenario in scenarios {
        let row = [scenario.row.clone(), scenario.name.clone()];
        table.add_row(
            row.into_iter()
                .chain(Proxy::ALL.map(|proxy| in_mode(scenario, proxy, cells))),
        );
    }
    table
}

fn in_mode(scenario: &Scenario, proxy: Proxy, cells: &Cells) -> String {
    let [v4, v6] = Family::ALL.map(|family| {
        let cell = cells.get(&(scenario.name.clone(), proxy, family));
        cell.map(|cell| cell.as_deref().unwrap_or("DISAGREE"))
    });
    match (v4, v6) {
        (None, None) => "-".to_owned(),
        (Some(v4), Some(v6)) if v4 == v6 => v4.to_owned(),
        (Some(v4), Some(v6)) => format!("{v4} (IPv4)\n{v6} (IPv6)"),
        (Some(v4), None) => format!("{v4} (IPv4)"),
        (None, Some(v6)) => format!("{v6} (IPv6)"),
    }
}
