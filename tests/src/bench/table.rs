//! What a run found, for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{
    condition::Condition,
    growth::{Curve, Point},
    load::{Load, Metric},
    packets::Class,
    results::Results,
    statistics::{REFERENCES_DIFFER_MAX, Spread},
    targets::{Judged, Limit, Verdict},
    userspace,
};

/// All tables, each below what it shows.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    let mut part = |title: &str, table: Table| {
        if table.row_iter().next().is_some() {
            writeln!(text, "\n{title}\n{table}").expect("writing to a string cannot fail");
        }
    };
    part(
        &format!(
            "Traffic under each condition, between two references with nothing attached (× is of \
             their mean). Cost is the CPU of all that takes part: clients, servers, who observes, \
             softirqs. A round counts if its references differ by no more than {} %: of them the \
             median [quartiles]. \"noisy\": fewer than three counted, and all are shown.",
            REFERENCES_DIFFER_MAX * 100.0
        ),
        traffic(results),
    );
    part(
        "In the kernel, ns of a run by packet class (BPF_PROG_TEST_RUN): the least of many \
         stretches; of the hooks what is above the floor, in brackets with first bytes asked for. \
         Alone: each packet another, run once, so that the floor is mostly the stopwatch.",
        kernel(results),
    );
    part(
        "In the kernel, live, by its own statistics: ns of a run with their clock, and net of the \
         floor's under the same load.",
        live(results),
    );
    for curve in &results.growth {
        part(
            &format!("Growth with {}: an agent, and one who follows.", curve.with),
            growth(curve),
        );
    }
    part("At rest.", rest(results));
    for (title, table) in results.userspace.iter().flat_map(userspace::tables) {
        part(&title, table);
    }
    part("The targets.", targets(&results.targets));
    text
}

/// Where and how it was measured, in a line.
pub fn setting(results: &Results) -> String {
    let setting = &results.setting;
    format!(
        "{}, Linux {}, {} processors, {} rounds of {} s, {:.0} s in all",
        setting.observer,
        setting.kernel,
        setting.processors,
        setting.rounds,
        setting.seconds,
        setting.took_seconds
    )
}

/// A table whose columns are figures, but for the first.
pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header.into_iter().map(str::to_owned).collect::<Vec<_>>());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three digits that say something.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        // Rounded, and a blank before each three digits.
        let digits = format!("{size:.0}");
        let first = digits.len() % 3;
        let mut grouped = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && place % 3 == first {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if value < 0.0 {
            format!("-{grouped}")
        } else {
            grouped
        };
    }
    match size {
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn spread(spread: &Spread) -> String {
    format!(
        "{} [{}, {}]",
        number(spread.median),
        number(spread.low),
        number(spread.high)
    )
}

fn traffic(results: &Results) -> Table {
    let mut table = new([
        "load, condition",
        "rate",
        "×",
        "cost",
        "×",
        "p50, p99 µs",
        "A/A % (counted)",
        "",
    ]);
    let compared = &results.compared;
    for load in Load::ALL {
        let mut any = false;
        for condition in Condition::ALL {
            let row = |metric| compared.row(load, condition, metric);
            let (Some(rate), Some(cost)) = (row(Metric::Rate), row(Metric::Cost)) else {
                continue;
            };
            if !any {
                any = true;
                table.add_row(reference(load, results));
            }
            let lost = compared.lost.get(load.name());
            let lost = lost.and_then(|lost| lost.get(condition.name()).copied());
            let mut remarks: Vec<String> = Vec::new();
            for row in [rate, cost].into_iter().filter(|row| row.comparison.noisy) {
                remarks.push(format!("noisy {}", row.metric));
            }
            if let Some(lost) = lost.filter(|lost| *lost > 0) {
                remarks.push(match condition {
                    // It says that it loses events, not how many.
                    Condition::Conntrack => "lost events".to_owned(),
                    _ => format!("lost {lost}"),
                });
            }
            let latencies = [Metric::P50, Metric::P99]
                .into_iter()
                .filter_map(|metric| Some(number(row(metric)?.comparison.figure.median)));
            let alike = [rate, cost].map(|row| {
                let comparison = row.comparison;
                let differ = comparison.references_differ.median * 100.0;
                let (counted, rounds) = (comparison.counted, comparison.rounds);
                format!("{differ:.1} ({counted}/{rounds})")
            });
            table.add_row([
                format!("  {}", condition.name()),
                number(rate.comparison.figure.median),
                spread(&rate.comparison.ratio),
                number(cost.comparison.figure.median),
                spread(&cost.comparison.ratio),
                latencies.collect::<Vec<_>>().join(", "),
                alike.join(", "),
                remarks.join(", "),
            ]);
        }
    }
    table
}

/// The line of nothing attached, with the units.
fn reference(load: Load, results: &Results) -> [String; 8] {
    let figure = |metric: Metric| {
        let mut rows = results.compared.rows.iter();
        let row = rows.find(|row| (row.load, row.metric) == (load.name(), metric.name()));
        row.map(|row| number(row.reference))
    };
    let with_unit = |metric: Metric| {
        let figure = figure(metric)?;
        Some(format!("{figure} {}", load.unit(metric)))
    };
    let latencies = [Metric::P50, Metric::P99].into_iter().filter_map(figure);
    let latencies = latencies.collect::<Vec<_>>().join(", ");
    let of = |metric| with_unit(metric).unwrap_or_default();
    [
        format!("{}, nothing", load.name()),
        of(Metric::Rate),
        String::new(),
        of(Metric::Cost),
        String::new(),
        latencies,
        String::new(),
        results
            .compared
            .others_percent
            .get(load.name())
            .map_or_else(String::new, |percent| format!("others used {percent:.0} %")),
    ]
}

fn kernel(results: &Results) -> Table {
    let mut table = new(["class", "floor", "naive", "ingress", "egress"]);
    for class in Class::SAME.into_iter().chain(Class::DIFFERENT) {
        let find = |program: &str, payload: bool| {
            let mut rows = results.kernel.iter();
            rows.find(|row| {
                (row.class, row.program, row.payload) == (class.name(), program, payload)
            })
        };
        let Some(floor) = find("floor", false) else {
            continue;
        };
        let net = |program: &str| {
            let of = |payload| find(program, payload).map_or(f64::NAN, |row| row.net_ns);
            match find(program, true) {
                Some(_) => format!("{:+.1} ({:+.1})", of(false), of(true)),
                None => format!("{:+.1}", of(false)),
            }
        };
        let alone = if floor.alone { ", alone" } else { "" };
        table.add_row([
            format!("{}{alone}", class.name()),
            format!("{:.1}", floor.ns_min),
            net("naive"),
            net("ingress"),
            net("egress"),
        ]);
    }
    table
}

fn live(results: &Results) -> Table {
    let mut table = new([
        "load, program",
        "ns of a run",
        "net of the floor",
        "net ns of a unit of work",
        "runs/s",
        "units",
    ]);
    for row in &results.live {
        table.add_row([
            format!("{}, {}", row.load, row.program),
            spread(&row.ns_per_run),
            spread(&row.net_ns_per_run),
            spread(&row.net_ns_per_work),
            number(row.runs_per_second),
            number(row.work),
        ]);
    }
    table
}

fn growth(curve: &Curve) -> Table {
    let mut table = new([
        curve.with,
        "connections/s",
        "agent ms/s",
        "agent µs each",
        "kernel ns each, with clock",
        "told %",
        "start ms",
        "resident MiB",
    ]);
    for point in &curve.points {
        let Point {
            x,
            agent_ms_per_s,
            agent_us,
            kernel_ns,
            rate,
            told_percent,
            start_ms,
            resident_mib,
        } = *point;
        table.add_row(
            [
                x,
                rate,
                agent_ms_per_s,
                agent_us,
                kernel_ns,
                told_percent,
                start_ms,
                resident_mib,
            ]
            .map(number),
        );
    }
    let slope = |slope: Option<f64>, unit: &str| {
        slope.map_or_else(String::new, |slope| format!("{slope:+.4} {unit}"))
    };
    table.add_row([
        "slope, for each one more".to_owned(),
        String::new(),
        slope(curve.agent_us_per_s_slope, "µs/s"),
        String::new(),
        slope(curve.kernel_ns_slope, "ns"),
        String::new(),
        slope(curve.start_ms_slope, "ms"),
        slope(curve.resident_kib_slope, "KiB"),
    ]);
    table
}

fn rest(results: &Results) -> Table {
    let mut table = new(["what", "figure"]);
    if let Some(rest) = &results.rest {
        for (what, figure, unit) in [
            ("until it observes", rest.start_ms, "ms"),
            ("resident memory", rest.resident_mib, "MiB"),
            ("processor time in a second, idle", rest.idle_ms_per_s, "ms"),
            ("maps in the kernel", rest.maps_mib, "MiB"),
        ] {
            let what = format!("{what} ({})", rest.objects);
            table.add_row([what, format!("{} {unit}", number(figure))]);
        }
    }
    table
}

/// What became of the targets.
pub fn targets(targets: &[Judged]) -> Table {
    let mut table = new(["target", "limit", "reached", ""]);
    for judged in targets {
        let unit = &judged.target.unit;
        let limit = match judged.target.limit {
            Limit::AtMost(limit) => format!("≤ {limit} {unit}"),
            Limit::AtLeast(limit) => format!("≥ {limit} {unit}"),
        };
        let reached = judged.reached;
        let reached =
            reached.map_or_else(String::new, |reached| format!("{} {unit}", number(reached)));
        let verdict = match judged.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::NotMeasured => "not measured",
        };
        let verdict = if judged.noisy {
            format!("{verdict}, noisy")
        } else {
            verdict.to_owned()
        };
        table.add_row([&*judged.target.what, &*limit, &*reached, &*verdict]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(comfy_table::ColumnConstraint::UpperBoundary(
            comfy_table::Width::Fixed(70),
        ));
    }
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_width(140);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_their_size() {
        let shown = [0.0, 0.123_4, -4.567, 45.67, 999.6, 12_345.6, -1_234_567.0].map(number);
        assert_eq!(
            shown,
            [
                "0.00",
                "0.123",
                "-4.57",
                "45.7",
                "1,000",
                "12,346",
                "-1,234,567"
            ]
        );
    }

    #[test]
    fn a_target_that_was_missed_stands_out() {
        let judged = super::super::targets::judge(
            super::super::targets::targets().expect("parsed"),
            &[("established_net_ns".to_owned(), 7.0)].into(),
            &["established_net_ns".to_owned()].into(),
        );
        let table = targets(&judged).to_string();
        let line = table.lines().find(|line| line.contains("≤ 6 ns"));
        let line = line.expect("a line");
        assert!(
            line.contains("7.00 ns") && line.contains("MISSED, noisy"),
            "{line}"
        );
        assert_eq!(table.matches("MISSED").count(), 1, "{table}");
    }
}
