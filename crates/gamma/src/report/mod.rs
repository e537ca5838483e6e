//! Tables and a picture of what was decided and what it costs.

mod curve;
mod grid;
mod table;

pub use curve::curve_svg;
pub use grid::grid;
pub use table::{Outcome, Series, table};
