//! Scores by published proxies, on the candidates of a run.

use gamma_core::{ScoreKind, ScoresFile};
use gamma_preference::Inputs;
use gamma_proxy::{Proxy, ProxyError, by_gradients, by_trials, locally};

use crate::{
    Error, Event, Progress, Run, Scores, ending::NextTokens, examine::Bench, network::BankedDecoder,
};

impl Run {
    /// Scores every module in every format by a published proxy instead of learning: faster than
    /// [`learn`](Self::learn), and what it is compared with. Candidates, calibration sequences and
    /// everything that follows are the same.
    ///
    /// ```no_run
    /// use gamma::{Budget, Calibration, Gamma, Proxy, Quiet};
    ///
    /// let run = Gamma::builder()
    ///     .model("path/to/hf-folder")
    ///     .calibration(Calibration::text_file("calib.txt"))
    ///     .build()?;
    /// let plan = run.score(Proxy::Fisher, &mut Quiet)?.project(Budget::average_bits(3.5))?;
    /// # Ok::<(), gamma::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn score(&self, proxy: Proxy, progress: &mut dyn Progress) -> Result<Scores, Error> {
        let room = self.room()?;
        let bank = self.fill_within(&room, progress)?;
        let sequences = if proxy.needs_data() { self.sequences(progress)? } else { &[] };
        let embedded = self.batches(sequences);
        let batches = || (0..embedded.count()).map(|batch| embedded.batch(batch)).collect::<Vec<_>>();
        let mut network = BankedDecoder::new(&self.decoder, &bank, &self.formats);
        let mut tick = |done, total| progress.event(Event::Scoring { done, total });
        let table = match proxy {
            Proxy::Trace | Proxy::Fisher | Proxy::FirstOrder => {
                let ending = NextTokens::new(&self.decoder, sequences, self.batch);
                by_gradients(proxy, &mut network, &batches(), &ending, &mut tick)?
            }
            Proxy::Divergence | Proxy::Noise { .. } => {
                let mut bench = Bench::new(self, sequences.to_vec())?;
                by_trials(proxy, &mut network, &mut bench, &mut tick)?
            }
            _ => locally(proxy, &mut network, &batches(), &mut tick)?,
        };
        let provenance =
            self.provenance(sequences, &format!("{} proxy, {proxy:?}", proxy.name()), Vec::new());
        let remainder = self.remainder(&table, &provenance)?;
        let (kind, contexts) = (ScoreKind::Loss, Vec::new());
        let scores = ScoresFile { kind, provenance, remainder, routing: None, table, contexts };
        if !proxy.needs_data() {
            return Ok(Scores::new(scores)); // it charges every expert as it finds it
        }
        Ok(Scores::new(self.heed_experts(scores, &bank, sequences, &room, progress)?))
    }
}

impl From<ProxyError<Error>> for Error {
    fn from(error: ProxyError<Error>) -> Self {
        match error {
            ProxyError::Interrupted => Self::Interrupted,
            ProxyError::Load { source, .. } | ProxyError::Trial { source, .. } => source,
            other => Self::Proxy(Box::new(other)),
        }
    }
}
