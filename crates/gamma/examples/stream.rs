//! Learns on a model that is larger than memory, and compares the peak with what was announced.
//!
//! The weights are noise that is made up whenever a block is loaded, so that no disk has to hold them:
//! what a host engine does that feeds its own weights. The sizes are those of Llama 3.1 8B unless flags
//! say otherwise.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::{env, error::Error, ops::ControlFlow, sync::Arc, time::Instant};

use gamma::{
    Builder, Calibration, Config, Device, Event, Gamma, GroupSize, ModelError, Reading, Rtn, Settings,
    Source, peak_memory,
};

/// Weights drawn from a table by name and position.
#[derive(Debug)]
struct Noise {
    config: Config,
    table: Vec<f32>,
}

impl Noise {
    fn new(config: Config) -> Self {
        // A linear congruential generator (Knuth's MMIX); prime length, so that rows differ.
        let mut state = 1_u64;
        let draw = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / f32::from(1_u16 << 12) / 2048.0 - 1.0
        };
        Self { config, table: (0..1_000_003).map(draw).collect() }
    }
}

impl Source for Noise {
    fn config(&self) -> &Config {
        &self.config
    }

    fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let count = shape.iter().product();
        if tensor.contains("norm") {
            return Ok(vec![1.0; count]);
        }
        let size = 0.02;
        let start: usize = tensor.bytes().fold(7, |hash, byte| (31 * hash + usize::from(byte)) % 1_000_003);
        Ok(self.table.iter().cycle().skip(start).take(count).map(|value| value * size).collect())
    }

    /// What is made up needs no proof of identity.
    fn digests(&self) -> Result<std::collections::BTreeMap<String, gamma::Digest>, ModelError> {
        Ok([("noise".to_owned(), gamma::Digest::sha256([0; 32]))].into())
    }
}

/// The values of `--name value` flags.
struct Flags(Vec<String>);

impl Flags {
    fn number(&self, name: &str, default: usize) -> Result<usize, Box<dyn Error>> {
        let at = self.0.iter().position(|flag| flag == name);
        Ok(at.and_then(|at| self.0.get(at + 1)).map_or(Ok(default), |value| value.parse())?)
    }
}

fn builder(flags: &Flags) -> Result<Builder, Box<dyn Error>> {
    let json = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "hidden_size": {}, "intermediate_size": {},
            "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {},
            "vocab_size": {}, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 5e5}}"#,
        flags.number("--hidden", 4096)?,
        flags.number("--inner", 14_336)?,
        flags.number("--blocks", 32)?,
        flags.number("--heads", 32)?,
        flags.number("--kv-heads", 8)?,
        flags.number("--vocabulary", 128_256)?,
    );
    let (sequences, length) = (flags.number("--sequences", 4)?, flags.number("--length", 16)?);
    let token = |sequence: usize, i: usize| (97 * sequence + 13 * i) as u32 % 1000;
    let tokens = (0..sequences).map(|s| (0..length).map(|i| token(s, i)).collect()).collect();
    let steps = flags.number("--steps", 2)?;
    let defaults = Settings::default();
    assert!(matches!(defaults.objective.reading, Reading::Through { .. }), "the reading that streams twice");
    let learning = Settings { rounds: flags.number("--rounds", 0)?, steps, survey_draws: 1, ..defaults };
    let builder = Gamma::builder()
        .source(Arc::new(Noise::new(Config::from_json(&json)?)))
        .calibration(Calibration::tokens(tokens))
        .quantizer(Rtn::asymmetric(GroupSize::new(128)?))
        .candidates([2, 4])
        .learning(learning);
    Ok(match flags.number("--max-mib", 0)? {
        0 => builder,
        mebibytes => builder.max_memory((mebibytes as u64) << 20),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags(env::args().skip(1).collect());
    let run = builder(&flags)?.build()?;
    let demand = run.demand()?;
    println!("{demand}");
    println!("{:10.0} s of products", demand.time_on(&Device::flex()).as_secs_f64());
    let start = Instant::now();
    let mut quantized = None;
    let scores = run.learn(&mut |event: Event| {
        if matches!(event, Event::Learning(_)) && quantized.is_none() {
            quantized = Some(start.elapsed());
        }
        ControlFlow::Continue(())
    })?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{:10.0} s in all", start.elapsed().as_secs_f64());
    println!("{:10} modules scored", scores.table.modules().len());
    if let Some(peak) = peak_memory() {
        let ratio = peak as f64 / demand.memory() as f64;
        println!("{:10.1} MiB at the peak, {ratio:.2} of what was announced", mebibytes(peak));
        assert!(ratio <= 1.0, "the formula in `Run::demand` announces too little");
    }
    Ok(())
}
