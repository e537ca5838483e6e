//! Checkpoint folders with integer codes in the layouts of engines.

mod audit;
mod config;
mod layout;
mod ties;
mod words;

use std::{
    borrow::{Borrow, Cow},
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gamma_core::{ModuleName, Plan};
use gamma_quant::{IntWeight, QuantizedWeight};
use safetensors::{Dtype, View, serialize_to_file, tensor::TensorInfo};
use serde_json::{Map, Value, json};

pub use layout::IntegerLayout;
pub(crate) use ties::JOINED;

use crate::{
    ExportError, WrittenFile,
    dequantized::{check_matrix, companions},
    experts::check_dense,
    export::{check_apart, check_replaced, check_weights, integer_codes},
    float::encode,
    source::{INDEX, Shard, Source, is_file_name},
    stage::Staging,
    unserved::{Unserved, check_served},
};
use layout::Part;

/// A checkpoint folder whose planned modules are stored as integer codes, in the layout of an engine.
///
/// All other tensors keep their names, types and bytes. `config.json` gains what describes the codes;
/// its other settings stay. Scales are 16-bit floats, as they were fitted: an engine that runs in
/// `bfloat16` rounds them.
#[derive(Clone, Debug)]
pub struct IntegerExport<'a> {
    layout: IntegerLayout,
    source: PathBuf,
    plan: &'a Plan,
    replaced: BTreeMap<String, Vec<f32>>,
    files: Vec<(String, Vec<u8>)>,
    untied: bool,
    overwrite: bool,
}

impl<'a> IntegerExport<'a> {
    /// The checkpoint in the folder `source`, with the modules of `plan` in `layout`.
    #[must_use]
    pub fn new(layout: IntegerLayout, source: impl Into<PathBuf>, plan: &'a Plan) -> Self {
        Self {
            layout,
            source: source.into(),
            plan,
            replaced: BTreeMap::new(),
            files: Vec::new(),
            untied: false,
            overwrite: false,
        }
    }

    /// Gives other values to a tensor that the plan leaves as it is, such as a norm into which scales
    /// were folded. It keeps its type.
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

    /// Allows different formats where vLLM joins modules: q, k and v, and gate and up. By default these
    /// are refused for the layouts that vLLM reads: it takes the first one's format for all of them,
    /// and not always with an error. `transformers` reads every module by itself.
    #[must_use]
    pub fn untied(mut self, untied: bool) -> Self {
        self.untied = untied;
        self
    }

    /// Whether a folder that is not empty is replaced as a whole. One that holds other folders
    /// never is.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Bytes of all tensors, before anything is quantized: the planned modules as codes, everything
    /// else as the checkpoint has it. Headers come on top, one per file.
    ///
    /// # Errors
    /// [`ExportError::Unserved`] names all modules whose format the layout does not hold,
    /// [`ExportError::Untied`] modules that an engine joins; other errors name what the checkpoint
    /// lacks.
    pub fn tensor_bytes(&self) -> Result<u64, ExportError> {
        let source = self.check()?;
        let planned: BTreeMap<String, _> =
            self.plan.choices().iter().map(|choice| (choice.name.weight(), choice)).collect();
        let mut bytes = 0;
        for shard in &source.shards {
            for (name, info) in shard.tensors() {
                bytes += match planned.get(&name) {
                    Some(choice) => self.layout.bytes(&choice.format, choice.shape).unwrap_or(0),
                    None => shard.bytes(info).len() as u64,
                };
            }
        }
        Ok(bytes)
    }

    /// Checks plan and checkpoint against each other and the layout.
    fn check(&self) -> Result<Source, ExportError> {
        check_dense(self.layout.target(), self.plan)?;
        let choices = self.plan.choices();
        let embedding =
            |name: &ModuleName| name.role() == "embed_tokens" && self.layout != IntegerLayout::Mlx;
        let bad = choices
            .iter()
            .filter(|choice| !self.layout.fits(&choice.format, choice.shape) || embedding(&choice.name));
        let unserved = bad.map(|choice| Unserved {
            module: choice.name.clone(),
            format: choice.format.clone(),
            shape: choice.shape,
        });
        check_served(self.layout.target(), self.layout.served(), unserved.collect())?;
        if !self.untied && self.layout != IntegerLayout::Mlx {
            ties::check(self.plan)?;
        }
        let source = Source::open(&self.source)?;
        for choice in choices {
            check_matrix(&source, &choice.name.weight(), choice.shape)?;
        }
        check_replaced(&source, &self.replaced)?;
        Ok(source)
    }

    /// Writes the folder `target` and lists its files by name. It appears complete or not at all, after
    /// it was read again: sizes, types and bytes are those that were meant, and the codes decode to the
    /// weights exactly (zero points of MLX, which become 16-bit biases, to within their rounding).
    ///
    /// `weights` hold one value (or reference, or `Arc`) for every module of the plan, and no other.
    ///
    /// # Errors
    /// [`ExportError`] says what does not fit or could not be written. Nothing stays behind.
    pub fn write<W: Borrow<QuantizedWeight>>(
        &self,
        target: &Path,
        weights: &BTreeMap<ModuleName, W>,
    ) -> Result<Vec<WrittenFile>, ExportError> {
        if let Some((name, _)) = self.files.iter().find(|(name, _)| !is_file_name(name)) {
            return Err(ExportError::FileName { name: name.clone() });
        }
        check_apart(target, &self.source)?;
        let source = self.check()?;
        let weights = check_weights(self.plan, weights)?;
        let integers = integer_codes(&weights)?;
        let config = self.config(&source)?;
        let companions = companions(&self.source)?;

        let staging = Staging::for_target(target, self.overwrite)?;
        staging.write("config.json", config.as_bytes())?;
        if self.layout == IntegerLayout::Gptq {
            let text = config::quantize_config(self.plan, &self.other_linears(&source));
            staging.write("quantize_config.json", text.as_bytes())?;
        }
        for name in &companions {
            staging.copy(name, &self.source.join(name))?;
        }
        for (name, content) in &self.files {
            staging.write(name, content)?;
        }
        self.write_shards(&staging, &source, &integers, &weights)?;
        let files = staging.files()?;
        staging.publish()?;
        Ok(files.into_iter().map(|(name, bytes)| WrittenFile { name, bytes }).collect())
    }

    fn write_shards(
        &self,
        staging: &Staging,
        source: &Source,
        integers: &BTreeMap<&ModuleName, &IntWeight>,
        weights: &BTreeMap<&ModuleName, &QuantizedWeight>,
    ) -> Result<(), ExportError> {
        let planned: BTreeMap<String, (&ModuleName, &IntWeight)> =
            integers.iter().map(|(&name, &weight)| (name.weight(), (name, weight))).collect();
        let (mut weight_map, mut total) = (BTreeMap::new(), 0);
        for shard in &source.shards {
            let mut tensors: BTreeMap<String, Tensor<'_>> = BTreeMap::new();
            for (name, info) in shard.tensors() {
                match (planned.get(&name), self.replaced.get(&name)) {
                    (Some(&(module, weight)), _) => {
                        for part in self.layout.parts(module, &weight.format(), weight.shape()) {
                            tensors.insert(part.name.clone(), Tensor::Part(part, weight));
                        }
                    }
                    (None, Some(values)) => drop(tensors.insert(name, Tensor::Replaced(info, values))),
                    (None, None) => drop(tensors.insert(name, Tensor::Copied(info, shard.bytes(info)))),
                }
            }
            for (name, tensor) in &tensors {
                weight_map.insert(name.clone(), shard.name().to_owned());
                total += tensor.data_len() as u64;
            }
            let own = shard.tensors();
            let modules: Vec<_> = weights
                .iter()
                .filter(|(name, _)| own.contains_key(&name.weight()))
                .map(|(&name, &weight)| (name, weight))
                .collect();
            let mut metadata = shard.metadata();
            let framework = if self.layout == IntegerLayout::Mlx { "mlx" } else { "pt" };
            metadata.insert("format".to_owned(), framework.to_owned());
            staging
                .write_safetensors(shard.name(), |path| serialize_to_file(&tensors, Some(metadata), path))?;
            let written = Shard::open(staging.path(shard.name()))?;
            if let Some(what) = audit::difference(self.layout, &written, &tensors, &modules) {
                return Err(ExportError::Audit { path: staging.target().join(shard.name()), what });
            }
        }
        if source.index.is_some() {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            staging.write(INDEX, format!("{index:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// `config.json` with what describes the codes.
    fn config(&self, source: &Source) -> Result<String, ExportError> {
        let path = self.source.join("config.json");
        let text = fs::read_to_string(&path)
            .map_err(|error| ExportError::Read { path: path.clone(), source: error })?;
        let json_error = |source| ExportError::Json { path: path.clone(), source };
        let mut config: Map<String, Value> = serde_json::from_str(&text).map_err(json_error)?;
        config::describe(self.layout, &mut config, self.plan, &self.other_linears(source));
        Ok(format!("{:#}\n", Value::Object(config)))
    }

    /// Linear modules that stay as they are: all matrices but the embedding, and a head that a tied
    /// checkpoint does not hold although the model has it.
    fn other_linears(&self, source: &Source) -> BTreeSet<String> {
        let is_planned = |module: &str| self.plan.choice(&ModuleName::new(module)).is_some();
        let mut others: BTreeSet<String> = BTreeSet::new();
        for (name, info) in source.shards.iter().flat_map(crate::source::Shard::tensors) {
            if let (Some(module), 2) = (name.strip_suffix(".weight"), info.shape.len())
                && !module.ends_with("embed_tokens")
            {
                others.insert(module.to_owned());
            }
        }
        others.insert("lm_head".to_owned());
        others.retain(|module| !is_planned(module));
        others
    }
}

/// A tensor of the new files, made when the writer asks for its bytes.
enum Tensor<'a> {
    Copied(&'a TensorInfo, &'a [u8]),
    Replaced(&'a TensorInfo, &'a [f32]),
    Part(Part, &'a IntWeight),
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Tensor::Copied(info, _) | Tensor::Replaced(info, _) => info.dtype,
            Tensor::Part(part, _) => part.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Tensor::Copied(info, _) | Tensor::Replaced(info, _) => &info.shape,
            Tensor::Part(part, _) => &part.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Tensor::Copied(_, bytes) => Cow::Borrowed(bytes),
            Tensor::Replaced(info, values) => Cow::Owned(encode(values, info.dtype)),
            Tensor::Part(part, weight) => Cow::Owned((part.make)(weight)),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Tensor::Copied(_, bytes) => bytes.len(),
            Tensor::Replaced(info, values) => values.len() * info.dtype.bitsize() / 8,
            Tensor::Part(part, _) => part.bytes(),
        }
    }
}
