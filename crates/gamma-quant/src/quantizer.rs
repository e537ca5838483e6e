//! The trait that a quantization method implements.

use std::{fmt, sync::Arc};

use gamma_core::{BitWidth, Format, ModuleName};

use crate::{CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, WeightView};

/// A weight-only quantization method: one matrix in, codes and their parameters out.
///
/// What varies from call to call is an argument; what configures the method is a field of its
/// struct. The crate page implements a small one. [`laws::check`](crate::laws::check) tests what
/// the signatures cannot say: the same input gives the same bits on any number of threads, an
/// all-zero row decodes to zeros, and sizes are what was promised.
pub trait Quantizer: fmt::Debug + Send + Sync {
    /// Stable identifier for reports and cache keys, such as `"gptq"`.
    fn name(&self) -> &str;

    /// The method and its settings in words, such as `"rtn asymmetric g128"`, for the provenance of
    /// scores. Two quantizers that can give different results describe themselves differently.
    fn describe(&self) -> String;

    /// How a matrix can be stored in codes of `width`: one format, or several variants such as
    /// groups of 32 and of 128, the one to prefer first. Empty if the method has no codes of this
    /// width.
    fn formats(&self, width: BitWidth) -> Vec<Format>;

    /// Quantizes `weight`, shape `[out_features, in_features]`, to `format`, one of
    /// [`formats`](Self::formats).
    ///
    /// `stats` describe the inputs of the module and hold at least what [`needs`](Self::needs)
    /// asks for.
    ///
    /// # Errors
    /// [`QuantizeError`], which names the module; [`QuantizeError::Unsupported`] for another format.
    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError>;

    /// [`quantize`](Self::quantize) to the preferred format of `width`.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize); [`QuantizeError::Unsupported`] if there is no such format.
    fn quantize_at(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        width: BitWidth,
    ) -> Result<QuantizedWeight, QuantizeError> {
        match self.formats(width).first() {
            Some(format) => self.quantize(weight, stats, format),
            None => Err(QuantizeError::Unsupported {
                module: weight.name().clone(),
                quantizer: self.describe(),
                requested: format!("{width} bits"),
            }),
        }
    }

    /// Exact storage of a matrix of `shape` in `format`, in bits, padding included; `None` where
    /// that depends on the weights. Formats with a size of their own keep the default.
    fn stored_bits(&self, format: &Format, shape: [usize; 2]) -> Option<u64> {
        format.stored_bits(shape)
    }

    /// Whether a matrix of `shape` can be stored in `format` at all. Formats whose blocks must divide
    /// a row say no to other shapes, and [`quantize`](Self::quantize) then refuses them; whoever makes
    /// candidates leaves the format out for these matrices. All others keep the default.
    fn fits(&self, _format: &Format, _shape: [usize; 2]) -> bool {
        true
    }

    /// Statistics to collect before `quantize`. Data-free methods keep the default.
    fn needs(&self) -> CalibrationNeeds {
        CalibrationNeeds::Nothing
    }
}

/// The bit-width of `format`, if `quantizer` makes it: what implementations check at the door.
///
/// # Errors
/// [`QuantizeError::Unsupported`] names the module and the format.
pub fn accept(
    quantizer: &(impl Quantizer + ?Sized),
    module: &ModuleName,
    format: &Format,
) -> Result<BitWidth, QuantizeError> {
    let width = format.bits();
    if quantizer.formats(width).contains(format) {
        return Ok(width);
    }
    let (module, quantizer) = (module.clone(), quantizer.describe());
    Err(QuantizeError::Unsupported { module, quantizer, requested: format!("`{format}`") })
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
            fn formats(&self, width: BitWidth) -> Vec<Format> {
                (**self).formats(width)
            }
            fn quantize(
                &self,
                weight: &WeightView<'_>,
                stats: &CalibrationStats,
                format: &Format,
            ) -> Result<QuantizedWeight, QuantizeError> {
                (**self).quantize(weight, stats, format)
            }
            fn quantize_at(
                &self,
                weight: &WeightView<'_>,
                stats: &CalibrationStats,
                width: BitWidth,
            ) -> Result<QuantizedWeight, QuantizeError> {
                (**self).quantize_at(weight, stats, width)
            }
            fn stored_bits(&self, format: &Format, shape: [usize; 2]) -> Option<u64> {
                (**self).stored_bits(format, shape)
            }
            fn fits(&self, format: &Format, shape: [usize; 2]) -> bool {
                (**self).fits(format, shape)
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
        fn formats(&self, bits: BitWidth) -> Vec<Format> {
            let named = bits == BitWidth::B3;
            if named { vec![Format::Custom { bits, name: "identity".into() }] } else { Vec::new() }
        }
        fn quantize(
            &self,
            weight: &WeightView<'_>,
            _stats: &CalibrationStats,
            format: &Format,
        ) -> Result<QuantizedWeight, QuantizeError> {
            accept(self, weight.name(), format)?;
            let bits = 32 * weight.data().len() as u64;
            let values = weight.data().to_owned();
            Ok(CustomWeight::new(weight.name(), format.clone(), values, bits)?.into())
        }
        fn stored_bits(&self, _format: &Format, shape: [usize; 2]) -> Option<u64> {
            Some(32 * shape[0] as u64 * shape[1] as u64)
        }
        fn fits(&self, _format: &Format, shape: [usize; 2]) -> bool {
            shape[1] != 7
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
            let formats = quantizer.formats(BitWidth::B3);
            assert_eq!(formats[0].to_string(), "custom3:identity");
            assert_eq!(quantizer.stored_bits(&formats[0], [2, 3]), Some(192));
            assert_eq!([7, 8].map(|side| quantizer.fits(&formats[0], [1, side])), [false, true]);
            assert_eq!(quantizer.needs(), CalibrationNeeds::Hessian);
            let (name, weight) = ("m".to_owned().into(), array![[1.0, 2.0]]);
            let view = WeightView::new(&name, weight.view()).unwrap();
            let stats = CalibrationStats::default();
            assert_eq!(quantizer.quantize(&view, &stats, &formats[0]).unwrap().dequantize(), weight);
            assert_eq!(quantizer.quantize_at(&view, &stats, BitWidth::B3).unwrap().dequantize(), weight);
        }
        check(Identity);
        check(&Identity);
        check(&Identity as &dyn Quantizer);
        check(Box::new(Identity));
        check(Box::new(Identity) as Box<dyn Quantizer>);
        check(Arc::new(Identity) as Arc<dyn Quantizer>);
        check(Arc::new(Box::new(Identity) as Box<dyn Quantizer>));
    }

    #[test]
    fn formats_that_are_not_offered_are_refused_by_name() {
        let (name, weight) = ("model.layers.1.up_proj".to_owned().into(), array![[1.0, 2.0]]);
        let view = WeightView::new(&name, weight.view()).unwrap();
        let stats = CalibrationStats::default();
        let foreign = Format::Custom { bits: BitWidth::B3, name: "other".into() };
        let errors = [
            (Identity.quantize(&view, &stats, &foreign), "`custom3:other`"),
            (Identity.quantize_at(&view, &stats, BitWidth::B4), "4 bits"),
        ];
        for (result, what) in errors {
            let error = result.unwrap_err().to_string();
            for word in ["model.layers.1.up_proj", "identity in f32", what] {
                assert!(error.contains(word), "{error}");
            }
        }
    }
}
