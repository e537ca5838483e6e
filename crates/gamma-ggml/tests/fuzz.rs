//! Damaged GGUF files: an error or a file, never a panic, and never much more memory than the file has.
//!
//! ```sh
//! GAMMA_FUZZ_SECONDS=600 cargo test --release --test fuzz -- --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "called by tests alone")]
#![allow(clippy::print_stdout, reason = "figures for who asks for them with --nocapture")]

#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    borrow::Cow,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use gamma_ggml::{Array, GgmlType, Gguf, Metadata, Outline, TensorInfo, Value, ValueKind};

/// Counts what is in use, and the most there ever was.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: everything is left to the allocator of the system; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(in_use, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of the trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory is counted for one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The most memory that `work` had at once on top of what was there before.
fn most_during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    (result, MOST.load(Ordering::Relaxed).saturating_sub(before))
}

/// Bytes of memory for each byte of a file, and for files of no size.
const TIMES: usize = 16;
const BASE: usize = 1 << 16;

fn check(bytes: &[u8]) {
    let copy = bytes.to_vec();
    let (read, most) = most_during(|| Gguf::from_bytes(copy));
    assert!(most <= TIMES * bytes.len() + BASE, "{most} bytes of memory for {} of a file", bytes.len());
    let Ok(file) = read else { return };
    for tensor in file.tensors() {
        let data = file.bytes(&tensor.name).unwrap();
        let Some([rows, columns]) = tensor.matrix().filter(|[rows, columns]| rows * columns < 1 << 20) else {
            continue;
        };
        let mut values = vec![0.0; rows * columns];
        _ = tensor.kind.decode(data, &mut values);
    }
    assert_eq!(file.metadata().iter().count(), file.metadata().len());
}

fn valid() -> Vec<(Vec<u8>, usize)> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.alignment", 32_u32);
    metadata.set("tokens", Value::strings(["<s>", "", "a", "bc"]));
    metadata.set("scores", Value::floats([0.5, -1.0]));
    metadata.set(
        "nested",
        Value::Array(Array::arrays([Array::empty(ValueKind::U8), Array::empty(ValueKind::String)])),
    );
    let tensors = vec![
        TensorInfo::new("norm", &[5], GgmlType::F32),
        TensorInfo::new("blk.0.attn_q.weight", &[2, 256], GgmlType::Q4K),
        TensorInfo::new("blk.0.ffn_up.weight", &[2, 3, 64], GgmlType::Q8_0),
    ];
    let outline = Outline::new(metadata, tensors).unwrap();
    let data = |tensor: &TensorInfo| Cow::Owned(vec![7; tensor.bytes().unwrap() as usize]);
    vec![(outline.to_bytes(data).unwrap(), outline.data_offset() as usize)]
}

#[test]
fn damaged_files_end_in_errors_and_take_little_memory() {
    let _alone = ALONE.lock();
    let cases = mutate::fuzz(&valid(), 20_000, check);
    println!("{cases} damaged GGUF files");
}

/// Small things in a file.
const COUNT: u64 = 100_000;

#[test]
fn files_full_of_small_things_take_little_memory() {
    let _alone = ALONE.lock();
    let header = |tensors: u64, keys: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([tensors, keys].iter().flat_map(|n| n.to_le_bytes()));
        bytes
    };
    let key = |name: &str, kind: u32| {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes
    };
    let array = |kind: u32, item: &[u8]| {
        let mut bytes =
            [header(0, 1), key("k", 9), kind.to_le_bytes().to_vec(), COUNT.to_le_bytes().to_vec()].concat();
        bytes.extend(item.repeat(COUNT as usize));
        bytes
    };
    let empty_array = [0_u32.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
    let keys = (0..COUNT).flat_map(|i| [key(&i.to_string(), 0), vec![1]].concat());
    let tensors = (0..COUNT).flat_map(|i| {
        let mut bytes = key(&i.to_string(), 1);
        bytes.extend([0; 8]); // one side, of no length
        bytes.extend([0; 4]);
        bytes.extend([0; 8]);
        bytes
    });
    let files = [
        ("bytes", array(0, &[1])),
        ("truths", array(7, &[1])),
        ("words", array(10, &[1; 8])),
        ("empty texts", array(8, &[0; 8])),
        ("empty arrays", array(9, &empty_array)),
        ("keys", [header(0, COUNT), keys.collect()].concat()),
        ("tensors", [header(COUNT, 0), tensors.collect(), vec![0; 32]].concat()),
        // An error must not print it.
        ("alignments", [header(0, 1), key("general.alignment", 9), array(0, &[255])[37..].to_vec()].concat()),
    ];
    for (what, bytes) in files {
        let length = bytes.len();
        let (read, most) = most_during(|| Gguf::from_bytes(bytes));
        println!("{what}: {:.1} times the file of {length} bytes", most as f64 / length as f64);
        assert_eq!(read.is_ok(), what != "alignments", "{what}: {:?}", read.err());
        assert!(most <= TIMES * length, "{what}: {most} bytes of memory for {length} of a file");
    }
}
