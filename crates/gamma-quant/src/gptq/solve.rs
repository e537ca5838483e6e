//! The recursion over channels, by blocks of rows and channels.
//!
//! Rows do not know each other: each parallel task takes [`ROWS`] of them through all channels. It
//! holds them column by column, in processing order. What is behind the current block keeps the
//! original weights, what is in front the errors `e`, so that one product with a slice of `U` brings
//! the next block up to date when it is reached.

use std::{borrow::Cow, ops::Range};

use faer::{
    Accum, Mat, MatMut, Par,
    linalg::matmul::matmul,
    prelude::IntoConst,
    traits::pulp::{Arch, Simd, WithSimd},
};
use gamma_core::{BitWidth, Symmetry};
use half::f16;
use rayon::prelude::*;

use super::Gptq;
use crate::{
    WeightView,
    grid::{self, Grid, ScaleOverflow, nearest},
    hessian::factor::Factor,
    rtn::{Objective, search as clip_search},
};

/// Rows per task. Fixed, so that the arithmetic is the same on any number of threads.
const ROWS: usize = 128;
/// Rows that are rounded together: what fits the vector registers of any machine.
const LANES: usize = 32;

type Lanes = [f32; LANES];

/// A quantized matrix before packing: one code per weight and one grid per group, row after row.
pub(super) struct Solution {
    pub(super) codes: Vec<u8>,
    pub(super) scales: Vec<f16>,
    pub(super) zeros: Vec<u8>,
}

/// A scale that does not fit 16 bits.
pub(super) struct Overflow {
    pub(super) row: usize,
    pub(super) group: usize,
    pub(super) scale: f32,
}

/// Quantizes all rows.
pub(super) fn solve(
    settings: &Gptq,
    weight: &WeightView<'_>,
    factor: &Factor,
    width: BitWidth,
    clip: Option<&Objective>,
) -> Result<Solution, Overflow> {
    let [out_features, in_features] = weight.shape();
    assert_eq!(factor.order.len(), in_features, "one row of the factor per channel");
    let groups = settings.layout.group.groups_in(in_features);
    let mut codes = vec![0; out_features * in_features];
    let mut scales = vec![f16::ZERO; out_features * groups];
    let mut zeros = vec![0; out_features * groups];
    let tasks = codes
        .par_chunks_mut(ROWS * in_features)
        .zip(scales.par_chunks_mut(ROWS * groups))
        .zip(zeros.par_chunks_mut(ROWS * groups))
        .enumerate();
    let overflow = tasks.find_map_first(|(task, ((codes, scales), zeros))| {
        let first_row = task * ROWS;
        let mut rows = Rows::load(settings, weight, factor, width, first_row);
        let result = rows.quantize(settings, factor, clip).map(|()| rows.store(codes, scales, zeros));
        result.err().map(|overflow| Overflow { row: first_row + overflow.row, ..overflow })
    });
    match overflow {
        Some(overflow) => Err(overflow),
        None => Ok(Solution { codes, scales, zeros }),
    }
}

/// Some rows of a matrix, filled up with rows of zeros to a multiple of [`LANES`].
struct Rows {
    /// Rows of the matrix among them.
    count: usize,
    /// `[rows, in_features]` in processing order: errors in front of the current block, weights
    /// behind.
    values: Mat<f32>,
    /// Scale and zero point of each group and row, as numbers, `[rows, groups]`.
    scales: Mat<f32>,
    zeros: Mat<f32>,
    /// One code per channel, in the stored order, and row: `[in_features][rows]`.
    codes: Vec<u8>,
    symmetry: Symmetry,
    width: BitWidth,
    group: usize,
}

impl Rows {
    /// Copies the rows from `first_row` on. With act-order, their grids are known now.
    fn load(
        settings: &Gptq,
        weight: &WeightView<'_>,
        factor: &Factor,
        width: BitWidth,
        first_row: usize,
    ) -> Self {
        let [out_features, in_features] = weight.shape();
        let count = ROWS.min(out_features - first_row);
        let height = count.next_multiple_of(LANES);
        let groups = settings.layout.group.groups_in(in_features);
        let mut values = Mat::zeros(height, in_features);
        for start in (0..count).step_by(LANES) {
            let end = count.min(start + LANES);
            let rows: Vec<Cow<'_, [f32]>> = (start..end).map(|row| weight.row(first_row + row)).collect();
            for (position, &channel) in factor.order.iter().enumerate() {
                if factor.dead[channel] {
                    continue;
                }
                let column = &mut values.col_as_slice_mut(position)[start..end];
                column.iter_mut().zip(&rows).for_each(|(value, row)| *value = row[channel]);
            }
        }
        Self {
            count,
            values,
            // Never used for the rows of zeros that fill up, but divided by.
            scales: Mat::from_fn(height, groups, |_, _| 1.0),
            zeros: Mat::zeros(height, groups),
            codes: vec![0; height * in_features],
            symmetry: settings.layout.symmetry,
            width,
            group: settings.layout.group.get(),
        }
    }

    fn quantize(
        &mut self,
        settings: &Gptq,
        factor: &Factor,
        clip: Option<&Objective>,
    ) -> Result<(), Overflow> {
        let in_features = factor.order.len();
        let block = settings.block.get();
        if settings.act_order {
            let mut position = vec![0; in_features];
            factor.order.iter().enumerate().for_each(|(at, &channel)| position[channel] = at);
            self.find_grids(0, in_features, clip, |channel| position[channel])?;
        }
        // Without act-order, the whole group is brought up to date for its grid.
        let step = if settings.act_order { block } else { self.group };
        for start in (0..in_features).step_by(step) {
            let end = in_features.min(start + step);
            self.update(factor, 0..start, start..end);
            if !settings.act_order {
                self.find_grids(start, end, clip, |channel| channel)?;
            }
            for first in (start..end).step_by(block) {
                let last = end.min(first + block);
                self.update(factor, start..first, first..last);
                // Compiled for the vector registers that are here. It is more than a factor of two:
                // the matrix product leaves their upper halves in use, and while they are, every
                // instruction of the older kind waits for the one before.
                Arch::new().dispatch(Round { rows: self, factor, positions: first..last });
            }
        }
        Ok(())
    }

    /// Subtracts from the channels at the positions `to` what the errors at `from` ask of them.
    fn update(&mut self, factor: &Factor, from: Range<usize>, to: Range<usize>) {
        if from.is_empty() {
            return;
        }
        let (errors, weights) = self.values.as_mut().split_at_col_mut(to.start);
        let errors = errors.into_const().subcols(from.start, from.len());
        let weights: MatMut<'_, f32> = weights.subcols_mut(0, to.len());
        let upper = factor.upper.as_ref().submatrix(from.start, to.start, from.len(), to.len());
        matmul(weights, Accum::Add, errors, upper, -1.0, Par::Seq);
    }

    /// Finds the grids of the groups from channel `start` to `end`; `position` is where a channel is
    /// among the columns.
    fn find_grids(
        &mut self,
        start: usize,
        end: usize,
        clip: Option<&Objective>,
        position: impl Fn(usize) -> usize,
    ) -> Result<(), Overflow> {
        if let Some(objective) = clip {
            return self.search_grids(start, end, objective, position);
        }
        let mut ranges = vec![grid::Range::ZERO; self.count];
        for first in (start..end).step_by(self.group) {
            ranges.fill(grid::Range::ZERO);
            for channel in first..end.min(first + self.group) {
                let column = self.values.col_as_slice(position(channel));
                ranges.iter_mut().zip(column).for_each(|(range, &x)| *range = range.with(x));
            }
            let group = first / self.group;
            for (row, &range) in ranges.iter().enumerate() {
                let grid = Grid::over(range, self.symmetry, self.width)
                    .map_err(|ScaleOverflow(scale)| Overflow { row, group, scale })?;
                self.scales[(row, group)] = grid.scale.to_f32();
                self.zeros[(row, group)] = f32::from(grid.zero);
            }
        }
        Ok(())
    }

    /// The same with a search for the best part of each range.
    fn search_grids(
        &mut self,
        start: usize,
        end: usize,
        objective: &Objective,
        position: impl Fn(usize) -> usize,
    ) -> Result<(), Overflow> {
        for first in (start..end).step_by(self.group) {
            let channels = first..end.min(first + self.group);
            let (group, own) = (first / self.group, objective.of_group(first, channels.len()));
            for row in 0..self.count {
                let w: Vec<f32> = channels.clone().map(|c| self.values[(row, position(c))]).collect();
                let grid = clip_search(&w, own, self.width, self.symmetry)
                    .map_err(|ScaleOverflow(scale)| Overflow { row, group, scale })?;
                self.scales[(row, group)] = grid.scale.to_f32();
                self.zeros[(row, group)] = f32::from(grid.zero);
            }
        }
        Ok(())
    }

    /// See [`Round`].
    #[expect(clippy::inline_always, reason = "to be compiled with the instructions of the caller")]
    #[inline(always)]
    fn round(&mut self, factor: &Factor, positions: Range<usize>) {
        let height = self.values.nrows();
        let q_max = f32::from(self.width.max_code());
        // A contiguous copy of one set of lanes, which stays in the nearest cache.
        let mut errors = vec![[0.0; LANES]; positions.len()];
        for lane in (0..height).step_by(LANES) {
            for (offset, at) in positions.clone().enumerate() {
                let upper = factor.upper.col_as_slice(at);
                let mut w = lanes(&self.values.col_as_slice(at)[lane..]);
                make_up(&mut w, &errors[..offset], &upper[positions.start..at]);

                let channel = factor.order[at];
                let group = channel / self.group;
                let scale = lanes(&self.scales.col_as_slice(group)[lane..]);
                let zero = lanes(&self.zeros.col_as_slice(group)[lane..]);
                let codes = &mut self.codes[channel * height + lane..][..LANES];
                let error = &mut errors[offset];
                let one_over = 1.0 / upper[at];
                for i in 0..LANES {
                    let code = nearest(w[i], scale[i], zero[i], q_max);
                    codes[i] = code as i32 as u8; // a vector instruction, which `as u8` is not
                    error[i] = (w[i] - scale[i] * (code - zero[i])) * one_over;
                }
            }
            for (error, at) in errors.iter().zip(positions.clone()) {
                self.values.col_as_slice_mut(at)[lane..lane + LANES].copy_from_slice(error);
            }
        }
    }

    /// Writes codes and grids row after row.
    fn store(&self, codes: &mut [u8], scales: &mut [f16], zeros: &mut [u8]) {
        let (height, in_features, groups) = (self.values.nrows(), self.values.ncols(), self.scales.ncols());
        // By squares of a cache line, since one side or the other is strided.
        for first in (0..in_features).step_by(LANES) {
            for (row, codes) in codes.chunks_exact_mut(in_features).enumerate() {
                let end = in_features.min(first + LANES);
                let from = self.codes[first * height + row..].iter().step_by(height);
                codes[first..end].iter_mut().zip(from).for_each(|(code, &from)| *code = from);
            }
        }
        let grids = scales.chunks_exact_mut(groups).zip(zeros.chunks_exact_mut(groups));
        for (row, (scales, zeros)) in grids.enumerate() {
            for group in 0..groups {
                // Both were 16 and 8 bits wide before.
                scales[group] = f16::from_f32(self.scales[(row, group)]);
                zeros[group] = self.zeros[(row, group)] as u8;
            }
        }
    }
}

/// Rounds the channels at `positions`, to which the errors of all in front of these have been applied.
struct Round<'a> {
    rows: &'a mut Rows,
    factor: &'a Factor,
    positions: Range<usize>,
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "to be compiled with the instructions of the caller")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.rows.round(self.factor, self.positions);
    }
}

/// `w - Σ e_i u_i`.
#[expect(clippy::inline_always, reason = "to be compiled with the instructions of the caller")]
#[inline(always)]
fn make_up(w: &mut Lanes, errors: &[Lanes], upper: &[f32]) {
    let mut sum = *w;
    for (error, &u) in errors.iter().zip(upper) {
        for i in 0..LANES {
            sum[i] -= error[i] * u;
        }
    }
    *w = sum;
}

#[expect(clippy::inline_always, reason = "to be compiled with the instructions of the caller")]
#[inline(always)]
fn lanes(column: &[f32]) -> Lanes {
    *column.first_chunk().expect("rows are filled up to whole lanes")
}
