//! Perplexity against stored bits per weight: the frame that all such pictures share.

use std::{io, ops::Range};

use plotters::{
    chart::ChartContext,
    coord::{
        combinators::{IntoLogRange, LogCoord},
        types::RangedCoordf64,
    },
    prelude::{
        Cartesian2d, ChartBuilder, DrawingAreaErrorKind, IntoDrawingArea, SVGBackend, SeriesLabelPosition,
        WHITE,
    },
    style::{BLACK, Color},
};

use crate::Error;

/// A frame to draw lines and points in: bits from left to right, perplexity upwards.
pub(super) type Axes<'c, 's> = ChartContext<'c, SVGBackend<'s>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

/// What becomes of drawing.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// A picture of `size` pixels as SVG: what `draw` puts into the frame, with a legend of its labels in
/// letters of `letters` pixels.
///
/// # Errors
/// [`Error::Picture`] if something cannot be drawn.
pub(super) fn picture(
    size: (u32, u32),
    (bits, perplexities): (Range<f64>, Range<f64>),
    letters: u32,
    draw: impl FnOnce(&mut Axes<'_, '_>) -> Drawn,
) -> Result<String, Error> {
    let mut svg = String::new();
    frame(&mut svg, size, (bits, perplexities), letters, draw)
        .map_err(|error| Error::Picture(error.to_string()))?;
    Ok(svg)
}

fn frame(
    svg: &mut String,
    size: (u32, u32),
    (bits, perplexities): (Range<f64>, Range<f64>),
    letters: u32,
    draw: impl FnOnce(&mut Axes<'_, '_>) -> Drawn,
) -> Drawn {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(bits, perplexities.log_scale())?;
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
    draw(&mut chart)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", letters))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present()
}
