//! Tensors in the types of a plan, made one by one while candle asks for them.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Seek, SeekFrom},
};

use anyhow::{Context, Result, ensure};
use candle_core::quantized::{GgmlDType, gguf_file::Content};
use gamma_core::Plan;
use gamma_export::gguf_tensor_name;
use gamma_ggml::{GgmlType, Gguf, importance};
use rayon::prelude::*;

/// Reads like a GGUF file whose planned tensors have the types of a plan. No more than one tensor is
/// held at a time: candle seeks to a tensor and reads it once.
pub struct Recoder<'a> {
    source: &'a Gguf,
    importances: BTreeMap<String, Vec<f32>>,
    /// By where the tensor would stand in the file: its name, and the type that it gets.
    tensors: BTreeMap<u64, (String, GgmlType)>,
    /// Where the file would end.
    end: u64,
    current: Cursor<Vec<u8>>,
}

impl<'a> Recoder<'a> {
    /// The tensors of `source` as `plan` says, and `content`, what candle read of the same file, with
    /// their new types and places. `imatrix` tells what each input channel is worth.
    pub fn new(
        source: &'a Gguf,
        mut content: Content,
        plan: &Plan,
        imatrix: Option<&Gguf>,
    ) -> Result<(Self, Content)> {
        let mut planned = BTreeMap::new();
        for choice in plan.choices() {
            let module = &choice.name;
            let name = gguf_tensor_name(&module.weight())
                .filter(|name| source.tensor(name).and_then(|tensor| tensor.matrix()) == Some(choice.shape))
                .with_context(|| format!("the file has no `{module}` of shape {:?}", choice.shape))?;
            let kind = GgmlType::from_format(&choice.format).with_context(|| {
                format!("`{module}` is planned as {}: learn with `--quantizer ggml`", choice.format)
            })?;
            planned.insert(name, kind);
        }
        let (mut tensors, mut end) = (BTreeMap::new(), 0);
        for tensor in source.tensors() {
            let kind = planned.get(&tensor.name).copied().unwrap_or(tensor.kind);
            let info = content.tensor_infos.get_mut(&tensor.name).context("candle reads other tensors")?;
            info.ggml_dtype = dtype(kind)?;
            info.offset = end;
            tensors.insert(content.tensor_data_offset + end, (tensor.name.clone(), kind));
            end += (info.shape.elem_count() / kind.block() * kind.block_bytes()) as u64;
        }
        let mut importances = BTreeMap::new();
        for name in planned.keys() {
            if let Some(moments) = imatrix.map(|imatrix| moments(imatrix, name)).transpose()? {
                let importance = importance(&moments).with_context(|| format!("`{name}` has no inputs"))?;
                importances.insert(name.clone(), importance);
            }
        }
        let end = content.tensor_data_offset + end;
        Ok((Self { source, importances, tensors, end, current: Cursor::default() }, content))
    }

    fn encode(&self, name: &str, kind: GgmlType) -> Result<Vec<u8>> {
        let (tensor, bytes) = (self.source.tensor(name), self.source.bytes(name));
        let (tensor, bytes) = tensor.zip(bytes).context("the file was checked when it was opened")?;
        let Some([rows, columns]) = tensor.matrix().filter(|_| kind != tensor.kind) else {
            return Ok(bytes.to_vec());
        };
        let importance = self.importances.get(name).map(Vec::as_slice);
        let row_bytes = columns / kind.block() * kind.block_bytes();
        let mut blocks = vec![0; rows * row_bytes];
        blocks.par_chunks_exact_mut(row_bytes).zip(bytes.par_chunks_exact(bytes.len() / rows)).try_for_each(
            |(blocks, bytes)| {
                let mut row = vec![0.0; columns];
                tensor.kind.decode(bytes, &mut row)?;
                kind.encode(&row, importance, blocks)
            },
        )?;
        Ok(blocks)
    }
}

/// The mean squares of the inputs of a tensor, from the file that `gamma export --imatrix` writes.
fn moments(imatrix: &Gguf, name: &str) -> Result<Vec<f32>> {
    let read = |part: &str| {
        let name = format!("{name}.{part}");
        let bytes = imatrix.bytes(&name).with_context(|| format!("the importance matrix has no `{name}`"))?;
        let mut values = vec![0.0; bytes.len() / 4];
        GgmlType::F32.decode(bytes, &mut values)?;
        anyhow::Ok(values)
    };
    let (sums, counts) = (read("in_sum2")?, read("counts")?);
    ensure!(counts.len() == 1, "`{name}` has the inputs of {} experts", counts.len());
    Ok(sums.iter().map(|sum| sum / counts[0]).collect())
}

fn dtype(kind: GgmlType) -> Result<GgmlDType> {
    use GgmlType::{Bf16, F16, F32, Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5K, Q6K, Q8_0};
    Ok(match kind {
        F32 => GgmlDType::F32,
        F16 => GgmlDType::F16,
        Bf16 => GgmlDType::BF16,
        Q4_0 => GgmlDType::Q4_0,
        Q5_0 => GgmlDType::Q5_0,
        Q8_0 => GgmlDType::Q8_0,
        Q2K => GgmlDType::Q2K,
        Q3K => GgmlDType::Q3K,
        Q4K => GgmlDType::Q4K,
        Q5K => GgmlDType::Q5K,
        Q6K => GgmlDType::Q6K,
        other => anyhow::bail!("candle is not given {other}"),
    })
}

impl Seek for Recoder<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => at,
            // candle asks for the size before it reads.
            SeekFrom::End(0) => return Ok(self.end),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let (name, kind) = self.tensors.get(&at).ok_or(io::ErrorKind::InvalidInput)?;
        self.current = Cursor::new(self.encode(name, *kind).map_err(io::Error::other)?);
        Ok(at)
    }
}

impl Read for Recoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current.read(buffer)
    }
}
