//! Where scores came from, and in what two origins differ.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Where a score table came from. Two tables with equal provenance are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The architecture, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// Hash of all weights.
    pub weights: Digest,
    /// Hash of the calibration tokens.
    pub calibration: Digest,
    /// The quantizer and its settings, in words.
    pub quantizer: String,
    /// The learner and its settings, in words.
    pub learner: String,
    /// Hash of every setting that can change a score.
    pub settings: Digest,
    /// The version of gamma that made the scores; `None` in files of versions that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The device that the model ran on, in words: another one rounds otherwise. `None` in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Every setting that can change a score, by name, in words. Empty in older files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, String>,
    /// Hash of the type, shape and bytes of every tensor of the model, by name. Empty in older files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tensors: BTreeMap<String, Digest>,
}

/// One thing in which two origins differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: a setting by name, `tensor NAME`, or what the numbers depend on besides.
    pub what: String,
    /// What it was; `None` where there was none.
    pub before: Option<String>,
    /// What it is.
    pub now: Option<String>,
}

impl Difference {
    /// A difference in `what`, if there is one.
    pub fn between<T: fmt::Display>(
        what: impl Into<String>,
        before: Option<T>,
        now: Option<T>,
    ) -> Option<Self> {
        let [before, now] = [before, now].map(|value| value.map(|value| value.to_string()));
        (before != now).then(|| Self { what: what.into(), before, now })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, before, now } = self;
        match (before, now) {
            (Some(before), Some(now)) => write!(f, "{what}: `{before}` then, `{now}` now"),
            (Some(before), None) => write!(f, "{what}: `{before}` then, nothing now"),
            (None, Some(now)) => write!(f, "{what}: nothing then, `{now}` now"),
            (None, None) => f.write_str(what),
        }
    }
}

impl Provenance {
    /// In what `now` differs from this origin. Empty if nothing does; what one of the two does not
    /// record, because an older version wrote it, is compared only as part of a hash.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(Difference::between("architecture", Some(&self.architecture), Some(&now.architecture)));
        found.extend(self.differing_tensors(now));
        if !self.records_tensors_with(now) {
            found.extend(Difference::between("weights", Some(self.weights), Some(now.weights)));
        }
        let calibration = (self.calibration, now.calibration);
        found.extend(Difference::between("calibration tokens", Some(calibration.0), Some(calibration.1)));
        found.extend(Difference::between("quantizer", Some(&self.quantizer), Some(&now.quantizer)));
        if let (Some(before), Some(now)) = (&self.version, &now.version) {
            found.extend(Difference::between("version of gamma", Some(before), Some(now)));
        }
        if let (Some(before), Some(now)) = (&self.device, &now.device) {
            found.extend(Difference::between("device", Some(before), Some(now)));
        }
        if self.named.is_empty() || now.named.is_empty() {
            found.extend(Difference::between("learner", Some(&self.learner), Some(&now.learner)));
        } else {
            found.extend(compared("", &self.named, &now.named));
        }
        if found.is_empty() {
            found.extend(Difference::between("settings", Some(self.settings), Some(now.settings)));
        }
        found
    }

    /// The tensors that are not the same in `now`, as far as both record them.
    #[must_use]
    pub fn differing_tensors(&self, now: &Self) -> Vec<Difference> {
        if !self.records_tensors_with(now) {
            return Vec::new();
        }
        compared("tensor ", &self.tensors, &now.tensors)
    }

    /// Whether both are of the same weights: tensor by tensor where both record them, else by the one
    /// hash of all.
    #[must_use]
    pub fn has_weights_of(&self, now: &Self) -> bool {
        if self.records_tensors_with(now) { self.tensors == now.tensors } else { self.weights == now.weights }
    }

    fn records_tensors_with(&self, now: &Self) -> bool {
        !self.tensors.is_empty() && !now.tensors.is_empty()
    }
}

/// The entries that two maps do not share.
fn compared<T: fmt::Display>(
    prefix: &str,
    before: &BTreeMap<String, T>,
    now: &BTreeMap<String, T>,
) -> Vec<Difference> {
    let new = now.keys().filter(|key| !before.contains_key(*key));
    let entry = |key: &String| Difference::between(format!("{prefix}{key}"), before.get(key), now.get(key));
    before.keys().chain(new).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Provenance {
        let digest = Digest::sha256([7; 32]);
        let entry = |name: &str| (name.to_owned(), digest);
        Provenance {
            architecture: "LlamaForCausalLM".into(),
            weights: digest,
            calibration: digest,
            quantizer: "rtn asymmetric g64".into(),
            learner: "8 rounds".into(),
            settings: digest,
            version: Some("0.1.0".into()),
            device: Some("cpu".into()),
            named: [("rounds".into(), "8".into()), ("seed".into(), "0".into())].into(),
            tensors: [entry("a.weight"), entry("b.weight")].into(),
        }
    }

    fn words(before: &Provenance, now: &Provenance) -> Vec<String> {
        before.differences(now).iter().map(Difference::to_string).collect()
    }

    #[test]
    fn differences_name_what_changed_and_nothing_else() {
        let (before, other) = (origin(), Digest::sha256([9; 32]));
        assert!(words(&before, &before).is_empty());
        let mut now = before.clone();
        now.tensors.insert("a.weight".into(), other);
        now.tensors.remove("b.weight");
        now.weights = other;
        now.named.insert("rounds".into(), "9".into());
        now.named.insert("pooled".into(), "true".into());
        now.settings = other;
        now.quantizer = "rtn asymmetric g128".into();
        now.device = Some("NVIDIA H200, ptx_sm90".into());
        let found = words(&before, &now);
        let expected = [
            "tensor a.weight: `sha256:0707",
            "tensor b.weight: `sha256:0707",
            "quantizer: `rtn asymmetric g64` then, `rtn asymmetric g128` now",
            "device: `cpu` then, `NVIDIA H200, ptx_sm90` now",
            "rounds: `8` then, `9` now",
            "pooled: nothing then, `true` now",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn origins_of_older_files_are_compared_by_their_hashes() {
        let older = Provenance {
            version: None,
            device: None,
            named: BTreeMap::new(),
            tensors: BTreeMap::new(),
            ..origin()
        };
        assert!(words(&older, &origin()).is_empty());
        let other = Digest::sha256([9; 32]);
        assert!(words(&older, &Provenance { weights: other, ..origin() })[0].starts_with("weights: "));
        assert!(words(&older, &Provenance { settings: other, ..origin() })[0].starts_with("settings: "));
        // One hash of all says nothing where there is one of each tensor.
        let hashed = Provenance { weights: other, ..origin() };
        assert!(words(&origin(), &hashed).is_empty() && origin().has_weights_of(&hashed));
        assert!(!older.has_weights_of(&hashed) && older.has_weights_of(&origin()));
        assert_eq!(words(&older, &Provenance { learner: "9 rounds".into(), ..origin() }).len(), 1);
    }
}
