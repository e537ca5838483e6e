//! The factor of the damped, inverted Hessian that GPTQ's columns are processed with.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use faer::{
    Accum, Mat, MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt::factor::{
            LltError, LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
        },
        matmul::triangular::{
            BlockStructure::{Rectangular, TriangularLower},
            matmul,
        },
        triangular_solve::solve_lower_triangular_in_place,
    },
    prelude::{Reborrow, ReborrowMut},
};
use ndarray::Array2;
use rayon::prelude::*;

use super::Hessian;

/// Columns that one parallel task handles. Fixed, so that the arithmetic is the same on any number of threads.
const BLOCK: usize = 256;
/// How often damping grows tenfold before a Hessian counts as singular.
const RAISES: i32 = 4;

/// Which factor of a Hessian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recipe {
    /// Added to the diagonal, as a fraction of its mean over live channels.
    pub(crate) damping: f64,
    /// Channels in the order of falling second moment instead of their own.
    pub(crate) act_order: bool,
}

/// The upper factor `U`, `Uᵀ U = (H + damping)⁻¹`, with rows and columns in processing order.
pub(crate) struct Factor {
    /// `[in_features, in_features]`, zero below the diagonal.
    pub(crate) upper: Mat<f32>,
    /// The channel at each position.
    pub(crate) order: Vec<usize>,
    /// Channels that never carried a signal, by channel.
    pub(crate) dead: Vec<bool>,
    /// How often damping grew tenfold.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask for it"))]
    pub(crate) raises: i32,
}

/// Why there is no factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoFactor {
    /// Every channel is dead.
    NoSignal,
    /// Not positive definite even with `damping`.
    Singular {
        /// Where the factorization stopped.
        channel: usize,
        /// The largest fraction tried.
        damping: f64,
    },
}

/// Factors computed so far.
#[derive(Default)]
pub(crate) struct Factors(Mutex<Vec<(Recipe, Arc<Factor>)>>);

impl Factors {
    fn find(&self, recipe: Recipe) -> Option<Arc<Factor>> {
        let factors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        factors.iter().find(|(known, _)| *known == recipe).map(|(_, factor)| Arc::clone(factor))
    }
}

impl fmt::Debug for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Factor").field("in_features", &self.order.len()).finish_non_exhaustive()
    }
}

impl Hessian {
    /// The factor, computed on the first call with this `recipe`. The matrix is square and finite.
    ///
    /// The lock is not held meanwhile: a rayon thread that waits for its own tasks takes up others,
    /// which may ask for the same factor. Two that ask at the same time may both compute it, with
    /// the same bits.
    ///
    /// Besides the result, computing takes `8 n²` bytes, and `2048 n` per thread.
    pub(crate) fn factor(&self, recipe: Recipe) -> Result<Arc<Factor>, NoFactor> {
        if let Some(known) = self.factors.find(recipe) {
            return Ok(known);
        }
        let factor = Arc::new(Factor::of(&self.matrix, recipe)?);
        let mut factors = self.factors.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = factors.iter().find(|(known, _)| *known == recipe) {
            return Ok(Arc::clone(known));
        }
        factors.push((recipe, Arc::clone(&factor)));
        Ok(factor)
    }
}

impl Factor {
    fn of(hessian: &Array2<f32>, recipe: Recipe) -> Result<Self, NoFactor> {
        let n = hessian.nrows();
        let diagonal: Vec<f32> = hessian.diag().to_vec();
        let dead: Vec<bool> = diagonal.iter().map(|&h| h == 0.0).collect();
        let live = dead.iter().filter(|&&dead| !dead).count();
        if live == 0 {
            return Err(NoFactor::NoSignal);
        }
        let mut order: Vec<usize> = (0..n).collect();
        if recipe.act_order {
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a])); // stable: ties stay in order
        }
        // Over live channels only, so that the 1 on a dead channel's diagonal has no influence.
        let mean = diagonal.iter().map(|&h| f64::from(h)).sum::<f64>() / live as f64;

        // Factored from the last channel to the first, `P (H + damping) P = L Lᵀ` with the reversal
        // `P`, one triangular inverse is all that is left: `U = P L⁻¹ P`. The textbook way, an
        // inverse and its factor, takes twice the work and loses more digits.
        let reversed: Vec<usize> = order.iter().rev().copied().collect();
        let mut raises = 0;
        let lower = loop {
            let damping = recipe.damping * 10_f64.powi(raises);
            let mut a = damped(hessian, &reversed, &dead, damping * mean);
            match cholesky(a.as_mut()) {
                Ok(()) => break a,
                Err(position) if raises == RAISES => {
                    return Err(NoFactor::Singular { channel: reversed[position], damping });
                }
                Err(_) => raises += 1,
            }
        };
        Ok(Self { upper: reversed_inverse(lower.as_ref()), order, dead, raises })
    }
}

/// The lower half of the damped Hessian, with channel `order[i]` in row and column `i`.
fn damped(hessian: &Array2<f32>, order: &[usize], dead: &[bool], damping: f64) -> Mat<f64> {
    let n = order.len();
    let mut a = Mat::<f64>::zeros(n, n);
    column_blocks(a.as_mut()).into_par_iter().for_each(|(start, mut block)| {
        for j in 0..block.ncols() {
            let channel = order[start + j];
            // A row instead of the column: the matrix is symmetric and stored row by row.
            let row = hessian.row(channel);
            let row = row.as_slice().expect("a Hessian is stored row by row");
            for i in start + j..n {
                block[(i, j)] = if dead[channel] || dead[order[i]] { 0.0 } else { f64::from(row[order[i]]) };
            }
            block[(start + j, j)] = damping + if dead[channel] { 1.0 } else { f64::from(row[channel]) };
        }
    });
    a
}

/// Replaces the lower half of `a` by its Cholesky factor: right-looking by blocks of columns, whose
/// updates are the parallel tasks. An error is the row of a pivot that is not positive.
fn cholesky(mut a: MatMut<'_, f64>) -> Result<(), usize> {
    let n = a.nrows();
    let params = Spec::<LltParams, f64>::default();
    let mut scratch = MemBuffer::new(cholesky_in_place_scratch::<f64>(BLOCK, Par::Seq, params));
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let (panel, trailing) =
            a.rb_mut().submatrix_mut(start, start, n - start, n - start).split_at_col_mut(width);
        let (mut corner, mut below) = panel.split_at_row_mut(width);
        let stack = MemStack::new(&mut scratch);
        cholesky_in_place(corner.rb_mut(), LltRegularization::default(), Par::Seq, stack, params)
            .map_err(|LltError::NonPositivePivot { index }| start + index)?;
        let corner = corner.rb();
        column_blocks(below.rb_mut().transpose_mut()).into_par_iter().for_each(|(_, rows)| {
            solve_lower_triangular_in_place(corner, rows, Par::Seq);
        });
        let below = below.rb();
        let trailing = trailing.split_at_row_mut(width).1;
        column_blocks(trailing).into_par_iter().for_each(|(first, columns)| {
            let (square, rest) =
                columns.split_at_row_mut(first).1.split_at_row_mut(BLOCK.min(below.nrows() - first));
            let (upper, lower) = below.split_at_row(first).1.split_at_row(square.nrows());
            let right = upper.transpose();
            matmul(
                square,
                TriangularLower,
                Accum::Add,
                upper,
                Rectangular,
                right,
                Rectangular,
                -1.0,
                Par::Seq,
            );
            matmul(rest, Rectangular, Accum::Add, lower, Rectangular, right, Rectangular, -1.0, Par::Seq);
        });
    }
    Ok(())
}

/// `P L⁻¹ P` with the reversal `P`: entry `(i, j)` is entry `(n - 1 - i, n - 1 - j)` of the inverse.
fn reversed_inverse(lower: MatRef<'_, f64>) -> Mat<f32> {
    let n = lower.nrows();
    let mut upper = Mat::<f32>::zeros(n, n);
    column_blocks(upper.as_mut()).into_par_iter().rev().for_each(|(start, mut block)| {
        // Columns `first..` of the inverse, which are zero above row `first`.
        let first = n - start - block.ncols();
        let lower = lower.submatrix(first, first, n - first, n - first);
        let mut inverse = Mat::<f64>::identity(n - first, block.ncols());
        solve_lower_triangular_in_place(lower, inverse.as_mut(), Par::Seq);
        for j in 0..block.ncols() {
            let from = block.ncols() - 1 - j;
            let column = &inverse.col_as_slice(from)[from..];
            for (i, &value) in column.iter().rev().enumerate() {
                block[(i, j)] = value as f32;
            }
        }
    });
    upper
}

/// Blocks of columns, with the number of the first of each.
fn column_blocks<T>(matrix: MatMut<'_, T>) -> Vec<(usize, MatMut<'_, T>)> {
    let mut blocks = Vec::new();
    let (mut start, mut rest) = (0, matrix);
    while rest.ncols() > 0 {
        let width = BLOCK.min(rest.ncols());
        let (block, others) = rest.split_at_col_mut(width);
        blocks.push((start, block));
        (start, rest) = (start + width, others);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::Noise;

    fn hessian(n: usize, tokens: usize) -> Array2<f32> {
        let mut noise = Noise(9);
        let mut x = Array2::from_shape_simple_fn((tokens, n), || noise.next());
        for (channel, mut column) in x.columns_mut().into_iter().enumerate() {
            column *= 1.0 + (channel * 7 % 13) as f32;
        }
        x.t().dot(&x) / tokens as f32
    }

    #[test]
    fn the_factor_inverts_the_damped_hessian() {
        for (n, act_order) in [(1, false), (30, true), (300, false), (700, true)] {
            let matrix = hessian(n, n / 2 + 3);
            let damping = 0.01;
            let factor = Factor::of(&matrix, Recipe { damping, act_order }).unwrap();
            assert_eq!(factor.raises, 0);
            let mean = matrix.diag().iter().map(|&h| f64::from(h)).sum::<f64>() / n as f64;
            let u = Array2::from_shape_fn((n, n), |(i, j)| f64::from(factor.upper[(i, j)]));
            let h = Array2::from_shape_fn((n, n), |(i, j)| {
                let damping = if i == j { damping * mean } else { 0.0 };
                f64::from(matrix[[factor.order[i], factor.order[j]]]) + damping
            });
            assert!(u.indexed_iter().all(|((i, j), &u)| if i > j { u == 0.0 } else { i < j || u > 0.0 }));
            let worst = (u.dot(&h).dot(&u.t()) - Array2::<f64>::eye(n))
                .iter()
                .fold(0.0_f64, |worst, x| worst.max(x.abs()));
            // `U` is rounded to f32; the condition number is below 1e4.
            assert!(worst < 1e-3, "n = {n}: {worst:e}");
            if act_order {
                assert!(factor.order.windows(2).all(|o| matrix[[o[0], o[0]]] >= matrix[[o[1], o[1]]]));
            }
        }
    }

    #[test]
    fn a_factor_is_computed_once_and_the_same_on_any_number_of_threads() {
        let recipe = Recipe { damping: 0.01, act_order: true };
        let matrix = hessian(600, 500);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Factor::of(&matrix, recipe)).unwrap()
        };
        let one = on(1);
        assert_eq!(on(4).upper, one.upper);

        let shared = Hessian::new(matrix.clone());
        let first = shared.factor(recipe).unwrap();
        assert!(Arc::ptr_eq(&first, &shared.factor(recipe).unwrap()));
        assert!(!Arc::ptr_eq(&first, &shared.factor(Recipe { damping: 0.02, ..recipe }).unwrap()));
    }

    #[test]
    fn damping_grows_until_the_matrix_is_positive_definite_and_stops_somewhere() {
        // Eigenvalues 1.25 and -0.25: more than a quarter must be added.
        let factor = |off: f32| {
            let matrix = ndarray::array![[0.5, off], [off, 0.5]];
            Factor::of(&matrix, Recipe { damping: 0.01, act_order: false })
        };
        assert_eq!(factor(0.75).unwrap().raises, 2);
        assert_eq!(factor(0.45).unwrap().raises, 0);
        let error = factor(1e3).unwrap_err();
        assert!(
            matches!(error, NoFactor::Singular { channel: 0, damping } if (damping - 100.0).abs() < 1e-9)
        );
    }

    #[test]
    fn dead_channels_stand_alone_and_do_not_change_the_damping() {
        let mut matrix = hessian(5, 9);
        let rest = Factor::of(&matrix, Recipe { damping: 0.01, act_order: true }).unwrap();
        let mut larger = Array2::zeros((7, 7));
        larger.slice_mut(ndarray::s![..5, ..5]).assign(&matrix);
        let with_dead = Factor::of(&larger, Recipe { damping: 0.01, act_order: true }).unwrap();
        assert_eq!(with_dead.dead, [false, false, false, false, false, true, true]);
        for (i, j) in (0..5).flat_map(|i| (0..5).map(move |j| (i, j))) {
            let (found, expected) = (with_dead.upper[(i, j)], rest.upper[(i, j)]);
            assert!((found - expected).abs() <= 1e-6 * rest.upper[(i, i)], "{found} {expected}");
        }
        matrix.fill(0.0);
        let error = Factor::of(&matrix, Recipe { damping: 0.01, act_order: true }).unwrap_err();
        assert_eq!(error, NoFactor::NoSignal);
    }
}
