//! The table as the solver sees it: small relative sizes, and only options worth a look.

use gamma_core::{ModuleScores, ScoreTable};

use crate::Window;

/// What `size` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Stored bits above the narrowest plan; the ceiling of the window limits their sum.
    Spent,
    /// Stored bits below the widest plan; the floor of the window limits their sum.
    Saved,
}

/// Which options are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Those that no other option of the module matches in cost and size. Enough where only one
    /// end of the window counts.
    Efficient,
    /// All of them.
    All,
}

/// One option of one module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// In units, relative to the smallest option of the module.
    pub(super) size: u64,
    /// The table's cost times a power of two.
    pub(super) cost: f64,
    /// Position in the table.
    pub(super) pick: u32,
}

/// All items, module by module, each module's in order of growing size.
#[derive(Debug)]
pub(super) struct Groups {
    items: Vec<Item>,
    starts: Vec<u32>,
    measure: Measure,
    /// Sum of the smallest options, in bits of the measure.
    smallest: u64,
    /// Greatest common divisor of all sizes, in bits.
    unit: u64,
    /// Sum of the widest options, in stored bits.
    widest: u64,
}

impl Groups {
    pub(super) fn new(table: &ScoreTable, measure: Measure, keep: Keep, scale: f64) -> Self {
        let modules = table.modules();
        let mut items = Vec::with_capacity(modules.iter().map(|m| m.options.len()).sum());
        let mut starts = Vec::with_capacity(modules.len() + 1);
        let (mut smallest, mut widest) = (0, 0);
        starts.push(0);
        for module in modules {
            let start = items.len();
            let (least, most) = ends(module);
            smallest += if measure == Measure::Spent { least } else { 0 };
            widest += most;
            let option = |pick: usize| {
                let bits = module.options[pick].stored_bits;
                let size = if measure == Measure::Spent { bits - least } else { most - bits };
                Item { size, cost: module.options[pick].cost * scale, pick: pick as u32 }
            };
            match measure {
                Measure::Spent => {
                    (0..module.options.len()).map(option).for_each(|item| push(&mut items, start, item, keep));
                }
                Measure::Saved => (0..module.options.len())
                    .rev()
                    .map(option)
                    .for_each(|item| push(&mut items, start, item, keep)),
            }
            starts.push(items.len() as u32);
        }
        let unit = items.iter().fold(0, |unit, item| gcd(item.size, unit)).max(1);
        if unit > 1 {
            items.iter_mut().for_each(|item| item.size /= unit);
        }
        Self { items, starts, measure, smallest, unit, widest }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The items of one module.
    pub(super) fn module(&self, module: usize) -> &[Item] {
        &self.items[self.starts[module] as usize..self.starts[module + 1] as usize]
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = &[Item]> {
        self.starts.windows(2).map(|pair| &self.items[pair[0] as usize..pair[1] as usize])
    }

    pub(super) fn n_items(&self) -> usize {
        self.items.len()
    }

    /// The window, which must reach up to the smallest plan, in units of this measure. The floor is
    /// above the ceiling where no multiple of the unit lies between them.
    pub(super) fn window(&self, window: Window) -> Window {
        let (low, high) = match self.measure {
            Measure::Spent => (window.floor, window.ceiling),
            Measure::Saved => (self.widest.saturating_sub(window.ceiling), self.widest - window.floor),
        };
        let floor = low.saturating_sub(self.smallest).div_ceil(self.unit);
        Window { floor, ceiling: (high - self.smallest) / self.unit }
    }

    /// Positions in the table of one item per module.
    pub(super) fn picks(&self, chosen: &[u32]) -> Vec<usize> {
        self.modules().zip(chosen).map(|(items, &item)| items[item as usize].pick as usize).collect()
    }

    /// The items at one position of the table per module. `None` where one was not kept.
    pub(super) fn find(&self, picks: &[usize]) -> Option<Vec<u32>> {
        let place = |(items, &pick): (&[Item], &usize)| {
            items.iter().position(|item| item.pick as usize == pick).map(|place| place as u32)
        };
        self.modules().zip(picks).map(place).collect()
    }

    /// Total size of one item per module.
    pub(super) fn size(&self, chosen: &[u32]) -> u64 {
        self.modules().zip(chosen).map(|(items, &item)| items[item as usize].size).sum()
    }
}

fn ends(module: &ModuleScores) -> (u64, u64) {
    let bits = |option: Option<&gamma_core::ScoredOption>| option.map_or(0, |option| option.stored_bits);
    (bits(module.options.first()), bits(module.options.last()))
}

/// Adds the next item, which is at least as large as all before it.
fn push(items: &mut Vec<Item>, start: usize, item: Item, keep: Keep) {
    if keep == Keep::Efficient
        && let Some(&last) = items[start..].last()
    {
        if item.size == last.size {
            // Among twins the one that stands first in the table.
            if item.cost < last.cost || (item.cost == last.cost && item.pick < last.pick) {
                items.pop();
            } else {
                return;
            }
        } else if item.cost >= last.cost {
            return;
        }
    }
    items.push(item);
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
