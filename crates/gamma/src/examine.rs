//! Measuring what plans do, without computing again what they share.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use burn::tensor::Tensor;
use gamma_core::{Format, ModuleName, Plan};
use gamma_model::{Block, Decoder, Judge, Prefix, Windows};
use gamma_proxy::Trial;

use crate::{
    Error, Run,
    bank::{CandidateBank, Scales, decoded, prepared},
};

/// Formats of the modules that are quantized; all others are in full precision.
type Formats = BTreeMap<ModuleName, Format>;

/// The divergence of plans from full precision on a text.
///
/// The residual stream of one model, at first the full-precision one, is kept before its blocks; a
/// plan is run from the first block in which it differs. Candidates stay packed.
pub(crate) struct Bench<'a> {
    decoder: &'a Decoder,
    judge: Judge,
    bank: CandidateBank,
    scales: BTreeMap<usize, Arc<Scales>>,
    prefix: Prefix,
    settled: Formats,
}

/// Memory for the residual streams that are kept, 4 GiB.
const KEPT: u64 = 4 << 30;

impl<'a> Bench<'a> {
    /// # Errors
    /// [`Error`] if the full-precision model cannot be run over `windows`.
    pub(crate) fn new(run: &'a Run, windows: impl Into<Windows>) -> Result<Self, Error> {
        let decoder = &*run.decoder;
        let (bank, scales) = {
            let bank = run.bank();
            (bank.clone(), bank.scales())
        };
        let judge = Judge::new(decoder, windows, &mut go_on)?.ok_or(Error::Interrupted)?;
        let load = &mut |number| Ok::<_, Error>(decoder.block(number)?);
        let prefix = judge.prefix(decoder, load, KEPT, &mut go_on)?.ok_or(Error::Interrupted)?;
        Ok(Self { decoder, judge, bank, scales, prefix, settled: Formats::new() })
    }

    /// The first block in which `formats` differ from the model whose residual stream is kept; the
    /// number of blocks if none does.
    fn first_change(&self, formats: &Formats) -> usize {
        let config = self.decoder.config();
        let changed = |block: &usize| {
            config.modules(*block).iter().any(|m| formats.get(&m.name) != self.settled.get(&m.name))
        };
        (0..config.blocks).find(changed).unwrap_or(config.blocks)
    }

    fn run(
        &self,
        first: usize,
        windows: Range<usize>,
        load: &mut dyn FnMut(usize) -> Result<Block, Error>,
    ) -> Result<Vec<f64>, Error> {
        let from = (&self.prefix, first);
        self.judge.divergence(self.decoder, from, windows, load, &mut go_on)?.ok_or(Error::Interrupted)
    }
}

/// Block `number` with the weights of `formats`.
fn block(
    decoder: &Decoder,
    (bank, scales): (&CandidateBank, &BTreeMap<usize, Arc<Scales>>),
    formats: &Formats,
    number: usize,
) -> Result<Block, Error> {
    let mut block = prepared(decoder, scales, number)?;
    for (slot, module) in block.modules().to_vec().iter().enumerate() {
        let Some(format) = formats.get(&module.name) else { continue };
        let weight = bank
            .get(&module.name, format)?
            .ok_or_else(|| Error::Candidate { module: module.name.clone(), format: format.clone() })?;
        block.replace(slot, decoded(&weight, decoder))?;
    }
    Ok(block)
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn formats(plan: &Plan) -> Formats {
    plan.choices().iter().map(|choice| (choice.name.clone(), choice.format.clone())).collect()
}

impl gamma_refine::Examiner for Bench<'_> {
    type Error = Error;

    fn windows(&self) -> usize {
        self.judge.windows().len()
    }

    fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Error> {
        let formats = formats(plan);
        let first = self.first_change(&formats);
        let load = &mut |number| block(self.decoder, (&self.bank, &self.scales), &formats, number);
        self.run(first, windows, load)
    }

    fn settle(&mut self, plan: &Plan) -> Result<(), Error> {
        let formats = formats(plan);
        let first = self.first_change(&formats);
        let load = &mut |number| block(self.decoder, (&self.bank, &self.scales), &formats, number);
        self.judge.advance(self.decoder, &mut self.prefix, first, load, &mut go_on)?;
        self.settled = formats;
        Ok(())
    }
}

impl Trial for Bench<'_> {
    type Error = Error;

    /// One module of the full-precision model changed.
    fn divergence(&mut self, first: usize, slot: usize, weight: Tensor<2>) -> Result<f64, Error> {
        let load = &mut |number| {
            let mut block = prepared(self.decoder, &self.scales, number)?;
            if number == first {
                block.replace(slot, weight.clone())?;
            }
            Ok(block)
        };
        let windows = self.run(first, 0..self.judge.windows().len(), load)?;
        Ok(windows.iter().sum::<f64>() / windows.len() as f64)
    }
}
