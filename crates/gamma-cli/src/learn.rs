//! `gamma learn`.

use gamma::StateFile;

use crate::{
    args::LearnArgs,
    keeping,
    watch::{self, Watch},
};

pub fn learn(args: &LearnArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?, args.out.parent())?.build()?;
    watch::introduce(&run);
    if args.learning.dry_run {
        return watch::demand(&run);
    }
    watch::writable(args.out.parent())?;
    let state = args.keeping.beside(&args.out);
    let scores = match &args.extend {
        None => keeping::learn(&run, &state, &mut watch)?.scores,
        Some(earlier) => keeping::extend(&run, &StateFile::new(earlier), &state, &mut watch)?.scores,
    };
    watch::warn_of_starved(&scores);
    scores.save(&args.out)?;
    if !args.keep_state {
        state.remove()?;
    }
    if let (Some(peak), Ok(demand)) = (gamma::peak_memory(), run.demand()) {
        let mebibytes = |bytes: u64| bytes >> 20;
        note!("{} MiB of memory at the peak, {} announced", mebibytes(peak), mebibytes(demand.memory()));
    }
    note!("wrote {}", args.out.display());
    Ok(())
}
