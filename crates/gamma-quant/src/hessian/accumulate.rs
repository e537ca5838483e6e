//! Sums the products of input channels over chunks of activations.

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul, traits::pulp::Arch};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::first_not_finite;
use crate::CalibrationStats;

/// Side of the square tiles that the matrix is summed in.
const TILE: usize = 256;
/// Tokens whose products are summed in `f32` before the total joins the sum in `f64`.
const SLAB: usize = 1024;
/// Activations that one task checks.
const CHECKED: usize = 1 << 15;

/// Why activations cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidActivations {
    /// An activation that is NaN or infinite.
    #[error("the activation of token {token}, channel {channel} is {value}")]
    NotFinite {
        /// Token within the chunk, counted from 0.
        token: usize,
        /// Input channel, counted from 0.
        channel: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Activations of another module.
    #[error("expected {expected} input channels, found {found}")]
    Channels {
        /// Channels that the sums are over.
        expected: usize,
        /// Channels of the chunk.
        found: usize,
    },
}

/// Gathers [`CalibrationStats`] from activations, chunk by chunk.
///
/// Products are summed in `f32` over at most 1024 tokens and in `f64` beyond, so that a mean over
/// millions of tokens has the relative error of one over a thousand. The same chunks give the same
/// bits on any number of threads.
///
/// For `n` input channels the sums take `4 n (n + 256)` bytes: one half of the symmetric matrix, in
/// tiles of 256 channels. [`finish`](Self::finish) allocates the `4 n²` bytes of the result.
///
/// ```
/// use gamma_quant::HessianAccumulator;
/// use ndarray::array;
///
/// let mut sums = HessianAccumulator::new(2);
/// sums.add(array![[1.0, 2.0], [3.0, 0.0]].view())?;
/// sums.add(array![[2.0, 1.0]].view())?;
/// let stats = sums.finish();
/// assert_eq!(stats.tokens, 3);
/// let hessian = stats.hessian.expect("gathered");
/// assert_eq!(hessian.matrix() * 3.0, array![[14.0, 4.0], [4.0, 5.0]]);
/// # Ok::<(), gamma_quant::InvalidActivations>(())
/// ```
#[derive(Clone, Debug)]
pub struct HessianAccumulator {
    in_features: usize,
    tokens: usize,
    tiles: Vec<Tile>,
}

/// Sums over tokens of `x_r x_c` for the channels `r` from `row` and `c` from `column` on.
#[derive(Clone, Debug)]
struct Tile {
    row: usize,
    column: usize,
    sums: Mat<f64>,
}

impl HessianAccumulator {
    /// No tokens yet.
    #[must_use]
    pub fn new(in_features: usize) -> Self {
        let side = |start| TILE.min(in_features - start);
        let starts = || (0..in_features).step_by(TILE);
        let tiles = starts().flat_map(|row| {
            starts().take_while(move |&column| column <= row).map(move |column| (row, column))
        });
        let tiles =
            tiles.map(|(row, column)| Tile { row, column, sums: Mat::zeros(side(row), side(column)) });
        Self { in_features, tokens: 0, tiles: tiles.collect() }
    }

    /// Adds the activations of some tokens, `[tokens, in_features]`.
    ///
    /// # Errors
    /// [`InvalidActivations`]; nothing has been added then.
    #[expect(clippy::missing_panics_doc, reason = "the standard layout is one slice")]
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference, and callers write `.view()`")]
    pub fn add(&mut self, activations: ArrayView2<'_, f32>) -> Result<(), InvalidActivations> {
        let (tokens, found) = activations.dim();
        if found != self.in_features {
            return Err(InvalidActivations::Channels { expected: self.in_features, found });
        }
        let rows = activations.as_standard_layout();
        let values = rows.as_slice().expect("the standard layout is one slice");
        let not_finite = values
            .par_chunks(CHECKED)
            .enumerate()
            .find_map_first(|(chunk, values)| first_not_finite(values).map(|at| chunk * CHECKED + at));
        if let Some(at) = not_finite {
            let (token, channel, value) = (at / found, at % found, values[at]);
            return Err(InvalidActivations::NotFinite { token, channel, value });
        }
        let x = MatRef::from_row_major_slice(values, tokens, found);
        // Every tile is one task whose arithmetic does not depend on the others: the bits stay the
        // same on any number of threads.
        self.tiles.par_iter_mut().for_each(|tile| tile.add(x));
        self.tokens += tokens;
        Ok(())
    }

    /// Number of tokens added so far.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The means over all tokens; zeros if there were none.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a new array is one slice")]
    pub fn finish(self) -> CalibrationStats {
        let n = self.in_features;
        let scale = 1.0 / self.tokens.max(1) as f64;
        let mut matrix = Array2::<f32>::zeros((n, n));
        let rows = matrix.as_slice_mut().expect("a new array is one slice");
        rows.par_chunks_mut(TILE * n.max(1)).enumerate().for_each(|(band, rows)| {
            for tile in &self.tiles {
                tile.write(band * TILE, scale, n, rows);
            }
        });
        CalibrationStats::from_hessian(self.tokens, matrix)
    }
}

impl Tile {
    /// `x`: `[tokens, in_features]`.
    fn add(&mut self, x: MatRef<'_, f32>) {
        let (height, width) = (self.sums.nrows(), self.sums.ncols());
        let mut slab_sums = Mat::<f32>::zeros(height, width);
        for start in (0..x.nrows()).step_by(SLAB) {
            let slab = x.subrows(start, SLAB.min(x.nrows() - start));
            let (rows, columns) = (slab.subcols(self.row, height), slab.subcols(self.column, width));
            matmul(&mut slab_sums, Accum::Replace, rows.transpose(), columns, 1.0, Par::Seq);
            // With the vector registers that are here, which the matrix product leaves in use: see
            // `gptq::solve`.
            Arch::new().dispatch(|| {
                for column in 0..width {
                    let sums = self.sums.col_as_slice_mut(column).iter_mut();
                    sums.zip(slab_sums.col_as_slice(column)).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            });
        }
    }

    /// Writes the part of this tile, and of its mirror image, that lies in the band of rows that
    /// begins at row `start`. `rows`: `[up to TILE, n]`.
    fn write(&self, start: usize, scale: f64, n: usize, rows: &mut [f32]) {
        for (c, r) in (0..self.sums.ncols()).flat_map(|c| (0..self.sums.nrows()).map(move |r| (c, r))) {
            let mean = (self.sums[(r, c)] * scale) as f32;
            // A tile on the diagonal holds both halves, equal but for rounding: the lower one counts.
            if self.row == self.column && r < c {
                continue;
            }
            if self.row == start {
                rows[r * n + self.column + c] = mean;
            }
            if self.column == start {
                rows[c * n + self.row + r] = mean;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::Noise;

    fn activations(tokens: usize, channels: usize) -> Array2<f32> {
        let mut noise = Noise(5);
        let mut x = Array2::from_shape_simple_fn((tokens, channels), || noise.next());
        x.rows_mut().into_iter().for_each(|mut x| x[0] += 3.0);
        x
    }

    #[test]
    fn means_are_those_of_a_plain_sum_in_double_precision() {
        let x = activations(2500, 301);
        let mut sums = HessianAccumulator::new(301);
        for chunk in [0..7, 7..1500, 1500..1500, 1500..2500] {
            sums.add(x.slice(ndarray::s![chunk, ..])).unwrap();
        }
        assert_eq!(sums.tokens(), 2500);
        let stats = sums.finish();
        let x = x.mapv(f64::from);
        let expected = x.t().dot(&x) / 2500.0;
        let hessian = stats.hessian.unwrap();
        for ((at, &found), &expected) in hessian.matrix().indexed_iter().zip(&expected) {
            // Each of at most 1024 terms adds half an epsilon of a sum of at most 10 per token.
            assert!((f64::from(found) - expected).abs() < 1e-5, "{at:?}: {found}, expected {expected}");
            assert_eq!(found.to_bits(), hessian.matrix()[[at.1, at.0]].to_bits());
        }
        assert_eq!(stats.second_moment.unwrap(), hessian.matrix().diag());
    }

    #[test]
    fn threads_and_layout_do_not_change_a_bit() {
        let x = activations(1100, 530);
        let on = |threads: usize, x: ArrayView2<'_, f32>| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut sums = HessianAccumulator::new(530);
            pool.install(|| sums.add(x)).unwrap();
            sums.finish()
        };
        let one = on(1, x.view());
        assert_eq!(on(3, x.view()), one);
        let columns = x.t().as_standard_layout().into_owned();
        assert_eq!(on(2, columns.t()), one);
    }

    #[test]
    fn activations_that_are_not_finite_or_of_another_module_leave_the_sums_as_they_are() {
        let mut x = activations(40, 6);
        let mut sums = HessianAccumulator::new(6);
        sums.add(x.view()).unwrap();
        let before = sums.clone().finish();
        x[[31, 4]] = f32::NEG_INFINITY;
        x[[32, 0]] = f32::NAN;
        let error = sums.add(x.view()).unwrap_err();
        assert_eq!(error.to_string(), "the activation of token 31, channel 4 is -inf");
        let error = sums.add(x.slice(ndarray::s![.., ..5])).unwrap_err();
        assert_eq!(error, InvalidActivations::Channels { expected: 6, found: 5 });
        assert_eq!((sums.tokens(), sums.finish()), (40, before));
    }
}
