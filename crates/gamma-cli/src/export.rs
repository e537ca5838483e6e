//! `gamma export`: plans as the files of engines.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use gamma::{
    Budget, Builder, Calibration, Gamma, GgmlType, ModuleName, Plan, Recipe, Target, WrittenFile,
    export::{GgufExport, IntegerExport},
    write_atomically,
};

use crate::{
    apply::carried_out,
    args::{DeviceArgs, TextArgs},
    hub,
    quantizer::{self, Method},
    watch::{self, Watch},
};

#[derive(Debug, Args)]
#[group(id = "product", required = true, multiple = false, args = ["target", "recipe"])]
pub struct ExportArgs {
    /// A plan file; none for a GGUF file of the checkpoint as it is, which `llama-quantize` takes
    plan: Option<PathBuf>,
    /// The checkpoint that the plan was made for
    #[arg(long, value_name = "DIR", required_unless_present = "recipe")]
    model: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// What to write: `gguf` (a file for llama.cpp, candle, mistral.rs), `compressed-tensors`
    /// (transformers, vLLM), `auto-round` or `gptq` (transformers or `GPTQModel`, vLLM), `mlx`
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
    /// Instead, the settings for a tool that quantizes by itself: llama-quantize, gptqmodel,
    /// llm-compressor, auto-round, model-optimizer, mistral.rs, mlx, exllamav3. Needs no model
    #[arg(long, value_name = "TOOL")]
    recipe: Option<Recipe>,
    /// The file, or for integers the folder
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Store a matrix outside of the plan in this type of ggml, such as
    /// `model.embed_tokens=q8_0`, instead of what the plan says; GGUF only, repeatable
    #[arg(long, value_name = "MODULE=TYPE", value_parser = kept)]
    keep: Vec<Kept>,
    /// Also write the importance matrix of the calibration text, for `llama-quantize --imatrix`
    #[arg(long, value_name = "FILE", requires = "model")]
    imatrix: Option<PathBuf>,
    /// Allow different formats in modules that vLLM joins, for folders that only transformers loads
    #[arg(long)]
    untied: bool,
    /// How weights are quantized, in the formats of the plan [default: as the plan was learned]
    #[arg(long, value_enum)]
    quantizer: Option<Method>,
    #[command(flatten)]
    text: TextArgs,
    /// Replace an existing file or folder
    #[arg(long)]
    overwrite: bool,
}

/// A module and the type that it is stored in.
pub type Kept = (ModuleName, GgmlType);

/// Reads `MODULE=TYPE`.
pub fn kept(text: &str) -> Result<Kept, String> {
    let (module, kind) = text.split_once('=').ok_or("expected MODULE=TYPE, such as lm_head=q6_K")?;
    let kind: GgmlType = kind.parse().map_err(|error: gamma::ggml::UnknownType| error.to_string())?;
    let module = module.strip_suffix(".weight").unwrap_or(module);
    Ok((ModuleName::new(module), kind))
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    if !args.overwrite && args.out.exists() {
        bail!("`{}` exists: choose another path, or give `--overwrite`", args.out.display());
    }
    let mut watch = Watch::new()?;
    let plan = args.plan.as_ref().map(Plan::load).transpose()?;
    match (args.target, args.recipe, &args.model, &plan) {
        (_, Some(recipe), _, Some(plan)) => write_recipe(args, recipe, plan)?,
        (Some(target), None, Some(model), Some(plan)) => write_files(args, target, model, plan, &mut watch)?,
        (Some(Target::Gguf), None, Some(model), None) => {
            let run = builder(args, hub::resolve(model)?)?.calibration(Calibration::none()).build()?;
            let report = run.unquantized_gguf(&args.out, args.overwrite)?;
            note!("wrote {} ({} bytes)", args.out.display(), report.file_bytes);
        }
        _ => bail!("give a plan; without one there is only `--target gguf`, of the checkpoint as it is"),
    }
    if let (Some(path), Some(model)) = (&args.imatrix, &args.model) {
        let Some(calibration) = args.text.calibration() else {
            bail!("an importance matrix is measured on text: `--calibration FILE`");
        };
        let run = builder(args, hub::resolve(model)?)?.calibration(calibration).build()?;
        run.imatrix(path, &mut watch)?;
        watch.finish();
        note!("wrote {}", path.display());
    }
    Ok(())
}

/// A builder for `model` on the device that was asked for.
fn builder(args: &ExportArgs, folder: PathBuf) -> anyhow::Result<Builder> {
    Ok(Gamma::builder().model(folder).device(args.device.open()?))
}

fn write_recipe(args: &ExportArgs, recipe: Recipe, plan: &Plan) -> anyhow::Result<()> {
    let head = ModuleName::new("lm_head");
    let mut left = plan.excluded().to_vec();
    if plan.choice(&head).is_none() && !left.contains(&head) {
        left.push(head);
    }
    let text = recipe.text(plan, &left).with_context(|| refused(args, &recipe.to_string()))?;
    write_atomically(&args.out, text.as_bytes())?;
    note!("wrote {} for {recipe}", args.out.display());
    Ok(())
}

fn write_files(
    args: &ExportArgs,
    target: Target,
    model: &str,
    plan: &Plan,
    watch: &mut Watch,
) -> anyhow::Result<()> {
    let mut kept: BTreeMap<ModuleName, GgmlType> = plan.kept();
    kept.extend(args.keep.iter().cloned());
    if target != Target::Gguf && !args.keep.is_empty() {
        bail!("`--keep` names types of ggml, which only `--target gguf` holds");
    }
    let folder = hub::resolve(model)?;
    let promised = if let Target::Integers(layout) = target {
        IntegerExport::new(layout, &folder, plan).untied(args.untied).tensor_bytes()
    } else {
        let export = GgufExport::new(&folder, plan);
        let export = kept.iter().fold(export, |export, (module, &kind)| export.keep_as(module, kind));
        export.outline().map(|outline| outline.file_bytes())
    };
    let promised = promised.with_context(|| refused(args, &target.to_string()))?;
    watch::writable(args.out.parent())?;

    let calibration = args.text.calibration().unwrap_or_else(Calibration::none);
    let run = quantizer::for_plan(builder(args, folder)?, args.quantizer, plan)?
        .calibration(calibration)
        .build()?;
    watch::introduce(&run);
    if let (Target::Gguf, Some(Budget::Gguf(budget))) = (target, plan.budget()) {
        let bytes = run.gguf_bytes(plan, &kept)?;
        let planned = plan.gguf_bytes().unwrap_or(bytes);
        if bytes > budget {
            bail!(
                "the file would be {bytes} bytes, of {planned} that were planned and {budget} allowed: `--keep` and \
                 the name of the model's folder must be what they were"
            );
        }
    }
    let applied = carried_out(&run, plan, watch)?;
    let files = if let Target::Integers(layout) = target {
        note!("{promised} bytes of tensors, besides the headers of the files");
        applied.integers(layout, &args.out, args.untied, args.overwrite)?
    } else {
        let report = applied.gguf(&args.out, &kept, args.overwrite)?;
        vec![WrittenFile { name: String::new(), bytes: report.file_bytes }]
    };
    for file in files {
        let path = if file.name.is_empty() { args.out.clone() } else { args.out.join(&file.name) };
        note!("wrote {} ({} bytes)", path.display(), file.bytes);
    }
    note!("read again: sizes, bytes and decoded weights are as planned");
    Ok(())
}

/// What to say before the reason.
fn refused(args: &ExportArgs, what: &str) -> String {
    let plan = args.plan.as_ref().map_or_else(String::new, |plan| format!("`{}`", plan.display()));
    format!(
        "{plan} cannot become {what}, and nothing was quantized; `gamma project --engine ENGINE` makes plans that an \
         engine can load"
    )
}
