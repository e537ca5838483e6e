//! Costs in the context of plans of one size, and what they say about neighbouring budgets.

use gamma_core::{Context, ModuleName, Origin, ScoreTable, ScoreTableError};

/// How far, in stored bits per weight, the costs around one plan are trusted.
pub const CONTEXT_REACH: f64 = 0.5;

/// Why tables cannot be blended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BlendError {
    /// A context of another number of modules.
    #[error("the context at {stored_bits} bits has {found} modules, the table {expected}")]
    Length {
        /// Names the context.
        stored_bits: u64,
        /// Modules of the context.
        found: usize,
        /// Modules of the table.
        expected: usize,
    },
    /// A context of other modules or options.
    #[error(
        "the context at {stored_bits} bits and the table differ in name, shape or options of module `{module}`; measure it \
         again with this table"
    )]
    Module {
        /// Names the context.
        stored_bits: u64,
        /// The first module of the table that differs.
        module: ModuleName,
    },
    /// The blend is no table.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
}

/// The costs for plans of `target_stored_bits` bits.
///
/// Contexts that were [learned](Origin::Learned) take the place of `base`: between two of them costs are
/// interpolated in stored bits, beyond the last one they are its own. Contexts that were
/// [measured](Origin::Measured) around a plan then count in so far as they are near. With `d_c` the distance of context `c` from the target in stored bits per weight and
/// `h =` [`CONTEXT_REACH`],
///
/// ```text
/// K       = max_c (1 - d_c / h)₊                       how much contexts count at all
/// w_c     = ((h - d_c)₊ / (h d_c))²                    which of them, modified Shepard weights
/// cost    = (1 - K) s base + K Σ_c w_c context_c / Σ_c w_c
/// ```
///
/// so that a context counts alone at its own budget, the base alone beyond the reach of all, and
/// nothing jumps in between (Franke and Nielson 1980 for the weights). `base` may be in other units
/// than nats: `s` is the median over modules and contexts of the ratio of ranges, cost of the
/// narrowest option less that of the widest one.
///
/// A module's costs differ from table to table by a constant as well, its share of the divergence.
/// That changes no plan, only what a plan is said to cost.
///
/// # Errors
/// [`BlendError`] if a context was measured with other modules or options.
pub fn blend(
    base: &ScoreTable,
    contexts: &[Context],
    target_stored_bits: u64,
) -> Result<ScoreTable, BlendError> {
    for context in contexts {
        check(base, context)?;
    }
    let learned = contexts.iter().filter(|context| context.origin == Origin::Learned);
    let between = interpolated(&learned.collect::<Vec<_>>(), target_stored_bits)?;
    let base = between.as_ref().unwrap_or(base);
    let contexts = contexts.iter().filter(|context| context.origin == Origin::Measured);
    let distance =
        |context: &Context| context.stored_bits.abs_diff(target_stored_bits) as f64 / base.weights() as f64;
    let near: Vec<(&Context, f64)> =
        contexts.map(|c| (c, distance(c))).filter(|&(_, d)| d < CONTEXT_REACH).collect();
    let Some(closest) = near.iter().map(|&(_, d)| d).reduce(f64::min) else { return Ok(base.clone()) };
    let trust = 1.0 - closest / CONTEXT_REACH;
    // At a distance of zero the weight is infinite: only its like count then.
    let weight = |d: f64| match (closest == 0.0, d == 0.0) {
        (true, own) => f64::from(u8::from(own)),
        (false, _) => ((CONTEXT_REACH - d) / (CONTEXT_REACH * d)).powi(2),
    };
    let total: f64 = near.iter().map(|&(_, d)| weight(d)).sum();
    let shares: Vec<(f64, &ScoreTable)> =
        near.iter().map(|&(context, d)| (trust * weight(d) / total, &context.table)).collect();
    let own = (1.0 - trust) * scale(base, near.iter().map(|(context, _)| &context.table));
    Ok(mixed(base, own, &shares)?)
}

/// `own` times the costs of `base`, and those of all others by their shares.
fn mixed(base: &ScoreTable, own: f64, others: &[(f64, &ScoreTable)]) -> Result<ScoreTable, ScoreTableError> {
    let mut modules = base.modules().to_vec();
    for (row, module) in modules.iter_mut().enumerate() {
        for (column, option) in module.options.iter_mut().enumerate() {
            let mut square = (own * option.std_error.unwrap_or(0.0)).powi(2);
            let mut known = option.std_error.is_some() || own == 0.0;
            option.cost *= own;
            for &(share, table) in others {
                let other = &table.modules()[row].options[column];
                option.cost += share * other.cost;
                square += (share * other.std_error.unwrap_or(0.0)).powi(2);
                known &= other.std_error.is_some() || share == 0.0;
            }
            option.std_error = known.then_some(square.sqrt());
        }
    }
    ScoreTable::new(modules)
}

/// The costs between the two learned contexts around `target`; `None` where there is none at all.
fn interpolated(learned: &[&Context], target: u64) -> Result<Option<ScoreTable>, ScoreTableError> {
    let below = learned.iter().filter(|context| context.stored_bits <= target);
    let above = learned.iter().filter(|context| context.stored_bits > target);
    let below = below.max_by_key(|context| context.stored_bits);
    let above = above.min_by_key(|context| context.stored_bits);
    Ok(match (below, above) {
        (None, None) => None,
        (Some(only), None) | (None, Some(only)) => Some(only.table.clone()),
        (Some(below), Some(above)) => {
            let share = (target - below.stored_bits) as f64 / (above.stored_bits - below.stored_bits) as f64;
            Some(mixed(&below.table, 1.0 - share, &[(share, &above.table)])?)
        }
    })
}

fn check(base: &ScoreTable, context: &Context) -> Result<(), BlendError> {
    let (stored_bits, own) = (context.stored_bits, context.table.modules());
    if own.len() != base.modules().len() {
        return Err(BlendError::Length { stored_bits, found: own.len(), expected: base.modules().len() });
    }
    let differs = |(a, b): &(&gamma_core::ModuleScores, &gamma_core::ModuleScores)| {
        let options = |m: &gamma_core::ModuleScores| -> Vec<_> {
            m.options.iter().map(|option| (option.format.clone(), option.stored_bits)).collect()
        };
        a.name != b.name || a.shape != b.shape || options(a) != options(b)
    };
    match base.modules().iter().zip(own).find(differs) {
        Some((module, _)) => Err(BlendError::Module { stored_bits, module: module.name.clone() }),
        None => Ok(()),
    }
}

/// What turns costs of `base` into nats: the median ratio of ranges, 1 where there is none.
fn scale<'t>(base: &ScoreTable, contexts: impl Iterator<Item = &'t ScoreTable>) -> f64 {
    let range = |module: &gamma_core::ModuleScores| {
        module.options[0].cost - module.options[module.options.len() - 1].cost
    };
    let mut ratios: Vec<f64> = contexts
        .flat_map(|table| base.modules().iter().zip(table.modules()))
        .map(|(base, context)| (range(base), range(context)))
        .filter(|&(base, context)| base > 0.0 && context > 0.0)
        .map(|(base, context)| context / base)
        .filter(|ratio| ratio.is_finite())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
}
