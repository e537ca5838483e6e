//! `gamma apply`.

use gamma::{Plan, Precision};

use crate::{args::ApplyArgs, watch::Watch};

pub fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let plan = Plan::load(&args.plan)?;
    let run = args.model.builder()?.build()?;
    let applied = run.apply_watched(&plan, &mut watch)?;
    watch.finish();
    let precision = if args.source_type { Precision::Source } else { Precision::F32 };
    for file in applied.write(&args.out, precision, args.overwrite)? {
        eprintln!("wrote {} ({} bytes)", args.out.join(&file.name).display(), file.bytes);
    }
    Ok(())
}
