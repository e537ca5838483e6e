//! `gamma compare`: methods against budgets.

use std::path::PathBuf;

use clap::Args;
use gamma::{Choices, Comparison, Row, Strategy, device::describe};

use crate::{
    args::{BudgetArgs, LearningArgs, ModelArgs},
    constraints::ConstraintArgs,
    judging::{JudgingArgs, window},
    ledger::Ledger,
    refinement::RefinementArgs,
    watch::{self, Watch},
};

#[derive(Debug, Args)]
pub struct CompareArgs {
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
    #[command(flatten)]
    refinement: RefinementArgs,
    /// Methods to compare [default: all]
    #[arg(long, value_delimiter = ',', value_name = "METHOD")]
    methods: Vec<Strategy>,
    /// Seeds of methods that draw at random [default: that of `--seed`]
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Bit-widths that another tool chose; repeatable
    #[arg(long, value_name = "FILE")]
    choices: Vec<PathBuf>,
    /// Folder for compare.csv, compare.md and compare.svg. Rows that are in compare.csv already are
    /// not measured again, so that a comparison that was stopped goes on
    #[arg(long, value_name = "DIR", default_value = "gamma-compare")]
    out: PathBuf,
    /// Measure everything anew
    #[arg(long)]
    fresh: bool,
}

pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    args.constraints.only_rules()?;
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?, None)?.build()?;
    watch::introduce(&run);
    let ledger = Ledger::open(&args.out, "compare", &setting(args, &run), args.fresh)?;
    let choices = args.choices.iter().map(Choices::load).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison {
        strategies: if args.methods.is_empty() { Strategy::ALL.to_vec() } else { args.methods.clone() },
        budgets: args.budgets.budgets.iter().map(|arg| (arg.text.clone(), arg.budget)).collect(),
        seeds: if args.seeds.is_empty() { vec![args.learning.seed()] } else { args.seeds.clone() },
        rules: args.constraints.rules()?,
        choices,
        refinement: args.refinement.settings(),
    };
    let jury = args.judging.jury(&run, args.learning.length(), &mut watch)?;
    if run.config().experts.is_some() {
        watch::prepare(&run, &mut watch)?;
    }
    let mut finished = |rows: &[Row]| ledger.keep(rows);
    let rows = run.compare(&jury, &comparison, ledger.known(), &mut finished, &mut watch)?;
    watch.finish();
    ledger.finish(&rows, &caption(args, &run), jury.full_precision())
}

/// What was compared, for a reader.
fn caption(args: &CompareArgs, run: &gamma::Run) -> String {
    let widths: Vec<String> = run.candidates().iter().map(ToString::to_string).collect();
    let judged = args.judging.describe(window(run, args.learning.length()));
    format!(
        "{}, {}, candidates of {} bits; {}; judged on {judged}; {}",
        args.model.name(),
        run.quantizer(),
        widths.join(", "),
        args.learning.describe_text(),
        args.refinement.describe(),
    )
}

/// Everything that rows depend on but for method, budget and seed, in words.
fn setting(args: &CompareArgs, run: &gamma::Run) -> String {
    let (judging, constraints) = (&args.judging, &args.constraints);
    format!(
        "{} on {} with {}; {:?}; judged on {judging:?}; {constraints:?}; {:?}\n",
        args.model.name(),
        describe(run.device()),
        run.quantizer(),
        args.learning,
        args.refinement
    )
}
