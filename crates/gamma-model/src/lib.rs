//! Decoder checkpoints on burn tensors: load a Hugging Face folder, run it block by block, sample
//! from it, and judge how far a changed model is from the original.
//!
//! Use this crate if you need the *model* side alone: a forward pass whose linear weights can be
//! replaced call by call, and whose modules can be listened to. It knows nothing of quantizers and
//! solvers; it takes a [`Device`](burn::tensor::Device) and names no backend: `gamma-device` opens one.
//!
//! ```no_run
//! use std::{ops::ControlFlow, sync::Arc};
//! use gamma_model::{Checkpoint, Decoder, Judge, TextEncoder};
//!
//! let device = gamma_device::DeviceName::CPU.open()?;
//! let checkpoint = Arc::new(Checkpoint::open("path/to/hf-folder")?);
//! let text = TextEncoder::open(checkpoint.folder(), checkpoint.config())?;
//! let windows = text.encode_files(&["evaluation.txt".into()])?.all(256)?;
//! let decoder = Decoder::load(checkpoint, 256, &device)?;
//! let judge = Judge::new(&decoder, windows, &mut |_| ControlFlow::Continue(()))?;
//! println!("{:?}", judge.map(|judge| judge.full_precision().perplexity()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod architecture;
mod attention;
mod block;
mod checkpoint;
mod config;
mod cpu;
mod decoder;
mod error;
mod experts;
mod fold;
#[cfg(feature = "flex")]
mod fused;
mod judge;
mod positions;
mod products;
mod sample;
mod source;
mod text;

pub use architecture::Architecture;
pub use attention::keeps_scores;
pub use block::{Block, Tap};
pub use checkpoint::Checkpoint;
pub use config::{Config, Experts, Module, ROLES, RopeScaling};
pub use decoder::Decoder;
pub use error::ModelError;
pub use fold::{Input, Producer};
pub use judge::{Evaluation, Judge, Load, PREDICTIONS, Prefix, Tick, Windows};
pub use products::Products;
pub use sample::sample;
pub use source::{FloatType, Source, whole};
pub use text::{TextEncoder, Tokens};

/// The code of the page on adding a family is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/adding-a-model.md")]
struct AddingAModel;
