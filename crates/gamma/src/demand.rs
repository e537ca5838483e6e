//! What a learning run takes, before it begins: memory, room on a disk, and time.

use std::{
    fmt, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Distribution, Tensor};
use gamma_model::{Config, Module};
use gamma_preference::Reading;
use gamma_quant::CalibrationNeeds;

use crate::{Error, Run, filed::Room, run::Sequences, spill::Spill};

/// What a learning run takes.
///
/// The formula is in `docs/performance.md`, with what was measured beside it: the resident memory of the
/// whole process. What the system keeps of files, as long as nobody needs the memory more, comes on top.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Demand {
    /// What memory goes to while candidates are made.
    pub quantizing: Vec<Share>,
    /// What memory goes to in a learning step.
    pub learning: Vec<Share>,
    /// Bytes of packed candidates and hidden states that go to a file, because memory is bounded.
    pub disk: u64,
    /// Floating-point operations of all learning steps, a multiplication and an addition being two.
    pub operations: f64,
}

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// What it is for.
    pub what: &'static str,
    /// How large it is.
    pub bytes: u64,
}

/// The program itself and its tokenizer.
const PROGRAM: u64 = 80 << 20;
/// What every thread packs for products, and what its allocator keeps for later.
const THREAD: u64 = 16 << 20;
/// Rows that a thread has on its way while errors are compensated, with their codes: bytes for each channel.
const ROWS: u64 = 1 << 10;
/// What the tokenizer takes for each byte of a text: where each came from, and every token in words.
const ENCODING: u64 = 96;
/// Logits in memory at once; as in the end loss.
const LOGITS: u64 = 1 << 22;

impl Demand {
    /// Bytes of memory at the peak.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let sum = |shares: &[Share]| shares.iter().map(|share| share.bytes).sum();
        u64::max(sum(&self.quantizing), sum(&self.learning))
    }

    /// The time that the operations take at the rate of a plain matrix product on `device`, which is
    /// measured: a bound from below, which quantizing and whatever waits for memory come on top of.
    #[must_use]
    pub fn time_on(&self, device: &Device) -> Duration {
        const SIDE: usize = 768;
        let factor = |_| Tensor::<2>::random([SIDE, SIDE], Distribution::Default, device);
        let [a, b] = [0, 1].map(factor);
        let product = || a.clone().matmul(b.clone()).into_data();
        let _ = product(); // threads and memory are there now
        let start = Instant::now();
        for _ in 0..4 {
            let _ = product();
        }
        let one = start.elapsed().as_secs_f64() / 4.0;
        let rate = 2.0 * (SIDE as f64).powi(3) / one.max(1e-9);
        Duration::try_from_secs_f64(self.operations / rate).unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for (stage, shares) in [("quantizing", &self.quantizing), ("learning", &self.learning)] {
            let sum: u64 = shares.iter().map(|share| share.bytes).sum();
            writeln!(f, "{:10.1} MiB while {stage}", mebibytes(sum))?;
            for share in shares.iter().filter(|share| share.bytes > 0) {
                writeln!(f, "{:14.1} MiB {}", mebibytes(share.bytes), share.what)?;
            }
        }
        write!(f, "{:10.1} MiB in a temporary file", mebibytes(self.disk))
    }
}

/// The most memory that this process was ever resident with, in bytes; what a [`Demand`] is compared
/// with. `None` where the system does not say (it does on Linux).
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// Sizes that memory depends on, in numbers of values or weights.
struct Sizes {
    /// Values of the residual stream in one batch.
    state: u64,
    /// Weights of the largest block, and of its largest module.
    block: u64,
    module: u64,
    /// Candidates of a module, at most.
    candidates: u64,
    /// Passes that are on their way at the same time.
    passes: u64,
    /// Batches among them.
    batches: u64,
    /// Calibration batches in all.
    all: u64,
    tokens: u64,
}

impl Run {
    /// What [`learn`](Self::learn) takes, within the limit that was set.
    ///
    /// # Errors
    /// [`Error::Memory`] if it cannot be done within the limit.
    pub fn demand(&self) -> Result<Demand, Error> {
        Ok(self.divide()?.0)
    }

    /// What may stay in memory, and a file for the rest.
    pub(crate) fn room(&self) -> Result<Room, Error> {
        let (_, room) = self.divide()?;
        let spill = self.max_memory.map(|_| Spill::in_folder(&self.scratch)).transpose()?;
        Ok(Room { spill: spill.map(Arc::new), ..room })
    }

    /// The same where packed weights are the result, and stay in memory. Without a limit nothing is asked
    /// about candidates, which may be none of the plan's.
    pub(crate) fn room_for_states(&self) -> Result<Room, Error> {
        match self.max_memory {
            None => Ok(Room::default()),
            Some(_) => Ok(Room { packed: u64::MAX, ..self.room()? }),
        }
    }

    /// The demand, and what may stay in memory of packed candidates and hidden states.
    fn divide(&self) -> Result<(Demand, Room), Error> {
        let config = self.config();
        let sizes = self.sizes()?;
        let packed = self.packed_bytes()?;
        let head = if config.tied_head { 1 } else { 2 };
        let decoder = 4 * (head * config.vocab_size * config.hidden_size) as u64;
        let threads = rayon::current_num_threads() as u64;
        let fixed = [
            Share { what: "the program", bytes: PROGRAM },
            Share { what: "its threads", bytes: THREAD * threads },
            Share { what: "embedding and head", bytes: decoder },
        ];
        let (needs, widest) = (self.method.needs(), config.intermediate_size.max(config.hidden_size) as u64);
        let sums = match needs {
            CalibrationNeeds::Nothing => 0,
            CalibrationNeeds::SecondMoment => 16 * widest,
            // Sums in single precision, their mean, and in double precision the matrix and its factor.
            _ => 24 * widest * widest + ROWS * widest * threads,
        };
        let (moving, states) = if needs == CalibrationNeeds::Nothing {
            (0, 0)
        } else {
            // Where experts may lack tokens, the states before a block stay until it is through.
            let kept = if config.experts.is_some() { 2 } else { 1 };
            (self.forward_bytes(&sizes), 4 * sizes.state * sizes.all * kept)
        };
        let quantizing = [
            Share { what: "the text while it is encoded", bytes: ENCODING * self.text_bytes },
            Share { what: "one block", bytes: 4 * sizes.block },
            Share { what: "its inputs' statistics, and rows that are fitted to them", bytes: sums },
            Share { what: "a module on its way", bytes: 16 * sizes.module },
            Share { what: "a batch on its way through it", bytes: moving },
        ];
        let waiting = self.waiting(&sizes);
        let learning = [
            Share { what: "one block and its candidates", bytes: 4 * sizes.block * (1 + sizes.candidates) },
            Share { what: "mixed weights and their gradients", bytes: 12 * sizes.block },
            Share { what: "the graph of one step", bytes: self.graph_bytes(&sizes) },
            Share { what: "hidden states of teacher and student", bytes: self.moving_bytes(&sizes) },
        ];
        let sum = |shares: &[Share]| -> u64 { fixed.iter().chain(shares).map(|share| share.bytes).sum() };
        let needed = u64::max(sum(&quantizing), sum(&learning));
        let given = self.max_memory.unwrap_or(u64::MAX);
        if given < needed {
            let stage = if sum(&quantizing) > sum(&learning) { &quantizing[..] } else { &learning[..] };
            let all = fixed.iter().chain(stage);
            let largest = all.max_by_key(|share| share.bytes).expect("there are several");
            return Err(Error::Memory { given, needed, largest: largest.what, part: largest.bytes });
        }
        // Candidates are needed in both stages, and most often.
        let in_memory = packed.min(given - needed);
        let stream = states.min(given - in_memory - sum(&quantizing));
        let hidden = waiting.min(given - in_memory - sum(&learning));
        let candidates = Share { what: "packed candidates", bytes: in_memory };
        let all = Share { what: "hidden states of all calibration data", bytes: stream };
        let asides = Share { what: "hidden states that wait for the way back", bytes: hidden };
        let demand = Demand {
            quantizing: [&fixed[..], &quantizing, &[candidates, all]].concat(),
            learning: [&fixed[..], &learning, &[candidates, asides]].concat(),
            // One stage takes the place of the other.
            disk: packed - in_memory + u64::max(states - stream, waiting - hidden),
            operations: self.operations(&sizes),
        };
        Ok((demand, Room { spill: None, packed: in_memory, hidden, stream }))
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        let config = self.config();
        let (count, length) = match &self.sequences {
            Sequences::Text(parts) => (parts.learned.len(), parts.learned.first().map_or(0, Vec::len)),
            &Sequences::Sampled { learned, length, .. } => (learned, length),
            Sequences::None => (0, 0),
        };
        let batch = self.batch.min(count.max(1));
        let all = count.div_ceil(self.batch);
        let modules = |block: usize| config.modules(block);
        let weights = |modules: &[Module]| modules.iter().map(size).sum::<u64>();
        let fitting = self.fitting()?;
        let passes = match self.learning.objective.reading {
            Reading::Through { .. } | Reading::Mixed { .. } => self.learning.steps,
            _ => 1,
        };
        Ok(Sizes {
            state: (batch * length * config.hidden_size) as u64,
            block: (0..config.blocks).map(|block| weights(&modules(block))).max().unwrap_or(0),
            module: (0..config.blocks).flat_map(modules).map(|module| size(&module)).max().unwrap_or(0),
            candidates: fitting.values().map(Vec::len).max().unwrap_or(0) as u64,
            passes: passes as u64,
            batches: self.learning.steps.min(all) as u64,
            all: all as u64,
            tokens: (batch * length) as u64,
        })
    }

    /// Bytes of all candidates of all modules.
    fn packed_bytes(&self) -> Result<u64, Error> {
        let fitting = self.fitting()?;
        let config = self.config();
        let modules = (0..config.blocks).flat_map(|block| config.modules(block));
        let bytes = modules.map(|module| {
            let formats = fitting.get(&module.name).into_iter().flatten();
            // Without a size of its own a custom format is taken for bytes.
            let bits =
                |format| self.method.quantizer.stored_bits(format, module.shape).unwrap_or(8 * size(&module));
            formats.map(bits).sum::<u64>() / 8
        });
        Ok(bytes.sum())
    }

    /// Bytes of hidden states that wait for the way back through the blocks.
    fn waiting(&self, sizes: &Sizes) -> u64 {
        match self.learning.objective.reading {
            Reading::Through { .. } => 4 * sizes.state * sizes.passes * self.config().blocks as u64,
            _ => 0,
        }
    }

    /// Bytes of the hidden states that every block changes: of the student, of the teacher before and
    /// after a block, and the gradients on their way back.
    fn moving_bytes(&self, sizes: &Sizes) -> u64 {
        let states = match self.learning.objective.reading {
            Reading::Through { hidden, .. } => {
                let kept = if hidden > 0.0 { self.config().blocks as u64 } else { 2 };
                2 * sizes.passes + sizes.batches * kept
            }
            Reading::Mixed { .. } => sizes.passes + 2 * sizes.batches,
            _ => 2 * sizes.all,
        };
        4 * sizes.state * states
    }

    /// Bytes of a batch's way through a block where nothing is kept of it: the stream before and after, what
    /// modules read and answer, and the scores of attention where they are kept.
    fn forward_bytes(&self, sizes: &Sizes) -> u64 {
        let config = self.config();
        let attention = 2 * (config.heads + config.kv_heads) * config.head_dim;
        let per_token = 6 * config.hidden_size + 3 * config.intermediate_size + attention;
        4 * (sizes.tokens * per_token as u64 + self.attention_scores(sizes))
    }

    /// Scores of attention that are in memory at once.
    fn attention_scores(&self, sizes: &Sizes) -> u64 {
        let length = sizes.tokens / self.batch.max(1) as u64;
        let keeps = gamma_model::keeps_scores(self.device());
        if keeps { 4 * self.config().heads as u64 * sizes.tokens * length } else { 0 }
    }

    /// Bytes of what autodiff keeps of one step: per token some values as wide as the stream, the
    /// feed-forward layer and the heads; for each pair of tokens the scores of every head, where they
    /// are kept; and of the predictions, a few values per class.
    fn graph_bytes(&self, sizes: &Sizes) -> u64 {
        let config = self.config();
        let attention = (config.heads + 2 * config.kv_heads) * config.head_dim;
        let per_token = 14 * config.hidden_size + 8 * config.intermediate_size + 6 * attention;
        let scores = self.attention_scores(sizes);
        let rows = sizes.tokens.min((LOGITS / config.vocab_size as u64).max(1));
        let classes = 8 * rows * config.vocab_size as u64;
        4 * u64::max(sizes.tokens * per_token as u64 + scores, classes)
    }

    /// Operations of all steps: of each pass the student's way there and, where that is needed, back,
    /// which costs three times as much, and of each batch in use the teacher's.
    fn operations(&self, sizes: &Sizes) -> f64 {
        let config: &Config = self.config();
        let weights: u64 = (0..config.blocks).flat_map(|block| config.modules(block)).map(|m| size(&m)).sum();
        let once = 2.0 * weights as f64 * sizes.tokens as f64;
        let head = 2.0 * (config.vocab_size * config.hidden_size) as f64 * sizes.tokens as f64;
        let settings = &self.learning;
        let survey = (sizes.candidates as usize * settings.survey_draws) as f64;
        let passes = survey + (settings.rounds * settings.steps) as f64;
        match settings.objective.reading {
            Reading::PerModule => once * (1.0 + sizes.candidates as f64) * sizes.all as f64,
            Reading::Through { divergence, .. } => {
                let ending = if divergence > 0.0 { 4.0 * head } else { 0.0 };
                passes * (6.0 * once + ending)
            }
            _ => passes * 5.0 * once,
        }
    }
}

/// Weights of a module.
fn size(module: &Module) -> u64 {
    (module.shape[0] * module.shape[1]) as u64
}
