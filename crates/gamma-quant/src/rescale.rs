//! Changes of the full-precision weights that leave the model's function as it is.

use std::{fmt, sync::Arc};

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{CalibrationNeeds, CalibrationStats, Hessian, QuantizeError, WeightView};

/// A method that prepares weights for a [`Quantizer`](crate::Quantizer): one positive scale per
/// input channel, the same for all modules that read this input.
///
/// Where something linear per channel produces the input `x` (a norm's weight, or the rows of the
/// linear module before), it can produce `x / s` instead. The readers' columns times `s` then give
/// the same outputs, and rounding errors of the scaled columns reach the output divided by `s`:
///
/// 1. ask for [`scales`](Self::scales) once per input, with all its readers: query, key and value
///    projections; gate and up projections; a single one otherwise;
/// 2. divide what produces the input with [`divide_rows`], multiply every reader with
///    [`scale_columns`], and the input's statistics with [`CalibrationStats::rescaled`];
/// 3. quantize the scaled readers with any quantizer.
///
/// Only the caller knows the model, and so whether an input has such a producer: between a value
/// and an output projection, for example, it has one only with as many key-value heads as query
/// heads. Transforms of this kind are from `SmoothQuant` (Xiao et al. 2022, arXiv 2211.10438) and
/// AWQ (Lin et al. 2023, arXiv 2306.00978).
pub trait Rescale: fmt::Debug + Send + Sync {
    /// Stable identifier for reports and cache keys, such as `"awq"`.
    fn name(&self) -> &str;

    /// The method and its settings in words. Two methods that can give different scales describe
    /// themselves differently.
    fn describe(&self) -> String;

    /// Scales of the input that `readers` share, `[in_features]`, all positive and finite, or `None`
    /// if the weights are best left alone.
    ///
    /// `stats` describe the input and hold at least what [`needs`](Self::needs) asks for.
    ///
    /// # Errors
    /// [`QuantizeError`], which names a reader.
    fn scales(
        &self,
        readers: &[WeightView<'_>],
        stats: &CalibrationStats,
    ) -> Result<Option<Array1<f32>>, QuantizeError>;

    /// Statistics to collect before `scales`.
    fn needs(&self) -> CalibrationNeeds;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<R: Rescale + ?Sized> Rescale for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn describe(&self) -> String {
                (**self).describe()
            }
            fn scales(
                &self,
                readers: &[WeightView<'_>],
                stats: &CalibrationStats,
            ) -> Result<Option<Array1<f32>>, QuantizeError> {
                (**self).scales(readers, stats)
            }
            fn needs(&self) -> CalibrationNeeds {
                (**self).needs()
            }
        }
    )*};
}

forward!(&R, Box<R>, Arc<R>);

/// `W diag(s)`, the weight of a module that reads a scaled input. `weight` is
/// `[out_features, in_features]`, `scales` `[in_features]`.
///
/// # Panics
/// If there is not one scale per column.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "a view is a reference, and callers write `.view()`")]
pub fn scale_columns(weight: ArrayView2<'_, f32>, scales: &Array1<f32>) -> Array2<f32> {
    assert_eq!(weight.ncols(), scales.len(), "one scale per input channel");
    &weight * scales
}

/// `diag(1 / s) W`, the weight of a module that produces a scaled input; a norm's weight, or a
/// bias, is a matrix of one column. `weight` is `[out_features, in_features]`, `scales`
/// `[out_features]`.
///
/// # Panics
/// If there is not one scale per row.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "a view is a reference, and callers write `.view()`")]
pub fn divide_rows(weight: ArrayView2<'_, f32>, scales: &Array1<f32>) -> Array2<f32> {
    assert_eq!(weight.nrows(), scales.len(), "one scale per output channel");
    &weight / &scales.view().insert_axis(Axis(1))
}

impl CalibrationStats {
    /// The statistics of `x / s` where `self` are those of `x`: the second moment over `s²`, the
    /// Hessian over `s sᵀ`, samples over `s`. `scales` are `[in_features]`.
    ///
    /// # Panics
    /// If the statistics are of another number of channels.
    #[must_use]
    pub fn rescaled(&self, scales: &Array1<f32>) -> Self {
        let Self { tokens, ref second_moment, ref hessian, ref samples } = *self;
        let second_moment = second_moment.as_ref().map(|moment| {
            assert_eq!(moment.len(), scales.len(), "one scale per input channel");
            moment / scales / scales
        });
        let hessian = hessian.as_ref().map(|hessian| {
            let hessian = hessian.matrix();
            assert_eq!(hessian.dim(), (scales.len(), scales.len()), "one scale per input channel");
            Arc::new(Hessian::new(hessian / scales / scales.view().insert_axis(Axis(1))))
        });
        let samples = samples.as_ref().map(|samples| Arc::new(&**samples / scales));
        Self { tokens, second_moment, hessian, samples }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[derive(Debug)]
    struct Twice;

    impl Rescale for Twice {
        fn name(&self) -> &'static str {
            "twice"
        }
        fn describe(&self) -> String {
            "every channel twice".into()
        }
        fn scales(
            &self,
            readers: &[WeightView<'_>],
            _stats: &CalibrationStats,
        ) -> Result<Option<Array1<f32>>, QuantizeError> {
            Ok(readers.first().map(|reader| Array1::from_elem(reader.shape()[1], 2.0)))
        }
        fn needs(&self) -> CalibrationNeeds {
            CalibrationNeeds::Nothing
        }
    }

    #[test]
    fn pointers_forward_every_method() {
        fn check(rescale: impl Rescale) {
            assert_eq!(rescale.name(), "twice");
            assert_eq!(rescale.describe(), "every channel twice");
            assert_eq!(rescale.needs(), CalibrationNeeds::Nothing);
            let (name, weight) = ("m".to_owned().into(), array![[1.0, 2.0]]);
            let view = WeightView::new(&name, weight.view()).unwrap();
            let scales = rescale.scales(&[view], &CalibrationStats::default()).unwrap();
            assert_eq!(scales, Some(array![2.0, 2.0]));
        }
        check(Twice);
        check(&Twice as &dyn Rescale);
        check(Box::new(Twice) as Box<dyn Rescale>);
        check(Arc::new(Box::new(Twice)));
    }

    #[test]
    fn producer_readers_and_statistics_change_together() {
        // All scales are powers of two, so that nothing is rounded.
        let scales = &array![2.0, 0.5, 4.0];
        let before = array![[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]];
        let reader = array![[1.0, 2.0, -3.0], [0.5, 0.0, 7.0]];
        let x = array![[1.0, -1.0, 2.0, 0.0], [3.0, 0.5, -1.0, 8.0]]; // [channels, tokens]
        let (scaled_before, scaled_reader) =
            (divide_rows(before.view(), scales), scale_columns(reader.view(), scales));
        assert_eq!(scaled_reader.dot(&scaled_before.dot(&x)), reader.dot(&before.dot(&x)));

        let stats = |y: Array2<f32>| CalibrationStats::from_hessian(4, y.dot(&y.t()) / 4.0);
        assert_eq!(stats(before.dot(&x)).rescaled(scales), stats(scaled_before.dot(&x)));
        assert_eq!(CalibrationStats::default().rescaled(scales), CalibrationStats::default());
    }
}
