//! Interrupted runs: what is kept of them, and going on with them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use gamma::{Found, Learning, Run, StateFile};

use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct KeepingArgs {
    /// Insist on going on with an interrupted run. Without this flag, one of exactly these settings is
    /// gone on with if there is one, and one of other settings is refused
    #[arg(long, conflicts_with = "fresh")]
    resume: bool,
    /// Begin anew, whatever an interrupted run has left
    #[arg(long)]
    fresh: bool,
    /// Save the state of learning this often, wherever it can be taken up again
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    save_every: u64,
}

impl KeepingArgs {
    /// The state of the run that writes its scores to `scores`: beside them.
    pub fn beside(&self, scores: &Path) -> StateFile {
        let mut name = scores.file_name().unwrap_or_default().to_owned();
        name.push(".state");
        let path: PathBuf = scores.with_file_name(name);
        let found = match (self.resume, self.fresh) {
            (true, _) => Found::Require,
            (_, true) => Found::Replace,
            _ => Found::Continue,
        };
        StateFile::new(path).every(Duration::from_secs(self.save_every)).found(found)
    }
}

/// Learns, and says where to go on if that was interrupted.
pub fn learn(run: &Run, state: &StateFile, watch: &mut Watch) -> anyhow::Result<Learning> {
    let learned = run.learn_kept(state, watch);
    ended(learned, state, watch)
}

/// The same for candidates that were added to those of an `earlier` run.
pub fn extend(
    run: &Run,
    earlier: &StateFile,
    state: &StateFile,
    watch: &mut Watch,
) -> anyhow::Result<Learning> {
    let learned = run.extend_kept(earlier, state, watch);
    ended(learned, state, watch)
}

fn ended(
    learned: Result<Learning, gamma::Error>,
    state: &StateFile,
    watch: &mut Watch,
) -> anyhow::Result<Learning> {
    if matches!(learned, Err(gamma::Error::Interrupted)) && state.path().exists() {
        note!("`{}` holds what was learned: the same command goes on from there", state.path().display());
    }
    let learning = learned?;
    watch.finish();
    Ok(learning)
}
