//! Every setting of a run, checked once.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use burn::tensor::Device;
use gamma_core::{BitWidth, Format, GroupSize};
use gamma_model::{Checkpoint, Decoder, TextEncoder};
use gamma_quant::{Quantizer, Rescale, Rtn};

use crate::{
    Calibration, Error, Pressure, Run, ScoreSource, Settings,
    bank::Method,
    calibration::Source,
    run::{Parts, Sequences, default_device},
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
            calibration: None,
            quantizer: Arc::new(Rtn::asymmetric(GroupSize::G128)),
            rescale: None,
            candidates: vec![2, 3, 4, 5, 6, 8],
            scores: ScoreSource::default(),
            learning: Settings::default(),
            batch: 2,
            device: None,
        }
    }
}

/// Settings of a run.
///
/// | setter | default |
/// |---|---|
/// | [`model`](Self::model) | – |
/// | [`calibration`](Self::calibration) | – |
/// | [`quantizer`](Self::quantizer) | round-to-nearest, asymmetric, groups of 128 |
/// | [`rescale`](Self::rescale) | nothing |
/// | [`candidates`](Self::candidates) | 2, 3, 4, 5, 6 and 8 bits |
/// | [`learning`](Self::learning) | [`Settings::default`] |
/// | [`scores`](Self::scores) | the expected loss of each option |
/// | [`batch`](Self::batch) | 2 sequences per learning step |
/// | [`device`](Self::device) | the CPU |
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    model: Option<PathBuf>,
    calibration: Option<Calibration>,
    quantizer: Arc<dyn Quantizer>,
    rescale: Option<Arc<dyn Rescale>>,
    candidates: Vec<u8>,
    scores: ScoreSource,
    learning: Settings,
    batch: usize,
    device: Option<Device>,
}

impl Builder {
    /// A Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.
    pub fn model(mut self, folder: impl Into<PathBuf>) -> Self {
        self.model = Some(folder.into());
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

    /// Checks every setting, opens the model and encodes the calibration text.
    ///
    /// # Errors
    /// [`Error`] names the setting, file or tensor at fault.
    pub fn build(self) -> Result<Run, Error> {
        let model = self.model.ok_or(Error::Missing {
            setting: "model",
            expected: "the folder of a Hugging Face checkpoint",
        })?;
        let calibration = self.calibration.ok_or(Error::Missing {
            setting: "calibration",
            expected: "`Calibration::text_file(path)`, or `Calibration::sampled()` if there is no text",
        })?;
        let candidates = widths(&self.candidates)?;
        let formats = formats(&*self.quantizer, &candidates)?;
        self.learning.check::<Error>()?;
        let priced = matches!(self.learning.pressure, Pressure::AugmentedLagrangian { .. });
        if self.scores == ScoreSource::Logits && !(priced && self.learning.rounds > 0) {
            return Err(Error::Setting {
                setting: "scores",
                found: "logits".into(),
                expected: "logits need rounds at one budget: `Pressure::AugmentedLagrangian`",
            });
        }
        for (setting, value) in [("batch", self.batch), ("calibration.sequences", calibration.sequences)] {
            if value == 0 {
                return Err(Error::Setting { setting, found: "0".into(), expected: "at least one sequence" });
            }
        }
        let device = self.device.or_else(default_device).ok_or(Error::Missing {
            setting: "device",
            expected: "a device; this build has no default one because the feature `flex` is off",
        })?;
        let checkpoint = Arc::new(Checkpoint::open(model)?);
        let config = checkpoint.config();
        // Each expert sees tokens of its own: statistics over all tokens would be wrong for every one.
        if let Some(experts) = &config.experts {
            return Err(Error::Setting {
                setting: "model",
                found: format!("a model with {} experts in a block", experts.count),
                expected: "experts can be run, but not be allocated bits yet: a model without them",
            });
        }
        let length = calibration.length.unwrap_or(config.max_positions.min(2048));
        let decoder = Arc::new(Decoder::load(checkpoint.clone(), length, &device)?);
        let text = TextEncoder::open(checkpoint.folder(), config)?;
        let sequences = match &calibration.source {
            Source::Files(paths) => {
                let tokens = text.encode_files(paths)?;
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
            Source::None => Sequences::None,
        };
        Ok(Run {
            weights: checkpoint.digest()?,
            tensors: checkpoint.digests()?,
            checkpoint,
            text,
            decoder,
            method: Method { quantizer: self.quantizer, rescale: self.rescale },
            candidates,
            formats,
            learning: self.learning,
            scores: self.scores,
            batch: self.batch,
            sequences,
            bank: Mutex::default(),
            sampled: OnceLock::new(),
        })
    }
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
