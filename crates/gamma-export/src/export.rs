//! What to write, checked as a whole before anything is written.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use gamma_core::{ModuleName, Plan};
use gamma_quant::{IntWeight, QuantizedWeight};

use crate::{
    ExportError, Precision,
    dequantized::Checkpoint,
    float::{FLOATS, is_float},
    packed,
    source::{Source, is_file_name},
    stage::Staging,
};

/// A folder to write: a checkpoint, a packed file, other files, in any combination.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`dequantized`](Self::dequantized) | not written | a checkpoint that `transformers` loads |
/// | [`packed`](Self::packed) | not written | `packed.safetensors` with the codes |
/// | [`packed_model`](Self::packed_model) | not written | the same with all other tensors: the whole model |
/// | [`replace`](Self::replace) | none | other values for a tensor that the plan leaves as it is |
/// | [`file`](Self::file) | none | one more file |
/// | [`overwrite`](Self::overwrite) | `false` | whether the target may hold an earlier export |
#[derive(Clone, Debug)]
pub struct Export<'a> {
    plan: &'a Plan,
    checkpoint: Option<(PathBuf, Precision)>,
    packed: Option<Packed>,
    replaced: BTreeMap<String, Vec<f32>>,
    files: Vec<(String, Vec<u8>)>,
    overwrite: bool,
}

#[derive(Clone, Debug)]
enum Packed {
    Codes,
    Model(PathBuf),
}

/// A file of a finished export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// The file's name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl<'a> Export<'a> {
    /// An export of `plan` that writes nothing yet.
    #[must_use]
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            checkpoint: None,
            packed: None,
            replaced: BTreeMap::new(),
            files: Vec::new(),
            overwrite: false,
        }
    }

    /// Writes a checkpoint with the weight files of the folder `source`: decoded weights for the
    /// modules of the plan, in `precision`, and all other tensors byte for byte. `config.json`
    /// changes in the type of the weights alone; tokenizer, generation settings and licence are
    /// copied.
    #[must_use]
    pub fn dequantized(mut self, source: impl Into<PathBuf>, precision: Precision) -> Self {
        self.checkpoint = Some((source.into(), precision));
        self
    }

    /// Writes `packed.safetensors`, which [`read_packed`](crate::read_packed) reads.
    #[must_use]
    pub fn packed(mut self) -> Self {
        self.packed = Some(Packed::Codes);
        self
    }

    /// Writes `packed.safetensors` with all tensors of the checkpoint in the folder `source` that
    /// the plan leaves as they are: one file with the whole model, of the size that
    /// [`remainder`](crate::remainder) lets a budget predict.
    #[must_use]
    pub fn packed_model(mut self, source: impl Into<PathBuf>) -> Self {
        self.packed = Some(Packed::Model(source.into()));
        self
    }

    /// Gives other values to a tensor that the plan leaves as it is, such as a norm into which
    /// scales were folded; row after row. It keeps its type wherever that is exact.
    #[must_use]
    pub fn replace(mut self, tensor: impl Into<String>, values: Vec<f32>) -> Self {
        self.replaced.insert(tensor.into(), values);
        self
    }

    /// Writes `content` as the file `name` of the folder.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Whether a folder that is not empty is replaced as a whole. One that holds other folders
    /// never is.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Writes the folder `target` and lists its files by name.
    ///
    /// `weights` hold one value (or reference, or `Arc`) for every module of the plan, and no
    /// other. The folder is built beside the target and moved there when it is complete, so that
    /// the target holds its former content or the whole export; missing parents are created.
    ///
    /// # Errors
    /// [`ExportError`] says what does not fit or could not be written. Nothing stays behind. Plan,
    /// weights, source and target are checked before the first byte is written.
    pub fn write<W: Borrow<QuantizedWeight>>(
        &self,
        target: &Path,
        weights: &BTreeMap<ModuleName, W>,
    ) -> Result<Vec<WrittenFile>, ExportError> {
        if self.checkpoint.is_none() && self.packed.is_none() && self.files.is_empty() {
            return Err(ExportError::NothingToWrite);
        }
        if let Some((name, _)) = self.files.iter().find(|(name, _)| !is_file_name(name)) {
            return Err(ExportError::FileName { name: name.clone() });
        }
        let weights = check_weights(self.plan, weights)?;
        let packed = match &self.packed {
            None => None,
            Some(Packed::Codes) => Some((integer_codes(&weights)?, None)),
            Some(Packed::Model(folder)) => {
                check_apart(target, folder)?;
                let source = Source::open(folder)?;
                check_replaced(&source, &self.replaced)?;
                Some((integer_codes(&weights)?, Some(source)))
            }
        };
        let tensors: BTreeMap<_, _> = weights.iter().map(|(name, &weight)| (name.weight(), weight)).collect();
        let checkpoint = match &self.checkpoint {
            None => None,
            Some((folder, precision)) => {
                check_apart(target, folder)?;
                let checkpoint = Checkpoint::open(folder, *precision, &tensors)?;
                check_replaced(checkpoint.source(), &self.replaced)?;
                Some(checkpoint)
            }
        };

        let staging = Staging::for_target(target, self.overwrite)?;
        for (name, content) in &self.files {
            staging.write(name, content)?;
        }
        if let Some((integers, source)) = &packed {
            packed::write(&staging, integers, source.as_ref(), &self.replaced)?;
        }
        if let Some(checkpoint) = &checkpoint {
            checkpoint.write(&staging, &tensors, &self.replaced)?;
        }
        let files = staging.files()?;
        staging.publish()?;
        Ok(files.into_iter().map(|(name, bytes)| WrittenFile { name, bytes }).collect())
    }
}

/// The weights of the plan's modules, all as the plan says.
pub(crate) fn check_weights<'a, W: Borrow<QuantizedWeight>>(
    plan: &'a Plan,
    weights: &'a BTreeMap<ModuleName, W>,
) -> Result<BTreeMap<&'a ModuleName, &'a QuantizedWeight>, ExportError> {
    let mut checked = BTreeMap::new();
    for choice in plan.choices() {
        let module = || choice.name.clone();
        let Some(weight) = weights.get(&choice.name) else {
            return Err(ExportError::MissingWeights { module: module() });
        };
        let weight: &QuantizedWeight = weight.borrow();
        if weight.shape() != choice.shape {
            let (expected, found) = (choice.shape, weight.shape());
            return Err(ExportError::Shape { module: module(), expected, found });
        }
        if weight.format() != choice.format {
            let (expected, found) = (choice.format.clone(), weight.format());
            return Err(ExportError::Format { module: module(), expected, found });
        }
        if weight.stored_bits() != choice.stored_bits {
            let (expected, found) = (choice.stored_bits, weight.stored_bits());
            return Err(ExportError::StoredBits { module: module(), expected, found });
        }
        checked.insert(&choice.name, weight);
    }
    match weights.keys().find(|name| !checked.contains_key(name)) {
        None => Ok(checked),
        Some(name) => Err(ExportError::NotInPlan { module: name.clone() }),
    }
}

/// Whether `source` has floats of the right number for each of `replaced`.
pub(crate) fn check_replaced(
    source: &Source,
    replaced: &BTreeMap<String, Vec<f32>>,
) -> Result<(), ExportError> {
    for (tensor, values) in replaced {
        let (path, tensor) = (source.folder.clone(), tensor.clone());
        let Some((_, info)) = source.find(&tensor) else {
            return Err(ExportError::UnknownTensor { path, tensor });
        };
        if info.shape.iter().product::<usize>() != values.len() {
            let (expected, found) = (info.shape.clone(), vec![values.len()]);
            return Err(ExportError::TensorShape { path, tensor, expected, found });
        }
        if !is_float(info.dtype) {
            let (expected, found) = (FLOATS, info.dtype.to_string());
            return Err(ExportError::TensorType { path, tensor, expected, found });
        }
    }
    Ok(())
}

pub(crate) fn integer_codes<'a>(
    weights: &BTreeMap<&'a ModuleName, &'a QuantizedWeight>,
) -> Result<BTreeMap<&'a ModuleName, &'a IntWeight>, ExportError> {
    let integer = |(&name, weight): (&&'a ModuleName, &&'a QuantizedWeight)| match weight.as_int() {
        Some(weight) => Ok((name, weight)),
        None => Err(ExportError::CustomFormat { module: name.clone(), format: weight.format() }),
    };
    weights.iter().map(integer).collect()
}

/// Refuses a target whose replacement would take the source away while it is read.
pub(crate) fn check_apart(target: &Path, source: &Path) -> Result<(), ExportError> {
    let real_source = fs::canonicalize(source)
        .map_err(|error| ExportError::Read { path: source.to_owned(), source: error })?;
    match fs::canonicalize(target) {
        Ok(real_target) if real_source.starts_with(&real_target) => {
            Err(ExportError::TargetHoldsSource { target: target.to_owned(), path: source.to_owned() })
        }
        _ => Ok(()),
    }
}
