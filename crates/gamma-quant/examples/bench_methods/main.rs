//! How long the methods other than GPTQ take, and how fast codes are packed, as Markdown tables.
//!
//! ```text
//! cargo run --release -p gamma-quant --example bench_methods [-- --threads N --repeats N]
//! ```
//!
//! Times are the best of the repeats, in each of which everything has a turn.

#![allow(clippy::print_stdout, reason = "the tables are the result")]

#[cfg(all(feature = "awq", feature = "gptq", feature = "hqq", feature = "rtn"))]
mod tables;

#[cfg(all(feature = "awq", feature = "gptq", feature = "hqq", feature = "rtn"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tables::print()
}

#[cfg(not(all(feature = "awq", feature = "gptq", feature = "hqq", feature = "rtn")))]
fn main() {
    println!("built without the features `awq`, `gptq`, `hqq` and `rtn`, which this measures");
}
