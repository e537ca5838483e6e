//! Tensors that go from thread to thread.

use std::thread;

use burn::tensor::{Device, Tensor, TensorData};

/// Tensors in work, and threads that work on them.
const TENSORS: usize = 6;
/// Times that every tensor changes hands.
const ROUNDS: usize = 40;
const WIDTH: usize = 48;

fn matrix(seed: usize, device: &Device) -> Tensor<2> {
    // Small numbers of both signs without a pattern that rows share.
    let value = |i: usize| ((i * 37 + seed * 101) % 113) as f32 / 113.0 - 0.5;
    let values: Vec<f32> = (0..WIDTH * WIDTH).map(value).collect();
    Tensor::from_data(TensorData::new(values, [WIDTH, WIDTH]), device)
}

fn step(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    (x.matmul(weight.clone()).tanh() + weight.clone()) * 0.5
}

fn bits(tensors: Vec<Tensor<2>>) -> Vec<Vec<u32>> {
    let bits = |tensor: Tensor<2>| {
        let data = tensor.into_data_as::<f32>();
        data.as_slice::<f32>().expect("converted to f32").iter().map(|x| x.to_bits()).collect()
    };
    tensors.into_iter().map(bits).collect()
}

#[test]
fn what_one_thread_asked_for_the_next_one_reads_complete() {
    let device = gamma_device::tested();
    let weight = matrix(0, &device);
    let start: Vec<Tensor<2>> = (1..=TENSORS).map(|seed| matrix(seed, &device)).collect();
    let alone = start.clone().into_iter().map(|x| (0..ROUNDS).fold(x, |x, _| step(x, &weight)));
    let expected = bits(alone.collect());

    // In every round each tensor is in the hands of a new thread.
    let mut passed = start;
    for _ in 0..ROUNDS {
        passed = thread::scope(|scope| {
            let weight = &weight;
            let threads: Vec<_> = passed.into_iter().map(|x| scope.spawn(move || step(x, weight))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
    }
    assert!(bits(passed) == expected, "threads read what was not written yet");
}
