//! Tables and a picture of what was decided and what it costs.

mod axes;
mod comparison;
mod coverage;
mod curve;
mod explanation;
mod frontier;
mod grid;
mod stability;
mod table;

pub use comparison::{Shown, comparison, comparison_svg};
pub use coverage::{starved, unplanned};
pub use curve::curve_svg;
pub use explanation::explanation;
pub use frontier::{frontier_csv, frontier_svg};
pub use grid::grid;
pub use stability::stability;
pub use table::{Outcome, Series, table};
