//! Perplexity against stored bits per weight, as SVG.

use plotters::{
    prelude::{
        ChartBuilder, Circle, DashedLineSeries, DrawingAreaErrorKind, EmptyElement, IntoDrawingArea,
        IntoLogRange, LineSeries, PathElement, PointSeries, RGBColor, SVGBackend, SeriesLabelPosition, Text,
        WHITE,
    },
    style::{BLACK, Color, IntoFont, ShapeStyle},
};

use crate::Error;

use super::{Outcome, Series};

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
    let mut svg = String::new();
    draw(&mut svg, outcomes, &quantized).map_err(|error| Error::Picture(error.to_string()))?;
    Ok(svg)
}

type Drawn<'a> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>>;

fn draw<'a>(svg: &'a mut String, outcomes: &[Outcome], quantized: &[&Outcome]) -> Drawn<'a> {
    let point = |outcome: &Outcome| (outcome.stored_bits, outcome.evaluation.perplexity());
    let range =
        |pick: fn(f64, f64) -> f64, values: &mut dyn Iterator<Item = f64>| values.reduce(pick).unwrap_or(1.0);
    let bits = || quantized.iter().map(|outcome| outcome.stored_bits);
    let perplexities = || outcomes.iter().map(|outcome| outcome.evaluation.perplexity());
    let (left, right) = (range(f64::min, &mut bits()) - 0.25, range(f64::max, &mut bits()) + 0.25);
    let (bottom, top) =
        (range(f64::min, &mut perplexities()) / 1.6, range(f64::max, &mut perplexities()) * 1.6);

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(left..right, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("stored bits per weight (codes, scales and zero points)")
        .y_desc("perplexity on held-out text")
        .y_label_formatter(&|value| {
            if *value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
        })
        .label_style(("sans-serif", 14))
        .draw()?;

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
    if let Some(full) = outcomes.iter().find(|outcome| outcome.series == Series::Full) {
        let level = full.evaluation.perplexity();
        let style = ShapeStyle::from(&FULL).stroke_width(1);
        chart
            .draw_series(DashedLineSeries::new([(left, level), (right, level)], 6, 4, style))?
            .label(format!("full precision, {level:.2}"))
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present()
}
