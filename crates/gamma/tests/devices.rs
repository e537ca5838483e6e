//! The device that `GAMMA_TEST_DEVICE` names against the CPU: the same run on both. Without it, or where it
//! names the CPU, there is nothing to compare.

use std::path::{Path, PathBuf};

use gamma::{
    Budget, Calibration, Device, DeviceName, Gamma, Gptq, GroupSize, Objective, Proxy, Quiet, Reading, Rtn,
    Run, ScoreTable, Settings,
};

/// How far costs may be apart, as a fraction of the largest of their module. Sums in another order and
/// exponentials of another library differ in the seventh digit, and so do costs of the same candidates.
const ROUNDING: f64 = 1e-4;
/// The same where candidates are made on the device: a Hessian that differs in its last digit sends a weight
/// here and there to the neighbouring code.
const CODES: f64 = 1e-2;

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

/// The tested device and the CPU, where they are two.
fn devices() -> Option<[Device; 2]> {
    let both = [gamma::device::tested(), DeviceName::CPU.open().expect("a CPU")];
    if both[0] == both[1] {
        eprintln!("skipped: the tested device is the CPU");
        return None;
    }
    Some(both)
}

fn builder(device: &Device) -> gamma::Builder {
    Gamma::builder()
        .device(device.clone())
        .model(fable())
        .calibration(Calibration::text_file(fable().join("calibration.txt")).sequences(8).length(64))
        .quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid")))
        .candidates([2, 3, 4])
}

/// The largest distance between costs of the same option, by the largest cost of its module.
fn distance(one: &ScoreTable, other: &ScoreTable) -> f64 {
    let mut worst = 0.0_f64;
    for (one, other) in one.modules().iter().zip(other.modules()) {
        assert_eq!((&one.name, one.options.len()), (&other.name, other.options.len()));
        let largest = one.options.iter().map(|option| option.cost.abs()).fold(f64::MIN_POSITIVE, f64::max);
        for (a, b) in one.options.iter().zip(&other.options) {
            worst = worst.max((a.cost - b.cost).abs() / largest);
        }
    }
    worst
}

#[test]
fn learning_finds_the_costs_and_the_plans_of_the_cpu() {
    let Some(devices) = devices() else { return };
    for reading in [Reading::Through { hidden: 0.5, divergence: 1.0 }, Reading::Teacher, Reading::PerModule] {
        let objective = Objective { reading, ..Objective::default() };
        let settings = Settings { objective, rounds: 2, steps: 2, survey_draws: 1, ..Settings::default() };
        let [card, cpu] = devices.each_ref().map(|device| {
            let run = builder(device).learning(settings.clone()).build().expect("valid");
            run.learn(&mut Quiet).expect("learns")
        });
        assert_ne!(card.provenance.device, cpu.provenance.device);
        let apart = distance(&card.table, &cpu.table);
        eprintln!("{reading:?}: costs are {apart:e} apart");
        assert!(apart < ROUNDING, "{reading:?}: costs are {apart:e} apart");
        for bits in [2.25, 2.5, 3.0, 3.5] {
            let [card, cpu] = [&card, &cpu].map(|scores| {
                let plan = scores.project(Budget::average_bits(bits)).expect("feasible");
                plan.choices().iter().map(|choice| choice.format.clone()).collect::<Vec<_>>()
            });
            assert_eq!(card, cpu, "{reading:?}, {bits} bits");
        }
    }
}

#[test]
fn proxies_find_the_costs_of_the_cpu() {
    let Some(devices) = devices() else { return };
    let gptq = Gptq::asymmetric(GroupSize::new(64).expect("valid"));
    let run = |builder: gamma::Builder| -> Run { builder.candidates([2, 4]).build().expect("valid") };
    let nearest = devices.each_ref().map(|device| run(builder(device)));
    let compensated = devices.each_ref().map(|device| run(builder(device).quantizer(gptq)));
    for (runs, proxy, tolerance) in [
        (&nearest, Proxy::Fisher, ROUNDING),
        (&nearest, Proxy::Block, ROUNDING),
        (&compensated, Proxy::Hessian, CODES),
        (&compensated, Proxy::Divergence, CODES),
    ] {
        let [card, cpu] = runs.each_ref().map(|run| run.score(proxy, &mut Quiet).expect("scores"));
        let apart = distance(&card.table, &cpu.table);
        eprintln!("{proxy:?}: costs are {apart:e} apart");
        assert!(apart < tolerance, "{proxy:?}: costs are {apart:e} apart");
    }
}

#[test]
fn evaluations_are_those_of_the_cpu() {
    let Some(devices) = devices() else { return };
    let judged = devices.each_ref().map(|device| {
        let run = builder(device).build().expect("valid");
        let jury =
            run.jury(&[fable().join("evaluation.txt")], Some(128), Some(8), &mut Quiet).expect("judges");
        let plan = run.score(Proxy::Weights, &mut Quiet).expect("scores");
        let plan = plan.project(Budget::average_bits(2.5)).expect("feasible");
        let applied = run.apply(&plan).expect("fits the model");
        (jury.full_precision(), jury.evaluate(&applied, &mut Quiet).expect("finite"))
    });
    let [(card_full, card), (cpu_full, cpu)] = judged;
    assert!((card_full.loss - cpu_full.loss).abs() < 1e-5, "{card_full:?} and {cpu_full:?}");
    assert!((card.loss - cpu.loss).abs() < 1e-5, "{card:?} and {cpu:?}");
    assert!((card.kl - cpu.kl).abs() < 1e-5, "{card:?} and {cpu:?}");
    assert!(cpu.kl > 0.01, "{cpu:?}");
}
