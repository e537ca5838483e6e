//! Everything of a file but its tensors' data: enough to know its size to the byte.

use std::collections::HashSet;

use super::{
    ALIGNMENT, DEFAULT_ALIGNMENT, InvalidGguf, MAGIC, MAX_SIDES, Metadata, VERSION, value::write_string,
};
use crate::GgmlType;

/// A tensor of a file, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its sides, columns first: a weight of shape `[out_features, in_features]` has
    /// `[in_features, out_features]`.
    pub dims: Vec<u64>,
    /// How it is stored.
    pub kind: GgmlType,
}

impl TensorInfo {
    /// A tensor of `shape`, rows first as everywhere outside of this format.
    #[must_use]
    pub fn new(name: impl Into<String>, shape: &[usize], kind: GgmlType) -> Self {
        let dims = shape.iter().rev().map(|&side| side as u64).collect();
        Self { name: name.into(), dims, kind }
    }

    /// `[rows, columns]`, with all sides but the columns as rows; `None` beyond 2^63.
    #[must_use]
    pub fn matrix(&self) -> Option<[usize; 2]> {
        let (&columns, rows) = self.dims.split_first()?;
        let rows = rows.iter().try_fold(1_u64, |rows, &side| rows.checked_mul(side))?;
        rows.checked_mul(columns.max(1)).filter(|&weights| weights < 1 << 63)?;
        Some([rows.try_into().ok()?, columns.try_into().ok()?])
    }

    /// The shape, rows first.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.dims.iter().rev().copied().collect()
    }

    /// Exact bytes without padding.
    ///
    /// # Errors
    /// [`InvalidGguf::Sides`] or [`InvalidGguf::Shape`].
    pub fn bytes(&self) -> Result<u64, InvalidGguf> {
        if !(1..=MAX_SIDES).contains(&self.dims.len()) {
            return Err(InvalidGguf::Sides { tensor: self.name.clone(), found: self.dims.len() as u64 });
        }
        let bytes = self.matrix().and_then(|shape| self.kind.bytes(shape));
        let (tensor, dims) = (&self.name, &self.dims);
        bytes.filter(|&bytes| bytes < 1 << 63).ok_or_else(|| InvalidGguf::Shape {
            tensor: tensor.clone(),
            dims: dims.clone(),
            kind: self.kind,
        })
    }
}

/// A file that is about to be written: its keys, its tensors in order, and so its size.
///
/// ```
/// use gamma_ggml::{GgmlType, Metadata, Outline, TensorInfo};
///
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "llama");
/// let norm = TensorInfo::new("output_norm.weight", &[3], GgmlType::F32);
/// let outline = Outline::new(metadata, vec![norm])?;
/// assert_eq!(outline.data_offset() % 32, 0);
/// assert_eq!(outline.file_bytes(), outline.data_offset() + 32); // 12 bytes, padded
/// # Ok::<(), gamma_ggml::InvalidGguf>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Of each tensor, from the start of the file.
    offsets: Vec<u64>,
    header: Vec<u8>,
    file_bytes: u64,
    alignment: u64,
}

impl Outline {
    /// Lays out a file.
    ///
    /// # Errors
    /// [`InvalidGguf`] if a name stands twice, a shape does not go with its type, or the alignment is not
    /// usable.
    pub fn new(metadata: Metadata, tensors: Vec<TensorInfo>) -> Result<Self, InvalidGguf> {
        let alignment = alignment(&metadata)?;
        let mut seen = HashSet::new();
        if let Some(twice) = tensors.iter().find(|tensor| !seen.insert(&tensor.name)) {
            return Err(InvalidGguf::TensorTwice { tensor: twice.name.clone() });
        }
        let (mut relative, mut end) = (Vec::new(), 0_u64);
        for tensor in &tensors {
            relative.push(end);
            let padded = tensor.bytes()?.checked_next_multiple_of(alignment);
            end = padded
                .and_then(|bytes| end.checked_add(bytes))
                .filter(|&end| end < 1 << 62)
                .ok_or(InvalidGguf::TooLarge)?;
        }
        let mut header = header(&metadata, &tensors, &relative);
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let start = header.len() as u64;
        let offsets = relative.into_iter().map(|offset| start + offset).collect();
        Ok(Self { metadata, tensors, offsets, header, file_bytes: start + end, alignment })
    }

    /// The keys.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Bytes in front of the first tensor, padding included.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.header.len() as u64
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Tensors begin at multiples of this number of bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where each tensor begins in the file.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }
}

fn header(metadata: &Metadata, tensors: &[TensorInfo], offsets: &[u64]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_string(key.as_bytes(), &mut out);
        out.extend((value.kind() as u32).to_le_bytes());
        value.write(&mut out);
    }
    for (tensor, offset) in tensors.iter().zip(offsets) {
        write_string(tensor.name.as_bytes(), &mut out);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        for side in &tensor.dims {
            out.extend(side.to_le_bytes());
        }
        out.extend(tensor.kind.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out
}

/// The alignment that `metadata` asks for.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, InvalidGguf> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let usable = |alignment: &u64| alignment.is_power_of_two() && (8..=1 << 20).contains(alignment);
    // Not the value itself: it may be an array of the size of the file.
    let found = || value.as_u64().map_or_else(|| format!("of type {:?}", value.kind()), |n| n.to_string());
    value.as_u64().filter(usable).ok_or_else(|| InvalidGguf::Alignment { found: found() })
}
