//! Plans as the files of engines.

use std::{collections::BTreeMap, path::Path};

use gamma_core::{
    Context, GgufRemainder, ModuleName, ModuleScores, Provenance, ScoreTable, ScoredOption, ScoresFile,
};
use gamma_export::{
    GgufExport, GgufReport, IntegerExport, IntegerLayout, Moments, Target, WrittenFile, gguf_type,
    write_imatrix,
};
use gamma_ggml::GgmlType;
use gamma_quant::{CalibrationNeeds, QuantizedWeight};

use crate::{Applied, Error, Event, Plan, Progress, Run, Scores, observe::observe, stream::Stream};

impl Scores {
    /// The same scores with no other options than those that `target` can hold, so that every plan can be
    /// exported there. What engines store as one is a matter of ties: [`Engine`](crate::Engine).
    ///
    /// # Errors
    /// [`Error::NothingServed`] names all modules that are left without an option.
    pub fn served_by(&self, target: Target) -> Result<Self, Error> {
        let contexts = self
            .contexts
            .iter()
            .map(|context| Ok(Context { table: served(&context.table, target)?, ..context.clone() }));
        let contexts = contexts.collect::<Result<_, Error>>()?;
        let table = served(&self.table, target)?;
        Ok(Self::new(ScoresFile { table, contexts, ..(**self).clone() }))
    }

    /// The same scores for a GGUF file that stores a matrix outside of the plan, such as
    /// `model.embed_tokens` or `lm_head`, as `kind`. Plans say so, budgets for the file count it, and
    /// [`Applied::gguf`] does it; what is measured in the meantime keeps the checkpoint's.
    ///
    /// # Errors
    /// [`Error::Keep`] if there is no such matrix, or it cannot be stored so.
    pub fn keep_as(&self, module: &ModuleName, kind: GgmlType) -> Result<Self, Error> {
        let refused = |reason| Error::Keep { module: module.clone(), kind, reason };
        let mut file: ScoresFile = (**self).clone();
        let gguf = file.remainder.as_mut().and_then(|remainder| remainder.gguf.as_mut());
        let gguf = gguf.ok_or_else(|| refused("the scores do not say what a GGUF file holds"))?;
        let matrix = gguf.matrices.iter_mut().find(|matrix| matrix.name == *module);
        let matrix = matrix.ok_or_else(|| refused("it is no matrix besides those that compete"))?;
        let bytes = kind.bytes(matrix.shape).ok_or_else(|| refused("its blocks do not divide a row"))?;
        if !kind.is_encodable() {
            return Err(refused("gamma does not write this type"));
        }
        (matrix.kind, matrix.bytes) = (Some(kind.name().to_owned()), GgufRemainder::padded(bytes));
        matrix.options.clear();
        Ok(Self::new(file))
    }
}

impl Plan {
    /// How matrices outside of the plan are stored in a GGUF file: see [`Scores::keep_as`].
    #[must_use]
    pub fn kept(&self) -> BTreeMap<ModuleName, GgmlType> {
        let matrices = self.remainder().and_then(|remainder| remainder.gguf.as_ref());
        let matrices = matrices.map_or(&[][..], |gguf| &gguf.matrices);
        let kept = matrices.iter().filter_map(|matrix| {
            let kind = matrix.kind.as_ref()?.parse().ok()?;
            Some((matrix.name.clone(), kind))
        });
        kept.collect()
    }

    /// Bytes of the GGUF file of this plan, exactly; `None` where the scores did not know what it holds.
    #[must_use]
    pub fn gguf_bytes(&self) -> Option<u64> {
        Some(self.remainder()?.gguf.as_ref()?.file_bytes(self))
    }
}

fn served(table: &ScoreTable, target: Target) -> Result<ScoreTable, Error> {
    let options = |module: &ModuleScores| {
        let held = module.options.iter().filter(|option| target.holds(&option.format, module.shape));
        ModuleScores { options: held.cloned().collect(), ..module.clone() }
    };
    let left: Vec<ModuleScores> = table.modules().iter().map(options).collect();
    let bare = left.iter().filter(|module| module.options.is_empty()).map(|module| module.name.clone());
    let bare: Vec<ModuleName> = bare.collect();
    let refused = Error::NothingServed { target, modules: bare.clone() };
    if bare.is_empty() { ScoreTable::new(left).map_err(|_| refused) } else { Err(refused) }
}

impl Run {
    /// Bytes of the GGUF file that `plan` leads to, before anything is quantized. `kept` gives modules
    /// outside of the plan, such as `model.embed_tokens` and `lm_head`, a type; all others keep theirs.
    ///
    /// # Errors
    /// [`Error::Export`] names all modules whose format no type of ggml holds, or what the checkpoint
    /// has that a GGUF file cannot describe.
    pub fn gguf_bytes(&self, plan: &Plan, kept: &BTreeMap<ModuleName, GgmlType>) -> Result<u64, Error> {
        Ok(self.gguf(plan, plan.provenance(), kept)?.outline()?.file_bytes())
    }

    /// Writes the GGUF file `path` of the checkpoint as it is, which `llama-quantize` takes.
    ///
    /// # Errors
    /// As [`Applied::gguf`].
    pub fn unquantized_gguf(&self, path: impl AsRef<Path>, overwrite: bool) -> Result<GgufReport, Error> {
        let none = BTreeMap::<ModuleName, QuantizedWeight>::new();
        let export = GgufExport::unquantized(self.folder()?).overwrite(overwrite);
        Ok(export.write(path.as_ref(), &none)?)
    }

    /// Writes the importance matrix `path`: what `llama-quantize --imatrix` weighs errors with, from the
    /// calibration text.
    ///
    /// # Errors
    /// [`Error`] if there is no text, a block cannot be loaded, or the file cannot be written;
    /// [`Error::Interrupted`] if `progress` broke.
    pub fn imatrix(&self, path: impl AsRef<Path>, progress: &mut dyn Progress) -> Result<(), Error> {
        let sequences = self.sequences(progress)?;
        let length = sequences.first().map_or(0, Vec::len);
        let room = self.room_for_states()?;
        let mut hidden = Stream::new(&self.batches(sequences), &room, self.device())?;
        let mut moments: BTreeMap<ModuleName, (usize, Vec<f32>)> = BTreeMap::new();
        let total = self.config().blocks;
        for number in 0..total {
            let block = self.decoder.block(number)?;
            let stats = observe(&block, &mut hidden, CalibrationNeeds::SecondMoment)?;
            for (input, stats) in block.inputs().into_iter().zip(stats) {
                let Some(moment) = &stats.stats.second_moment else { continue };
                for &slot in &input.readers {
                    moments.insert(block.modules()[slot].name.clone(), (stats.tokens, moment.to_vec()));
                }
            }
            if progress.event(Event::Quantizing { done: number + 1, total }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        let moments = moments.iter().map(|(module, (tokens, second_moment))| {
            (module.clone(), Moments { tokens: *tokens, second_moment })
        });
        Ok(write_imatrix(path.as_ref(), &moments.collect(), "calibration text", length as u32)?)
    }

    /// What the GGUF file of a plan for `table` holds besides its modules; `None` where it would store an
    /// option in another size than it has, or the checkpoint cannot be described.
    pub(crate) fn gguf_remainder(
        &self,
        table: &ScoreTable,
        provenance: &Provenance,
    ) -> Option<GgufRemainder> {
        let exact = |module: &ModuleScores, option: &ScoredOption| {
            let kind = gguf_type(&option.format, module.shape)?;
            (kind.bytes(module.shape)?.checked_mul(8)? == option.stored_bits).then_some(())
        };
        table
            .modules()
            .iter()
            .flat_map(|module| module.options.iter().map(move |o| (module, o)))
            .try_for_each(|(module, option)| exact(module, option))?;
        let plan = gamma_core::Plan::from_picks(table, &vec![0; table.modules().len()], None).ok()?;
        self.gguf(&plan, provenance, &BTreeMap::new()).ok()?.remainder().ok()
    }

    /// Bytes of all tensors of the folder in `layout` that `plan` leads to, before anything is
    /// quantized; `untied` as in [`Applied::integers`].
    ///
    /// # Errors
    /// [`Error::Export`] names all modules that the layout does not hold, or that engines join and the
    /// plan does not tie.
    pub fn integer_bytes(&self, plan: &Plan, layout: IntegerLayout, untied: bool) -> Result<u64, Error> {
        Ok(IntegerExport::new(layout, self.folder()?, plan).untied(untied).tensor_bytes()?)
    }

    fn gguf<'a>(
        &self,
        plan: &'a gamma_core::Plan,
        source: &Provenance,
        kept: &BTreeMap<ModuleName, GgmlType>,
    ) -> Result<GgufExport<'a>, Error> {
        let export = GgufExport::new(self.folder()?, plan)
            .provenance("version", env!("CARGO_PKG_VERSION"))
            .provenance("quantizer", source.quantizer.as_str())
            .provenance("learner", source.learner.as_str())
            .provenance("weights", source.weights.to_string())
            .provenance("calibration", source.calibration.to_string());
        Ok(kept.iter().fold(export, |export, (module, &kind)| export.keep_as(module, kind)))
    }
}

impl Applied<'_> {
    /// Writes the GGUF file `path`, for llama.cpp, candle and mistral.rs; `kept` as in
    /// [`Run::gguf_bytes`]. The file is read again and compared before it appears under its name.
    ///
    /// # Errors
    /// [`Error::Export`] says what could not be written; nothing stays behind.
    pub fn gguf(
        &self,
        path: impl AsRef<Path>,
        kept: &BTreeMap<ModuleName, GgmlType>,
        overwrite: bool,
    ) -> Result<GgufReport, Error> {
        let export = self.run.gguf(&self.plan, self.plan.provenance(), kept)?.overwrite(overwrite);
        let folded = self.folded()?.into_iter();
        let export = folded.fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(path.as_ref(), &self.by_reference())?)
    }

    /// Writes the folder `out` with integer codes in the layout of an engine, and `plan.json`. With
    /// `untied`, modules that vLLM joins may have different formats.
    ///
    /// # Errors
    /// As [`gguf`](Self::gguf).
    pub fn integers(
        &self,
        layout: IntegerLayout,
        out: impl AsRef<Path>,
        untied: bool,
        overwrite: bool,
    ) -> Result<Vec<WrittenFile>, Error> {
        let export = IntegerExport::new(layout, self.run.folder()?, &self.plan)
            .file("plan.json", self.plan.to_json())
            .untied(untied)
            .overwrite(overwrite);
        let folded = self.folded()?.into_iter();
        let export = folded.fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(out.as_ref(), &self.by_reference())?)
    }
}
