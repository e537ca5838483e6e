//! Packed weights that are kept: in memory, or in a file.

use std::sync::Arc;

use gamma_core::{BitWidth, Format, GroupSize, ModuleName};
use gamma_quant::{CustomWeight, Decode, IntWeight, QuantizedWeight};
use half::f16;

use crate::{
    Error,
    spill::{Place, Spill},
};

/// How much may stay in memory, and where the rest goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Where there is none, everything stays in memory.
    pub(crate) spill: Option<Arc<Spill>>,
    /// Bytes for packed candidates.
    pub(crate) packed: u64,
    /// Bytes for hidden states that wait for the way back.
    pub(crate) hidden: u64,
    /// Bytes for those of all calibration data while candidates are made.
    pub(crate) stream: u64,
}

/// A packed weight.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Here(Arc<QuantizedWeight>),
    Filed(Arc<Filed>),
}

/// A packed weight in a file.
#[derive(Debug)]
pub(crate) struct Filed {
    spill: Arc<Spill>,
    place: Place,
    shape: [usize; 2],
    kind: Kind,
    stored_bits: u64,
}

/// What its bytes are.
#[derive(Debug)]
enum Kind {
    /// Codes, scales and zero points, one after the other; the lengths of the first two in bytes.
    Int { grid: (BitWidth, GroupSize), codes: usize, scales: usize, symmetric: bool },
    /// Bytes that their quantizer decodes.
    Encoded { format: Format, decode: Decode },
}

impl Kept {
    /// Keeps `weight` where there is room, `held` bytes being taken already. Weights that are mere
    /// values, without bytes of their own, stay in memory.
    pub(crate) fn new(weight: QuantizedWeight, held: u64, room: &Room) -> Result<Self, Error> {
        if held + weight.stored_bits() / 8 > room.packed
            && let Some(spill) = &room.spill
            && let Some(filed) = Filed::new(&weight, spill)?
        {
            return Ok(Self::Filed(Arc::new(filed)));
        }
        Ok(Self::Here(Arc::new(weight)))
    }

    /// Bytes in memory.
    pub(crate) fn held(&self) -> u64 {
        match self {
            Self::Here(weight) => weight.stored_bits() / 8,
            Self::Filed(_) => 0,
        }
    }

    pub(crate) fn stored_bits(&self) -> u64 {
        match self {
            Self::Here(weight) => weight.stored_bits(),
            Self::Filed(filed) => filed.stored_bits,
        }
    }

    /// The weight itself, which is that of `module`.
    pub(crate) fn weight(&self, module: &ModuleName) -> Result<Arc<QuantizedWeight>, Error> {
        match self {
            Self::Here(weight) => Ok(Arc::clone(weight)),
            Self::Filed(filed) => Ok(Arc::new(filed.read(module)?)),
        }
    }
}

impl Filed {
    /// `None` for a weight that has no bytes.
    fn new(weight: &QuantizedWeight, spill: &Arc<Spill>) -> Result<Option<Self>, Error> {
        let (place, kind) = match weight {
            QuantizedWeight::Int(weight) => {
                let scales: Vec<u8> = weight.scales().iter().flat_map(|scale| scale.to_le_bytes()).collect();
                let place = spill.write(&[weight.codes(), &scales, weight.zeros().unwrap_or_default()])?;
                let (grid, symmetric) = ((weight.bits(), weight.group()), weight.zeros().is_none());
                (place, Kind::Int { grid, codes: weight.codes().len(), scales: scales.len(), symmetric })
            }
            QuantizedWeight::Custom(weight) => {
                let (Some(bytes), Some(decode)) = (weight.bytes(), weight.decode()) else { return Ok(None) };
                (spill.write(&[bytes])?, Kind::Encoded { format: weight.format().clone(), decode })
            }
        };
        let (shape, stored_bits) = (weight.shape(), weight.stored_bits());
        Ok(Some(Self { spill: Arc::clone(spill), place, shape, kind, stored_bits }))
    }

    fn read(&self, module: &ModuleName) -> Result<QuantizedWeight, Error> {
        let mut bytes = self.spill.read(self.place)?;
        match &self.kind {
            Kind::Encoded { format, decode } => {
                Ok(CustomWeight::encoded(module, format.clone(), self.shape, bytes, *decode)?.into())
            }
            &Kind::Int { grid, codes, scales, symmetric } => {
                let zeros = bytes.split_off(codes + scales);
                let scales = bytes.split_off(codes);
                let scales = scales.as_chunks().0.iter().map(|&scale| f16::from_le_bytes(scale)).collect();
                let zeros = (!symmetric).then_some(zeros);
                Ok(IntWeight::from_packed(module, self.shape, grid, bytes, scales, zeros)?.into())
            }
        }
    }
}

impl Drop for Filed {
    fn drop(&mut self) {
        self.spill.free(self.place);
    }
}

#[cfg(test)]
mod tests {
    use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
    use ndarray::Array2;

    use super::*;

    #[test]
    fn filed_weights_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let spill = Arc::new(Spill::in_folder(folder.path()).expect("a file"));
        let name = ModuleName::new("m");
        let values = Array2::from_shape_fn((6, 40), |(i, j)| ((7 * i + 3 * j) % 11) as f32 - 5.0);
        let view = WeightView::new(&name, values.view()).expect("finite");
        let group = GroupSize::new(16).expect("valid");
        let mut all = Vec::new();
        for quantizer in [Rtn::asymmetric(group), Rtn::symmetric(group)] {
            for width in [BitWidth::B3, BitWidth::B4] {
                let made = quantizer.quantize_at(&view, &CalibrationStats::default(), width);
                let made = made.expect("plain numbers");
                // Room for the first one alone.
                let room = Room { spill: Some(Arc::clone(&spill)), packed: 200, ..Room::default() };
                let held = all.iter().map(|(_, kept): &(QuantizedWeight, Kept)| kept.held()).sum();
                let kept = Kept::new(made.clone(), held, &room).expect("kept");
                assert_eq!(kept.stored_bits(), made.stored_bits());
                all.push((made, kept));
            }
        }
        let format = Format::Custom { bits: BitWidth::B8, name: "bytes".into() };
        let decode: Decode = |bytes, values| {
            values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = f32::from(byte));
        };
        let made = CustomWeight::encoded(&name, format.clone(), [2, 3], vec![1, 2, 3, 4, 5, 6], decode);
        let made: QuantizedWeight = made.expect("a matrix").into();
        let room = Room { spill: Some(Arc::clone(&spill)), packed: 0, ..Room::default() };
        all.push((made.clone(), Kept::new(made, 0, &room).expect("kept")));
        // Values without bytes have nowhere to go.
        let made: QuantizedWeight = CustomWeight::new(&name, format, values, 9).expect("finite").into();
        all.push((made.clone(), Kept::new(made, 0, &room).expect("kept")));
        assert_eq!(all.iter().filter(|(_, kept)| matches!(kept, Kept::Here(_))).count(), 2);
        assert!(spill.size() > 0);
        for (made, kept) in &all {
            assert_eq!(*kept.weight(&name).expect("reads"), *made);
        }
    }
}
