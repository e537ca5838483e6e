//! The command `gamma`.

/// A line on standard output. Who has closed it wants no more lines, and the work goes on.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// The same on standard error.
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod ablate;
mod apply;
mod args;
mod budget;
mod compare;
mod constraints;
mod engine;
mod eval;
mod explain;
mod export;
mod frontier;
mod hub;
mod judging;
mod keeping;
mod learn;
mod ledger;
mod project;
mod quantizer;
mod refinement;
mod run;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Tensors come and go by the thousand. The system's allocator gives large ones back to the system
/// each time, which costs a quarter of the whole run in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Learn(args) => learn::learn(&args),
        Command::Project(args) => project::project(&args),
        Command::Frontier(args) => frontier::frontier(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Apply(args) => apply::apply(&args),
        Command::Export(args) => export::export(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Ablate(args) => ablate::ablate(&args),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if matches!(error.downcast_ref(), Some(gamma::Error::Interrupted)) {
        note!("interrupted: what was finished before is kept, nothing is half-written");
        return ExitCode::from(130);
    }
    // One line per cause, from what failed to why.
    note!("error: {error}");
    error.chain().skip(1).for_each(|cause| note!("  because: {cause}"));
    ExitCode::FAILURE
}
