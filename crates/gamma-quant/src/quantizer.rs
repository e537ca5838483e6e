//! The trait that a quantization method implements.

use std::{fmt, sync::Arc};

use gamma_core::{BitWidth, Format};

use crate::{CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, WeightView};

/// A weight-only quantization method: one matrix in, codes and their parameters out.
///
/// What varies from call to call is an argument; what configures the method is a field of its
/// struct. The crate page implements a small one. [`laws::check`](crate::laws::check) tests what
/// the signatures cannot say: the same input gives the same bits on any number of threads, an
/// all-zero row decodes to zeros, and sizes are what [`format`](Self::format) promises.
pub trait Quantizer: fmt::Debug + Send + Sync {
    /// Stable identifier for reports and cache keys, such as `"gptq"`.
    fn name(&self) -> &str;

    /// The method and its settings in words, such as `"rtn asymmetric g128"`, for the provenance of
    /// scores. Two quantizers that can give different results describe themselves differently.
    fn describe(&self) -> String;

    /// How codes of `width` are stored; [`quantize`](Self::quantize) returns exactly this format.
    fn format(&self, width: BitWidth) -> Format;

    /// Quantizes `weight`, shape `[out_features, in_features]`, to `width`.
    ///
    /// `stats` describe the inputs of the module and hold at least what [`needs`](Self::needs)
    /// asks for.
    ///
    /// # Errors
    /// [`QuantizeError`], which names the module.
    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        width: BitWidth,
    ) -> Result<QuantizedWeight, QuantizeError>;

    /// Statistics to collect before `quantize`. Data-free methods keep the default.
    fn needs(&self) -> CalibrationNeeds {
        CalibrationNeeds::Nothing
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<Q: Quantizer + ?Sized> Quantizer for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn describe(&self) -> String {
                (**self).describe()
            }
            fn format(&self, width: BitWidth) -> Format {
                (**self).format(width)
            }
            fn quantize(
                &self,
                weight: &WeightView<'_>,
                stats: &CalibrationStats,
                width: BitWidth,
            ) -> Result<QuantizedWeight, QuantizeError> {
                (**self).quantize(weight, stats, width)
            }
            fn needs(&self) -> CalibrationNeeds {
                (**self).needs()
            }
        }
    )*};
}

forward!(&Q, Box<Q>, Arc<Q>);

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::CustomWeight;

    /// Keeps the values and differs from every default of the trait.
    #[derive(Debug)]
    struct Identity;

    impl Quantizer for Identity {
        fn name(&self) -> &'static str {
            "identity"
        }
        fn describe(&self) -> String {
            "identity in f32".into()
        }
        fn format(&self, bits: BitWidth) -> Format {
            Format::Custom { bits, name: "identity".into() }
        }
        fn quantize(
            &self,
            weight: &WeightView<'_>,
            _stats: &CalibrationStats,
            width: BitWidth,
        ) -> Result<QuantizedWeight, QuantizeError> {
            let bits = 32 * weight.data().len() as u64;
            let values = weight.data().to_owned();
            Ok(CustomWeight::new(weight.name(), self.format(width), values, bits)?.into())
        }
        fn needs(&self) -> CalibrationNeeds {
            CalibrationNeeds::Hessian
        }
    }

    #[test]
    fn pointers_forward_every_method() {
        fn check(quantizer: impl Quantizer) {
            assert_eq!(quantizer.name(), "identity");
            assert_eq!(quantizer.describe(), "identity in f32");
            assert_eq!(quantizer.format(BitWidth::B3).to_string(), "custom3:identity");
            assert_eq!(quantizer.needs(), CalibrationNeeds::Hessian);
            let (name, weight) = ("m".to_owned().into(), array![[1.0, 2.0]]);
            let view = WeightView::new(&name, weight.view()).unwrap();
            let stats = CalibrationStats::default();
            assert_eq!(quantizer.quantize(&view, &stats, BitWidth::B3).unwrap().dequantize(), weight);
        }
        check(Identity);
        check(&Identity);
        check(&Identity as &dyn Quantizer);
        check(Box::new(Identity));
        check(Box::new(Identity) as Box<dyn Quantizer>);
        check(Arc::new(Identity) as Arc<dyn Quantizer>);
        check(Arc::new(Box::new(Identity) as Box<dyn Quantizer>));
    }
}
