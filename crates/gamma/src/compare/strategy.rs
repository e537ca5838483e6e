//! The methods that can be compared.

use std::{fmt, str::FromStr};

use gamma_proxy::Proxy;

/// A way to get from a model and a budget to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// The widest uniform plan within the budget.
    Uniform,
    /// The integer program on the scores of a proxy.
    Scored(Proxy),
    /// The integer program on learned scores.
    Learned,
    /// The same, then improved by measuring: what gamma does unless told otherwise.
    Refined,
    /// The best of random plans, by measuring.
    Random,
    /// An evolutionary search by measuring alone, started from the plan of the weight errors.
    Evolved,
}

/// Strengths of noise for the linearity theorem.
const LEVELS: usize = 5;

impl Strategy {
    /// All of them, the cheap ones first.
    pub const ALL: [Self; 16] = [
        Self::Uniform,
        Self::Scored(Proxy::Random { seed: 0 }),
        Self::Scored(Proxy::Depth),
        Self::Scored(Proxy::Weights),
        Self::Scored(Proxy::Moments),
        Self::Scored(Proxy::Hessian),
        Self::Scored(Proxy::Trace),
        Self::Scored(Proxy::Fisher),
        Self::Scored(Proxy::FirstOrder),
        Self::Scored(Proxy::Noise { levels: LEVELS, seed: 0 }),
        Self::Scored(Proxy::Block),
        Self::Scored(Proxy::Divergence),
        Self::Learned,
        Self::Refined,
        Self::Random,
        Self::Evolved,
    ];

    /// Its name in tables and on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_string()
    }

    /// Whether its scores are learned.
    #[must_use]
    pub fn learns(self) -> bool {
        matches!(self, Self::Learned | Self::Refined)
    }

    /// Whether another seed gives another plan.
    #[must_use]
    pub fn is_random(self) -> bool {
        matches!(
            self,
            Self::Scored(Proxy::Random { .. } | Proxy::Noise { .. })
                | Self::Learned
                | Self::Refined
                | Self::Random
                | Self::Evolved
        )
    }
}

/// `proxy` with another seed, where it has one.
pub(super) fn seeded(proxy: Proxy, seed: u64) -> Proxy {
    match proxy {
        Proxy::Random { .. } => Proxy::Random { seed },
        Proxy::Noise { levels, .. } => Proxy::Noise { levels, seed },
        other => other,
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Scored(proxy) => proxy.name(),
            Self::Learned => "learned",
            Self::Refined => "gamma",
            Self::Random => "best-of-random",
            Self::Evolved => "evolved",
        })
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(|| {
            let all: Vec<String> = Self::ALL.into_iter().map(Self::name).collect();
            format!("expected one of {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_is_known_by_its_name() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(strategy));
        }
        assert!("nothing".parse::<Strategy>().unwrap_err().contains("best-of-random"));
    }
}
