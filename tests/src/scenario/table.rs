//! The decision table, as it came out.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::Scenario;

/// What came of a scenario in one mode and family: in short, or where the answers disagree.
pub type Cells = BTreeMap<(String, String), Result<String, Vec<String>>>;

/// A row for each scenario, a column for each mode and family.
pub fn table(scenarios: &[Scenario], columns: &[String], cells: &Cells) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let names = ["row", "scenario"].map(str::to_owned);
    table.set_header(names.iter().chain(columns));
    for scenario in scenarios {
        let cell = |column: &String| {
            let cell = cells.get(&(scenario.name.clone(), column.clone()));
            match cell {
                None => "-".to_owned(),
                Some(Ok(short)) => short.clone(),
                Some(Err(_)) => "DISAGREE".to_owned(),
            }
        };
        let row = [scenario.row.clone(), scenario.name.clone()];
        table.add_row(row.into_iter().chain(columns.iter().map(cell)));
    }
    table
}
