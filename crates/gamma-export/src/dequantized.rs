//! The checkpoint folder: decoded weights in the files of the source.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use gamma_quant::QuantizedWeight;
use safetensors::{Dtype, View, serialize_to_file, tensor::TensorInfo};
use serde_json::{Map, Value, json};

use crate::{
    ExportError, config,
    float::{FLOATS, encode, is_exact, is_float},
    source::{INDEX, Source},
    stage::Staging,
};

/// How the weights of quantized modules are stored in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As `f32`, which holds every decoded weight `scale * (code - zero)` exactly: the model that
    /// is loaded is the model that was planned, bit for bit.
    F32,
    /// In the type of the source, so that files keep their size. Decoded weights are rounded to the
    /// nearest value of that type, ties to even: by at most 2^-9 of the weight in `bf16` and 2^-12
    /// in `f16`, whose largest finite value also replaces larger weights. Scale and code
    /// together have up to 19 significant bits, so most weights do change, by far less than
    /// quantization has changed them.
    Source,
}

/// A checkpoint that is ready to be written.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    source: Source,
    precision: Precision,
    config: String,
    companions: Vec<String>,
}

impl Checkpoint {
    /// Reads all of the checkpoint in `folder` but its tensors, and checks that it has a matrix for
    /// each of `weights`.
    pub(crate) fn open(
        folder: &Path,
        precision: Precision,
        weights: &BTreeMap<String, &QuantizedWeight>,
    ) -> Result<Self, ExportError> {
        let source = Source::open(folder)?;
        for (tensor, weight) in weights {
            check_matrix(&source, tensor, weight.shape())?;
        }
        let (config, companions) = (read_config(folder, precision)?, companions(folder)?);
        Ok(Self { source, precision, config, companions })
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Writes configuration, tokenizer, weights and index.
    pub(crate) fn write(
        &self,
        staging: &Staging,
        weights: &BTreeMap<String, &QuantizedWeight>,
        replaced: &BTreeMap<String, Vec<f32>>,
    ) -> Result<(), ExportError> {
        staging.write("config.json", self.config.as_bytes())?;
        for name in &self.companions {
            staging.copy(name, &self.source.folder.join(name))?;
        }
        let mut total_size = 0;
        for shard in &self.source.shards {
            let tensors = shard.tensors();
            let view = |(name, info)| {
                let (weight, values) = (weights.get(name), replaced.get(name));
                Stored::new(info, shard.bytes(info), weight, values, self.precision)
            };
            let views: Vec<_> = tensors.iter().map(|(name, &info)| (name, view((name, info)))).collect();
            total_size += views.iter().map(|(_, view)| view.data_len() as u64).sum::<u64>();
            let mut metadata = shard.metadata();
            // `transformers` refuses files that do not name a framework.
            metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
            staging.write_safetensors(shard.name(), |path| serialize_to_file(views, Some(metadata), path))?;
        }
        match &self.source.index {
            None => Ok(()),
            Some(index) => staging.write(INDEX, with_total_size(index, total_size).as_bytes()),
        }
    }
}

/// Checks that `source` has floats of `shape` under the name `tensor`.
pub(crate) fn check_matrix(source: &Source, tensor: &str, shape: [usize; 2]) -> Result<(), ExportError> {
    let tensor = tensor.to_owned();
    let Some((shard, info)) = source.find(&tensor) else {
        return Err(ExportError::UnknownTensor { path: source.folder.clone(), tensor });
    };
    let path = shard.path.clone();
    if info.shape != shape {
        let (expected, found) = (shape.to_vec(), info.shape.clone());
        return Err(ExportError::TensorShape { path, tensor, expected, found });
    }
    if !is_float(info.dtype) {
        let (expected, found) = (FLOATS, info.dtype.to_string());
        return Err(ExportError::TensorType { path, tensor, expected, found });
    }
    Ok(())
}

/// The index with the number of bytes of all tensors.
fn with_total_size(index: &Map<String, Value>, total_size: u64) -> String {
    let mut index = index.clone();
    let metadata = index.entry("metadata").or_insert_with(|| json!({}));
    match metadata.as_object_mut() {
        Some(metadata) => drop(metadata.insert("total_size".to_owned(), json!(total_size))),
        None => *metadata = json!({ "total_size": total_size }),
    }
    format!("{:#}\n", Value::Object(index))
}

/// The text of `config.json` as it goes with `precision`.
fn read_config(folder: &Path, precision: Precision) -> Result<String, ExportError> {
    let path = folder.join("config.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ExportError::Read { path, source }),
    };
    match precision {
        Precision::Source => Ok(text),
        Precision::F32 => {
            config::with_dtype(&text, "float32").map_err(|source| ExportError::Json { path, source })
        }
    }
}

/// Files that belong to a model besides weights and configuration: tokenizer, generation settings,
/// chat template, licence.
pub(crate) fn companions(folder: &Path) -> Result<Vec<String>, ExportError> {
    const PREFIXES: [&str; 10] = [
        "tokenizer",
        "special_tokens",
        "added_tokens",
        "generation_config",
        "vocab",
        "merges",
        "chat_template",
        "LICENSE",
        "LICENCE",
        "NOTICE",
    ];
    const SUFFIXES: [&str; 2] = [".model", ".tiktoken"];
    let read_error = |source| ExportError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let belongs = PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        // Links are followed: the cache of the hub consists of them.
        if belongs && fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A tensor of the new file. Weights are decoded when the writer asks for their bytes, so that one
/// matrix is in memory at a time.
enum Stored<'a> {
    Copied { info: &'a TensorInfo, bytes: &'a [u8] },
    Replaced { info: &'a TensorInfo, values: &'a [f32], dtype: Dtype },
    Decoded { info: &'a TensorInfo, weight: &'a QuantizedWeight, dtype: Dtype },
}

impl<'a> Stored<'a> {
    fn new(
        info: &'a TensorInfo,
        bytes: &'a [u8],
        weight: Option<&&'a QuantizedWeight>,
        replaced: Option<&'a Vec<f32>>,
        precision: Precision,
    ) -> Self {
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::Source => info.dtype,
        };
        match (weight, replaced) {
            (Some(weight), _) => Self::Decoded { info, weight, dtype },
            (None, Some(values)) => {
                let dtype = if is_exact(values, info.dtype) { info.dtype } else { dtype };
                Self::Replaced { info, values, dtype }
            }
            (None, None) => Self::Copied { info, bytes },
        }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Copied { info, .. } => info.dtype,
            Self::Decoded { dtype, .. } | Self::Replaced { dtype, .. } => *dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        let (Self::Copied { info, .. } | Self::Decoded { info, .. } | Self::Replaced { info, .. }) = self;
        &info.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Copied { bytes, .. } => Cow::Borrowed(bytes),
            Self::Replaced { values, dtype, .. } => Cow::Owned(encode(values, *dtype)),
            Self::Decoded { weight, dtype, .. } => {
                let mut values = vec![0.0; weight.shape()[0] * weight.shape()[1]];
                weight.dequantize_into(&mut values);
                Cow::Owned(encode(&values, *dtype))
            }
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Copied { bytes, .. } => bytes.len(),
            Self::Replaced { values, dtype, .. } => values.len() * dtype.bitsize() / 8,
            Self::Decoded { weight, dtype, .. } => {
                weight.shape()[0] * weight.shape()[1] * dtype.bitsize() / 8
            }
        }
    }
}
