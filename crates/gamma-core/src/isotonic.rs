//! Monotone repair of measured costs.

/// The weighted least-squares fit of `costs` by a non-increasing sequence, in place (pool
/// adjacent violators, Barlow et al. 1972, for the order of growing stored bits).
///
/// More stored bits cannot hurt a well-made quantizer by more than noise, so a cost that rises
/// with the bits is averaged with its neighbours in proportion to how well each is known.
///
/// ```
/// let mut costs = [9.0, 2.0, 3.0, 1.0];
/// gamma_core::non_increasing(&mut costs, &[1.0, 1.0, 3.0, 1.0]);
/// assert_eq!(costs, [9.0, 2.75, 2.75, 1.0]);
/// ```
///
/// # Panics
/// If the slices differ in length or a weight is not positive.
pub fn non_increasing(costs: &mut [f64], weights: &[f64]) {
    assert_eq!(costs.len(), weights.len(), "one weight per cost");
    assert!(weights.iter().all(|&w| w > 0.0), "weights are positive");
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(costs.len()); // mean, weight, length
    for (&cost, &weight) in costs.iter().zip(weights) {
        let mut pool = (cost, weight, 1);
        while let Some(&(mean, total, length)) = pools.last() {
            if mean >= pool.0 {
                break;
            }
            let merged = total + pool.1;
            pool = ((mean * total + pool.0 * pool.1) / merged, merged, length + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    let fitted = pools.iter().flat_map(|&(mean, _, length)| std::iter::repeat_n(mean, length));
    costs.iter_mut().zip(fitted).for_each(|(cost, fit)| *cost = fit);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fit_is_monotone_keeps_the_mean_and_leaves_monotone_input_alone(
            pairs in prop::collection::vec((-5.0_f64..5.0, 0.1_f64..3.0), 1..9),
        ) {
            let (costs, weights): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let mut fit = costs.clone();
            non_increasing(&mut fit, &weights);
            prop_assert!(fit.windows(2).all(|w| w[0] >= w[1]));
            let mean = |v: &[f64]| v.iter().zip(&weights).map(|(c, w)| c * w).sum::<f64>();
            prop_assert!((mean(&fit) - mean(&costs)).abs() < 1e-9);
            let mut again = fit.clone();
            non_increasing(&mut again, &weights);
            prop_assert_eq!(again, fit);
        }
    }
}
