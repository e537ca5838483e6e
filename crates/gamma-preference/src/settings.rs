//! How to learn.

use std::fmt;

use crate::{LearnError, Objective, Reading};

/// What keeps the choices from all going to the widest candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pressure {
    /// Every step draws a budget and finds the price of a bit that meets it. One run then covers
    /// the whole range, and no multiplier has to be tuned.
    DrawnBudgets {
        /// Smallest average bit-width drawn.
        from: f64,
        /// Largest average bit-width drawn.
        to: f64,
    },
    /// One budget, held by an augmented Lagrangian on the expected bits, as in the paper:
    /// minimise `R/R₀ + λ g + ρ/2 g²` with `g` the expected bits per weight minus the target.
    AugmentedLagrangian {
        /// Average bit-width to hold.
        target: f64,
        /// First weight of the quadratic term.
        rho: f64,
    },
}

/// How a choice enters the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// Mixtures, as with [`Soft`](Self::Soft), where the budget is within three quarters of a bit of the
    /// least that is possible, and one candidate, as with [`Hard`](Self::Hard), above. So near to the
    /// least, one draw loses several times as much as the next, and a mixture shows what all options
    /// cost at once; higher up it flatters.
    Graded,
    /// One candidate, drawn by the Gumbel-max rule; gradients pass straight through to the
    /// softmax. The block runs with weights that could be deployed.
    Hard,
    /// The Gumbel-softmax mixture of all candidates, as in the paper. Errors of different
    /// bit-widths partly cancel in a mixture, which flatters it.
    Soft,
    /// The same mixture without the Gumbel noise: the softmax itself.
    Mean,
    /// One candidate, as with [`Hard`](Self::Hard), and no gradient: every candidate of every module is
    /// charged with what the block's loss is with it, less what it is with the original weight, all
    /// other modules as drawn. A step takes as many forward passes as the block has candidates, and as it
    /// has modules. Not where the student runs through.
    Conditional,
}

/// Settings of [`learn`](crate::learn()); [`Settings::default`] is the recommended start.
///
/// | setting | default | purpose |
/// |---|---|---|
/// | `objective` | [`Objective::default`] | what is asked of the quantized model |
/// | `pressure` | budgets drawn from 2.1 to 4.5 | what a bit costs while learning |
/// | `sampling` | graded | mixtures or pure candidates |
/// | `rounds` | 8 | passes over the blocks after the survey |
/// | `steps` | 24 | gradient steps per block and round |
/// | `survey_draws` | 2 | times each candidate is drawn before learning |
/// | `learning_rate` | 0.05 | of Adam on the logits, which only a Lagrangian needs |
/// | `temperature` | 2 → 0.3 | of the Gumbel-softmax under a Lagrangian, exponential over the rounds |
/// | `exploration` | 0 | share of hard draws that ignore all preferences |
/// | `pooled` | yes | whether costs are fitted to all measurements together |
/// | `seed` | 0 | of all draws |
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is asked of the quantized model.
    pub objective: Objective,
    /// What a bit costs while learning.
    pub pressure: Pressure,
    /// Mixtures or pure candidates.
    pub sampling: Sampling,
    /// Passes over the blocks after the survey.
    pub rounds: usize,
    /// Gradient steps per block and round.
    pub steps: usize,
    /// Times each candidate of each module is drawn in the survey that precedes learning.
    pub survey_draws: usize,
    /// Learning rate of Adam on the logits.
    pub learning_rate: f64,
    /// First and last temperature of the Gumbel-softmax, falling exponentially over the rounds. Where
    /// budgets are drawn, choices follow the costs found so far instead, within half a bit of what is
    /// best at the price of the moment.
    pub temperature: (f64, f64),
    /// Share of hard draws that ignore all preferences, 0 to 1.
    pub exploration: f64,
    /// Whether the cost of an option is fitted to the measurements of all options together: in
    /// proportion to the error of the module's own output, as far as its own steps do not say
    /// otherwise, and at several levels of loss. Without it, the mere means of its own steps.
    pub pooled: bool,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            objective: Objective::default(),
            pressure: Pressure::DrawnBudgets { from: 2.1, to: 4.5 },
            sampling: Sampling::Graded,
            rounds: 8,
            steps: 24,
            survey_draws: 2,
            learning_rate: 0.05,
            temperature: (2.0, 0.3),
            exploration: 0.0,
            pooled: true,
            seed: 0,
        }
    }
}

impl Settings {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`LearnError::Setting`] names the first one out of range.
    pub fn check<E: std::error::Error + 'static>(&self) -> Result<(), LearnError<E>> {
        let (hot, cold) = self.temperature;
        let pressure = match self.pressure {
            Pressure::DrawnBudgets { from, to } => {
                from.is_finite() && to.is_finite() && from > 0.0 && from <= to
            }
            Pressure::AugmentedLagrangian { target, rho } => {
                target.is_finite() && target > 0.0 && rho.is_finite() && rho > 0.0
            }
        };
        let objective = match self.objective.reading {
            Reading::PerModule | Reading::Teacher => true,
            Reading::Mixed { last } => (0.0..=1.0).contains(&last),
            Reading::Through { hidden, divergence } => {
                let weight = |weight: f64| weight.is_finite() && weight >= 0.0;
                weight(hidden) && weight(divergence) && hidden + divergence > 0.0
            }
        };
        let through = matches!(self.objective.reading, Reading::Through { .. });
        let checks = [
            (
                "sampling",
                !(through && self.sampling == Sampling::Conditional),
                "samples with a gradient where the student runs through",
            ),
            (
                "objective",
                objective,
                "a share between 0 and 1; weights that are not negative, and not both 0",
            ),
            ("pressure", pressure, "budgets are positive, from <= to, rho is positive"),
            ("rounds", self.rounds < 1 << 15, "fewer than 32768"),
            ("steps", (1..1 << 16).contains(&self.steps), "1 to 65535 per block and round"),
            ("survey_draws", (1..1 << 10).contains(&self.survey_draws), "1 to 1023 draws of each candidate"),
            (
                "learning_rate",
                self.learning_rate > 0.0 && self.learning_rate.is_finite(),
                "a positive number",
            ),
            ("temperature", hot.is_finite() && hot >= cold && cold > 0.0, "positive and not rising"),
            ("exploration", (0.0..=1.0).contains(&self.exploration), "a share between 0 and 1"),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            None => Ok(()),
            Some((name, _, expected)) => Err(LearnError::Setting { name, found: self.to_string(), expected }),
        }
    }

    /// Every setting by name, in words: what a result depends on, and a message about two of them
    /// compares.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, String)> {
        let Self {
            objective,
            pressure,
            sampling,
            rounds,
            steps,
            survey_draws,
            learning_rate,
            temperature: (hot, cold),
            exploration,
            pooled,
            seed,
        } = self;
        vec![
            ("objective", objective.to_string()),
            ("pressure", pressure.to_string()),
            ("sampling", format!("{sampling:?}").to_lowercase()),
            ("rounds", rounds.to_string()),
            ("steps", steps.to_string()),
            ("survey draws", survey_draws.to_string()),
            ("learning rate", learning_rate.to_string()),
            ("temperature", format!("{hot} to {cold}")),
            ("exploration", exploration.to_string()),
            ("pooled", pooled.to_string()),
            ("seed", seed.to_string()),
        ]
    }

    pub(crate) fn temperature_at(&self, round: usize) -> f64 {
        let (hot, cold) = self.temperature;
        let last = self.rounds.saturating_sub(1).max(1) as f64;
        hot * (cold / hot).powf((round as f64 / last).min(1.0))
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DrawnBudgets { from, to } => write!(f, "budgets drawn from {from} to {to}"),
            Self::AugmentedLagrangian { target, rho } => {
                write!(f, "augmented Lagrangian at {target} bits, rho {rho}")
            }
        }
    }
}

impl fmt::Display for Settings {
    /// Every setting in words, as it goes into the provenance of a score file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.objective)?;
        write!(f, "{}", self.pressure)?;
        match self.sampling {
            Sampling::Graded => write!(f, ", graded samples, exploration {}", self.exploration)?,
            Sampling::Hard => write!(f, ", hard samples, exploration {}", self.exploration)?,
            Sampling::Soft => write!(f, ", soft samples")?,
            Sampling::Mean => write!(f, ", mixtures without noise")?,
            Sampling::Conditional => write!(f, ", every option in turn, exploration {}", self.exploration)?,
        }
        if let Pressure::AugmentedLagrangian { .. } = self.pressure {
            write!(f, ", temperature {} to {}", self.temperature.0, self.temperature.1)?;
        }
        let Self { rounds, steps, survey_draws, learning_rate, seed, .. } = self;
        write!(f, ", {rounds} rounds of {steps} steps, survey of {survey_draws} draws, ")?;
        let pooled = if self.pooled { ", pooled" } else { "" };
        write!(f, "learning rate {learning_rate}{pooled}, seed {seed}")
    }
}
