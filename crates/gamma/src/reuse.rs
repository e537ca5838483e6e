//! What earlier runs have left: scores that may be used again, and runs that may be extended.

use gamma_core::{Difference, Format, ModuleName, Provenance};
use gamma_preference::extend;

use crate::{Error, Event, Learning, Progress, Run, Scores, StateFile, network::BankedDecoder, run::learner};

impl Run {
    /// Whether `scores` are what [`learn`](Self::learn) gives: of the same tensors, calibration tokens,
    /// quantizer, settings and version.
    ///
    /// # Errors
    /// [`Error::OtherScores`] says in what they differ.
    pub fn verify(&self, scores: &Scores, progress: &mut dyn Progress) -> Result<(), Error> {
        let now = self.origin(progress)?;
        let differences = scores.provenance.differences(&now);
        if differences.is_empty() { Ok(()) } else { Err(Error::OtherScores { differences }) }
    }

    /// Scores for candidates that were added to those of an earlier run, whose state at its end `file`
    /// keeps: bit-widths, or formats of further quantizers beside the old ones. Only the new options are
    /// scored; what was seen of the old ones stays and counts as before, in fewer passes than a new run
    /// takes. The costs are not those of a run with all candidates, but estimates of the same.
    ///
    /// # Errors
    /// As [`learn`](Self::learn); [`Error::OtherRun`] if anything but the candidates differs, or some are
    /// gone; [`Error::Learn`] for a run that cannot be extended: of another reading than the default
    /// one, or held at one budget.
    pub fn extend(&self, file: &StateFile, progress: &mut dyn Progress) -> Result<Learning, Error> {
        let now = self.origin(progress)?;
        let path = file.path().to_owned();
        let (then, state) = file.open()?.ok_or_else(|| Error::NoState { path: path.clone() })?;
        let before = then.named.get("formats").cloned().unwrap_or_default();
        let before: Vec<&str> = before.split(", ").collect();
        let kept = before.iter().all(|then| self.formats.iter().any(|now| now.to_string() == **then));
        let added = now.quantizer.contains(&then.quantizer);
        let other = |difference: &Difference| match difference.what.as_str() {
            "formats" => !kept,
            "quantizer" => !added,
            _ => true,
        };
        let differences: Vec<Difference> = then.differences(&now).into_iter().filter(other).collect();
        if !differences.is_empty() {
            return Err(Error::OtherRun { path, differences });
        }
        let known = self.known(&before)?;
        let room = self.room()?;
        let bank = self.fill_within(&room, progress)?;
        let mut network = BankedDecoder::new(&self.decoder, &bank, &self.formats).within(&room);
        let inputs = self.batches(self.sequences(progress)?);
        let _ = progress.event(Event::Resuming { steps: state.steps() });
        let mut report = |step: &gamma_preference::Step| progress.event(Event::Learning(*step));
        let settings = &self.learning;
        let learned = extend(&mut network, &inputs, settings, (state, &known), &mut report)?;
        let mut learning = self.scored(learned, &bank, (settings, self.scores), progress)?;
        let mut scores = (*learning.scores).clone();
        scores.provenance.named.insert("extended from".to_owned(), before.join(", "));
        learning.scores = Scores::new(scores);
        Ok(learning)
    }

    /// Of each module, which of its formats are among `before`: their numbers now, in the order of then.
    fn known(&self, before: &[&str]) -> Result<Vec<Vec<usize>>, Error> {
        let fitting = self.fitting()?;
        let of_module = |name: &ModuleName| {
            let formats: Vec<String> =
                fitting.get(name).into_iter().flatten().map(Format::to_string).collect();
            before.iter().filter_map(|then| formats.iter().position(|now| now == then)).collect()
        };
        let modules = (0..self.config().blocks).flat_map(|block| self.config().modules(block));
        Ok(modules.map(|module| of_module(&module.name)).collect())
    }

    /// What the scores and the state of this run depend on.
    pub(crate) fn origin(&self, progress: &mut dyn Progress) -> Result<Provenance, Error> {
        let (sequences, settings) = (self.sequences(progress)?, &self.learning);
        Ok(self.provenance(sequences, &learner(settings), settings.named()))
    }
}
