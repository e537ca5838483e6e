//! Arrays of values, which take about as much memory as in the file.

use super::{Value, ValueKind, value::write_string};

/// Values of one type. Numbers are held as the bytes of the file, so that a file of arrays cannot ask for
/// many times its size.
///
/// ```
/// use gamma_ggml::{Array, Value, ValueKind};
///
/// let value = Value::integers([7, -2]);
/// let array = value.as_array().expect("an array");
/// assert_eq!((array.kind(), array.len()), (ValueKind::I32, 2));
/// assert_eq!(array.get(1), Some(Value::I32(-2)));
/// assert_eq!(Array::empty(ValueKind::String).get(0), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array(Items);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Items {
    /// Little-endian, side by side.
    Numbers {
        kind: ValueKind,
        bytes: Vec<u8>,
    },
    /// All texts in a row, and where each ends.
    Strings {
        text: Vec<u8>,
        ends: Vec<usize>,
    },
    Arrays(Vec<Array>),
}

impl Array {
    /// No values of type `kind`.
    #[must_use]
    pub fn empty(kind: ValueKind) -> Self {
        match kind {
            ValueKind::String => Self::strings([]),
            ValueKind::Array => Self::arrays([]),
            kind => Self::numbers(kind, Vec::new()),
        }
    }

    /// Texts.
    pub fn strings(items: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for item in items {
            text.extend(item);
            ends.push(text.len());
        }
        Self(Items::Strings { text, ends })
    }

    /// Arrays.
    pub fn arrays(items: impl IntoIterator<Item = Self>) -> Self {
        Self(Items::Arrays(items.into_iter().collect()))
    }

    /// Numbers of a type of fixed size, as whole little-endian values.
    pub(crate) fn numbers(kind: ValueKind, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len() as u64 % kind.least_bytes(), 0, "whole values");
        Self(Items::Numbers { kind, bytes })
    }

    /// Texts that are read one by one.
    pub(crate) fn from_ends(text: Vec<u8>, ends: Vec<usize>) -> Self {
        Self(Items::Strings { text, ends })
    }

    /// The type of the values.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        match &self.0 {
            Items::Numbers { kind, .. } => *kind,
            Items::Strings { .. } => ValueKind::String,
            Items::Arrays(_) => ValueKind::Array,
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Items::Numbers { kind, bytes } => bytes.len() / kind.least_bytes() as usize,
            Items::Strings { ends, .. } => ends.len(),
            Items::Arrays(arrays) => arrays.len(),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `place`.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Value> {
        match &self.0 {
            Items::Numbers { kind, bytes } => {
                let bytes = bytes.chunks_exact(kind.least_bytes() as usize).nth(place)?;
                Some(number(*kind, bytes))
            }
            Items::Strings { .. } => self.text(place).map(|text| Value::String(text.to_vec())),
            Items::Arrays(arrays) => arrays.get(place).cloned().map(Value::Array),
        }
    }

    /// The text at `place`, where the values are texts.
    #[must_use]
    pub fn text(&self, place: usize) -> Option<&[u8]> {
        let Items::Strings { text, ends } = &self.0 else { return None };
        let start = if place == 0 { 0 } else { *ends.get(place - 1)? };
        Some(&text[start..*ends.get(place)?])
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = Value> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Appends type, number of values, and values.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend((self.kind() as u32).to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match &self.0 {
            Items::Numbers { bytes, .. } => out.extend(bytes),
            Items::Strings { .. } => {
                (0..self.len()).filter_map(|place| self.text(place)).for_each(|text| write_string(text, out));
            }
            Items::Arrays(arrays) => arrays.iter().for_each(|array| array.write(out)),
        }
    }
}

/// The number that stands in `bytes`, which are as many as its type takes.
fn number(kind: ValueKind, bytes: &[u8]) -> Value {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    match kind {
        ValueKind::U8 => Value::U8(unsigned as u8),
        ValueKind::I8 => Value::I8(unsigned as i8),
        ValueKind::U16 => Value::U16(unsigned as u16),
        ValueKind::I16 => Value::I16(unsigned as i16),
        ValueKind::U32 => Value::U32(unsigned as u32),
        ValueKind::I32 => Value::I32(unsigned as i32),
        ValueKind::F32 => Value::F32(f32::from_bits(unsigned as u32)),
        ValueKind::Bool => Value::Bool(unsigned != 0),
        ValueKind::I64 => Value::I64(unsigned.cast_signed()),
        ValueKind::F64 => Value::F64(f64::from_bits(unsigned)),
        ValueKind::U64 | ValueKind::String | ValueKind::Array => Value::U64(unsigned),
    }
}
