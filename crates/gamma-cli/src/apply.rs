//! `gamma apply`.

use std::fs;

use anyhow::bail;
use gamma::{Applied, Calibration, Plan, Precision, Run};

use crate::{
    args::ApplyArgs,
    quantizer::{self, Method},
    watch::Watch,
};

pub fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    if !args.overwrite && fs::read_dir(&args.out).is_ok_and(|mut files| files.next().is_some()) {
        bail!("`{}` is not empty: choose another folder, or give `--overwrite`", args.out.display());
    }
    let mut watch = Watch::new()?;
    let plan = Plan::load(&args.plan)?;
    let builder = quantizer::for_plan(args.model.builder()?, args.quantizer, &plan)?;
    let calibration = args.text.calibration().unwrap_or_else(Calibration::none);
    let run = builder.calibration(calibration).build()?;
    let applied = carried_out(&run, &plan, &mut watch)?;
    let precision = if args.source_type { Precision::Source } else { Precision::F32 };
    for file in applied.write(&args.out, precision, args.overwrite)? {
        note!("wrote {} ({} bytes)", args.out.join(&file.name).display(), file.bytes);
    }
    Ok(())
}

/// Quantizes as `plan` says, and tells how this differs from what the plan was learned with.
pub fn carried_out<'a>(run: &'a Run, plan: &Plan, watch: &mut Watch) -> anyhow::Result<Applied<'a>> {
    let learned = &plan.provenance().quantizer;
    if Method::of_description(learned) != Method::of_description(&run.quantizer()) {
        note!("the plan was learned with `{learned}`, this is `{}`", run.quantizer());
    }
    let applied = match run.apply_watched(plan, watch) {
        Err(gamma::Error::Missing { setting: "calibration", .. }) => {
            let quantizer = run.quantizer();
            bail!("`{quantizer}` looks at data: give `--calibration` as it was given to learn");
        }
        applied => applied?,
    };
    watch.finish();
    if applied.other_calibration() {
        note!(
            "the plan was learned with other data: give --calibration, --sequences, --length and --seed as then"
        );
    }
    Ok(applied)
}
