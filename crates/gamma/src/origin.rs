//! Where scores come from: what a run depends on, in words and hashes.

use gamma_core::{Digest, Format, Provenance};
use gamma_model::Products;
use sha2::{Digest as _, Sha256};

use crate::{Error, Progress, Run};

impl Run {
    /// What the scores and the state of this run depend on.
    pub(crate) fn origin(&self, progress: &mut dyn Progress) -> Result<Provenance, Error> {
        let (sequences, settings) = (self.sequences(progress)?, &self.learning);
        Ok(self.provenance(sequences, &settings.to_string(), settings.named()))
    }

    /// Where scores come from that `learner` makes, a method with the settings `named`.
    pub(crate) fn provenance(
        &self,
        sequences: &[Vec<u32>],
        learner: &str,
        named: Vec<(&str, String)>,
    ) -> Provenance {
        // The default is not named: scores from before there was a choice stay those of the same run.
        let products = (self.products != Products::default()).then(|| self.products.name());
        let aside = products.map(|name| format!(", products in {name}")).unwrap_or_default();
        let learner = format!("{learner}, batch {}{aside}", self.batch);
        let quantizer = self.method.describe();
        let (version, config) = (env!("CARGO_PKG_VERSION"), self.config());
        let settings =
            format!("{learner}\0{quantizer}\0{:?}\0{:?}\0{config:?}\0{version}", self.formats, self.scores);
        let formats: Vec<String> = self.formats.iter().map(Format::to_string).collect();
        let length = sequences.first().map_or(0, Vec::len);
        let calibration = format!("{} sequences of {length} tokens", sequences.len());
        let own = [
            ("batch", self.batch.to_string()),
            ("calibration", calibration),
            ("formats", formats.join(", ")),
            ("score", format!("{:?}", self.scores).to_lowercase()),
        ];
        let named = named
            .into_iter()
            .chain(own)
            .chain(products.map(|name| ("products", name.to_owned())))
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Provenance {
            architecture: self.config().architecture.name().to_owned(),
            weights: self.weights,
            calibration: digest(sequences),
            quantizer,
            learner,
            settings: Digest::sha256(Sha256::digest(settings).into()),
            version: Some(version.to_owned()),
            device: Some(gamma_device::describe(self.device())),
            named,
            tensors: self.tensors.clone(),
        }
    }
}

/// Hash of calibration tokens.
pub(crate) fn digest(sequences: &[Vec<u32>]) -> Digest {
    let mut tokens = Sha256::new();
    for sequence in sequences {
        for id in sequence {
            tokens.update(id.to_le_bytes());
        }
        tokens.update([0xff; 4]); // between sequences
    }
    Digest::sha256(tokens.finalize().into())
}
