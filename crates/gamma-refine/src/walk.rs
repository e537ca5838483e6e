//! Random steps through a space that keep the budget.

use gamma_ilp::{Limits, Space};
use rand::{Rng, RngExt};

/// How many random points are drawn for one that is admitted.
pub(crate) const TRIES: usize = 64;

/// A random admitted point that leaves no room for another place up. Where constraints that join
/// modules refuse [`TRIES`] of them, the solver's answer to random costs, so far as it can obey such
/// constraints; else `None`.
pub(crate) fn random_point(space: &Space<'_>, rng: &mut impl Rng) -> Option<Vec<usize>> {
    let drawn = (0..TRIES).find_map(|_| {
        let drawn = (0..space.len()).map(|group| rng.random_range(0..space.places_of(group)));
        let mut places: Vec<usize> = drawn.collect();
        let fixed = vec![false; places.len()];
        (fit(space, &mut places, &fixed, rng) && space.admits(&places)).then_some(places)
    });
    drawn.or_else(|| {
        let costs: Vec<Vec<f64>> = (0..space.len())
            .map(|group| (0..space.places_of(group)).map(|_| rng.random()).collect())
            .collect();
        space.cheapest(|group, place| Some(costs[group][place]), &Limits::default()).ok().flatten()
    })
}

/// `flips` times one group up and another one down, both at random, then whatever it takes to keep
/// the budget and to use it. `None` where none of [`TRIES`] leads to another admitted point.
pub(crate) fn swapped(
    space: &Space<'_>,
    parent: &[usize],
    flips: usize,
    rng: &mut impl Rng,
) -> Option<Vec<usize>> {
    (0..TRIES).find_map(|_| {
        let mut places = parent.to_vec();
        let mut moved = vec![false; places.len()];
        for _ in 0..flips {
            let can_rise = |&g: &usize| !moved[g] && places[g] + 1 < space.places_of(g);
            let up = any((0..places.len()).filter(can_rise), rng)?;
            let can_fall = |&g: &usize| g != up && !moved[g] && places[g] > 0;
            let Some(down) = any((0..places.len()).filter(can_fall), rng) else { break };
            places[up] += 1;
            places[down] -= 1;
            (moved[up], moved[down]) = (true, true);
        }
        let fits = fit(space, &mut places, &moved, rng);
        (fits && places != parent && space.admits(&places)).then_some(places)
    })
}

/// Takes groups down at random until the budget is kept, then up until nothing more fits. Groups
/// that are `fixed` stay. Whether the budget is kept.
fn fit(space: &Space<'_>, places: &mut [usize], fixed: &[bool], rng: &mut impl Rng) -> bool {
    while !space.fits(places) {
        let can_fall = |&g: &usize| !fixed[g] && places[g] > 0;
        let Some(down) = any((0..places.len()).filter(can_fall), rng) else { return false };
        places[down] -= 1;
    }
    let used: u64 = places.iter().enumerate().map(|(group, &place)| space.size(group, place)).sum();
    let mut room = space.limit().bits - used;
    loop {
        let more = |g: usize, place: usize| space.size(g, place + 1) - space.size(g, place);
        let can_rise =
            |&g: &usize| !fixed[g] && places[g] + 1 < space.places_of(g) && more(g, places[g]) <= room;
        let Some(up) = any((0..places.len()).filter(can_rise), rng) else { return true };
        room -= more(up, places[up]);
        places[up] += 1;
    }
}

/// One of `items`, all equally likely.
fn any(items: impl Iterator<Item = usize>, rng: &mut impl Rng) -> Option<usize> {
    let items: Vec<usize> = items.collect();
    (!items.is_empty()).then(|| items[rng.random_range(0..items.len())])
}
