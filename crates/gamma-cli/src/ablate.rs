//! `gamma ablate`: what each part of the method is worth.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use gamma::{
    Normaliser, Objective, Pressure, Reading, Row, Run, Sampling, ScoreSource, Scores, Settings,
    device::describe,
};

use crate::{
    args::{BudgetArgs, LearningArgs, ModelArgs},
    constraints::ConstraintArgs,
    judging::{JudgingArgs, window},
    ledger::Ledger,
    watch::{self, Watch},
};

#[derive(Debug, Args)]
pub struct AblateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    judging: JudgingArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
    #[command(flatten)]
    constraints: ConstraintArgs,
    /// Every objective with every score and every kind of sample, instead of one change at a time
    #[arg(long)]
    full: bool,
    /// Only the variants whose names contain this, such as `teacher` or `logits; soft`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Budget, in code bits per weight, that logits are learned at
    #[arg(long, value_name = "BITS", default_value_t = 3.0)]
    logits_at: f64,
    /// Folder for ablate.csv, ablate.md and ablate.svg; rows that are in there already are not
    /// measured again
    #[arg(long, value_name = "DIR", default_value = "gamma-ablate")]
    out: PathBuf,
    /// Measure everything anew
    #[arg(long)]
    fresh: bool,
}

/// One way to learn.
#[derive(Clone, PartialEq)]
struct Variant {
    name: String,
    settings: Settings,
    source: ScoreSource,
    /// The budget that it is for, where it is for one alone.
    only: Option<String>,
}

pub fn ablate(args: &AblateArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?, Some(&args.out))?.build()?;
    watch::introduce(&run);
    let setting = format!(
        "{} on {} with {}; {:?}; {:?}; {:?}; {}\n",
        args.model.name(),
        describe(run.device()),
        run.quantizer(),
        args.learning,
        args.judging,
        args.constraints,
        args.logits_at
    );
    let ledger = Ledger::open(&args.out, "ablate", &setting, args.fresh)?;
    let jury = args.judging.jury(&run, args.learning.length(), &mut watch)?;
    let seed = args.learning.seed();
    let mut rows: Vec<Row> = Vec::new();
    let mut prepared = false;
    for variant in variants(args)? {
        let mut learned: Option<(Scores, f64)> = None;
        for budget in &args.budgets.budgets {
            if variant.only.as_ref().is_some_and(|only| *only != budget.text) {
                continue;
            }
            if let Some(row) = ledger.known().iter().find(|row| row.is(&variant.name, &budget.text, seed)) {
                rows.push(row.clone());
                continue;
            }
            if !std::mem::replace(&mut prepared, true) {
                watch::prepare(&run, &mut watch)?; // the candidates count for no variant
            }
            let (scores, scoring) = match &learned {
                Some(known) => known,
                None => learned.insert(learn(&run, &variant, &mut watch)?),
            };
            let plan = scores.solve(&args.constraints.problem(scores, budget)?, &args.budgets.limits())?;
            let evaluation = jury.evaluate(&run.apply_watched(&plan, &mut watch)?, &mut watch)?;
            rows.push(Row {
                method: variant.name.clone(),
                budget: budget.text.clone(),
                seed,
                code_bits: plan.code_bits_per_weight(),
                stored_bits: plan.stored_bits_per_weight(),
                evaluation,
                scoring: *scoring,
                planning: 0.0,
            });
            ledger.keep(&rows)?;
        }
    }
    watch.finish();
    let judged = args.judging.describe(window(&run, args.learning.length()));
    let caption = format!(
        "{}, {}; {}; judged on {judged}",
        args.model.name(),
        run.quantizer(),
        args.learning.describe_text()
    );
    ledger.finish(&rows, &caption, jury.full_precision())
}

fn learn(run: &Run, variant: &Variant, watch: &mut Watch) -> anyhow::Result<(Scores, f64)> {
    let start = Instant::now();
    let learning = run.learn_by(&variant.settings, variant.source, watch)?;
    Ok((learning.scores, start.elapsed().as_secs_f64()))
}

/// What is varied: from the default, one thing at a time, or everything.
fn variants(args: &AblateArgs) -> anyhow::Result<Vec<Variant>> {
    let base = args.learning.settings()?;
    let lagrangian = Pressure::AugmentedLagrangian { target: args.logits_at, rho: 2.0 };
    let samples = [
        (Sampling::Graded, "graded"),
        (Sampling::Hard, "hard"),
        (Sampling::Soft, "soft"),
        (Sampling::Mean, "no noise"),
        (Sampling::Conditional, "conditional"),
    ];
    let variant = |(objective, name): &(Objective, String),
                   (sampling, drawn): (Sampling, &str),
                   source: ScoreSource| {
        let (pressure, scores) = match source {
            ScoreSource::Logits => (lagrangian, "logits"),
            _ => (base.pressure, "losses"),
        };
        let settings = Settings { objective: *objective, sampling, pressure, ..base.clone() };
        Variant { name: format!("{name}; {scores}; {drawn}"), settings, source, only: None }
    };
    let objectives = objectives();
    let (ours, papers) = (&objectives[0], &objectives[1]);
    let mut variants = Vec::new();
    for objective in &objectives {
        for sample in samples {
            for source in [ScoreSource::Losses, ScoreSource::Logits] {
                let fits = match (objective.0.reading, sample.0, source) {
                    // Logits are for one budget, which is not graded.
                    (Reading::PerModule, ..)
                    | (Reading::Through { .. }, Sampling::Conditional, _)
                    | (_, Sampling::Graded, ScoreSource::Logits) => false,
                    _ => true,
                };
                let default = (sample, source) == (samples[0], ScoreSource::Losses);
                let wanted = args.full || default || objective == ours || objective == papers;
                if (wanted && fits) || default {
                    variants.push(variant(objective, sample, source));
                }
            }
        }
    }
    let mut plain = variant(ours, samples[0], ScoreSource::Losses);
    plain.settings.pooled = false;
    plain.name.push_str("; mere means");
    variants.push(plain);
    // As if one run could not serve every budget.
    for budget in &args.budgets.budgets {
        if let Ok(bits) = budget.text.parse::<f64>() {
            let mut own = variant(ours, samples[0], ScoreSource::Losses);
            own.settings.pressure = Pressure::DrawnBudgets { from: bits - 0.25, to: bits + 0.25 };
            own.name.push_str("; learned for this budget alone");
            own.only = Some(budget.text.clone());
            variants.push(own);
        }
    }
    if let Some(only) = &args.only {
        variants.retain(|variant| variant.name.contains(only.as_str()));
        anyhow::ensure!(!variants.is_empty(), "no variant's name contains `{only}`");
    }
    Ok(variants)
}

/// The objectives and their names, the default first and the paper's second.
fn objectives() -> Vec<(Objective, String)> {
    let normalisers = [
        (Normaliser::Output, "of the stream"),
        (Normaliser::Update, "of the update"),
        (Normaliser::Fisher, "by Fisher"),
    ];
    let through = |hidden, divergence| Reading::Through { hidden, divergence };
    let default = Objective { reading: through(0.0, 1.0), ..Objective::default() };
    let mut all = vec![(default, "through, divergence".to_owned())];
    for (reading, name) in [
        (Reading::Teacher, "teacher"),
        (Reading::Mixed { last: 0.5 }, "mixed"),
        (through(1.0, 0.0), "through, hidden states"),
        (through(1.0, 1.0), "through, divergence + hidden states"),
    ] {
        for (normaliser, unit) in normalisers {
            all.push((Objective { reading, normaliser }, format!("{name}, {unit}")));
        }
    }
    all.push((Objective { reading: Reading::PerModule, ..Objective::default() }, "per module".to_owned()));
    all
}
