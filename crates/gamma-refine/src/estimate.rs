//! Means over windows and how well they are known.

/// A mean over windows, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error: the standard deviation over windows divided by the root of their number;
    /// 0 for a single window, of which nothing is known.
    pub std_error: f64,
    /// Number of windows.
    pub windows: usize,
}

impl Estimate {
    /// Mean and standard error of `values`, one per window.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a mean of no windows");
        let windows = values.len();
        let mean = values.iter().sum::<f64>() / windows as f64;
        let square = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
        let std_error = if windows > 1 && mean.is_finite() {
            (square / (windows - 1) as f64 / windows as f64).sqrt()
        } else {
            0.0
        };
        Self { mean, std_error, windows }
    }

    /// The mean of the differences `after - before`, window by window. Most of what differs from
    /// window to window is the same under both plans, and drops out.
    ///
    /// # Panics
    /// Unless both have the same number of windows, at least one.
    #[must_use]
    pub fn paired(before: &[f64], after: &[f64]) -> Self {
        assert_eq!(before.len(), after.len(), "the same windows before and after");
        let differences: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        Self::of(&differences)
    }

    /// Whether the mean is below zero by more than so many standard errors.
    #[must_use]
    pub fn is_below_zero(&self, std_errors: f64) -> bool {
        self.mean + std_errors * self.std_error < 0.0
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.5} ± {:.5}", self.mean, self.std_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paired_differences_lose_what_the_windows_share() {
        let before = [1.0, 20.0, 3.0, 40.0];
        let after = [0.5, 19.6, 2.4, 39.5];
        assert!(Estimate::of(&before).std_error > 5.0);
        let change = Estimate::paired(&before, &after);
        assert!((change.mean + 0.5).abs() < 1e-12);
        // Deviations 0, 0.1, -0.1, 0: variance 0.02 / 3, over four windows.
        assert!((change.std_error - (0.02_f64 / 12.0).sqrt()).abs() < 1e-12, "{change}");
        assert!(change.is_below_zero(10.0) && !change.is_below_zero(20.0));
    }

    #[test]
    fn what_is_infinitely_bad_is_below_nothing() {
        let change = Estimate::paired(&[1.0, 1.0], &[f64::INFINITY, 0.0]);
        assert!(!change.is_below_zero(0.0));
        assert!(!Estimate::of(&[0.0, 0.0]).is_below_zero(0.0));
        assert_eq!(Estimate::of(&[2.0]), Estimate { mean: 2.0, std_error: 0.0, windows: 1 });
    }
}
