//! `gamma explain`.

use anyhow::{Context, bail};
use gamma::{Limits, ModuleName, Plan, Rule, Scores, report};

use crate::{args::ExplainArgs, watch};

pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let plan = Plan::load(&args.plan)?;
    let scores = Scores::load(&args.scores)?;
    if plan.provenance() != &scores.provenance {
        bail!("`{}` was not made from `{}`", args.plan.display(), args.scores.display());
    }
    watch::warn_of_starved(&scores);
    let budget = plan.budget().context("the plan states no budget, so nothing was decided in it")?;
    let mut problem = scores.problem(budget);
    for constraint in plan.constraints() {
        if let Ok(rule) = constraint.parse::<Rule>() {
            problem = problem.rule(rule);
        } else {
            note!("the plan also obeys `{constraint}`, which is left out here");
        }
    }
    let module = ModuleName::new(args.module.as_str());
    let costs = scores.in_context(&problem, &Limits::default())?;
    let explanation = problem.clone().scores(&costs).explain(&plan, &module, &Limits::default())?;
    say!("{}", report::explanation(&explanation, &plan).trim_end());
    Ok(())
}
