//! The matrix that a quantizer reads.

use std::borrow::Cow;

use gamma_core::ModuleName;
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::QuantizeError;

/// A named weight matrix, shape `[out_features, in_features]`: not empty, and every weight finite.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    name: &'a ModuleName,
    data: ArrayView2<'a, f32>,
}

impl<'a> WeightView<'a> {
    /// Checks a matrix.
    ///
    /// ```
    /// use gamma_core::ModuleName;
    /// use gamma_quant::WeightView;
    ///
    /// let name = ModuleName::new("lm_head");
    /// let weight = ndarray::array![[0.5, f32::NAN]];
    /// let error = WeightView::new(&name, weight.view()).unwrap_err();
    /// assert_eq!(error.to_string(), "module `lm_head`: the weight in row 0, column 1 is NaN");
    /// ```
    ///
    /// # Errors
    /// [`QuantizeError::Empty`], or [`QuantizeError::NotFinite`] with the first such weight.
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference, and callers write `.view()`")]
    pub fn new(name: &'a ModuleName, data: ArrayView2<'a, f32>) -> Result<Self, QuantizeError> {
        let view = Self { name, data };
        if data.is_empty() {
            return Err(QuantizeError::Empty { module: name.clone(), shape: view.shape() });
        }
        let not_finite = (0..view.shape()[0]).into_par_iter().find_map_first(|row| {
            let column = data.row(row).iter().position(|w| !w.is_finite())?;
            Some((row, column))
        });
        match not_finite {
            None => Ok(view),
            Some((row, column)) => Err(QuantizeError::NotFinite {
                module: name.clone(),
                row,
                column,
                value: data[[row, column]],
            }),
        }
    }

    /// The module's name.
    #[must_use]
    pub fn name(&self) -> &'a ModuleName {
        self.name
    }

    /// `[out_features, in_features]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.data.nrows(), self.data.ncols()]
    }

    /// The weights; rows need not lie next to each other.
    #[must_use]
    pub fn data(&self) -> ArrayView2<'a, f32> {
        self.data
    }

    /// One row as a slice, copied only where the matrix is not stored row by row.
    ///
    /// # Panics
    /// If `row` is not below `out_features`.
    #[must_use]
    pub fn row(&self, row: usize) -> Cow<'a, [f32]> {
        assert!(row < self.data.nrows(), "row {row} of {}", self.data.nrows());
        let row = self.data.index_axis_move(ndarray::Axis(0), row);
        row.to_slice().map_or_else(|| Cow::Owned(row.to_vec()), Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn the_first_weight_that_is_not_finite_is_named() {
        let name = ModuleName::new("m");
        let mut weight = Array2::zeros((300, 7));
        weight[[250, 0]] = f32::INFINITY;
        weight[[123, 4]] = f32::NEG_INFINITY;
        weight[[123, 6]] = f32::NAN;
        match WeightView::new(&name, weight.view()) {
            Err(QuantizeError::NotFinite { module, row: 123, column: 4, value }) => {
                assert_eq!((module.as_str(), value), ("m", f32::NEG_INFINITY));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn empty_matrices_are_refused() {
        let name = ModuleName::new("m");
        for shape in [[0, 4], [4, 0], [0, 0]] {
            let weight = Array2::zeros(shape);
            let error = WeightView::new(&name, weight.view()).unwrap_err();
            assert!(matches!(error, QuantizeError::Empty { shape: s, .. } if s == shape), "{error}");
        }
    }

    #[test]
    fn rows_of_a_transposed_matrix_are_rows() {
        let (name, stored) = (ModuleName::new("m"), array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        let view = WeightView::new(&name, stored.t()).unwrap();
        assert_eq!(view.shape(), [2, 3]);
        assert_eq!(*view.row(1), [2.0, 4.0, 6.0]);
    }
}
