//! Dynamic programming over deviations from the base, with dominance and bounds.
//!
//! A state is a choice for the modules looked at so far, all others at their base: itself a plan.
//! Modules come in order of growing least reduced cost, so that plans near the relaxation are met
//! first and the rest of the core is seldom reached.

use super::core::{Core, CoreItem};

/// States that remain for a module once the limit on states is used up.
const BEAM: usize = 256;

/// The part of the limit on states after which rounding settles what remains.
const PATIENCE: u64 = 16;

/// The base.
const ROOT: u32 = 0;

#[derive(Clone, Copy, Debug)]
struct State {
    /// Relative to the base, as is `size`.
    cost: i128,
    size: i64,
    /// The last deviation from the base.
    node: u32,
}

/// A deviation from the base, and the one before it.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    module: u32,
    place: u32,
}

/// What is searched for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Smallest size that counts, relative to the base.
    pub(super) least: i64,
    /// Whether plans below `least` are worthless. Otherwise they count, and the best plan above
    /// `least` is only remembered.
    pub(super) strict: bool,
    pub(super) max_states: u64,
}

/// A plan that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) cost: i128,
    pub(super) chosen: Vec<u32>,
}

/// The result of a search.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The best plan, where it beats the one known before.
    pub(super) best: Option<Found>,
    /// The best plan met of size `least` or more, if the search was not strict.
    pub(super) aside: Option<Found>,
    /// Where the search was cut short: no plan costs less than this, relative to the base. `None`
    /// if there is nothing better than the best plan.
    pub(super) bound: Option<i128>,
}

/// What the modules from one on can still change.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Most that a unit of additional size saves.
    gain: i128,
    /// Least that a unit of size costs to get rid of.
    loss: i128,
    /// What `gain` and `loss` together may miss where getting rid of a unit costs less than another
    /// one saves. Zero, but for rounding in the choice of the base.
    arbitrage: i128,
    grow: i64,
    shrink: i64,
}

pub(super) struct Search<'a> {
    core: &'a Core,
    goal: Goal,
    /// Cost and size of the best plan.
    known: Option<(i128, i64)>,
    best: Option<u32>,
    aside: Option<(i128, u32)>,
    nodes: Vec<Node>,
    rest: Vec<Rest>,
    /// Least cost that a state which was dropped unseen could lead to.
    dropped: Option<i128>,
}

/// One list of states to merge: all states of the last round, changed by one item.
struct Head {
    position: usize,
    size: i64,
    cost: i128,
    by: Option<CoreItem>,
}

impl<'a> Search<'a> {
    pub(super) fn new(core: &'a Core, goal: Goal) -> Self {
        let root = Node { parent: ROOT, module: u32::MAX, place: 0 };
        Self {
            core,
            goal,
            known: core.known,
            best: None,
            aside: None,
            nodes: vec![root],
            rest: Vec::new(),
            dropped: None,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let root = State { cost: 0, size: 0, node: ROOT };
        self.remember(&root);
        let mut states = vec![root];
        let mut next = Vec::new();
        let mut heads = Vec::new();
        let mut looked_at = 0_u64;
        let mut rest_for = None;
        for (round, module) in self.core.modules.iter().enumerate() {
            let threshold = self.core.threshold(self.known);
            if self.settled(looked_at) || module.least >= threshold || states.is_empty() {
                break;
            }
            if rest_for != Some(threshold) {
                self.look_ahead(round, threshold);
                rest_for = Some(threshold);
            }
            heads.clear();
            heads.push(Head { position: 0, size: 0, cost: 0, by: None });
            let items = self.core.items(module).iter().filter(|item| item.reduced < threshold);
            heads.extend(items.map(|&item| Head { position: 0, size: 0, cost: 0, by: Some(item) }));
            let ahead = (states.len() * heads.len()) as u64;
            if looked_at + ahead > self.goal.max_states && states.len() > BEAM {
                self.shorten(&mut states, self.rest[round]);
            }
            looked_at += (states.len() * heads.len()) as u64;
            next.clear();
            self.merge(&states, &mut heads, module.module, self.rest[round + 1], &mut next);
            std::mem::swap(&mut states, &mut next);
        }
        self.finish()
    }

    /// Whether the known plan needs no better one. Costs such as 0.1 + 0.2 and 0.3 differ in the
    /// last place alone; with many of them, telling which plan is better by less than the rounding
    /// of its cost is given up after a while.
    fn settled(&mut self, looked_at: u64) -> bool {
        let bound = self.core.proven.max(self.core.bound);
        let Some((cost, _)) = self.known else { return false };
        let patient = looked_at <= self.goal.max_states / PATIENCE;
        let settled = cost <= bound || (!patient && cost - self.core.rounding <= bound);
        if settled && cost > bound {
            self.dropped = Some(bound);
        }
        settled
    }

    /// Fills `rest` for the rounds from `round` on.
    fn look_ahead(&mut self, round: usize, threshold: i128) {
        let modules = &self.core.modules;
        let mut rest = Rest { gain: 0, loss: i128::MAX, arbitrage: 0, grow: 0, shrink: 0 };
        self.rest.resize(modules.len() + 1, rest);
        let end = round + modules[round..].partition_point(|module| module.least < threshold);
        for beyond in &mut self.rest[end..] {
            *beyond = rest;
        }
        for at in (round..end).rev() {
            let (mut grow, mut shrink) = (0, 0);
            for item in self.core.items(&modules[at]).iter().filter(|item| item.reduced < threshold) {
                if item.size > 0 {
                    grow = grow.max(item.size);
                    rest.gain = rest.gain.max(per_unit(-item.cost, item.size, true));
                } else {
                    shrink = shrink.max(-item.size);
                    rest.loss = rest.loss.min(per_unit(item.cost, -item.size, false));
                }
            }
            rest.grow += grow;
            rest.shrink += shrink;
            rest.arbitrage =
                (rest.gain - rest.loss).max(0).saturating_mul(i128::from(rest.grow.min(rest.shrink)));
            self.rest[at] = rest;
        }
    }

    /// All states that follow from `states` and may lead to a better plan, in order of growing size.
    fn merge(
        &mut self,
        states: &[State],
        heads: &mut Vec<Head>,
        module: u32,
        rest: Rest,
        next: &mut Vec<State>,
    ) {
        for head in heads.iter_mut() {
            head.load(states);
        }
        // Cost of the cheapest state so far, and the size of the last one.
        let mut cheapest = i128::MAX;
        let mut last_size = i64::MIN;
        loop {
            let mut first = 0;
            for at in 1..heads.len() {
                if (heads[at].size, heads[at].cost) < (heads[first].size, heads[first].cost) {
                    first = at;
                }
            }
            let Some(head) = heads.get_mut(first) else { break };
            let (size, cost) = (head.size, head.cost);
            let from = states[head.position];
            let by = head.by;
            head.position += 1;
            if head.position < states.len() {
                head.load(states);
            } else {
                heads.remove(first);
            }
            // A state that is no smaller and no cheaper than another leads nowhere better; where
            // plans can be too small, only a twin of the same size says so.
            let beaten = if self.goal.strict { size == last_size } else { cost >= cheapest };
            if beaten {
                continue;
            }
            last_size = size;
            cheapest = cost;
            let mut state = State { cost, size, node: from.node };
            if let Some(item) = by {
                if self.hopeless(&state, rest) && !self.beats(&state) && !self.aside(&state) {
                    continue;
                }
                state.node = u32::try_from(self.nodes.len()).expect("fewer deviations than 2^32");
                self.nodes.push(Node { parent: from.node, module, place: item.place });
                self.remember(&state);
            }
            if !self.hopeless(&state, rest) {
                next.push(state);
            }
        }
    }

    fn beats(&self, state: &State) -> bool {
        let counts = state.size <= self.core.room && !(self.goal.strict && state.size < self.goal.least);
        counts && self.known.is_none_or(|known| (state.cost, state.size) < known)
    }

    fn aside(&self, state: &State) -> bool {
        let within = (self.goal.least..=self.core.room).contains(&state.size);
        within && !self.goal.strict && self.aside.is_none_or(|(cost, _)| state.cost < cost)
    }

    fn remember(&mut self, state: &State) {
        if self.beats(state) {
            self.known = Some((state.cost, state.size));
            self.best = Some(state.node);
        }
        if self.aside(state) {
            self.aside = Some((state.cost, state.node));
        }
    }

    /// The least cost of any plan that the state leads to, and the size of that plan; `None` where
    /// it leads to none.
    fn bound(&self, state: &State, rest: Rest) -> Option<(i128, i64)> {
        let spare = self.core.room - state.size;
        if spare < 0 {
            let bound = || state.cost + rest.loss * i128::from(-spare) - rest.arbitrage;
            return (-spare <= rest.shrink).then(|| (bound(), self.core.room));
        }
        if self.goal.strict && state.size + rest.grow < self.goal.least {
            return None;
        }
        let growth = spare.min(rest.grow);
        Some((state.cost - rest.gain * i128::from(growth) - rest.arbitrage, state.size + growth))
    }

    fn hopeless(&self, state: &State, rest: Rest) -> bool {
        match (self.bound(state, rest), self.known) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(bound), Some(known)) => bound >= known,
        }
    }

    /// Keeps the most promising states alone.
    fn shorten(&mut self, states: &mut Vec<State>, rest: Rest) {
        let bound = |state: &State| self.bound(state, rest).map_or(i128::MAX, |(cost, _)| cost);
        let room = self.core.room;
        states
            .select_nth_unstable_by_key(BEAM, |state| (bound(state), state.size.abs_diff(room), state.size));
        let dropped = states.drain(BEAM..).map(|state| bound(&state)).min();
        states.sort_unstable_by_key(|state| state.size);
        self.dropped = self.dropped.into_iter().chain(dropped).min();
    }

    fn finish(self) -> Outcome {
        let found = |cost, mut node| {
            let mut chosen = self.core.base.clone();
            while node != ROOT {
                let deviation = self.nodes[node as usize];
                chosen[deviation.module as usize] = deviation.place;
                node = deviation.parent;
            }
            Found { cost, chosen }
        };
        Outcome {
            best: self.best.zip(self.known).map(|(node, (cost, _))| found(cost, node)),
            aside: self.aside.map(|(cost, node)| found(cost, node)),
            bound: self.dropped,
        }
    }
}

impl Head {
    fn load(&mut self, states: &[State]) {
        let state = &states[self.position];
        let (size, cost) = self.by.map_or((0, 0), |item| (item.size, item.cost));
        (self.size, self.cost) = (state.size + size, state.cost + cost);
    }
}

/// `cost / size`, rounded up or down; `size` is positive. Nothing where `cost` is negative.
fn per_unit(cost: i128, size: i64, up: bool) -> i128 {
    let (cost, size) = (cost.max(0) as u128, u128::from(size.unsigned_abs()));
    (if up { cost.div_ceil(size) } else { cost / size }).cast_signed()
}
