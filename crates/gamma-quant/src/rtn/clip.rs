//! A narrower range for every group, where that makes its error smaller.

use gamma_core::{BitWidth, Symmetry};

use super::objective::GroupObjective;
use crate::grid::{Grid, Range, ScaleOverflow};

/// Candidates are `1, 31/32, 30/32, ...` down to `NARROWEST / WHOLE` of the range.
const WHOLE: u8 = 32;
/// With two bits, the best range of a long-tailed group of 128 is about a third of the full one.
const NARROWEST: u8 = 10;

/// What the search for a narrower range minimises in every group.
///
/// A few large weights stretch the grid for all others of their group. Clipping them costs them a
/// larger error and gives the rest a finer step. The search tries shrinks of the range from 1 to
/// 10/32 in steps of 1/32 and keeps the one with the smallest error; the full range wins ties, so
/// that no group ends up worse than without clipping. A symmetric range shrinks as a whole. An
/// asymmetric one shrinks first as a whole, then at its upper end alone, then at its lower end
/// alone.
///
/// Below, `d` are the differences between the group's weights and their decoded values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clip {
    /// The sum of `d²`. Needs no data.
    Mse,
    /// The sum of `m d²`, with `m` the second moment of each weight's input channel: the error of
    /// the group's output for inputs without correlations.
    Weighted,
    /// `d H dᵀ`, with `H` the group's block of the Hessian: the error of the group's output, as AWQ
    /// measures it in its search for ranges (Lin et al. 2023, arXiv 2306.00978, where they shrink
    /// at both ends alike, to no less than one half). Takes as many times longer as a group has
    /// channels.
    Correlated,
}

impl Clip {
    /// For descriptions of methods.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Mse => " clip mse",
            Self::Weighted => " clip weighted",
            Self::Correlated => " clip correlated",
        }
    }
}

/// The best grid for `w`.
pub(crate) fn search(
    w: &[f32],
    objective: GroupObjective<'_>,
    width: BitWidth,
    symmetry: Symmetry,
) -> Result<Grid, ScaleOverflow> {
    let shrinks = || (NARROWEST..=WHOLE).rev().map(|part| f32::from(part) / f32::from(WHOLE));
    let full = Range::of(w);
    let mut best = Best::new(w, objective, width, Grid::over(full, symmetry, width)?, full);
    let mut offer = |range| Ok(best.offer(Grid::over(range, symmetry, width)?, range));
    let mut kept = full;
    for shrink in shrinks() {
        kept = offer(Range { lo: shrink * full.lo, hi: shrink * full.hi })?;
    }
    if symmetry == Symmetry::Asymmetric {
        let Range { lo, .. } = kept;
        for shrink in shrinks() {
            kept = offer(Range { lo, hi: shrink * full.hi })?;
        }
        let Range { hi, .. } = kept;
        for shrink in shrinks() {
            offer(Range { lo: shrink * full.lo, hi })?;
        }
    }
    Ok(best.grid)
}

/// The best grid so far, with the range that it comes from.
struct Best<'a> {
    w: &'a [f32],
    objective: GroupObjective<'a>,
    width: BitWidth,
    differences: Vec<f32>,
    grid: Grid,
    range: Range,
    error: f32,
    last: Grid,
}

impl<'a> Best<'a> {
    fn new(w: &'a [f32], objective: GroupObjective<'a>, width: BitWidth, grid: Grid, range: Range) -> Self {
        let mut differences = vec![0.0; w.len()];
        let error = objective.error(grid, w, width, &mut differences);
        Self { w, objective, width, differences, grid, range, error, last: grid }
    }

    /// Takes `grid` if it is better, and returns the range of the best one.
    fn offer(&mut self, grid: Grid, range: Range) -> Range {
        // Neighbouring ranges of few bits often round to the same grid.
        if grid == self.last {
            return self.range;
        }
        self.last = grid;
        let error = self.objective.error(grid, self.w, self.width, &mut self.differences);
        if error < self.error {
            (self.grid, self.range, self.error) = (grid, range, error);
        }
        self.range
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_width() -> impl Strategy<Value = BitWidth> {
        (2_u8..=8).prop_map(|bits| BitWidth::new(bits).unwrap())
    }

    fn any_symmetry() -> impl Strategy<Value = Symmetry> {
        prop_oneof![Just(Symmetry::Symmetric), Just(Symmetry::Asymmetric)]
    }

    /// Weights of one magnitude with a long tail, and how much each of them matters.
    fn any_group() -> impl Strategy<Value = Vec<(f32, f32)>> {
        let weight = (-1.0_f32..1.0).prop_map(|x| x * x * x);
        (-24_i32..10, prop::collection::vec((weight, 0.0_f32..4.0), 1..=100)).prop_map(|(exponent, group)| {
            group.into_iter().map(|(w, importance)| (w * 2.0_f32.powi(exponent), importance)).collect()
        })
    }

    fn full(w: &[f32], width: BitWidth, symmetry: Symmetry) -> Grid {
        Grid::over(Range::of(w), symmetry, width).unwrap()
    }

    fn error(grid: Grid, w: &[f32], objective: GroupObjective<'_>, width: BitWidth) -> f32 {
        objective.error(grid, w, width, &mut vec![0.0; w.len()])
    }

    fn by_codes(grid: Grid, w: &[f32], importance: &[f32], width: BitWidth) -> f64 {
        let mut codes = vec![0; w.len()];
        grid.encode(w, width, &mut codes);
        let decode = |code: u8| grid.scale.to_f64() * (f64::from(code) - f64::from(grid.zero));
        let terms = w.iter().zip(importance).zip(codes);
        terms.map(|((&w, &m), code)| f64::from(m) * (f64::from(w) - decode(code)).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn no_group_is_worse_than_without_clipping(
            group in any_group(), width in any_width(), symmetry in any_symmetry(),
        ) {
            let (w, factors): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let ones = vec![1.0; w.len()];
            // Positive semidefinite: the factors on the diagonal, and one direction.
            let block: Vec<_> = (0..w.len() * w.len())
                .map(|at| (at / w.len(), at % w.len()))
                .map(|(i, j)| factors[i] * factors[j] + if i == j { factors[i] } else { 0.0 })
                .collect();
            let objectives = [
                GroupObjective::Diagonal(&ones),
                GroupObjective::Diagonal(&factors),
                GroupObjective::Block(&block),
            ];
            for objective in objectives {
                let found = search(&w, objective, width, symmetry).unwrap();
                let full = full(&w, width, symmetry);
                let (found_error, full_error) =
                    (error(found, &w, objective, width), error(full, &w, objective, width));
                prop_assert!(found_error <= full_error, "{found_error:e} > {full_error:e}");
                // What was compared is the error of the codes, up to the rounding of the sum.
                if let GroupObjective::Diagonal(factors) = objective {
                    let exact = by_codes(found, &w, factors, width);
                    prop_assert!((f64::from(found_error) - exact).abs() <= 1e-5 * exact + 1e-30);
                }
                if symmetry == Symmetry::Symmetric {
                    prop_assert_eq!(found.zero, full.zero);
                }
            }
        }
    }

    #[test]
    fn a_block_without_correlations_is_its_diagonal() {
        let (w, factors) = ([0.3, -0.7, 0.2, 0.9, 0.1], [1.0, 0.5, 4.0, 0.0, 2.0]);
        let mut block = [0.0; 25];
        for (i, factor) in factors.into_iter().enumerate() {
            block[6 * i] = factor;
        }
        let grid = Grid::over(Range { lo: -0.4, hi: 0.5 }, Symmetry::Asymmetric, BitWidth::B2).unwrap();
        let [by_block, by_factors] = [GroupObjective::Block(&block), GroupObjective::Diagonal(&factors)]
            .map(|objective| error(grid, &w, objective, BitWidth::B2));
        assert!((by_block - by_factors).abs() < 1e-6, "{by_block} {by_factors}");
        let exact = by_codes(grid, &w, &factors, BitWidth::B2);
        assert!((f64::from(by_factors) - exact).abs() < 1e-6, "{by_factors} {exact}");
    }

    #[test]
    fn the_end_with_the_outlier_moves_and_the_other_stays() {
        // Many small weights from -0.75 to 1, and one weight at 2.5.
        let mut w: Vec<f32> = (0..400_u16).map(|i| f32::from(i) * 1.75 / 399.0 - 0.75).collect();
        w.push(2.5);
        let found =
            search(&w, GroupObjective::Diagonal(&[1.0; 401]), BitWidth::B3, Symmetry::Asymmetric).unwrap();
        let scale = found.scale.to_f32();
        let decode = |code: u8| scale * (f32::from(code) - f32::from(found.zero));
        assert!((decode(0) + 0.75).abs() < 0.2 && decode(7) < 1.6, "{found:?}");
        // It stays where nothing but the outlier matters.
        let mut importance = [0.0; 401];
        importance[400] = 1.0;
        let objective = GroupObjective::Diagonal(&importance);
        let found = search(&w, objective, BitWidth::B3, Symmetry::Asymmetric).unwrap();
        assert!(error(found, &w, objective, BitWidth::B3) < 1e-4, "{found:?}");
        // Without any importance the full range wins.
        let found =
            search(&w, GroupObjective::Diagonal(&[0.0; 401]), BitWidth::B3, Symmetry::Asymmetric).unwrap();
        assert_eq!(found, full(&w, BitWidth::B3, Symmetry::Asymmetric));
    }
}
