//! Folders with integer codes: every tensor decoded again from its definition.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

mod fixture;

use std::{collections::BTreeMap, path::Path};

use fixture::{Weights, folder, list, plan, read, shards, values};
use gamma_core::{BitWidth, GroupSize, ModuleName, Plan};
use gamma_export::{ExportError, IntegerExport, IntegerLayout};
use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const LAYOUTS: [IntegerLayout; 4] =
    [IntegerLayout::CompressedTensors, IntegerLayout::AutoRound, IntegerLayout::Gptq, IntegerLayout::Mlx];

/// Every projection of fable, tied as engines join them.
fn quantize(layout: IntegerLayout) -> (Plan, Weights) {
    let source = folder("fixtures/fable");
    let bytes = read(&source.join("model.safetensors"));
    let mut weights = Weights::new();
    for (tensor, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let Some(module) = tensor.strip_suffix(".weight").filter(|name| name.ends_with("_proj")) else {
            continue;
        };
        let name = ModuleName::new(module);
        let joined = match name.role() {
            "q_proj" | "k_proj" | "v_proj" => 0,
            "gate_proj" | "up_proj" => 1,
            "o_proj" => 2,
            _ => 3,
        };
        let turn = 4 * name.block().unwrap() + joined;
        let widths: &[u8] = match layout {
            IntegerLayout::AutoRound | IntegerLayout::Gptq => &[2, 3, 4, 8],
            IntegerLayout::Mlx => &[2, 3, 4, 5, 6, 8],
            _ => &[2, 3, 4, 5, 6, 7, 8],
        };
        let width = BitWidth::new(widths[turn % widths.len()]).unwrap();
        let group = GroupSize::new([32, 64][turn % 2]).unwrap();
        let zero_points = layout == IntegerLayout::Mlx && turn.is_multiple_of(3);
        let rtn = if zero_points { Rtn::asymmetric(group) } else { Rtn::symmetric(group) };
        let matrix = values(&view);
        let view = WeightView::new(&name, matrix.view()).unwrap();
        weights.insert(name.clone(), rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap());
    }
    (plan(&weights), weights)
}

/// Code `i` of a stream, from the definition.
fn code(stream: &[u32], i: usize, bits: usize) -> u32 {
    (0..bits)
        .map(|t| i * bits + t)
        .enumerate()
        .fold(0, |code, (t, p)| code | (stream[p / 32] >> (p % 32) & 1) << t)
}

struct Folder(Vec<Vec<u8>>);

impl Folder {
    fn open(folder: &Path) -> Self {
        Self(shards(folder).iter().map(|shard| read(&folder.join(shard))).collect())
    }

    fn find<T>(&self, name: &str, read: impl Fn(safetensors::tensor::TensorView<'_>) -> T) -> Option<T> {
        self.0.iter().find_map(|bytes| SafeTensors::deserialize(bytes).unwrap().tensor(name).ok().map(&read))
    }

    fn words(&self, name: &str, shape: &[usize]) -> Vec<u32> {
        let read = |tensor: safetensors::tensor::TensorView<'_>| {
            assert!(matches!(tensor.dtype(), Dtype::I32 | Dtype::U32), "{name}");
            assert_eq!(tensor.shape(), shape, "{name}");
            tensor.data().as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
        };
        self.find(name, read).unwrap_or_else(|| panic!("no {name}"))
    }

    fn halves(&self, name: &str) -> Vec<f32> {
        let read = |tensor: safetensors::tensor::TensorView<'_>| {
            assert_eq!(tensor.dtype(), Dtype::F16, "{name}");
            tensor.data().as_chunks().0.iter().map(|&half| f16::from_le_bytes(half).to_f32()).collect()
        };
        self.find(name, read).unwrap_or_else(|| panic!("no {name}"))
    }
}

/// The weights of a module from the bytes of its layout.
fn decode(
    found: &Folder,
    layout: IntegerLayout,
    module: &str,
    bits: usize,
    group: usize,
    shape: [usize; 2],
) -> Vec<f32> {
    let [rows, columns] = shape;
    let (groups, middle) = (columns / group, (1 << (bits - 1)) as f32);
    let words = |count: usize| (count * bits).div_ceil(32);
    let part = |name: &str| format!("{module}.{name}");
    let all = |weight: &dyn Fn(usize, usize) -> f32| {
        (0..rows * columns).map(|at| weight(at / columns, at % columns)).collect()
    };
    match layout {
        IntegerLayout::CompressedTensors => {
            let codes = found.words(&part("weight_packed"), &[rows, words(columns)]);
            let scales = found.halves(&part("weight_scale"));
            let stored = found.find(&part("weight_shape"), |tensor| tensor.data().to_vec()).unwrap();
            assert_eq!(stored, [rows as u64, columns as u64].map(u64::to_le_bytes).concat());
            all(&|row, column| {
                let stream = &codes[row * words(columns)..][..words(columns)];
                (code(stream, column, bits) as f32 - middle) * scales[row * groups + column / group]
            })
        }
        IntegerLayout::AutoRound | IntegerLayout::Gptq => {
            let codes = found.words(&part("qweight"), &[words(columns), rows]);
            let zeros = found.words(&part("qzeros"), &[groups, words(rows)]);
            let scales = found.halves(&part("scales"));
            all(&|row, column| {
                let stream: Vec<u32> = (0..words(columns)).map(|word| codes[word * rows + row]).collect();
                let zero = code(&zeros[column / group * words(rows)..][..words(rows)], row, bits) + 1;
                (code(&stream, column, bits) as f32 - zero as f32) * scales[column / group * rows + row]
            })
        }
        _ => {
            let codes = found.words(&part("weight"), &[rows, words(columns)]);
            let (scales, biases) = (found.halves(&part("scales")), found.halves(&part("biases")));
            all(&|row, column| {
                let (stream, at) =
                    (&codes[row * words(columns)..][..words(columns)], row * groups + column / group);
                code(stream, column, bits) as f32 * scales[at] + biases[at]
            })
        }
    }
}

#[test]
fn every_layout_holds_the_planned_weights_and_everything_else_as_it_was() {
    let source = folder("fixtures/fable");
    for layout in LAYOUTS {
        let (plan, weights) = quantize(layout);
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("out");
        let export = IntegerExport::new(layout, &source, &plan).file("plan.txt", "a plan");
        let promised = export.tensor_bytes().unwrap();
        export.write(&target, &weights).unwrap();
        let found = Folder::open(&target);
        for (name, weight) in &weights {
            let int = weight.as_int().unwrap();
            let (bits, group) = (usize::from(int.bits().bits()), int.group().get());
            let decoded = decode(&found, layout, name.as_str(), bits, group, weight.shape());
            let expected = weight.dequantize();
            let largest = expected.iter().fold(0.0, |largest: f32, w| largest.max(w.abs()));
            // Only MLX rounds, and only what is no power of two times a scale.
            let tolerance =
                if layout == IntegerLayout::Mlx && int.zeros().is_some() { 4e-4 * largest } else { 0.0 };
            let worst = decoded.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance, "{layout:?} {name}: {worst:e}");
        }
        let original = read(&source.join("model.safetensors"));
        for (name, tensor) in SafeTensors::deserialize(&original).unwrap().tensors() {
            let planned =
                name.strip_suffix(".weight").is_some_and(|m| weights.contains_key(&ModuleName::new(m)));
            let copy = found.find(&name, |copy| copy.data().to_vec());
            if !planned {
                assert_eq!(copy.as_deref(), Some(tensor.data()), "{layout:?} {name}");
            } else if layout != IntegerLayout::Mlx {
                assert_eq!(copy, None, "{layout:?} {name}");
            }
        }
        let total: usize = found
            .0
            .iter()
            .map(|bytes| {
                SafeTensors::deserialize(bytes)
                    .unwrap()
                    .tensors()
                    .iter()
                    .map(|(_, t)| t.data().len())
                    .sum::<usize>()
            })
            .sum();
        assert_eq!(total as u64, promised, "{layout:?}");
        assert!(list(&target).contains(&"tokenizer.json".to_owned()));
        assert_eq!(read(&target.join("plan.txt")), b"a plan");
    }
}

fn config(target: &Path) -> Value {
    serde_json::from_slice(&read(&target.join("config.json"))).unwrap()
}

#[test]
fn configurations_name_every_module_exactly_once() {
    let source = folder("fixtures/fable");
    let before: Value = serde_json::from_slice(&read(&source.join("config.json"))).unwrap();
    for layout in LAYOUTS {
        let (plan, mut weights) = quantize(layout);
        // One module that stays as it is.
        let left = ModuleName::new("model.layers.4.mlp.down_proj");
        weights.remove(&left);
        assert_ne!(plan.choices().len(), weights.len());
        let plan = fixture::plan(&weights);
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("out");
        IntegerExport::new(layout, &source, &plan).write(&target, &weights).unwrap();
        let after = config(&target);
        for (key, value) in before.as_object().unwrap() {
            assert_eq!(&after[key], value, "{layout:?} {key}");
        }
        let described = &after["quantization_config"];
        let mut named: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let numbers = |entry: &Value, bits: &str| {
            (entry[bits].as_u64().unwrap(), entry["group_size"].as_u64().unwrap())
        };
        match layout {
            IntegerLayout::CompressedTensors => {
                for group in described["config_groups"].as_object().unwrap().values() {
                    for target in group["targets"].as_array().unwrap() {
                        let pair = numbers(&group["weights"], "num_bits");
                        let twice = named.insert(target.as_str().unwrap().to_owned(), pair);
                        assert_eq!(twice, None, "{target}");
                    }
                }
                assert_eq!(described["ignore"], serde_json::json!(["lm_head", left.as_str()]));
            }
            IntegerLayout::AutoRound => {
                let extra = described["extra_config"].as_object().unwrap();
                assert_eq!(extra[left.as_str()]["bits"], 16);
                assert_eq!(extra["lm_head"]["bits"], 16);
                let quantized = extra.iter().filter(|(_, entry)| entry["bits"] != 16);
                named.extend(quantized.map(|(name, entry)| (name.clone(), numbers(entry, "bits"))));
            }
            IntegerLayout::Gptq => {
                assert_eq!(described["checkpoint_format"], "gptq");
                let own: Value = serde_json::from_slice(&read(&target.join("quantize_config.json"))).unwrap();
                assert_eq!(&own, described);
                let rules = described["dynamic"].as_object().unwrap();
                let rule =
                    |sign: char, name: &str| rules.get(&format!("{sign}:^{}$", name.replace('.', "\\.")));
                for name in [left.as_str(), "lm_head"] {
                    assert_eq!(rule('-', name), Some(&serde_json::json!({})), "{name}");
                }
                for (name, weight) in &weights {
                    let usual = numbers(described, "bits");
                    let own = rule('+', name.as_str()).map(|rule| numbers(rule, "bits"));
                    assert_ne!(own, Some(usual), "{name}");
                    named.insert(name.to_string(), own.unwrap_or(usual));
                    // What vLLM joins is asked for by its own name as well.
                    let joined = match name.role() {
                        "q_proj" => name.as_str().replace("q_proj", "qkv_proj"),
                        "up_proj" => name.as_str().replace("up_proj", "gate_up_proj"),
                        _ => continue,
                    };
                    assert_eq!(rule('+', &joined), rule('+', name.as_str()), "{joined} {}", weight.format());
                }
            }
            _ => {
                assert_eq!(&after["quantization"], described);
                let entries = described.as_object().unwrap().iter().filter(|(_, entry)| entry.is_object());
                named.extend(entries.map(|(name, entry)| (name.clone(), numbers(entry, "bits"))));
            }
        }
        let expected: BTreeMap<String, (u64, u64)> = weights
            .iter()
            .map(|(name, weight)| {
                let int = weight.as_int().unwrap();
                (name.to_string(), (int.bits().bits().into(), int.group().get() as u64))
            })
            .collect();
        assert_eq!(named, expected, "{layout:?}");
    }
}

#[test]
fn formats_and_ties_that_an_engine_does_not_serve_are_refused_beforehand() {
    let source = folder("fixtures/fable");
    let module = |block: usize, role: &str| ModuleName::new(format!("model.layers.{block}.{role}"));
    let refused = |layout, change: &dyn Fn(&mut Weights)| {
        let (_, mut weights) = quantize(layout);
        change(&mut weights);
        let plan = fixture::plan(&weights);
        IntegerExport::new(layout, &source, &plan).tensor_bytes().unwrap_err()
    };
    let again = |weights: &mut Weights, name: ModuleName, rtn: Rtn, width: BitWidth| {
        let matrix = weights[&name].dequantize();
        let view = WeightView::new(&name, matrix.view()).unwrap();
        let weight = rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap();
        weights.insert(name, weight);
    };
    let group = |size| GroupSize::new(size).unwrap();
    let down = module(3, "mlp.down_proj");
    for (layout, rtn, width) in [
        (IntegerLayout::CompressedTensors, Rtn::asymmetric(group(64)), BitWidth::B4),
        (IntegerLayout::CompressedTensors, Rtn::symmetric(group(128)), BitWidth::B4),
        (IntegerLayout::AutoRound, Rtn::symmetric(group(64)), BitWidth::B5),
        (IntegerLayout::Gptq, Rtn::symmetric(group(64)), BitWidth::B6),
        (IntegerLayout::Mlx, Rtn::symmetric(group(64)), BitWidth::new(7).unwrap()),
        (IntegerLayout::Mlx, Rtn::symmetric(group(16)), BitWidth::B4),
    ] {
        let error = refused(layout, &|weights| again(weights, down.clone(), rtn, width));
        let named = matches!(&error, ExportError::Unserved { modules, .. }
            if modules.len() == 1 && modules[0].module == down);
        assert!(named, "{layout:?}: {error}");
    }
    let format = Rtn::symmetric(group(32)).formats(BitWidth::B8).remove(0);
    for (shape, fits) in [([64, 96], true), ([172, 64], false), ([64, 172], false)] {
        assert_eq!(IntegerLayout::AutoRound.fits(&format, shape), fits, "{shape:?}");
    }
    for layout in [IntegerLayout::CompressedTensors, IntegerLayout::AutoRound, IntegerLayout::Gptq] {
        let (other, missing) = (module(2, "self_attn.k_proj"), module(1, "mlp.up_proj"));
        let error = refused(layout, &|weights| {
            again(weights, other.clone(), Rtn::symmetric(group(16)), BitWidth::B8);
        });
        for word in ["model.layers.2.self_attn", "k_proj", "int8:g16:sym:f16"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = refused(layout, &|weights| drop(weights.remove(&missing)));
        for word in ["model.layers.1.mlp", "`up_proj` not planned"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        let (_, mut weights) = quantize(layout);
        weights.remove(&missing);
        let plan = fixture::plan(&weights);
        assert!(IntegerExport::new(layout, &source, &plan).untied(true).tensor_bytes().is_ok());
    }
}

#[test]
fn shards_stay_shards_with_an_index_of_the_new_tensors() {
    let source = folder("golden/llama3-random");
    let mut weights = Weights::new();
    for shard in shards(&source) {
        let bytes = read(&source.join(shard));
        for (tensor, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let Some(module) = tensor.strip_suffix(".weight").filter(|name| name.ends_with("_proj")) else {
                continue;
            };
            let name = ModuleName::new(module);
            let matrix = values(&view);
            let rtn = Rtn::symmetric(GroupSize::new(16).unwrap());
            let view = WeightView::new(&name, matrix.view()).unwrap();
            weights.insert(
                name.clone(),
                rtn.quantize_at(&view, &CalibrationStats::default(), BitWidth::B3).unwrap(),
            );
        }
    }
    let plan = fixture::plan(&weights);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    let export = IntegerExport::new(IntegerLayout::CompressedTensors, &source, &plan);
    export.write(&target, &weights).unwrap();
    let index: Value = serde_json::from_slice(&read(&target.join("model.safetensors.index.json"))).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(index["metadata"]["total_size"], export.tensor_bytes().unwrap());
    let mut count = 0;
    for shard in shards(&target) {
        for name in SafeTensors::deserialize(&read(&target.join(&shard))).unwrap().names() {
            assert_eq!(map[name], Value::from(shard.as_str()), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, map.len());
    assert!(!map.contains_key("model.layers.0.mlp.up_proj.weight"));
    // What was written is no source for another export.
    let again = IntegerExport::new(IntegerLayout::CompressedTensors, &target, &plan).tensor_bytes();
    assert!(matches!(again, Err(ExportError::UnknownTensor { .. })), "{again:?}");
}
