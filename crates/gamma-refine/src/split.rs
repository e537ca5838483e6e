//! Which windows lead a search, and which decide.

use std::ops::Range;

/// Two parts of an examiner's text without a common window.
///
/// The *probe* leads: on it moves are measured and ordered, as often as a search likes. The *gate*
/// decides: on it a plan is measured only to be accepted or refused. What was chosen on the probe
/// looks better there than it is; on the gate it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    probe: Range<usize>,
    gate: Range<usize>,
}

/// Why a text cannot be split like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Nothing to measure on.
    #[error("the probe has no windows, {0:?}; one is the least")]
    NoProbe(Range<usize>),
    /// Too little to decide on.
    #[error("the gate {0:?} has fewer than 2 windows, and a standard error takes that many")]
    SmallGate(Range<usize>),
    /// A window that both leads and decides.
    #[error("probe {probe:?} and gate {gate:?} have windows in common")]
    Overlap {
        /// The probe.
        probe: Range<usize>,
        /// The gate.
        gate: Range<usize>,
    },
    /// Windows that the text does not have.
    #[error("probe {probe:?} and gate {gate:?} reach beyond the {available} windows of the text")]
    Beyond {
        /// The probe.
        probe: Range<usize>,
        /// The gate.
        gate: Range<usize>,
        /// What the examiner has.
        available: usize,
    },
}

impl Split {
    /// These windows.
    ///
    /// # Errors
    /// [`SplitError`] if the probe is empty, the gate has fewer than 2 windows, or both overlap.
    pub fn new(probe: Range<usize>, gate: Range<usize>) -> Result<Self, SplitError> {
        if probe.is_empty() {
            return Err(SplitError::NoProbe(probe));
        }
        if gate.len() < 2 {
            return Err(SplitError::SmallGate(gate));
        }
        if probe.start < gate.end && gate.start < probe.end {
            return Err(SplitError::Overlap { probe, gate });
        }
        Ok(Self { probe, gate })
    }

    /// The first half of `windows` windows as the probe, the rest as the gate.
    ///
    /// # Errors
    /// [`SplitError`] for fewer than 3 windows.
    pub fn halves(windows: usize) -> Result<Self, SplitError> {
        Self::new(0..windows / 2, windows / 2..windows)
    }

    /// The windows that lead.
    #[must_use]
    pub fn probe(&self) -> Range<usize> {
        self.probe.clone()
    }

    /// The windows that decide.
    #[must_use]
    pub fn gate(&self) -> Range<usize> {
        self.gate.clone()
    }

    pub(crate) fn check(&self, available: usize) -> Result<(), SplitError> {
        if self.probe.end.max(self.gate.end) > available {
            return Err(SplitError::Beyond { probe: self.probe(), gate: self.gate(), available });
        }
        Ok(())
    }

    /// How many windows of the probe a stage of this share of it measures, at least one.
    pub(crate) fn stage(&self, share: f64) -> usize {
        ((self.probe.len() as f64 * share).ceil() as usize).clamp(1, self.probe.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_windows_or_with_common_ones_are_refused() {
        assert_eq!(Split::halves(5), Split::new(0..2, 2..5));
        assert!(Split::new(4..8, 0..4).is_ok());
        assert_eq!(Split::new(3..3, 0..2), Err(SplitError::NoProbe(3..3)));
        assert_eq!(Split::new(0..3, 3..4), Err(SplitError::SmallGate(3..4)));
        for (probe, gate) in [(0..3, 2..5), (2..5, 0..3), (0..9, 3..5), (3..5, 0..9)] {
            assert!(matches!(Split::new(probe, gate), Err(SplitError::Overlap { .. })));
        }
        let split = Split::halves(8).unwrap();
        assert_eq!(split.check(8), Ok(()));
        assert!(matches!(split.check(7), Err(SplitError::Beyond { available: 7, .. })));
    }

    #[test]
    fn stages_are_shares_of_the_probe() {
        let split = Split::new(10..26, 0..4).unwrap();
        assert_eq!([0.001, 0.125, 0.5, 0.51, 1.0].map(|share| split.stage(share)), [1, 2, 8, 9, 16]);
    }
}
