//! The tensors of a Hugging Face folder, each read when it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use gamma_core::Digest;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{Config, FloatType, ModelError};

/// An open checkpoint: a configuration and tensors that are read when they are asked for.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Config,
    shards: Vec<Shard>,
    /// Tensor name to shard, in order of names.
    tensors: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// Read, not mapped: the pages of a map would count as this process's memory, all of the model's
    /// in the end.
    file: Mutex<File>,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
}

/// Bytes that are read at once: whole values of every type.
const PIECE: usize = 1 << 20;

impl Shard {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let read_error = |source| ModelError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read_error)?;
        #[expect(
            unsafe_code,
            reason = "mapping is sound while nobody truncates the file; the header is checked against its length"
        )]
        // SAFETY: the map is read-only and ends with this function.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
        Ok(Self { path, file: Mutex::new(file), metadata, start: header + 8 })
    }

    /// Shows the bytes of a tensor, piece after piece.
    fn read(&self, info: &TensorInfo, see: &mut dyn FnMut(&[u8])) -> Result<(), ModelError> {
        // `read_metadata` has checked that offsets ascend and that the last one ends the file.
        let (from, to) = info.data_offsets;
        let mut piece = vec![0; PIECE.min(to - from)];
        for at in (from..to).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(to - at)];
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start((self.start + at) as u64))
                .and_then(|_| file.read_exact(piece))
                .map_err(|source| ModelError::Read { path: self.path.clone(), source })?;
            drop(file); // others may read while this piece is worked on
            see(piece);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and either `model.safetensors` or shards listed in
    /// `model.safetensors.index.json`. No tensor is read yet.
    ///
    /// # Errors
    /// [`ModelError`] names the file that is missing, truncated, malformed or unsupported.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = folder.as_ref().to_owned();
        let config = Config::read(&folder)?;
        let index = folder.join("model.safetensors.index.json");
        let single = folder.join("model.safetensors");
        let names = if single.exists() {
            vec![single]
        } else if index.exists() {
            shard_paths(&folder, &index)?
        } else {
            return Err(ModelError::NoWeights { path: folder });
        };
        let shards = names.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for tensor in shard.metadata.offset_keys() {
                if let Some(first) = tensors.insert(tensor.clone(), number) {
                    let (first, second): (&Shard, _) = (&shards[first], shard.path.clone());
                    return Err(ModelError::DuplicateTensor { tensor, first: first.path.clone(), second });
                }
            }
        }
        Ok(Self { folder, config, shards, tensors })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's sizes and constants.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads one tensor of `shape`, widened to f32, in row-major order.
    ///
    /// # Errors
    /// [`ModelError`] if the tensor is missing, of another shape, not stored as floats, or holds
    /// a NaN or an infinity.
    pub fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let (shard, info) = self.find(tensor)?;
        if info.shape != shape {
            return Err(ModelError::Shape {
                tensor: tensor.to_owned(),
                path: shard.path.clone(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        let mut values: Vec<f32> = Vec::with_capacity(shape.iter().product());
        match info.dtype {
            Dtype::F32 => shard.read(info, &mut |bytes| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)));
            })?,
            Dtype::F16 => shard.read(info, &mut |bytes| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
            })?,
            Dtype::BF16 => shard.read(info, &mut |bytes| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
            })?,
            other => {
                return Err(ModelError::Dtype {
                    tensor: tensor.to_owned(),
                    path: shard.path.clone(),
                    found: format!("{other:?}"),
                });
            }
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(ModelError::NotFinite {
                tensor: tensor.to_owned(),
                path: shard.path.clone(),
                index,
                value: values[index],
            }),
        }
    }

    /// The type in which a tensor is stored.
    pub(crate) fn float_type(&self, tensor: &str) -> Result<FloatType, ModelError> {
        Ok(match self.find(tensor)?.1.dtype {
            Dtype::BF16 => FloatType::Bf16,
            Dtype::F16 => FloatType::F16,
            _ => FloatType::F32,
        })
    }

    /// For every tensor a hash over its type, shape and bytes. It does not depend on how the tensors are
    /// spread over files.
    ///
    /// # Errors
    /// [`ModelError`] if a tensor cannot be reached.
    pub fn digests(&self) -> Result<BTreeMap<String, Digest>, ModelError> {
        let names: Vec<&String> = self.tensors.keys().collect();
        let digest = |name: &&String| {
            let (shard, info) = self.find(name)?;
            let mut hash = Sha256::new();
            hash.update(format!("{:?}\0{:?}\0", info.dtype, info.shape));
            shard.read(info, &mut |bytes| hash.update(bytes))?;
            Ok(((*name).clone(), Digest::sha256(hash.finalize().into())))
        };
        names.par_iter().map(digest).collect()
    }

    fn find(&self, tensor: &str) -> Result<(&Shard, &TensorInfo), ModelError> {
        let missing = || ModelError::MissingTensor { tensor: tensor.to_owned(), path: self.folder.clone() };
        let shard = &self.shards[*self.tensors.get(tensor).ok_or_else(missing)?];
        Ok((shard, shard.metadata.info(tensor).ok_or_else(missing)?))
    }
}

/// The shard files that an index names, each once. A name that leaves the folder is refused.
fn shard_paths(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let text =
        fs::read_to_string(index).map_err(|source| ModelError::Read { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|source| ModelError::Json {
        path: index.to_owned(),
        what: "index of shards",
        source,
    })?;
    let names: BTreeSet<_> = parsed.weight_map.into_values().collect();
    let resolve = |name: String| {
        if Path::new(&name).file_name().is_some_and(|file| file == name.as_str()) {
            return Ok(folder.join(name));
        }
        Err(ModelError::Setting {
            path: index.to_owned(),
            key: "weight_map",
            found: format!("`{name}`"),
            expected: "shards are plain file names beside the index",
        })
    };
    names.into_iter().map(resolve).collect()
}
