//! What earlier runs have left: scores that may be used again, and runs that may be extended.

use gamma_core::{Difference, Format, ModuleName, Provenance};
use gamma_preference::{State, extend};

use crate::{Error, Event, Learning, Progress, Run, Scores, StateFile, keep::Keeper};

/// What scores are named that were extended; the formats that there were before.
const EXTENDED: &str = "extended from";

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
    pub fn extend(&self, earlier: &StateFile, progress: &mut dyn Progress) -> Result<Learning, Error> {
        self.extend_from(earlier, None, progress)
    }

    /// [`extend`](Self::extend) with its state in `file`, as [`learn_kept`](Self::learn_kept) keeps it: the
    /// same call goes on after an interruption, to the same scores bit for bit. What it leaves at the end
    /// can be extended in turn.
    ///
    /// # Errors
    /// As [`extend`](Self::extend); [`Error::OtherRun`] also where `file` is the state of another extension;
    /// [`Error::Setting`] if both are one file.
    pub fn extend_kept(
        &self,
        earlier: &StateFile,
        file: &StateFile,
        progress: &mut dyn Progress,
    ) -> Result<Learning, Error> {
        if file.path() == earlier.path() {
            return Err(Error::Setting {
                setting: "state",
                found: file.path().display().to_string(),
                expected: "another file than the state that is extended, which has to stay until the end",
            });
        }
        self.extend_from(earlier, Some(file), progress)
    }

    fn extend_from(
        &self,
        earlier: &StateFile,
        file: Option<&StateFile>,
        progress: &mut dyn Progress,
    ) -> Result<Learning, Error> {
        let now = self.origin(progress)?;
        let (state, before) = self.earlier(earlier, &now)?;
        let extended = (EXTENDED.to_owned(), before.join(", "));
        let mut origin = now;
        origin.named.extend([extended.clone()]);
        let own = file.map(|file| file.read(&origin)).transpose()?.flatten();
        let (state, known) = match own {
            // It has all candidates already.
            Some(own) => (own, self.known(&self.formats.iter().map(Format::to_string).collect::<Vec<_>>())?),
            None => (state, self.known(&before)?),
        };
        let room = self.room()?;
        let bank = self.fill_within(&room, progress)?;
        let mut network = self.network(&bank, &room);
        let inputs = self.batches(self.sequences(progress)?);
        let _ = progress.event(Event::Resuming { steps: state.steps() });
        let (settings, start) = (&self.learning, (state, &known[..]));
        let learned = if let Some(file) = file {
            let mut keeper = Keeper::new(file, origin, progress);
            let learned = extend(&mut network, &inputs, settings, start, &mut keeper);
            keeper.finish()?;
            learned?
        } else {
            let mut report = |step: &gamma_preference::Step| progress.event(Event::Learning(*step));
            extend(&mut network, &inputs, settings, start, &mut report)?
        };
        let mut learning = self.scored(learned, &bank, (settings, self.scores), &room, progress)?;
        let mut scores = (*learning.scores).clone();
        scores.provenance.named.extend([extended]);
        learning.scores = Scores::new(scores);
        Ok(learning)
    }

    /// The state of an earlier run that differs from this one, `now`, in candidates that were added, and
    /// the formats that it had.
    fn earlier(&self, file: &StateFile, now: &Provenance) -> Result<(State, Vec<String>), Error> {
        let path = file.path().to_owned();
        let (then, state) = file.open()?.ok_or_else(|| Error::NoState { path: path.clone() })?;
        let before = then.named.get("formats").map(String::as_str).unwrap_or_default();
        let before: Vec<String> = before.split(", ").map(str::to_owned).collect();
        let kept = before.iter().all(|then| self.formats.iter().any(|now| now.to_string() == *then));
        let added = now.quantizer.contains(&then.quantizer);
        let other = |difference: &Difference| match difference.what.as_str() {
            "formats" => !kept,
            "quantizer" => !added,
            EXTENDED => false,
            _ => true,
        };
        let differences: Vec<Difference> = then.differences(now).into_iter().filter(other).collect();
        if differences.is_empty() { Ok((state, before)) } else { Err(Error::OtherRun { path, differences }) }
    }

    /// Of each module, which of its formats are among `before`: their numbers now, in the order of then.
    fn known(&self, before: &[String]) -> Result<Vec<Vec<usize>>, Error> {
        let fitting = self.fitting()?;
        let of_module = |name: &ModuleName| {
            let formats: Vec<String> =
                fitting.get(name).into_iter().flatten().map(Format::to_string).collect();
            before.iter().filter_map(|then| formats.iter().position(|now| now == then)).collect()
        };
        let modules = (0..self.config().blocks).flat_map(|block| self.config().modules(block));
        Ok(modules.map(|module| of_module(&module.name)).collect())
    }
}
