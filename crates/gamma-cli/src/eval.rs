//! `gamma eval`: perplexity and divergence of models, plans and checkpoints.

use std::path::PathBuf;

use clap::Args;
use gamma::{
    Calibration, Plan,
    report::{self, Outcome, Series},
};

use crate::{
    args::{ModelArgs, TextArgs},
    judging::JudgingArgs,
    quantizer::{self, Method},
    watch::{self, Watch},
};

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    judging: JudgingArgs,
    /// A plan, applied with the quantizer that it was learned with; repeatable
    #[arg(long = "plan", value_name = "FILE")]
    plans: Vec<PathBuf>,
    /// A checkpoint made from the model, such as one that gamma wrote; repeatable
    #[arg(long = "checkpoint", value_name = "DIR")]
    checkpoints: Vec<PathBuf>,
    /// How weights are quantized, in the formats of the plan [default: as the plan was learned]
    #[arg(long, value_enum)]
    quantizer: Option<Method>,
    #[command(flatten)]
    text: TextArgs,
}

pub fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let run = args.model.builder()?.build()?;
    watch::introduce(&run);
    let jury = args.judging.jury(&run, args.text.length(), &mut watch)?;
    let mut outcomes = vec![Outcome::full_precision(jury.full_precision())];
    for path in &args.plans {
        let plan = Plan::load(path)?;
        let builder = quantizer::for_plan(args.model.builder()?, args.quantizer, &plan)?;
        let calibration = args.text.calibration().unwrap_or_else(Calibration::none);
        let run = builder.calibration(calibration).build()?;
        let applied = run.apply_watched(&plan, &mut watch)?;
        let evaluation = jury.evaluate(&applied, &mut watch)?;
        outcomes.push(Outcome::of_plan(Series::Planned, path.display().to_string(), &plan, evaluation));
    }
    for folder in &args.checkpoints {
        let evaluation = jury.evaluate_folder(folder, &mut watch)?;
        outcomes.push(Outcome::checkpoint(folder.display().to_string(), evaluation));
    }
    watch.finish();
    say!("{}: {}\n", args.model.name(), jury.windows());
    say!("{}", report::table(&outcomes));
    Ok(())
}
