//! What is known about a module's inputs.

use std::sync::Arc;

use gamma_core::ModuleName;
use ndarray::{Array1, Array2};

use crate::{Hessian, QuantizeError};

/// What a method must know about a module's inputs, in order of growing cost. A later need
/// includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalibrationNeeds {
    /// No data at all.
    Nothing,
    /// The mean square of every input channel, `in_features` numbers.
    SecondMoment,
    /// The mean product of every pair of input channels, `in_features²` numbers, with the second
    /// moment as its diagonal.
    Hessian,
    /// Besides, some of the vectors themselves, for methods that look beyond second moments.
    Samples,
}

/// Statistics of the vectors `x` that a module receives; of the vectors themselves at most a sample.
///
/// The squared error of a quantized row `v` instead of `w` is `(w - v) H (w - v)ᵀ` with `H` the
/// [`hessian`](Self::hessian), in the mean over tokens; without the correlations between
/// channels it is the sum of `(w - v)²` weighted by the [`second_moment`](Self::second_moment).
/// Both are in the squared unit of the activations. GPTQ (Frantar et al. 2022, section 3) writes
/// `2 X Xᵀ` for the same matrix summed over tokens; its result does not depend on the factor.
///
/// Modules that read the same input take clones of one value: the Hessian, and what methods derive
/// from it, is then shared.
///
/// The default holds nothing: enough for methods that need nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationStats {
    /// Number of vectors behind the means.
    pub tokens: usize,
    /// Mean over tokens of `x²` per channel, `[in_features]`.
    pub second_moment: Option<Array1<f32>>,
    /// Mean over tokens of `x xᵀ`, `[in_features, in_features]`, symmetric.
    pub hessian: Option<Arc<Hessian>>,
    /// Some of the vectors, spread over all calibration sequences, `[samples, in_features]`.
    pub samples: Option<Arc<Array2<f32>>>,
}

impl CalibrationStats {
    /// The mean over `tokens` vectors of `x²` per channel, `[in_features]`.
    #[must_use]
    pub fn from_second_moment(tokens: usize, second_moment: Array1<f32>) -> Self {
        Self { tokens, second_moment: Some(second_moment), hessian: None, samples: None }
    }

    /// The mean over `tokens` vectors of `x xᵀ`, `[in_features, in_features]`, symmetric; the second
    /// moment is its diagonal.
    #[must_use]
    pub fn from_hessian(tokens: usize, hessian: Array2<f32>) -> Self {
        let second_moment = Some(hessian.diag().to_owned());
        Self { tokens, second_moment, hessian: Some(Arc::new(Hessian::new(hessian))), samples: None }
    }

    /// The same with a sample of the vectors, `[samples, in_features]`.
    #[must_use]
    pub fn with_samples(self, samples: Array2<f32>) -> Self {
        Self { samples: Some(Arc::new(samples)), ..self }
    }

    /// Checks at the door of a method that the statistics it needs are here, fit the module, and
    /// are finite.
    ///
    /// # Errors
    /// [`QuantizeError::MissingStatistics`], [`QuantizeError::StatisticsShape`] or
    /// [`QuantizeError::StatisticsNotFinite`].
    pub fn check(
        &self,
        module: &ModuleName,
        in_features: usize,
        needs: CalibrationNeeds,
    ) -> Result<(), QuantizeError> {
        let second_moment = self.second_moment.as_ref().map(|moments| {
            let bad = moments.iter().position(|moment| !moment.is_finite());
            (vec![moments.len()], bad.map(|channel| (channel, moments[channel])))
        });
        let hessian = self.hessian.as_ref().map(|hessian| {
            (hessian.matrix().shape().to_vec(), hessian.not_finite().map(|([row, _], value)| (row, value)))
        });
        let samples = self.samples.as_ref().map(|samples| {
            let bad = samples.indexed_iter().find(|(_, value)| !value.is_finite());
            (vec![samples.ncols()], bad.map(|((_, channel), &value)| (channel, value)))
        });
        let found = [
            (CalibrationNeeds::SecondMoment, second_moment),
            (CalibrationNeeds::Hessian, hessian),
            (CalibrationNeeds::Samples, samples),
        ];
        for (need, found) in found.into_iter().filter(|&(need, _)| need <= needs) {
            let module = module.clone();
            let Some((found, not_finite)) = found else {
                return Err(QuantizeError::MissingStatistics { module, need });
            };
            if found.iter().any(|&side| side != in_features) {
                return Err(QuantizeError::StatisticsShape { module, need, in_features, found });
            }
            if let Some((channel, value)) = not_finite {
                return Err(QuantizeError::StatisticsNotFinite { module, need, channel, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_names_what_is_missing_or_of_another_shape() {
        let module = ModuleName::new("m");
        let mut stats = CalibrationStats::default();
        assert!(stats.check(&module, 3, CalibrationNeeds::Nothing).is_ok());
        let error = stats.check(&module, 3, CalibrationNeeds::Hessian).unwrap_err();
        assert_eq!(error.to_string(), "module `m`: the second moment of its inputs is missing");

        stats.second_moment = Some(Array1::ones(3));
        assert!(stats.check(&module, 3, CalibrationNeeds::SecondMoment).is_ok());
        let error = stats.check(&module, 4, CalibrationNeeds::SecondMoment).unwrap_err();
        assert!(matches!(error, QuantizeError::StatisticsShape { in_features: 4, .. }), "{error}");

        stats.hessian = Some(Arc::new(Hessian::new(Array2::ones((3, 2)))));
        let error = stats.check(&module, 3, CalibrationNeeds::Hessian).unwrap_err();
        assert!(error.to_string().contains("Hessian"), "{error}");

        let stats = CalibrationStats::from_hessian(1, Array2::eye(3));
        let error = stats.check(&module, 3, CalibrationNeeds::Samples).unwrap_err();
        assert!(error.to_string().contains("sample"), "{error}");
        assert!(
            stats
                .clone()
                .with_samples(Array2::ones((9, 3)))
                .check(&module, 3, CalibrationNeeds::Samples)
                .is_ok()
        );
        let error = stats
            .with_samples(Array2::ones((9, 4)))
            .check(&module, 3, CalibrationNeeds::Samples)
            .unwrap_err();
        assert!(matches!(error, QuantizeError::StatisticsShape { .. }), "{error}");
    }

    #[test]
    fn check_names_the_channel_of_a_statistic_that_is_not_finite() {
        let module = ModuleName::new("m");
        let mut matrix = Array2::eye(3);
        matrix[[1, 2]] = f32::NAN;
        let mut stats = CalibrationStats::from_hessian(1, matrix);
        assert!(stats.check(&module, 3, CalibrationNeeds::SecondMoment).is_ok());
        let error = stats.check(&module, 3, CalibrationNeeds::Hessian).unwrap_err();
        assert_eq!(error.to_string(), "module `m`: the Hessian of its inputs holds NaN in channel 1");

        stats.second_moment = Some(Array1::from_elem(3, f32::INFINITY));
        let error = stats.check(&module, 3, CalibrationNeeds::Hessian).unwrap_err();
        assert_eq!(error.to_string(), "module `m`: the second moment of its inputs holds inf in channel 0");
    }
}
