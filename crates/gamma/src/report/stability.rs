//! Which choices of a plan the calibration data support.

use std::fmt::Write as _;

use crate::Stability;

/// How many modules keep their format when the calibration data are drawn anew, and the list of those
/// that hardly do.
#[must_use]
pub fn stability(stability: &Stability) -> String {
    let flips = stability.coin_flips();
    let modules = stability.kept.len();
    let firm = modules - flips.len();
    let mut text = format!(
        "{firm} of {modules} modules keep their format as planned in at least 75 % of {} resamples of the \
         calibration data",
        stability.resamples
    );
    if !flips.is_empty() {
        text.push_str("; coin flips:");
    }
    for (module, share) in flips {
        _ = write!(text, "\n  {module} {:.0} %", 100.0 * share);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use gamma_core::ModuleName;

    use super::*;

    #[test]
    fn coin_flips_are_listed_the_least_certain_first() {
        let kept = [("a", 1.0), ("b", 0.74), ("c", 0.75), ("d", 0.3)];
        let kept = kept.map(|(name, share)| (ModuleName::new(name), share)).to_vec();
        let text = stability(&Stability { resamples: 100, kept });
        assert!(text.starts_with("2 of 4 modules"), "{text}");
        assert!(text.ends_with("coin flips:\n  d 30 %\n  b 74 %\n"), "{text}");
        let firm = Stability { resamples: 5, kept: vec![(ModuleName::new("a"), 1.0)] };
        assert!(!super::stability(&firm).contains("coin"));
    }
}
