//! Activation-aware scales: channels with large inputs get finer steps.

mod error;

use std::sync::Arc;

use gamma_core::BitWidth;
use ndarray::{Array1, Array2};

use crate::{
    CalibrationNeeds, CalibrationStats, QuantizeError, Quantizer, Rescale, WeightView, rescale::scale_columns,
};

/// Exponents that are tried: `0, 1/20, ..., 19/20`, as in the authors' code.
const GRID: u8 = 20;

/// The smallest scale before the last division, in units of the largest. Channels without any input
/// would get zero.
const SMALLEST: f32 = 1e-4;

/// The search for scales of AWQ (Lin et al. 2023, arXiv 2306.00978, section 3.2).
///
/// Few channels of an input are much larger than the others, and what they are multiplied with
/// decides about the error. Their weights are multiplied by `s = r^α / sqrt(max r^α min r^α)`, with
/// `r` the root of the second moment per channel, and `α` the best of `0, 1/20, ..., 19/20`: the one
/// with the least error of all readers together. The error of one reader is, in the mean over
/// tokens, the square of what rounding does to its output,
/// `tr(D H Dᵀ)` with `D = Q(W diag(s)) diag(1/s) - W`, where `Q` quantizes and decodes.
///
/// A plan mixes bit-widths, and scales must be fixed before it is made. So the search may look at
/// several widths: it minimises the sum over them of the error relative to that of `α = 0`.
///
/// The authors take the mean of `|x|` for `r`; the root mean square needs no statistic of its own
/// and differs little. Their second step, a search for narrower ranges, is
/// [`Clip::Correlated`](crate::Clip::Correlated) on the scaled weights, or the faster
/// [`Clip::Weighted`](crate::Clip::Weighted). They search scales with plain rounding first; scales
/// for the rounding that really follows fit it better, so give the search that one where time allows:
///
/// ```
/// use gamma_core::{BitWidth, GroupSize, ModuleName};
/// use gamma_quant::rescale::scale_columns;
/// use gamma_quant::{Awq, CalibrationStats, Clip, Quantizer, Rescale, Rtn, WeightView};
/// use ndarray::array;
///
/// let (q_proj, k_proj) = (ModuleName::new("q_proj"), ModuleName::new("k_proj"));
/// let (q, k) = (array![[0.1, -0.3, 1.0], [0.7, 0.2, -0.9]], array![[-0.2, 0.4, 0.8]]);
/// let stats = CalibrationStats::from_second_moment(1000, array![25.0, 0.01, 0.01]);
/// let rtn = Rtn::asymmetric(GroupSize::G128).clip(Clip::Weighted);
/// let awq = Awq::new(rtn, &[BitWidth::B3, BitWidth::B4]).without_correlations();
/// let readers = [WeightView::new(&q_proj, q.view())?, WeightView::new(&k_proj, k.view())?];
/// let scales = awq.scales(&readers, &stats)?.expect("the first channel is much larger");
///
/// let scaled = scale_columns(q.view(), &scales);
/// let view = WeightView::new(&q_proj, scaled.view())?;
/// let stats = stats.rescaled(&scales);
/// let quantized = rtn.quantize_at(&view, &stats, BitWidth::B3)?;
/// # assert_eq!(quantized.shape(), [2, 3]);
/// # Ok::<(), gamma_quant::QuantizeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Awq {
    quantizer: Arc<dyn Quantizer>,
    widths: Vec<BitWidth>,
    correlations: bool,
}

impl Awq {
    /// A search for scales with which `quantizer` loses least at `widths`, all counted alike.
    /// Without widths nothing is searched and no scale found.
    ///
    /// The paper's is `Rtn::asymmetric`, also where another one follows. The search calls it 20
    /// times per reader and width.
    #[must_use]
    pub fn new(quantizer: impl Quantizer + 'static, widths: &[BitWidth]) -> Self {
        Self { quantizer: Arc::new(quantizer), widths: widths.to_vec(), correlations: true }
    }

    /// Takes the error without the products of different channels, the sum of `m_j D_ij²` with `m`
    /// the second moment. That needs no Hessian and no products of matrices, which otherwise take
    /// nearly all the time: `out_features * in_features²` multiplications per exponent, reader and
    /// width.
    #[must_use]
    pub fn without_correlations(self) -> Self {
        Self { correlations: false, ..self }
    }

    /// The error of all readers for every width, `[widths]`.
    fn errors(
        &self,
        readers: &[WeightView<'_>],
        stats: &CalibrationStats,
        scales: &Array1<f32>,
    ) -> Result<Vec<f64>, QuantizeError> {
        let rescaled = stats.rescaled(scales);
        let mut errors = vec![0.0; self.widths.len()];
        for reader in readers {
            let weight = scale_columns(reader.data(), scales);
            let view = WeightView::new(reader.name(), weight.view())?;
            for (error, &width) in errors.iter_mut().zip(&self.widths) {
                let quantized = self.quantizer.quantize_at(&view, &rescaled, width)?;
                // Against the scaled weights and inputs, which gives the same error.
                *error += self.error(&(quantized.dequantize() - &weight), &rescaled);
            }
        }
        Ok(errors)
    }

    fn error(&self, difference: &Array2<f32>, stats: &CalibrationStats) -> f64 {
        match (&stats.hessian, &stats.second_moment) {
            (Some(hessian), _) if self.correlations => error::of_output(difference, hessian.matrix()),
            (_, Some(moment)) => error::without_correlations(difference, moment),
            _ => 0.0,
        }
    }
}

impl Rescale for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn describe(&self) -> String {
        let widths: Vec<_> = self.widths.iter().map(ToString::to_string).collect();
        let error = if self.correlations { "" } else { " without correlations" };
        format!("awq at {} bits for {}{error}", widths.join("+"), self.quantizer.describe())
    }

    fn scales(
        &self,
        readers: &[WeightView<'_>],
        stats: &CalibrationStats,
    ) -> Result<Option<Array1<f32>>, QuantizeError> {
        for reader in readers {
            stats.check(reader.name(), reader.shape()[1], self.needs())?;
        }
        let (Some(reader), Some(second_moment)) = (readers.first(), &stats.second_moment) else {
            return Ok(None);
        };
        // A Hessian that nobody asks for is neither checked nor worth 20 copies.
        let hessian = stats.hessian.clone().filter(|_| self.needs() == CalibrationNeeds::Hessian);
        let moment = Some(second_moment.clone());
        let stats = &CalibrationStats { tokens: stats.tokens, second_moment: moment, hessian, samples: None };
        let plain = self.errors(readers, stats, &Array1::ones(reader.shape()[1]))?;
        let (mut best, mut least) = (None, plain.iter().filter(|&&error| error > 0.0).count() as f64);
        for step in 1..GRID {
            let scales = candidate(second_moment, f32::from(step) / f32::from(GRID));
            let errors = self.errors(readers, stats, &scales)?;
            let relative = errors.iter().zip(&plain).map(|(&error, &plain)| {
                // A width that loses nothing should stay like that.
                if plain > 0.0 { error / plain } else { error }
            });
            let sum = relative.sum();
            if sum < least {
                (best, least) = (Some(scales), sum);
            }
        }
        Ok(best)
    }

    fn needs(&self) -> CalibrationNeeds {
        let own = if self.correlations { CalibrationNeeds::Hessian } else { CalibrationNeeds::SecondMoment };
        own.max(self.quantizer.needs())
    }
}

/// `r^α` over the root of its largest times its smallest value, with `r` the root of the second
/// moment.
fn candidate(second_moment: &Array1<f32>, alpha: f32) -> Array1<f32> {
    let largest = second_moment.iter().fold(0.0_f32, |largest, &m| largest.max(m));
    // The maximum turns NaN, of inputs that are all zero, into a number.
    let mut scales = second_moment.mapv(|m| (m / largest).sqrt().powf(alpha).max(SMALLEST));
    let (least, most) =
        scales.iter().fold((f32::INFINITY, 0.0_f32), |(least, most), &s| (least.min(s), most.max(s)));
    scales /= (least * most).sqrt();
    scales
}

#[cfg(test)]
mod tests {
    use gamma_core::{Format, ModuleName};
    use ndarray::Axis;

    use super::*;
    use crate::{CustomWeight, QuantizedWeight};

    /// Rounds to multiples of a quarter of each row's largest weight, at every width.
    #[derive(Debug)]
    struct Quarters;

    impl Quantizer for Quarters {
        fn name(&self) -> &'static str {
            "quarters"
        }
        fn describe(&self) -> String {
            "quarters".into()
        }
        fn formats(&self, bits: BitWidth) -> Vec<Format> {
            vec![Format::Custom { bits, name: "quarters".into() }]
        }
        fn quantize(
            &self,
            weight: &WeightView<'_>,
            _stats: &CalibrationStats,
            format: &Format,
        ) -> Result<QuantizedWeight, QuantizeError> {
            let mut values = weight.data().to_owned();
            for mut row in values.axis_iter_mut(Axis(0)) {
                let step = row.iter().fold(0.0_f32, |largest, w| largest.max(w.abs())) / 4.0;
                row.mapv_inplace(|w| if step > 0.0 { (w / step).round() * step } else { w });
            }
            Ok(CustomWeight::new(weight.name(), format.clone(), values, 1)?.into())
        }
    }

    fn readers() -> [(ModuleName, Array2<f32>); 2] {
        let weight = |rows: usize, seed: usize| {
            Array2::from_shape_fn((rows, 16), |(i, j)| ((seed + 31 * i + 17 * j) as f32 * 1.7).sin())
        };
        [(ModuleName::new("q"), weight(90, 0)), (ModuleName::new("k"), weight(7, 5))]
    }

    fn views(readers: &[(ModuleName, Array2<f32>)]) -> Vec<WeightView<'_>> {
        readers.iter().map(|(name, w)| WeightView::new(name, w.view()).unwrap()).collect()
    }

    /// Inputs of which channel 3 is large, and channel 5 never used.
    fn stats() -> CalibrationStats {
        let x = Array2::from_shape_fn((64, 16), |(token, j)| {
            let x = ((token * 16 + j) as f32 * 0.9).sin() + 0.3 * (token as f32).cos();
            x * [1.0, 20.0, 0.0][usize::from(j == 3) + 2 * usize::from(j == 5)]
        });
        CalibrationStats::from_hessian(64, x.t().dot(&x) / 64.0)
    }

    fn methods() -> [Awq; 2] {
        let awq = Awq::new(Quarters, &[BitWidth::B3, BitWidth::B4]);
        [awq.clone(), awq.without_correlations()]
    }

    #[test]
    fn the_large_channel_gets_the_largest_scale_and_the_error_falls() {
        let (readers, stats) = (readers(), stats());
        for awq in methods() {
            let scales = awq.scales(&views(&readers), &stats).unwrap().unwrap();
            assert!(scales.iter().all(|s| s.is_finite() && *s > 0.0), "{scales}");
            assert!(scales.iter().enumerate().all(|(i, &s)| i == 3 || s < scales[3]), "{scales}");
            let plain = awq.errors(&views(&readers), &stats, &Array1::ones(16)).unwrap();
            let found = awq.errors(&views(&readers), &stats, &scales).unwrap();
            assert!(found[0] < 0.7 * plain[0], "{found:?} {plain:?}");
        }
    }

    #[test]
    fn scales_do_not_depend_on_the_unit_of_the_input_or_on_threads() {
        let (readers, stats) = (readers(), stats());
        let smaller = stats.rescaled(&Array1::from_elem(16, 1024.0));
        for awq in methods() {
            let run = |stats: &CalibrationStats| awq.scales(&views(&readers), stats).unwrap();
            assert_eq!(run(&stats), run(&smaller));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(run(&stats), pool.install(|| run(&stats)));
        }
    }

    #[test]
    fn where_nothing_can_be_gained_weights_are_left_alone() {
        let (readers, mut stats) = (readers(), stats());
        let alone = |awq: &Awq, readers: &[WeightView<'_>], stats: &CalibrationStats| {
            assert_eq!(awq.scales(readers, stats).unwrap(), None, "{awq:?}");
        };
        for awq in methods() {
            alone(&awq, &[], &stats);
            // Quarters, which are met exactly.
            let exact = [(ModuleName::new("m"), Array2::ones((3, 16)))];
            alone(&awq, &views(&exact), &stats);
        }
        alone(&Awq::new(Quarters, &[]), &views(&readers), &stats);
        stats = CalibrationStats::from_hessian(64, Array2::zeros((16, 16)));
        for awq in methods() {
            alone(&awq, &views(&readers), &stats);
        }
    }

    #[test]
    fn a_reader_of_another_input_is_named() {
        let (readers, stats) = (readers(), stats());
        let other = [(ModuleName::new("other"), Array2::ones((2, 15)))];
        for awq in methods() {
            let readers = [views(&readers), views(&other)].concat();
            let error = awq.scales(&readers, &stats).unwrap_err();
            assert!(matches!(error, QuantizeError::StatisticsShape { in_features: 15, .. }), "{error}");
            assert_eq!(error.module().as_str(), "other");
        }
        let [with, without] = methods();
        let other_hessian = CalibrationStats {
            hessian: CalibrationStats::from_hessian(1, Array2::ones((3, 3))).hessian,
            ..stats.clone()
        };
        assert!(with.scales(&views(&readers), &other_hessian).is_err());
        assert!(without.scales(&views(&readers), &other_hessian).unwrap().is_some());
        let only_moments = CalibrationStats { hessian: None, ..stats };
        let error = with.scales(&views(&readers), &only_moments).unwrap_err();
        assert!(matches!(error, QuantizeError::MissingStatistics { .. }), "{error}");
        assert!(without.scales(&views(&readers), &only_moments).unwrap().is_some());
    }

    #[test]
    fn descriptions_tell_settings_apart() {
        let [with, without] = methods();
        assert_eq!(with.describe(), "awq at 3+4 bits for quarters");
        assert_eq!(without.describe(), "awq at 3+4 bits for quarters without correlations");
    }
}
