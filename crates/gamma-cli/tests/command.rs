//! The command as a user meets it, mistakes included.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn gamma(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gamma")).args(args).output().expect("starts")
}

/// The text on standard error of a call that must fail without a panic.
fn refusal(args: &[&str]) -> String {
    let output = gamma(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A learning run so short that it shows the way and nothing else.
fn learn(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gamma"));
    command
        .args(["learn", "--sequences", "4", "--length", "64", "--group-size", "64", "--steps", "1"])
        .args(["--candidates", "2,3,4"])
        .arg("--model")
        .arg(fable())
        .arg("--calibration")
        .arg(fable().join("calibration.txt"))
        .arg("--out")
        .arg(out);
    command
}

#[test]
fn learn_project_and_apply_hand_files_to_each_other() {
    let scratch = tempfile::tempdir().expect("a folder");
    let scores = scratch.path().join("scores.json");
    assert!(learn(&scores).args(["--rounds", "1"]).stderr(Stdio::null()).status().expect("starts").success());

    let plans = scratch.path().join("plans");
    let (scores, plans) = (scores.display().to_string(), plans.display().to_string());
    let output =
        gamma(&["project", "--scores", &scores, "--budget", "2.5", "--budget", "3.4bpw", "--out", &plans]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("optimal") && text.contains("down_proj"), "{text}");

    let (plan, model) = (format!("{plans}/plan-2.5.json"), fable().display().to_string());
    let out = scratch.path().join("quantized").display().to_string();
    let apply = ["apply", "--model", &model, "--plan", &plan, "--out", &out];
    assert!(gamma(&apply).status.success());
    assert!(Path::new(&out).join("model.safetensors").exists());
    // A second time the folder is in the way, and stays as it is.
    assert!(refusal(&apply).contains("quantized"));

    let small = refusal(&["project", "--scores", &scores, "--budget", "1.5"]);
    assert!(small.contains("below the narrowest candidate") && small.contains("2.28"), "{small}");
    let other_weights = refusal(&["apply", "--model", &out, "--plan", &plan, "--out", "never"]);
    assert!(other_weights.contains("made for weights"), "{other_weights}");
    assert!(!Path::new("never").exists());

    fs::write(&scores, &fs::read(&scores).expect("reads")[..200]).expect("writes");
    let truncated = refusal(&["project", "--scores", &scores, "--budget", "3"]);
    assert!(truncated.contains("scores.json") && truncated.contains("line"), "{truncated}");
}

#[test]
fn run_writes_scores_plans_checkpoints_table_and_picture() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (model, out) = (fable().display().to_string(), scratch.path().join("out").display().to_string());
    let text = |name: &str| fable().join(name).display().to_string();
    let (calibration, evaluation) = (text("calibration.txt"), text("evaluation.txt"));
    let mut arguments =
        vec!["run", "--model", &model, "--calibration", &calibration, "--evaluation", &evaluation];
    arguments.extend(
        "--sequences 4 --length 64 --group-size 64 --rounds 0 --windows 8 --candidates 2,3,4".split(' '),
    );
    arguments.extend("--budget 2.5 --budget 3 --out".split(' '));
    arguments.push(&out);
    // A second run replaces the results of the first.
    for _ in 0..2 {
        let output = gamma(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        for row in ["full precision", "uniform 2", "uniform 3", "gamma 2.5", "gamma 3"] {
            assert!(printed.contains(&format!("| {row} ")), "no row `{row}` in {printed}");
        }
    }
    let out = Path::new(&out);
    for file in
        ["scores.json", "report.md", "perplexity.svg", "budget-2.5/plan.json", "budget-3/packed.safetensors"]
    {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    assert_eq!(fs::read_dir(out).expect("reads").count(), 5, "nothing else is left behind");
}

#[test]
fn wrong_arguments_are_explained() {
    let missing = refusal(&["learn", "--model", "no/such", "--calibration", "text.txt"]);
    assert!(missing.contains("no/such"), "{missing}");
    assert!(refusal(&["project", "--scores", "none.json", "--budget", "3"]).contains("none.json"));
    assert!(refusal(&["project", "--scores", "none.json", "--budget", "three"]).contains("bpw"));
    assert!(refusal(&["learn"]).contains("--model"));
}

#[test]
fn a_damaged_model_is_named() {
    let scratch = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(fable().join(file), scratch.path().join(file)).expect("copies");
    }
    let weights = scratch.path().join("model.safetensors");
    let whole = fs::read(&weights).expect("reads");
    fs::write(&weights, &whole[..whole.len() - 1000]).expect("writes");
    let (model, text) =
        (scratch.path().display().to_string(), fable().join("calibration.txt").display().to_string());
    let out = scratch.path().join("scores.json").display().to_string();
    let error =
        refusal(&["learn", "--model", &model, "--calibration", &text, "--length", "64", "--out", &out]);
    assert!(error.contains("model.safetensors"), "{error}");
    assert!(!Path::new(&out).exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing_half_written() {
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("scores.json");
    let mut child = learn(&out).args(["--rounds", "30000"]).stderr(Stdio::piped()).spawn().expect("starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    said.read_line(&mut String::new()).expect("the model is introduced before the work begins");
    std::thread::sleep(Duration::from_secs(1));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_eq!(fs::read_dir(scratch.path()).expect("reads").count(), 0);
}
