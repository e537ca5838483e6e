//! Correlations of a module's input channels, and what is derived from them once.

#[cfg(feature = "gptq")]
mod accumulate;
#[cfg(feature = "gptq")]
pub(crate) mod factor;

use std::fmt;

use ndarray::{Array2, CowArray, Ix2};
use rayon::prelude::*;

#[cfg(feature = "gptq")]
pub use accumulate::{HessianAccumulator, InvalidActivations};

/// The mean of `x xᵀ` over the vectors `x` that a module receives, `[in_features, in_features]`.
///
/// A value is meant to be shared, as in [`CalibrationStats`](crate::CalibrationStats): it keeps the
/// factors that GPTQ derives from it, so that they are computed once for all bit-widths and all
/// modules that read the same input. Beside the `4 n²` bytes of the matrix, every combination of
/// damping and channel order that was used keeps `4 n²` bytes.
pub struct Hessian {
    matrix: Array2<f32>,
    not_finite: Option<([usize; 2], f32)>,
    #[cfg(feature = "gptq")]
    factors: factor::Factors,
}

impl Hessian {
    /// Takes a symmetric matrix. Its shape and values are checked when a module uses it, so that
    /// the error can name the module.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the matrix is stored row by row before it is read")]
    pub fn new(matrix: Array2<f32>) -> Self {
        let matrix = CowArray::<f32, Ix2>::from(matrix).as_standard_layout().into_owned();
        let not_finite = (0..matrix.nrows()).into_par_iter().find_map_first(|row| {
            let column = first_not_finite(matrix.row(row).to_slice().expect("stored row by row"))?;
            Some(([row, column], matrix[[row, column]]))
        });
        Self {
            matrix,
            not_finite,
            #[cfg(feature = "gptq")]
            factors: factor::Factors::default(),
        }
    }

    /// The matrix, stored row by row.
    #[must_use]
    pub fn matrix(&self) -> &Array2<f32> {
        &self.matrix
    }

    /// The first value that is NaN or infinite, and its place.
    #[must_use]
    pub fn not_finite(&self) -> Option<([usize; 2], f32)> {
        self.not_finite
    }
}

/// The first value that is NaN or infinite. Whether there is one is asked first, because that is a
/// vector instruction for many values, and where is not.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    let all_finite = values.iter().fold(true, |all, value| all & value.is_finite());
    if all_finite { None } else { values.iter().position(|value| !value.is_finite()) }
}

/// Two are equal if their matrices are.
impl PartialEq for Hessian {
    fn eq(&self, other: &Self) -> bool {
        self.matrix == other.matrix
    }
}

impl fmt::Debug for Hessian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hessian")
            .field("shape", &self.matrix.shape())
            .field("not_finite", &self.not_finite)
            .finish_non_exhaustive()
    }
}
