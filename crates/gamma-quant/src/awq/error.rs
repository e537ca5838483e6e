//! What a change of the weights does to the output.

use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

/// Rows per task: enough for a product of matrices to be fast, few enough for many threads.
const ROWS: usize = 64;

/// `tr(D H Dᵀ)`: the mean over tokens of the squared length of `D x`. `difference` is
/// `[out_features, in_features]`, `hessian` `[in_features, in_features]`.
pub(super) fn of_output(difference: &Array2<f32>, hessian: &Array2<f32>) -> f64 {
    // The sums of every task are added in order: the result is the same on any number of threads.
    let tasks: Vec<_> = difference.axis_chunks_iter(Axis(0), ROWS).collect();
    let sums: Vec<f64> = tasks
        .into_par_iter()
        .map(|rows| {
            let products = rows.dot(hessian);
            rows.iter().zip(&products).map(|(&d, &product)| f64::from(d) * f64::from(product)).sum()
        })
        .collect();
    // Rounding can make a sum of nearly nothing negative.
    sums.iter().sum::<f64>().max(0.0)
}

/// The same for inputs without correlations: the sum of `m_j D_ij²`. `second_moment` is
/// `[in_features]`.
pub(super) fn without_correlations(difference: &Array2<f32>, second_moment: &Array1<f32>) -> f64 {
    let row = |row: usize| {
        let terms = difference.row(row).into_iter().zip(second_moment);
        terms.map(|(&d, &moment)| f64::from(moment) * f64::from(d) * f64::from(d)).sum()
    };
    let sums: Vec<f64> = (0..difference.nrows()).into_par_iter().map(row).collect();
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn errors_are_those_of_the_outputs() {
        let difference = Array2::from_shape_fn((130, 3), |(i, j)| ((i * 3 + j) % 7) as f32 - 3.0);
        let x = array![[1.0, 2.0, -1.0, 0.5], [0.0, -1.0, 3.0, 2.0], [2.0, 2.0, 1.0, -1.0]];
        let hessian: Array2<f32> = x.dot(&x.t()) / 4.0;
        let outputs = difference.dot(&x);
        let expected = outputs.iter().map(|&y| f64::from(y * y)).sum::<f64>() / 4.0;
        assert!((of_output(&difference, &hessian) - expected).abs() < 1e-3, "{expected}");

        let uncorrelated = Array2::from_diag(&hessian.diag());
        let expected = of_output(&difference, &uncorrelated);
        let found = without_correlations(&difference, &hessian.diag().to_owned());
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
}
