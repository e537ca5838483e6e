//! The integer program without names: groups of items, each with a size and a cost.

use crate::Window;

/// One item of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Item {
    /// In bits.
    pub(crate) size: u64,
    pub(crate) cost: f64,
}

/// Groups of which a plan takes one item each; a group's items in order of growing size. Every
/// group has an item, and sums of sizes stay below 2^63.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instance {
    items: Vec<Item>,
    /// Where each group begins, and the end.
    starts: Vec<u32>,
}

impl Instance {
    pub(crate) fn with_capacity(groups: usize, items: usize) -> Self {
        let mut starts = Vec::with_capacity(groups + 1);
        starts.push(0);
        Self { items: Vec::with_capacity(items), starts }
    }

    /// Adds a group of items in order of growing size.
    pub(crate) fn push(&mut self, items: impl IntoIterator<Item = Item>) {
        self.items.extend(items);
        self.starts.push(self.items.len() as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn n_items(&self) -> usize {
        self.items.len()
    }

    /// Number of the group's first item among all items.
    pub(crate) fn start(&self, group: usize) -> usize {
        self.starts[group] as usize
    }

    pub(crate) fn group(&self, group: usize) -> &[Item] {
        &self.items[self.starts[group] as usize..self.starts[group + 1] as usize]
    }

    pub(crate) fn groups(&self) -> impl ExactSizeIterator<Item = &[Item]> + Clone {
        self.starts.windows(2).map(|pair| &self.items[pair[0] as usize..pair[1] as usize])
    }

    /// The items at one place per group.
    pub(crate) fn at<'a>(&'a self, picks: &'a [usize]) -> impl Iterator<Item = &'a Item> {
        self.groups().zip(picks).map(|(items, &pick)| &items[pick])
    }

    pub(crate) fn size(&self, picks: &[usize]) -> u64 {
        self.at(picks).map(|item| item.size).sum()
    }

    pub(crate) fn cost(&self, picks: &[usize]) -> f64 {
        self.at(picks).map(|item| item.cost).sum()
    }

    /// Greatest common divisor of all differences of sizes within a group; at least 1.
    pub(crate) fn unit(&self) -> u64 {
        let widths = self.groups().flat_map(|items| items.iter().map(|item| item.size - items[0].size));
        widths.fold(0, gcd).max(1)
    }

    /// Size of the narrowest plan.
    pub(crate) fn narrowest(&self) -> u64 {
        self.groups().map(|items| items[0].size).sum()
    }

    /// Size of the widest plan.
    pub(crate) fn widest(&self) -> u64 {
        self.groups().map(|items| items[items.len() - 1].size).sum()
    }

    /// The items for which `keep(group, place)` holds, and their former places. `None` where a
    /// group would be empty.
    pub(crate) fn filtered(&self, keep: impl Fn(usize, usize) -> bool) -> Option<(Self, Vec<u32>)> {
        let mut kept = Self::with_capacity(self.len(), self.n_items());
        let mut places = Vec::with_capacity(self.n_items());
        for (group, items) in self.groups().enumerate() {
            let before = places.len();
            places.extend((0..items.len()).filter(|&place| keep(group, place)).map(|place| place as u32));
            if places.len() == before {
                return None;
            }
            kept.push(places[before..].iter().map(|&place| items[place as usize]));
        }
        Some((kept, places))
    }

    /// The windows in which a plan must fill `ceiling`, narrowest first.
    ///
    /// The first one is as wide as the smallest positive difference between the sizes of two items
    /// of one group, each further one twice as wide, until the last one holds every plan up to the
    /// ceiling. A ceiling beyond the widest plan counts as the size of that plan.
    pub(crate) fn filling(&self, ceiling: u64) -> impl Iterator<Item = Window> + use<> {
        let ceiling = ceiling.min(self.widest());
        let steps = self.groups().flat_map(|items| items.windows(2));
        let step = steps.map(|pair| pair[1].size - pair[0].size).filter(|&step| step > 0).min();
        let minimum = self.narrowest();
        let widths = std::iter::successors(step, |width| width.checked_mul(2));
        let floors = widths.map(move |width| ceiling.saturating_sub(width)).chain([0]);
        let mut last = false;
        floors
            .take_while(move |&floor| !std::mem::replace(&mut last, floor <= minimum))
            .map(move |floor| Window { floor, ceiling })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
