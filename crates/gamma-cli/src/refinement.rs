//! How plans are improved by measuring, as it is typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use gamma::{
    Plan, Refined, Refinement,
    refining::{Outcome, Report},
};

/// Improving plans by measuring.
#[derive(Debug, Args)]
#[command(next_help_heading = "Refinement")]
pub struct RefinementArgs {
    /// Take plans as the scores suggest them, and only measure them against uniform ones
    #[arg(long)]
    no_refine: bool,
    /// Seconds of refinement for each budget, after which the best plan so far is taken
    #[arg(long, value_name = "SECONDS")]
    refine_seconds: Option<u64>,
    /// Swaps that are tried before re-centring, at most
    #[arg(long, value_name = "COUNT", default_value_t = Refinement::default().proposals)]
    swaps: usize,
    /// Calibration sequences on which single moves are measured, at most
    #[arg(long, value_name = "COUNT", default_value_t = Refinement::default().probe)]
    probe: usize,
}

/// Plans to measure against.
#[derive(Debug, Args)]
pub struct RivalArgs {
    /// A plan that the result must not be worse than, if it fits the budget; repeatable
    #[arg(long = "rival", value_name = "PLAN")]
    rivals: Vec<PathBuf>,
}

impl RefinementArgs {
    /// How plans are refined, in words.
    pub fn describe(&self) -> String {
        match (self.no_refine, self.refine_seconds) {
            (true, _) => "not refined".to_owned(),
            (_, Some(seconds)) => format!("refined for at most {seconds} s per budget"),
            (_, None) => "refined without a time limit".to_owned(),
        }
    }

    pub fn settings(&self) -> Refinement {
        let settings = if self.no_refine { Refinement::none() } else { Refinement::default() };
        Refinement {
            proposals: if self.no_refine { 0 } else { self.swaps },
            probe: self.probe,
            time: self.refine_seconds.map(Duration::from_secs),
            ..settings
        }
    }
}

impl RivalArgs {
    /// The plans, named by their files.
    pub fn plans(&self) -> anyhow::Result<Vec<(String, Plan)>> {
        let load = |path: &PathBuf| Ok((path.display().to_string(), Plan::load(path)?));
        self.rivals.iter().map(load).collect()
    }
}

/// What measuring changed, and what the plan was measured against.
pub fn account(refined: &Refined) -> String {
    let mut lines = Vec::new();
    let swaps = |found: &Outcome| {
        let Report { accepted, rejected, .. } = found.report;
        format!("swaps: {accepted} of {} kept", accepted + rejected)
    };
    lines.extend(refined.polished.first().map(swaps));
    if let Some(found) = &refined.recentred {
        let rounds = found.history.iter().map(|round| {
            let outcome = if round.accepted { "kept" } else { "not kept" };
            format!("{} changes by {} measured moves, {outcome}", round.changed, round.moves)
        });
        let rounds: Vec<String> = rounds.collect();
        lines.push(match rounds.as_slice() {
            [] => "re-centring was stopped before it had measured every move once".to_owned(),
            rounds => format!("re-centring: {}", rounds.join("; ")),
        });
    }
    lines.extend(refined.polished.get(1).map(swaps));
    let measured = refined.candidates.iter().filter_map(|candidate| {
        candidate.gate.map(|gate| format!("{} {:.4} ± {:.4}", candidate.name, gate.mean, gate.std_error))
    });
    let measured: Vec<String> = measured.collect();
    lines.push(format!("divergence on the gate: {}; taken: {}", measured.join(", "), refined.name));
    lines.join("\n")
}
