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
        capacity: u64,
        known: Option<&[u32]>,
        bounds: &[Bound],
    ) -> Self {
        let base = relaxation.chosen.clone();
        let room = capacity as i64 - groups.size(&base) as i64;
        let mut kept = keep(groups, &base, relaxation.price, room, known);
        for bound in bounds {
            kept.largest = kept.largest.max(largest(groups, &base, &bound.chosen)).max(bound.gap);
        }
        // A sum has one cost or one product per module. One bit is the sign, three are to spare.
        let bits = 124 - (usize::BITS - groups.len().leading_zeros());
        let scale = Scale::new(kept.largest, bits);
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
                let size = item.size as i64 - from.size as i64;
                let cost = scale.difference(item.cost, from.cost);
                CoreItem { size, cost, reduced: cost + price * i128::from(size), place }
            }));
            let least = items[start..].iter().map(|item| item.reduced).fold(0, i128::min);
            items[start..].iter_mut().for_each(|item| item.reduced -= least);
            bound += least;
            modules.push(CoreModule { module, least: 0, items: start..items.len() });
        }
        let known = known.map(|known| relative(groups, &base, known, scale));
        let magnitude: f64 =
            groups.modules().zip(&base).map(|(items, &own)| items[own as usize].cost.abs()).sum();
        let rounding = scale.round((magnitude * f64::EPSILON).min(kept.largest));
        let below = |plan: &Bound| {
            relative(groups, &base, &plan.chosen, scale).0 - scale.round(plan.gap * (1.0 + f64::EPSILON))
        };
        let proven = bounds.iter().map(below).max().unwrap_or(i128::MIN);
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
            // An item as large as the base is never better than it.
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
    (item.cost - from.cost) + price * (item.size as i64 - from.size as i64) as f64
}

/// Modules and places of the items that rounded arithmetic cannot rule out.
struct Kept {
    items: Vec<(u32, u32)>,
    /// Largest cost difference, or product of the price and a difference of sizes, of a module.
    largest: f64,
}

fn keep(groups: &Groups, base: &[u32], price: f64, room: i64, known: Option<&[u32]>) -> Kept {
    let room = room as f64;
    let mut largest = price * room.max(1.0);
    let mut threshold = f64::INFINITY;
    if let Some(known) = known {
        let (mut cost, mut least, mut magnitude, mut widest) = (0.0, 0.0, 0.0, 0.0);
        for ((items, &own), &known) in groups.modules().zip(base).zip(known) {
            let (from, known) = (&items[own as usize], &items[known as usize]);
            let difference = known.cost - from.cost;
            largest = largest.max(difference.abs()).max(price * known.size.abs_diff(from.size) as f64);
            cost += difference;
            magnitude += difference.abs();
            least += least_reduced(items, from, price);
            widest += items.last().map_or(0.0, |item| item.size as f64);
        }
        // Each reduced cost is off by at most four roundings of numbers no larger than
        // `price * size`, and so is the sum that the threshold bounds.
        let reach = price * (widest + room) + magnitude;
        let error = reach * (groups.len() as f64 + 4.0) * f64::EPSILON * 2.0;
        threshold = cost + price * room - least + error + f64::MIN_POSITIVE * groups.n_items() as f64;
    }
    let mut items = Vec::new();
    for (module, (of_module, &own)) in groups.modules().zip(base).enumerate() {
        let from = &of_module[own as usize];
        let least = least_reduced(of_module, from, price);
        for (place, item) in (0_u32..).zip(of_module) {
            if place != own && reduced(item, from, price) - least <= threshold {
                let size = price * item.size.abs_diff(from.size) as f64;
                largest = largest.max((item.cost - from.cost).abs()).max(size);
                items.push((module as u32, place));
            }
        }
    }
    Kept { items, largest }
}

fn largest(groups: &Groups, base: &[u32], chosen: &[u32]) -> f64 {
    let difference = |((items, &own), &other): ((&[Item], &u32), &u32)| {
        (items[other as usize].cost - items[own as usize].cost).abs()
    };
    groups.modules().zip(base).zip(chosen).map(difference).fold(0.0, f64::max)
}

/// Negative only where rounding took another item into the base.
fn least_reduced(items: &[Item], from: &Item, price: f64) -> f64 {
    items.iter().map(|item| reduced(item, from, price)).fold(0.0, f64::min)
}

/// Cost and size of `chosen` less those of `base`.
pub(super) fn relative(groups: &Groups, base: &[u32], chosen: &[u32], scale: Scale) -> (i128, i64) {
    let mut sum = (0, 0);
    for ((items, &own), &other) in groups.modules().zip(base).zip(chosen) {
        if own != other {
            let (own, other) = (&items[own as usize], &items[other as usize]);
            sum.0 += scale.difference(other.cost, own.cost);
            sum.1 += other.size as i64 - own.size as i64;
        }
    }
    sum
}
