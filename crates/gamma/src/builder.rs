//! Every setting of a run, checked once.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use burn::tensor::Device;
use gamma_core::{BitWidth, Format, GroupSize};
use gamma_device::DeviceName;
use gamma_model::{Checkpoint, Config, Decoder, Products, Source as Weights, TextEncoder};
use gamma_quant::{Quantizer, Rescale, Rtn};

use crate::{
    Calibration, Error, Run, ScoreSource, Settings,
    bank::Method,
    calibration::Source,
    run::{Parts, Sequences},
};

/// Where everything starts: [`Gamma::builder`].
#[derive(Debug)]
pub struct Gamma;

impl Gamma {
    /// A builder with every default in place; [`model`](Builder::model) and
    /// [`calibration`](Builder::calibration) must be given.
    pub fn builder() -> Builder {
        Builder {
            model: None,
            source: None,
            calibration: None,
            quantizer: Arc::new(Rtn::asymmetric(GroupSize::G128)),
            rescale: None,
            candidates: vec![2, 3, 4, 5, 6, 8],
            scores: ScoreSource::default(),
            learning: Settings::default(),
            batch: 2,
            products: Products::default(),
            device: None,
            max_memory: None,
            scratch: None,
        }
    }
}

/// Settings of a run.
///
/// | setter | default |
/// |---|---|
/// | [`model`](Self::model) or [`source`](Self::source) | – |
/// | [`calibration`](Self::calibration) | – |
/// | [`quantizer`](Self::quantizer) | round-to-nearest, asymmetric, groups of 128 |
/// | [`rescale`](Self::rescale) | nothing |
/// | [`candidates`](Self::candidates) | 2, 3, 4, 5, 6 and 8 bits |
/// | [`learning`](Self::learning) | [`Settings::default`] |
/// | [`scores`](Self::scores) | the expected loss of each option |
/// | [`batch`](Self::batch) | 2 sequences per learning step |
/// | [`products`](Self::products) | in single precision |
/// | [`device`](Self::device) | the CPU |
/// | [`max_memory`](Self::max_memory) | unbounded |
/// | [`scratch`](Self::scratch) | the system's folder for temporary files |
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    model: Option<PathBuf>,
    source: Option<Arc<dyn Weights>>,
    calibration: Option<Calibration>,
    quantizer: Arc<dyn Quantizer>,
    rescale: Option<Arc<dyn Rescale>>,
    candidates: Vec<u8>,
    scores: ScoreSource,
    learning: Settings,
    batch: usize,
    products: Products,
    device: Option<Device>,
    max_memory: Option<u64>,
    scratch: Option<PathBuf>,
}

impl Builder {
    /// A Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.
    pub fn model(mut self, folder: impl Into<PathBuf>) -> Self {
        self.model = Some(folder.into());
        self
    }

    /// Weights that the caller holds already, instead of a folder. Tokens take the place of text
    /// ([`Calibration::tokens`]), and plans are applied but not written: that is the caller's part.
    pub fn source(mut self, source: Arc<dyn Weights>) -> Self {
        self.source = Some(source);
        self
    }

    /// What the model is shown while learning.
    pub fn calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// The method that makes the candidates.
    pub fn quantizer(mut self, quantizer: impl Quantizer + 'static) -> Self {
        self.quantizer = Arc::new(quantizer);
        self
    }

    /// Scales to fold into the model before anything is quantized, such as
    /// [`Awq`](crate::quant::Awq)'s: one set for all candidates.
    pub fn rescale(mut self, rescale: impl Rescale + 'static) -> Self {
        self.rescale = Some(Arc::new(rescale));
        self
    }

    /// The bit-widths that compete, 2 to 8. Where the quantizer has several formats for a width, all
    /// of them do.
    pub fn candidates(mut self, bits: impl IntoIterator<Item = u8>) -> Self {
        self.candidates = bits.into_iter().collect();
        self
    }

    /// How to learn.
    pub fn learning(mut self, settings: Settings) -> Self {
        self.learning = settings;
        self
    }

    /// Which numbers of the learning run become the scores.
    pub fn scores(mut self, source: ScoreSource) -> Self {
        self.scores = source;
        self
    }

    /// Sequences per learning step.
    pub fn batch(mut self, sequences: usize) -> Self {
        self.batch = sequences;
        self
    }

    /// The device that runs the model.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// What the student's matrix products are computed in while it learns. Candidates, what they are made
    /// from, and judgements stay in single precision.
    pub fn products(mut self, products: Products) -> Self {
        self.products = products;
        self
    }

    /// How many bytes a learning run may take, as [`Run::demand`] counts them: packed candidates and
    /// hidden states beyond that go to a temporary file. Of a plan that is applied, the packed weights stay
    /// in memory.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// The folder for that file, best on a fast disk. The file has no name and is gone when the run is.
    pub fn scratch(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch = Some(folder.into());
        self
    }

    /// Checks every setting, opens the model and encodes the calibration text.
    ///
    /// # Errors
    /// [`Error`] names the setting, file or tensor at fault.
    pub fn build(self) -> Result<Run, Error> {
        let calibration = self.calibration.ok_or(Error::Missing {
            setting: "calibration",
            expected: "`Calibration::text_file(path)`, or `Calibration::sampled()` if there is no text",
        })?;
        let candidates = widths(&self.candidates)?;
        let formats = formats(&*self.quantizer, &candidates)?;
        self.learning.check::<Error>()?;
        self.scores.check(&self.learning)?;
        for (setting, value) in [("batch", self.batch), ("calibration.sequences", calibration.sequences)] {
            if value == 0 {
                return Err(Error::Setting { setting, found: "0".into(), expected: "at least one sequence" });
            }
        }
        let device = self.device.map_or_else(|| DeviceName::CPU.open(), Ok)?;
        self.products.check(&device)?;
        let (source, folder) = open(self.model, self.source)?;
        let config = source.config();
        let length = match &calibration.source {
            Source::Tokens(sequences) => length_of(sequences, config)?,
            _ => calibration.length.unwrap_or(config.max_positions.min(2048)),
        };
        let decoder = Arc::new(Decoder::load(Arc::clone(&source), length, &device)?);
        let text = folder.as_deref().map(|folder| TextEncoder::open(folder, config)).transpose()?;
        let mut text_bytes = 0;
        let sequences = match &calibration.source {
            Source::Files(paths) => {
                let text = text.as_ref().ok_or(Error::NoFolder { wanted: "text as tokens" })?;
                let tokens = text.encode_files(paths)?;
                text_bytes = tokens.text_bytes() as u64;
                let spare = (tokens.ids().len() / length.max(1)).saturating_sub(calibration.sequences);
                let gate = calibration.gate().min(spare);
                let gate = if gate < SMALLEST_GATE { 0 } else { gate };
                Sequences::Text(Parts::new(tokens.spread(calibration.sequences + gate, length)?, gate))
            }
            Source::Sampled => Sequences::Sampled {
                learned: calibration.sequences,
                gate: calibration.gate(),
                length,
                seed: calibration.seed,
            },
            Source::Tokens(sequences) => Sequences::Text(Parts::new(sequences.clone(), 0)),
            Source::None => Sequences::None,
        };
        let tensors = source.digests()?;
        Ok(Run {
            weights: gamma_model::whole(&tensors),
            tensors,
            source,
            folder,
            text,
            decoder,
            method: Method { quantizer: self.quantizer, rescale: self.rescale },
            candidates,
            formats,
            learning: self.learning,
            scores: self.scores,
            batch: self.batch,
            products: self.products,
            sequences,
            bank: Mutex::default(),
            sampled: OnceLock::new(),
            text_bytes,
            max_memory: self.max_memory,
            scratch: self.scratch.unwrap_or_else(std::env::temp_dir),
        })
    }
}

/// Where the weights are, and the folder if there is one.
fn open(
    model: Option<PathBuf>,
    source: Option<Arc<dyn Weights>>,
) -> Result<(Arc<dyn Weights>, Option<PathBuf>), Error> {
    match (model, source) {
        (Some(model), None) => {
            let checkpoint = Checkpoint::open(model)?;
            let folder = checkpoint.folder().to_owned();
            Ok((Arc::new(checkpoint), Some(folder)))
        }
        (None, Some(source)) => Ok((source, None)),
        (None, None) => Err(Error::Missing {
            setting: "model",
            expected: "the folder of a Hugging Face checkpoint, or a source of weights",
        }),
        (Some(model), Some(_)) => Err(Error::Setting {
            setting: "source",
            found: format!("given beside the folder `{}`", model.display()),
            expected: "one of the two",
        }),
    }
}

/// The length of all `sequences`, which the model can take.
fn length_of(sequences: &[Vec<u32>], config: &Config) -> Result<usize, Error> {
    let refuse = |found, expected| Err(Error::Setting { setting: "calibration", found, expected });
    let length = sequences.first().map_or(0, Vec::len);
    if let Some(other) = sequences.iter().find(|tokens| tokens.len() != length) {
        let found = format!("sequences of {length} and of {} tokens", other.len());
        return refuse(found, "sequences of one length");
    }
    if let Some(&token) = sequences.iter().flatten().find(|&&token| token as usize >= config.vocab_size) {
        let found = format!("token {token} for a model of {} tokens", config.vocab_size);
        return refuse(found, "tokens of the model's own tokenizer");
    }
    Ok(length)
}

/// Fewer sequences than this cannot decide anything.
const SMALLEST_GATE: usize = 4;

/// Every format of the widths.
fn formats(quantizer: &dyn Quantizer, widths: &[BitWidth]) -> Result<Vec<Format>, Error> {
    let mut formats = Vec::new();
    for &width in widths {
        let own = quantizer.formats(width);
        if own.is_empty() {
            let found = format!("{width} bits, which `{}` does not make", quantizer.describe());
            return Err(Error::Setting { setting: "candidates", found, expected: "another bit-width" });
        }
        formats.extend(own);
    }
    Ok(formats)
}

fn widths(bits: &[u8]) -> Result<Vec<BitWidth>, Error> {
    let refuse = |expected| Error::Setting { setting: "candidates", found: format!("{bits:?}"), expected };
    let parsed: Option<Vec<BitWidth>> = bits.iter().map(|&b| BitWidth::new(b)).collect();
    let mut widths = parsed.ok_or_else(|| refuse("bit-widths are 2 to 8"))?;
    widths.sort_unstable();
    if widths.is_empty() || widths.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refuse("at least one bit-width, none twice"));
    }
    Ok(widths)
}
