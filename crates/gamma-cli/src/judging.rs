//! What models are judged on, as it is typed.

use std::path::PathBuf;

use clap::Args;
use gamma::{Jury, Progress, Protocol, Run};

/// What models are judged on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judging")]
pub struct JudgingArgs {
    /// Text to judge by, UTF-8, disjoint from the calibration text
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    evaluation: Vec<PathBuf>,
    /// Judge at most this many windows, spread over the text
    #[arg(long, value_name = "COUNT")]
    windows: Option<usize>,
    /// Tokens from one window to the next [default: their length]; below it, what two windows share
    /// is context only
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
}

impl JudgingArgs {
    /// What plans are judged on, in words.
    pub fn describe(&self, length: usize) -> String {
        let windows = self.windows.map_or("all windows".to_owned(), |count| format!("{count} windows"));
        let name = |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).display().to_string();
        let files: Vec<String> = self.evaluation.iter().map(name).collect();
        let stride = self.stride.unwrap_or(length);
        format!("{windows} of {length} tokens of {}, stride {stride}", files.join(", "))
    }

    /// A jury for windows of `length` tokens, by default as many as the model takes, 2048 at most.
    pub fn jury(
        &self,
        run: &Run,
        length: Option<usize>,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<Jury> {
        let length = window(run, length);
        let protocol = Protocol { length, stride: self.stride.unwrap_or(length), limit: self.windows };
        Ok(run.jury_by(&protocol, &self.evaluation, progress)?)
    }
}

/// Tokens per window: as given, or as many as the model takes, 2048 at most.
pub fn window(run: &Run, given: Option<usize>) -> usize {
    given.unwrap_or(run.config().max_positions.min(2048))
}
