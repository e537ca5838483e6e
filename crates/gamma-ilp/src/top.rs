//! Several plans, cheapest first.
//!
//! A knapsack is split as Lawler describes (1972): all plans but the cheapest are those that agree
//! with it on the first `i` groups and differ in the next one, for every `i`. Each part is solved
//! only when a bound from the relaxation says that its turn may have come. Where rows join the
//! groups, each plan that was found is excluded by one more row.

use std::{cmp::Ordering, collections::BinaryHeap};

use gamma_core::Plan;

use crate::{
    Limits, ProjectError, Solver, Window, knapsack,
    program::Program,
    row::Row,
    solve::{self, Answer, Found},
};

/// The `count` cheapest plans of `program`, whose cheapest is `first`.
pub(crate) fn cheapest(
    mut program: Program<'_>,
    first: Found,
    count: usize,
    limits: &Limits,
) -> Result<Vec<Plan>, ProjectError> {
    if program.joints.is_empty() && limits.solver != Solver::Highs {
        return Ok(split(&program, first, count, limits));
    }
    let mut plans = Vec::new();
    let window = first.window;
    let mut next = Some((first.answer, first.solver));
    while let Some((answer, solver)) = next.take_if(|_| plans.len() < count) {
        program.joints.rows.push(Row::all_but(&program.instance, &answer.picks));
        plans.push(solve::certified(&program, &Found { answer, window, solver }));
        if plans.len() < count {
            next = solve::within(&program.joints, &program.instance, window, limits)?;
        }
    }
    Ok(plans)
}

/// Plans that agree with a former one on the first groups and differ in the next.
struct Part {
    /// No plan of this part costs less; the cost itself where `answer` is known.
    least: f64,
    size: u64,
    /// Number of the former plan.
    parent: usize,
    depth: usize,
    /// Places that the group at `depth` must not take.
    barred: Vec<usize>,
    answer: Option<Answer>,
}

fn split(program: &Program<'_>, first: Found, count: usize, limits: &Limits) -> Vec<Plan> {
    let (window, solver) = (first.window, first.solver);
    let bounds = Bounds::new(program, window);
    let mut found: Vec<Answer> = Vec::new();
    let mut heap = BinaryHeap::new();
    heap.push(Part::solved(program, first.answer, (0, 0, Vec::new())));
    while found.len() < count {
        let Some(part) = heap.pop() else { break };
        match part.answer {
            None => {
                let parent = &found[part.parent].picks;
                if let Some(answer) = solve_part(program, parent, part.depth, &part.barred, window, limits) {
                    heap.push(Part::solved(program, answer, (part.parent, part.depth, part.barred)));
                }
            }
            Some(answer) => {
                heap.extend(bounds.children(program, &answer, found.len(), part.depth, &part.barred));
                found.push(answer);
            }
        }
    }
    found.into_iter().map(|answer| solve::certified(program, &Found { answer, window, solver })).collect()
}

fn solve_part(
    program: &Program<'_>,
    parent: &[usize],
    depth: usize,
    barred: &[usize],
    window: Window,
    limits: &Limits,
) -> Option<Answer> {
    let keep = |group: usize, place: usize| match group.cmp(&depth) {
        Ordering::Less => parent[group] == place,
        Ordering::Equal => !barred.contains(&place),
        Ordering::Greater => true,
    };
    let (rest, places) = program.instance.filtered(keep)?;
    let answer = knapsack::solve(&rest, window, limits)?;
    let former = |(group, &pick): (usize, &usize)| places[rest.start(group) + pick] as usize;
    Some(Answer { picks: answer.picks.iter().enumerate().map(former).collect(), ..answer })
}

impl Part {
    fn solved(program: &Program<'_>, answer: Answer, place: (usize, usize, Vec<usize>)) -> Self {
        let (parent, depth, barred) = place;
        let least = program.instance.cost(&answer.picks);
        let size = program.instance.size(&answer.picks);
        Self { least, size, parent, depth, barred, answer: Some(answer) }
    }

    /// Cheapest first; what is not solved yet before what is, as it may turn out to be smaller.
    fn key(&self) -> (f64, bool, u64, usize, usize) {
        (self.least, self.answer.is_some(), self.size, self.parent, self.depth)
    }
}

impl Ord for Part {
    /// Reversed: the heap gives its greatest element.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.key(), other.key());
        b.0.total_cmp(&a.0).then_with(|| (b.1, b.2, b.3, b.4).cmp(&(a.1, a.2, a.3, a.4)))
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Part {}

/// What every part costs at least: costs plus the price of their sizes, less what the whole window
/// is worth at that price.
struct Bounds {
    price: f64,
    /// The least sum of cost and price in each group.
    least: Vec<f64>,
    /// Value of the window, and a margin for rounding.
    credit: f64,
}

impl Bounds {
    fn new(program: &Program<'_>, window: Window) -> Self {
        let instance = &program.instance;
        let price = knapsack::price(instance, window.ceiling);
        let narrowest = instance.narrowest();
        // Sizes count from the narrowest plan, so that no digits are lost to what never changes.
        let above = |items: &[crate::instance::Item], place: usize| {
            price * (items[place].size - items[0].size) as f64 + items[place].cost
        };
        let least: Vec<f64> = instance
            .groups()
            .map(|items| (0..items.len()).map(|place| above(items, place)).fold(f64::INFINITY, f64::min))
            .collect();
        let worth = price * (window.ceiling.min(instance.widest()) - narrowest) as f64;
        let magnitude: f64 = instance.groups().flatten().map(|item| item.cost.abs()).sum();
        let margin = f64::EPSILON * 4.0 * (instance.len() as f64 + 4.0) * (magnitude + 2.0 * worth);
        Self { price, least, credit: worth + margin }
    }

    /// The parts that are left of a part once its cheapest plan is taken out of it.
    fn children(
        &self,
        program: &Program<'_>,
        answer: &Answer,
        number: usize,
        depth: usize,
        barred: &[usize],
    ) -> Vec<Part> {
        let value = |group: usize, place: usize| {
            let items = program.instance.group(group);
            self.price * (items[place].size - items[0].size) as f64 + items[place].cost
        };
        let mut parts = Vec::new();
        let before: f64 = (0..depth).map(|group| value(group, answer.picks[group])).sum();
        let mut fixed = before;
        let mut free: f64 = self.least[depth..].iter().sum();
        for group in depth..answer.picks.len() {
            free -= self.least[group];
            let own = if group == depth { barred } else { &[] };
            let barred: Vec<usize> = own.iter().copied().chain([answer.picks[group]]).collect();
            let places = 0..program.instance.group(group).len();
            let others = places.filter(|place| !barred.contains(place)).map(|place| value(group, place));
            if let Some(other) = others.reduce(f64::min) {
                let least = fixed + other + free - self.credit;
                parts.push(Part { least, size: 0, parent: number, depth: group, barred, answer: None });
            }
            fixed += value(group, answer.picks[group]);
        }
        parts
    }
}
