//! The shipped model, recoded while candle loads it, against the same tensors in a file.

use std::{borrow::Cow, collections::BTreeMap, fs::File, io::Cursor, path::Path};

use candle_core::quantized::gguf_file::Content;
use candle_load::{Model, Recoder};
use gamma_core::{ModuleName, ModuleScores, Plan, ScoreTable, ScoredOption};
use gamma_export::{GgufExport, gguf_tensor_name};
use gamma_ggml::{GgmlType, Gguf, Outline, TensorInfo};
use gamma_quant::QuantizedWeight;

/// Types in turn, for every module of `file` whose rows their blocks divide.
fn plan(file: &Gguf) -> Plan {
    let kinds = [GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::Q5_0];
    let roles = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|role| format!("self_attn.{role}"));
    let roles =
        roles.into_iter().chain(["gate_proj", "up_proj", "down_proj"].map(|role| format!("mlp.{role}")));
    let names = (0..6).flat_map(|block| {
        roles.clone().map(move |role| ModuleName::new(format!("model.layers.{block}.{role}")))
    });
    let modules = names.zip(kinds.into_iter().cycle()).map(|(name, kind)| {
        let tensor = file.tensor(&gguf_tensor_name(&name.weight()).unwrap()).unwrap();
        let shape = tensor.matrix().unwrap();
        let bits = 8 * kind.bytes(shape).unwrap();
        ModuleScores { name, shape, options: vec![ScoredOption::new(kind.format().unwrap(), bits, 0.0)] }
    });
    let table = ScoreTable::new(modules.collect()).unwrap();
    Plan::from_picks(&table, &vec![0; table.modules().len()], None).unwrap()
}

/// The file of the plan, all at once.
fn whole(source: &Gguf, plan: &Plan) -> Vec<u8> {
    let planned: BTreeMap<String, GgmlType> = plan
        .choices()
        .iter()
        .map(|c| (gguf_tensor_name(&c.name.weight()).unwrap(), GgmlType::from_format(&c.format).unwrap()))
        .collect();
    let kind = |tensor: &TensorInfo| planned.get(&tensor.name).copied().unwrap_or(tensor.kind);
    let tensors = source.tensors().iter().map(|tensor| TensorInfo { kind: kind(tensor), ..tensor.clone() });
    let outline = Outline::new(source.metadata().clone(), tensors.collect()).unwrap();
    let bytes = |tensor: &TensorInfo| {
        let (from, bytes) = (source.tensor(&tensor.name).unwrap().kind, source.bytes(&tensor.name).unwrap());
        if from == tensor.kind {
            return Cow::Borrowed(bytes);
        }
        let mut values = vec![0.0; bytes.len() / from.block_bytes()];
        from.decode(bytes, &mut values).unwrap();
        let mut blocks = vec![0; tensor.bytes().unwrap() as usize];
        tensor.kind.encode(&values, None, &mut blocks).unwrap();
        Cow::Owned(blocks)
    };
    outline.to_bytes(bytes).unwrap()
}

#[test]
fn a_recoded_model_computes_what_the_file_of_the_plan_does() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    let fable = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable");
    GgufExport::unquantized(fable).write(&path, &BTreeMap::<ModuleName, QuantizedWeight>::new()).unwrap();
    let source = Gguf::open(&path).unwrap();
    let plan = plan(&source);

    let content = Content::read(&mut File::open(&path).unwrap()).unwrap();
    let (mut tensors, content) = Recoder::new(&source, content, &plan, None).unwrap();
    let mut recoded = Model::load(content, &mut tensors).unwrap();
    let mut file = Cursor::new(whole(&source, &plan));
    let mut expected = Model::load(Content::read(&mut file).unwrap(), &mut file).unwrap();
    let mut full = File::open(&path).unwrap();
    let mut full = Model::load(Content::read(&mut full).unwrap(), &mut full).unwrap();

    let text = [5, 300, 41, 77, 200, 12];
    let logits = expected.read(&text, 0).unwrap();
    assert_eq!(recoded.read(&text, 0).unwrap(), logits);
    assert_ne!(full.read(&text, 0).unwrap(), logits);
    // One by one, with keys and values kept, and a new text after it.
    for (at, token) in text.iter().enumerate() {
        recoded.read(&[*token], at).unwrap();
    }
    assert_eq!(recoded.read(&text, 0).unwrap(), logits);
}

#[test]
fn plans_of_other_models_are_refused_by_module() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    let fable = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable");
    GgufExport::unquantized(fable).write(&path, &BTreeMap::<ModuleName, QuantizedWeight>::new()).unwrap();
    let source = Gguf::open(&path).unwrap();
    let module = |name: &str, shape: [usize; 2]| {
        let format = GgmlType::Q8_0.format().unwrap();
        let options = vec![ScoredOption::new(format, 8 * GgmlType::Q8_0.bytes(shape).unwrap(), 0.0)];
        ScoreTable::new(vec![ModuleScores { name: ModuleName::new(name), shape, options }]).unwrap()
    };
    for (name, shape) in
        [("model.layers.9.mlp.up_proj", [192, 64]), ("model.layers.0.mlp.up_proj", [192, 128])]
    {
        let plan = Plan::from_picks(&module(name, shape), &[0], None).unwrap();
        let content = Content::read(&mut File::open(&path).unwrap()).unwrap();
        let error = Recoder::new(&source, content, &plan, None).err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
    }
}
