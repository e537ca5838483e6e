//! Embedding and head, which only a GGUF file stores in fewer bits: what every type costs them, and which
//! one a file of a given size has room for.

use std::{ops::ControlFlow, sync::Arc};

use gamma_core::{
    Budget, FixedRole, GgufMatrix, GgufOption, GgufRemainder, Remainder, ScoreTable, ScoresFile,
};
use gamma_ggml::{Ggml, GgmlType};
use gamma_ilp::{Limits, Problem, ProjectError};
use gamma_model::{Config, Decoder, Judge, ModelError, Source, Windows};
use gamma_preference::{Reading, Settings};
use gamma_quant::{CalibrationStats, Quantizer, WeightView};
use ndarray::Array2;

use crate::{Error, Event, Progress, Run, Scores};

/// Calibration sequences that a type is judged on, at most: each type of each matrix takes one pass of
/// the whole model over them.
const SEQUENCES: usize = 16;

/// A model one of whose tensors has other values.
#[derive(Debug)]
struct Altered {
    source: Arc<dyn Source>,
    tensor: String,
    values: Vec<f32>,
}

impl Source for Altered {
    fn config(&self) -> &Config {
        self.source.config()
    }

    fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        if tensor == self.tensor { Ok(self.values.clone()) } else { self.source.read(tensor, shape) }
    }
}

impl Run {
    /// Adds to embedding and head the types that compete for the modules, at no cost yet.
    pub(crate) fn with_options(&self, mut remainder: Option<Remainder>) -> Option<Remainder> {
        let kinds: Vec<GgmlType> = self.formats().iter().filter_map(GgmlType::from_format).collect();
        for matrix in matrices(&mut remainder).iter_mut().filter(|matrix| is_open(matrix)) {
            let option = |kind: &GgmlType| {
                let bytes = GgufRemainder::padded(kind.bytes(matrix.shape)?);
                // A type that is no smaller than the checkpoint's has nothing to offer.
                let smaller = bytes < matrix.bytes;
                smaller.then(|| GgufOption { kind: kind.name().to_owned(), bytes, cost: 0.0 })
            };
            matrix.options = kinds.iter().filter_map(option).collect();
        }
        remainder
    }

    /// Adds them with what they cost: the divergence of the model in which that matrix alone has the type,
    /// on the sequences that scores come from. Where scores are of another unit there is nothing to compare
    /// it with, and no option is added.
    ///
    /// Where the embedding is the head as well, both change.
    pub(crate) fn price_outside(
        &self,
        remainder: Option<Remainder>,
        settings: &Settings,
        progress: &mut dyn Progress,
    ) -> Result<Option<Remainder>, Error> {
        let Reading::Through { hidden: 0.0, divergence } = settings.objective.reading else {
            return Ok(remainder);
        };
        let mut remainder = self.with_options(remainder);
        let total: usize = matrices(&mut remainder).iter().map(|matrix| matrix.options.len()).sum();
        if total == 0 {
            return Ok(remainder);
        }
        let windows = Windows::from(self.sequences(progress)?.to_vec()).spread(SEQUENCES);
        let mut go_on = |_| ControlFlow::Continue(());
        let judge = Judge::new(&self.decoder, windows, &mut go_on)?.ok_or(Error::Interrupted)?;
        let mut done = 0;
        for GgufMatrix { name, shape, options, .. } in matrices(&mut remainder) {
            if options.is_empty() {
                continue;
            }
            let values = self.source.read(&name.weight(), shape.as_slice())?;
            let values = Array2::from_shape_vec(*shape, values).expect("read in this shape");
            let view = WeightView::new(name, values.view())?;
            for option in options {
                let kind: GgmlType = option.kind.parse().expect("a name of a type");
                let format = kind.format().expect("it competes for the modules");
                let coded = Ggml::new([kind]).expect("a type with a format");
                let coded = coded.quantize(&view, &CalibrationStats::default(), &format)?;
                let mut values = vec![0.0; shape.iter().product()];
                coded.dequantize_into(&mut values);
                let (source, tensor) = (Arc::clone(&self.source), name.weight());
                let altered = Arc::new(Altered { source, tensor, values });
                let decoder = Decoder::load(altered, self.decoder.context(), self.device())?;
                let mut load = |number| Ok::<_, Error>(self.decoder.block(number)?);
                let evaluation = judge.evaluate(&decoder, &mut load, &mut go_on)?;
                option.cost = divergence * evaluation.ok_or(Error::Interrupted)?.kl.max(0.0);
                done += 1;
                if progress.event(Event::Evaluating { done, total }).is_break() {
                    return Err(Error::Interrupted);
                }
            }
        }
        Ok(remainder)
    }
}

/// The matrices of the GGUF file.
fn matrices(remainder: &mut Option<Remainder>) -> &mut [GgufMatrix] {
    let gguf = remainder.as_mut().and_then(|remainder| remainder.gguf.as_mut());
    gguf.map_or(&mut [], |gguf| &mut gguf.matrices)
}

/// Whether it is an embedding or a head whose type is not given.
fn is_open(matrix: &GgufMatrix) -> bool {
    matches!(matrix.role, FixedRole::Embedding | FixedRole::Head) && matrix.kind.is_none()
}

impl Scores {
    /// The same scores with the types for embedding and head that the cheapest plan for the GGUF file of
    /// `problem` leaves room for. Types that were given by [`keep_as`](Self::keep_as) stay; of all others,
    /// every combination is tried, and its cost added to that of the plan.
    ///
    /// For other budgets than [`Budget::Gguf`], and scores that do not know these costs, nothing changes.
    ///
    /// # Errors
    /// [`Error::Project`] if there is no plan for any of them; for a budget that is too small, by how much
    /// at least.
    pub fn settled(&self, problem: &Problem<'_>, limits: &Limits) -> Result<Self, Error> {
        let (Budget::Gguf(_), Some(remainder)) = (problem.goal(), &self.remainder) else {
            return Ok(self.clone());
        };
        let combinations = combinations(remainder);
        if combinations.len() == 1 {
            return Ok(self.clone());
        }
        // Costs depend on how much is lost in all, and this is known after a first choice.
        let first = cheapest(problem, &self.table, &combinations, limits)?;
        let around = problem.clone().remainder(Some(first));
        let costs = self.in_context(&around, limits)?;
        let best = cheapest(problem, &costs, &combinations, limits)?;
        Ok(Self::new(ScoresFile { remainder: Some(best.clone()), ..(**self).clone() }))
    }
}

/// Every way to store the matrices that are open, and what it costs.
fn combinations(remainder: &Remainder) -> Vec<(Remainder, f64)> {
    let mut all = vec![(remainder.clone(), 0.0)];
    let count = remainder.gguf.as_ref().map_or(0, |gguf| gguf.matrices.len());
    for place in 0..count {
        let more = all.iter().flat_map(|(remainder, cost)| {
            let mut own = remainder.clone();
            let options = own.gguf.as_mut().map(|gguf| std::mem::take(&mut gguf.matrices[place].options));
            let chosen = |option: GgufOption| {
                let mut other = own.clone();
                if let Some(gguf) = &mut other.gguf {
                    let matrix = &mut gguf.matrices[place];
                    (matrix.kind, matrix.bytes) = (Some(option.kind), option.bytes);
                }
                (other, cost + option.cost)
            };
            let others: Vec<_> = options.into_iter().flatten().map(chosen).collect();
            std::iter::once((own, *cost)).chain(others)
        });
        all = more.collect();
    }
    all
}

/// The combination that leads to the cheapest plan.
fn cheapest<'a>(
    problem: &Problem<'_>,
    costs: &ScoreTable,
    combinations: &'a [(Remainder, f64)],
    limits: &Limits,
) -> Result<&'a Remainder, Error> {
    let mut best: Option<(f64, &Remainder)> = None;
    let mut refusal: Option<(u64, ProjectError)> = None;
    for (remainder, cost) in combinations {
        match problem.clone().remainder(Some(remainder)).scores(costs).solve(limits) {
            Ok(plan) => {
                let total = plan.cost() + cost;
                if best.is_none_or(|(least, _)| total < least) {
                    best = Some((total, remainder));
                }
            }
            Err(error) => {
                let ProjectError::BelowMinimum { missing_bytes, .. } = error else {
                    return Err(error.into());
                };
                if refusal.as_ref().is_none_or(|(least, _)| missing_bytes < *least) {
                    refusal = Some((missing_bytes, error));
                }
            }
        }
    }
    match (best, refusal) {
        (Some((_, remainder)), _) => Ok(remainder),
        (None, Some((_, error))) => Err(error.into()),
        (None, None) => unreachable!("there is at least the checkpoint's own combination"),
    }
}
