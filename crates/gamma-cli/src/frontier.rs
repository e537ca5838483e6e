//! `gamma frontier`.

use std::fmt::Write as _;

use anyhow::Context as _;
use gamma::{BitWidth, Budget, Frontier, Limits, Plan, Scores, core::Measure, report, write_atomically};

use crate::{args::FrontierArgs, budget::BudgetArg, constraints, watch};

pub fn frontier(args: &FrontierArgs) -> anyhow::Result<()> {
    // One curve needs one table: costs over all budgets, not those in the context of each.
    let scores = args.constraints.scores(Scores::load(&args.scores)?.overall())?;
    watch::warn_of_starved(&scores);
    let any = BudgetArg { text: "any".into(), budget: Budget::bytes(u64::MAX) };
    let problem = args.constraints.problem(&scores, &any)?;
    constraints::introduce(&problem);
    let frontier = problem.frontier()?;

    let (first, last) = (frontier.points.first(), frontier.points.last());
    let (first, last) = first.zip(last).context("the curve is empty")?;
    let mut plans: Vec<(String, Plan)> = Vec::new();
    for step in 0..args.points {
        let share = step as f64 / (args.points.max(2) - 1) as f64;
        let bits = first.bits + ((last.bits - first.bits) as f64 * share) as u64;
        let exact = problem.clone().budget(Budget::bytes(bits.div_ceil(8)));
        plans.push(("exact".to_owned(), scores.solve(&exact, &Limits::default())?));
    }
    // Uniform plans may break a rule; without rules they are what gamma is compared with.
    if problem.constraints().is_empty() {
        let widths = (2..=8).filter_map(BitWidth::new);
        plans.extend(widths.filter_map(|bits| Some((format!("uniform {bits}"), scores.uniform(bits).ok()?))));
    }
    say!("{}", table(&frontier, &plans));
    let named: Vec<(String, &Plan)> = plans.iter().map(|(name, plan)| (name.clone(), plan)).collect();
    if let Some(out) = &args.out {
        let picture = report::frontier_svg(&frontier, &named);
        let files =
            [("frontier.csv", Ok(report::frontier_csv(&frontier, &named))), ("frontier.svg", picture)];
        for (name, text) in files {
            let path = out.join(name);
            match text {
                Ok(text) => write_atomically(&path, text.as_bytes())?,
                Err(error) => {
                    note!("no {name}: {error}");
                    continue;
                }
            }
            note!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// Exact plans, uniform plans and the knee, in order of size.
fn table(frontier: &Frontier, plans: &[(String, Plan)]) -> String {
    let mut rows: Vec<(u64, f64, String)> =
        plans.iter().map(|(name, plan)| (plan.stored_bits(), plan.cost(), name.clone())).collect();
    if let Some(knee) = frontier.knee.map(|number| &frontier.points[number]) {
        rows.push((knee.bits, knee.cost, "knee".to_owned()));
    }
    rows.sort_by_key(|row| row.0);
    let price = |bits: u64| {
        let next = frontier.points.iter().find(|point| point.bits > bits);
        next.and_then(|point| Some(point.step.as_ref()?.slope * 8192.0))
    };
    let unit = if frontier.measure == Measure::CodeBits { "code bits" } else { "stored bits" };
    let mut text = format!("{:>11} {:>12} {:>12} {:>18}  \n", unit, "KiB", "cost", "next KiB would save");
    for (bits, cost, name) in rows {
        let saved = price(bits).map_or_else(|| "nothing".to_owned(), |price| format!("{price:.3e}"));
        let name = if name == "exact" { "" } else { &name };
        let (per_weight, kib) = (bits as f64 / frontier.weights as f64, bits as f64 / 8192.0);
        _ = writeln!(text, "{per_weight:>11.3} {kib:>12.1} {cost:>12.4e} {saved:>18}  {name}");
    }
    text + &format!("{} supported plans", frontier.points.len())
}
