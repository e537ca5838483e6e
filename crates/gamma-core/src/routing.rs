//! How calibration text spread over the experts of a model.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the tokens of a calibration text spread over the experts of a model, as far as it limits what
/// scores can say about them.
///
/// ```
/// use gamma_core::{Routing, SparseExpert};
/// let expert = |number, tokens| SparseExpert { name: format!("layers.0.mlp.experts.{number}"), tokens };
/// let routing = Routing { experts: 64, tokens: 4096, fewest: 32, few: vec![expert(9, 0), expert(3, 17)] };
/// assert_eq!(
///     routing.to_string(),
///     "2 of 64 experts saw fewer than 32 of the 4096 calibration tokens, 1 of them none: \
///      layers.0.mlp.experts.9 (0), layers.0.mlp.experts.3 (17)"
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Experts of all blocks together.
    pub experts: usize,
    /// Tokens of the text: as many as went through the router of every block.
    pub tokens: usize,
    /// Fewer tokens than this are too few for statistics of an expert's own.
    pub fewest: usize,
    /// The experts with fewer, those with the fewest first.
    pub few: Vec<SparseExpert>,
}

/// An expert that few calibration tokens went to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseExpert {
    /// What its modules' names begin with, such as `model.layers.3.mlp.experts.17`.
    pub name: String,
    /// How many tokens went to it.
    pub tokens: usize,
}

impl Routing {
    /// Whether every expert saw enough tokens.
    #[must_use]
    pub fn is_sufficient(&self) -> bool {
        self.few.is_empty()
    }
}

/// Experts that the text form names.
const SHOWN: usize = 6;

/// Counts, and the experts with the fewest tokens by name.
impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { experts, tokens, fewest, few } = self;
        if few.is_empty() {
            return write!(
                f,
                "all {experts} experts saw at least {fewest} of the {tokens} calibration tokens"
            );
        }
        let none = few.iter().filter(|expert| expert.tokens == 0).count();
        let none = if none > 0 { format!(", {none} of them none") } else { String::new() };
        let shown = few.iter().take(SHOWN).map(|expert| format!("{} ({})", expert.name, expert.tokens));
        let shown: Vec<String> = shown.collect();
        let rest = few.len().saturating_sub(SHOWN);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        write!(
            f,
            "{} of {experts} experts saw fewer than {fewest} of the {tokens} calibration tokens{none}: {}{more}",
            few.len(),
            shown.join(", ")
        )
    }
}
