//! `cargo xtask`: set-up, demonstration and checks of this repository.
//!
//! Every command that builds something first sees to it that HiGHS can be linked ([`highs`]).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line reports by printing")]

mod backends;
mod bench;
mod demo;
mod gate;
mod highs;
mod tidy;
mod workspace;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [ARGS]   build the command and run `gamma run`; ARGS replace the built-in ones
  bench judge [BLOCKS REPEATS]
                time of measuring a move in each block, relative to a full evaluation, as Markdown
  bench learn [--threads N] [--dim N --heads N --kv-heads N --ffn N --batch N --steps N]
                time of a learning step, as Markdown; with torch in the interpreter GAMMA_PYTHON
                (else python3), of the same step there as well
  bench project [--seconds N] [--large] [--states N]
                time of plans, own solver and HiGHS (at most N seconds each), as Markdown
  bench quant [--threads N] [--repeats N]
                time of the quantizers and of packing, as Markdown; with torch, or gptqmodel, in the
                interpreter GAMMA_PYTHON (else python3), of GPTQ there as well
  bench stream [--blocks N] [--length N] [--max-mib N] ...
                peak memory of learning on a model of 8B with made-up weights, against the announcement
  test [ARGS]   all tests and doc tests; ARGS go to `cargo test`
  backends [BACKEND] [ARGS]
                compiles the test suites with a backend besides the CPU (wgpu), and runs them where this
                machine has a device for it; ARGS go to `cargo test`
  tidy          borders between crates, documents and sources
  validate      the whole gate: format, tidy, clippy, tests, docs
  env           print what a build elsewhere needs, for `eval \"$(cargo xtask env)\"`

GAMMA_HIGHS=system|wheel|source takes HiGHS from there and from nowhere else.";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let workspace = Workspace::locate()?;
    let Some((command, rest)) = args.split_first() else {
        bail!("no command\n{USAGE}");
    };
    match command.as_str() {
        "demo" => demo::run(&workspace, rest),
        "bench" => bench::run(&workspace, rest),
        "backends" => backends::check(&workspace, rest),
        "test" => gate::test(&workspace, rest),
        "tidy" => tidy::run(&workspace),
        "validate" => gate::validate(&workspace),
        "env" => highs::print_exports(&workspace),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        unknown => bail!("unknown command `{unknown}`\n{USAGE}"),
    }
}
