//! Token by token: likelihood, divergence and agreement.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

use super::windows::Sequence;
use crate::{Decoder, decoder::values};

/// At most this many logits in one tensor, or else those of one token: 8 MiB, which stays near the
/// cache.
const LOGITS: usize = 1 << 21;

/// What was measured on one sequence, one number per predicted token.
#[derive(Debug, Default)]
pub(super) struct Scores {
    /// Negative log-likelihoods, nats.
    pub(super) losses: Vec<f32>,
    /// Divergences from full precision, nats; empty for the full-precision model itself.
    pub(super) divergences: Vec<f32>,
    /// Tokens for which both models think the same one most likely.
    pub(super) agreements: usize,
}

/// The full-precision model's answer to one sequence.
#[derive(Debug)]
pub(super) enum Teacher {
    /// The residual stream after the last block, `[1, tokens, hidden_size]`.
    Hidden(Box<Tensor<3>>),
    /// Predictions for the predicted tokens, in pieces of [`rows`] tokens.
    Predictions(Vec<Prediction>),
}

/// Distributions over the next token, `[1, tokens, vocab_size]`.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    log_probs: Tensor<3>,
    probs: Tensor<3>,
}

impl Prediction {
    pub(super) fn new(log_probs: Tensor<3>) -> Self {
        Self { probs: log_probs.clone().exp(), log_probs }
    }
}

/// Bytes that the teacher's predictions for one sequence take.
pub(super) fn prediction_bytes(sequence: &Sequence, decoder: &Decoder) -> u64 {
    let predicted = sequence.tokens.len() - sequence.context;
    8 * predicted as u64 * decoder.config().vocab_size as u64
}

/// Tokens whose logits are computed at once.
fn rows(decoder: &Decoder) -> usize {
    (LOGITS / decoder.config().vocab_size).max(1)
}

/// Log-probabilities for the tokens of `sequence` that are predicted, piece by piece, from the
/// residual stream `[1, tokens, hidden_size]` after the last block.
pub(super) fn log_probs<'a>(
    decoder: &'a Decoder,
    sequence: &'a Sequence,
    hidden: &'a Tensor<3>,
) -> impl Iterator<Item = Tensor<3>> + 'a {
    let (rows, last) = (rows(decoder), sequence.tokens.len() - 1);
    (sequence.context - 1..last).step_by(rows).map(move |from| {
        let count = rows.min(last - from);
        log_softmax(decoder.logits(hidden.clone().narrow(1, from, count)), 2) // [1, count, vocab_size]
    })
}

/// Everything about one sequence.
pub(super) fn scores(
    decoder: &Decoder,
    sequence: &Sequence,
    hidden: &Tensor<3>,
    teacher: Option<&Teacher>,
) -> Scores {
    let mut scores = Scores::default();
    let mut targets = targets(sequence, decoder, rows(decoder)).into_iter();
    against(decoder, sequence, hidden, teacher, &mut |student, teacher| {
        if let Some(targets) = targets.next() {
            let likelihoods = values(student.clone().gather(2, targets));
            scores.losses.extend(likelihoods.into_iter().map(|likelihood| -likelihood));
        }
        let Some(teacher) = teacher else { return };
        scores.divergences.extend(divergence(student, teacher));
        let same = student.clone().argmax(2).equal(teacher.log_probs.clone().argmax(2));
        scores.agreements += values(same.float()).into_iter().filter(|&same| same > 0.5).count();
    });
    scores
}

/// Mean divergence over the predicted tokens of one sequence, and nothing else.
pub(super) fn mean_divergence(
    decoder: &Decoder,
    sequence: &Sequence,
    hidden: &Tensor<3>,
    teacher: &Teacher,
) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    against(decoder, sequence, hidden, Some(teacher), &mut |student, teacher| {
        let Some(teacher) = teacher else { return };
        for token in divergence(student, teacher) {
            sum += f64::from(token);
            count += 1;
        }
    });
    sum / f64::from(count.max(1))
}

/// Shows the log-probabilities of both models to `see`, piece by piece.
fn against(
    decoder: &Decoder,
    sequence: &Sequence,
    hidden: &Tensor<3>,
    teacher: Option<&Teacher>,
    see: &mut dyn FnMut(&Tensor<3>, Option<&Prediction>),
) {
    let student = log_probs(decoder, sequence, hidden);
    match teacher {
        None => student.for_each(|student| see(&student, None)),
        Some(Teacher::Predictions(kept)) => {
            student.zip(kept).for_each(|(student, teacher)| see(&student, Some(teacher)));
        }
        Some(Teacher::Hidden(teacher)) => {
            let teacher = log_probs(decoder, sequence, teacher);
            student
                .zip(teacher)
                .for_each(|(student, teacher)| see(&student, Some(&Prediction::new(teacher))));
        }
    }
}

/// `KL(teacher ‖ student)` of each token.
fn divergence(student: &Tensor<3>, teacher: &Prediction) -> Vec<f32> {
    values((teacher.probs.clone() * (teacher.log_probs.clone() - student.clone())).sum_dim(2))
}

/// The tokens to predict, in pieces of `rows`: `[1, rows, 1]`.
fn targets(sequence: &Sequence, decoder: &Decoder, rows: usize) -> Vec<Tensor<3, Int>> {
    let piece = |ids: &[u32]| {
        let ids: Vec<i32> = ids.iter().map(|id| id.cast_signed()).collect();
        let shape = [1, ids.len(), 1];
        Tensor::from_data(TensorData::new(ids, shape), decoder.device())
    };
    sequence.tokens[sequence.context..].chunks(rows).map(piece).collect()
}
