//! `gamma run`: the whole job.

use std::{fmt::Write as _, time::Instant};

use anyhow::Context as _;
use gamma::{
    BitWidth, Budget, Plan, Precision, Rule, Run, Scores, ScoresFile,
    report::{self, Outcome, Series},
    write_atomically,
};

use crate::{
    args::RunArgs,
    budget::BudgetArg,
    constraints, keeping,
    project::headline,
    refinement,
    watch::{self, Watch},
};

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?, Some(&args.out))?.build()?;
    watch::introduce(&run);
    if args.learning.dry_run {
        return watch::demand(&run);
    }
    // Whatever can be refused is refused before the long work, not after it.
    check_budgets(&run, args)?;
    run.check_gate()?;
    watch::writable(Some(&args.out))?;
    let rivals = args.rivals.plans()?;
    let jury = args.judging.jury(&run, args.learning.length(), &mut watch)?;

    let state = args.keeping.beside(&args.out.join("scores.json"));
    let (mut scores, learning) = if let Some(path) = &args.scores {
        let scores = Scores::load(path)?;
        run.verify(&scores, &mut watch)?;
        (scores, None)
    } else {
        let learning = keeping::learn(&run, &state, &mut watch)?;
        (learning.scores.clone(), Some(learning))
    };
    watch::warn_of_starved(&scores);
    scores.save(args.out.join("scores.json"))?;
    scores = args.constraints.scores(scores)?;

    let mut plans = Vec::new();
    for budget in &args.budgets.budgets {
        let solving = Instant::now();
        let open = scores.remainder.clone();
        let limits = args.budgets.limits();
        let before = scores.settled(&args.constraints.problem(&scores, budget)?, &limits)?;
        let problem = args.constraints.problem(&before, budget)?;
        let refined = run.refine(&before, &problem, &rivals, &args.refinement.settings(), &mut watch)?;
        watch.finish();
        let seconds = solving.elapsed().as_secs_f64();
        say!("{}\n{}\n", headline(budget, &refined.plan, seconds), refinement::account(&refined));
        say!("{}", report::grid(&refined.plan));
        if let (Some(learning), true) = (&learning, args.bootstrap > 0) {
            let learned = &learning.scores;
            let learned = learned.settled(&args.constraints.problem(learned, budget)?, &limits)?;
            let own = args.constraints.problem(&learned, budget)?;
            let planned = learned.solve(&own, &limits)?;
            let stability = learning.stability(&own, &planned, args.bootstrap)?;
            say!("{}", report::stability(&stability));
        }
        // What was measured for this budget serves its neighbours, in this run and later.
        scores = Scores::new(ScoresFile { remainder: open, ..(*refined.scores).clone() });
        scores.save(args.out.join(args.constraints.scores_file()))?;
        plans.push((budget, refined.plan, refined.predicted.map(|estimate| estimate.mean)));
    }

    let mut outcomes = vec![Outcome::full_precision(jury.full_precision())];
    for bits in reference_widths(&run, &args.budgets.budgets) {
        // Blocks do not fit every module.
        if let Some(module) = scores.table.modules().iter().find(|module| module.option(bits).is_none()) {
            note!("no uniform {bits} to compare with: nothing of {bits} bits fits `{}`", module.name);
            continue;
        }
        let plan = uniform(&scores, bits, args)?;
        let evaluation = jury.evaluate(&run.apply(&plan)?, &mut watch)?;
        outcomes.push(Outcome::of_plan(Series::Uniform, format!("uniform {bits}"), &plan, evaluation));
    }
    for (budget, plan, predicted) in &plans {
        let applied = run.apply(plan)?;
        let evaluation = jury.evaluate(&applied, &mut watch)?;
        let outcome = Outcome::of_plan(Series::Planned, format!("gamma {}", budget.text), plan, evaluation);
        outcomes.push(outcome.predicted(*predicted));
        if args.no_checkpoints {
            plan.save(args.out.join(format!("plan-{}.json", budget.file_name())))?;
        } else {
            applied.write(&args.out.join(format!("budget-{}", budget.file_name())), Precision::F32, true)?;
        }
    }
    watch.finish();
    outcomes.sort_by(|a, b| b.stored_bits.total_cmp(&a.stored_bits).then(a.name.cmp(&b.name)));
    outcomes.sort_by_key(|outcome| outcome.series != Series::Full);

    let table = report::table(&outcomes);
    say!("{table}");
    let mut page = format!("{table}\n{}\n", report::unplanned(run.planned_weights(), &run.unplanned()?));
    if let Some(starved) = scores.routing.as_ref().and_then(report::starved) {
        _ = writeln!(page, "\n{starved}");
    }
    for (budget, plan, _) in &plans {
        _ = write!(page, "\n{budget}\n\n```text\n{}```\n", report::grid(plan));
    }
    write_atomically(&args.out.join("report.md"), page.as_bytes())?;
    write_atomically(&args.out.join("perplexity.svg"), report::curve_svg(&outcomes)?.as_bytes())?;
    // Until here an interrupted run would not have to learn again.
    state.remove()?;
    note!("scores, plans, table and picture are in {}", args.out.display());
    note!("{:.1} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

/// The uniform plan, without the modules that are excluded from all plans.
fn uniform(scores: &Scores, bits: BitWidth, args: &RunArgs) -> anyhow::Result<Plan> {
    let rules = args.constraints.rules()?;
    let mut excluding = rules.into_iter().filter(|rule| matches!(rule, Rule::Exclude { .. })).peekable();
    if excluding.peek().is_none() {
        return Ok(scores.uniform(bits)?);
    }
    let problem =
        scores.problem(Budget::bytes(u64::MAX)).rules(excluding).rule(format!("pin * {bits}").parse()?);
    Ok(scores.solve(&problem, &args.budgets.limits())?)
}

/// The candidate widths around and between the budgets: what a user would take without gamma.
fn reference_widths(run: &Run, budgets: &[BudgetArg]) -> Vec<BitWidth> {
    let averages: Vec<f64> = budgets
        .iter()
        .filter_map(|arg| match arg.budget {
            Budget::AverageBits(bits)
            | Budget::StoredBitsPerWeight(bits)
            | Budget::CodeBitsPerWeight(bits) => Some(bits),
            _ => None,
        })
        .collect();
    let lowest = averages.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let highest = averages.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    let near = |bits: f64| averages.is_empty() || (lowest..=highest).contains(&bits);
    run.candidates().iter().copied().filter(|bits| near(f64::from(bits.bits()))).collect()
}

/// Whether every budget can be met, as far as sizes tell before anything is learned.
fn check_budgets(run: &Run, args: &RunArgs) -> anyhow::Result<()> {
    let Some(options) = run.options()? else { return Ok(()) };
    let options = args.constraints.scores(options)?;
    for (number, budget) in args.budgets.budgets.iter().enumerate() {
        let (limits, refusal) = (args.budgets.limits(), || format!("no plan fits {budget}"));
        let problem = args.constraints.problem(&options, budget)?;
        if number == 0 {
            constraints::introduce(&problem);
        }
        let settled = options.settled(&problem, &limits).with_context(refusal)?;
        args.constraints.problem(&settled, budget)?.check(&limits).with_context(refusal)?;
    }
    Ok(())
}
