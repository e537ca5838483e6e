//! Constraints that join the groups of an instance.

use crate::{Instance, ProjectError};

/// What a sum of fractions may be off, relative to the sum of its absolute values.
pub(crate) const ROUNDING: f64 = 1e-11;

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

/// All that joins the groups of an instance besides the budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joints {
    pub(crate) rows: Vec<Row>,
    pub(crate) distinct: Option<Distinct>,
}

impl Joints {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.distinct.is_none()
    }

    pub(crate) fn hold(&self, instance: &Instance, places: &[usize]) -> bool {
        self.rows.iter().all(|row| row.holds(instance, places))
            && self.distinct.as_ref().is_none_or(|distinct| distinct.holds(instance, places))
    }

    /// The same for an instance of which only the items at `kept` are left.
    pub(crate) fn restricted(&self, kept: &[usize]) -> Self {
        let row = |row: &Row| Row {
            label: row.label.clone(),
            coefficients: kept.iter().map(|&item| row.coefficients[item]).collect(),
            ..*row
        };
        let distinct = |distinct: &Distinct| Distinct {
            label: distinct.label.clone(),
            formats: kept.iter().map(|&item| distinct.formats[item]).collect(),
            ..*distinct
        };
        Self { rows: self.rows.iter().map(row).collect(), distinct: self.distinct.as_ref().map(distinct) }
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        let rows = self.rows.iter().map(|row| row.label.clone());
        rows.chain(self.distinct.iter().map(|distinct| distinct.label.clone())).collect()
    }
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

    /// Whether all numbers are whole and their sums exact.
    pub(crate) fn is_whole(&self) -> bool {
        const EXACT: f64 = (1_u64 << 52) as f64;
        let whole = |number: &f64| number.fract() == 0.0;
        let reach: f64 = self.coefficients.iter().map(|a| a.abs()).sum();
        self.coefficients.iter().all(whole) && reach < EXACT
    }

    /// How far numbers of this magnitude may be off: not at all where they are whole.
    fn margin(&self, magnitude: f64) -> f64 {
        if self.is_whole() { 0.0 } else { ROUNDING * magnitude }
    }

    /// Whether the row holds, up to [`ROUNDING`].
    pub(crate) fn holds(&self, instance: &Instance, places: &[usize]) -> bool {
        let own =
            || places.iter().enumerate().map(|(g, &place)| self.coefficients[instance.start(g) + place]);
        let sum: f64 = own().sum();
        let margin = self.margin(own().map(f64::abs).sum());
        self.lower - margin <= sum && sum <= self.upper + margin
    }

    /// Whether no plan can hold the row. HiGHS takes bounds beyond its infinity for mistakes.
    #[cfg(feature = "highs")]
    pub(crate) fn is_out_of_reach(&self, instance: &Instance) -> bool {
        let (mut least, mut most, mut magnitude) = (0.0, 0.0, 0.0);
        for (group, items) in instance.groups().enumerate() {
            let own = &self.coefficients[instance.start(group)..][..items.len()];
            least += own.iter().copied().fold(f64::INFINITY, f64::min);
            most += own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            magnitude += own.iter().map(|a| a.abs()).fold(0.0, f64::max);
        }
        let margin = self.margin(magnitude);
        self.lower > self.upper || self.lower > most + margin || self.upper < least - margin
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
