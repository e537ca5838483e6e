//! The packed file: the codes themselves, in exactly the bits that a plan counts, and on demand
//! everything else that the model holds.
//!
//! For each module `NAME`: `NAME.codes` (U8, the dense bit stream), `NAME.scales` (F16,
//! `[out_features, groups]`) and, in asymmetric formats, `NAME.zeros` (U8, a dense bit stream).
//! The metadata key `gamma` holds JSON with format and shape of every module. All other tensors are
//! those of the source, byte for byte.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use gamma_core::{Format, ModuleName, Symmetry};
use gamma_quant::{IntWeight, QuantizedWeight};
use half::f16;
use safetensors::{Dtype, View, serialize_to_file, tensor::TensorInfo};
use serde::{Deserialize, Serialize};

use crate::{
    ExportError,
    float::encode,
    source::{Shard, Source},
    stage::Staging,
};

pub(crate) const FILE: &str = "packed.safetensors";
pub(crate) const KEY: &str = "gamma";
const VERSION: &str = "gamma.packed/1";

#[derive(Deserialize)]
struct Version {
    format: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    modules: BTreeMap<ModuleName, Entry>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) format: Format,
    pub(crate) shape: [usize; 2],
}

/// The metadata of a packed file of these modules.
pub(crate) fn header(modules: BTreeMap<ModuleName, Entry>) -> serde_json::Result<String> {
    serde_json::to_string(&Header { format: VERSION.to_owned(), modules })
}

/// Writes the packed file of `weights`, with all other tensors of `source`.
pub(crate) fn write(
    staging: &Staging,
    weights: &BTreeMap<&ModuleName, &IntWeight>,
    source: Option<&Source>,
    replaced: &BTreeMap<String, Vec<f32>>,
) -> Result<(), ExportError> {
    let mut tensors = Vec::new();
    let shards = source.map_or(&[][..], |source| &source.shards);
    for shard in shards {
        let others = shard.tensors().into_iter().filter(|(name, _)| !is_planned(name, weights));
        let other = |(name, info): (String, _)| match replaced.get(&name) {
            Some(values) => (name, Part::Replaced(info, values)),
            None => (name, Part::Source(info, shard.bytes(info))),
        };
        tensors.extend(others.map(other));
    }
    let mut modules = BTreeMap::new();
    for (&name, weight) in weights {
        let [codes, scales, zeros] = tensor_names(name);
        tensors.push((codes, Part::Bytes(weight.codes(), [weight.codes().len()])));
        tensors.push((scales, Part::Scales(weight.scales(), [weight.shape()[0], weight.groups_per_row()])));
        tensors.extend(weight.zeros().map(|bytes| (zeros, Part::Bytes(bytes, [bytes.len()]))));
        modules.insert(name.clone(), Entry { format: weight.format(), shape: weight.shape() });
    }
    let header = header(modules);
    staging.write_safetensors(FILE, |path| {
        // All in one key: several would stand in a random order.
        let metadata = HashMap::from([(KEY.to_owned(), header?)]);
        serialize_to_file(tensors, Some(metadata), path)
    })
}

/// Whether the tensor is the weight of a module that the plan replaces.
fn is_planned(tensor: &str, weights: &BTreeMap<&ModuleName, &IntWeight>) -> bool {
    let module = tensor.strip_suffix(".weight").map(ModuleName::new);
    module.is_some_and(|module| weights.contains_key(&module))
}

/// Reads a packed file: exactly the quantized weights that were written. Tensors that the plan left
/// as they were are skipped; any reader of safetensors finds them under their names.
///
/// # Errors
/// [`ExportError`] names the file, and the tensor or module, where the file is truncated, is no
/// packed file, or contradicts itself.
pub fn read_packed(path: &Path) -> Result<BTreeMap<ModuleName, QuantizedWeight>, ExportError> {
    let file = Shard::open(path.to_owned())?;
    let Header { modules, .. } = read_header(&file)?;
    let mut weights = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (name, entry) in modules {
        known.extend(tensor_names(&name));
        let weight = read_module(&file, &name, &entry)?;
        weights.insert(name, weight.into());
    }
    // A part of a module that the header does not name would be lost in silence.
    let part = |tensor: &String| PARTS.iter().any(|part| tensor.ends_with(&format!(".{part}")));
    match file.tensors().into_keys().find(|tensor| part(tensor) && !known.contains(tensor)) {
        None => Ok(weights),
        Some(tensor) => Err(ExportError::StrayTensor { path: path.to_owned(), tensor }),
    }
}

fn read_header(file: &Shard) -> Result<Header, ExportError> {
    let path = || file.path.clone();
    let json_error = |source| ExportError::Json { path: path(), source };
    let Some(text) = file.metadata().remove(KEY) else {
        return Err(ExportError::NotPacked { path: path() });
    };
    let Version { format } = serde_json::from_str(&text).map_err(json_error)?;
    if format != VERSION {
        return Err(ExportError::PackedVersion { path: path(), expected: VERSION, found: format });
    }
    serde_json::from_str(&text).map_err(json_error)
}

fn read_module(file: &Shard, name: &ModuleName, entry: &Entry) -> Result<IntWeight, ExportError> {
    let Format::Int { bits, group, symmetry } = entry.format else {
        return Err(ExportError::PackedFormat {
            path: file.path.clone(),
            module: name.clone(),
            format: entry.format.clone(),
        });
    };
    let [codes, scales, zeros] = tensor_names(name);
    let codes = file.bytes(tensor(file, &codes, Dtype::U8)?).to_vec();
    let info = tensor(file, &scales, Dtype::F16)?;
    let expected = [entry.shape[0], group.groups_in(entry.shape[1])];
    if info.shape != expected {
        return Err(ExportError::TensorShape {
            path: file.path.clone(),
            tensor: scales,
            expected: expected.to_vec(),
            found: info.shape.clone(),
        });
    }
    let scales = file.bytes(info).as_chunks().0.iter().map(|&scale| f16::from_le_bytes(scale)).collect();
    let zeros = match symmetry {
        Symmetry::Symmetric if file.info(&zeros).is_some() => {
            return Err(ExportError::StrayTensor { path: file.path.clone(), tensor: zeros });
        }
        Symmetry::Symmetric => None,
        Symmetry::Asymmetric => Some(file.bytes(tensor(file, &zeros, Dtype::U8)?).to_vec()),
    };
    IntWeight::from_packed(name, entry.shape, (bits, group), codes, scales, zeros)
        .map_err(|source| ExportError::PackedModule { path: file.path.clone(), source })
}

/// The tensor `name`, of type `dtype`.
fn tensor<'a>(file: &'a Shard, name: &str, dtype: Dtype) -> Result<&'a TensorInfo, ExportError> {
    let (path, tensor) = (file.path.clone(), name.to_owned());
    match file.info(name) {
        None => Err(ExportError::UnknownTensor { path, tensor }),
        Some(info) if info.dtype == dtype => Ok(info),
        Some(info) => Err(ExportError::TensorType {
            path,
            tensor,
            expected: if dtype == Dtype::U8 { "U8" } else { "F16" },
            found: info.dtype.to_string(),
        }),
    }
}

const PARTS: [&str; 3] = ["codes", "scales", "zeros"];

pub(crate) fn tensor_names(name: &ModuleName) -> [String; 3] {
    PARTS.map(|part| format!("{name}.{part}"))
}

/// One tensor of the packed file.
enum Part<'a> {
    Bytes(&'a [u8], [usize; 1]),
    Scales(&'a [f16], [usize; 2]),
    Source(&'a TensorInfo, &'a [u8]),
    /// In the type of the source.
    Replaced(&'a TensorInfo, &'a [f32]),
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Bytes(..) => Dtype::U8,
            Self::Scales(..) => Dtype::F16,
            Self::Source(info, _) | Self::Replaced(info, _) => info.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Bytes(_, shape) => shape,
            Self::Scales(_, shape) => shape,
            Self::Source(info, _) | Self::Replaced(info, _) => &info.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes, _) | Self::Source(_, bytes) => Cow::Borrowed(bytes),
            Self::Replaced(info, values) => Cow::Owned(encode(values, info.dtype)),
            Self::Scales(scales, _) => {
                Cow::Owned(scales.iter().flat_map(|scale| scale.to_le_bytes()).collect())
            }
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Bytes(bytes, _) | Self::Source(_, bytes) => bytes.len(),
            Self::Replaced(info, values) => values.len() * info.dtype.bitsize() / 8,
            Self::Scales(scales, _) => size_of_val(*scales),
        }
    }
}
