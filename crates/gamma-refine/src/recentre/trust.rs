//! How far to follow the measured costs: plans with all the changes they suggest, half, a quarter.

use gamma_ilp::{ProjectError, Space};

use super::{RecentreSettings, survey::Survey};

/// Bisections of the price of a change, on a logarithmic scale, and the range that they search.
const BISECTIONS: usize = 10;
const RANGE: f64 = 1e6;

/// A plan that the measured costs suggest.
pub(super) struct Suggestion {
    pub(super) places: Vec<usize>,
    /// Groups that it changes.
    pub(super) changed: usize,
    /// What the costs say of it, relative to the centre.
    pub(super) predicted: f64,
}

/// The best plan within reach of the centre, then those of at most half as many changes, and so on;
/// none twice, and none without changes.
///
/// A limit on the number of changes would join all groups, and take another solver. A price on each
/// change only changes the costs.
pub(super) fn steps(
    space: &Space<'_>,
    survey: &Survey,
    costs: &[Vec<f64>],
    settings: &RecentreSettings,
) -> Result<Vec<Suggestion>, ProjectError> {
    let centre = &survey.places;
    let solve = |price: f64| {
        let cost = |group: usize, place: usize| {
            let own = costs[group][place] + if place == centre[group] { 0.0 } else { price };
            survey.changes[group][place].map(|_| own)
        };
        match space.cheapest(cost, &settings.limits) {
            Ok(found) => Ok(found.map(|places| suggestion(places, centre, costs))),
            // Constraints that join modules and no solver for them: with fewer changes, a plan may
            // obey them by itself, as the centre does.
            Err(
                ProjectError::NoHighs { .. }
                | ProjectError::NotAKnapsack { .. }
                | ProjectError::TimeLimit { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    };
    // At this price no change pays: per change, a plan saves at most the largest difference.
    let differences =
        costs.iter().zip(centre).flat_map(|(own, &place)| own.iter().map(move |c| (c - own[place]).abs()));
    let prohibitive = differences.fold(0.0, f64::max) * 1.01;

    let mut suggestions: Vec<Suggestion> = Vec::new();
    let full = solve(0.0)?;
    let mut most = full.as_ref().map_or(space.len(), |full| full.changed);
    suggestions.extend(full);
    for _ in 0..settings.halvings {
        most /= 2;
        if most == 0 {
            break;
        }
        let (mut low, mut high) = (prohibitive / RANGE, prohibitive);
        let mut found: Option<Suggestion> = None;
        for _ in 0..BISECTIONS {
            let price = (low * high).sqrt();
            match solve(price)?.filter(|suggestion| suggestion.changed <= most) {
                Some(few) => (high, found) = (price, Some(few)),
                None => low = price,
            }
            if found.as_ref().is_some_and(|few| few.changed == most) {
                break;
            }
        }
        suggestions.extend(found);
    }
    suggestions.retain(|suggestion| suggestion.changed > 0);
    let mut seen = std::collections::HashSet::new();
    suggestions.retain(|suggestion| seen.insert(suggestion.places.clone()));
    Ok(suggestions)
}

fn suggestion(places: Vec<usize>, centre: &[usize], costs: &[Vec<f64>]) -> Suggestion {
    let pairs = || places.iter().zip(centre).zip(costs).filter(|((place, centre), _)| place != centre);
    let predicted = pairs().map(|((&place, &centre), own)| own[place] - own[centre]).sum();
    let changed = pairs().count();
    Suggestion { places, changed, predicted }
}
