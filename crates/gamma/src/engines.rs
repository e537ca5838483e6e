//! Plans as the files of engines.

use std::{collections::BTreeMap, path::Path};

use gamma_core::{Context, ModuleName, ModuleScores, ScoreTable, ScoresFile};
use gamma_export::{GgufExport, GgufReport, IntegerExport, IntegerLayout, Target, WrittenFile};
use gamma_ggml::GgmlType;

use crate::{Applied, Error, Plan, Run, Scores};

impl Scores {
    /// The same scores with no other options than those that `target` can hold, so that every plan can be
    /// exported there. What engines store as one is a matter of ties: [`Engine`](crate::Engine).
    ///
    /// # Errors
    /// [`Error::NothingServed`] names all modules that are left without an option.
    pub fn served_by(&self, target: Target) -> Result<Self, Error> {
        let contexts = self.contexts.iter().map(|context| {
            Ok(Context { stored_bits: context.stored_bits, table: served(&context.table, target)? })
        });
        let contexts = contexts.collect::<Result<_, Error>>()?;
        let (provenance, remainder) = (self.provenance.clone(), self.remainder.clone());
        let table = served(&self.table, target)?;
        Ok(Self::new(ScoresFile { kind: self.kind, provenance, remainder, table, contexts }))
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
        Ok(self.gguf(plan, kept).outline()?.file_bytes())
    }

    /// Bytes of all tensors of the folder in `layout` that `plan` leads to, before anything is
    /// quantized; `untied` as in [`Applied::integers`].
    ///
    /// # Errors
    /// [`Error::Export`] names all modules that the layout does not hold, or that engines join and the
    /// plan does not tie.
    pub fn integer_bytes(&self, plan: &Plan, layout: IntegerLayout, untied: bool) -> Result<u64, Error> {
        Ok(IntegerExport::new(layout, self.checkpoint.folder(), plan).untied(untied).tensor_bytes()?)
    }

    fn gguf<'a>(&self, plan: &'a Plan, kept: &BTreeMap<ModuleName, GgmlType>) -> GgufExport<'a> {
        let source = plan.provenance();
        let export = GgufExport::new(self.checkpoint.folder(), plan)
            .provenance("version", env!("CARGO_PKG_VERSION"))
            .provenance("quantizer", source.quantizer.as_str())
            .provenance("learner", source.learner.as_str())
            .provenance("weights", source.weights.to_string())
            .provenance("calibration", source.calibration.to_string());
        kept.iter().fold(export, |export, (module, &kind)| export.keep_as(module, kind))
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
        let export = self.run.gguf(&self.plan, kept).overwrite(overwrite);
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
        let export = IntegerExport::new(layout, self.run.checkpoint.folder(), &self.plan)
            .file("plan.json", self.plan.to_json())
            .untied(untied)
            .overwrite(overwrite);
        let folded = self.folded()?.into_iter();
        let export = folded.fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(out.as_ref(), &self.by_reference())?)
    }
}
