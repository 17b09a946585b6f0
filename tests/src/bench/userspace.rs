//! What userspace costs, measured by a program of its own (the package `observer-bench`), which may
//! know the observer's inside as this package may not: its core by itself, and a whole observer fed
//! through its ring buffer.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result};
use comfy_table::Table;
use serde_json::{Map, Value};

use super::table::{new, number};
use crate::command;

/// From here on waking up is no longer most of the work.
const BUSY: f64 = 9_000.0;
/// Who feeds keeps a rate to within so many connections a second.
const RATE_GRAIN: f64 = 500.0;
const MIB: f64 = 1_048_576.0;

/// Runs it: one object, of the core and of what was absorbed; the core alone if it must be quick.
pub fn measure(program: &Path, quick: bool) -> Result<Value> {
    let mut all = Map::new();
    let runs: &[&[&str]] = if quick { &[&[]] } else { &[&[], &["--absorb"]] };
    for arguments in runs {
        let printed = command::run(Command::new(program).args(*arguments))?;
        let printed: Value = serde_json::from_str(&printed)
            .with_context(|| format!("{} printed no JSON", program.display()))?;
        if let Value::Object(part) = printed {
            all.extend(part);
        }
    }
    Ok(Value::Object(all))
}

/// The figures that targets are about.
pub fn measures(userspace: &Value) -> BTreeMap<String, f64> {
    let rows = |who: &str| -> Vec<&Value> {
        let rows = userspace.pointer(&format!("/absorb/{who}"));
        rows.and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect()
    };
    let worst = |who: &str| {
        let busy = rows(who)
            .into_iter()
            .filter(|row| figure(row, "rate") >= BUSY);
        busy.map(|row| figure(row, "cpu_us_each")).reduce(f64::max)
    };
    let absorbed = rows("trace")
        .into_iter()
        .filter(|row| whole(row) && figure(row, "cpu_share") <= 1.0)
        .map(|row| (figure(row, "rate") / RATE_GRAIN).round() * RATE_GRAIN)
        .reduce(f64::max);
    let tracked = userspace.pointer("/core/memory/tracked_resident_bytes");
    let tracked = tracked.and_then(Value::as_f64).map(|bytes| bytes / MIB);
    [
        ("userspace_trace_us", worst("trace")),
        ("userspace_agent_us", worst("agent")),
        ("absorbed_per_second", absorbed),
        ("tracked_resident_mib", tracked),
    ]
    .into_iter()
    .filter_map(|(name, figure)| Some((name.to_owned(), figure?)))
    .collect()
}

/// Whether all that was fed came out.
fn whole(row: &Value) -> bool {
    figure(row, "observations_refused") < 0.5 && figure(row, "told") >= figure(row, "connections")
}

fn figure(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or(f64::NAN)
}

/// Everything in it: each list of objects a table, and each object that is not in one.
pub fn tables(userspace: &Value) -> Vec<(String, Table)> {
    let mut tables = Vec::new();
    collect("userspace", userspace, &mut tables);
    tables
}

fn collect(path: &str, value: &Value, tables: &mut Vec<(String, Table)>) {
    match value {
        Value::Array(rows) => {
            let Some(Value::Object(first)) = rows.first() else {
                return;
            };
            let mut table = new(first.keys().map(String::as_str));
            for row in rows {
                table.add_row(first.keys().map(|name| shown(&row[name])));
            }
            tables.push((path.to_owned(), table));
        }
        Value::Object(fields) => {
            let mut table = new(["what", "figure"]);
            for (name, field) in fields {
                if field.is_object() || field.is_array() {
                    collect(
                        &format!("{path}, {}", name.replace('_', " ")),
                        field,
                        tables,
                    );
                } else {
                    table.add_row([name.clone(), shown(field)]);
                }
            }
            if table.row_iter().next().is_some() {
                tables.push((path.to_owned(), table));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn shown(value: &Value) -> String {
    value.as_f64().map_or_else(|| value.to_string(), number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed() -> Value {
        json!({
            "core": {"connections": [{"services": 10, "ns": 900.5}],
                "memory": {"tracked_resident_bytes": 50 * (1 << 20)}},
            "absorb": {"trace": [
                {"rate": 1_000.0, "connections": 4, "told": 4, "observations_refused": 0, "cpu_us_each": 30.0, "cpu_share": 0.1},
                {"rate": 49_916.0, "connections": 9, "told": 10, "observations_refused": 0, "cpu_us_each": 4.0, "cpu_share": 0.2},
                {"rate": 100_000.0, "connections": 9, "told": 8, "observations_refused": 2, "cpu_us_each": 3.0, "cpu_share": 0.3}]}
        })
    }

    #[test]
    fn what_was_lost_was_not_absorbed_and_idle_wake_ups_are_no_work() {
        let expected = [
            ("absorbed_per_second", 50_000.0),
            ("tracked_resident_mib", 50.0),
            ("userspace_trace_us", 4.0),
        ];
        let expected = expected.map(|(name, figure)| (name.to_owned(), figure));
        assert_eq!(measures(&printed()), BTreeMap::from(expected));
    }

    #[test]
    fn everything_that_it_prints_is_shown() {
        let tables = tables(&printed());
        let texts = tables.iter();
        let texts = texts.map(|(title, table)| format!("{title}\n{table}"));
        let text = texts.collect::<Vec<_>>().join("\n");
        for part in ["core, connections", "900", "absorb, trace", "100,000"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
