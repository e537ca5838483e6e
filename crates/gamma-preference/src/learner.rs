//! What learning knows at any moment: logits, their optimizer, the price of a bit, and all that was
//! seen. Plain data, and random streams that depend on nothing but the seed and the position.

use burn::tensor::Tensor;
use gamma_core::{ScoreTable, ScoreTableError};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{
    Bank, Block, Competitor, Context, LearnError, Observations, Pressure, Progress, Sampling, Settings, Step,
    adam::Adam,
    choices::{Draw, Shares, balanced, draw, softmax, stream},
    observe::Estimate,
    ordered_sum,
    price::{Multiplier, Widths},
    reconstruction::{Scale, Target, mixed},
    scores::{floored, loss_table, loss_tables},
    shape::energies,
    state::Resumed,
};

/// Random streams for draws that belong to a whole round, or to all steps of a block.
pub(crate) const NOT_A_BLOCK: usize = (1 << 24) - 1;
pub(crate) const NOT_A_STEP: usize = (1 << 24) - 1;

/// Budgets so near to the least that is possible are sampled in mixtures, where samples are graded.
const MIXED: f64 = 0.75;

/// A step that runs through the whole network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// Its number in the round.
    pub(crate) step: usize,
    pub(crate) batch: usize,
    /// One per module of the network.
    pub(crate) draws: Vec<Draw>,
    /// The price of a bit that they were drawn at.
    pub(crate) price: f64,
}

pub(crate) struct Learner<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) blocks: Vec<Vec<Competitor>>,
    /// Latest loss per block, averaged over steps.
    pub(crate) losses: Vec<f64>,
    /// Likewise of the end loss.
    pub(crate) ending: f64,
    /// Loss of all blocks at random choices: the unit of the Lagrangian.
    pub(crate) random_loss: f64,
    pub(crate) seen: Observations,
    /// What costs are in proportion to, module by module; nothing where they are not pooled.
    pub(crate) shapes: Vec<Vec<f64>>,
    /// What every option costs by all that was seen before this round.
    pub(crate) costs: Vec<Vec<f64>>,
    pub(crate) logits: Vec<Vec<f64>>,
    pub(crate) multiplier: Option<Multiplier>,
    /// Where a resumed run goes on.
    pub(crate) resumed: Resumed,
    widths: Widths,
    pub(crate) adam: Adam,
    pub(crate) price: f64,
    /// Steps done.
    pub(crate) done: usize,
    total: usize,
}

impl<'a> Learner<'a> {
    pub(crate) fn new(blocks: Vec<Vec<Competitor>>, settings: &'a Settings) -> Self {
        let modules: Vec<&Competitor> = blocks.iter().flatten().collect();
        let logits: Vec<Vec<f64>> = modules.iter().map(|module| vec![0.0; module.candidates.len()]).collect();
        let survey: usize = blocks.iter().map(|modules| survey_steps(modules, settings)).sum();
        Self {
            resumed: Resumed::default(),
            widths: Widths::new(&modules),
            adam: Adam::new(settings.learning_rate, &logits),
            losses: vec![0.0; blocks.len()],
            ending: 0.0,
            seen: Observations::new(logits.len()),
            shapes: Vec::new(),
            costs: Vec::new(),
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

    /// Says how many steps there will be, where it is not the number of a survey and rounds.
    pub(crate) fn expect_steps(&mut self, total: usize) {
        self.total = total;
    }

    /// Number of the first module of `block`.
    pub(crate) fn first(&self, block: usize) -> usize {
        self.blocks[..block].iter().map(Vec::len).sum()
    }

    /// The batches of a round, as many as it has steps per block, each once where there are enough:
    /// only these have to be run through the full-precision blocks.
    pub(crate) fn batches(&self, round: usize, available: usize) -> Vec<usize> {
        let steps = if round == 0 { self.longest_survey() } else { self.settings.steps };
        let mut order = balanced(available, 1, &mut stream(self.settings.seed, round, NOT_A_BLOCK, 0));
        order.truncate(steps);
        order
    }

    fn longest_survey(&self) -> usize {
        self.blocks.iter().map(|modules| survey_steps(modules, self.settings)).max().unwrap_or(1)
    }

    /// Whether the candidates reach the budget that is to be held.
    pub(crate) fn check_target<E: std::error::Error>(&self) -> Result<(), LearnError<E>> {
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

    /// The steps of one block in one round that it takes on its own; `None` for a step whose draws
    /// depend on the steps before it.
    pub(crate) fn survey(&self, block: usize) -> Vec<Vec<Draw>> {
        self.survey_choices(block, survey_steps(&self.blocks[block], self.settings))
    }

    /// The passes of a round through the whole network, all drawn from the logits of this moment,
    /// or those of the round that a resumed run is in the midst of.
    pub(crate) fn passes(&mut self, round: usize, available: usize) -> Vec<Pass> {
        if self.resumed.is_within(round) && !self.resumed.passes.is_empty() {
            return std::mem::take(&mut self.resumed.passes);
        }
        let batches = self.batches(round, available);
        let steps = if round == 0 { self.longest_survey() } else { self.settings.steps };
        let surveyed: Vec<Vec<Vec<Draw>>> = match round {
            0 => (0..self.blocks.len()).map(|block| self.survey_choices(block, steps)).collect(),
            _ => Vec::new(),
        };
        let modules = self.logits.len();
        let mut pass = |step: usize| {
            let draws = if round == 0 {
                surveyed.iter().flat_map(|block| block[step].clone()).collect()
            } else {
                let mut rng = stream(self.settings.seed, round, NOT_A_BLOCK - 1, step);
                self.draws(0..modules, round, &mut rng)
            };
            Pass { step, batch: batches[step % batches.len()], draws, price: self.price }
        };
        (0..steps).map(&mut pass).collect()
    }

    /// Every candidate of every module equally often, in an order of its own per module.
    fn survey_choices(&self, block: usize, steps: usize) -> Vec<Vec<Draw>> {
        let modules = &self.blocks[block];
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

    /// One choice for each of `modules`, at the price of the moment.
    pub(crate) fn draws(
        &mut self,
        modules: std::ops::Range<usize>,
        round: usize,
        rng: &mut impl Rng,
    ) -> Vec<Draw> {
        let exploration = self.settings.exploration;
        match self.settings.pressure {
            Pressure::DrawnBudgets { from, to } => {
                let (from, to) = self.widths.reachable(from, to);
                let target = from + (to - from) * rng.random::<f64>();
                self.price = self.widths.price_for(&self.costs, target);
                let sampling = self.sampling_at(target);
                let mut one = |module: usize| {
                    let logits = self.widths.preferences(module, &self.costs[module], self.price);
                    draw(&logits, 1.0, sampling, exploration, rng)
                };
                modules.map(&mut one).collect()
            }
            Pressure::AugmentedLagrangian { target, .. } => {
                let (temperature, sampling) = (self.temperature(round), self.sampling_at(target));
                let mut one =
                    |module: usize| draw(&self.logits[module], temperature, sampling, exploration, rng);
                modules.map(&mut one).collect()
            }
        }
    }

    /// How choices enter a step with the budget `bits`.
    fn sampling_at(&self, bits: f64) -> Sampling {
        match self.settings.sampling {
            Sampling::Graded if bits < self.widths.range().0 + MIXED => Sampling::Soft,
            Sampling::Graded => Sampling::Hard,
            chosen => chosen,
        }
    }

    /// Takes in what a step found out about the modules from `first` on.
    pub(crate) fn take(
        &mut self,
        (round, batch): (usize, usize),
        first: usize,
        draws: &[Draw],
        loss: f64,
        slopes: &[Vec<f64>],
    ) {
        let context = self.seen.contexts.len();
        let bits = self.widths.average(first, draws.iter().map(|draw| &draw.used));
        self.seen.contexts.push(Context { round, batch, bits, loss });
        for (module, (draw, slopes)) in (first..).zip(draws.iter().zip(slopes)) {
            match self.settings.sampling {
                // Every option had its turn.
                Sampling::Conditional => {
                    self.seen.add(module, context, &Shares::Mixed(vec![1.0; slopes.len()]), slopes);
                }
                _ => self.seen.add(module, context, &draw.used, slopes),
            }
        }
        match self.settings.pressure {
            // The costs are all the preference there is.
            Pressure::DrawnBudgets { .. } => {}
            Pressure::AugmentedLagrangian { .. } if round == 0 => self.record_scale(first, draws, slopes),
            Pressure::AugmentedLagrangian { .. } => {
                self.update(first, draws, slopes, self.temperature(round));
            }
        }
    }

    /// One step of Adam on the logits of a block's modules. With `y` the sample that the gradient
    /// passes through, `p` the noise-free shares, and `n/N` the module's share of all weights,
    /// `∂/∂θ_k = y_k/τ (m_k - Σ y_j m_j)/R₀ + (λ + ρ g) n/N p_k/τ (c_k - Σ p_j c_j)`.
    fn update(&mut self, first: usize, draws: &[Draw], slopes: &[Vec<f64>], temperature: f64) {
        if let (Some(multiplier), Pressure::AugmentedLagrangian { target, .. }) =
            (self.multiplier, self.settings.pressure)
        {
            self.price = multiplier.price(self.widths.expected(&self.logits, temperature) - target);
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

    /// Tells the caller that a step of `block` is done; `price` is that of the step, where it has one
    /// of its own.
    pub(crate) fn report<E: std::error::Error>(
        &mut self,
        (round, block): (usize, usize),
        pass: Option<&Pass>,
        progress: &mut dyn Progress,
    ) -> Result<(), LearnError<E>> {
        self.done += 1;
        let price = pass.map_or(self.price, |pass| pass.price);
        let report = Step {
            round,
            block,
            done: self.done,
            total: self.total,
            loss: self.losses.iter().sum::<f64>() + self.ending,
            expected_bits: self.expected_bits(price, round),
            multiplier: price,
        };
        if progress.step(&report).is_break() { Err(LearnError::Interrupted) } else { Ok(()) }
    }

    /// What `block` should answer to each of the full-precision states before it, and how errors are
    /// measured there. In the survey the shapes of its modules are taken note of.
    pub(crate) fn targets<B: Block>(
        &mut self,
        (round, block): (usize, usize),
        bank: &Bank<B>,
        hidden: &[Tensor<3>],
        fisher: &[Tensor<3>],
    ) -> (Vec<Target>, Scale) {
        if round == 0 {
            self.see_shapes(block, bank, hidden);
        }
        let target = |h: &Tensor<3>| Target::new(bank.block.forward(&bank.originals, h.clone()));
        let targets: Vec<Target> = hidden.iter().map(target).collect();
        let normaliser = self.settings.objective.normaliser;
        let scale = Scale::new(normaliser, hidden.iter().zip(&targets), fisher.get(block));
        (targets, scale)
    }

    /// Takes note of the errors of the outputs of a block's modules, as [`energies`] gives them.
    pub(crate) fn see_shapes<B: Block>(&mut self, block: usize, bank: &Bank<B>, hidden: &[Tensor<3>]) {
        if !self.settings.pooled {
            return;
        }
        if self.shapes.is_empty() {
            self.shapes = self.blocks.iter().flatten().map(|m| vec![0.0; m.candidates.len()]).collect();
        }
        let first = self.first(block);
        for hidden in hidden {
            for (sums, found) in self.shapes[first..].iter_mut().zip(energies(bank, hidden)) {
                sums.iter_mut().zip(&found[1..]).for_each(|(sum, found)| *sum += found);
            }
        }
    }

    pub(crate) fn end_round(&mut self, round: usize) -> Result<(), ScoreTableError> {
        if round == 0 {
            self.random_loss = (self.losses.iter().sum::<f64>() + self.ending).max(f64::MIN_POSITIVE);
            self.adam.start(self.temperature(1) * self.random_loss);
            self.shapes.iter_mut().for_each(|shapes| *shapes = floored(shapes.iter().copied()));
        }
        let Pressure::AugmentedLagrangian { target, rho } = self.settings.pressure else {
            self.costs = in_order(&self.blocks, &self.table()?);
            return Ok(());
        };
        match &mut self.multiplier {
            None => self.multiplier = Some(Multiplier::new(self.slope(), rho)),
            Some(multiplier) => {
                let temperature = self.settings.temperature_at(round - 1);
                multiplier.update(self.widths.expected(&self.logits, temperature) - target);
            }
        }
        Ok(())
    }

    /// The costs by all that was seen so far.
    pub(crate) fn table(&self) -> Result<ScoreTable, ScoreTableError> {
        let competitors: Vec<&Competitor> = self.blocks.iter().flatten().collect();
        loss_table(&competitors, &self.seen, &self.shapes, None)
    }

    /// The same, and the costs at every level of loss.
    pub(crate) fn tables(&self) -> Result<(ScoreTable, Vec<gamma_core::Context>), ScoreTableError> {
        let competitors: Vec<&Competitor> = self.blocks.iter().flatten().collect();
        loss_tables(&competitors, &self.seen, &self.shapes, None)
    }

    /// How much the normalised loss falls per bit, from the survey: the first multiplier.
    fn slope(&self) -> f64 {
        let (low, high) = self.widths.range();
        let drop = |module: usize| -> f64 {
            let (means, bits) = (self.means(module), self.widths.of(module));
            let cost = |pick: fn(f64, f64) -> bool| {
                let end = (0..bits.len()).reduce(|a, b| if pick(bits[b], bits[a]) { b } else { a });
                end.map_or(0.0, |k| means[k].mean)
            };
            cost(|b, a| b < a) - cost(|b, a| b > a)
        };
        let drop: f64 = (0..self.logits.len()).map(drop).sum();
        (drop / self.random_loss / (high - low).max(f64::MIN_POSITIVE)).max(0.0)
    }

    /// An estimate for every candidate of `module`.
    ///
    /// # Panics
    /// If a candidate was never in use.
    pub(crate) fn means(&self, module: usize) -> Vec<Estimate> {
        let means = self.seen.means(module, self.logits[module].len());
        means.into_iter().map(|mean| mean.expect("the survey draws every candidate")).collect()
    }

    fn temperature(&self, round: usize) -> f64 {
        self.settings.temperature_at(round.saturating_sub(1))
    }

    fn expected_bits(&self, price: f64, round: usize) -> f64 {
        match self.settings.pressure {
            Pressure::DrawnBudgets { .. } if self.costs.is_empty() => {
                self.widths.expected(&self.logits, 1.0) // the survey chooses evenly
            }
            Pressure::DrawnBudgets { .. } => self.widths.expected_at(&self.costs, price),
            Pressure::AugmentedLagrangian { .. } => {
                self.widths.expected(&self.logits, self.temperature(round))
            }
        }
    }
}

/// The costs of a table, with candidates in the order of the network instead of by size.
pub(crate) fn in_order(blocks: &[Vec<Competitor>], table: &ScoreTable) -> Vec<Vec<f64>> {
    let costs = |(module, scores): (&Competitor, &gamma_core::ModuleScores)| {
        let cost = |candidate: &crate::Candidate| {
            let own = scores.options.iter().find(|option| option.format == candidate.format);
            own.expect("a table of these candidates").cost
        };
        module.candidates.iter().map(cost).collect()
    };
    blocks.iter().flatten().zip(table.modules()).map(costs).collect()
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

/// The module to name if a loss or a slope is not finite: the first one whose weights in use are not,
/// which spoil everything behind them; else the first with such a slope; else the first of all.
pub(crate) fn not_finite<B>(
    bank: &Bank<B>,
    used: &[Shares],
    loss: f64,
    slopes: &[Vec<f64>],
) -> Option<usize> {
    let module = slopes.iter().position(|slopes| slopes.iter().any(|slope| !slope.is_finite()));
    if loss.is_finite() && module.is_none() {
        return None;
    }
    let broken = |weight: &Tensor<2>| !ordered_sum(weight.clone()).into_scalar::<f32>().is_finite();
    mixed(bank, used).iter().position(broken).or(module).or(Some(0))
}

/// The error that a pass ends in at `block`, if its loss or a slope there is not finite.
pub(crate) fn not_finite_in<B, E: std::error::Error>(
    learner: &Learner<'_>,
    round: usize,
    pass: &Pass,
    (block, bank): (usize, &Bank<B>),
    loss: f64,
    slopes: &[Vec<f64>],
) -> Option<LearnError<E>> {
    let module = not_finite(bank, &choices(learner, block, pass), loss, slopes)?;
    let module = learner.blocks[block][module].name.clone();
    Some(LearnError::NotFinite { block, round, step: pass.step, batch: pass.batch, module })
}

/// The choices of a pass for the modules of one block.
pub(crate) fn choices(learner: &Learner<'_>, block: usize, pass: &Pass) -> Vec<Shares> {
    let first = learner.first(block);
    pass.draws[first..first + learner.blocks[block].len()].iter().map(|draw| draw.used.clone()).collect()
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Format, GroupSize, ModuleName};

    use super::*;
    use crate::Candidate;

    #[test]
    fn graded_samples_are_mixtures_only_near_the_least_budget() {
        let candidate = |bits| {
            let format = Format::symmetric(bits, GroupSize::G128);
            Candidate { stored_bits: format.stored_bits([128, 128]).unwrap(), format }
        };
        let candidates = [BitWidth::B3, BitWidth::B4, BitWidth::B8].map(candidate).to_vec();
        let module = Competitor { name: ModuleName::new("m"), shape: [128, 128], candidates };
        let mixed = |bits: f64| {
            let pressure = Pressure::DrawnBudgets { from: bits, to: bits };
            let settings = Settings { pressure, ..Settings::default() };
            let mut learner = Learner::new(vec![vec![module.clone(), module.clone()]], &settings);
            learner.costs = vec![vec![1.0, 0.3, 0.01], vec![0.5, 0.2, 0.01]];
            let passes = learner.passes(1, 4);
            let draws = passes.iter().flat_map(|pass| &pass.draws);
            draws.map(|draw| matches!(draw.used, Shares::Mixed(_))).collect::<Vec<_>>()
        };
        assert!(mixed(3.7).iter().all(|&mixed| mixed));
        assert!(mixed(3.8).iter().all(|&mixed| !mixed) && mixed(3.8).len() == 48);
    }
}
