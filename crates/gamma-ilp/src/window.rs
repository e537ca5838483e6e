//! The range of stored bits that a plan may take.

use gamma_core::ScoreTable;

/// Totals of stored bits that are allowed, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) floor: u64,
    pub(crate) ceiling: u64,
}

impl Window {
    /// Everything up to `limit_bits`.
    pub(crate) fn up_to(limit_bits: u64) -> Self {
        Self { floor: 0, ceiling: limit_bits }
    }

    pub(crate) fn contains(self, bits: u64) -> bool {
        (self.floor..=self.ceiling).contains(&bits)
    }
}

/// The windows in which a plan must fill the budget, narrowest first.
///
/// The first one is as wide as the smallest positive difference between the stored bits of two
/// options of one module, each further one twice as wide, until the last one holds every plan
/// within the limit. A limit beyond the widest plan counts as the size of that plan.
pub(crate) fn filling(table: &ScoreTable, limit_bits: u64) -> impl Iterator<Item = Window> {
    let modules = table.modules();
    let widest = modules.iter().filter_map(|m| m.options.last()).map(|option| option.stored_bits).sum();
    let ceiling = limit_bits.min(widest);
    let steps = modules.iter().flat_map(|m| m.options.windows(2));
    let step = steps.map(|pair| pair[1].stored_bits - pair[0].stored_bits).filter(|&step| step > 0).min();
    let minimum = table.minimum_bits();
    let widths = std::iter::successors(step, |width| width.checked_mul(2));
    let floors = widths.map(move |width| ceiling.saturating_sub(width)).chain([0]);
    let mut last = false;
    floors
        .take_while(move |&floor| !std::mem::replace(&mut last, floor <= minimum))
        .map(move |floor| Window { floor, ceiling })
}
