//! Models of formulas, whose divergence under any plan is known.
#![allow(dead_code, reason = "every test file uses another part")]

use std::{
    collections::HashMap,
    convert::Infallible,
    ops::{ControlFlow, Range},
};

use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, Plan, ScoreTable, ScoredOption};
use gamma_refine::{Examiner, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How errors of modules become a divergence.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// Their sum.
    Additive,
    /// The sum, and so many times the square of the sum over the second half of the modules.
    Joint(f64),
    /// The root of the sum.
    Root,
    /// `c (1 - Π (1 - a))`: what one module has broken, another cannot break again.
    Saturating,
}

/// A model of a formula.
#[derive(Clone, Debug)]
pub struct Formula {
    pub damage: Damage,
    /// Position of each module, and its error under each format.
    errors: HashMap<ModuleName, (usize, Vec<(Format, f64)>)>,
    pub windows: usize,
    /// Relative noise that differs from window to window and from plan to plan.
    pub noise: f64,
    /// What was asked, in order.
    pub calls: Vec<(Plan, Range<usize>)>,
    pub settled: Vec<Plan>,
}

impl Formula {
    /// The costs of `truth` are the errors.
    pub fn new(truth: &ScoreTable, damage: Damage, windows: usize, noise: f64) -> Self {
        let options = |module: &ModuleScores| -> Vec<(Format, f64)> {
            module.options.iter().map(|option| (option.format.clone(), option.cost)).collect()
        };
        let modules = truth.modules().iter().enumerate();
        let errors = modules.map(|(at, module)| (module.name.clone(), (at, options(module)))).collect();
        Self { damage, errors, windows, noise, calls: Vec::new(), settled: Vec::new() }
    }

    /// The divergence without noise. Modules that the plan leaves out are in full precision.
    pub fn truth(&self, plan: &Plan) -> f64 {
        let error = |choice: &gamma_core::Choice| {
            let (at, options) = &self.errors[&choice.name];
            let own = options.iter().find(|(format, _)| *format == choice.format).expect("an option");
            (*at, own.1)
        };
        let errors = || plan.choices().iter().map(error);
        let sum: f64 = errors().map(|(_, error)| error).sum();
        match self.damage {
            Damage::Additive => sum,
            Damage::Joint(strength) => {
                let late = errors().filter(|(at, _)| *at >= self.errors.len() / 2);
                sum + strength * late.map(|(_, error)| error).sum::<f64>().powi(2)
            }
            Damage::Root => sum.sqrt(),
            Damage::Saturating => {
                let kept: f64 = errors().map(|(_, error)| 1.0 - error.min(1.0) * 0.9).product();
                5.0 * (1.0 - kept)
            }
        }
    }

    pub fn on(&self, plan: &Plan, windows: Range<usize>) -> Vec<f64> {
        let mean = self.truth(plan);
        let window = |window: usize| {
            let shared = hash(&window.to_le_bytes(), 0);
            let own = plan.choices().iter().fold(shared, |state, choice| {
                let format = choice.format.to_string();
                hash(format.as_bytes(), hash(choice.name.as_str().as_bytes(), state))
            });
            mean * (1.0 + 0.5 * unit(shared)) * (1.0 + self.noise * (unit(own) - 0.5))
        };
        windows.map(window).collect()
    }

    pub fn mean(&self, plan: &Plan, windows: Range<usize>) -> f64 {
        let n_windows = windows.len() as f64;
        self.on(plan, windows).iter().sum::<f64>() / n_windows
    }
}

/// FNV-1a, from `state` on.
fn hash(bytes: &[u8], state: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ state;
    bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Uniform in [0, 1).
fn unit(hash: u64) -> f64 {
    ChaCha8Rng::seed_from_u64(hash).random()
}

impl Examiner for Formula {
    type Error = Infallible;

    fn windows(&self) -> usize {
        self.windows
    }

    fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Infallible> {
        self.calls.push((plan.clone(), windows.clone()));
        Ok(self.on(plan, windows))
    }

    fn settle(&mut self, plan: &Plan) -> Result<(), Infallible> {
        self.settled.push(plan.clone());
        Ok(())
    }
}

const ROLES: [(&str, [usize; 2]); 7] = [
    ("self_attn.q_proj", [64, 64]),
    ("self_attn.k_proj", [32, 64]),
    ("self_attn.v_proj", [32, 64]),
    ("self_attn.o_proj", [64, 64]),
    ("mlp.gate_proj", [192, 64]),
    ("mlp.up_proj", [192, 64]),
    ("mlp.down_proj", [64, 192]),
];

/// Blocks of a Llama model with random sensitivities; the costs fall by about four per bit.
pub fn llama(seed: u64, blocks: usize, widths: &[u8]) -> ScoreTable {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut modules = Vec::new();
    for block in 0..blocks {
        for (role, shape) in ROLES {
            let sensitivity = 10_f64.powf(-1.5 * rng.random::<f64>());
            let option = |&bits: &u8| {
                let format =
                    Format::asymmetric(BitWidth::new(bits).expect("2 to 8"), GroupSize::new(64).expect("64"));
                let stored = format.stored_bits(shape).expect("integer format");
                let cost = sensitivity * 4_f64.powi(2 - i32::from(bits)) * (0.8 + 0.4 * rng.random::<f64>());
                ScoredOption::new(format, stored, cost)
            };
            let options = widths.iter().map(option).collect();
            let name = ModuleName::new(format!("model.layers.{block}.{role}"));
            modules.push(ModuleScores { name, shape, options });
        }
    }
    ScoreTable::new(modules).expect("a legal table")
}

/// The same options with other costs.
pub fn recost(table: &ScoreTable, mut cost: impl FnMut(&ModuleScores, usize) -> f64) -> ScoreTable {
    let mut modules = table.modules().to_vec();
    for module in &mut modules {
        let costs: Vec<f64> = (0..module.options.len()).map(|option| cost(module, option)).collect();
        module.options.iter_mut().zip(costs).for_each(|(option, cost)| option.cost = cost);
    }
    ScoreTable::new(modules).expect("a legal table")
}

/// The divergence with one module quantized and all others in full precision.
pub fn isolated(formula: &Formula, table: &ScoreTable) -> ScoreTable {
    recost(table, |module, option| {
        let mut own = module.clone();
        own.options = vec![own.options[option].clone()];
        let one = ScoreTable::new(vec![own]).expect("a legal table");
        formula.truth(&Plan::from_picks(&one, &[0], None).expect("one option"))
    })
}

pub fn go_on() -> impl FnMut(&Step) -> ControlFlow<()> {
    |_: &Step| ControlFlow::Continue(())
}

/// Stops after so many measurements.
pub fn stop_after(measurements: u64) -> impl FnMut(&Step) -> ControlFlow<()> {
    move |step: &Step| {
        if step.spent.evaluations >= measurements {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

pub fn bits(plan: &Plan) -> Vec<u8> {
    plan.choices().iter().map(|choice| choice.format.bits().bits()).collect()
}
