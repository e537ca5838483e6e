//! A plan carried out: quantized weights, ready to be saved or judged.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use gamma_core::ModuleName;
use gamma_export::{Export, Precision, WrittenFile};
use gamma_model::{Block, Decoder};
use gamma_quant::QuantizedWeight;

use crate::{
    Error, Plan, Run,
    bank::{Scales, decoded, prepared},
    observe::floats,
};

/// A model quantized as a plan says. Made by [`Run::apply`].
#[derive(Debug)]
pub struct Applied<'a> {
    pub(crate) run: &'a Run,
    pub(crate) plan: Plan,
    pub(crate) weights: BTreeMap<ModuleName, Arc<QuantizedWeight>>,
    /// What was folded into each block before its weights were quantized.
    pub(crate) scales: BTreeMap<usize, Arc<Scales>>,
    pub(crate) other_calibration: bool,
}

impl Applied<'_> {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The quantized weights of the plan's modules.
    #[must_use]
    pub fn weights(&self) -> &BTreeMap<ModuleName, Arc<QuantizedWeight>> {
        &self.weights
    }

    /// Whether the quantizer looked at other data than the plan was learned with: other text, or
    /// another number, length or seed of its sequences.
    #[must_use]
    pub fn other_calibration(&self) -> bool {
        self.other_calibration
    }

    /// Writes the folder `out`: a checkpoint that `transformers` loads, with the decoded weights
    /// in f32; `packed.safetensors` with the codes themselves and all other tensors of the model,
    /// unless the plan uses codes that are not integers; and `plan.json`. Norms hold the scales that
    /// were folded into them; so do excluded modules, which the packed file rounds to their own type. The folder appears
    /// complete or not at all. A folder that is not empty is refused.
    ///
    /// # Errors
    /// [`Error::Export`] says what could not be written.
    pub fn save(&self, out: impl AsRef<Path>) -> Result<Vec<WrittenFile>, Error> {
        self.write(out.as_ref(), Precision::F32, false)
    }

    /// [`save`](Self::save) in another precision, or over an existing folder.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn write(
        &self,
        out: &Path,
        precision: Precision,
        overwrite: bool,
    ) -> Result<Vec<WrittenFile>, Error> {
        let export = Export::new(&self.plan)
            .dequantized(self.run.folder()?, precision)
            .file("plan.json", self.plan.to_json())
            .overwrite(overwrite);
        let integers = self.weights.values().all(|weight| weight.as_int().is_some());
        let export = if integers { export.packed_model(self.run.folder()?) } else { export };
        let export =
            self.folded()?.into_iter().fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(out, &self.by_reference())?)
    }

    /// The weights as exporters take them.
    pub(crate) fn by_reference(&self) -> BTreeMap<ModuleName, &QuantizedWeight> {
        self.weights.iter().map(|(name, weight)| (name.clone(), weight.as_ref())).collect()
    }

    /// Tensors that are not quantized and yet differ from the checkpoint's, because scales were
    /// folded into them.
    pub(crate) fn folded(&self) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let mut tensors = Vec::new();
        for (&number, scales) in &self.scales {
            if scales.iter().all(Option::is_none) {
                continue;
            }
            let block = prepared(&self.run.decoder, &self.scales, number)?;
            tensors.extend(block.norms().map(|(name, norm)| (name, floats(norm.clone()))));
            for (module, weight) in block.modules().iter().zip(block.weights()) {
                if !self.weights.contains_key(&module.name) {
                    tensors.push((module.name.weight(), floats(weight.clone())));
                }
            }
        }
        Ok(tensors)
    }

    /// Block `number` of `decoder` with the plan's weights in place.
    pub(crate) fn block(&self, decoder: &Decoder, number: usize) -> Result<Block, Error> {
        let mut block = prepared(decoder, &self.scales, number)?;
        for (slot, module) in block.modules().to_vec().iter().enumerate() {
            if let Some(weight) = self.weights.get(&module.name) {
                block.replace(slot, decoded(weight, decoder))?;
            }
        }
        Ok(block)
    }
}
