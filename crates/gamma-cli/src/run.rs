//! `gamma run`: the whole job.

use std::{path::Path, time::Instant};

use gamma::{
    BitWidth, Budget, Jury, Plan, Precision, Run,
    report::{self, Outcome, Series},
    write_atomically,
};

use crate::{args::RunArgs, budget::BudgetArg, project::headline, watch::Watch};

#[expect(clippy::print_stdout, reason = "plans and table are the command's answer")]
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?).build()?;
    let config = run.config();
    let (modules, architecture) = (7 * config.blocks, config.architecture.name());
    eprintln!("{architecture}: {} blocks, {modules} modules, hidden size {}", config.blocks, config.hidden_size);
    // The texts are checked before the long work, not after it.
    let jury = run.jury(&args.evaluation, args.learning.length(), args.windows, &mut watch)?;

    let scores = run.learn(&mut watch)?;
    watch.finish();
    scores.save(args.out.join("scores.json"))?;

    let mut plans = Vec::new();
    for budget in &args.budgets.budgets {
        let solving = Instant::now();
        let plan = scores.project_within(budget.budget, &args.budgets.limits())?;
        let seconds = solving.elapsed().as_secs_f64();
        println!("{}\n{}", headline(budget, &plan, seconds), report::grid(&plan));
        plans.push((budget, plan));
    }

    let mut outcomes = vec![Outcome::full_precision(jury.full_precision())];
    for bits in reference_widths(&run, &args.budgets.budgets) {
        let plan = scores.uniform(bits)?;
        outcomes.push(judge(&run, &jury, Series::Uniform, format!("uniform {bits}"), &plan, &mut watch)?);
    }
    for (budget, plan) in &plans {
        outcomes.push(judge(&run, &jury, Series::Planned, format!("gamma {}", budget.text), plan, &mut watch)?);
        write_plan(&run, budget, plan, args, &mut watch)?;
    }
    watch.finish();
    outcomes.sort_by(|a, b| b.stored_bits.total_cmp(&a.stored_bits).then(a.name.cmp(&b.name)));
    outcomes.sort_by_key(|outcome| outcome.series != Series::Full);

    let table = report::table(&outcomes);
    println!("{table}");
    let grids: String =
        plans.iter().map(|(budget, plan)| format!("\n{budget}\n\n```text\n{}```\n", report::grid(plan))).collect();
    write_atomically(&args.out.join("report.md"), format!("{table}{grids}").as_bytes())?;
    write_atomically(&args.out.join("perplexity.svg"), report::curve_svg(&outcomes)?.as_bytes())?;
    eprintln!("scores, plans, table and picture are in {}", args.out.display());
    eprintln!("{:.1} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

/// The candidate widths around and between the budgets: what a user would take without gamma.
fn reference_widths(run: &Run, budgets: &[BudgetArg]) -> Vec<BitWidth> {
    let averages: Vec<f64> = budgets
        .iter()
        .filter_map(|arg| match arg.budget {
            Budget::AverageBits(bits) | Budget::StoredBitsPerWeight(bits) => Some(bits),
            _ => None,
        })
        .collect();
    let lowest = averages.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let highest = averages.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    let near = |bits: f64| averages.is_empty() || (lowest..=highest).contains(&bits);
    run.candidates().iter().copied().filter(|bits| near(f64::from(bits.bits()))).collect()
}

fn judge(
    run: &Run,
    jury: &Jury,
    series: Series,
    name: String,
    plan: &Plan,
    watch: &mut Watch,
) -> anyhow::Result<Outcome> {
    let evaluation = jury.evaluate(&run.apply(plan)?, watch)?;
    Ok(Outcome::of_plan(series, name, plan, evaluation))
}

/// A folder for each budget: the plan, and the checkpoint where it is wanted.
fn write_plan(run: &Run, budget: &BudgetArg, plan: &Plan, args: &RunArgs, watch: &mut Watch) -> anyhow::Result<()> {
    let folder = args.out.join(format!("budget-{}", budget.text));
    if args.no_checkpoints {
        return Ok(plan.save(folder.join("plan.json"))?);
    }
    run.apply_watched(plan, watch)?.write(Path::new(&folder), Precision::F32, true)?;
    Ok(())
}

