//! Safetensors files that are read: the checkpoint that is copied, and packed files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{SafeTensors, tensor::Metadata, tensor::TensorInfo};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ExportError;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// One mapped file with a checked header.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    start: usize,
}

impl Shard {
    pub(crate) fn open(path: PathBuf) -> Result<Self, ExportError> {
        let read_error = |source| ExportError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read_error)?;
        #[expect(unsafe_code, reason = "files of the size of a model do not belong into memory twice")]
        // SAFETY: the map is read-only, and sound while nobody truncates the file.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        // Checks that the tensors cover the file exactly, so that a truncated one is noticed here.
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|source| ExportError::Safetensors { path: path.clone(), source })?;
        Ok(Self { path, map, metadata, start: header + 8 })
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or(SINGLE)
    }

    /// All tensors by name.
    pub(crate) fn tensors(&self) -> BTreeMap<String, &TensorInfo> {
        self.metadata.tensors().into_iter().collect()
    }

    pub(crate) fn info(&self, tensor: &str) -> Option<&TensorInfo> {
        self.metadata.info(tensor)
    }

    /// The bytes of a tensor of this file.
    pub(crate) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.map[self.start + start..self.start + end]
    }

    /// The file's own metadata.
    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        self.metadata.metadata().clone().unwrap_or_default()
    }
}

/// A Hugging Face checkpoint folder.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) folder: PathBuf,
    pub(crate) shards: Vec<Shard>,
    /// The content of the index, for a checkpoint that has one.
    pub(crate) index: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Source {
    /// Opens all weight files. `transformers` prefers the single file where there is also an index.
    pub(crate) fn open(folder: &Path) -> Result<Self, ExportError> {
        let folder = folder.to_owned();
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            return Ok(Self { shards: vec![Shard::open(single)?], index: None, folder });
        }
        if !index.exists() {
            return Err(ExportError::NoCheckpoint { path: folder });
        }
        let text = fs::read(&index).map_err(|source| ExportError::Read { path: index.clone(), source })?;
        let json_error = |source| ExportError::Json { path: index.clone(), source };
        let value: Map<_, _> = serde_json::from_slice(&text).map_err(json_error)?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(json_error)?;
        let names: BTreeSet<_> = weight_map.values().collect();
        if let Some(shard) = names.iter().find(|name| !is_file_name(name)) {
            return Err(ExportError::ShardName { path: index, shard: (**shard).clone() });
        }
        let shards =
            names.iter().map(|name| Shard::open(folder.join(name))).collect::<Result<Vec<_>, _>>()?;
        for (tensor, name) in &weight_map {
            if let Some(shard) =
                shards.iter().find(|shard| shard.name() == name && shard.info(tensor).is_none())
            {
                return Err(ExportError::UnknownTensor { path: shard.path.clone(), tensor: tensor.clone() });
            }
        }
        Ok(Self { folder, shards, index: Some(value) })
    }

    /// The tensor and the file that holds it.
    pub(crate) fn find(&self, tensor: &str) -> Option<(&Shard, &TensorInfo)> {
        self.shards.iter().find_map(|shard| Some((shard, shard.info(tensor)?)))
    }
}

/// Whether `name` is one path segment, so that it cannot lead out of its folder.
pub(crate) fn is_file_name(name: &str) -> bool {
    let separators = ['/', '\\', '\0', ':'];
    !matches!(name, "" | "." | "..") && !name.contains(separators)
}
