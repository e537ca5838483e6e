//! What is known about a module's inputs.

use gamma_core::ModuleName;
use ndarray::{Array1, Array2};

use crate::QuantizeError;

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
}

/// Statistics of the vectors `x` that a module receives: never the vectors themselves.
///
/// The squared error of a quantized row `v` instead of `w` is `(w - v) H (w - v)ᵀ` with `H` the
/// [`hessian`](Self::hessian), in the mean over tokens; without the correlations between
/// channels it is the sum of `(w - v)²` weighted by the [`second_moment`](Self::second_moment).
/// Both are in the squared unit of the activations. GPTQ (Frantar et al. 2022, section 3) writes
/// `2 X Xᵀ` for the same matrix summed over tokens; its result does not depend on the factor.
///
/// The default holds nothing: enough for methods that need nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationStats {
    /// Number of vectors behind the means.
    pub tokens: usize,
    /// Mean over tokens of `x²` per channel, `[in_features]`.
    pub second_moment: Option<Array1<f32>>,
    /// Mean over tokens of `x xᵀ`, `[in_features, in_features]`, symmetric.
    pub hessian: Option<Array2<f32>>,
}

impl CalibrationStats {
    /// Checks at the door of a method that the statistics it needs are here and fit the module.
    ///
    /// # Errors
    /// [`QuantizeError::MissingStatistics`] or [`QuantizeError::StatisticsShape`].
    pub fn check(
        &self,
        module: &ModuleName,
        in_features: usize,
        needs: CalibrationNeeds,
    ) -> Result<(), QuantizeError> {
        let found = [
            (CalibrationNeeds::SecondMoment, self.second_moment.as_ref().map(|m| vec![m.len()])),
            (CalibrationNeeds::Hessian, self.hessian.as_ref().map(|h| h.shape().to_vec())),
        ];
        for (need, shape) in found.into_iter().filter(|&(need, _)| need <= needs) {
            let module = module.clone();
            let Some(found) = shape else {
                return Err(QuantizeError::MissingStatistics { module, need });
            };
            if found.iter().any(|&side| side != in_features) {
                return Err(QuantizeError::StatisticsShape { module, need, in_features, found });
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

        stats.hessian = Some(Array2::ones((3, 2)));
        let error = stats.check(&module, 3, CalibrationNeeds::Hessian).unwrap_err();
        assert!(error.to_string().contains("Hessian"), "{error}");
    }
}
