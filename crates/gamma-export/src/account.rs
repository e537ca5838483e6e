//! What a packed file will hold besides the planned modules, before there is a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use gamma_core::{FixedRole, FixedTensor, Format, ModuleName, Remainder, ScoreTable};
use safetensors::Dtype;

use crate::{
    ExportError,
    packed::{self, Entry},
    source::Source,
};

/// What the checkpoint in `folder` holds besides the modules of `table`, and the most that
/// [`Export::packed_model`](crate::Export::packed_model) adds to its tensors for itself.
///
/// With these numbers [`Budget::Artifact`](gamma_core::Budget::Artifact) is a promise about the
/// size of the file. The shape of the key-value cache is for the caller to fill in.
///
/// # Errors
/// [`ExportError`] if the checkpoint cannot be read or lacks the weight of a module.
pub fn remainder(folder: &Path, table: &ScoreTable) -> Result<Remainder, ExportError> {
    let source = Source::open(folder)?;
    let planned: BTreeMap<String, &ModuleName> =
        table.modules().iter().map(|module| (module.name.weight(), &module.name)).collect();
    if let Some(tensor) = planned.keys().find(|tensor| source.find(tensor).is_none()) {
        return Err(ExportError::UnknownTensor { path: source.folder, tensor: tensor.clone() });
    }
    let mut weight_bits = 0;
    let mut tensors = Vec::new();
    let mut header = Header::default();
    for shard in &source.shards {
        for (name, info) in shard.tensors() {
            if planned.contains_key(&name) {
                weight_bits = weight_bits.max(info.dtype.bitsize() as u32);
            } else {
                let bytes = shard.bytes(info).len() as u64;
                header.add(&name, info.dtype, &info.shape, bytes);
                tensors.push(FixedTensor { role: role(&name), name, bytes });
            }
        }
    }
    let mut modules = BTreeMap::new();
    for module in table.modules() {
        let [codes, scales, zeros] = packed::tensor_names(&module.name);
        let streams = module.options.iter().filter_map(|option| option.format.streams(module.shape));
        let most = streams.reduce(|a, b| gamma_core::Streams {
            codes: a.codes.max(b.codes),
            scales: a.scales.max(b.scales),
            zeros: a.zeros.max(b.zeros),
        });
        let most = most.unwrap_or_default();
        header.add(&codes, Dtype::U8, &[most.codes as usize / 8], most.codes / 8);
        header.add(&scales, Dtype::F16, &[module.shape[0], most.scales as usize / 16], most.scales / 8);
        if most.zeros > 0 {
            header.add(&zeros, Dtype::U8, &[most.zeros as usize / 8], most.zeros / 8);
        }
        let longest = module.options.iter().map(|option| &option.format);
        if let Some(format) = longest.max_by_key(|format| format.to_string().len()) {
            let entry = Entry { format: Format::clone(format), shape: module.shape };
            modules.insert(module.name.clone(), entry);
        }
    }
    let json_error = |source| ExportError::Json { path: folder.to_owned(), source };
    let text = packed::header(modules).map_err(json_error)?;
    // As a JSON string in a JSON object.
    let metadata = serde_json::to_string(&BTreeMap::from([(packed::KEY, text)])).map_err(json_error)?;
    Ok(Remainder { tensors, cache: None, weight_bits, container: header.most(&metadata), gguf: None })
}

/// Weights that no plan changes, in tensors of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplanned {
    /// How many tensors.
    pub tensors: u64,
    /// The numbers in them.
    pub weights: u64,
    /// Their size in the checkpoint.
    pub bytes: u64,
}

/// What the checkpoint in `folder` holds besides the weights of `modules`, by role.
///
/// # Errors
/// [`ExportError`] if the checkpoint cannot be read.
pub fn unplanned<'a>(
    folder: &Path,
    modules: impl IntoIterator<Item = &'a ModuleName>,
) -> Result<BTreeMap<FixedRole, Unplanned>, ExportError> {
    let planned: BTreeSet<String> = modules.into_iter().map(ModuleName::weight).collect();
    let mut found: BTreeMap<FixedRole, Unplanned> = BTreeMap::new();
    for shard in &Source::open(folder)?.shards {
        for (name, info) in shard.tensors().into_iter().filter(|(name, _)| !planned.contains(name)) {
            let own = found.entry(role(&name)).or_default();
            own.tensors += 1;
            own.weights += info.shape.iter().map(|&side| side as u64).product::<u64>();
            own.bytes += shard.bytes(info).len() as u64;
        }
    }
    Ok(found)
}

/// The header of a safetensors file whose tensors are known by their largest sizes.
#[derive(Default)]
struct Header {
    n_tensors: u64,
    /// Characters of all entries, without their offsets.
    text: u64,
    /// Bytes of all tensors.
    bytes: u64,
}

impl Header {
    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: u64) {
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let name = serde_json::Value::from(name);
        let entry =
            format!(r#"{name}:{{"dtype":"{dtype}","shape":[{}],"data_offsets":[,]}},"#, shape.join(","));
        self.n_tensors += 1;
        self.text += entry.len() as u64;
        self.bytes += bytes;
    }

    /// Most bytes that the file has in front of its tensors.
    fn most(&self, metadata: &str) -> u64 {
        let metadata = format!(r#"{{"__metadata__":{metadata},}}"#);
        let offsets = 2 * self.n_tensors * self.bytes.to_string().len() as u64;
        8 + (metadata.len() as u64 + self.text + offsets).next_multiple_of(8)
    }
}

/// What a tensor is there for, from its name.
pub(crate) fn role(name: &str) -> FixedRole {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    match name.rsplit('.').next().unwrap_or(name) {
        "embed_tokens" | "wte" | "tok_embeddings" => FixedRole::Embedding,
        "lm_head" | "output" => FixedRole::Head,
        "bias" => FixedRole::Bias,
        // Whatever an architecture calls an expert's matrices, such as Mixtral's `w1`.
        _ if ModuleName::new(name).expert().is_some() => FixedRole::Module,
        "gate" | "router" => FixedRole::Router,
        last if last.contains("norm") => FixedRole::Norm,
        last if last.ends_with("_proj") => FixedRole::Module,
        _ => FixedRole::Other,
    }
}
