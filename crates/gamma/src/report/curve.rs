//! Perplexity against stored bits per weight, as SVG.

use std::ops::Range;

use plotters::{
    prelude::{Circle, DashedLineSeries, EmptyElement, LineSeries, PathElement, PointSeries, RGBColor, Text},
    style::{IntoFont, ShapeStyle},
};

use super::{
    Outcome, Series,
    axes::{Axes, Drawn, picture},
};
use crate::Error;

const SIZE: (u32, u32) = (760, 460);
const PLANNED: RGBColor = RGBColor(0x1b, 0x6a, 0xc9);
const UNIFORM: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
const FULL: RGBColor = RGBColor(0x2e, 0x7d, 0x32);

/// Perplexity (logarithmic) against stored bits per weight: one line for the uniform plans, one
/// for the planned ones, and the full-precision model as a dashed line.
///
/// # Errors
/// [`Error::Picture`] if there is nothing to draw.
pub fn curve_svg(outcomes: &[Outcome]) -> Result<String, Error> {
    let quantized: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.series != Series::Full).collect();
    if quantized.is_empty() {
        return Err(Error::Picture("there are no quantized models to draw".into()));
    }
    let range =
        |pick: fn(f64, f64) -> f64, values: &mut dyn Iterator<Item = f64>| values.reduce(pick).unwrap_or(1.0);
    let bits = || quantized.iter().map(|outcome| outcome.stored_bits);
    let perplexities = || outcomes.iter().map(|outcome| outcome.evaluation.perplexity());
    let (left, right) = (range(f64::min, &mut bits()) - 0.25, range(f64::max, &mut bits()) + 0.25);
    let (bottom, top) =
        (range(f64::min, &mut perplexities()) / 1.6, range(f64::max, &mut perplexities()) * 1.6);

    let full = outcomes.iter().find(|outcome| outcome.series == Series::Full);
    let full = full.map(|outcome| outcome.evaluation.perplexity());
    picture(SIZE, (left..right, bottom..top), 14, |chart| draw(chart, &quantized, full, left..right))
}

/// A line with numbers for each series, and a dashed one over all `bits` at the level `full`.
fn draw(chart: &mut Axes<'_, '_>, quantized: &[&Outcome], full: Option<f64>, bits: Range<f64>) -> Drawn {
    let point = |outcome: &Outcome| (outcome.stored_bits, outcome.evaluation.perplexity());
    for (series, name, color) in [(Series::Uniform, "uniform", UNIFORM), (Series::Planned, "gamma", PLANNED)]
    {
        let mut members: Vec<&Outcome> = quantized.iter().copied().filter(|o| o.series == series).collect();
        members.sort_by(|a, b| a.stored_bits.total_cmp(&b.stored_bits));
        let line = ShapeStyle::from(&color).stroke_width(2);
        chart
            .draw_series(LineSeries::new(members.iter().map(|o| point(o)), line))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], line));
        let (dx, dy) = if series == Series::Planned { (-8, 14) } else { (8, -16) };
        let label = move |coordinates: &(f64, f64), size: i32, style: ShapeStyle| {
            let text = if coordinates.1 < 100.0 {
                format!("{:.2}", coordinates.1)
            } else {
                format!("{:.0}", coordinates.1)
            };
            let shift = if dx < 0 { dx - 7 * i32::try_from(text.len()).unwrap_or(0) } else { dx };
            EmptyElement::at(*coordinates)
                + Circle::new((0, 0), size, style)
                + Text::new(text, (shift, dy), ("sans-serif", 13).into_font().color(&color))
        };
        let points: Vec<(f64, f64)> = members.iter().map(|o| point(o)).collect();
        chart.draw_series(PointSeries::of_element(
            points.iter().copied(),
            4,
            ShapeStyle::from(&color).filled(),
            &|c, s, st| label(&c, s, st),
        ))?;
    }
    if let Some(level) = full {
        let style = ShapeStyle::from(&FULL).stroke_width(1);
        chart
            .draw_series(DashedLineSeries::new([(bits.start, level), (bits.end, level)], 6, 4, style))?
            .label(format!("full precision, {level:.2}"))
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
    }
    Ok(())
}
