//! Constraints that join the groups of an instance.

use crate::{Instance, ProjectError};

/// `lower <= sum of coefficients of the chosen items <= upper`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    /// One per item of the instance.
    pub(crate) coefficients: Vec<f64>,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// At most so many different formats.
#[derive(Clone, Debug)]
pub(crate) struct Distinct {
    pub(crate) label: String,
    pub(crate) at_most: usize,
    /// Number of formats that occur.
    pub(crate) count: usize,
    /// The format of each item of the instance, below `count`.
    pub(crate) formats: Vec<u32>,
}

impl Row {
    /// Checks the numbers.
    pub(crate) fn new(
        label: String,
        coefficients: Vec<f64>,
        (lower, upper): (f64, f64),
    ) -> Result<Self, ProjectError> {
        let finite = coefficients.iter().all(|coefficient| coefficient.is_finite());
        if !finite || lower.is_nan() || upper.is_nan() {
            return Err(ProjectError::NotFinite { constraint: label });
        }
        Ok(Self { label, coefficients, lower, upper })
    }

    /// Whether the row holds, up to the rounding of a sum of `f64`.
    pub(crate) fn holds(&self, instance: &Instance, places: &[usize]) -> bool {
        let own =
            || places.iter().enumerate().map(|(g, &place)| self.coefficients[instance.start(g) + place]);
        let sum: f64 = own().sum();
        let magnitude: f64 = own().map(f64::abs).sum();
        let rounding = f64::EPSILON * places.len() as f64 * magnitude;
        self.lower - rounding <= sum && sum <= self.upper + rounding
    }

    /// Whether no plan can hold the row. HiGHS takes bounds beyond its infinity for mistakes.
    pub(crate) fn is_out_of_reach(&self, instance: &Instance) -> bool {
        let (mut least, mut most, mut magnitude) = (0.0, 0.0, 0.0);
        for (group, items) in instance.groups().enumerate() {
            let own = &self.coefficients[instance.start(group)..][..items.len()];
            least += own.iter().copied().fold(f64::INFINITY, f64::min);
            most += own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            magnitude += own.iter().map(|a| a.abs()).fold(0.0, f64::max);
        }
        let rounding = f64::EPSILON * instance.len() as f64 * magnitude;
        self.lower > self.upper || self.lower > most + rounding || self.upper < least - rounding
    }

    /// A row that `places` break and every other plan keeps.
    pub(crate) fn all_but(instance: &Instance, places: &[usize]) -> Self {
        let mut coefficients = vec![0.0; instance.n_items()];
        for (group, &place) in places.iter().enumerate() {
            coefficients[instance.start(group) + place] = 1.0;
        }
        let upper = places.len() as f64 - 1.0;
        Self { label: "another plan".to_owned(), coefficients, lower: f64::NEG_INFINITY, upper }
    }
}

impl Distinct {
    pub(crate) fn holds(&self, instance: &Instance, places: &[usize]) -> bool {
        let mut used = vec![false; self.count];
        for (group, &place) in places.iter().enumerate() {
            used[self.formats[instance.start(group) + place] as usize] = true;
        }
        used.into_iter().filter(|&used| used).count() <= self.at_most
    }
}
