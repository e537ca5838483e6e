//! A GGUF file from a Hugging Face folder, a plan and the quantized weights.

use std::{
    borrow::{Borrow, Cow},
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use gamma_core::{Digest, GgufMatrix, GgufRemainder, ModuleName, Plan};
use gamma_ggml::{GgmlType, Metadata, Outline, TensorInfo, Value};
use gamma_quant::QuantizedWeight;
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Map, Value as Json};

use super::{
    architecture::Architecture,
    audit::{GgufReport, audit, digest},
    blocks::{check_plan, encode, gguf_type},
    names::gguf_tensor_name,
    tokenizer::Files,
};
use crate::{
    ExportError,
    account::role,
    experts::check_dense,
    export::{check_replaced, check_weights},
    source::Source,
    stage::SoleFile,
};

/// The version of the block formats, which has not changed since K-quants.
pub(super) const QUANTIZATION_VERSION: u32 = 2;
/// "Mostly `Q4_K`, medium": what files of mixed types say, and nothing depends on.
pub(super) const MIXED_FILE_TYPE: u32 = 15;

/// A GGUF file of a Llama, Mistral, Qwen2 or Qwen3 checkpoint, as a plan says.
///
/// Modules of the plan are written in their blocks: formats of [`gamma_ggml::Ggml`] as they are, and
/// symmetric integers of 4, 5 and 8 bits without loss as `Q4_0`, `Q5_0` and `Q8_0`. All other matrices
/// keep the type of the checkpoint unless [`keep_as`](Self::keep_as) says otherwise; norms and biases
/// become `F32`, as engines want them.
#[derive(Clone, Debug)]
pub struct GgufExport<'a> {
    plan: Option<&'a Plan>,
    source: PathBuf,
    kept: BTreeMap<String, GgmlType>,
    replaced: BTreeMap<String, Vec<f32>>,
    keys: Vec<(String, Value)>,
    tokenizer: bool,
    overwrite: bool,
}

/// Where the bytes of a tensor come from.
enum Origin {
    /// A module of the plan.
    Planned(ModuleName),
    /// A tensor of the checkpoint.
    Kept(String),
    /// Values that are computed.
    Computed(Vec<f32>),
}

struct Item {
    origin: Origin,
    /// Of this many heads, the rows change places.
    heads: Option<usize>,
}

/// Everything but the weights of the plan.
struct Draft {
    source: Source,
    outline: Outline,
    /// Of each tensor of the outline.
    items: Vec<Item>,
}

impl<'a> GgufExport<'a> {
    /// A file of the checkpoint in the folder `source` with the modules of `plan` quantized.
    #[must_use]
    pub fn new(source: impl Into<PathBuf>, plan: &'a Plan) -> Self {
        Self { plan: Some(plan), ..Self::unquantized(source) }
    }

    /// A file of the checkpoint as it is: what `llama-quantize` and [`GgufRecode`](crate::GgufRecode)
    /// start from.
    #[must_use]
    pub fn unquantized(source: impl Into<PathBuf>) -> Self {
        Self {
            plan: None,
            source: source.into(),
            kept: BTreeMap::new(),
            replaced: BTreeMap::new(),
            keys: Vec::new(),
            tokenizer: true,
            overwrite: false,
        }
    }

    /// Stores the matrix of a module that the plan leaves as it is, such as `lm_head` or
    /// `model.embed_tokens`, as `kind`.
    #[must_use]
    pub fn keep_as(mut self, module: &ModuleName, kind: GgmlType) -> Self {
        self.kept.insert(module.weight(), kind);
        self
    }

    /// Gives other values to a tensor that the plan leaves as it is, such as a norm into which scales
    /// were folded; row after row.
    #[must_use]
    pub fn replace(mut self, tensor: impl Into<String>, values: Vec<f32>) -> Self {
        self.replaced.insert(tensor.into(), values);
        self
    }

    /// Adds the key `gamma.KEY`. Engines ignore it.
    #[must_use]
    pub fn provenance(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.push((format!("gamma.{key}"), value.into()));
        self
    }

    /// Leaves the tokenizer out, for programs that bring token numbers of their own: llama.cpp loads
    /// such a file and tokenizes nothing.
    #[must_use]
    pub fn without_tokenizer(mut self) -> Self {
        self.tokenizer = false;
        self
    }

    /// Whether an existing file is replaced.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The file without its tensors' data: its size to the byte, before anything is quantized.
    ///
    /// # Errors
    /// [`ExportError::Unserved`] names all modules whose format no type of ggml holds; other errors
    /// name what the checkpoint lacks.
    pub fn outline(&self) -> Result<Outline, ExportError> {
        self.draft().map(|draft| draft.outline)
    }

    fn choices(&self) -> &'a [gamma_core::Choice] {
        self.plan.map_or(&[], Plan::choices)
    }

    /// What the file holds besides the modules of the plan.
    ///
    /// # Errors
    /// As [`outline`](Self::outline).
    pub fn remainder(&self) -> Result<GgufRemainder, ExportError> {
        let Draft { outline, items, .. } = self.draft()?;
        let mut remainder = GgufRemainder { header: outline.data_offset(), ..GgufRemainder::default() };
        for (tensor, item) in outline.tensors().iter().zip(&items) {
            let invalid = |source| gamma_ggml::GgufError::Invalid { path: self.source.clone(), source };
            let bytes = GgufRemainder::padded(tensor.bytes().map_err(invalid)?);
            match (&item.origin, tensor.dims.as_slice()) {
                (Origin::Planned(_), _) => {}
                (Origin::Kept(name), &[columns, rows]) => {
                    let module = name.strip_suffix(".weight").unwrap_or(name);
                    remainder.matrices.push(GgufMatrix {
                        name: ModuleName::new(module),
                        role: role(name),
                        shape: [rows as usize, columns as usize],
                        kind: self.kept.get(name).map(|kind| kind.name().to_owned()),
                        bytes,
                        options: Vec::new(),
                    });
                }
                _ => remainder.vectors += bytes,
            }
        }
        Ok(remainder)
    }

    fn draft(&self) -> Result<Draft, ExportError> {
        if let Some(plan) = self.plan {
            check_dense("a GGUF file", plan)?;
        }
        let choices = self.choices();
        check_plan(choices.iter().map(|choice| (&choice.name, &choice.format, choice.shape)))?;
        let source = Source::open(&self.source)?;
        check_replaced(&source, &self.replaced)?;
        let config_path = self.source.join("config.json");
        let config = read_object(&config_path)?;
        let architecture = Architecture::read(&config_path, &config)?;
        let mut metadata = architecture.metadata.clone();
        if let Some(name) = self.source.file_name().and_then(|name| name.to_str()) {
            metadata.set("general.name", name);
        }
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        if self.plan.is_some() {
            metadata.set("general.file_type", MIXED_FILE_TYPE);
        }
        if self.tokenizer {
            self.describe_tokenizer(&config, architecture.vocabulary, &mut metadata)?;
        } else {
            metadata.set("tokenizer.ggml.model", "none");
        }
        if let Some(plan) = self.plan {
            metadata.set("gamma.plan.stored_bits", plan.stored_bits());
        }
        for (key, value) in &self.keys {
            metadata.set(key.as_str(), value.clone());
        }
        let (tensors, items) = self.tensors(&source, &architecture)?;
        let invalid = |invalid| gamma_ggml::GgufError::Invalid { path: self.source.clone(), source: invalid };
        let outline = Outline::new(metadata, tensors).map_err(invalid)?;
        Ok(Draft { source, outline, items })
    }

    fn describe_tokenizer(
        &self,
        model: &Map<String, Json>,
        vocabulary: usize,
        metadata: &mut Metadata,
    ) -> Result<(), ExportError> {
        let path = self.source.join("tokenizer.json");
        let tokenizer = read_object(&path)?;
        let config = self.source.join("tokenizer_config.json");
        let config = if config.exists() { read_object(&config)? } else { Map::new() };
        let template = fs::read_to_string(self.source.join("chat_template.jinja")).ok();
        let files = Files {
            path: &path,
            tokenizer: &tokenizer,
            config: &config,
            model,
            chat_template: template.as_deref(),
        };
        files.describe(vocabulary, metadata)
    }

    /// All tensors: those outside of blocks first, then block by block.
    fn tensors(
        &self,
        source: &Source,
        architecture: &Architecture,
    ) -> Result<(Vec<TensorInfo>, Vec<Item>), ExportError> {
        let planned: BTreeMap<String, &gamma_core::Choice> =
            self.choices().iter().map(|choice| (choice.name.weight(), choice)).collect();
        for tensor in planned.keys().chain(self.kept.keys()) {
            if source.find(tensor).is_none() {
                let (path, tensor) = (source.folder.clone(), tensor.clone());
                return Err(ExportError::UnknownTensor { path, tensor });
            }
        }
        if let Some((tensor, _)) = self.kept.iter().find(|(tensor, _)| planned.contains_key(*tensor)) {
            return Err(ExportError::PlannedAndKept { tensor: tensor.clone() });
        }
        if let Some(&kind) = self.kept.values().find(|kind| !kind.is_encodable()) {
            return Err(gamma_ggml::CodecError::NotEncodable { kind }.into());
        }
        let mut entries = Vec::new();
        for shard in &source.shards {
            for (tensor, info) in shard.tensors() {
                // A head that repeats the embedding, and buffers of old checkpoints, which are computed.
                let repeated = architecture.tied && tensor == "lm_head.weight";
                if (repeated && !planned.contains_key(&tensor)) || tensor.ends_with("rotary_emb.inv_freq") {
                    continue;
                }
                let name = gguf_tensor_name(&tensor);
                let name = name.ok_or_else(|| ExportError::NoGgufName { tensor: tensor.clone() })?;
                let choice = planned.get(&tensor);
                let kind = match choice {
                    Some(choice) => {
                        if info.shape != choice.shape {
                            let (expected, found) = (choice.shape.to_vec(), info.shape.clone());
                            let path = shard.path.clone();
                            return Err(ExportError::TensorShape { path, tensor, expected, found });
                        }
                        gguf_type(&choice.format, choice.shape).unwrap_or(GgmlType::F32)
                    }
                    None if info.shape.len() < 2 => GgmlType::F32,
                    None => match self.kept.get(&tensor) {
                        Some(&kind) => kind,
                        None => float_type(info.dtype).ok_or_else(|| ExportError::TensorType {
                            path: shard.path.clone(),
                            tensor: tensor.clone(),
                            expected: crate::float::FLOATS,
                            found: info.dtype.to_string(),
                        })?,
                    },
                };
                let heads = architecture.interleaved_heads(&name);
                let rows = info.shape.first().copied().unwrap_or(0);
                if let Some(heads) = heads
                    && (heads == 0
                        || rows != heads * architecture.head_dim
                        || !rows.is_multiple_of(2 * heads))
                {
                    let expected = vec![heads * architecture.head_dim];
                    let (path, found) = (shard.path.clone(), info.shape.clone());
                    return Err(ExportError::TensorShape { path, tensor, expected, found });
                }
                let origin = match choice {
                    Some(choice) => Origin::Planned(choice.name.clone()),
                    None => Origin::Kept(tensor),
                };
                entries.push((TensorInfo::new(name, &info.shape, kind), Item { origin, heads }));
            }
        }
        if let Some(factors) = &architecture.rope_factors {
            let info = TensorInfo::new("rope_freqs.weight", &[factors.len()], GgmlType::F32);
            entries.push((info, Item { origin: Origin::Computed(factors.clone()), heads: None }));
        }
        let block = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse::<usize>().ok();
        entries.sort_by_key(|(info, _)| (block(&info.name), info.name.clone()));
        Ok(entries.into_iter().unzip())
    }

    /// Writes the file `target`, reads it again and compares: it appears under its name when sizes,
    /// hashes and the weights that it decodes to are as they should be.
    ///
    /// `weights` hold one value (or reference, or `Arc`) for every module of the plan, and no other.
    ///
    /// # Errors
    /// [`ExportError`] says what does not fit or could not be written. Nothing stays behind.
    pub fn write<W: Borrow<QuantizedWeight>>(
        &self,
        target: &Path,
        weights: &BTreeMap<ModuleName, W>,
    ) -> Result<GgufReport, ExportError> {
        let weights = match (self.plan, weights.keys().next()) {
            (Some(plan), _) => check_weights(plan, weights)?,
            (None, None) => BTreeMap::new(),
            (None, Some(module)) => return Err(ExportError::NotInPlan { module: module.clone() }),
        };
        let draft = self.draft()?;
        let file = SoleFile::beside(target, self.overwrite)?;
        let mut items = draft.items.iter();
        let mut digests: Vec<Digest> = Vec::new();
        draft.outline.write(&file.staged(), |tensor| {
            let item = items.next();
            let unknown = || ExportError::NoGgufName { tensor: tensor.name.clone() };
            let bytes = self.bytes(&draft.source, tensor, item.ok_or_else(unknown)?, &weights)?;
            digests.push(digest(&bytes));
            Ok::<_, ExportError>(bytes)
        })?;
        let values = |name: &str| {
            let place = draft.outline.tensors().iter().position(|tensor| tensor.name == name)?;
            let Item { origin: Origin::Planned(module), heads } = &draft.items[place] else { return None };
            let weight = weights.get(module)?;
            let [rows, columns] = weight.shape();
            let mut values = vec![0.0; rows * columns];
            weight.dequantize_into(&mut values);
            Some(match heads {
                Some(heads) => interleave(&values, rows, *heads),
                None => values,
            })
        };
        let report = audit(target, &file.staged(), &draft.outline, &digests, values)?;
        file.publish()?;
        Ok(report)
    }

    /// The bytes of one tensor.
    fn bytes<'b>(
        &self,
        source: &'b Source,
        tensor: &TensorInfo,
        item: &Item,
        weights: &BTreeMap<&ModuleName, &QuantizedWeight>,
    ) -> Result<Cow<'b, [u8]>, ExportError> {
        let bytes = match &item.origin {
            Origin::Computed(values) => encode_values(tensor.kind, values)?.into(),
            Origin::Planned(module) => {
                let weight = weights[module];
                let blocks = encode(weight);
                let lost = || ExportError::NoBytes { module: module.clone(), format: weight.format() };
                blocks.ok_or_else(lost)?.into()
            }
            Origin::Kept(name) => {
                let found = source.find(name);
                let (shard, info) = found.ok_or_else(|| ExportError::UnknownTensor {
                    path: source.folder.clone(),
                    tensor: name.clone(),
                })?;
                let raw = shard.bytes(info);
                match (self.replaced.get(name), float_type(info.dtype)) {
                    (None, Some(kind)) if kind == tensor.kind => Cow::Borrowed(raw),
                    (Some(values), _) => encode_values(tensor.kind, values)?.into(),
                    (None, Some(kind)) => {
                        let mut values = vec![0.0; info.shape.iter().product()];
                        kind.decode(raw, &mut values)?;
                        encode_values(tensor.kind, &values)?.into()
                    }
                    (None, None) => {
                        return Err(ExportError::TensorType {
                            path: shard.path.clone(),
                            tensor: name.clone(),
                            expected: crate::float::FLOATS,
                            found: info.dtype.to_string(),
                        });
                    }
                }
            }
        };
        Ok(match item.heads {
            Some(heads) => {
                interleave(&bytes, tensor.dims.last().map_or(0, |&rows| rows as usize), heads).into()
            }
            None => bytes,
        })
    }
}

/// Rows of `heads` heads, each of whose two halves are interleaved: row `half * j + i` of a head comes
/// to `2 * i + j`. Works on values and on bytes, since a row is whole in both.
fn interleave<T: Copy>(data: &[T], rows: usize, heads: usize) -> Vec<T> {
    let (row, half) = (data.len() / rows, rows / heads / 2);
    let mut out = Vec::with_capacity(data.len());
    for head in 0..heads {
        for i in 0..half {
            for j in 0..2 {
                let from = (head * 2 * half + j * half + i) * row;
                out.extend_from_slice(&data[from..from + row]);
            }
        }
    }
    out
}

fn encode_values(kind: GgmlType, values: &[f32]) -> Result<Vec<u8>, ExportError> {
    const TASK: usize = 1 << 14; // weights, whole blocks of every type
    let bytes = kind.bytes([1, values.len()]).unwrap_or(0);
    let mut out = vec![0; bytes as usize];
    let tasks = out.par_chunks_mut(TASK / kind.block() * kind.block_bytes()).zip(values.par_chunks(TASK));
    tasks.map(|(out, values)| kind.encode(values, None, out)).collect::<Result<(), _>>()?;
    Ok(out)
}

fn float_type(dtype: Dtype) -> Option<GgmlType> {
    match dtype {
        Dtype::F32 => Some(GgmlType::F32),
        Dtype::F16 => Some(GgmlType::F16),
        Dtype::BF16 => Some(GgmlType::Bf16),
        _ => None,
    }
}

/// A JSON file that holds an object.
fn read_object(path: &Path) -> Result<Map<String, Json>, ExportError> {
    let read_error = |source: io::Error| ExportError::Read { path: path.to_owned(), source };
    let text = fs::read(path).map_err(read_error)?;
    serde_json::from_slice(&text).map_err(|source| ExportError::Json { path: path.to_owned(), source })
}
