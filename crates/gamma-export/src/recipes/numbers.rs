//! What tools want to know of an integer format.

use std::collections::BTreeMap;

use gamma_core::{Choice, Format, Plan, Symmetry};

use crate::{
    ExportError,
    unserved::{Unserved, check_served},
};

/// An integer format in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Numbers {
    pub(crate) bits: u64,
    pub(crate) group: u64,
    pub(crate) symmetric: bool,
}

impl Numbers {
    /// `None` for a format that is not of integers.
    pub(crate) fn of(format: &Format) -> Option<Self> {
        let Format::Int { bits, group, symmetry } = format else { return None };
        let symmetric = *symmetry == Symmetry::Symmetric;
        Some(Self { bits: bits.bits().into(), group: group.get() as u64, symmetric })
    }
}

/// The choices of `plan` in numbers, or an error that names all modules that `makes` refuses.
pub(super) fn integers<'a>(
    plan: &'a Plan,
    target: &'static str,
    served: &'static str,
    makes: impl Fn(Numbers, [usize; 2]) -> bool,
) -> Result<Vec<(&'a Choice, Numbers)>, ExportError> {
    let (mut found, mut unserved) = (Vec::new(), Vec::new());
    for choice in plan.choices() {
        match Numbers::of(&choice.format).filter(|&numbers| makes(numbers, choice.shape)) {
            Some(numbers) => found.push((choice, numbers)),
            None => unserved.push(Unserved {
                module: choice.name.clone(),
                format: choice.format.clone(),
                shape: choice.shape,
            }),
        }
    }
    check_served(target, served, unserved)?;
    Ok(found)
}

/// The format that most modules of an integer plan have.
pub(crate) fn most_frequent(plan: &Plan) -> Numbers {
    let mut counts: BTreeMap<Numbers, usize> = BTreeMap::new();
    for numbers in plan.choices().iter().filter_map(|choice| Numbers::of(&choice.format)) {
        *counts.entry(numbers).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map_or(Numbers { bits: 4, group: 128, symmetric: true }, |(numbers, _)| numbers)
}

/// Whether the groups are whole.
pub(super) fn divides(numbers: Numbers, shape: [usize; 2]) -> bool {
    (shape[1] as u64).is_multiple_of(numbers.group)
}
