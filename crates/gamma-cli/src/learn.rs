//! `gamma learn`.

use crate::{
    args::LearnArgs,
    watch::{self, Watch},
};

pub fn learn(args: &LearnArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let run = args.learning.complete(args.model.builder()?)?.build()?;
    watch::introduce(&run);
    watch::writable(args.out.parent())?;
    let scores = run.learn(&mut watch)?;
    watch.finish();
    watch::warn_of_starved(&scores);
    scores.save(&args.out)?;
    note!("wrote {}", args.out.display());
    Ok(())
}
