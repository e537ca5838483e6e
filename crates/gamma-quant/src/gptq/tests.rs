use gamma_core::ModuleName;
use ndarray::Array2;

use super::*;
use crate::laws::{self, Noise};

fn group(channels: usize) -> GroupSize {
    GroupSize::new(channels).unwrap()
}

/// Weights, and the Hessian of inputs in which neighbouring channels are alike.
fn problem(rows: usize, channels: usize) -> (Array2<f32>, Array2<f32>) {
    let mut noise = Noise(rows as u64 + 1);
    let weight = Array2::from_shape_simple_fn((rows, channels), || 0.02 * noise.next());
    let tokens = 2 * channels;
    let mut x = Array2::from_shape_simple_fn((tokens, channels), || noise.next());
    for mut x in x.rows_mut() {
        for channel in 1..channels {
            x[channel] = 0.6 * x[channel] + 0.6 * x[channel - 1];
        }
        x[channels / 3] *= 8.0;
    }
    let hessian = x.t().dot(&x) / tokens as f32;
    (weight, hessian)
}

fn run(gptq: &Gptq, weight: &Array2<f32>, stats: &CalibrationStats, width: BitWidth) -> Array2<f32> {
    let name = ModuleName::new("m");
    let view = WeightView::new(&name, weight.view()).unwrap();
    gptq.quantize_at(&view, stats, width).unwrap().dequantize()
}

/// `tr(D H Dᵀ)` with `D` the difference.
fn output_error(weight: &Array2<f32>, quantized: &Array2<f32>, hessian: &Array2<f32>) -> f64 {
    let d = (weight - quantized).mapv(f64::from);
    (d.dot(&hessian.mapv(f64::from)) * &d).sum()
}

#[test]
fn gptq_keeps_the_laws_at_every_width() {
    let widths: Vec<_> = (2..=8).filter_map(BitWidth::new).collect();
    for channels in [1, 3, 64, 128] {
        for act_order in [false, true] {
            for gptq in [Gptq::asymmetric(group(channels)), Gptq::symmetric(group(channels))] {
                let gptq = gptq.act_order(act_order);
                let clipped = gptq.clip(Clip::Weighted);
                assert_eq!(laws::check(&clipped, &widths[..2]).map_err(|v| laws::report(&v)), Ok(()));
                assert_eq!(laws::check(&gptq, &widths).map_err(|v| laws::report(&v)), Ok(()), "{gptq:?}");
            }
        }
    }
}

#[test]
fn narrower_ranges_lose_less_with_few_bits() {
    let (mut weight, hessian) = problem(48, 256);
    // Heavy tails, as trained weights have.
    weight.mapv_inplace(|w| w * (1.0 + 2500.0 * w * w));
    let stats = CalibrationStats::from_hessian(1, hessian.clone());
    for gptq in [Gptq::asymmetric(group(64)), Gptq::symmetric(group(64)).act_order(false)] {
        for width in [BitWidth::B2, BitWidth::B3] {
            let error = |gptq: Gptq| output_error(&weight, &run(&gptq, &weight, &stats, width), &hessian);
            let full = error(gptq);
            for clip in [Clip::Mse, Clip::Weighted] {
                assert!(error(gptq.clip(clip)) < 0.95 * full, "{clip:?} at {width}");
            }
        }
    }
    // The grids are those that round-to-nearest finds: with all weights alike, nothing else is left.
    let flat = CalibrationStats::from_hessian(1, Array2::eye(256));
    let rtn = crate::Rtn::asymmetric(group(64)).clip(Clip::Mse);
    let name = ModuleName::new("m");
    let view = WeightView::new(&name, weight.view()).unwrap();
    let expected = rtn.quantize_at(&view, &flat, BitWidth::B3).unwrap().dequantize();
    let gptq = Gptq::asymmetric(group(64)).clip(Clip::Mse);
    assert_eq!(run(&gptq, &weight, &flat, BitWidth::B3), expected);
}

#[test]
fn the_fast_solution_is_that_of_the_definition() {
    let cases = [(5, 40, 128, 128), (70, 200, 64, 128), (131, 300, 128, 32), (33, 150, 100, 7)];
    for (rows, channels, group_size, block) in cases {
        let (weight, hessian) = problem(rows, channels);
        let stats = CalibrationStats::from_hessian(1, hessian.clone());
        for act_order in [false, true] {
            for (gptq, width) in [
                (Gptq::asymmetric(group(group_size)), BitWidth::B2),
                (Gptq::symmetric(group(group_size)), BitWidth::B3),
                (Gptq::asymmetric(group(group_size)), BitWidth::B4),
                (Gptq::symmetric(group(group_size)), BitWidth::B8),
            ] {
                let gptq = gptq.act_order(act_order).block(NonZeroUsize::new(block).unwrap());
                let fast = run(&gptq, &weight, &stats, width);
                let layout = (gptq.layout.symmetry, gptq.layout.group, width);
                let plain = plain::quantize(&weight, &hessian, layout, (0.01, act_order));
                let case = format!("{rows}x{channels} {} at {width} bits", gptq.describe());
                // A weight within an epsilon of a tie may fall to the other side, and takes its
                // row's later weights with it.
                let rows_alike = fast.rows().into_iter().zip(plain.rows()).filter(|(a, b)| a == b).count();
                assert!(rows_alike * 10 >= rows * 8, "{case}: {rows_alike} rows alike");
                let error = |quantized| output_error(&weight, quantized, &hessian);
                let ratio = error(&fast) / error(&plain);
                assert!((ratio - 1.0).abs() < 5e-3, "{case}: {ratio}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_a_matrix_of_many_tasks() {
    let (weight, hessian) = problem(300, 530);
    let on = |threads: usize, gptq: &Gptq| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        // A Hessian of its own, so that the factor is computed on these threads as well.
        let stats = CalibrationStats::from_hessian(1, hessian.clone());
        pool.install(|| run(gptq, &weight, &stats, BitWidth::B3))
    };
    for act_order in [false, true] {
        let gptq = Gptq::asymmetric(group(64)).act_order(act_order);
        let one = on(1, &gptq);
        assert!([2, 5].into_iter().all(|threads| on(threads, &gptq) == one), "act-order {act_order}");
    }
}

#[test]
fn modules_that_share_statistics_can_be_quantized_at_once() {
    use rayon::prelude::*;
    let (weight, hessian) = problem(20, 600);
    let stats = CalibrationStats::from_hessian(1, hessian);
    let gptq = Gptq::symmetric(group(128));
    let job = |_| run(&gptq, &weight, &stats, BitWidth::B4);
    let found: Vec<_> = (0..16).into_par_iter().map(job).collect();
    let alone = job(0);
    assert!(found.iter().all(|found| *found == alone));
}

#[test]
#[cfg(feature = "rtn")]
fn the_output_error_is_well_below_that_of_round_to_nearest() {
    let (weight, hessian) = problem(64, 256);
    let stats = CalibrationStats::from_hessian(1, hessian.clone());
    for width in [BitWidth::B2, BitWidth::B3, BitWidth::B4] {
        let name = ModuleName::new("m");
        let view = WeightView::new(&name, weight.view()).unwrap();
        let rtn = crate::Rtn::asymmetric(group(64)).quantize_at(&view, &stats, width).unwrap().dequantize();
        for act_order in [false, true] {
            let gptq = run(&Gptq::asymmetric(group(64)).act_order(act_order), &weight, &stats, width);
            let ratio = output_error(&weight, &gptq, &hessian) / output_error(&weight, &rtn, &hessian);
            assert!(ratio < 0.8, "{width} bits, act-order {act_order}: {ratio}");
        }
    }
}

#[test]
fn uncorrelated_inputs_leave_round_to_nearest() {
    let (weight, _) = problem(40, 130);
    let stats =
        CalibrationStats::from_hessian(1, Array2::from_diag(&ndarray::Array1::range(1.0, 131.0, 1.0)));
    for act_order in [false, true] {
        let found = run(&Gptq::asymmetric(group(64)).act_order(act_order), &weight, &stats, BitWidth::B3);
        for (row, found) in weight.rows().into_iter().zip(found.rows()) {
            for (row, found) in row.to_vec().chunks(64).zip(found.to_vec().chunks(64)) {
                use crate::grid::{Grid, Range};
                let grid = Grid::over(Range::of(row), Symmetry::Asymmetric, BitWidth::B3).unwrap();
                let mut codes = vec![0; row.len()];
                grid.encode(row, BitWidth::B3, &mut codes);
                let expected: Vec<f32> = codes
                    .iter()
                    .map(|&code| grid.scale.to_f32() * (f32::from(code) - f32::from(grid.zero)))
                    .collect();
                assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn channels_without_a_signal_become_zero_and_do_not_widen_a_grid() {
    let (mut weight, mut hessian) = problem(10, 64);
    let without = run(
        &Gptq::symmetric(group(64)),
        &{
            weight.column_mut(20).fill(0.0);
            weight.clone()
        },
        &CalibrationStats::from_hessian(1, {
            hessian.row_mut(20).fill(0.0);
            hessian.column_mut(20).fill(0.0);
            hessian.clone()
        }),
        BitWidth::B4,
    );
    weight.column_mut(20).fill(1e9);
    let stats = CalibrationStats::from_hessian(1, hessian);
    let found = run(&Gptq::symmetric(group(64)), &weight, &stats, BitWidth::B4);
    assert_eq!(found, without);
    assert!(found.column(20).iter().all(|&w| w == 0.0));
    let found = run(&Gptq::asymmetric(group(64)).act_order(false), &weight, &stats, BitWidth::B4);
    assert!(found.column(20).iter().all(|&w| w == 0.0) && found.iter().all(|w| w.abs() < 1.0));
}

#[test]
fn statistics_that_say_nothing_are_refused_with_the_modules_name() {
    let (weight, hessian) = problem(4, 6);
    let name = ModuleName::new("model.layers.1.mlp.down_proj");
    let view = WeightView::new(&name, weight.view()).unwrap();
    let refused = |hessian: Array2<f32>| {
        let stats = CalibrationStats::from_hessian(1, hessian);
        let error = Gptq::symmetric(group(64)).quantize_at(&view, &stats, BitWidth::B4).unwrap_err();
        assert_eq!(error.module(), &name);
        error
    };
    assert!(matches!(refused(Array2::zeros((6, 6))), QuantizeError::NoSignal { .. }));
    assert!(matches!(refused(Array2::eye(7)), QuantizeError::StatisticsShape { .. }));
    let mut wild = hessian.clone();
    wild[[3, 5]] = f32::NAN;
    assert!(matches!(refused(wild), QuantizeError::StatisticsNotFinite { channel: 3, .. }));
    let error = refused(hessian * -1.0);
    assert!(matches!(error, QuantizeError::SingularHessian { .. }));
    assert!(error.to_string().ends_with("with 100 times its mean diagonal added"), "{error}");
}

#[test]
fn inputs_that_span_few_dimensions_are_no_obstacle() {
    // One token: a Hessian of rank 1.
    let (weight, _) = problem(8, 96);
    let x = Array2::from_shape_fn((1, 96), |(_, channel)| (channel as f32).sin() * 30.0);
    let hessian = x.t().dot(&x);
    let stats = CalibrationStats::from_hessian(1, hessian.clone());
    let found = run(&Gptq::asymmetric(group(32)), &weight, &stats, BitWidth::B3);
    let ratio = output_error(&weight, &found, &hessian) / output_error(&weight, &(&weight * 0.0), &hessian);
    assert!(ratio < 1e-3, "{ratio}");
}

#[test]
fn a_scale_beyond_16_bits_names_row_and_group() {
    let (mut weight, hessian) = problem(300, 12);
    weight[[200, 5]] = 1e30;
    weight[[150, 9]] = 1e30;
    let name = ModuleName::new("m");
    let view = WeightView::new(&name, weight.view()).unwrap();
    let stats = CalibrationStats::from_hessian(1, hessian);
    for act_order in [false, true] {
        let gptq = Gptq::symmetric(group(4)).act_order(act_order);
        let error = gptq.quantize_at(&view, &stats, BitWidth::B4).unwrap_err();
        assert!(matches!(error, QuantizeError::ScaleOverflow { .. }), "{error}");
        if act_order {
            assert!(matches!(error, QuantizeError::ScaleOverflow { row: 200, group: 1, .. }), "{error}");
        }
    }
}

#[test]
fn descriptions_differ_with_every_setting() {
    let base = Gptq::symmetric(group(64));
    let all = [
        base,
        Gptq::asymmetric(group(64)),
        Gptq::symmetric(group(32)),
        base.act_order(false),
        base.damping(Damping::new(0.1).unwrap()),
        base.block(NonZeroUsize::new(64).unwrap()),
    ];
    let descriptions: std::collections::BTreeSet<_> = all.iter().map(Quantizer::describe).collect();
    assert_eq!(descriptions.len(), all.len());
    assert_eq!(base.describe(), "gptq symmetric g64, damping 0.01, act-order, block 128");
}

#[test]
fn damping_is_positive_and_finite() {
    for bad in [0.0, -0.01, f64::NAN, f64::INFINITY] {
        assert_eq!(Damping::new(bad), None);
    }
    assert_eq!(Damping::new(0.05).map(Damping::get), Some(0.05));
}
