//! Where exports may go, and what stays when they fail.

#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

mod fixture;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use fixture::{Weights, list, plan, read, tiny_checkpoint};
use gamma_core::{BitWidth, GroupSize, ModuleName, Plan};
use gamma_export::{Export, ExportError, Precision, write_atomically};
use gamma_quant::{IntWeight, QuantizedWeight};
use half::f16;

fn weights(names: &[&str]) -> (Plan, Weights) {
    let weight = |name: &&str| {
        let module = ModuleName::new(*name);
        let layout = (BitWidth::B4, GroupSize::G128);
        let weight = IntWeight::from_codes(&module, [1, 2], layout, &[1, 2], vec![f16::ONE], None).unwrap();
        (module, weight.into())
    };
    let weights: Weights = names.iter().map(weight).collect();
    (plan(&weights), weights)
}

#[test]
fn weights_that_contradict_the_plan_are_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    let (plan, given) = weights(&["a", "b"]);
    let refusal = |weights: &Weights| Export::new(&plan).packed().write(&target, weights).unwrap_err();
    let other = |shape, bits, group| -> QuantizedWeight {
        let layout = (bits, GroupSize::new(group).unwrap());
        IntWeight::from_codes(&ModuleName::new("b"), shape, layout, &[1, 2], vec![f16::ONE; shape[0]], None)
            .unwrap()
            .into()
    };
    let with = |weight| {
        let mut weights = given.clone();
        weights.insert(ModuleName::new("b"), weight);
        refusal(&weights)
    };
    let is_b = |module: &ModuleName| module.as_str() == "b";

    let error = refusal(&weights(&["a"]).1);
    assert!(matches!(&error, ExportError::MissingWeights { module } if is_b(module)), "{error}");
    let error = refusal(&weights(&["a", "b", "c"]).1);
    assert!(matches!(&error, ExportError::NotInPlan { module } if module.as_str() == "c"), "{error}");
    let error = with(other([2, 1], BitWidth::B4, 128));
    assert!(matches!(&error, ExportError::Shape { module, .. } if is_b(module)), "{error}");
    let error = with(other([1, 2], BitWidth::B3, 128));
    assert!(matches!(&error, ExportError::Format { module, .. } if is_b(module)), "{error}");
    let error = with(other([1, 2], BitWidth::B4, 64));
    assert!(matches!(&error, ExportError::Format { module, .. } if is_b(module)), "{error}");
    let error = Export::new(&plan).write(&target, &given).unwrap_err();
    assert!(matches!(error, ExportError::NothingToWrite), "{error}");
    assert!(list(scratch.path()).is_empty());
}

#[test]
fn sizes_that_contradict_the_plan_are_refused() {
    use gamma_core::{ModuleScores, ScoreTable, ScoredOption};
    let (_, given) = weights(&["a"]);
    let weight = &given[&ModuleName::new("a")];
    let option = ScoredOption::new(weight.format(), weight.stored_bits() + 8, 0.0);
    let module = ModuleScores { name: ModuleName::new("a"), shape: weight.shape(), options: vec![option] };
    let plan = Plan::uniform(&ScoreTable::new(vec![module]).unwrap(), BitWidth::B4).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let error = Export::new(&plan).packed().write(&scratch.path().join("out"), &given).unwrap_err();
    assert!(matches!(error, ExportError::StoredBits { expected: 32, found: 24, .. }), "{error}");
}

#[test]
fn weights_may_be_references_or_shared() {
    let scratch = tempfile::tempdir().unwrap();
    let (plan, owned) = weights(&["a", "b"]);
    let borrowed: BTreeMap<_, _> = owned.iter().map(|(name, weight)| (name.clone(), weight)).collect();
    let shared: BTreeMap<_, _> =
        owned.iter().map(|(name, weight)| (name.clone(), Arc::new(weight.clone()))).collect();
    let export = Export::new(&plan).packed();
    export.write(&scratch.path().join("borrowed"), &borrowed).unwrap();
    export.write(&scratch.path().join("shared"), &shared).unwrap();
}

#[test]
fn names_of_added_files_stay_in_the_folder_and_are_unique() {
    let scratch = tempfile::tempdir().unwrap();
    let (plan, weights) = weights(&["a"]);
    let write = |names: &[&str]| {
        let export = Export::new(&plan).packed();
        let export = names.iter().fold(export, |export, &name| export.file(name, "content"));
        export.write(&scratch.path().join("out"), &weights)
    };
    for name in ["", ".", "..", "../plan.json", "/plan.json", "a/plan.json", "a\\plan.json"] {
        assert!(matches!(write(&[name]), Err(ExportError::FileName { .. })), "{name}");
    }
    for names in [&["plan.json", "plan.json"] as &[_], &["packed.safetensors"]] {
        assert!(matches!(write(names), Err(ExportError::FileTwice { .. })), "{names:?}");
    }
    assert!(list(scratch.path()).is_empty());
    let files = write(&["plan.json"]).unwrap();
    let sizes: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    assert_eq!((sizes[0].0, sizes[1]), ("packed.safetensors", ("plan.json", 7)));
}

fn export(target: &Path, overwrite: bool) -> Result<(), ExportError> {
    let (plan, weights) = weights(&["a"]);
    Export::new(&plan).file("new.txt", "new").overwrite(overwrite).write(target, &weights).map(drop)
}

#[test]
fn a_folder_in_use_is_replaced_only_on_request_and_then_as_a_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    fs::create_dir(&target).unwrap();
    export(&target, false).expect("an empty folder is free");
    fs::rename(target.join("new.txt"), target.join("old.txt")).unwrap();
    assert!(matches!(export(&target, false), Err(ExportError::NotEmpty { .. })));
    assert_eq!(list(&target), ["old.txt"]);
    export(&target, true).unwrap();
    assert_eq!(list(&target), ["new.txt"]);

    fs::create_dir(target.join("more")).unwrap();
    let error = export(&target, true).unwrap_err();
    assert!(matches!(&error, ExportError::HoldsFolders { folder, .. } if folder == "more"), "{error}");
    assert_eq!(list(&target), ["more", "new.txt"]);
    assert_eq!(list(scratch.path()), ["out"]);
}

#[test]
fn targets_that_are_no_folder_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "content").unwrap();
    assert!(matches!(export(&file, true), Err(ExportError::NotAFolder { .. })));
    assert!(matches!(export(&file.join("below"), true), Err(ExportError::Write { .. })));
    assert!(matches!(export(Path::new("/"), true), Err(ExportError::NoName { .. })));
    assert_eq!(read(&file), b"content");
}

#[test]
fn missing_parents_are_created_and_removed_again_on_failure() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("runs/today/out");
    let (plan, weights) = weights(&["a"]);
    let export = Export::new(&plan).packed();
    let twice = export.clone().file("packed.safetensors", "");
    assert!(twice.write(&target, &weights).is_err());
    assert!(list(scratch.path()).is_empty());
    export.write(&target, &weights).unwrap();
    assert_eq!(list(&scratch.path().join("runs/today")), ["out"]);
}

#[test]
fn the_source_is_never_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("models/in");
    let (plan, weights) = tiny_checkpoint(&source);
    let before = list(&source);
    let export = Export::new(&plan).dequantized(&source, Precision::F32).overwrite(true);
    for target in [&source, &source.join("../in"), &scratch.path().join("models")] {
        let error = export.write(target, &weights).unwrap_err();
        assert!(matches!(error, ExportError::TargetHoldsSource { .. }), "{error}");
    }
    assert_eq!(list(&source), before);
    export.write(&source.join("out"), &weights).expect("below the source there is room");
}

#[cfg(unix)]
#[test]
fn all_files_have_the_permissions_of_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let scratch = tempfile::tempdir().unwrap();
    let (source, target) = (scratch.path().join("in"), scratch.path().join("out"));
    let (plan, weights) = tiny_checkpoint(&source);
    fs::write(source.join("tokenizer.json"), "{}").unwrap();
    fs::set_permissions(source.join("tokenizer.json"), fs::Permissions::from_mode(0o400)).unwrap();
    Export::new(&plan).dequantized(&source, Precision::F32).packed().write(&target, &weights).unwrap();
    write_atomically(&target.join("plan.json"), b"{}").unwrap();
    assert_eq!(mode(&target), mode(&source));
    assert_eq!(list(&target).len(), 5);
    for name in list(&target) {
        assert_eq!(mode(&target.join(&name)), mode(&source.join("config.json")), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_not_replaced() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/file"), "old").unwrap();
    symlink(at("folder"), at("to_folder")).unwrap();
    symlink(at("folder/file"), at("to_file")).unwrap();
    write_atomically(&at("to_file"), b"new").unwrap();
    assert_eq!(read(&at("folder/file")), b"new");
    export(&at("to_folder"), true).unwrap();
    assert!(fs::symlink_metadata(at("to_folder")).unwrap().is_symlink());
    assert_eq!(list(&at("folder")), ["new.txt"]);
}

#[test]
fn single_files_are_replaced_as_a_whole_and_folders_never() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("new/plan.json");
    for content in ["first", "second, longer", "3"] {
        write_atomically(&path, content.as_bytes()).unwrap();
        assert_eq!(read(&path), content.as_bytes());
    }
    assert!(matches!(write_atomically(scratch.path(), b""), Err(ExportError::NotAFile { .. })));
    assert!(matches!(write_atomically(&path.join("below"), b""), Err(ExportError::Write { .. })));
    assert_eq!(
        (list(scratch.path()), list(&scratch.path().join("new"))),
        (vec!["new".into()], vec!["plan.json".into()])
    );
}
