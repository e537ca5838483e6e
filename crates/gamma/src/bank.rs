//! Quantized candidates, made once and kept packed.

use std::{collections::BTreeMap, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use gamma_core::{Format, ModuleName};
use gamma_model::{Block, Decoder};
use gamma_preference::Inputs;
use gamma_quant::{CalibrationNeeds, CalibrationStats, QuantizedWeight, Quantizer, Rescale, WeightView};
use ndarray::{Array1, ArrayView2};

use crate::{
    Error, Event, Progress,
    filed::{Kept, Room},
    observe::{floats, observe},
    stream::Stream,
};

/// How candidates are made.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) quantizer: Arc<dyn Quantizer>,
    /// What is done to the weights beforehand.
    pub(crate) rescale: Option<Arc<dyn Rescale>>,
}

/// Scales that were folded into a block, one list per input; empty where none were.
pub(crate) type Scales = Vec<Option<Vec<f32>>>;

/// All quantized weights made so far, packed.
///
/// Takes the sum of the stored bits of all candidates: about 3.6 bytes per weight for the widths
/// 2, 3, 4, 5, 6 and 8. What is beyond the room that there is lies in a file. A clone shares the codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CandidateBank {
    weights: BTreeMap<(ModuleName, Format), Kept>,
    /// Bytes in memory.
    held: u64,
    /// Of every block whose candidates were made.
    scales: BTreeMap<usize, Arc<Scales>>,
}

impl Method {
    pub(crate) fn needs(&self) -> CalibrationNeeds {
        let rescale = self.rescale.as_ref().map(Rescale::needs);
        self.quantizer.needs().max(rescale.unwrap_or(CalibrationNeeds::Nothing))
    }

    pub(crate) fn describe(&self) -> String {
        match &self.rescale {
            None => self.quantizer.describe(),
            Some(rescale) => format!("{}, then {}", rescale.describe(), self.quantizer.describe()),
        }
    }

    /// Scales for the inputs of `block`, which they are folded into along with the statistics.
    fn prepare(&self, block: &mut Block, stats: &mut [CalibrationStats]) -> Result<Scales, Error> {
        let Some(rescale) = &self.rescale else { return Ok(Vec::new()) };
        let weights: Vec<Vec<f32>> = block.weights().iter().map(|weight| floats(weight.clone())).collect();
        let modules = block.modules().to_vec();
        let mut scales = Vec::new();
        for (input, stats) in block.inputs().into_iter().zip(stats) {
            let views = input.readers.iter().map(|&slot| {
                let view = ArrayView2::from_shape(modules[slot].shape, &weights[slot]);
                WeightView::new(&modules[slot].name, view.expect("the block has this shape"))
            });
            let views = views.collect::<Result<Vec<_>, _>>()?;
            let found = if input.producer.is_some() { rescale.scales(&views, stats)? } else { None };
            let used = found.and_then(|scales| block.rescale(&input, &scales.to_vec()));
            if let Some(used) = &used {
                *stats = stats.rescaled(&Array1::from(used.clone()));
            }
            scales.push(used);
        }
        Ok(scales)
    }

    /// The candidates of one module in `formats`.
    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        formats: &[Format],
    ) -> Result<Vec<QuantizedWeight>, Error> {
        // One after the other: methods work in parallel on rows, and the first one leaves behind what
        // all can share.
        let quantize = |format: &Format| self.quantizer.quantize(weight, stats, format);
        let made = formats.iter().map(quantize).collect::<Result<Vec<_>, _>>()?;
        for (expected, made) in formats.iter().zip(&made) {
            let module = weight.name().clone();
            if made.shape() != weight.shape() {
                return Err(Error::Shape { module, expected: weight.shape(), found: made.shape() });
            }
            if made.format() != *expected {
                let (expected, found) = (expected.clone(), made.format());
                return Err(Error::Quantizer { module, expected, found });
            }
        }
        Ok(made)
    }
}

impl CandidateBank {
    /// The weight of `module` in `format`, if it was made.
    pub(crate) fn get(
        &self,
        module: &ModuleName,
        format: &Format,
    ) -> Result<Option<Arc<QuantizedWeight>>, Error> {
        self.weights.get(&(module.clone(), format.clone())).map(|kept| kept.weight(module)).transpose()
    }

    /// The stored bits of the same.
    pub(crate) fn stored_bits(&self, module: &ModuleName, format: &Format) -> Option<u64> {
        self.weights.get(&(module.clone(), format.clone())).map(Kept::stored_bits)
    }

    /// The scales of every block, as far as they are known.
    pub(crate) fn scales(&self) -> BTreeMap<usize, Arc<Scales>> {
        self.scales.clone()
    }

    /// Makes what is not there yet: every module in the formats that `wanted` gives. Methods that
    /// need calibration see what the full-precision model feeds each module.
    pub(crate) fn fill(
        &mut self,
        decoder: &Decoder,
        method: &Method,
        inputs: &dyn Inputs,
        wanted: &dyn Fn(&ModuleName) -> Vec<Format>,
        room: &Room,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let blocks = decoder.config().blocks;
        let missing = |bank: &Self, module: &ModuleName| -> Vec<Format> {
            wanted(module).into_iter().filter(|format| bank.stored_bits(module, format).is_none()).collect()
        };
        let complete =
            |block| decoder.config().modules(block).iter().all(|m| missing(self, &m.name).is_empty());
        if (0..blocks).all(complete) {
            return Ok(());
        }
        let needs = method.needs();
        let device = decoder.device();
        let mut hidden = match needs {
            CalibrationNeeds::Nothing => Stream::nothing(room, device),
            _ => Stream::new(inputs, room, device)?,
        };
        for number in 0..blocks {
            let mut block = decoder.block(number)?;
            let seen = observe(&block, &mut hidden, needs)?;
            let mut stats: Vec<CalibrationStats> = seen.into_iter().map(|seen| seen.stats).collect();
            let scales = method.prepare(&mut block, &mut stats)?;
            self.scales.insert(number, Arc::new(scales));
            for (input, stats) in block.inputs().into_iter().zip(&stats) {
                for &slot in &input.readers {
                    let module = &block.modules()[slot];
                    let formats = missing(self, &module.name);
                    if formats.is_empty() {
                        continue;
                    }
                    let values = floats(block.weights()[slot].clone());
                    let view =
                        ArrayView2::from_shape(module.shape, &values).expect("the block has this shape");
                    let weight = WeightView::new(&module.name, view)?;
                    let made = method.quantize(&weight, stats, &formats)?;
                    for (format, weight) in formats.into_iter().zip(made) {
                        let kept = Kept::new(weight, self.held, room)?;
                        self.held += kept.held();
                        self.weights.insert((module.name.clone(), format), kept);
                    }
                }
            }
            if progress.event(Event::Quantizing { done: number + 1, total: blocks }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

/// Block `number` of `decoder` as its candidates were made from it: with the same scales folded in.
pub(crate) fn prepared(
    decoder: &Decoder,
    scales: &BTreeMap<usize, Arc<Scales>>,
    number: usize,
) -> Result<Block, Error> {
    let mut block = decoder.block(number)?;
    if let Some(scales) = scales.get(&number) {
        for (input, scales) in block.inputs().into_iter().zip(scales.iter()) {
            if let Some(scales) = scales {
                block.rescale(&input, scales);
            }
        }
    }
    Ok(block)
}

/// Puts quantized weights on the device of `decoder`, decoded.
pub(crate) fn decoded(weight: &QuantizedWeight, decoder: &Decoder) -> Tensor<2> {
    let shape = weight.shape();
    let mut values = vec![0.0; shape[0] * shape[1]];
    weight.dequantize_into(&mut values);
    Tensor::from_data(TensorData::new(values, shape), decoder.device())
}
