//! The command line.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gamma::{
    Builder, Calibration, Device, DeviceName, Gamma, Limits, Normaliser, Objective, Pressure, Products,
    Reading, Sampling, ScoreSource, Settings, Solver,
};

use crate::{
    ablate::AblateArgs,
    budget::{BudgetArg, ChangeArg, SizeArg},
    compare::CompareArgs,
    constraints::ConstraintArgs,
    eval::EvalArgs,
    export::ExportArgs,
    hub,
    judging::JudgingArgs,
    keeping::KeepingArgs,
    quantizer::{Method, QuantizerArgs},
    refinement::{RefinementArgs, RivalArgs},
};

/// Learns how many bits each module of a language model deserves, and plans for any budget.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Learn, plan, refine, quantize, and compare with uniform precision: all at once
    Run(RunArgs),
    /// Learn what each option of each module costs, and write the scores
    Learn(LearnArgs),
    /// Plan for one or more budgets from a score file, without the model
    Project(ProjectArgs),
    /// Draw the cost of every budget at once from a score file
    Frontier(FrontierArgs),
    /// Say why a plan gives a module its format, and what any other one would bring
    Explain(ExplainArgs),
    /// Quantize a model as a plan says
    Apply(ApplyArgs),
    /// Write a plan as the file or folder that an engine loads, or as settings for another quantizer
    Export(ExportArgs),
    /// Measure perplexity, and divergence from full precision, of plans and checkpoints
    Eval(EvalArgs),
    /// Measure methods of allocation against each other, on the same candidates and budgets
    Compare(CompareArgs),
    /// Measure what each part of the method is worth: objectives, scores, samples
    Ablate(AblateArgs),
}

/// What to learn from and how.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Hugging Face folder (config.json, safetensors, tokenizer.json); with the feature `hub` also
    /// a name such as Qwen/Qwen3-0.6B
    #[arg(long, value_name = "DIR")]
    model: String,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Where the model runs.
#[derive(Clone, Copy, Debug, Args)]
pub struct DeviceArgs {
    /// What runs the model: cpu, or what this build was made with of wgpu, vulkan, metal, cuda and rocm;
    /// a number picks one of several, as in wgpu:1
    #[arg(long = "device", value_name = "NAME", default_value_t = DeviceName::CPU)]
    name: DeviceName,
}

/// What to calibrate on.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Calibration text, UTF-8; several files are joined. `sampled` lets the model write its own
    #[arg(long, value_name = "FILE", num_args = 1..)]
    calibration: Vec<PathBuf>,
    /// Calibration sequences
    #[arg(long, default_value_t = 128)]
    sequences: usize,
    /// Tokens per sequence, and per window where text is judged [default: 2048, or the model's
    /// context if that is shorter]
    #[arg(long)]
    length: Option<usize>,
    /// Seed of all random draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// How to learn.
#[derive(Debug, Args)]
pub struct LearningArgs {
    #[command(flatten)]
    quantizer: QuantizerArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Bit-widths that compete
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 4, 5, 6, 8])]
    candidates: Vec<u8>,
    /// Which numbers become the scores
    #[arg(long, value_enum, default_value_t = Score::Losses)]
    score: Score,
    /// What each block is fed with while learning
    #[arg(long, value_enum, default_value_t = ReadingArg::Through)]
    reading: ReadingArg,
    /// Weight of the errors of hidden states, where the student runs through [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    hidden_weight: Option<f64>,
    /// Weight of the divergence of the predictions, where the student runs through [default: 1]
    #[arg(long, value_name = "WEIGHT")]
    divergence_weight: Option<f64>,
    /// What the error of a hidden state is measured by
    #[arg(long, value_enum, default_value_t = NormaliserArg::Output)]
    normaliser: NormaliserArg,
    /// Hold one budget by an augmented Lagrangian instead of drawing budgets
    #[arg(long, value_name = "BITS")]
    target: Option<f64>,
    /// How choices enter the forward pass
    #[arg(long, value_enum, default_value_t = SamplingArg::Graded)]
    sampling: SamplingArg,
    /// Passes over the blocks
    #[arg(long, default_value_t = Settings::default().rounds)]
    rounds: usize,
    /// Gradient steps per block and pass
    #[arg(long, default_value_t = Settings::default().steps)]
    steps: usize,
    /// Sequences per gradient step
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Learn with matrix products in bf16, summed in f32: for graphics cards that have it
    #[arg(long)]
    bf16: bool,
    /// Memory that learning may take, such as 12GiB: packed candidates and hidden states beyond that go
    /// to a temporary file beside the results
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<SizeArg>,
    /// Print what learning takes (memory, disk, time), and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Score {
    /// Expected loss of each option; serves every budget
    Losses,
    /// Preference logits, as in the paper
    Logits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReadingArg {
    /// The student's own hidden states; asks for its predictions
    Through,
    /// Full-precision hidden states, each block on its own, as in the paper
    Teacher,
    /// None: the error of every module's own output, in closed form
    PerModule,
    /// Full-precision hidden states that give way to half the student's over the rounds
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SamplingArg {
    /// Mixtures where the budget is within three quarters of a bit of the least, else one candidate
    Graded,
    /// One candidate of each module, drawn
    Hard,
    /// Gumbel-softmax mixtures, the paper's relaxation
    Soft,
    /// The same mixtures without noise
    Mean,
    /// One candidate of each module, drawn, and every option in turn: no gradients, many forward passes;
    /// not where the student runs through
    Conditional,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NormaliserArg {
    /// The size of the residual stream
    Output,
    /// What the block adds to it
    Update,
    /// The diagonal Fisher information of the predictions
    Fisher,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub learning: LearningArgs,
    #[command(flatten)]
    pub judging: JudgingArgs,
    #[command(flatten)]
    pub budgets: BudgetArgs,
    #[command(flatten)]
    pub constraints: ConstraintArgs,
    #[command(flatten)]
    pub refinement: RefinementArgs,
    #[command(flatten)]
    pub rivals: RivalArgs,
    /// Take these scores instead of learning; refused if they are not those of exactly this run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "fresh", "bootstrap"])]
    pub scores: Option<PathBuf>,
    /// Draw the calibration data anew this many times, and say which choices they hardly decide
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub bootstrap: usize,
    #[command(flatten)]
    pub keeping: KeepingArgs,
    /// Folder for scores, plans, checkpoints, table and picture; earlier results are replaced
    #[arg(long, value_name = "DIR", default_value = "gamma-out")]
    pub out: PathBuf,
    /// Write the plans but no quantized checkpoints
    #[arg(long)]
    pub no_checkpoints: bool,
}

#[derive(Debug, Args)]
pub struct LearnArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub learning: LearningArgs,
    #[command(flatten)]
    pub keeping: KeepingArgs,
    /// Leave the state of learning beside the scores, so that candidates can be added later
    #[arg(long)]
    pub keep_state: bool,
    /// Score only the candidates that were added since the run whose state this file holds
    #[arg(long, value_name = "STATE")]
    pub extend: Option<PathBuf>,
    /// Where the scores go
    #[arg(long, value_name = "FILE", default_value = "scores.json")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct ProjectArgs {
    /// A score file
    #[arg(long, value_name = "FILE")]
    pub scores: PathBuf,
    #[command(flatten)]
    pub budgets: BudgetArgs,
    #[command(flatten)]
    pub constraints: ConstraintArgs,
    /// Stay near this plan; `--change` says how near
    #[arg(long, value_name = "PLAN", requires = "change")]
    pub near: Option<PathBuf>,
    /// How much of the plan given by --near may change: a number of modules, or bytes such as 10MiB
    #[arg(long, value_name = "COUNT|SIZE", requires = "near")]
    pub change: Option<ChangeArg>,
    /// The cheapest plans in order, this many for each budget
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = count)]
    pub top: usize,
    /// Print where the bytes go
    #[arg(long)]
    pub footprint: bool,
    /// Folder for the plans, as plan-BUDGET.json; printed only if not given
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A number of plans that one can look at.
fn count(text: &str) -> Result<usize, String> {
    const MOST: usize = 10_000;
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("expected a number from 1 to {MOST}"))
}

#[derive(Debug, Args)]
pub struct FrontierArgs {
    /// A score file
    #[arg(long, value_name = "FILE")]
    pub scores: PathBuf,
    #[command(flatten)]
    pub constraints: ConstraintArgs,
    /// Budgets between the smallest and the cheapest plan that are solved exactly
    #[arg(long, value_name = "COUNT", default_value_t = 24)]
    pub points: usize,
    /// Folder for frontier.csv and frontier.svg; printed only if not given
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A plan file
    pub plan: PathBuf,
    /// The exact name of a module
    pub module: String,
    /// The score file that the plan was made from
    #[arg(long, value_name = "FILE")]
    pub scores: PathBuf,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A plan file
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// How weights are quantized, in the formats of the plan [default: as the plan was learned]
    #[arg(long, value_enum)]
    pub quantizer: Option<Method>,
    #[command(flatten)]
    pub text: TextArgs,
    /// Folder for the quantized checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Store decoded weights in the type of the source instead of f32
    #[arg(long)]
    pub source_type: bool,
    /// Replace an existing folder
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// 3.2 (as large as uniform 3.2 bits), 3.5bpw (stored bits per weight), 3.5cbw (code bits per
    /// weight), 120MiB (allocated modules), `file:200MiB` (whole packed file), `gguf:200MiB` (GGUF
    /// file, options of `--quantizer ggml`) or `device:8GiB@4096x2` (memory with a 16-bit cache of 4096 tokens, batch 2); repeatable
    #[arg(long = "budget", value_name = "BUDGET", required = true)]
    pub budgets: Vec<BudgetArg>,
    /// Who solves the integer program
    #[arg(long, value_enum, default_value_t = SolverArg::Auto)]
    solver: SolverArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SolverArg {
    /// The fastest exact one
    Auto,
    /// gamma's own
    Knapsack,
    /// HiGHS
    Highs,
}

impl BudgetArgs {
    pub fn limits(&self) -> Limits {
        Limits::default().solver(match self.solver {
            SolverArg::Auto => Solver::Auto,
            SolverArg::Knapsack => Solver::Knapsack,
            SolverArg::Highs => Solver::Highs,
        })
    }
}

impl ModelArgs {
    /// The model as it was given.
    pub fn name(&self) -> &str {
        &self.model
    }

    /// A builder for this model, without calibration text.
    pub fn builder(&self) -> anyhow::Result<Builder> {
        let model = hub::resolve(&self.model)?;
        Ok(Gamma::builder().device(self.device.open()?).model(model).calibration(Calibration::none()))
    }
}

impl DeviceArgs {
    /// The device.
    pub fn open(self) -> anyhow::Result<Device> {
        Ok(self.name.open()?)
    }
}

impl TextArgs {
    /// Tokens per sequence, where given.
    pub fn length(&self) -> Option<usize> {
        self.length
    }

    /// The text, where one is given.
    pub fn calibration(&self) -> Option<Calibration> {
        let calibration = match self.calibration.as_slice() {
            [] => return None,
            [word] if word.as_os_str() == "sampled" => Calibration::sampled(),
            files => Calibration::text_files(files),
        };
        let calibration = calibration.sequences(self.sequences).seed(self.seed);
        Some(match self.length {
            Some(length) => calibration.length(length),
            None => calibration,
        })
    }
}

impl LearningArgs {
    /// The calibration data, in words.
    pub fn describe_text(&self) -> String {
        let length = self.text.length.map_or(String::new(), |length| format!(" of {length} tokens"));
        format!("{} calibration sequences{length}", self.text.sequences)
    }

    /// Tokens per sequence, where given.
    pub fn length(&self) -> Option<usize> {
        self.text.length
    }

    /// Seed of all random draws.
    pub fn seed(&self) -> u64 {
        self.text.seed
    }

    fn objective(&self) -> anyhow::Result<Objective> {
        let (hidden, divergence) = (self.hidden_weight, self.divergence_weight);
        if self.reading != ReadingArg::Through && hidden.or(divergence).is_some() {
            bail!("only `--reading through` has two terms to weigh");
        }
        let reading = match self.reading {
            ReadingArg::Through => {
                Reading::Through { hidden: hidden.unwrap_or(0.0), divergence: divergence.unwrap_or(1.0) }
            }
            ReadingArg::Teacher => Reading::Teacher,
            ReadingArg::PerModule => Reading::PerModule,
            ReadingArg::Mixed => Reading::Mixed { last: 0.5 },
        };
        let normaliser = match self.normaliser {
            NormaliserArg::Output => Normaliser::Output,
            NormaliserArg::Update => Normaliser::Update,
            NormaliserArg::Fisher => Normaliser::Fisher,
        };
        Ok(Objective { reading, normaliser })
    }

    /// How scores are learned.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let defaults = Settings::default();
        Ok(Settings {
            objective: self.objective()?,
            pressure: match self.target {
                Some(target) => Pressure::AugmentedLagrangian { target, rho: 2.0 },
                None => defaults.pressure,
            },
            sampling: match self.sampling {
                SamplingArg::Graded => Sampling::Graded,
                SamplingArg::Hard => Sampling::Hard,
                SamplingArg::Soft => Sampling::Soft,
                SamplingArg::Mean => Sampling::Mean,
                SamplingArg::Conditional => Sampling::Conditional,
            },
            rounds: self.rounds,
            steps: self.steps,
            seed: self.text.seed,
            ..defaults
        })
    }

    /// Adds everything that concerns learning; `out` is the folder of the results.
    pub fn complete(&self, builder: Builder, out: Option<&Path>) -> anyhow::Result<Builder> {
        let Some(calibration) = self.text.calibration() else {
            bail!("learning needs text: `--calibration FILE`, or `--calibration sampled`");
        };
        let settings = self.settings()?;
        let scores = match self.score {
            Score::Losses => ScoreSource::Losses,
            Score::Logits => ScoreSource::Logits,
        };
        let mut builder = self.quantizer.complete(builder)?;
        if self.bf16 {
            builder = builder.products(Products::Bf16);
        }
        if let Some(SizeArg(bytes)) = self.max_memory {
            builder = builder.max_memory(bytes);
        }
        if let Some(folder) = out.filter(|folder| !folder.as_os_str().is_empty()) {
            builder = builder.scratch(folder);
        }
        Ok(builder
            .calibration(calibration)
            .candidates(self.candidates.iter().copied())
            .learning(settings)
            .scores(scores)
            .batch(self.batch))
    }
}
