//! What the full-precision model feeds each module.

use burn::tensor::Tensor;
use gamma_model::{Block, Input};
use gamma_quant::{CalibrationNeeds, CalibrationStats};
use ndarray::Array2;

/// Runs the block over all calibration batches, in place, and gathers what `needs` asks for about
/// each of its inputs.
///
/// Modules that read one input share its statistics. Sums stay on the device until all batches are
/// through: `4 n²` bytes for an input of `n` channels where the Hessian is needed, `4 n` otherwise,
/// and `4 n` for each of [`SAMPLES`] samples.
pub(crate) fn observe(
    block: &Block,
    hidden: &mut [Tensor<3>],
    needs: CalibrationNeeds,
) -> Vec<CalibrationStats> {
    let inputs = block.inputs();
    let mut tokens = 0;
    let per_batch = (SAMPLES / hidden.len().max(1)).max(1);
    let mut samples: Vec<Vec<Tensor<2>>> = vec![Vec::new(); inputs.len()];
    let mut sums: Vec<Option<Tensor<2>>> = vec![None; inputs.len()];
    for states in hidden {
        let [batch, length, _] = states.dims();
        tokens += batch * length;
        *states = block.observe(block.weights(), states.clone(), |slot, x| {
            let first = |input: &Input| input.readers[0] == slot;
            let Some(number) = inputs.iter().position(first) else { return };
            let sum = match needs {
                CalibrationNeeds::Nothing => return,
                CalibrationNeeds::SecondMoment => flat(x).square().sum_dim(0),
                CalibrationNeeds::Hessian | CalibrationNeeds::Samples => flat(x).transpose().matmul(flat(x)),
            };
            if needs == CalibrationNeeds::Samples {
                samples[number].push(spread(&flat(x), per_batch));
            }
            sums[number] = Some(match sums[number].take() {
                None => sum,
                Some(total) => total + sum,
            });
        });
    }
    let stats = |(sum, samples): (Option<Tensor<2>>, Vec<Tensor<2>>)| {
        let Some(sum) = sum else { return CalibrationStats { tokens, ..CalibrationStats::default() } };
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
    };
    sums.into_iter().zip(samples).map(stats).collect()
}

/// Vectors of an input that are kept for methods that ask for samples, one of each batch at least.
const SAMPLES: usize = 1024;

/// At most `count` rows, evenly spread.
fn spread(x: &Tensor<2>, count: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    let step = rows.div_ceil(count);
    let row = |start| x.clone().slice([start..start + 1, 0..width]);
    Tensor::cat((0..rows).step_by(step).map(row).collect(), 0)
}

/// `[batch * tokens, in_features]`.
fn flat(x: &Tensor<3>) -> Tensor<2> {
    x.clone().flatten::<2>(0, 1)
}

/// The values of a tensor, row after row.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("converted to f32").to_vec()
}
