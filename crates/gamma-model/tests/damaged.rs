//! Damaged checkpoints: weights and configuration. An error or a model, never a panic.
//!
//! ```sh
//! GAMMA_FUZZ_SECONDS=600 cargo test --release --test damaged
//! ```

#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

use std::{fs, path::PathBuf, sync::Arc};

use gamma_model::{Checkpoint, Decoder, ModelError};
use tempfile::TempDir;

#[test]
fn damaged_checkpoints_end_in_errors() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/qwen2-random");
    let folder = TempDir::new().expect("a temporary folder");
    for (file, header, cases) in [("model.safetensors", 2048, 150), ("config.json", 2048, 400)] {
        for other in ["model.safetensors", "config.json"] {
            fs::copy(golden.join(other), folder.path().join(other)).expect("copies");
        }
        let valid = fs::read(golden.join(file)).expect("reads");
        mutate::fuzz(&[(valid, header)], cases, |bytes| {
            fs::write(folder.path().join(file), bytes).expect("writes");
            let load = || -> Result<(), ModelError> {
                let checkpoint = Arc::new(Checkpoint::open(folder.path())?);
                // A model of another size is a valid one, and need not be built to find that out.
                let config = checkpoint.config();
                if config.vocab_size > 1 << 12 || config.hidden_size > 1 << 10 || config.max_positions < 16 {
                    return Ok(());
                }
                let decoder = Decoder::load(checkpoint, 16, &gamma_device::tested())?;
                decoder.block(0).map(drop)
            };
            _ = load();
        });
    }
}
