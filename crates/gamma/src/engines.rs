//! Plans as the files of engines.

use std::{collections::BTreeMap, path::Path};

use gamma_core::ModuleName;
use gamma_export::{GgufExport, GgufReport, IntegerExport, IntegerLayout, WrittenFile};
use gamma_ggml::GgmlType;

use crate::{Applied, Error, Plan, Run};

impl Run {
    /// Bytes of the GGUF file that `plan` leads to, before anything is quantized. `kept` gives modules
    /// outside of the plan, such as `model.embed_tokens` and `lm_head`, a type; all others keep theirs.
    ///
    /// # Errors
    /// [`Error::Export`] names all modules whose format no type of ggml holds, or what the checkpoint
    /// has that a GGUF file cannot describe.
    pub fn gguf_bytes(&self, plan: &Plan, kept: &BTreeMap<ModuleName, GgmlType>) -> Result<u64, Error> {
        Ok(self.gguf(plan, kept)?.outline()?.file_bytes())
    }

    /// Bytes of all tensors of the folder in `layout` that `plan` leads to, before anything is
    /// quantized.
    ///
    /// # Errors
    /// [`Error::Export`] names all modules that the layout does not hold, or that engines join and the
    /// plan does not tie.
    pub fn integer_bytes(&self, plan: &Plan, layout: IntegerLayout) -> Result<u64, Error> {
        Ok(IntegerExport::new(layout, self.folder()?, plan).tensor_bytes()?)
    }

    fn gguf<'a>(
        &self,
        plan: &'a Plan,
        kept: &BTreeMap<ModuleName, GgmlType>,
    ) -> Result<GgufExport<'a>, Error> {
        let source = plan.provenance();
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
        let export = self.run.gguf(&self.plan, kept)?.overwrite(overwrite);
        let folded = self.folded()?.into_iter();
        let export = folded.fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(path.as_ref(), &self.by_reference())?)
    }

    /// Writes the folder `out` with integer codes in the layout of an engine, and `plan.json`.
    ///
    /// # Errors
    /// As [`gguf`](Self::gguf).
    pub fn integers(
        &self,
        layout: IntegerLayout,
        out: impl AsRef<Path>,
        overwrite: bool,
    ) -> Result<Vec<WrittenFile>, Error> {
        let export = IntegerExport::new(layout, self.run.folder()?, &self.plan)
            .file("plan.json", self.plan.to_json())
            .overwrite(overwrite);
        let folded = self.folded()?.into_iter();
        let export = folded.fold(export, |export, (name, values)| export.replace(name, values));
        Ok(export.write(out.as_ref(), &self.by_reference())?)
    }
}
