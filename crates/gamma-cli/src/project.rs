//! `gamma project`.

use std::time::Instant;

use gamma::{Plan, Scores, report};

use crate::{args::ProjectArgs, budget::BudgetArg, constraints, watch};

pub fn project(args: &ProjectArgs) -> anyhow::Result<()> {
    let scores = args.constraints.scores(Scores::load(&args.scores)?)?;
    watch::warn_of_starved(&scores);
    let near = args.near.as_ref().map(Plan::load).transpose()?;
    for (number, budget) in args.budgets.budgets.iter().enumerate() {
        let limits = args.budgets.limits();
        let settled = scores.settled(&args.constraints.problem(&scores, budget)?, &limits)?;
        let mut problem = args.constraints.problem(&settled, budget)?;
        if let (Some(plan), Some(change)) = (&near, &args.change) {
            problem = problem.near(plan, change.0);
        }
        if number == 0 {
            constraints::introduce(&problem);
        }
        let start = Instant::now();
        let plans = settled.top(&problem, args.top, &limits)?;
        let seconds = start.elapsed().as_secs_f64();
        if plans.len() < args.top {
            note!("{budget}: there are no more than {} plans", plans.len());
        }
        for (place, plan) in plans.iter().enumerate() {
            if let Some(out) = &args.out {
                let rank = if args.top > 1 { format!("-{}", place + 1) } else { String::new() };
                let path = out.join(format!("plan-{}{rank}.json", budget.file_name()));
                plan.save(&path)?;
                note!("wrote {}", path.display());
            }
            if args.top > 1 {
                say!("{}. of {}, cost {:.6e}", place + 1, plans.len(), plan.cost());
            }
            say!("{}\n{}", headline(budget, plan, seconds), report::grid(plan));
            if let Some(near) = &near {
                say!("{}", changes(near, plan));
            }
            if args.footprint {
                say!("{}\n", plan.footprint());
            }
        }
    }
    Ok(())
}

/// Which modules differ from another plan.
fn changes(from: &Plan, to: &Plan) -> String {
    let changed = to.choices().iter().filter_map(|choice| {
        let former = from.choice(&choice.name)?;
        (former.format != choice.format)
            .then(|| format!("  {}: {} to {}", choice.name, former.format, choice.format))
    });
    let lines: Vec<String> = changed.collect();
    format!("{} of {} modules change\n{}", lines.len(), to.choices().len(), lines.join("\n"))
}

/// Budget, size, proof and time in one line.
pub fn headline(budget: &BudgetArg, plan: &Plan, seconds: f64) -> String {
    let proof = plan.certificate().map_or_else(String::new, |proof| {
        // HiGHS proves to within its own rounding, some 1e-11 of the cost, and never says zero.
        let proven = proof.gap() <= 1e-9 * proof.cost.abs();
        let quality = if proven { "optimal".to_owned() } else { format!("gap {:.2e}", proof.gap()) };
        format!("; {quality} by {}, {} bytes to spare", proof.solver, proof.slack_bits() / 8)
    });
    format!(
        "{budget}: {:.3} code bits, {:.3} stored bits per weight, {} bytes{proof}, {:.2} ms",
        plan.code_bits_per_weight(),
        plan.stored_bits_per_weight(),
        plan.stored_bits().div_ceil(8),
        seconds * 1e3
    )
}
