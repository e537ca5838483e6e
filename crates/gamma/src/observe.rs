//! What the full-precision model feeds each module.

use burn::tensor::Tensor;
use gamma_model::{Block, Input};
use gamma_quant::{CalibrationNeeds, CalibrationStats};
use ndarray::Array2;

use crate::{Error, stream::Stream};

/// With fewer tokens than this, statistics of an expert's own say too little: 32 vectors span 32 of
/// thousands of directions, and a mean square has a relative error of a quarter.
///
/// Those that are missing are then made up for by all tokens of the block, as if they went to the
/// expert: with `n` tokens of its own the mean is `(n own + (32 - n) all) / 32`, for an expert that saw
/// nothing that of all tokens.
pub const FEWEST_TOKENS: usize = 32;

/// What is known about an input of a block.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) stats: CalibrationStats,
    /// Tokens that went to its readers: all of the text, but for the modules of an expert.
    pub(crate) tokens: usize,
}

/// Runs the block over all calibration batches, in place, and gathers what `needs` asks for about
/// each of its inputs.
///
/// Modules that read one input share its statistics, which are over the tokens that go to them alone;
/// see [`FEWEST_TOKENS`]. Sums stay on the device until all batches are through: `4 n²` bytes for an
/// input of `n` channels where the Hessian is needed, `4 n` otherwise, and `4 n` for each of
/// [`SAMPLES`] samples. Where there are experts, the block's inputs are kept besides.
///
/// # Errors
/// [`Error`] if what does not fit into memory cannot be written or read.
pub(crate) fn observe(
    block: &Block,
    hidden: &mut Stream<'_>,
    needs: CalibrationNeeds,
) -> Result<Vec<Seen>, Error> {
    let inputs = block.inputs();
    let expert = |input: &Input| block.modules()[input.readers[0]].expert;
    let mut own: Vec<Sums> = inputs.iter().map(|_| Sums::default()).collect();
    let per_batch = (SAMPLES / hidden.count().max(1)).max(1);
    let place = |slot: usize| inputs.iter().position(|input| input.readers[0] == slot);
    let before = hidden.pass(inputs.iter().any(|input| expert(input).is_some()), |states| {
        block.observe(block.weights(), states, |slot, x| {
            if let Some(number) = place(slot) {
                own[number].add(x, needs, per_batch);
            }
        })
    })?;
    let starved = |number: usize| expert(&inputs[number]).filter(|_| own[number].tokens < FEWEST_TOKENS);
    let mut experts: Vec<usize> = (0..inputs.len()).filter_map(starved).collect();
    experts.dedup();
    let mut all: Vec<Sums> = inputs.iter().map(|_| Sums::default()).collect();
    let lacking = !experts.is_empty() && needs != CalibrationNeeds::Nothing;
    let visitor = |states: Tensor<3>| {
        block.observe_unrouted(states, &experts, |slot, x| {
            if let Some(number) = place(slot) {
                all[number].add(x, needs, per_batch);
            }
        });
    };
    hidden.visit(before, lacking.then_some(visitor))?;
    let seen = |(own, all): (Sums, Sums)| Seen {
        tokens: own.tokens,
        stats: if all.tokens > 0 { own.made_up_by(all) } else { own }.stats(needs),
    };
    Ok(own.into_iter().zip(all).map(seen).collect())
}

/// Vectors of an input that are kept for methods that ask for samples, one of each batch at least.
const SAMPLES: usize = 1024;

/// Sums over the vectors of one input.
#[derive(Default)]
struct Sums {
    tokens: usize,
    /// Of squares, `[1, n]`, or of products, `[n, n]`, by what is needed.
    products: Option<Tensor<2>>,
    samples: Vec<Tensor<2>>,
}

impl Sums {
    fn add(&mut self, x: &Tensor<3>, needs: CalibrationNeeds, samples: usize) {
        let x = x.clone().flatten::<2>(0, 1); // [batch * tokens, in_features]
        self.tokens += x.dims()[0];
        let products = match needs {
            CalibrationNeeds::Nothing => return,
            CalibrationNeeds::SecondMoment => x.clone().square().sum_dim(0),
            CalibrationNeeds::Hessian | CalibrationNeeds::Samples => x.clone().transpose().matmul(x.clone()),
        };
        if needs == CalibrationNeeds::Samples {
            self.samples.push(spread(&x, samples));
        }
        self.products = Some(match self.products.take() {
            None => products,
            Some(total) => total + products,
        });
    }

    /// The same with so much of the mean of `all` that it counts as [`FEWEST_TOKENS`] vectors.
    fn made_up_by(self, all: Self) -> Self {
        let missing = FEWEST_TOKENS.saturating_sub(self.tokens) as f64;
        let filling = all.products.map(|sum| sum * (missing / all.tokens as f64));
        let products = match (self.products, filling) {
            (Some(own), Some(filling)) => Some(own + filling),
            (own, filling) => own.or(filling),
        };
        let samples = self.samples.into_iter().chain(all.samples).collect();
        Self { tokens: self.tokens.max(FEWEST_TOKENS), products, samples }
    }

    fn stats(self, needs: CalibrationNeeds) -> CalibrationStats {
        let Self { tokens, products, samples } = self;
        let Some(sum) = products else { return CalibrationStats { tokens, ..CalibrationStats::default() } };
        let shape = sum.dims();
        let means = floats(sum / tokens as f64);
        let means = Array2::from_shape_vec(shape, means).expect("read from this shape");
        match needs {
            CalibrationNeeds::Hessian => CalibrationStats::from_hessian(tokens, means),
            CalibrationNeeds::Samples => {
                let samples = Tensor::cat(samples, 0);
                let shape = samples.dims();
                let samples = Array2::from_shape_vec(shape, floats(samples)).expect("read from this shape");
                CalibrationStats::from_hessian(tokens, means).with_samples(samples)
            }
            _ => CalibrationStats::from_second_moment(tokens, means.row(0).to_owned()),
        }
    }
}

/// At most `count` rows, evenly spread.
fn spread(x: &Tensor<2>, count: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    let step = rows.div_ceil(count);
    let row = |start| x.clone().slice([start..start + 1, 0..width]);
    Tensor::cat((0..rows).step_by(step).map(row).collect(), 0)
}

/// The values of a tensor, row after row.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("converted to f32").to_vec()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use gamma_model::{Checkpoint, Decoder};

    use super::*;
    use crate::{filed::Room, spill::Spill};

    /// The sums `Σ x xᵀ` and the number of the tokens that go to `slot`, by asking token for token.
    fn routed(block: &Block, hidden: &[Tensor<3>], slot: usize) -> (usize, Option<Tensor<2>>) {
        let (mut tokens, mut sum) = (0, None);
        for states in hidden {
            block.observe(block.weights(), states.clone(), |at, x| {
                if at == slot {
                    let x = x.clone().flatten::<2>(0, 1);
                    tokens += x.dims()[0];
                    let own = x.clone().transpose().matmul(x);
                    sum = Some(sum.take().map_or_else(|| own.clone(), |sum| sum + own.clone()));
                }
            });
        }
        (tokens, sum)
    }

    /// A block, and the residual stream before it in two batches of two sequences.
    fn start(folder: &str, number: usize, length: u32) -> (Block, Vec<Tensor<3>>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder);
        let checkpoint = Arc::new(Checkpoint::open(folder).expect("checkpoint"));
        let decoder = Decoder::load(checkpoint, 64, &gamma_device::tested()).expect("decoder");
        let text = |seed: u32| (0..length).map(|i| (7 * i * i + 3 * i + seed) % 64).collect::<Vec<u32>>();
        let hidden = [1, 20].map(|seed| decoder.embed(&[text(seed), text(seed + 1)]));
        (decoder.block(number).expect("block"), hidden.to_vec())
    }

    /// `Σ x xᵀ` over all tokens as if they went to `expert`, whose module `slot` is.
    fn unrouted(block: &Block, hidden: &[Tensor<3>], expert: usize, slot: usize) -> Tensor<2> {
        let mut sums = Vec::new();
        for states in hidden {
            block.observe_unrouted(states.clone(), &[expert], |at, x| {
                if at == slot {
                    let x = x.clone().flatten::<2>(0, 1);
                    sums.push(x.clone().transpose().matmul(x));
                }
            });
        }
        sums.into_iter().reduce(|a, b| a + b).expect("every token is shown")
    }

    /// Compares what is seen of each expert's inputs with what follows from its tokens one by one.
    /// Returns how many inputs saw enough tokens, and how many too few.
    fn check(folder: &str, number: usize, length: u32) -> [usize; 2] {
        let (block, hidden) = start(folder, number, length);
        let all = 4 * length as usize;
        let folder = tempfile::tempdir().expect("a folder");
        let spill = Arc::new(Spill::in_folder(folder.path()).expect("a file"));
        // In memory, and with room for one batch.
        let filed = Room { spill: Some(spill), stream: 4 * 2 * u64::from(length) * 64, ..Room::default() };
        let [seen, same] = [Room::default(), filed].map(|room| {
            let mut stream = Stream::new(&hidden, &room, &gamma_device::tested()).expect("room");
            observe(&block, &mut stream, CalibrationNeeds::Samples).expect("room")
        });
        for (seen, same) in seen.iter().zip(&same) {
            assert_eq!((seen.tokens, &seen.stats.samples), (same.tokens, &same.stats.samples));
            let matrix = |seen: &Seen| seen.stats.hessian.as_ref().map(|hessian| hessian.matrix().to_owned());
            assert_eq!(matrix(seen), matrix(same));
        }
        let mut counts = [0, 0];
        for (input, seen) in block.inputs().iter().zip(&seen) {
            let slot = input.readers[0];
            let (tokens, own) = routed(&block, &hidden, slot);
            assert_eq!(seen.tokens, tokens);
            let Some(expert) = block.modules()[slot].expert else {
                assert_eq!((tokens, seen.stats.tokens), (all, all));
                continue;
            };
            let missing = FEWEST_TOKENS.saturating_sub(tokens);
            counts[usize::from(missing > 0)] += 1;
            let mut sum = unrouted(&block, &hidden, expert, slot) * (missing as f64 / all as f64);
            if let Some(own) = own {
                sum = sum + own;
            }
            let expected = floats(sum / tokens.max(FEWEST_TOKENS) as f64);
            let found = seen.stats.hessian.as_ref().expect("asked for").matrix();
            let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                worst < 1e-5 * largest,
                "expert {expert}, {tokens} tokens: off by {worst:e} of {largest}"
            );
            let samples = seen.stats.samples.as_ref().expect("asked for").nrows();
            assert!(samples >= tokens.max(FEWEST_TOKENS.min(all)), "{samples} samples");
        }
        counts
    }

    #[test]
    fn experts_are_known_by_their_own_tokens_and_made_up_for_where_these_are_few() {
        for (folder, number) in [("qwen3-moe-random", 1), ("mixtral-random", 0)] {
            let ([rich, _], [_, poor]) = (check(folder, number, 64), check(folder, number, 8));
            assert!(rich > 0 && poor > 0, "{folder}: {rich} inputs with enough tokens, {poor} without");
        }
    }
}
