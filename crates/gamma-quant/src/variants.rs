//! Several quantizers as one.

use gamma_core::{BitWidth, Format};

use crate::{CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, Quantizer, WeightView};

/// Several quantizers whose formats compete: groups of 32 and of 128, with and without zero points,
/// or different methods.
///
/// A format that several of them make is made by the first.
///
/// ```
/// use gamma_core::{BitWidth, GroupSize};
/// use gamma_quant::{Quantizer, Rtn, Variants};
///
/// let sizes = [32, 64, 128].map(|channels| GroupSize::new(channels).expect("positive"));
/// let rtn = Variants::new(sizes.map(Rtn::asymmetric));
/// let formats: Vec<String> = rtn.formats(BitWidth::B4).iter().map(ToString::to_string).collect();
/// assert_eq!(formats, ["int4:g32:asym:f16", "int4:g64:asym:f16", "int4:g128:asym:f16"]);
/// ```
#[derive(Debug)]
pub struct Variants {
    name: String,
    members: Vec<Box<dyn Quantizer>>,
}

impl Variants {
    /// Joins quantizers of one kind; see [`and`](Self::and) for others.
    pub fn new<Q: Quantizer + 'static>(members: impl IntoIterator<Item = Q>) -> Self {
        let none = Self { name: String::new(), members: Vec::new() };
        members.into_iter().fold(none, Self::and)
    }

    /// Adds a quantizer.
    #[must_use]
    pub fn and(mut self, quantizer: impl Quantizer + 'static) -> Self {
        let known = self.members.iter().any(|member| member.name() == quantizer.name());
        if !known {
            let joint = if self.name.is_empty() { "" } else { "+" };
            self.name = format!("{}{joint}{}", self.name, quantizer.name());
        }
        self.members.push(Box::new(quantizer));
        self
    }

    fn maker(&self, format: &Format) -> Option<&dyn Quantizer> {
        let mut members = self.members.iter().map(AsRef::as_ref);
        members.find(|member: &&dyn Quantizer| member.formats(format.bits()).contains(format))
    }
}

impl Quantizer for Variants {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let members: Vec<_> = self.members.iter().map(Quantizer::describe).collect();
        members.join(", ")
    }

    fn formats(&self, width: BitWidth) -> Vec<Format> {
        let mut formats = Vec::new();
        for format in self.members.iter().flat_map(|member| member.formats(width)) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        formats
    }

    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        crate::accept(self, weight.name(), format)?;
        stats.check(weight.name(), weight.shape()[1], self.needs())?;
        let maker = self.maker(format).expect("a member offers it");
        maker.quantize(weight, stats, format)
    }

    fn stored_bits(&self, format: &Format, shape: [usize; 2]) -> Option<u64> {
        self.maker(format)?.stored_bits(format, shape)
    }

    fn fits(&self, format: &Format, shape: [usize; 2]) -> bool {
        self.maker(format).is_some_and(|maker| maker.fits(format, shape))
    }

    fn needs(&self) -> CalibrationNeeds {
        self.members.iter().map(Quantizer::needs).max().unwrap_or(CalibrationNeeds::Nothing)
    }
}

#[cfg(all(test, feature = "rtn", feature = "gptq"))]
mod tests {
    use gamma_core::{GroupSize, ModuleName};
    use ndarray::Array2;

    use super::*;
    use crate::{Gptq, Rtn, laws};

    #[test]
    fn every_format_comes_from_its_first_maker() {
        let group = |channels| GroupSize::new(channels).unwrap();
        let variants = Variants::new([Rtn::symmetric(group(32)), Rtn::symmetric(group(64))])
            .and(Gptq::symmetric(group(64)))
            .and(Gptq::asymmetric(group(64)));
        assert_eq!((variants.name(), variants.needs()), ("rtn+gptq", CalibrationNeeds::Hessian));
        assert_eq!(variants.formats(BitWidth::B3).len(), 3);
        let widths = [BitWidth::B2, BitWidth::B4];
        assert_eq!(laws::check(&variants, &widths).map_err(|v| laws::report(&v)), Ok(()));

        let name = ModuleName::new("m");
        let weight = Array2::from_shape_fn((4, 64), |(i, j)| ((i * 64 + j) as f32 * 0.7).sin());
        let view = WeightView::new(&name, weight.view()).unwrap();
        let format = Format::symmetric(BitWidth::B3, group(64));
        let stats = CalibrationStats::from_hessian(9, Array2::eye(64));
        let expected = Rtn::symmetric(group(64)).quantize(&view, &stats, &format).unwrap();
        assert_eq!(variants.quantize(&view, &stats, &format).unwrap(), expected);
    }
}
