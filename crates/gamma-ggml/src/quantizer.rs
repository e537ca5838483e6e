//! The block formats as candidates of a plan.

use gamma_core::{BitWidth, Format};
use gamma_quant::{
    CalibrationNeeds, CalibrationStats, CustomWeight, Decode, QuantizeError, QuantizedWeight, Quantizer,
    WeightView, accept,
};
use rayon::prelude::*;

use crate::{CodecError, GgmlType};

/// The block formats of ggml as a quantizer: what a GGUF file can hold, in exactly its bytes.
///
/// With [`weighted`](Self::weighted), the error of a weight counts by the mean square of its input, as
/// with the importance matrix of llama.cpp.
///
/// ```
/// use gamma_core::BitWidth;
/// use gamma_ggml::Ggml;
/// use gamma_quant::Quantizer;
///
/// let ggml = Ggml::portable();
/// let format = &ggml.formats(BitWidth::B4)[0];
/// assert_eq!(format.to_string(), "custom4:ggml-q4_K");
/// assert_eq!(ggml.stored_bits(format, [64, 512]), Some(64 * 512 * 9 / 2));
/// // Blocks of 256 do not go into rows of 192.
/// assert!(!ggml.fits(format, [64, 192]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ggml {
    types: Vec<GgmlType>,
    weighted: bool,
}

/// In front of the type's name in a format's name.
const PREFIX: &str = "ggml-";

/// The types that llama.cpp, candle and mistral.rs all read, without the older ones that `Q4_K` and
/// `Q5_K` beat wherever their blocks fit.
const PORTABLE: [GgmlType; 6] =
    [GgmlType::Q2K, GgmlType::Q3K, GgmlType::Q4K, GgmlType::Q5K, GgmlType::Q6K, GgmlType::Q8_0];

impl Ggml {
    /// `Q2_K`, `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K` and `Q8_0`, every weight of a block mattering alike.
    #[must_use]
    pub fn portable() -> Self {
        Self { types: PORTABLE.to_vec(), weighted: false }
    }

    /// The portable types, and `Q4_0` and `Q5_0`, whose blocks of 32 also fit models whose rows 256
    /// does not divide.
    #[must_use]
    pub fn with_small_blocks() -> Self {
        let types = PORTABLE.into_iter().chain([GgmlType::Q4_0, GgmlType::Q5_0]).collect();
        Self { types, weighted: false }
    }

    /// These types, the ones to prefer first.
    ///
    /// # Errors
    /// [`CodecError::NotEncodable`] for a type that is not written, or is a plain float.
    pub fn new(types: impl IntoIterator<Item = GgmlType>) -> Result<Self, CodecError> {
        let types: Vec<GgmlType> = types.into_iter().collect();
        match types.iter().find(|kind| kind.format().is_none()) {
            Some(&kind) => Err(CodecError::NotEncodable { kind }),
            None => Ok(Self { types, weighted: false }),
        }
    }

    /// Weights matter by the second moment of their inputs, which calibration then collects.
    #[must_use]
    pub fn weighted(self) -> Self {
        Self { weighted: true, ..self }
    }

    /// How much each input channel matters.
    fn importance(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
    ) -> Result<Option<Vec<f32>>, QuantizeError> {
        let Some(moments) = stats.second_moment.as_ref().filter(|_| self.weighted) else {
            return Ok(None);
        };
        match importance(&moments.to_vec()) {
            Some(importance) => Ok(Some(importance)),
            None => Err(QuantizeError::NoSignal { module: weight.name().clone() }),
        }
    }
}

/// The importance of input channels for [`GgmlType::encode`], from the mean squares of their inputs;
/// `None` if these are all zero, or one is negative or not finite.
///
/// One hundredth of the mean is added, because inputs that calibration has not seen may still occur.
#[must_use]
pub fn importance(second_moment: &[f32]) -> Option<Vec<f32>> {
    let sum: f64 = second_moment.iter().map(|&moment| f64::from(moment)).sum();
    let mean = sum / second_moment.len() as f64;
    let usable = mean > 0.0 && mean.is_finite() && second_moment.iter().all(|&moment| moment >= 0.0);
    usable.then(|| second_moment.iter().map(|&moment| (f64::from(moment) / mean + 0.01) as f32).collect())
}

impl GgmlType {
    /// The type as a format of plans, for types that [`Ggml`] makes.
    #[must_use]
    pub fn format(self) -> Option<Format> {
        let bits = match self {
            Self::Q2K => BitWidth::B2,
            Self::Q3K => BitWidth::B3,
            Self::Q4K | Self::Q4_0 => BitWidth::B4,
            Self::Q5K | Self::Q5_0 => BitWidth::B5,
            Self::Q6K => BitWidth::B6,
            Self::Q8_0 => BitWidth::B8,
            _ => return None,
        };
        Some(Format::Custom { bits, name: format!("{PREFIX}{self}") })
    }

    /// The type that a format of plans stands for.
    #[must_use]
    pub fn from_format(format: &Format) -> Option<Self> {
        let Format::Custom { name, .. } = format else { return None };
        let kind: Self = name.strip_prefix(PREFIX)?.parse().ok()?;
        (kind.format().as_ref() == Some(format)).then_some(kind)
    }

    fn decoder(self) -> Decode {
        macro_rules! decoders {
            ($($kind:ident)*) => {
                match self {
                    $(Self::$kind => |bytes, values| decode_all(Self::$kind, bytes, values),)*
                    other => unreachable!("{other} has no format"),
                }
            };
        }
        decoders!(Q2K Q3K Q4K Q5K Q6K Q8_0 Q4_0 Q5_0)
    }
}

/// Blocks of one task.
const BLOCKS_PER_TASK: usize = 256;

fn decode_all(kind: GgmlType, bytes: &[u8], values: &mut [f32]) {
    let tasks = bytes
        .par_chunks(BLOCKS_PER_TASK * kind.block_bytes())
        .zip(values.par_chunks_mut(BLOCKS_PER_TASK * kind.block()));
    tasks.for_each(|(bytes, values)| {
        kind.decode(bytes, values).expect("the bytes were encoded for these weights");
    });
}

impl Quantizer for Ggml {
    fn name(&self) -> &'static str {
        "ggml"
    }

    fn describe(&self) -> String {
        let weighted = if self.weighted { " weighted" } else { "" };
        let types: Vec<_> = self.types.iter().map(|kind| kind.name()).collect();
        format!("ggml {}{weighted}", types.join(" "))
    }

    fn formats(&self, width: BitWidth) -> Vec<Format> {
        let formats = self.types.iter().filter_map(|kind| kind.format());
        formats.filter(|format| format.bits() == width).collect()
    }

    fn fits(&self, format: &Format, shape: [usize; 2]) -> bool {
        GgmlType::from_format(format).is_some_and(|kind| kind.bytes(shape).is_some())
    }

    fn stored_bits(&self, format: &Format, shape: [usize; 2]) -> Option<u64> {
        GgmlType::from_format(format)?.bytes(shape)?.checked_mul(8)
    }

    fn needs(&self) -> CalibrationNeeds {
        if self.weighted { CalibrationNeeds::SecondMoment } else { CalibrationNeeds::Nothing }
    }

    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        accept(self, weight.name(), format)?;
        let (module, shape) = (weight.name(), weight.shape());
        let unsupported = || QuantizeError::Unsupported {
            module: module.clone(),
            quantizer: self.name().to_owned(),
            requested: format!("`{format}` of rows of {} weights, which its blocks do not divide", shape[1]),
        };
        let kind = GgmlType::from_format(format).ok_or_else(unsupported)?;
        let bytes = kind.bytes(shape).ok_or_else(unsupported)?;
        stats.check(module, shape[1], self.needs())?;
        let importance = self.importance(weight, stats)?;
        let mut bytes = vec![0; bytes as usize];
        let row_bytes = bytes.len() / shape[0];
        // Rows in parallel; the first error in the order of rows, whichever thread meets one first.
        let failed = bytes.par_chunks_exact_mut(row_bytes).enumerate().find_map_first(|(row, bytes)| {
            let error = kind.encode(&weight.row(row), importance.as_deref(), bytes).err()?;
            Some((row, error))
        });
        match failed {
            None => Ok(CustomWeight::encoded(module, format.clone(), shape, bytes, kind.decoder())?.into()),
            Some((row, CodecError::Range { block, largest, .. })) => Err(QuantizeError::ScaleOverflow {
                module: module.clone(),
                row,
                group: block,
                scale: largest,
            }),
            Some((_, error)) => Err(QuantizeError::Method {
                module: module.clone(),
                quantizer: self.name().to_owned(),
                source: error.into(),
            }),
        }
    }
}
