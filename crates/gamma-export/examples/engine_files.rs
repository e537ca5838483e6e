//! Writes one model in every layout that an engine reads, for the scripts in `tests/engines`.
//!
//! ```sh
//! cargo run --release -p gamma-export --example engine_files -- MODEL_FOLDER OUT_FOLDER
//! ```
//!
//! Modules get formats in turn, so that every file mixes widths. Beside each file lies a folder with
//! the weights that it stands for, as `transformers` loads them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, Plan, ScoreTable, ScoredOption};
use gamma_export::{
    Export, GgufExport, GgufRecode, IntegerExport, IntegerLayout, Precision, tensor_type_file,
};
use gamma_ggml::{Ggml, GgmlType};
use gamma_quant::{CalibrationStats, QuantizedWeight, Quantizer, Rtn, WeightView};
use half::{bf16, f16};
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};

type Matrices = BTreeMap<ModuleName, Array2<f32>>;
type Weights = BTreeMap<ModuleName, QuantizedWeight>;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, out] = arguments.as_slice() else { bail!("usage: engine_files MODEL_FOLDER OUT_FOLDER") };
    let projections = projections(model)?;
    gguf(model, &out.join("gguf"), &projections)?;
    for (name, layout) in [
        ("compressed-tensors", IntegerLayout::CompressedTensors),
        ("auto-round", IntegerLayout::AutoRound),
        ("mlx", IntegerLayout::Mlx),
    ] {
        integers(model, &out.join(name), layout, &projections)?;
    }
    Ok(())
}

/// Every linear module of the decoder blocks.
fn projections(folder: &Path) -> Result<Matrices> {
    let mut found = Matrices::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(&path)?;
        for (name, tensor) in SafeTensors::deserialize(&bytes)?.tensors() {
            let Some(module) = name.strip_suffix("_proj.weight") else { continue };
            let data = tensor.data();
            let values = match tensor.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
                Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
                Dtype::BF16 => data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
                other => bail!("{name} is of type {other}"),
            };
            let shape: [usize; 2] = tensor.shape().try_into()?;
            found.insert(ModuleName::new(format!("{module}_proj")), Array2::from_shape_vec(shape, values)?);
        }
    }
    Ok(found)
}

fn quantize(
    projections: &Matrices,
    quantizer: impl Fn(&ModuleName, [usize; 2]) -> Result<Option<(Box<dyn Quantizer>, Format)>>,
) -> Result<(Plan, Weights)> {
    let mut weights = Weights::new();
    for (name, matrix) in projections {
        let view = WeightView::new(name, matrix.view())?;
        // What nothing fits stays as it is.
        let Some((quantizer, format)) = quantizer(name, view.shape())? else { continue };
        weights.insert(name.clone(), quantizer.quantize(&view, &CalibrationStats::default(), &format)?);
    }
    let module = |(name, weight): (&ModuleName, &QuantizedWeight)| ModuleScores {
        name: name.clone(),
        shape: weight.shape(),
        options: vec![ScoredOption::new(weight.format(), weight.stored_bits(), 0.0)],
    };
    let table = ScoreTable::new(weights.iter().map(module).collect())?;
    Ok((Plan::from_picks(&table, &vec![0; weights.len()], None)?, weights))
}

/// Types that take turns.
const MIXED: [GgmlType; 8] = [
    GgmlType::Q4K,
    GgmlType::Q6K,
    GgmlType::Q5_0,
    GgmlType::Q8_0,
    GgmlType::Q5K,
    GgmlType::Q3K,
    GgmlType::Q4_0,
    GgmlType::Q2K,
];

fn gguf(model: &Path, out: &Path, projections: &Matrices) -> Result<()> {
    let ggml = Ggml::with_small_blocks();
    let choose = |kinds: &'static [GgmlType]| {
        let (ggml, place) = (ggml.clone(), std::cell::Cell::new(0));
        move |_: &ModuleName, shape: [usize; 2]| {
            place.set(place.get() + 1);
            let in_turn = (0..kinds.len()).map(|i| kinds[(i + place.get()) % kinds.len()]);
            let format = in_turn.filter_map(GgmlType::format).find(|format| ggml.fits(format, shape));
            Ok(format.map(|format| (Box::new(ggml.clone()) as Box<dyn Quantizer>, format)))
        }
    };
    let head = ModuleName::new("model.embed_tokens");
    for (name, kinds) in [("mixed", &MIXED[..]), ("eight", &MIXED[3..4])] {
        let (plan, weights) = quantize(projections, choose(kinds))?;
        let export = GgufExport::new(model, &plan).provenance("made_by", "engine_files").overwrite(true);
        let (promised, report) =
            (export.outline()?, export.write(&out.join(format!("{name}.gguf")), &weights)?);
        assert_eq!(promised.file_bytes(), report.file_bytes, "the size is known beforehand");
        Export::new(&plan)
            .dequantized(model, Precision::F32)
            .overwrite(true)
            .write(&out.join(format!("{name}-weights")), &weights)?;
        let types = tensor_type_file(&plan, &BTreeMap::from([(head.clone(), GgmlType::F16)]))?;
        fs::write(out.join(format!("{name}-types.txt")), types)?;
    }
    let eight = out.join("eight.gguf");
    let recode = GgufRecode::open(&eight)?.tensor("token_embd.weight", GgmlType::Q8_0)?;
    recode.overwrite(true).write(&out.join("recoded.gguf"))?;
    Ok(())
}

fn integers(model: &Path, out: &Path, layout: IntegerLayout, projections: &Matrices) -> Result<()> {
    let choose = |name: &ModuleName, shape: [usize; 2]| {
        // What vLLM joins gets one format: the number counts blocks and joined matrices.
        let joined = match name.role() {
            "q_proj" | "k_proj" | "v_proj" => 0,
            "o_proj" => 1,
            "down_proj" => 3,
            _ => 2,
        };
        let turn = name.block().unwrap_or(0) * 4 + joined;
        for i in 0..18 {
            let bits = [4, 8, 3, 2, 6, 5][(turn + i) % 6];
            let group = [32, 64, 128][(turn + i / 6) % 3];
            let width = BitWidth::new(bits).context("a width")?;
            let rtn = Rtn::symmetric(GroupSize::new(group)?);
            let format = rtn.formats(width).remove(0);
            // The narrower matrices of a joined one have fewer rows; what fits these fits all.
            let narrow = [shape[0].min(64), shape[1]];
            if layout.fits(&format, shape) && layout.fits(&format, narrow) {
                return Ok(Some((Box::new(rtn) as Box<dyn Quantizer>, format)));
            }
        }
        Ok(None)
    };
    let (plan, weights) = quantize(projections, choose)?;
    let export = IntegerExport::new(layout, model, &plan).overwrite(true);
    export.tensor_bytes()?;
    export.write(out, &weights)?;
    let decoded = out.with_file_name(format!("{}-weights", out.file_name().unwrap_or_default().display()));
    Export::new(&plan).dequantized(model, Precision::F32).overwrite(true).write(&decoded, &weights)?;
    Ok(())
}
