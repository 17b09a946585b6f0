//! What a run found, as a picture: what each condition adds to the machine's work, and how the
//! observer's grows.

use anyhow::{Result, anyhow};
use plotters::{
    chart::ChartContext,
    coord::{Shift, types::RangedCoordf64},
    prelude::{
        Cartesian2d, ChartBuilder, Circle, Color as _, DrawingArea, IntoDrawingArea as _,
        LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text,
    },
    style::{IntoFont as _, TextStyle, colors::WHITE, text_anchor},
};

use super::{
    condition::Condition,
    growth::{Curve, Point},
    load::{Load, Metric},
    results::Results,
    statistics::Spread,
    table::number,
};

const WIDTH: u32 = 1_100;
const BARS_HEIGHT: u32 = 420;
const CURVES_HEIGHT: u32 = 340;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const PALE: RGBColor = RGBColor(225, 225, 225);
/// The observer stands out; who it is held against does not.
const COLOURS: [(Condition, RGBColor); 6] = [
    (Condition::Floor, RGBColor(190, 190, 190)),
    (Condition::Trace, RGBColor(31, 119, 180)),
    (Condition::Agent, RGBColor(23, 78, 120)),
    (Condition::Conntrack, RGBColor(255, 187, 120)),
    (Condition::Tcpdump, RGBColor(214, 96, 77)),
    (Condition::Naive, RGBColor(168, 140, 200)),
];
/// The share of a group's width that bars take.
const BARS_SHARE: f64 = 0.84;

/// What bars and the legend beside them take, as a multiple of what bars do.
const LEGEND_SHARE: f64 = 1.13;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The picture, as the text of an SVG file.
pub fn svg(results: &Results) -> Result<String> {
    let mut text = String::new();
    draw(results, &mut text).map_err(|error| anyhow!("failed to draw: {error}"))?;
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(results: &Results, text: &mut String) -> Drawn {
    let groups = groups(results);
    let mut height = 0;
    if !groups.is_empty() {
        height += BARS_HEIGHT;
    }
    if !results.growth.is_empty() {
        height += CURVES_HEIGHT;
    }
    let root = SVGBackend::with_string(text, (WIDTH, height.max(1))).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = if groups.is_empty() {
        root.split_vertically(0)
    } else {
        root.split_vertically(BARS_HEIGHT)
    };
    if !groups.is_empty() {
        bars(&above, &groups)?;
    }
    if !results.growth.is_empty() {
        let areas = below.split_evenly((1, results.growth.len()));
        for (area, curve) in areas.iter().zip(&results.growth) {
            growth(area, curve)?;
        }
    }
    root.present()?;
    Ok(())
}

/// What a load costs the machine under each condition, beyond what it costs without, in percent.
type Group = (String, Vec<(Condition, Spread)>);

fn groups(results: &Results) -> Vec<Group> {
    let of_load = |load: Load| {
        let mut noisy = "";
        let bars: Vec<_> = Condition::ALL
            .into_iter()
            .filter_map(|condition| {
                let row = results.compared.row(load, condition, Metric::Cost)?;
                if row.comparison.noisy {
                    noisy = " (noisy)";
                }
                let beyond = |ratio: f64| (ratio - 1.0) * 100.0;
                let ratio = row.comparison.ratio;
                let spread = Spread {
                    median: beyond(ratio.median),
                    low: beyond(ratio.low),
                    high: beyond(ratio.high),
                };
                Some((condition, spread))
            })
            .collect();
        let name = format!("{}{noisy}", load.name());
        (!bars.is_empty()).then_some((name, bars))
    };
    Load::ALL.into_iter().filter_map(of_load).collect()
}

fn text_style(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

fn bars(area: &Area<'_>, groups: &[Group]) -> Drawn {
    let spreads = groups
        .iter()
        .flat_map(|(_, bars)| bars.iter().map(|bar| bar.1));
    let (low, high) = spreads.fold((-2.0, 10.0), |(low, high): (f64, f64), spread| {
        (low.min(spread.low), high.max(spread.high))
    });
    #[expect(clippy::cast_precision_loss, reason = "a few groups")]
    let width = groups.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "What it adds to the machine's CPU for the same work (median, quartiles)",
            text_style(18),
        )
        .margin(14)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..width * LEGEND_SHARE, low * 1.05..high * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .max_light_lines(1)
        .light_line_style(WHITE)
        .bold_line_style(PALE)
        .axis_style(PALE)
        .y_labels(8)
        .y_label_style(text_style(13))
        .y_label_formatter(&|percent| format!("{percent:+.0} %"))
        .draw()?;
    chart.draw_series(LineSeries::new(
        [(0.0, 0.0), (width, 0.0)],
        INK.stroke_width(1),
    ))?;
    let style = text_style(14).pos(text_anchor::Pos::new(
        text_anchor::HPos::Center,
        text_anchor::VPos::Top,
    ));
    let mut left = 0.0;
    for (name, bars) in groups {
        let middle = left + 0.5;
        chart.draw_series([Text::new(
            name.clone(),
            (middle, high * 1.13),
            style.clone(),
        )])?;
        for (condition, spread) in bars {
            let Some(place) = COLOURS.iter().position(|(of, _)| of == condition) else {
                continue;
            };
            bar(&mut chart, left, place, spread)?;
        }
        left += 1.0;
    }
    for (condition, colour) in COLOURS {
        chart
            .draw_series([Rectangle::new([(0.0, 0.0), (0.0, 0.0)], colour.filled())])?
            .label(condition.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    legend(&mut chart)
}

fn bar<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, group: f64, place: usize, spread: &Spread) -> Drawn {
    #[expect(clippy::cast_precision_loss, reason = "a few bars")]
    let (place_f64, bars) = (place as f64, COLOURS.len() as f64);
    let width = BARS_SHARE / bars;
    let left = group + (1.0 - BARS_SHARE) / 2.0 + place_f64 * width;
    let colour = COLOURS[place].1;
    let body = [
        (left + width * 0.06, 0.0),
        (left + width * 0.94, spread.median),
    ];
    chart.draw_series([Rectangle::new(body, colour.filled())])?;
    let middle = left + width / 2.0;
    chart.draw_series([PathElement::new(
        [(middle, spread.low), (middle, spread.high)],
        INK.stroke_width(1),
    )])?;
    Ok(())
}

/// One figure of a point.
type Figure = fn(&Point) -> f64;

/// Two lines: the agent's time for a connection, and its programs'.
fn growth(area: &Area<'_>, curve: &Curve) -> Drawn {
    let lines: [(&str, RGBColor, Figure); 2] = [
        ("agent", COLOURS[2].1, |point| point.agent_us),
        ("in the kernel, with the clock", COLOURS[4].1, |point| {
            point.kernel_ns / 1e3
        }),
    ];
    let highest = |point: &Point| lines.map(|(_, _, of)| of(point));
    let high = curve.points.iter().flat_map(highest).fold(1.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a few points")]
    let last = curve.points.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("µs for each connection, by {}", curve.with),
            text_style(15),
        )
        .margin(14)
        .y_label_area_size(44)
        .x_label_area_size(30)
        .build_cartesian_2d(-0.2..last + 0.2, 0.0..high * 1.5)?;
    let at = |place: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place among a few points"
        )]
        let index = place.round().max(0.0) as usize;
        curve.points.get(index).map(|point| number(point.x))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .light_line_style(WHITE)
        .bold_line_style(PALE)
        .axis_style(PALE)
        .x_labels(curve.points.len())
        .x_label_formatter(&|place| at(*place).unwrap_or_default())
        .y_labels(6)
        .label_style(text_style(12))
        .draw()?;
    for (name, colour, of) in lines {
        let points: Vec<(f64, f64)> = (0_u32..)
            .zip(&curve.points)
            .map(|(place, point)| (f64::from(place), of(point)))
            .collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        let dots = points.into_iter();
        chart.draw_series(dots.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    legend(&mut chart)
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(PALE)
        .label_font(text_style(13))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        compare::Row,
        statistics::{Comparison, Round},
    };

    #[test]
    fn every_condition_and_every_curve_is_in_the_picture() {
        let mut results = Results::default();
        for (condition, figure) in [(Condition::Trace, 101.0), (Condition::Tcpdump, 150.0)] {
            let round = Round {
                references: [100.0, 100.0],
                figure,
            };
            results.compared.rows.push(Row {
                load: Load::Requests.name(),
                condition: condition.name(),
                metric: Metric::Cost.name(),
                unit: "µs",
                reference: 100.0,
                comparison: Comparison::of(&[round]).expect("a round"),
            });
        }
        let svg = svg(&results).expect("drawn");
        for part in ["<svg", "requests", "tcpdump", "+50 %"] {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
        assert!(!svg.contains("connections"));
    }
}
