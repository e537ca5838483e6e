//! `gamma project`.

use std::time::Instant;

use gamma::{Plan, Scores, report};

use crate::{args::ProjectArgs, budget::BudgetArg};

#[expect(clippy::print_stdout, reason = "the plans are the command's answer")]
pub fn project(args: &ProjectArgs) -> anyhow::Result<()> {
    let scores = Scores::load(&args.scores)?;
    for budget in &args.budgets.budgets {
        let start = Instant::now();
        let plan = scores.project_within(budget.budget, &args.budgets.limits())?;
        let time = start.elapsed();
        println!("{}\n{}", headline(budget, &plan, time.as_secs_f64()), report::grid(&plan));
        if let Some(out) = &args.out {
            let path = out.join(format!("plan-{}.json", budget.text));
            plan.save(&path)?;
            eprintln!("wrote {}", path.display());
        }
    }
    Ok(())
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
