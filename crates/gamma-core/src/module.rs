//! Names of the matrices that compete for bits.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The exact name of a linear module, such as `model.layers.0.self_attn.q_proj`: the name of its
/// weight tensor without `.weight`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ModuleName(Arc<str>);

impl ModuleName {
    /// Wraps a name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of the decoder block that the module belongs to: the first path segment that is
    /// a number.
    ///
    /// ```
    /// use gamma_core::ModuleName;
    /// let name = ModuleName::new("model.layers.11.mlp.down_proj");
    /// assert_eq!((name.block(), name.role()), (Some(11), "down_proj"));
    /// ```
    #[must_use]
    pub fn block(&self) -> Option<usize> {
        self.0.split('.').find_map(|segment| segment.parse().ok())
    }

    /// The last path segment, such as `down_proj`: what the module does in its block.
    #[must_use]
    pub fn role(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// The number of the expert that the module belongs to: the path segment after `experts`.
    ///
    /// ```
    /// use gamma_core::ModuleName;
    /// let expert = |name: &str| ModuleName::new(name).expert();
    /// assert_eq!(expert("model.layers.2.mlp.experts.7.up_proj"), Some(7));
    /// assert_eq!(expert("model.layers.2.mlp.up_proj"), None);
    /// ```
    #[must_use]
    pub fn expert(&self) -> Option<usize> {
        let mut segments = self.0.split('.').skip_while(|segment| *segment != "experts");
        segments.nth(1)?.parse().ok()
    }

    /// The name of the module's weight tensor.
    #[must_use]
    pub fn weight(&self) -> String {
        format!("{}.weight", self.0)
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<String> for ModuleName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<ModuleName> for String {
    fn from(name: ModuleName) -> Self {
        name.0.as_ref().to_owned()
    }
}
