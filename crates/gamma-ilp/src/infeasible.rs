//! Why there is no plan: the smallest budget that would do, and what holds it there.

use gamma_core::Budget;

use crate::{Held, Limits, Problem, ProjectError, program::Program, solve};

/// The error for a problem without a plan.
pub(crate) fn reason(problem: &Problem<'_>, limits: &Limits) -> ProjectError {
    explain(problem, limits).unwrap_or_else(|error| error)
}

fn explain(problem: &Problem<'_>, limits: &Limits) -> Result<ProjectError, ProjectError> {
    let program = Program::new(problem)?;
    let Some(minimum_bits) = solve::narrowest(&program, program.limit.bits, limits)? else {
        return contradiction(problem, limits);
    };
    let missing = |minimum: u64, program: &Program<'_>| {
        i128::from(minimum) - i128::from(program.limit.bits) + 8 * i128::from(program.overdraft)
    };
    let all = missing(minimum_bits, &program);
    let mut held = Vec::new();
    for index in 0..n_constraints(problem) {
        let (label, without) = without(problem, index);
        // Whatever is wrong without it is not what is wrong with it.
        let Ok(program) = Program::new(&without) else { continue };
        let Ok(Some(minimum)) = solve::narrowest(&program, 0, limits) else { continue };
        let gained = all - missing(minimum, &program);
        if gained > 0 {
            held.push(Held { constraint: label, bits: u64::try_from(gained).unwrap_or(u64::MAX) });
        }
    }
    held.sort_by_key(|held| std::cmp::Reverse(held.bits));
    Ok(ProjectError::BelowMinimum {
        limit_bits: program.limit.bits,
        minimum_bits,
        missing_bytes: u64::try_from(all).unwrap_or(0).div_ceil(8),
        minimum_per_weight: minimum_bits as f64 / program.table.weights() as f64,
        held,
    })
}

/// A smallest set of constraints that no plan obeys, whatever the budget: leaves out one after the
/// other and keeps those without which there would be a plan.
fn contradiction(problem: &Problem<'_>, limits: &Limits) -> Result<ProjectError, ProjectError> {
    // Without an exclusion the budget may be none any more, and it plays no part here.
    let mut problem = problem.clone().budget(Budget::bytes(u64::MAX));
    // Likewise a rule that concerned an excluded module alone may be at fault without the exclusion,
    // until its own turn has come: so once more from the start after every success.
    let mut before = usize::MAX;
    while n_constraints(&problem) < before {
        before = n_constraints(&problem);
        let mut index = 0;
        while index < n_constraints(&problem) {
            let (_, fewer) = without(&problem, index);
            match Program::new(&fewer) {
                Ok(program) if solve::narrowest(&program, u64::MAX, limits)?.is_none() => problem = fewer,
                _ => index += 1,
            }
        }
    }
    Ok(ProjectError::Contradiction { constraints: problem.constraints() })
}

fn n_constraints(problem: &Problem<'_>) -> usize {
    problem.rules.len() + problem.linear.len()
}

/// The label of a constraint, and the problem without it.
fn without<'a>(problem: &Problem<'a>, index: usize) -> (String, Problem<'a>) {
    let mut fewer = problem.clone();
    if index < problem.rules.len() {
        (fewer.rules.remove(index).to_string(), fewer)
    } else {
        (fewer.linear.remove(index - problem.rules.len()).label, fewer)
    }
}
