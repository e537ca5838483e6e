//! Encoding speed: reads a matrix of 32-bit floats, writes its blocks, says how long each type took.
//!
//! ```sh
//! cargo run --release -p gamma-ggml --example encode_speed -- WEIGHTS COLUMNS OUT_FOLDER
//! ```
//!
//! WEIGHTS holds the matrix and behind it one importance for each column. On one thread;
//! `tests/engines/encode_speed.py` gives the same file to ggml.
#![allow(clippy::print_stdout, reason = "this program reports to a terminal")]

use std::{error::Error, fs, path::Path, time::Instant};

use gamma_ggml::GgmlType;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, columns, out] = arguments.as_slice() else {
        return Err("usage: encode_speed WEIGHTS COLUMNS OUT_FOLDER".into());
    };
    let columns: usize = columns.parse()?;
    let bytes = fs::read(weights)?;
    let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let (weights, importance) = numbers.split_at(numbers.len().saturating_sub(columns));
    fs::create_dir_all(out)?;
    for kind in GgmlType::all().filter(|kind| kind.format().is_some()) {
        let Some(row_bytes) = kind.bytes([1, columns]) else { continue };
        let mut blocks = vec![0; weights.len() / columns * row_bytes as usize];
        let rows = || weights.chunks_exact(columns);
        // The fastest of three: others share the machine.
        let mut seconds = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            for (row, bytes) in rows().zip(blocks.chunks_exact_mut(row_bytes as usize)) {
                kind.encode(row, Some(importance), bytes)?;
            }
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        println!("{kind} {:.2}", weights.len() as f64 / seconds / 1e6);
        fs::write(Path::new(out).join(kind.name()), blocks)?;
    }
    Ok(())
}
