//! The instance as the solver sees it: small relative sizes, and only options worth a look.

use crate::{Instance, Window};

/// What sizes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Bits above the narrowest plan; the ceiling of the window limits their sum.
    Spent,
    /// Bits below the widest plan; the floor of the window limits their sum.
    Saved,
}

/// Which options are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Those that no other option of the module matches in both cost and size. Enough where only
    /// one end of the window counts.
    Efficient,
    /// All of them.
    All,
}

/// One option of one module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// In units, relative to the smallest option of the module. Sizes of whole plans fit an `i64`,
    /// because those of an [`Instance`] do.
    pub(super) size: i64,
    /// The instance's cost times a power of two.
    pub(super) cost: f64,
    /// Position in the instance.
    pub(super) pick: u32,
}

/// A window in units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) floor: i64,
    pub(super) ceiling: i64,
}

/// All items, module by module, each module's in order of growing size.
#[derive(Debug)]
pub(super) struct Groups {
    items: Vec<Item>,
    starts: Vec<u32>,
    measure: Measure,
    /// Bits of the narrowest and of the widest plan.
    ends: (u64, u64),
    /// Greatest common divisor of all sizes, in bits.
    unit: i64,
}

impl Groups {
    /// The items of `instance`, costs multiplied by `scale`.
    pub(super) fn new(instance: &Instance, measure: Measure, keep: Keep, scale: f64) -> Self {
        let mut items = Vec::with_capacity(instance.n_items());
        let mut starts = Vec::with_capacity(instance.len() + 1);
        let mut ends = (0, 0);
        starts.push(0);
        for options in instance.groups() {
            let start = items.len();
            let n_options = options.len();
            let (narrowest, widest) = (options[0].size, options[n_options - 1].size);
            ends = (ends.0 + narrowest, ends.1 + widest);
            for place in 0..n_options {
                let (pick, size) = match measure {
                    Measure::Spent => (place, options[place].size - narrowest),
                    Measure::Saved => {
                        let pick = n_options - 1 - place;
                        (pick, widest - options[pick].size)
                    }
                };
                let cost = options[pick].cost * scale;
                push(&mut items, start, Item { size: size.cast_signed(), cost, pick: pick as u32 }, keep);
            }
            starts.push(items.len() as u32);
        }
        let unit = items.iter().fold(0, |unit, item| gcd(item.size, unit)).max(1);
        if unit > 1 {
            for item in &mut items {
                item.size /= unit;
            }
        }
        Self { items, starts, measure, ends, unit }
    }

    /// Bits of one unit.
    pub(super) fn unit(&self) -> u64 {
        self.unit.unsigned_abs()
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn n_items(&self) -> usize {
        self.items.len()
    }

    /// The items of one module.
    pub(super) fn module(&self, module: usize) -> &[Item] {
        &self.items[self.starts[module] as usize..self.starts[module + 1] as usize]
    }

    /// The items of every module.
    pub(super) fn modules(&self) -> impl Iterator<Item = &[Item]> {
        self.starts.windows(2).map(|pair| &self.items[pair[0] as usize..pair[1] as usize])
    }

    /// For every module its items and the one that stands at the place in `chosen`.
    pub(super) fn at<'a>(&'a self, chosen: &'a [u32]) -> impl Iterator<Item = (&'a [Item], &'a Item)> {
        self.modules().zip(chosen).map(|(items, &place)| (items, &items[place as usize]))
    }

    /// The window, whose ceiling no plan or some plan reaches, in units of this measure. The floor
    /// is above the ceiling where no multiple of the unit lies between them.
    pub(super) fn span(&self, window: Window) -> Span {
        let (narrowest, widest) = self.ends;
        let (low, high) = (window.floor.saturating_sub(narrowest), window.ceiling.min(widest) - narrowest);
        let most = widest - narrowest;
        let (low, high) = match self.measure {
            Measure::Spent => (low, high),
            Measure::Saved => (most - high, most - low),
        };
        let unit = self.unit.unsigned_abs();
        Span { floor: low.div_ceil(unit).cast_signed(), ceiling: (high / unit).cast_signed() }
    }

    /// Positions in the instance of one item per module.
    pub(super) fn picks(&self, chosen: &[u32]) -> Vec<usize> {
        self.at(chosen).map(|(_, item)| item.pick as usize).collect()
    }

    /// The items at one position of the instance per module. `None` where one was not kept.
    pub(super) fn find(&self, picks: &[usize]) -> Option<Vec<u32>> {
        let place = |(items, &pick): (&[Item], &usize)| {
            items.iter().position(|item| item.pick as usize == pick).map(|place| place as u32)
        };
        self.modules().zip(picks).map(place).collect()
    }

    /// Total size of one item per module.
    pub(super) fn size(&self, chosen: &[u32]) -> i64 {
        self.at(chosen).map(|(_, item)| item.size).sum()
    }
}

/// Adds the next item, which is at least as large as all before it.
fn push(items: &mut Vec<Item>, start: usize, item: Item, keep: Keep) {
    if keep == Keep::Efficient
        && let Some(last) = items[start..].last()
    {
        let cheaper = item.cost < last.cost;
        // Among twins the one that stands first in the instance.
        let earlier_twin = item.cost <= last.cost && item.pick < last.pick;
        if item.size == last.size && (cheaper || earlier_twin) {
            items.pop();
        } else if item.size == last.size || !cheaper {
            return;
        }
    }
    items.push(item);
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
