//! The learning run: a survey of all candidates, then rounds of gradient steps on the logits.

use burn::tensor::Tensor;
use gamma_core::{ModuleScores, ScoreTable, ScoredOption, non_increasing};
use rand::RngExt;

use crate::{
    Bank, Block, Competitor, LearnError, Network, Pressure, Progress, Settings, Step,
    adam::Adam,
    choices::{Draw, Shares, balanced, draw, softmax, stream},
    price::{Multiplier, Widths, tilt},
    reconstruction::{Slopes, Target, slopes, stream_energy},
    tally::{Estimate, Tally},
};

/// Random streams for draws that belong to a whole round, or to all steps of a block.
const NOT_A_BLOCK: usize = (1 << 24) - 1;
const NOT_A_STEP: usize = (1 << 24) - 1;

/// What a learning run leaves behind.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Mean in-context loss of every option, non-increasing in stored bits. Units: squared error
    /// of a block's output relative to the mean squared norm of the residual stream.
    pub losses: ScoreTable,
    /// Negated preference logits.
    pub logits: ScoreTable,
    /// Loss of all blocks together when every module chooses at random.
    pub random_loss: f64,
    /// The multiplier at the end: the slope of the normalised loss in bits per weight. `None`
    /// where budgets were drawn.
    pub multiplier: Option<f64>,
}

/// Learns preferences for all modules of `network` from the residual stream before its first
/// block: `inputs`, batches of shape `[batch, tokens, width]`.
///
/// Each block is fed with what the full-precision model feeds it and asked for the full-precision
/// output (teacher forcing), so blocks are loaded one at a time. Reproducible from
/// `settings.seed` on one backend.
///
/// # Errors
/// [`LearnError`] names the setting, block or module at fault; [`LearnError::Interrupted`] if
/// `progress` broke.
pub fn learn<N: Network>(
    network: &mut N,
    inputs: &[Tensor<3>],
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Learned, LearnError<N::Error>> {
    settings.check()?;
    if inputs.is_empty() {
        return Err(LearnError::Nothing("no calibration sequences"));
    }
    let blocks = network.competitors().to_vec();
    let empty = |block: &Vec<Competitor>| block.is_empty() || block.iter().any(|m| m.candidates.is_empty());
    if blocks.is_empty() || blocks.iter().any(empty) {
        return Err(LearnError::Nothing(
            "no blocks, a block without modules, or a module without candidates",
        ));
    }
    let mut learner = Learner::new(blocks, settings);
    learner.check_target()?;
    for round in 0..=settings.rounds {
        let mut hidden: Vec<Tensor<3>> =
            learner.batches(round, inputs.len()).into_iter().map(|batch| inputs[batch].clone()).collect();
        for block in 0..learner.blocks.len() {
            let bank = network.load(block).map_err(|source| LearnError::Load { block, source })?;
            check(&bank, &learner.blocks[block]);
            let targets: Vec<Target> =
                hidden.iter().map(|h| Target::new(bank.block.forward(&bank.originals, h.clone()))).collect();
            learner.visit(round, block, &bank, &hidden, &targets, progress)?;
            hidden = targets.iter().map(Target::output).collect();
        }
        learner.end_round(round);
    }
    learner.finish()
}

/// Whether a bank is what the network promised.
fn check<B>(bank: &Bank<B>, modules: &[Competitor]) {
    assert_eq!(bank.originals.len(), modules.len(), "one original weight per module");
    assert_eq!(bank.differences.len(), modules.len(), "one set of differences per module");
    for ((module, original), differences) in modules.iter().zip(&bank.originals).zip(&bank.differences) {
        assert_eq!(original.dims(), module.shape, "the original of `{}`", module.name);
        let expected = [module.candidates.len(), module.shape[0] * module.shape[1]];
        assert_eq!(differences.dims(), expected, "the differences of `{}`", module.name);
    }
}

struct Learner<'a> {
    settings: &'a Settings,
    blocks: Vec<Vec<Competitor>>,
    widths: Widths,
    logits: Vec<Vec<f64>>,
    adam: Adam,
    tallies: Vec<Tally>,
    /// Latest loss per block, smoothed over steps.
    losses: Vec<f64>,
    /// Loss of all blocks at random choices: the unit of the Lagrangian.
    random_loss: f64,
    multiplier: Option<Multiplier>,
    price: f64,
    done: usize,
    total: usize,
}

impl<'a> Learner<'a> {
    fn new(blocks: Vec<Vec<Competitor>>, settings: &'a Settings) -> Self {
        let modules: Vec<&Competitor> = blocks.iter().flatten().collect();
        let logits: Vec<Vec<f64>> = modules.iter().map(|module| vec![0.0; module.candidates.len()]).collect();
        let tallies: Vec<Tally> = logits.iter().map(|theta| Tally::new(theta.len())).collect();
        let survey: usize = blocks.iter().map(|modules| survey_steps(modules, settings)).sum();
        Self {
            widths: Widths::new(&modules),
            adam: Adam::new(settings.learning_rate, &logits),
            losses: vec![0.0; blocks.len()],
            tallies,
            logits,
            random_loss: 0.0,
            multiplier: None,
            price: 0.0,
            done: 0,
            total: survey + settings.rounds * settings.steps * blocks.len(),
            settings,
            blocks,
        }
    }

    /// The batches of a round, as many as it has steps per block, each once where there are enough:
    /// only these have to be run through the full-precision blocks.
    fn batches(&self, round: usize, available: usize) -> Vec<usize> {
        let steps = match round {
            0 => self.blocks.iter().map(|modules| survey_steps(modules, self.settings)).max().unwrap_or(1),
            _ => self.settings.steps,
        };
        let mut order = balanced(available, 1, &mut stream(self.settings.seed, round, NOT_A_BLOCK, 0));
        order.truncate(steps);
        order
    }

    /// Whether the candidates reach the budget that is to be held.
    fn check_target<E: std::error::Error>(&self) -> Result<(), LearnError<E>> {
        let (low, high) = self.widths.range();
        match self.settings.pressure {
            Pressure::AugmentedLagrangian { target, .. } if !(low..=high).contains(&target) => {
                Err(LearnError::Setting {
                    name: "pressure",
                    found: format!("a target of {target} bits"),
                    expected: "between the narrowest and the widest candidate",
                })
            }
            _ => Ok(()),
        }
    }

    /// All steps of one block in one round.
    fn visit<B: Block, E: std::error::Error>(
        &mut self,
        round: usize,
        block: usize,
        bank: &Bank<B>,
        inputs: &[Tensor<3>],
        targets: &[Target],
        progress: &mut dyn Progress,
    ) -> Result<(), LearnError<E>> {
        let energy = stream_energy(targets);
        let first = self.blocks[..block].iter().map(Vec::len).sum::<usize>();
        let surveyed = (round == 0).then(|| self.survey_choices(block));
        let steps = surveyed.as_ref().map_or(self.settings.steps, Vec::len);
        let mut sum = 0.0;
        for step in 0..steps {
            let mut rng = stream(self.settings.seed, round, block, step);
            let batch = step % inputs.len();
            let temperature = self.temperature(round);
            let draws = match &surveyed {
                Some(choices) => choices[step].clone(),
                None => self.draws(first, block, round, &mut rng),
            };
            let used: Vec<Shares> = draws.iter().map(|draw| draw.used.clone()).collect();
            let Slopes { loss, slopes } = slopes(bank, inputs[batch].clone(), &targets[batch], energy, &used);
            if let Some(module) = not_finite(loss, &slopes) {
                let module = self.blocks[block][module].name.clone();
                return Err(LearnError::NotFinite { block, round, step, module });
            }
            for (tally, (used, slopes)) in self.tallies[first..].iter_mut().zip(used.iter().zip(&slopes)) {
                tally.add(used, slopes);
            }
            if round > 0 {
                self.update(first, &draws, &slopes, temperature);
            } else {
                self.record_scale(first, &draws, &slopes);
            }
            sum += loss;
            self.losses[block] = sum / (step + 1) as f64;
            self.done += 1;
            let report = Step {
                round,
                block,
                done: self.done,
                total: self.total,
                loss: self.losses.iter().sum(),
                expected_bits: self.expected_bits(temperature),
                multiplier: self.price,
            };
            if progress.step(&report).is_break() {
                return Err(LearnError::Interrupted);
            }
        }
        Ok(())
    }

    /// Every candidate of every module equally often, in an order of its own per module.
    fn survey_choices(&self, block: usize) -> Vec<Vec<Draw>> {
        let modules = &self.blocks[block];
        let steps = survey_steps(modules, self.settings);
        let mut rng = stream(self.settings.seed, 0, block, NOT_A_STEP);
        let orders: Vec<(usize, Vec<usize>)> = modules
            .iter()
            .map(|module| {
                let candidates = module.candidates.len();
                (candidates, balanced(candidates, steps.div_ceil(candidates), &mut rng))
            })
            .collect();
        let choose = |step: usize| {
            let one = |(candidates, order): &(usize, Vec<usize>)| {
                let share = 1.0 / *candidates as f64;
                Draw { used: Shares::Pure(order[step]), soft: vec![share; *candidates] }
            };
            orders.iter().map(one).collect()
        };
        (0..steps).map(choose).collect()
    }

    /// One choice per module of the block, at the price of the moment.
    fn draws(&mut self, first: usize, block: usize, round: usize, rng: &mut impl rand::Rng) -> Vec<Draw> {
        let temperature = self.temperature(round);
        let tilted_by = match self.settings.pressure {
            Pressure::DrawnBudgets { from, to } => {
                let (from, to) = self.widths.reachable(from, to);
                let target = from + (to - from) * rng.random::<f64>();
                self.price = self.widths.price_for(&self.logits, target, temperature);
                self.price
            }
            Pressure::AugmentedLagrangian { .. } => 0.0,
        };
        let Settings { sampling, exploration, .. } = *self.settings;
        let mut one = |module: usize| {
            let logits = tilt(&self.logits[module], self.widths.of(module), tilted_by);
            draw(&logits, temperature, sampling, exploration, rng)
        };
        (first..first + self.blocks[block].len()).map(&mut one).collect()
    }

    /// One step of Adam on the logits of a block's modules. With `y` the sample that the gradient
    /// passes through, `p` the noise-free shares, and `n/N` the module's share of all weights,
    /// `∂/∂θ_k = y_k/τ (m_k - Σ y_j m_j)/R₀ + (λ + ρ g) n/N p_k/τ (c_k - Σ p_j c_j)`.
    fn update(&mut self, first: usize, draws: &[Draw], slopes: &[Vec<f64>], temperature: f64) {
        if let (Some(multiplier), Pressure::AugmentedLagrangian { target, .. }) =
            (self.multiplier, self.settings.pressure)
        {
            self.price = multiplier.price(self.widths.expected(&self.logits, 0.0, temperature) - target);
        }
        for (number, (draw, slopes)) in draws.iter().zip(slopes).enumerate() {
            let module = first + number;
            let unit = temperature * self.random_loss;
            let mut gradient: Vec<f64> = centred(&draw.soft, slopes).map(|slope| slope / unit).collect();
            if self.multiplier.is_some() {
                let (bits, shares) = (self.widths.of(module), softmax(&self.logits[module], temperature));
                let price = self.price * self.widths.share(module) / temperature;
                for (gradient, bits) in gradient.iter_mut().zip(centred(&shares, bits)) {
                    *gradient += price * bits;
                }
            }
            self.adam.update(module, &mut self.logits[module], &gradient);
        }
    }

    /// Tells Adam how large the gradients of each module are, from the survey.
    fn record_scale(&mut self, first: usize, draws: &[Draw], slopes: &[Vec<f64>]) {
        for (number, (draw, slopes)) in draws.iter().zip(slopes).enumerate() {
            let squares: f64 = centred(&draw.soft, slopes).map(|slope| slope * slope).sum();
            self.adam.record(first + number, squares / slopes.len() as f64);
        }
    }

    fn end_round(&mut self, round: usize) {
        if round == 0 {
            self.random_loss = self.losses.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            self.adam.start(self.temperature(1) * self.random_loss);
        }
        let Pressure::AugmentedLagrangian { target, rho } = self.settings.pressure else { return };
        match &mut self.multiplier {
            None => self.multiplier = Some(Multiplier::new(self.slope(), rho)),
            Some(multiplier) => {
                let temperature = self.settings.temperature_at(round - 1);
                multiplier.update(self.widths.expected(&self.logits, 0.0, temperature) - target);
            }
        }
    }

    /// How much the normalised loss falls per bit, from the survey: the first multiplier.
    fn slope(&self) -> f64 {
        let (low, high) = self.widths.range();
        let drop: f64 = self
            .tallies
            .iter()
            .enumerate()
            .map(|(module, tally)| {
                let (means, bits) = (tally.means(), self.widths.of(module));
                let cost = |pick: fn(f64, f64) -> bool| {
                    let end = (0..bits.len()).reduce(|a, b| if pick(bits[b], bits[a]) { b } else { a });
                    end.map_or(0.0, |k| means[k].mean)
                };
                cost(|b, a| b < a) - cost(|b, a| b > a)
            })
            .sum();
        (drop / self.random_loss / (high - low).max(f64::MIN_POSITIVE)).max(0.0)
    }

    /// Where budgets are drawn the temperature stays at 1: the samples have to cover the range.
    fn temperature(&self, round: usize) -> f64 {
        match self.settings.pressure {
            Pressure::DrawnBudgets { .. } => 1.0,
            Pressure::AugmentedLagrangian { .. } => self.settings.temperature_at(round.saturating_sub(1)),
        }
    }

    fn expected_bits(&self, temperature: f64) -> f64 {
        let price = match self.settings.pressure {
            Pressure::DrawnBudgets { .. } => self.price,
            Pressure::AugmentedLagrangian { .. } => 0.0,
        };
        self.widths.expected(&self.logits, price, temperature)
    }

    fn finish<E: std::error::Error>(self) -> Result<Learned, LearnError<E>> {
        let modules: Vec<&Competitor> = self.blocks.iter().flatten().collect();
        let table = |costs: &dyn Fn(usize) -> Vec<(f64, Option<f64>)>| {
            let scores = |(number, module): (usize, &&Competitor)| ModuleScores {
                name: module.name.clone(),
                shape: module.shape,
                options: module
                    .candidates
                    .iter()
                    .zip(costs(number))
                    .map(|(candidate, (cost, std_error))| ScoredOption {
                        format: candidate.format.clone(),
                        stored_bits: candidate.stored_bits,
                        cost,
                        std_error,
                    })
                    .collect(),
            };
            ScoreTable::new(modules.iter().enumerate().map(scores).collect())
        };
        let losses = table(&|module| repaired(modules[module], &self.tallies[module].means()))?;
        let logits = table(&|module| self.logits[module].iter().map(|theta| (-theta, None)).collect())?;
        let multiplier = self.multiplier.map(|multiplier| multiplier.lambda);
        Ok(Learned { losses, logits, random_loss: self.random_loss, multiplier })
    }
}

/// The costs of a module's candidates, from the survey and the learning rounds together, made
/// non-increasing in stored bits.
fn repaired(module: &Competitor, estimates: &[Estimate]) -> Vec<(f64, Option<f64>)> {
    let mut order: Vec<usize> = (0..estimates.len()).collect();
    order.sort_by_key(|&k| module.candidates[k].stored_bits);
    let mut costs: Vec<f64> = order.iter().map(|&k| estimates[k].mean).collect();
    let weights: Vec<f64> = order.iter().map(|&k| estimates[k].weight).collect();
    non_increasing(&mut costs, &weights);
    let mut answer = vec![(0.0, None); estimates.len()];
    for (&k, cost) in order.iter().zip(costs) {
        answer[k] = (cost, estimates[k].std_error());
    }
    answer
}

fn survey_steps(modules: &[Competitor], settings: &Settings) -> usize {
    modules.iter().map(|module| module.candidates.len()).max().unwrap_or(0) * settings.survey_draws
}

/// `y_k (v_k - Σ y_j v_j)`: the gradient of `Σ y_k v_k` in the logits behind the softmax `y`, but
/// for the temperature.
fn centred<'a>(shares: &'a [f64], values: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    let mean: f64 = shares.iter().zip(values).map(|(y, v)| y * v).sum();
    shares.iter().zip(values).map(move |(y, v)| y * (v - mean))
}

/// The first module with a slope that is not finite; the first of all if only the loss is not.
fn not_finite(loss: f64, slopes: &[Vec<f64>]) -> Option<usize> {
    let module = slopes.iter().position(|slopes| slopes.iter().any(|slope| !slope.is_finite()));
    module.or((!loss.is_finite()).then_some(0))
}
