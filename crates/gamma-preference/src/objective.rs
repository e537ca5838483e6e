//! What is asked of the quantized model while learning.

use std::fmt;

/// What is asked of the quantized model while learning: that its hidden states, its predictions, or
/// both stay as they were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// What each block is fed with.
    pub reading: Reading,
    /// The unit of the error of a block's output.
    pub normaliser: Normaliser,
}

/// What each block is fed with: how GAMMA's *teacher-forced hidden-state reconstruction* is read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reading {
    /// No block at all but every module on its own (A0): `E‖(Q - W) x‖² / E‖W x‖²` in closed form, over
    /// all calibration data. Nothing is learned: rounds, steps and the price of a bit play no part, and
    /// the logits stay 0. The classic static proxy, kept for comparison.
    PerModule,
    /// The full-precision hidden states (reading A). Blocks are independent of each other and loaded
    /// once per round.
    Teacher,
    /// A mixture of the full-precision and the student's hidden states: the student's share grows
    /// from 0 in the survey to `last` in the last round, 0 to 1. Gradients end at the input of a
    /// block, so that blocks are loaded once per round.
    Mixed {
        /// The student's share in the last round.
        last: f64,
    },
    /// The student's own hidden states (reading B): errors accumulate from block to block as they do
    /// in use. The loss is `hidden · Σ_b R_b + divergence · KL`, where `R_b` is the error of the
    /// output of block `b`, and `KL` the divergence of the predictions from those of the
    /// full-precision model, in nats per token. Blocks are loaded twice per round, and the student's
    /// inputs of all blocks are kept for as many passes as a round has steps.
    Through {
        /// Weight of the errors of the blocks' outputs.
        hidden: f64,
        /// Weight of the end loss.
        divergence: f64,
    },
}

/// The unit of the error of a block's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Normaliser {
    /// The mean squared norm of the block's output, which is the residual stream.
    Output,
    /// The mean squared norm of what the block adds to the stream. It magnifies blocks that add
    /// little; kept for comparison.
    Update,
    /// The diagonal Fisher information of the end loss at the block's output, from one backward pass
    /// of the full-precision model with labels that it draws itself. Errors are then in nats per
    /// token.
    Fisher,
}

impl Default for Objective {
    fn default() -> Self {
        Self { reading: Reading::Through { hidden: 0.0, divergence: 1.0 }, normaliser: Normaliser::Output }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.normaliser {
            Normaliser::Output => "relative to the stream",
            Normaliser::Update => "relative to the block's update",
            Normaliser::Fisher => "by diagonal Fisher",
        };
        match self.reading {
            Reading::PerModule => write!(f, "error of each module's output, relative to it"),
            Reading::Teacher => write!(f, "teacher-forced reconstruction {unit}"),
            Reading::Mixed { last } => {
                write!(f, "reconstruction {unit}, fed with up to {last} of the student")
            }
            Reading::Through { hidden, divergence } => {
                write!(
                    f,
                    "student running through, {hidden} x reconstruction {unit} + {divergence} x divergence"
                )
            }
        }
    }
}
