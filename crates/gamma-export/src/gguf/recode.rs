//! A GGUF file from another one, with other types.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use gamma_core::{Digest, ModuleName, Plan};
use gamma_ggml::{GgmlType, Gguf, GgufError, Outline, TensorInfo, Value, importance};
use rayon::prelude::*;

use super::{
    audit::{GgufReport, audit, digest},
    blocks::{check_plan, gguf_type},
    names::gguf_tensor_name,
};
use crate::{ExportError, stage::SoleFile};

/// A copy of a GGUF file in which some tensors have other types. All keys are copied, and so are all
/// tensors that keep their type, byte for byte: tokenizers and architectures that this crate knows
/// nothing of stay as they are.
#[derive(Debug)]
pub struct GgufRecode {
    path: PathBuf,
    source: Gguf,
    kinds: BTreeMap<String, GgmlType>,
    importance: BTreeMap<String, Vec<f32>>,
    keys: Vec<(String, Value)>,
    overwrite: bool,
}

impl GgufRecode {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ExportError`] if it is not a whole GGUF file. One that is a part of several is refused.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let source = Gguf::open(path)?;
        if let Some(count) = source.metadata().get("split.count").and_then(Value::as_u64)
            && count > 1
        {
            return Err(ExportError::SplitGguf { path: path.to_owned(), count });
        }
        Ok(Self {
            path: path.to_owned(),
            source,
            kinds: BTreeMap::new(),
            importance: BTreeMap::new(),
            keys: Vec::new(),
            overwrite: false,
        })
    }

    /// The file that is read.
    #[must_use]
    pub fn source(&self) -> &Gguf {
        &self.source
    }

    /// Stores the tensor `name`, as the file calls it, as `kind`.
    ///
    /// # Errors
    /// [`ExportError`] if there is no such tensor, if it cannot be decoded or encoded, or if the blocks
    /// of `kind` do not divide its rows.
    pub fn tensor(mut self, name: &str, kind: GgmlType) -> Result<Self, ExportError> {
        let Some(info) = self.source.tensor(name) else {
            return Err(ExportError::UnknownTensor { path: self.path.clone(), tensor: name.to_owned() });
        };
        let target = TensorInfo { kind, ..info.clone() };
        let invalid = |source| GgufError::Invalid { path: self.path.clone(), source };
        target.bytes().map_err(invalid)?;
        if kind != info.kind {
            if !info.kind.is_decodable() {
                return Err(gamma_ggml::CodecError::NotDecodable { kind: info.kind }.into());
            }
            if !kind.is_encodable() {
                return Err(gamma_ggml::CodecError::NotEncodable { kind }.into());
            }
        }
        self.kinds.insert(name.to_owned(), kind);
        Ok(self)
    }

    /// Stores the modules of `plan`, which has the names of the checkpoint, as it says.
    ///
    /// # Errors
    /// [`ExportError::Unserved`] names all modules whose format is no type of ggml; otherwise as
    /// [`tensor`](Self::tensor).
    pub fn plan(self, plan: &Plan) -> Result<Self, ExportError> {
        check_plan(plan.choices().iter().map(|choice| (&choice.name, &choice.format, choice.shape)))?;
        let mut recode = self;
        for choice in plan.choices() {
            let tensor = choice.name.weight();
            let name = gguf_tensor_name(&tensor);
            let name = name.ok_or_else(|| ExportError::NoGgufName { tensor: tensor.clone() })?;
            if let Some(info) = recode.source.tensor(&name)
                && info.shape() != choice.shape.map(|side| side as u64)
            {
                let (expected, path) = (choice.shape.to_vec(), recode.path.clone());
                let found = info.shape().iter().map(|&side| side as usize).collect();
                return Err(ExportError::TensorShape { path, tensor: name, expected, found });
            }
            if let Some(kind) = gguf_type(&choice.format, choice.shape) {
                recode = recode.tensor(&name, kind)?;
            }
        }
        Ok(recode)
    }

    /// Lets the input channels of a module count by the mean square of their inputs.
    ///
    /// # Errors
    /// [`ExportError`] if the file has no such matrix with as many columns, or the numbers are negative,
    /// not finite, or all zero.
    pub fn second_moment(mut self, module: &ModuleName, moments: &[f32]) -> Result<Self, ExportError> {
        let tensor = module.weight();
        let name = gguf_tensor_name(&tensor);
        let name = name.ok_or_else(|| ExportError::NoGgufName { tensor: tensor.clone() })?;
        let columns = self.source.tensor(&name).and_then(|info| info.dims.first().copied());
        let Some(columns) = columns else {
            return Err(ExportError::UnknownTensor { path: self.path.clone(), tensor: name });
        };
        let usable = importance(moments).filter(|_| moments.len() as u64 == columns);
        let channels = columns as usize;
        let found = usable.ok_or_else(|| ExportError::Moments { module: module.clone(), channels })?;
        self.importance.insert(name, found);
        Ok(self)
    }

    /// Adds the key `gamma.KEY`. Engines ignore it.
    #[must_use]
    pub fn provenance(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.push((format!("gamma.{key}"), value.into()));
        self
    }

    /// Whether an existing file is replaced.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The new file without its tensors' data: its size to the byte, before anything is encoded.
    ///
    /// # Errors
    /// [`ExportError`] if the keys cannot be written.
    pub fn outline(&self) -> Result<Outline, ExportError> {
        let mut metadata = self.source.metadata().clone();
        metadata.retain(|key| !key.starts_with("split."));
        metadata.set("general.quantization_version", super::checkpoint::QUANTIZATION_VERSION);
        metadata.set("general.file_type", super::checkpoint::MIXED_FILE_TYPE);
        for (key, value) in &self.keys {
            metadata.set(key.as_str(), value.clone());
        }
        let kind = |info: &TensorInfo| self.kinds.get(&info.name).copied().unwrap_or(info.kind);
        let tensors = self
            .source
            .tensors()
            .iter()
            .map(|info| TensorInfo { kind: kind(info), ..info.clone() })
            .collect();
        let invalid = |source| GgufError::Invalid { path: self.path.clone(), source };
        Ok(Outline::new(metadata, tensors).map_err(invalid)?)
    }

    /// Writes the file `target`, reads it again and compares: it appears under its name when sizes,
    /// hashes and weights are as they should be.
    ///
    /// # Errors
    /// [`ExportError`]; nothing stays behind.
    pub fn write(&self, target: &Path) -> Result<GgufReport, ExportError> {
        let outline = self.outline()?;
        let file = SoleFile::beside(target, self.overwrite)?;
        let mut digests: Vec<Digest> = Vec::new();
        outline.write(&file.staged(), |tensor| {
            let bytes = self.bytes(tensor)?;
            digests.push(digest(&bytes));
            Ok::<_, ExportError>(bytes)
        })?;
        let report = audit(target, &file.staged(), &outline, &digests, |_| None)?;
        file.publish()?;
        Ok(report)
    }

    fn bytes(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>, ExportError> {
        let unknown = || ExportError::UnknownTensor { path: self.path.clone(), tensor: tensor.name.clone() };
        let old = self.source.tensor(&tensor.name).ok_or_else(unknown)?;
        let raw = self.source.bytes(&tensor.name).ok_or_else(unknown)?;
        if old.kind == tensor.kind {
            return Ok(Cow::Borrowed(raw));
        }
        let columns = tensor.dims.first().map_or(0, |&columns| columns as usize);
        let (from, to) = (old.kind.bytes([1, columns]), tensor.kind.bytes([1, columns]));
        let (from, to) = (from.unwrap_or(0) as usize, to.unwrap_or(0) as usize);
        if columns == 0 || from == 0 || to == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let importance = self.importance.get(&tensor.name).map(Vec::as_slice);
        let mut bytes = vec![0; raw.len() / from * to];
        let recode = |(raw, bytes): (&[u8], &mut [u8])| {
            let mut values = vec![0.0; columns];
            old.kind.decode(raw, &mut values)?;
            tensor.kind.encode(&values, importance, bytes)
        };
        let rows = raw.par_chunks_exact(from).zip(bytes.par_chunks_exact_mut(to));
        let failed = rows.map(recode).find_first(Result::is_err);
        match failed {
            Some(Err(source)) => Err(ExportError::GgufTensor { tensor: tensor.name.clone(), source }),
            _ => Ok(bytes.into()),
        }
    }
}
