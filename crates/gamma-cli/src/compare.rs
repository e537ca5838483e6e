//! `gamma compare`: methods against budgets.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use gamma::{
    Choices, Comparison, Error, Row, Strategy, read_csv,
    report::{self, Shown},
    to_csv, write_atomically,
};

use crate::{
    args::{BudgetArgs, LearningArgs, ModelArgs},
    constraints::ConstraintArgs,
    judging::JudgingArgs,
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
    /// Seeds of methods that draw at random
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
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
    let run = args.learning.complete(args.model.builder()?)?.build()?;
    watch::introduce(&run);
    watch::writable(Some(&args.out))?;
    let csv = args.out.join("compare.csv");
    // What the rows were measured with; rows of anything else are not taken up.
    let setting = setting(args, &run);
    let stamp = args.out.join("compare.setting");
    let same = fs::read_to_string(&stamp).is_ok_and(|text| text == setting);
    let known: Vec<Row> = match fs::read_to_string(&csv) {
        Ok(text) if same && !args.fresh => read_csv(&csv, &text)?,
        Ok(_) if !args.fresh => anyhow::bail!(
            "`{}` was measured with other settings: choose another --out, or give --fresh",
            csv.display()
        ),
        _ => Vec::new(),
    };
    write_atomically(&stamp, setting.as_bytes())?;
    if !known.is_empty() {
        note!("{} rows are known from {}", known.len(), csv.display());
    }
    let choices = args.choices.iter().map(Choices::load).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison {
        strategies: if args.methods.is_empty() { Strategy::ALL.to_vec() } else { args.methods.clone() },
        budgets: args.budgets.budgets.iter().map(|arg| (arg.text.clone(), arg.budget)).collect(),
        seeds: args.seeds.clone(),
        rules: args.constraints.rules()?,
        choices,
        refinement: args.refinement.settings(),
    };
    let jury = args.judging.jury(&run, args.learning.length(), &mut watch)?;
    let mut finished = |rows: &[Row]| -> Result<(), Error> {
        let Some(row) = rows.last() else { return Ok(()) };
        note!("{} {} (seed {}): {:.3}", row.method, row.budget, row.seed, row.evaluation.perplexity());
        // Rows that are still to be taken up are kept as well.
        let rest = known.iter().filter(|row| !rows.iter().any(|r| r.is(&row.method, &row.budget, row.seed)));
        let all: Vec<Row> = rows.iter().chain(rest).cloned().collect();
        Ok(write_atomically(&csv, to_csv(&all).as_bytes())?)
    };
    let rows = run.compare(&jury, &comparison, &known, &mut finished, &mut watch)?;
    watch.finish();
    let mut page =
        format!("{setting}\nPerplexity; full precision {:.3}:\n\n", jury.full_precision().perplexity());
    page.push_str(&report::comparison(&rows, Shown::Perplexity));
    _ = write!(page, "\nMean divergence from full precision, nats per token:\n\n");
    page.push_str(&report::comparison(&rows, Shown::Divergence));
    _ = write!(page, "\nTop-1 agreement with full precision, per cent:\n\n");
    page.push_str(&report::comparison(&rows, Shown::Agreement));
    say!("{page}");
    write_atomically(&csv, to_csv(&rows).as_bytes())?;
    write_atomically(&args.out.join("compare.md"), page.as_bytes())?;
    let picture = report::comparison_svg(&rows).context("nothing was compared")?;
    write_atomically(&args.out.join("compare.svg"), picture.as_bytes())?;
    note!("table and picture are in {}", args.out.display());
    Ok(())
}

/// Everything that rows depend on but for method, budget and seed, in words.
fn setting(args: &CompareArgs, run: &gamma::Run) -> String {
    let (judging, constraints) = (&args.judging, &args.constraints);
    format!(
        "{} with {}; {:?}; judged on {judging:?}; {constraints:?}; {:?}\n",
        args.model.name(),
        run.quantizer(),
        args.learning,
        args.refinement
    )
}
