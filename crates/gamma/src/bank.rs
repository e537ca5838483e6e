//! Quantized candidates, made once and kept packed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use burn::tensor::{Tensor, TensorData};
use gamma_core::{BitWidth, ModuleName};
use gamma_model::{Block, Decoder};
use gamma_quant::{CalibrationNeeds, CalibrationStats, QuantizedWeight, Quantizer, WeightView};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::{Error, Event, Progress};

/// All quantized weights made so far.
///
/// Takes the sum of the stored bits of all candidates: about 3.6 bytes per weight for the widths
/// 2, 3, 4, 5, 6 and 8.
#[derive(Debug, Default)]
pub(crate) struct CandidateBank {
    weights: BTreeMap<(ModuleName, BitWidth), Arc<QuantizedWeight>>,
}

impl CandidateBank {
    pub(crate) fn get(&self, module: &ModuleName, bits: BitWidth) -> Option<&Arc<QuantizedWeight>> {
        self.weights.get(&(module.clone(), bits))
    }

    /// Makes what is not there yet: every module at the widths that `wanted` gives. Methods that
    /// need calibration see what the full-precision model feeds each module.
    pub(crate) fn fill(
        &mut self,
        decoder: &Decoder,
        quantizer: &dyn Quantizer,
        sequences: &dyn Fn() -> Vec<Tensor<3>>,
        wanted: &dyn Fn(&ModuleName) -> Vec<BitWidth>,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let blocks = decoder.config().blocks;
        let missing = |bank: &Self, module: &ModuleName| -> Vec<BitWidth> {
            wanted(module).into_iter().filter(|&bits| bank.get(module, bits).is_none()).collect()
        };
        let complete =
            |block| decoder.config().modules(block).iter().all(|m| missing(self, &m.name).is_empty());
        if (0..blocks).all(complete) {
            return Ok(());
        }
        let needs = quantizer.needs();
        let mut hidden = if needs == CalibrationNeeds::Nothing { Vec::new() } else { sequences() };
        for number in 0..blocks {
            let block = decoder.block(number)?;
            let stats = observe(&block, &mut hidden, needs);
            for (slot, module) in block.modules().iter().enumerate() {
                let widths = missing(self, &module.name);
                if widths.is_empty() {
                    continue;
                }
                let values = floats(block.weights()[slot].clone());
                let view = ArrayView2::from_shape(module.shape, &values).expect("the block has this shape");
                let weight = WeightView::new(&module.name, view)?;
                let quantize = |&bits: &BitWidth| quantizer.quantize(&weight, &stats[slot], bits);
                let made = widths.par_iter().map(quantize).collect::<Result<Vec<_>, _>>()?;
                for (bits, weight) in widths.into_iter().zip(made) {
                    let (name, expected) = (module.name.clone(), quantizer.format(bits));
                    if weight.shape() != module.shape {
                        let (expected, found) = (module.shape, weight.shape());
                        return Err(Error::Shape { module: name, expected, found });
                    }
                    if weight.format() != expected {
                        return Err(Error::Quantizer {
                            module: name,
                            bits,
                            expected,
                            found: weight.format(),
                        });
                    }
                    self.weights.insert((module.name.clone(), bits), Arc::new(weight));
                }
            }
            if progress.event(Event::Quantizing { done: number + 1, total: blocks }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

/// Runs the block over all calibration batches, in place, and gathers what `needs` asks for about
/// each module's input.
fn observe(block: &Block, hidden: &mut [Tensor<3>], needs: CalibrationNeeds) -> Vec<CalibrationStats> {
    let mut tokens = 0;
    let mut moments: BTreeMap<usize, Tensor<2>> = BTreeMap::new();
    for states in hidden {
        let [batch, length, _] = states.dims();
        tokens += batch * length;
        *states = block.observe(block.weights(), states.clone(), |slot, x| {
            let x = x.clone().flatten::<2>(0, 1); // [batch * tokens, in_features]
            let sum = if needs == CalibrationNeeds::Hessian {
                x.clone().transpose().matmul(x)
            } else {
                x.square().sum_dim(0)
            };
            match moments.entry(slot) {
                Entry::Vacant(entry) => _ = entry.insert(sum),
                Entry::Occupied(mut entry) => {
                    let total = entry.get().clone() + sum;
                    entry.insert(total);
                }
            }
        });
    }
    let stats = |slot: usize| {
        let Some(sum) = moments.get(&slot) else { return CalibrationStats::default() };
        let [rows, columns] = sum.dims();
        let means = floats(sum.clone() / tokens as f64);
        let means = Array2::from_shape_vec([rows, columns], means).expect("read from this shape");
        if rows == columns && needs == CalibrationNeeds::Hessian {
            CalibrationStats::from_hessian(tokens, means)
        } else {
            CalibrationStats::from_second_moment(tokens, means.row(0).to_owned())
        }
    };
    (0..block.modules().len()).map(stats).collect()
}

/// Puts quantized weights on the device of `decoder`, decoded.
pub(crate) fn decoded(weight: &QuantizedWeight, decoder: &Decoder) -> Tensor<2> {
    let shape = weight.shape();
    let mut values = vec![0.0; shape[0] * shape[1]];
    weight.dequantize_into(&mut values);
    Tensor::from_data(TensorData::new(values, shape), decoder.device())
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("converted to f32").to_vec()
}
