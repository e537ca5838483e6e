//! Files that are written and read, and files that must be refused.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

use std::{borrow::Cow, fs};

use gamma_ggml::{
    Array, GgmlType, Gguf, GgufError, InvalidGguf, Metadata, Outline, TensorInfo, Value, ValueKind,
};

/// A key of every type, and tensors of several.
fn outline() -> Outline {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    for (key, value) in [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-3)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-70_000)),
        ("f32", Value::F32(1e-5)),
        ("bool", Value::Bool(true)),
        ("bytes", Value::String(vec![0xff, 0x00])),
        ("u64", Value::U64(1 << 60)),
        ("i64", Value::I64(-1)),
        ("f64", Value::F64(0.1)),
        ("none", Value::Array(Array::empty(ValueKind::F32))),
        ("tokens", Value::strings(["<s>", "", "é"])),
        (
            "nested",
            Value::Array(Array::arrays([Array::empty(ValueKind::F32), Array::strings([b"a".to_vec()])])),
        ),
    ] {
        metadata.set(key, value);
    }
    let tensors = vec![
        TensorInfo::new("norm", &[5], GgmlType::F32),
        TensorInfo::new("half", &[2, 3], GgmlType::F16),
        TensorInfo::new("experts", &[2, 3, 256], GgmlType::Q4K),
        TensorInfo::new("unread", &[1, 256], GgmlType::Iq2Xs),
    ];
    Outline::new(metadata, tensors).unwrap()
}

fn data(tensor: &TensorInfo) -> Vec<u8> {
    (0..tensor.bytes().unwrap()).map(|i| (i * 7 + tensor.name.len() as u64) as u8).collect()
}

fn file() -> Vec<u8> {
    outline().to_bytes(|tensor| Cow::Owned(data(tensor))).unwrap()
}

#[test]
fn what_is_written_reads_back_and_has_the_size_that_was_promised() {
    let (outline, scratch) = (outline(), tempfile::tempdir().unwrap());
    let path = scratch.path().join("new/model.gguf");
    outline.write(&path, |tensor| Ok::<_, GgufError>(Cow::Owned(data(tensor)))).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), outline.file_bytes());
    assert_eq!(fs::read(&path).unwrap(), file());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    let tokens: Vec<Value> = outline.metadata().get("tokens").unwrap().as_array().unwrap().iter().collect();
    assert_eq!(tokens, ["<s>", "", "é"].map(Value::from));
    for read in [Gguf::open(&path).unwrap(), Gguf::from_bytes(file()).unwrap()] {
        assert_eq!((read.version(), read.alignment()), (3, 32));
        assert_eq!(read.metadata(), outline.metadata());
        assert_eq!(read.tensors(), outline.tensors());
        assert_eq!((read.data_offset(), read.file_bytes()), (outline.data_offset(), outline.file_bytes()));
        for tensor in outline.tensors() {
            assert_eq!(read.bytes(&tensor.name).unwrap(), data(tensor), "{}", tensor.name);
            assert_eq!(read.tensor(&tensor.name), Some(tensor));
        }
        assert_eq!(read.bytes("other"), None);
    }
}

#[test]
fn a_failed_write_keeps_the_former_file_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    fs::write(&path, "former").unwrap();
    let short = |tensor: &TensorInfo| Ok::<_, GgufError>(Cow::Owned(data(tensor)[1..].to_vec()));
    let error = outline().write(&path, short).unwrap_err();
    assert!(matches!(&error, GgufError::TensorData { tensor, expected: 20, found: 19 } if tensor == "norm"));
    assert_eq!(fs::read(&path).unwrap(), b"former");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    let error = outline().write(scratch.path(), short).unwrap_err();
    assert!(matches!(error, GgufError::NotAFile { .. }), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let file = file();
    // The last tensor is followed by padding, which a reader does not miss.
    let needed = outline().offsets()[3] + GgmlType::Iq2Xs.bytes([1, 256]).unwrap();
    for length in 0..needed as usize {
        let error = Gguf::from_bytes(file[..length].to_vec()).unwrap_err();
        let cut = matches!(error, InvalidGguf::Truncated { .. } | InvalidGguf::Count { .. });
        assert!(cut, "{length} bytes: {error}");
    }
    assert!(Gguf::from_bytes(file[..needed as usize].to_vec()).is_ok());
}

#[test]
fn no_single_byte_makes_the_reader_panic_or_reserve_without_bound() {
    let file = file();
    for at in 0..outline().data_offset() as usize {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = file.clone();
            bytes[at] ^= flip;
            // Either is fine; a panic or an abort is not.
            let _ = Gguf::from_bytes(bytes);
        }
    }
}

/// `GGUF`, version 3, and the rest as it is given.
fn by_hand(n_tensors: u64, n_keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_keys.to_le_bytes());
    for part in rest {
        bytes.extend_from_slice(part);
    }
    bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
    bytes
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(value);
    bytes
}

fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.extend((dims.len() as u32).to_le_bytes());
    for side in dims {
        bytes.extend(side.to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// Whether a refusal is the expected one.
type Check = fn(&InvalidGguf) -> bool;

#[test]
fn hostile_files_are_refused_by_name() {
    use InvalidGguf as E;
    let huge = u64::MAX.to_le_bytes();
    let array = |kind: u32, count: u64| [kind.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
    let nested = key("deep", 9, &array(9, 1).repeat(9));
    let t = |dims: &[u64], kind, offset| tensor("a.weight", dims, kind, offset);
    let cases: Vec<(Vec<u8>, Check)> = vec![
        (b"GGML\x03\0\0\0".to_vec(), |e| matches!(e, E::Magic { found } if found == b"GGML")),
        (b"GGUF\x01\0\0\0".to_vec(), |e| matches!(e, E::Version { found: 1 })),
        (b"GGUF\0\0\0\x03".to_vec(), |e| matches!(e, E::Version { found: 0x0300_0000 })),
        (by_hand(0, u64::MAX, &[]), |e| matches!(e, E::Count { count: u64::MAX, .. })),
        (by_hand(1 << 61, 0, &[]), |e| matches!(e, E::Count { .. })),
        (by_hand(0, 1, &[&huge]), |e| matches!(e, E::Truncated { .. })),
        (by_hand(0, 1, &[&key("k", 8, &huge)]), |e| matches!(e, E::Truncated { what, .. } if what == "k")),
        (
            by_hand(0, 1, &[&key("k", 9, &array(8, 1 << 62))]),
            |e| matches!(e, E::Count { what, .. } if what == "k"),
        ),
        (by_hand(0, 1, &[&key("k", 13, &[])]), |e| matches!(e, E::ValueKind { kind: 13, .. })),
        (by_hand(0, 1, &[&key("k", 7, &[2])]), |e| matches!(e, E::Bool { value: 2, .. })),
        (by_hand(0, 1, &[&nested]), |e| matches!(e, E::Nesting { .. })),
        (
            by_hand(
                0,
                1,
                &[&key("x", 0, &[0]).iter().map(|&b| if b == b'x' { 0xff } else { b }).collect::<Vec<_>>()],
            ),
            |e| matches!(e, E::Name { at: 24 }),
        ),
        (by_hand(0, 2, &[&key("k", 0, &[0]), &key("k", 0, &[0])]), |e| matches!(e, E::KeyTwice { .. })),
        (by_hand(0, 1, &[&key("general.alignment", 4, &24_u32.to_le_bytes())]), |e| {
            matches!(e, E::Alignment { .. })
        }),
        (by_hand(0, 1, &[&key("general.alignment", 4, &[0; 4])]), |e| matches!(e, E::Alignment { .. })),
        (by_hand(0, 1, &[&key("general.alignment", 6, &[0; 4])]), |e| matches!(e, E::Alignment { .. })),
        (by_hand(1, 0, &[&t(&[], 0, 0)]), |e| matches!(e, E::Sides { found: 0, .. })),
        (by_hand(1, 0, &[&t(&[1; 5], 0, 0)]), |e| matches!(e, E::Sides { found: 5, .. })),
        (by_hand(1, 0, &[&t(&[32, 1], 4, 0)]), |e| matches!(e, E::TensorType { id: 4, .. })),
        (by_hand(1, 0, &[&t(&[48, 2], 8, 0)]), |e| matches!(e, E::Shape { kind: GgmlType::Q8_0, .. })),
        (by_hand(1, 0, &[&t(&[1 << 32, 1 << 32], 0, 0)]), |e| matches!(e, E::Shape { .. })),
        (by_hand(1, 0, &[&t(&[u64::MAX], 0, 0)]), |e| matches!(e, E::Shape { .. })),
        (by_hand(1, 0, &[&t(&[4], 0, 16)]), |e| matches!(e, E::Offset { offset: 16, alignment: 32, .. })),
        (by_hand(1, 0, &[&t(&[4], 0, 1 << 63)]), |e| matches!(e, E::Truncated { .. })),
        (
            by_hand(1, 0, &[&t(&[100], 0, 0)]),
            |e| matches!(e, E::Truncated { what, .. } if what.contains("a.weight")),
        ),
        (by_hand(2, 0, &[&t(&[4], 0, 0), &t(&[4], 0, 32)]), |e| matches!(e, E::TensorTwice { .. })),
        (
            by_hand(2, 0, &[&t(&[16], 0, 0), &tensor("b", &[4], 0, 32)]),
            |e| matches!(e, E::Overlap { first, second } if first == "a.weight" && second == "b"),
        ),
    ];
    for (place, (bytes, expected)) in cases.into_iter().enumerate() {
        let error = Gguf::from_bytes(bytes).expect_err(&format!("case {place}"));
        assert!(expected(&error), "case {place}: {error}");
    }
}

#[test]
fn outlines_that_no_reader_would_take_are_refused() {
    let refused = |metadata: &Metadata, tensors| Outline::new(metadata.clone(), tensors).unwrap_err();
    let mut metadata = Metadata::new();
    let twice = vec![TensorInfo::new("a", &[1], GgmlType::F32); 2];
    assert!(matches!(refused(&metadata, twice), InvalidGguf::TensorTwice { .. }));
    let uneven = vec![TensorInfo::new("a", &[2, 192], GgmlType::Q4K)];
    assert!(matches!(refused(&metadata, uneven), InvalidGguf::Shape { .. }));
    let flat = vec![TensorInfo::new("a", &[], GgmlType::F32)];
    assert!(matches!(refused(&metadata, flat), InvalidGguf::Sides { .. }));
    let large = (0..5).map(|i| TensorInfo::new(i.to_string(), &[1 << 59], GgmlType::F32)).collect();
    assert_eq!(refused(&metadata, large), InvalidGguf::TooLarge);
    metadata.set("general.alignment", 3_u32);
    assert!(matches!(refused(&metadata, Vec::new()), InvalidGguf::Alignment { .. }));
    metadata.set("general.alignment", 64_u32);
    let outline = Outline::new(metadata, vec![TensorInfo::new("a", &[1], GgmlType::F32)]).unwrap();
    assert_eq!(outline.data_offset() % 64, 0);
    assert_eq!(outline.file_bytes() - outline.data_offset(), 64);
}

#[test]
fn a_directory_and_a_missing_file_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(scratch.path()), Err(GgufError::NotAFile { .. })));
    let error = Gguf::open(&scratch.path().join("absent.gguf")).unwrap_err();
    assert!(error.to_string().contains("absent.gguf"), "{error}");
    fs::write(scratch.path().join("empty.gguf"), "").unwrap();
    let error = Gguf::open(&scratch.path().join("empty.gguf")).unwrap_err();
    assert!(matches!(error, GgufError::Invalid { source: InvalidGguf::Truncated { .. }, .. }), "{error}");
}
