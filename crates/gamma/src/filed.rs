//! Packed weights that are kept: in memory, or in a file.

use std::sync::Arc;

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{IntWeight, QuantizedWeight};
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
    /// Bytes for hidden states that wait.
    pub(crate) hidden: u64,
}

/// A packed weight.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Here(Arc<QuantizedWeight>),
    Filed(Arc<Filed>),
}

/// An integer weight in a file: codes, scales and zero points, one after the other.
#[derive(Debug)]
pub(crate) struct Filed {
    spill: Arc<Spill>,
    place: Place,
    shape: [usize; 2],
    grid: (BitWidth, GroupSize),
    /// Bytes of codes and of scales.
    codes: usize,
    scales: usize,
    symmetric: bool,
    stored_bits: u64,
}

impl Kept {
    /// Keeps `weight` where there is room, `held` bytes being taken already. Weights that are not
    /// integers stay in memory: only their quantizer knows how they decode.
    pub(crate) fn new(weight: QuantizedWeight, held: u64, room: &Room) -> Result<Self, Error> {
        let fits = held + weight.stored_bits() / 8 <= room.packed;
        match (&room.spill, weight.as_int()) {
            (Some(spill), Some(weight)) if !fits => Filed::new(weight, spill).map(Arc::new).map(Self::Filed),
            _ => Ok(Self::Here(Arc::new(weight))),
        }
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
            Self::Filed(filed) => Ok(Arc::new(filed.read(module)?.into())),
        }
    }
}

impl Filed {
    fn new(weight: &IntWeight, spill: &Arc<Spill>) -> Result<Self, Error> {
        let scales: Vec<u8> = weight.scales().iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let zeros = weight.zeros().unwrap_or_default();
        Ok(Self {
            place: spill.write(&[weight.codes(), &scales, zeros])?,
            spill: Arc::clone(spill),
            shape: weight.shape(),
            grid: (weight.bits(), weight.group()),
            codes: weight.codes().len(),
            scales: scales.len(),
            symmetric: weight.zeros().is_none(),
            stored_bits: weight.stored_bits(),
        })
    }

    fn read(&self, module: &ModuleName) -> Result<IntWeight, Error> {
        let mut codes = self.spill.read(self.place)?;
        let zeros = codes.split_off(self.codes + self.scales);
        let scales = codes.split_off(self.codes);
        let scales = scales.as_chunks().0.iter().map(|&scale| f16::from_le_bytes(scale)).collect();
        let zeros = (!self.symmetric).then_some(zeros);
        Ok(IntWeight::from_packed(module, self.shape, self.grid, codes, scales, zeros)?)
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
                let room = Room { spill: Some(Arc::clone(&spill)), packed: 200, hidden: 0 };
                let held = all.iter().map(|(_, kept): &(QuantizedWeight, Kept)| kept.held()).sum();
                let kept = Kept::new(made.clone(), held, &room).expect("kept");
                assert_eq!(kept.stored_bits(), made.stored_bits());
                all.push((made, kept));
            }
        }
        assert_eq!(all.iter().filter(|(_, kept)| matches!(kept, Kept::Here(_))).count(), 1);
        assert!(spill.size() > 0);
        for (made, kept) in &all {
            assert_eq!(*kept.weight(&name).expect("reads"), *made);
        }
    }
}
