//! The packed file: the codes themselves, in exactly the bits that a plan counts.
//!
//! For each module `NAME`: `NAME.codes` (U8, the dense bit stream), `NAME.scales` (F16,
//! `[out_features, groups]`) and, in asymmetric formats, `NAME.zeros` (U8, a dense bit stream).
//! The metadata key `gamma` holds JSON with format and shape of every module.

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

use crate::{ExportError, source::Shard, stage::Staging};

pub(crate) const FILE: &str = "packed.safetensors";
const KEY: &str = "gamma";
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
struct Entry {
    format: Format,
    shape: [usize; 2],
}

/// Writes the packed file of `weights`.
pub(crate) fn write(
    staging: &Staging,
    weights: &BTreeMap<&ModuleName, &IntWeight>,
) -> Result<(), ExportError> {
    let mut tensors = Vec::new();
    let mut modules = BTreeMap::new();
    for (&name, weight) in weights {
        let [codes, scales, zeros] = tensor_names(name);
        tensors.push((codes, Part::Bytes(weight.codes(), [weight.codes().len()])));
        tensors.push((scales, Part::Scales(weight.scales(), [weight.shape()[0], weight.groups_per_row()])));
        tensors.extend(weight.zeros().map(|bytes| (zeros, Part::Bytes(bytes, [bytes.len()]))));
        modules.insert(name.clone(), Entry { format: weight.format(), shape: weight.shape() });
    }
    let header = serde_json::to_string(&Header { format: VERSION.to_owned(), modules });
    staging.write_safetensors(FILE, |path| {
        // All in one key: several would stand in a random order.
        let metadata = HashMap::from([(KEY.to_owned(), header?)]);
        serialize_to_file(tensors, Some(metadata), path)
    })
}

/// Reads a packed file: exactly the weights that were written.
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
    match file.tensors().into_keys().find(|tensor| !known.contains(tensor)) {
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

fn tensor_names(name: &ModuleName) -> [String; 3] {
    ["codes", "scales", "zeros"].map(|part| format!("{name}.{part}"))
}

/// One tensor of the packed file.
enum Part<'a> {
    Bytes(&'a [u8], [usize; 1]),
    Scales(&'a [f16], [usize; 2]),
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Bytes(..) => Dtype::U8,
            Self::Scales(..) => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Bytes(_, shape) => shape,
            Self::Scales(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes, _) => Cow::Borrowed(bytes),
            Self::Scales(scales, _) => {
                Cow::Owned(scales.iter().flat_map(|scale| scale.to_le_bytes()).collect())
            }
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Bytes(bytes, _) => bytes.len(),
            Self::Scales(scales, _) => size_of_val(*scales),
        }
    }
}
