//! The core: the few options that a better plan could use, in exact numbers.
//!
//! Let `price` be any number that is not negative, and let the *reduced cost* of an item be
//! `cost + price * size`, less the least such value in its module. For every plan within the
//! capacity
//!
//! ```text
//! cost(plan) >= bound + sum of its reduced costs
//! bound       = sum over modules of the least cost + price * size, less price * capacity
//! ```
//!
//! so a plan that is better than one already known has reduced costs that sum to less than
//! `cost(known) - bound`. Items above this threshold are out, and modules without any other item
//! keep that of the *base*, the rounded solution of the linear relaxation. Its price makes the
//! threshold small, but none of this needs the price or the base to be exact, so the relaxation may
//! round. All costs below are relative to the base.

use std::ops::Range;

use super::{
    fixed::Scale,
    groups::{Groups, Item},
    relaxation::Relaxation,
};

/// An item of the core, relative to the base item of its module.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreItem {
    /// Not zero.
    pub(super) size: i64,
    pub(super) cost: i128,
    /// Zero or more.
    pub(super) reduced: i128,
    /// Position among the items of the module.
    pub(super) place: u32,
}

/// A module of the core.
#[derive(Debug)]
pub(super) struct CoreModule {
    pub(super) module: u32,
    /// Least reduced cost of its items.
    pub(super) least: i128,
    items: Range<usize>,
}

/// What remains to be decided.
#[derive(Debug)]
pub(super) struct Core {
    /// One item per module of the table; what modules outside the core keep.
    pub(super) base: Vec<u32>,
    /// In order of growing least reduced cost.
    pub(super) modules: Vec<CoreModule>,
    items: Vec<CoreItem>,
    /// Capacity less the size of the base.
    pub(super) room: i64,
    pub(super) scale: Scale,
    /// Cost and size of the best known plan, relative to the base.
    pub(super) known: Option<(i128, i64)>,
    /// Cost that the linear relaxation proves no plan to fall below.
    pub(super) bound: i128,
    /// The same, from plans that are optimal for an easier problem, where there are any.
    pub(super) proven: i128,
    /// What adding the costs of a plan as `f64` may lose.
    pub(super) rounding: i128,
}

/// A plan, and how far below its cost any plan could be.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) chosen: Vec<u32>,
    pub(super) gap: f64,
}

impl Core {
    /// The core for plans within `capacity` that beat `known`.
    pub(super) fn new(
        groups: &Groups,
        relaxation: &Relaxation,
        capacity: i64,
        known: Option<&[u32]>,
        bounds: &[Bound],
    ) -> Self {
        let base = relaxation.chosen.clone();
        let room = capacity - groups.size(&base);
        let mut kept = Kept::new(groups, &base, relaxation.price, room, known);
        for bound in bounds {
            let differences = groups.at(&base).zip(groups.at(&bound.chosen));
            let largest = differences.map(|((_, own), (_, other))| (other.cost - own.cost).abs());
            kept.largest = largest.fold(kept.largest.max(bound.gap), f64::max);
        }
        // A sum has one cost or one product per module. One bit is the sign, two are to spare.
        let scale = Scale::new(kept.largest, 124 - (groups.len().ilog2() + 1));
        let price = if relaxation.price > 0.0 { scale.round(relaxation.price).max(1) } else { 0 };

        let mut bound = -price * i128::from(room);
        let mut modules = Vec::new();
        let mut items: Vec<CoreItem> = Vec::with_capacity(kept.items.len());
        for of_module in kept.items.chunk_by(|a, b| a.0 == b.0) {
            let module = of_module[0].0;
            let own = groups.module(module as usize);
            let from = &own[base[module as usize] as usize];
            let start = items.len();
            items.extend(of_module.iter().map(|&(_, place)| {
                let item = &own[place as usize];
                let size = item.size - from.size;
                let cost = scale.difference(item.cost, from.cost);
                CoreItem { size, cost, reduced: cost + price * i128::from(size), place }
            }));
            let least = items[start..].iter().map(|item| item.reduced).fold(0, i128::min);
            for item in &mut items[start..] {
                item.reduced -= least;
            }
            bound += least;
            modules.push(CoreModule { module, least: 0, items: start..items.len() });
        }
        let known = known.map(|known| relative(groups, &base, known, scale));
        let proven = bounds.iter().map(|plan| {
            let gap = scale.round(plan.gap) + i128::from(plan.gap > 0.0);
            relative(groups, &base, &plan.chosen, scale).0 - gap
        });
        let proven = proven.max().unwrap_or(i128::MIN);
        let magnitude: f64 = groups.at(&base).map(|(_, item)| item.cost.abs()).sum();
        let rounding = scale.round((magnitude * f64::EPSILON).min(kept.largest));
        let mut core = Self { base, modules, items, room, scale, known, bound, proven, rounding };
        core.drop_hopeless();
        core
    }

    pub(super) fn items(&self, module: &CoreModule) -> &[CoreItem] {
        &self.items[module.items.clone()]
    }

    /// Reduced costs of a plan that beats `known` sum to less than this.
    pub(super) fn threshold(&self, known: Option<(i128, i64)>) -> i128 {
        known.map_or(i128::MAX, |(cost, _)| cost - self.bound)
    }

    fn drop_hopeless(&mut self) {
        let threshold = self.threshold(self.known);
        let mut items: Vec<CoreItem> = Vec::with_capacity(self.items.len());
        for module in &mut self.modules {
            let start = items.len();
            // Of items of one size, the base is the cheapest.
            let useful = |item: &&CoreItem| item.size != 0 && item.reduced < threshold;
            items.extend(self.items[module.items.clone()].iter().filter(useful));
            module.items = start..items.len();
            module.least = items[start..].iter().map(|item| item.reduced).min().unwrap_or(i128::MAX);
        }
        self.items = items;
        self.modules.retain(|module| !module.items.is_empty());
        self.modules.sort_unstable_by_key(|module| (module.least, module.module));
    }
}

fn reduced(item: &Item, from: &Item, price: f64) -> f64 {
    (item.cost - from.cost) + price * (item.size - from.size) as f64
}

/// Negative only where rounding took another item into the base.
fn least_reduced(items: &[Item], from: &Item, price: f64) -> f64 {
    items.iter().map(|item| reduced(item, from, price)).fold(0.0, f64::min)
}

/// Modules and places of the items that rounded arithmetic cannot rule out.
struct Kept {
    items: Vec<(u32, u32)>,
    /// Largest cost difference, or product of the price and a difference of sizes, of a module.
    largest: f64,
}

impl Kept {
    fn new(groups: &Groups, base: &[u32], price: f64, room: i64, known: Option<&[u32]>) -> Self {
        let room = room as f64;
        let mut largest = price * room.max(1.0);
        let mut threshold = f64::INFINITY;
        if let Some(known) = known {
            let (mut cost, mut least, mut magnitude, mut widest) = (0.0, 0.0, 0.0, 0.0);
            for ((items, from), (_, known)) in groups.at(base).zip(groups.at(known)) {
                let difference = known.cost - from.cost;
                largest = largest.max(difference.abs()).max(price * (known.size - from.size).abs() as f64);
                cost += difference;
                magnitude += difference.abs();
                least += least_reduced(items, from, price);
                widest += items.last().map_or(0.0, |item| item.size as f64);
            }
            // A reduced cost is off by at most four roundings of numbers no larger than
            // `price * size` and the threshold itself, and so is every sum over modules.
            let reach = price * (widest + room) + magnitude;
            let error = reach * (groups.len() as f64 + 4.0) * f64::EPSILON * 2.0;
            let underflow = f64::MIN_POSITIVE * groups.n_items() as f64;
            threshold = cost + price * room - least + error + underflow;
        }
        let mut items = Vec::new();
        for (module, (own, from)) in (0_u32..).zip(groups.at(base)) {
            let least = least_reduced(own, from, price);
            for (place, item) in (0_u32..).zip(own) {
                if !std::ptr::eq(item, from) && reduced(item, from, price) - least <= threshold {
                    let size = price * (item.size - from.size).abs() as f64;
                    largest = largest.max((item.cost - from.cost).abs()).max(size);
                    items.push((module, place));
                }
            }
        }
        Self { items, largest }
    }
}

/// Cost and size of `chosen` less those of `base`.
fn relative(groups: &Groups, base: &[u32], chosen: &[u32], scale: Scale) -> (i128, i64) {
    let mut sum = (0, 0);
    for ((_, own), (_, other)) in groups.at(base).zip(groups.at(chosen)) {
        if !std::ptr::eq(own, other) {
            sum.0 += scale.difference(other.cost, own.cost);
            sum.1 += other.size - own.size;
        }
    }
    sum
}
