//! A checked run: learn, apply, judge.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use burn::tensor::Device;
use gamma_core::{
    BitWidth, CacheShape, Digest, FixedRole, Format, ModuleName, ModuleScores, Provenance, Remainder,
    ScoreKind, ScoreTable, ScoredOption, ScoresFile,
};
use gamma_export::Unplanned;
use gamma_model::{Config, Decoder, Products, Source, TextEncoder, sample};
use gamma_preference::{Learned, learn, resume};
use gamma_quant::CalibrationNeeds;

use crate::{
    Applied, Error, Event, Learning, Plan, Pressure, Progress, Quiet, Scores, Settings, StateFile,
    bank::{CandidateBank, Method},
    filed::Room,
    judge::{Jury, Protocol},
    keep::Keeper,
    network::BankedDecoder,
    origin::digest,
    stream::Embedded,
};

/// Which numbers of a learning run become the scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoreSource {
    /// The mean loss that each option brought in the contexts seen: serves every budget.
    #[default]
    Losses,
    /// The logits themselves, as in the paper: best near the budget they were learned at.
    Logits,
}

impl ScoreSource {
    /// Logits are learned only under a price on bits.
    pub(crate) fn check(self, settings: &Settings) -> Result<(), Error> {
        let priced = matches!(settings.pressure, Pressure::AugmentedLagrangian { .. });
        if self == Self::Logits && !(priced && settings.rounds > 0) {
            return Err(Error::Setting {
                setting: "scores",
                found: "logits".into(),
                expected: "logits need rounds at one budget: `Pressure::AugmentedLagrangian`",
            });
        }
        Ok(())
    }
}

/// A model, a quantizer and calibration data, ready to work. Made by
/// [`Builder::build`](crate::Builder::build).
#[derive(Debug)]
pub struct Run {
    pub(crate) source: Arc<dyn Source>,
    /// The checkpoint, where the weights come from one.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) weights: Digest,
    /// Likewise of each tensor.
    pub(crate) tensors: BTreeMap<String, Digest>,
    pub(crate) text: Option<TextEncoder>,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) method: Method,
    pub(crate) candidates: Vec<BitWidth>,
    /// Every format of every candidate width.
    pub(crate) formats: Vec<Format>,
    pub(crate) learning: Settings,
    pub(crate) scores: ScoreSource,
    pub(crate) batch: usize,
    pub(crate) products: Products,
    pub(crate) sequences: Sequences,
    pub(crate) bank: Mutex<CandidateBank>,
    /// Sequences that the model wrote itself, once it has.
    pub(crate) sampled: OnceLock<Parts>,
    /// Bytes of the calibration text.
    pub(crate) text_bytes: u64,
    /// Bytes that learning may take.
    pub(crate) max_memory: Option<u64>,
    /// Where the rest goes.
    pub(crate) scratch: PathBuf,
}

/// Calibration sequences, by what they are for.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Scores come from these, and moves are measured on them.
    pub(crate) learned: Vec<Vec<u32>>,
    /// What is accepted is decided on these.
    pub(crate) gate: Vec<Vec<u32>>,
}

impl Parts {
    /// All of `sequences` but `gate` of them, which are taken from all over. Where none can be spared
    /// (`gate` is 0), a quarter serves both purposes.
    pub(crate) fn new(sequences: Vec<Vec<u32>>, gate: usize) -> Self {
        let all = sequences.len();
        let held_back = |count: usize, i: usize| (i + 1) * count / all.max(1) > i * count / all.max(1);
        if gate == 0 {
            let quarter = all.div_ceil(4).max(2).min(all);
            let pairs = sequences.iter().enumerate().filter(|&(i, _)| held_back(quarter, i));
            return Self { gate: pairs.map(|(_, tokens)| tokens.clone()).collect(), learned: sequences };
        }
        let (mut learned, mut held) = (Vec::new(), Vec::new());
        for (i, tokens) in sequences.into_iter().enumerate() {
            if held_back(gate, i) { &mut held } else { &mut learned }.push(tokens);
        }
        Self { learned, gate: held }
    }
}

/// Calibration tokens, or how to get them.
#[derive(Debug)]
pub(crate) enum Sequences {
    Text(Parts),
    Sampled { learned: usize, gate: usize, length: usize, seed: u64 },
    None,
}

impl Run {
    /// The model's sizes and constants.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.source.config()
    }

    /// The device that runs the model.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.decoder.device()
    }

    /// The bit-widths that compete, in rising order.
    #[must_use]
    pub fn candidates(&self) -> &[BitWidth] {
        &self.candidates
    }

    /// The formats that compete: those of the candidate widths.
    #[must_use]
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The quantizer and its settings in words, what prepares the weights for it included.
    #[must_use]
    pub fn quantizer(&self) -> String {
        self.method.describe()
    }

    /// Quantizes every module in every format and learns what each choice costs.
    ///
    /// # Errors
    /// [`Error`] names the module, tensor or step at fault; [`Error::Interrupted`] if `progress`
    /// broke.
    pub fn learn(&self, progress: &mut dyn Progress) -> Result<Scores, Error> {
        self.learn_seeded(self.learning.seed, progress)
    }

    /// [`learn`](Self::learn) with another seed: how much of the scores is chance.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn learn_seeded(&self, seed: u64, progress: &mut dyn Progress) -> Result<Scores, Error> {
        Ok(self.learn_detailed(seed, progress)?.scores)
    }

    /// [`learn_seeded`](Self::learn_seeded), with all that was seen on the way: how well each score
    /// is supported by the calibration data.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn learn_detailed(&self, seed: u64, progress: &mut dyn Progress) -> Result<Learning, Error> {
        self.learn_by(&Settings { seed, ..self.learning.clone() }, self.scores, progress)
    }

    /// [`learn_detailed`](Self::learn_detailed) by other settings than those of this run, on the same
    /// candidates and calibration data: what a setting is worth.
    ///
    /// # Errors
    /// As [`learn`](Self::learn); [`Error`] names a setting that is out of range or does not go with
    /// the scores.
    pub fn learn_by(
        &self,
        settings: &Settings,
        source: ScoreSource,
        progress: &mut dyn Progress,
    ) -> Result<Learning, Error> {
        source.check(settings)?;
        let room = self.room()?;
        let bank = self.fill_within(&room, progress)?;
        let sequences = self.sequences(progress)?;
        let mut network = self.network(&bank, &room);
        let mut report = |step: &gamma_preference::Step| progress.event(Event::Learning(*step));
        let learned = learn(&mut network, &self.batches(sequences), settings, &mut report)?;
        self.scored(learned, &bank, (settings, source), &room, progress)
    }

    /// [`learn_detailed`](Self::learn_detailed) with its state in a file, from which the same call goes on
    /// after an interruption, to the same scores bit for bit on the same device. A request of `progress`
    /// to stop is followed at the next place that learning can be taken up from.
    ///
    /// The state stays until [`StateFile::remove`]: first save the scores.
    ///
    /// ```no_run
    /// use gamma::{Calibration, Gamma, Quiet, StateFile};
    ///
    /// let run = Gamma::builder()
    ///     .model("path/to/hf-folder")
    ///     .calibration(Calibration::text_file("calib.txt"))
    ///     .build()?;
    /// let state = StateFile::new("scores.json.state");
    /// run.learn_kept(&state, &mut Quiet)?.scores.save("scores.json")?;
    /// state.remove()?;
    /// # Ok::<(), gamma::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`learn`](Self::learn); [`Error::OtherRun`] says in what the run that left the state differs.
    pub fn learn_kept(&self, file: &StateFile, progress: &mut dyn Progress) -> Result<Learning, Error> {
        let origin = self.origin(progress)?;
        let (sequences, settings) = (self.sequences(progress)?, &self.learning);
        // A state of another run is refused before the long work.
        let state = file.read(&origin)?;
        let room = self.room()?;
        let bank = self.fill_within(&room, progress)?;
        let mut network = self.network(&bank, &room);
        let inputs = self.batches(sequences);
        if let Some(state) = &state {
            let _ = progress.event(Event::Resuming { steps: state.steps() });
        }
        let mut keeper = Keeper::new(file, origin, progress);
        let learned = match state {
            None => learn(&mut network, &inputs, settings, &mut keeper),
            Some(state) => resume(&mut network, &inputs, settings, state, &mut keeper),
        };
        keeper.finish()?;
        self.scored(learned?, &bank, (settings, self.scores), &room, progress)
    }

    /// What was learned as scores.
    pub(crate) fn scored(
        &self,
        learned: Learned,
        bank: &CandidateBank,
        (settings, source): (&Settings, ScoreSource),
        room: &Room,
        progress: &mut dyn Progress,
    ) -> Result<Learning, Error> {
        let sequences = self.sequences(progress)?;
        let (kind, table, contexts) = match source {
            ScoreSource::Losses => (ScoreKind::Loss, &learned.losses, learned.contexts.clone()),
            ScoreSource::Logits => (ScoreKind::Logits, &learned.logits, Vec::new()),
        };
        let provenance = self.provenance(sequences, &settings.to_string(), settings.named());
        let remainder = self.remainder(table, &provenance)?;
        let remainder = match kind {
            ScoreKind::Loss => self.price_outside(remainder, settings, progress)?,
            _ => remainder,
        };
        let table = table.clone();
        let scores = ScoresFile { kind, provenance, remainder, routing: None, table, contexts };
        let scores = Scores::new(self.heed_experts(scores, bank, sequences, room, progress)?);
        Ok(Learning { scores, learned })
    }

    /// What could be chosen, before anything is learned: the options of every module with their
    /// sizes, at no cost. Enough to ask whether a [`Problem`](crate::Problem) has a plan at all.
    /// `None` where the quantizer's own code does not say beforehand what it takes.
    ///
    /// # Errors
    /// [`Error`] if the checkpoint cannot be read.
    pub fn options(&self) -> Result<Option<Scores>, Error> {
        let fitting = self.fitting()?;
        let module = |module: gamma_model::Module| {
            let option = |format: &Format| {
                let size = self.method.quantizer.stored_bits(format, module.shape)?;
                Some(ScoredOption::new(format.clone(), size, 0.0))
            };
            let options: Option<Vec<_>> =
                fitting.get(&module.name).into_iter().flatten().map(option).collect();
            options.map(|options| ModuleScores { name: module.name, shape: module.shape, options })
        };
        let modules: Option<Vec<_>> =
            (0..self.config().blocks).flat_map(|block| self.config().modules(block)).map(module).collect();
        let Some(table) = modules.and_then(|modules| ScoreTable::new(modules).ok()) else { return Ok(None) };
        let provenance = self.provenance(&[], &self.learning.to_string(), self.learning.named());
        let remainder = self.with_options(self.remainder(&table, &provenance)?);
        let contexts = Vec::new();
        let kind = ScoreKind::Loss;
        Ok(Some(Scores::new(ScoresFile { kind, provenance, remainder, routing: None, table, contexts })))
    }

    /// Makes every module in every format, where that has not been done, and gives the bank.
    pub(crate) fn fill(&self, progress: &mut dyn Progress) -> Result<CandidateBank, Error> {
        self.fill_within(&self.room()?, progress)
    }

    pub(crate) fn fill_within(
        &self,
        room: &Room,
        progress: &mut dyn Progress,
    ) -> Result<CandidateBank, Error> {
        // A quantizer that needs no data must not ask for any.
        let sequences =
            if self.method.needs() == CalibrationNeeds::Nothing { &[] } else { self.sequences(progress)? };
        let mut bank = self.bank();
        let fitting = self.fitting()?;
        let wanted = |module: &ModuleName| fitting.get(module).cloned().unwrap_or_default();
        bank.fill(&self.decoder, &self.method, &self.batches(sequences), &wanted, room, progress)?;
        Ok(bank.clone())
    }

    /// Of each module, the formats whose blocks fit it.
    pub(crate) fn fitting(&self) -> Result<BTreeMap<ModuleName, Vec<Format>>, Error> {
        let mut fitting = BTreeMap::new();
        for module in (0..self.config().blocks).flat_map(|block| self.config().modules(block)) {
            let fits = |format: &&Format| self.method.quantizer.fits(format, module.shape);
            let formats: Vec<Format> = self.formats.iter().filter(fits).cloned().collect();
            if formats.is_empty() {
                let (shape, quantizer) = (module.shape, self.method.describe());
                return Err(Error::NothingFits { module: module.name, shape, quantizer });
            }
            fitting.insert(module.name, formats);
        }
        Ok(fitting)
    }

    /// The checkpoint, which is copied where a model is written.
    pub(crate) fn folder(&self) -> Result<&Path, Error> {
        self.folder.as_deref().ok_or(Error::NoFolder { wanted: "a checkpoint to write the model from" })
    }

    /// What the model holds besides the modules of `table`, whose scores come from `provenance`; unknown
    /// for a model without a folder.
    pub(crate) fn remainder(
        &self,
        table: &ScoreTable,
        provenance: &Provenance,
    ) -> Result<Option<Remainder>, Error> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let config = self.config();
        let [blocks, kv_heads, head_dim] =
            [config.blocks, config.kv_heads, config.head_dim].map(|number| number as u64);
        let cache = Some(CacheShape { blocks, kv_heads, head_dim });
        let gguf = self.gguf_remainder(table, provenance);
        Ok(Some(Remainder { cache, gguf, ..gamma_export::remainder(folder, table)? }))
    }

    /// What the model holds besides the modules that are allocated bits, by role: embeddings, norms, the
    /// routers of experts. No plan changes these weights.
    ///
    /// # Errors
    /// [`Error`] if the checkpoint cannot be read.
    pub fn unplanned(&self) -> Result<BTreeMap<FixedRole, Unplanned>, Error> {
        let modules = (0..self.config().blocks).flat_map(|block| self.config().modules(block));
        let names: Vec<ModuleName> = modules.map(|module| module.name).collect();
        Ok(gamma_export::unplanned(self.folder()?, &names)?)
    }

    /// Weights of all modules that are allocated bits.
    #[must_use]
    pub fn planned_weights(&self) -> u64 {
        let modules = (0..self.config().blocks).flat_map(|block| self.config().modules(block));
        modules.map(|module| module.shape.map(|side| side as u64).iter().product::<u64>()).sum()
    }

    /// Quantizes the model as `plan` says.
    ///
    /// # Errors
    /// [`Error`] if the plan was made for other weights, names other modules, or asks for formats
    /// that the quantizer does not make.
    pub fn apply(&self, plan: &Plan) -> Result<Applied<'_>, Error> {
        self.apply_watched(plan, &mut Quiet)
    }

    /// [`apply`](Self::apply) with progress.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); [`Error::Interrupted`] if `progress` broke.
    #[expect(clippy::missing_panics_doc, reason = "the bank was filled for exactly these weights")]
    pub fn apply_watched(&self, plan: &Plan, progress: &mut dyn Progress) -> Result<Applied<'_>, Error> {
        self.check(plan)?;
        let mut bank = self.bank();
        let wanted = |module: &ModuleName| {
            plan.choice(module).map(|choice| choice.format.clone()).into_iter().collect()
        };
        let needs_data = self.method.needs() != CalibrationNeeds::Nothing;
        let sequences = if needs_data { self.sequences(progress)? } else { &[] };
        let other_calibration = needs_data && digest(sequences) != plan.provenance().calibration;
        let (inputs, room) = (self.batches(sequences), self.room_for_states()?);
        bank.fill(&self.decoder, &self.method, &inputs, &wanted, &room, progress)?;
        let weight = |choice: &gamma_core::Choice| {
            let weight = bank.get(&choice.name, &choice.format).transpose()?;
            Some(weight.map(|weight| (choice.name.clone(), weight)))
        };
        let weights = plan.choices().iter().filter_map(weight).collect::<Result<BTreeMap<_, _>, _>>()?;
        assert_eq!(weights.len(), plan.choices().len(), "the bank was filled for this plan");
        Ok(Applied { run: self, plan: plan.clone(), weights, scales: bank.scales(), other_calibration })
    }

    /// Prepares to judge plans on text from UTF-8 files, in windows of `length` tokens; `limit`
    /// bounds the number of windows. Runs the full-precision model once.
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read, holds too little text, or the windows do not fit the
    /// model's context.
    pub fn jury(
        &self,
        paths: &[PathBuf],
        length: Option<usize>,
        limit: Option<usize>,
        progress: &mut dyn Progress,
    ) -> Result<Jury, Error> {
        let length = length.unwrap_or(self.config().max_positions.min(2048));
        self.jury_by(&Protocol { length, stride: length, limit }, paths, progress)
    }

    /// [`jury`](Self::jury) by any protocol, such as one whose windows overlap.
    ///
    /// # Errors
    /// As [`jury`](Self::jury).
    pub fn jury_by(
        &self,
        protocol: &Protocol,
        paths: &[PathBuf],
        progress: &mut dyn Progress,
    ) -> Result<Jury, Error> {
        let text = self.text.as_ref().ok_or(Error::NoFolder { wanted: "text as tokens" })?;
        let windows = text.encode_files(paths)?.sliding(protocol.length, protocol.stride)?;
        let windows = protocol.limit.map_or(windows.clone(), |limit| windows.spread(limit.max(1)));
        Jury::new(self, windows, protocol.length, progress)
    }

    pub(crate) fn bank(&self) -> MutexGuard<'_, CandidateBank> {
        // A panic cannot leave the bank half-filled: entries go in one by one, complete.
        self.bank.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequences that scores come from.
    pub(crate) fn sequences(&self, progress: &mut dyn Progress) -> Result<&[Vec<u32>], Error> {
        Ok(&self.parts(progress)?.learned)
    }

    /// The sequences that decide what is accepted.
    pub(crate) fn gate(&self, progress: &mut dyn Progress) -> Result<&[Vec<u32>], Error> {
        Ok(&self.parts(progress)?.gate)
    }

    /// How many sequences decide, or will once they are sampled.
    pub(crate) fn gate_size(&self) -> usize {
        match &self.sequences {
            Sequences::Text(parts) => parts.gate.len(),
            &Sequences::Sampled { gate, .. } => gate,
            Sequences::None => 0,
        }
    }

    fn parts(&self, progress: &mut dyn Progress) -> Result<&Parts, Error> {
        match &self.sequences {
            Sequences::Text(parts) => Ok(parts),
            &Sequences::Sampled { learned, gate, length, seed } => {
                if let Some(parts) = self.sampled.get() {
                    return Ok(parts);
                }
                let mut tick = |done| progress.event(Event::Sampling { done, total: length });
                let sequences = sample(&self.decoder, learned + gate, length, seed, &mut tick)?;
                let parts = Parts::new(sequences.ok_or(Error::Interrupted)?, gate);
                Ok(self.sampled.get_or_init(|| parts))
            }
            Sequences::None => Err(Error::Missing {
                setting: "calibration",
                expected: "learning, and quantizers that look at data, need text: `Calibration::text_file(path)`",
            }),
        }
    }

    /// What learns from `bank`.
    pub(crate) fn network<'a>(&'a self, bank: &'a CandidateBank, room: &'a Room) -> BankedDecoder<'a> {
        BankedDecoder::new(&self.decoder, bank, &self.formats).within(room).multiplying_in(self.products)
    }

    /// The residual stream before the first block, batch by batch.
    pub(crate) fn batches<'a>(&'a self, sequences: &'a [Vec<u32>]) -> Embedded<'a> {
        Embedded { decoder: &self.decoder, sequences, batch: self.batch }
    }

    /// Whether `plan` fits this model and this quantizer.
    fn check(&self, plan: &Plan) -> Result<(), Error> {
        let then = plan.provenance();
        let now = Provenance { weights: self.weights, tensors: self.tensors.clone(), ..then.clone() };
        if !then.has_weights_of(&now) {
            let tensors = then.differing_tensors(&now);
            return Err(Error::OtherWeights { plan: then.weights, model: self.weights, tensors });
        }
        let modules: BTreeMap<ModuleName, [usize; 2]> = (0..self.config().blocks)
            .flat_map(|block| self.config().modules(block))
            .map(|module| (module.name, module.shape))
            .collect();
        for choice in plan.choices() {
            let Some(&model) = modules.get(&choice.name) else {
                return Err(Error::Modules { module: choice.name.clone(), in_plan: true });
            };
            if model != choice.shape {
                return Err(Error::Shape {
                    module: choice.name.clone(),
                    expected: model,
                    found: choice.shape,
                });
            }
            let quantizer = &self.method.quantizer;
            if !quantizer.formats(choice.format.bits()).contains(&choice.format)
                || !quantizer.fits(&choice.format, choice.shape)
            {
                return Err(Error::Format {
                    module: choice.name.clone(),
                    format: choice.format.clone(),
                    quantizer: self.method.describe(),
                });
            }
        }
        for excluded in plan.excluded() {
            if !modules.contains_key(excluded) {
                return Err(Error::Modules { module: excluded.clone(), in_plan: true });
            }
        }
        let covered = |name: &ModuleName| plan.choice(name).is_some() || plan.excluded().contains(name);
        match modules.into_keys().find(|name| !covered(name)) {
            None => Ok(()),
            Some(module) => Err(Error::Modules { module, in_plan: false }),
        }
    }
}
