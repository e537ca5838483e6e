//! A quantizer from outside: every weight becomes -1, 0 or 1 times the scale of its group.
//!
//! This crate uses nothing but the public part of `gamma-quant`, with its default features off, and
//! `gamma-core`. The page `docs/adding-a-quantizer.md` builds it step by step. In a run, its 1.6 bits
//! per code compete with integer codes of any method:
//!
//! ```no_run
//! use gamma::{Gamma, GroupSize, Rtn, Variants};
//! use ternary::Ternary;
//!
//! let group = GroupSize::new(64)?;
//! let builder = Gamma::builder()
//!     .quantizer(Variants::new([Rtn::asymmetric(group)]).and(Ternary::new(group).weighted()))
//!     .candidates([2, 3, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pack;
mod search;

pub use pack::Packed;
pub use search::{best_scale, nearest};

use gamma_core::{BitWidth, Format, GroupSize};
use gamma_quant::{
    CalibrationNeeds, CalibrationStats, CustomWeight, QuantizeError, QuantizedWeight, Quantizer, WeightView,
    accept,
};
use ndarray::Array2;
use rayon::prelude::*;

/// Ternary weights, one 16-bit scale per group, with the least squared error there is.
///
/// With [`weighted`](Self::weighted), the error of a weight counts by the mean square of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ternary {
    group: GroupSize,
    weighted: bool,
}

/// A failure that only this method knows.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TernaryError {
    /// A mean of squares below zero: whatever filled the statistics, it was no mean of squares.
    #[error("the second moment of input channel {channel} is {value}, below zero")]
    NegativeMoment {
        /// Input channel, counted from 0.
        channel: usize,
        /// The second moment.
        value: f32,
    },
}

impl Ternary {
    /// Groups of `group` input channels; every weight of a group matters alike.
    #[must_use]
    pub const fn new(group: GroupSize) -> Self {
        Self { group, weighted: false }
    }

    /// Weights matter by the second moment of their inputs, which calibration then collects.
    #[must_use]
    pub const fn weighted(self) -> Self {
        Self { weighted: true, ..self }
    }

    /// How much each input channel matters, `[in_features]`.
    fn importance(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
    ) -> Result<Vec<f32>, QuantizeError> {
        let in_features = weight.shape()[1];
        let Some(moments) = stats.second_moment.as_ref().filter(|_| self.weighted) else {
            return Ok(vec![1.0; in_features]);
        };
        if let Some((channel, &value)) = moments.iter().enumerate().find(|(_, value)| **value < 0.0) {
            return Err(QuantizeError::Method {
                module: weight.name().clone(),
                quantizer: self.name().to_owned(),
                source: TernaryError::NegativeMoment { channel, value }.into(),
            });
        }
        let mean = moments.sum() / in_features as f32;
        if mean == 0.0 {
            return Err(QuantizeError::NoSignal { module: weight.name().clone() });
        }
        // Inputs that calibration has not seen may still occur.
        Ok(moments.iter().map(|moment| moment / mean + 0.01).collect())
    }
}

impl Quantizer for Ternary {
    fn name(&self) -> &'static str {
        "ternary"
    }

    fn describe(&self) -> String {
        let weighted = if self.weighted { " weighted" } else { "" };
        format!("ternary g{}{weighted}", self.group)
    }

    fn formats(&self, width: BitWidth) -> Vec<Format> {
        let format = || Format::Custom { bits: width, name: format!("ternary-g{}", self.group) };
        if width == BitWidth::B2 { vec![format()] } else { Vec::new() }
    }

    fn needs(&self) -> CalibrationNeeds {
        if self.weighted { CalibrationNeeds::SecondMoment } else { CalibrationNeeds::Nothing }
    }

    fn stored_bits(&self, format: &Format, shape: [usize; 2]) -> Option<u64> {
        if !self.formats(format.bits()).contains(format) {
            return None;
        }
        let [rows, columns] = shape;
        let row = 8 * columns.div_ceil(5) as u64 + 16 * self.group.groups_in(columns) as u64;
        row.checked_mul(rows as u64)
    }

    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        accept(self, weight.name(), format)?;
        let (module, shape) = (weight.name(), weight.shape());
        stats.check(module, shape[1], self.needs())?;
        let importance = self.importance(weight, stats)?;
        let too_large = || QuantizeError::TooLarge { module: module.clone(), shape };
        let bits = self.stored_bits(format, shape).ok_or_else(too_large)?;

        let size = self.group.get();
        let mut values = vec![0.0; shape[0] * shape[1]];
        // Rows in parallel; the first error in the order of rows, whichever thread meets one first.
        let overflow = values.par_chunks_exact_mut(shape[1]).enumerate().find_map_first(|(row, values)| {
            let w = weight.row(row);
            let groups = w.chunks(size).zip(importance.chunks(size)).zip(values.chunks_mut(size));
            groups.enumerate().find_map(|(group, ((w, h), values))| {
                let scale = match best_scale(w, h) {
                    Ok(scale) => scale,
                    Err(scale) => return Some((row, group, scale)),
                };
                for (value, &w) in values.iter_mut().zip(w) {
                    *value = nearest(w, scale);
                }
                None
            })
        });
        if let Some((row, group, scale)) = overflow {
            return Err(QuantizeError::ScaleOverflow { module: module.clone(), row, group, scale });
        }
        let values = Array2::from_shape_vec(shape, values).expect("one value per weight");
        Ok(CustomWeight::new(module, format.clone(), values, bits)?.into())
    }
}

/// The code of the tutorial is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/adding-a-quantizer.md")]
struct Tutorial;
