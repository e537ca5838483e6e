//! Files that are read: everything is checked once, then tensors are slices.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::Range,
    path::Path,
};

use memmap2::Mmap;

use super::{
    Array, GgufError, InvalidGguf, MAGIC, MAX_SIDES, Metadata, TensorInfo, Value, ValueKind,
    outline::alignment,
};
use crate::GgmlType;

/// How deep arrays may nest; files in use do not nest them at all.
const MAX_NESTING: usize = 4;

/// A GGUF file whose header is read and checked: names are unique, and every tensor lies within the
/// file, aligned, apart from all others.
#[derive(Debug)]
pub struct Gguf {
    data: Data,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    places: HashMap<String, usize>,
    ranges: Vec<Range<usize>>,
    version: u32,
    data_offset: u64,
    alignment: u64,
}

#[derive(Debug)]
enum Data {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Gguf {
    /// Maps a file into memory and reads its header.
    ///
    /// # Errors
    /// [`GgufError`] names the file.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let read_error = |source| GgufError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        if !file.metadata().map_err(read_error)?.is_file() {
            return Err(GgufError::NotAFile { path: path.to_owned() });
        }
        #[expect(unsafe_code, reason = "files of the size of a model do not belong into memory twice")]
        // SAFETY: the map is read-only, and sound while nobody truncates the file.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        Self::parse(Data::Mapped(map)).map_err(|source| GgufError::Invalid { path: path.to_owned(), source })
    }

    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// [`InvalidGguf`] says what is wrong and where.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidGguf> {
        Self::parse(Data::Owned(bytes))
    }

    fn parse(data: Data) -> Result<Self, InvalidGguf> {
        let mut reader = Reader { bytes: data.bytes(), at: 0 };
        let magic = reader.array("the magic number")?;
        if magic != MAGIC {
            return Err(InvalidGguf::Magic { found: magic });
        }
        let version = reader.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(InvalidGguf::Version { found: version });
        }
        let n_tensors = reader.u64("the number of tensors")?;
        let n_keys = reader.u64("the number of keys")?;
        // A key takes at least its length, its type and one byte; a tensor its length, the number of
        // sides, one side, the type and the offset.
        reader.check_count("the list of keys", n_keys, 13)?;
        let entries = (0..n_keys).map(|_| reader.entry()).collect::<Result<Vec<_>, _>>()?;
        let metadata = Metadata::from_entries(entries)?;
        let alignment = alignment(&metadata)?;
        reader.check_count("the list of tensors", n_tensors, 32)?;
        let listed = (0..n_tensors).map(|_| reader.tensor()).collect::<Result<Vec<_>, _>>()?;
        let len = data.bytes().len() as u64;
        let data_offset = (reader.at as u64).next_multiple_of(alignment);
        let (mut tensors, mut ranges) = (Vec::new(), Vec::new());
        for (tensor, offset) in listed {
            ranges.push(place(&tensor, offset, alignment, data_offset, len)?);
            tensors.push(tensor);
        }
        check_apart(&tensors, &ranges)?;
        let places = tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
        Ok(Self { data, metadata, tensors, places, ranges, version, data_offset, alignment })
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

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|&place| &self.tensors[place])
    }

    /// The bytes of a tensor, without padding.
    #[must_use]
    pub fn bytes(&self, tensor: &str) -> Option<&[u8]> {
        let place = *self.places.get(tensor)?;
        Some(&self.data.bytes()[self.ranges[place].clone()])
    }

    /// The version of the format, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes in front of the first tensor, padding included.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Tensors begin at multiples of this number of bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.data.bytes().len() as u64
    }
}

/// Where the data of a tensor lie.
fn place(
    tensor: &TensorInfo,
    offset: u64,
    alignment: u64,
    data_offset: u64,
    len: u64,
) -> Result<Range<usize>, InvalidGguf> {
    let bytes = tensor.bytes()?;
    if !offset.is_multiple_of(alignment) {
        return Err(InvalidGguf::Offset { tensor: tensor.name.clone(), offset, alignment });
    }
    let start = data_offset.saturating_add(offset);
    let end = start.saturating_add(bytes);
    if end > len {
        return Err(InvalidGguf::Truncated { what: format!("tensor `{}`", tensor.name), end, len });
    }
    Ok(start as usize..end as usize)
}

fn check_apart(tensors: &[TensorInfo], ranges: &[Range<usize>]) -> Result<(), InvalidGguf> {
    let mut names = HashSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(InvalidGguf::TensorTwice { tensor: twice.name.clone() });
    }
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&i| !ranges[i].is_empty()).collect();
    order.sort_unstable_by_key(|&i| ranges[i].start);
    let overlap = order.windows(2).find(|pair| ranges[pair[0]].end > ranges[pair[1]].start);
    match overlap {
        None => Ok(()),
        Some(pair) => {
            let [first, second] = [pair[0], pair[1]].map(|i| tensors[i].name.clone());
            Err(InvalidGguf::Overlap { first, second })
        }
    }
}

/// A place in the header.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], InvalidGguf> {
        let len = self.bytes.len() as u64;
        let end = (self.at as u64).saturating_add(count);
        if end > len {
            return Err(InvalidGguf::Truncated { what: what.to_owned(), end, len });
        }
        let taken = &self.bytes[self.at..end as usize];
        self.at = end as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], InvalidGguf> {
        let taken = self.take(N as u64, what)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, InvalidGguf> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, InvalidGguf> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Refuses a count whose entries could not all be there, before room is made for them.
    fn check_count(&self, what: &str, count: u64, least_bytes: u64) -> Result<(), InvalidGguf> {
        let left = (self.bytes.len() - self.at) as u64;
        match count.checked_mul(least_bytes).filter(|&bytes| bytes <= left) {
            Some(_) => Ok(()),
            None => Err(InvalidGguf::Count { what: what.to_owned(), count, left }),
        }
    }

    fn string(&mut self, what: &str) -> Result<&'a [u8], InvalidGguf> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    fn name(&mut self, what: &str) -> Result<String, InvalidGguf> {
        let at = self.at as u64;
        let name = self.string(what)?;
        str::from_utf8(name).map(str::to_owned).map_err(|_| InvalidGguf::Name { at })
    }

    fn entry(&mut self) -> Result<(String, Value), InvalidGguf> {
        let key = self.name("a key")?;
        let kind = self.kind(&key)?;
        let value = self.value(&key, kind)?;
        Ok((key, value))
    }

    fn kind(&mut self, key: &str) -> Result<ValueKind, InvalidGguf> {
        let kind = self.u32(key)?;
        ValueKind::from_id(kind).ok_or_else(|| InvalidGguf::ValueKind { key: key.to_owned(), kind })
    }

    fn value(&mut self, key: &str, kind: ValueKind) -> Result<Value, InvalidGguf> {
        Ok(match kind {
            ValueKind::U8 => Value::U8(u8::from_le_bytes(self.array(key)?)),
            ValueKind::I8 => Value::I8(i8::from_le_bytes(self.array(key)?)),
            ValueKind::U16 => Value::U16(u16::from_le_bytes(self.array(key)?)),
            ValueKind::I16 => Value::I16(i16::from_le_bytes(self.array(key)?)),
            ValueKind::U32 => Value::U32(u32::from_le_bytes(self.array(key)?)),
            ValueKind::I32 => Value::I32(i32::from_le_bytes(self.array(key)?)),
            ValueKind::F32 => Value::F32(f32::from_le_bytes(self.array(key)?)),
            ValueKind::Bool => match self.array(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [value] => return Err(InvalidGguf::Bool { key: key.to_owned(), value }),
            },
            ValueKind::String => Value::String(self.string(key)?.to_vec()),
            ValueKind::Array => Value::Array(self.items(key, 0)?),
            ValueKind::U64 => Value::U64(u64::from_le_bytes(self.array(key)?)),
            ValueKind::I64 => Value::I64(i64::from_le_bytes(self.array(key)?)),
            ValueKind::F64 => Value::F64(f64::from_le_bytes(self.array(key)?)),
        })
    }

    /// The array of `key` that stands here, at this depth of nesting.
    fn items(&mut self, key: &str, depth: usize) -> Result<Array, InvalidGguf> {
        if depth == MAX_NESTING {
            return Err(InvalidGguf::Nesting { key: key.to_owned(), limit: MAX_NESTING });
        }
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        self.check_count(key, count, kind.least_bytes())?;
        match kind {
            ValueKind::String => {
                // Room for what is there, and not for what is said to be.
                let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(count as usize));
                for _ in 0..count {
                    text.extend(self.string(key)?);
                    ends.push(text.len());
                }
                Ok(Array::from_ends(text, ends))
            }
            ValueKind::Array => {
                let items = (0..count).map(|_| self.items(key, depth + 1));
                Ok(Array::arrays(items.collect::<Result<Vec<_>, _>>()?))
            }
            kind => {
                let bytes = self.take(count * kind.least_bytes(), key)?;
                if let (ValueKind::Bool, Some(&value)) = (kind, bytes.iter().find(|&&byte| byte > 1)) {
                    return Err(InvalidGguf::Bool { key: key.to_owned(), value });
                }
                Ok(Array::numbers(kind, bytes.to_vec()))
            }
        }
    }

    /// A tensor and its offset behind the header.
    fn tensor(&mut self) -> Result<(TensorInfo, u64), InvalidGguf> {
        let name = self.name("the name of a tensor")?;
        let sides = self.u32(&name)?;
        if !(1..=MAX_SIDES as u32).contains(&sides) {
            return Err(InvalidGguf::Sides { tensor: name, found: sides.into() });
        }
        let dims = (0..sides).map(|_| self.u64(&name)).collect::<Result<_, _>>()?;
        let id = self.u32(&name)?;
        let Some(kind) = GgmlType::from_id(id) else {
            return Err(InvalidGguf::TensorType { tensor: name, id });
        };
        let offset = self.u64(&name)?;
        Ok((TensorInfo { name, dims, kind }, offset))
    }
}
