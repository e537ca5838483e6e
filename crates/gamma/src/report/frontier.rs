//! The curve of predicted cost against size, as a table and a picture.

use std::fmt::Write as _;

use gamma_core::Measure;
use gamma_ilp::{Frontier, FrontierPoint};
use plotters::{
    prelude::{
        ChartBuilder, Circle, Cross, DrawingAreaErrorKind, IntoDrawingArea, IntoLogRange, LineSeries,
        PathElement, RGBColor, SVGBackend, SeriesLabelPosition, Text, WHITE,
    },
    style::{BLACK, Color, IntoFont, ShapeStyle},
};

use crate::{Error, Plan};

const SIZE: (u32, u32) = (760, 620);
const COST: RGBColor = RGBColor(0x1b, 0x6a, 0xc9);
const PRICE: RGBColor = RGBColor(0xb0, 0x4a, 0x00);
const UNIFORM: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
const KNEE: RGBColor = RGBColor(0xc6, 0x28, 0x28);

/// The curve as CSV: one row per supported point, in order of size, then one per plan of `plans`
/// (a name and the plan).
#[must_use]
pub fn frontier_csv(frontier: &Frontier, plans: &[(String, &Plan)]) -> String {
    let mut text = "kind,bits,bits_per_weight,bytes,cost,cost_saved_per_bit,module,format,knee\n".to_owned();
    for (number, point) in frontier.points.iter().enumerate() {
        let FrontierPoint { bits, cost, step } = point;
        let (slope, module, format) = match step {
            Some(step) => (step.slope.to_string(), step.module.to_string(), step.format.to_string()),
            None => Default::default(),
        };
        let (per_weight, bytes) = (*bits as f64 / frontier.weights as f64, bits.div_ceil(8));
        let knee = if frontier.knee == Some(number) { "knee" } else { "" };
        _ = writeln!(
            text,
            "supported,{bits},{per_weight:.6},{bytes},{cost:e},{slope},{module},{format},{knee}"
        );
    }
    for (name, plan) in plans {
        let bits = plan.size(frontier.measure);
        let (per_weight, bytes) = (bits as f64 / frontier.weights as f64, bits.div_ceil(8));
        _ = writeln!(text, "{name},{bits},{per_weight:.6},{bytes},{:e},,,,", plan.cost());
    }
    text
}

/// Cost (logarithmic, above) and price of a bit (logarithmic, below) against bits per weight.
/// `plans` are drawn as points: exact plans in the colour of the curve, others in grey.
///
/// # Errors
/// [`Error::Picture`] if the curve has a single point or no positive cost.
pub fn frontier_svg(frontier: &Frontier, plans: &[(String, &Plan)]) -> Result<String, Error> {
    let mut svg = String::new();
    let drawable = frontier.points.iter().filter(|point| point.cost > 0.0).count();
    if drawable < 2 {
        return Err(Error::Picture("the curve has fewer than two points of positive cost".into()));
    }
    draw(&mut svg, frontier, plans).map_err(|error| Error::Picture(error.to_string()))?;
    Ok(svg)
}

type Drawn<'a> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>>;

fn draw<'a>(svg: &'a mut String, frontier: &Frontier, plans: &[(String, &Plan)]) -> Drawn<'a> {
    let per_weight = |bits: u64| bits as f64 / frontier.weights as f64;
    let points: Vec<(f64, f64)> = frontier
        .points
        .iter()
        .filter(|point| point.cost > 0.0)
        .map(|point| (per_weight(point.bits), point.cost))
        .collect();
    let others: Vec<(f64, f64, bool)> = plans
        .iter()
        .map(|(name, plan)| (per_weight(plan.size(frontier.measure)), plan.cost(), name == "exact"))
        .filter(|&(_, cost, _)| cost > 0.0)
        .collect();
    let costs = || points.iter().map(|&(_, cost)| cost).chain(others.iter().map(|&(_, cost, _)| cost));
    let (left, right) = (points[0].0 - 0.1, points[points.len() - 1].0 + 0.1);
    let (low, high) = (costs().fold(f64::MAX, f64::min), costs().fold(0.0, f64::max));

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(390);

    let mut chart = ChartBuilder::on(&upper)
        .margin(14)
        .x_label_area_size(30)
        .y_label_area_size(74)
        .build_cartesian_2d(left..right, (low / 1.5..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .y_desc("predicted cost")
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    let line = ShapeStyle::from(&COST).stroke_width(2);
    chart
        .draw_series(LineSeries::new(points.iter().copied(), line))?
        .label("supported plans")
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], line));
    for (exact, name, color) in [(true, "exact plans", COST), (false, "uniform plans", UNIFORM)] {
        let own = others.iter().filter(|&&(.., own)| own == exact);
        let dots = own.map(|&(x, y, _)| Circle::new((x, y), 4, ShapeStyle::from(&color).filled()));
        chart
            .draw_series(dots)?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 11, y), 4, ShapeStyle::from(&color).filled()));
    }
    if let Some(knee) = frontier.knee.map(|number| &frontier.points[number])
        && knee.cost > 0.0
    {
        let at = (per_weight(knee.bits), knee.cost);
        let style = ShapeStyle::from(&KNEE).stroke_width(2);
        chart.draw_series([Cross::new(at, 6, style)])?;
        let font = ("sans-serif", 14).into_font().color(&KNEE);
        chart.draw_series([Text::new(
            format!("knee, {:.2} bits", at.0),
            (at.0 + 0.06, at.1 * 1.15),
            font,
        )])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .draw()?;

    let prices: Vec<(f64, f64)> = frontier
        .points
        .iter()
        .filter_map(|point| Some((per_weight(point.bits), point.step.as_ref()?.slope * 8192.0)))
        .filter(|&(_, price)| price > 0.0)
        .collect();
    let (low, high) = prices.iter().fold((f64::MAX, 0.0_f64), |(a, b), &(_, y)| (a.min(y), b.max(y)));
    let mut chart = ChartBuilder::on(&lower)
        .margin(14)
        .margin_top(0)
        .x_label_area_size(44)
        .y_label_area_size(74)
        .build_cartesian_2d(left..right, (low.min(high) / 1.5..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc(match frontier.measure {
            Measure::CodeBits => "code bits per weight",
            Measure::StoredBits => "stored bits per weight (codes, scales and zero points)",
        })
        .y_desc("cost saved per KiB")
        .y_labels(5)
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    chart.draw_series(LineSeries::new(prices, ShapeStyle::from(&PRICE).stroke_width(2)))?;
    area.present()
}
