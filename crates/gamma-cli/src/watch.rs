//! Progress on the terminal, and Ctrl-C.

use std::{
    fs,
    io::{IsTerminal, stderr},
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use gamma::{Event, Progress, Proxy, Run, Scores, device::describe, report};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows what happens on standard error; stops the run after Ctrl-C.
pub struct Watch {
    interrupted: Arc<AtomicBool>,
    bar: ProgressBar,
    stage: &'static str,
    started: Instant,
    terminal: bool,
    last_line: Instant,
}

/// Without a terminal a line of progress comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    /// Takes over Ctrl-C: the first one stops the run at the next step, a second one at once.
    pub fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        })?;
        let now = Instant::now();
        let terminal = stderr().is_terminal();
        Ok(Self {
            interrupted,
            bar: ProgressBar::hidden(),
            stage: "",
            started: now,
            terminal,
            last_line: now,
        })
    }

    /// Ends the bar of the present stage.
    pub fn finish(&mut self) {
        if !self.stage.is_empty() {
            self.bar.finish_and_clear();
            note!("{}: {:.1} s", self.stage, self.started.elapsed().as_secs_f64());
            self.stage = "";
        }
    }

    fn show(&mut self, stage: &'static str, done: usize, total: usize, message: String) {
        if self.stage != stage {
            self.finish();
            self.stage = stage;
            self.started = Instant::now();
            self.bar = if self.terminal { bar(stage, total) } else { ProgressBar::hidden() };
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if !self.terminal && self.last_line.elapsed() > LINE_EVERY {
            self.last_line = Instant::now();
            note!("{stage}: {done} of {total}  {message}");
        }
        self.bar.set_message(message);
    }
}

/// Says which model was opened, and which of its weights no plan changes.
pub fn introduce(run: &Run) {
    let config = run.config();
    let blocks = config.blocks;
    let modules: usize = (0..blocks).map(|block| config.modules(block).len()).sum();
    note!(
        "{}: {blocks} blocks, {modules} modules, hidden size {}; on {}",
        config.architecture.name(),
        config.hidden_size,
        describe(run.device())
    );
    match run.unplanned() {
        Ok(found) => note!("{}", report::unplanned(run.planned_weights(), &found)),
        Err(error) => note!("weights outside of plans cannot be counted: {error}"),
    }
}

/// Names the experts that the calibration text of `scores` hardly reached.
pub fn warn_of_starved(scores: &Scores) {
    if let Some(text) = scores.routing.as_ref().and_then(report::starved) {
        note!("{text}");
    }
}

/// Makes the candidates, and names the experts that the calibration text hardly reached.
pub fn prepare(run: &Run, watch: &mut Watch) -> Result<(), gamma::Error> {
    // The first needs no text, and does not see who reads it.
    let proxy = if run.config().experts.is_none() { Proxy::Weights } else { Proxy::Moments };
    warn_of_starved(&run.score(proxy, watch)?);
    Ok(())
}

/// Says what learning takes.
pub fn demand(run: &Run) -> anyhow::Result<()> {
    let demand = run.demand()?;
    say!("{demand}");
    say!(
        "{:10.0} s at least, by the rate of a matrix product here",
        demand.time_on(run.device()).as_secs_f64()
    );
    Ok(())
}

/// Whether results can be written to `folder` (which is made), tried before the work and not after.
pub fn writable(folder: Option<&Path>) -> anyhow::Result<()> {
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let reason = || format!("results cannot be written to `{}`", folder.display());
    fs::create_dir_all(folder).with_context(reason)?;
    let probe = folder.join(format!(".gamma-{}", std::process::id()));
    fs::write(&probe, []).with_context(reason)?;
    fs::remove_file(&probe).with_context(reason)
}

fn bar(stage: &'static str, total: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:>10} {bar:24} {percent:>3} %  {elapsed}, {eta} left  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style).with_prefix(stage)
}

impl Progress for Watch {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Sampling { done, total } => self.show("sampling", done, total, String::new()),
            Event::Quantizing { done, total } => self.show("quantizing", done, total, String::new()),
            Event::Learning(step) => {
                let what = format!(
                    "loss {:.5}  bits {:.2}  price {:.3}",
                    step.loss, step.expected_bits, step.multiplier
                );
                self.show("learning", step.done, step.total, what);
            }
            Event::Resuming { steps } => note!("going on after step {steps} of the interrupted run"),
            Event::Stopping => {
                note!("learning stops where it can be taken up again; Ctrl-C again stops at once");
                return ControlFlow::Continue(());
            }
            Event::Scoring { done, total } => self.show("scoring", done, total, String::new()),
            Event::Refining { stage, step, total } => {
                let best = step.best.map_or_else(String::new, |best| format!("best {best:.4} nats  "));
                let what = format!("{best}{} kept, {} refused", step.accepted, step.rejected);
                let done = match total {
                    0 => step.spent.evaluations as usize,
                    _ => (step.accepted + step.rejected).min(total),
                };
                self.show(stage, done, total.max(done), what);
            }
            Event::Evaluating { done, total } => self.show("evaluating", done, total, String::new()),
            _ => {}
        }
        if self.interrupted.load(Ordering::SeqCst) {
            self.bar.finish_and_clear();
            if let Event::Refining { .. } = event {
                note!("refinement stopped: the best plan so far is taken; Ctrl-C again stops everything");
                self.interrupted.store(false, Ordering::SeqCst);
            }
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
