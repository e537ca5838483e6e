//! `gamma apply`.

use anyhow::bail;
use gamma::{Format, Plan, Precision, Rtn, Symmetry};

use crate::{args::ApplyArgs, watch::Watch};

pub fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let mut watch = Watch::new()?;
    let plan = Plan::load(&args.plan)?;
    let run = args.model.builder()?.quantizer(quantizer(&plan)?).build()?;
    let applied = run.apply_watched(&plan, &mut watch)?;
    watch.finish();
    let precision = if args.source_type { Precision::Source } else { Precision::F32 };
    for file in applied.write(&args.out, precision, args.overwrite)? {
        eprintln!("wrote {} ({} bytes)", args.out.join(&file.name).display(), file.bytes);
    }
    Ok(())
}

/// The quantizer that makes the formats of `plan`: they say all there is to know about it.
fn quantizer(plan: &Plan) -> anyhow::Result<Rtn> {
    match plan.choices().first().map(|choice| &choice.format) {
        Some(&Format::Int { group, symmetry: Symmetry::Symmetric, .. }) => Ok(Rtn::symmetric(group)),
        Some(&Format::Int { group, symmetry: Symmetry::Asymmetric, .. }) => Ok(Rtn::asymmetric(group)),
        Some(other) => bail!("the plan uses `{other}`, which only its own quantizer can make"),
        None => bail!("the plan is empty"),
    }
}
