//! The divergence of every single move around a plan.

use gamma_ilp::Space;

use crate::{
    Estimate, Examiner,
    session::{Halt, Session, Stand},
};

/// What single moves do.
pub(super) struct Survey {
    /// The plan that was moved, on the probe.
    pub(super) centre: Estimate,
    /// Its place in each group.
    pub(super) places: Vec<usize>,
    /// Change of the divergence at each place of each group; `None` where it was not measured.
    pub(super) changes: Vec<Vec<Option<Estimate>>>,
}

impl Survey {
    /// Number of moves.
    pub(super) fn measured(&self) -> usize {
        self.changes.iter().flatten().flatten().count() - self.places.len()
    }
}

/// Measures every move of at most `reach` places.
pub(super) fn around<X: Examiner>(
    session: &mut Session<'_, X>,
    space: &Space<'_>,
    stand: &Stand,
    reach: usize,
) -> Result<Survey, Halt<X::Error>> {
    let unmeasured = |group| vec![None; space.places_of(group)];
    let mut changes: Vec<Vec<Option<Estimate>>> = (0..space.len()).map(unmeasured).collect();
    let mut places = stand.places.clone();
    let reachable = |group: usize, own: usize| {
        let last = (own + reach).min(space.places_of(group) - 1);
        (own.saturating_sub(reach)..=last).filter(move |&place| place != own)
    };
    let total = places.iter().enumerate().map(|(group, &own)| reachable(group, own).count()).sum();
    session.moves = (0, total);
    // Groups stand in the order of their first modules. From the last one on, two plans in a row
    // agree up to the earlier of the two modules that differ from the centre, and it is the
    // *second* plan that has the earlier one: a chain of states needs no repair before it.
    for group in (0..space.len()).rev() {
        let own = stand.places[group];
        changes[group][own] = Some(Estimate { mean: 0.0, std_error: 0.0, windows: stand.probe.len() });
        for place in reachable(group, own) {
            places[group] = place;
            session.moves.0 += 1;
            let moved = session.whole_probe(&space.plan(&places))?;
            changes[group][place] = Some(Estimate::paired(&stand.probe, &moved));
        }
        places[group] = own;
    }
    session.moves = (0, 0);
    Ok(Survey { centre: Estimate::of(&stand.probe), places, changes })
}
