//! The command as a user meets it, mistakes included.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
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
        .args(["--candidates", "2,3,4", "--quantizer", "rtn"])
        .arg("--device")
        .arg(env::var_os("GAMMA_TEST_DEVICE").unwrap_or_else(|| "cpu".into()))
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
fn devices_that_cannot_be_had_are_refused_with_what_to_do() {
    let model = fable().display().to_string();
    let on = |device: &str| {
        refusal(&["learn", "--model", &model, "--calibration", "none.txt", "--device", device, "--dry-run"])
    };
    assert!(on("gpu").contains("there is no device `gpu`: this build has `cpu`"));
    assert!(on("cpu:1").contains("counted from 0"));
    for backend in ["wgpu", "vulkan", "metal", "cuda", "rocm"] {
        let error = on(&format!("{backend}:99"));
        let built = error.contains("this machine has");
        assert!(built || error.contains(&format!("--features {backend}")), "{error}");
    }
}

#[test]
fn constraints_hold_in_files_of_the_promised_size_and_can_be_explained() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (scores, plans, out, model) =
        (path("scores.json"), path("plans"), path("out"), fable().display().to_string());
    let learned = learn(Path::new(&scores)).args(["--rounds", "1"]).stderr(Stdio::null()).status();
    assert!(learned.expect("starts").success());

    let mut project = vec!["project", "--scores", &scores, "--out", &plans, "--budget", "file:240KiB"];
    project.extend("--tie vllm --min *.down_proj=3 --exclude *.0.mlp.* --footprint".split(' '));
    let output = gamma(&project);
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("container"), "{told}{warned}");
    assert!(warned.contains("exclude *.0.mlp.*: 3 modules"), "{warned}");

    let plan = path("plans/plan-file-240KiB.json");
    assert!(gamma(&["apply", "--model", &model, "--plan", &plan, "--out", &out]).status.success());
    let bytes = fs::metadata(path("out/packed.safetensors")).expect("written").len();
    assert!((200 * 1024..=240 * 1024).contains(&bytes), "{bytes} bytes");

    let why = gamma(&["explain", &plan, "model.layers.2.self_attn.k_proj", "--scores", &scores]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("tied to model.layers.2.self_attn.q_proj") && why.contains("if forced"), "{why}");
    let near = ["--near", &plan, "--change", "0", "--budget", "file:240KiB", "--exclude", "*.0.mlp.*"];
    let near = gamma(&[&["project", "--scores", &scores][..], &near].concat());
    assert!(String::from_utf8_lossy(&near.stdout).contains("0 of 39 modules change"));

    let unknown = refusal(&["explain", &plan, "model.layers.2.k_proj", "--scores", &scores]);
    assert!(unknown.contains("did you mean"), "{unknown}");
    for (flags, word) in [
        ("--min *.vproj=3", "matches no module"),
        ("--tie vllm --pin *.q_proj=4", "are tied"),
        ("--pin *.q_proj=7", "leave no option"),
        ("--limit *.q_proj=10", "not a size"),
        ("--tie vlmm", "mistral.rs"),
        ("--min *.down_proj=4 --min *.up_proj=4", "would do; without `min *."),
    ] {
        let mut args = vec!["project", "--scores", &scores, "--budget", "2.1"];
        args.extend(flags.split(' '));
        let error = refusal(&args);
        assert!(error.contains(word), "{flags}: {error}");
    }
}

#[test]
fn the_frontier_is_a_table_and_two_files() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (scores, out) = (path("scores.json"), path("curve"));
    let learned = learn(Path::new(&scores)).args(["--rounds", "1"]).stderr(Stdio::null()).status();
    assert!(learned.expect("starts").success());
    let output = gamma(&["frontier", "--scores", &scores, "--points", "5", "--out", &out]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["uniform 3", "knee", "supported plans"] {
        assert!(told.contains(word), "no `{word}` in {told}");
    }
    let csv = fs::read_to_string(path("curve/frontier.csv")).expect("written");
    let columns = csv.lines().next().expect("a header").split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    assert_eq!(csv.lines().filter(|line| line.starts_with("exact,")).count(), 5);
    assert!(fs::read_to_string(path("curve/frontier.svg")).expect("written").contains("<svg"));
    let refused = refusal(&["frontier", "--scores", &scores, "--formats", "2"]);
    assert!(refused.contains("formats 2"), "{refused}");
}

#[test]
fn a_plan_is_applied_with_the_quantizer_it_was_learned_with() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (scores, model) = (path("scores.json"), fable().display().to_string());
    let text = fable().join("calibration.txt").display().to_string();
    let mut arguments = vec!["learn", "--model", &model, "--calibration", &text, "--out", &scores];
    let brief = "--sequences 4 --length 64 --steps 1 --rounds 1 --candidates 2,4 --group-size 32,64";
    arguments.extend(brief.split(' '));
    assert!(gamma(&arguments).status.success());
    let plans = path("plans");
    assert!(gamma(&["project", "--scores", &scores, "--budget", "3", "--out", &plans]).status.success());
    let plan = path("plans/plan-3.json");
    let options = fs::read_to_string(&scores).expect("written");
    assert!(options.contains(":g32:") && options.contains(":g64:"), "both group sizes compete");

    let out = path("out");
    let apply = ["apply", "--model", &model, "--plan", &plan, "--out", &out];
    let refused = refusal(&apply);
    assert!(refused.contains("gptq") && refused.contains("--calibration"), "{refused}");
    let with = [&apply[..], &["--calibration", &text, "--sequences", "4", "--length", "64"]].concat();
    let output = gamma(&with);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !told.contains("was learned with"), "{told}");
    let fewer = path("fewer");
    let with =
        [&apply[..5], &["--out", &fewer, "--calibration", &text, "--sequences", "3", "--length", "64"]];
    let told = String::from_utf8_lossy(&gamma(&with.concat()).stderr).into_owned();
    assert!(told.contains("learned with other data"), "{told}");
    let other = path("other");
    let rtn = ["apply", "--model", &model, "--plan", &plan, "--out", &other, "--quantizer", "rtn"];
    let told = String::from_utf8_lossy(&gamma(&rtn).stderr).into_owned();
    assert!(told.contains("was learned with `gptq"), "{told}");
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
    arguments.extend("--budget 2.5 --budget 3 --refine-seconds 1 --bootstrap 3 --out".split(' '));
    arguments.push(&out);
    // A second run replaces the results of the first.
    for _ in 0..2 {
        let output = gamma(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        for row in ["full precision", "uniform 2", "uniform 3", "gamma 2.5", "gamma 3"] {
            assert!(printed.contains(&format!("| {row} ")), "no row `{row}` in {printed}");
        }
        assert!(printed.contains("of 3 resamples"), "{printed}");
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

#[test]
fn tables_of_methods_and_of_variants_go_on_where_they_were_stopped() {
    let scratch = tempfile::tempdir().expect("a folder");
    let text = fable().join("evaluation.txt").display().to_string();
    let [model, calibration] = [fable(), fable().join("calibration.txt")].map(|p| p.display().to_string());
    let call = |command: &str, more: &[&str], out: &Path| {
        let out = out.display().to_string();
        let mut args = vec![command, "--model", &model, "--calibration", &calibration, "--evaluation", &text];
        args.extend(["--sequences", "2", "--length", "64", "--group-size", "64", "--quantizer", "rtn"]);
        args.extend(["--windows", "2", "--candidates", "2,4", "--budget", "3", "--out", &out]);
        args.extend(more);
        let output = gamma(&args);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (command, more) in
        [("compare", ["--methods", "uniform,weights"]), ("ablate", ["--only", "per module"])]
    {
        let out = scratch.path().join(command);
        let (done, text) = call(command, &more, &out);
        assert!(done, "{text}");
        let read = |extension: &str| fs::read_to_string(out.join(format!("{command}.{extension}")));
        let (rows, page) = (read("csv").expect("rows"), read("md").expect("a page"));
        assert!(page.contains("| method | 3 |") && page.contains("2 windows of 64 tokens"), "{page}");
        assert!(read("svg").expect("a picture").contains("</svg>"));
        let (done, text) = call(command, &more, &out);
        assert!(done && text.contains("rows are known"), "{text}");
        assert_eq!(read("csv").expect("rows"), rows, "nothing was measured again");
        if command == "compare" {
            let (done, text) = call(command, &["--methods", "uniform"], &out);
            assert!(done && !read("md").expect("a page").contains("weights"), "{text}");
            let kept = read("csv").expect("rows");
            assert_eq!(kept.lines().count(), rows.lines().count(), "rows that were not asked for stay");
        }
        let (done, text) = call(command, &[more[0], more[1], "--seed", "1"], &out);
        assert!(!done && text.contains("other settings") && text.contains("--fresh"), "{text}");
    }
    let (done, text) = call("ablate", &["--only", "nothing of the kind"], &scratch.path().join("none"));
    assert!(!done && text.contains("nothing of the kind"), "{text}");
}

#[test]
fn plans_become_files_of_engines_or_are_refused_before_quantizing() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (model, text) =
        (fable().display().to_string(), fable().join("calibration.txt").display().to_string());
    let data = ["--sequences", "4", "--length", "64", "--calibration", &text];
    let learn = |scores: &str, quantizer: &str| {
        let mut args = vec!["learn", "--model", &model, "--rounds", "0", "--out", scores];
        args.extend(data);
        args.extend(quantizer.split(' '));
        let output = gamma(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let blocks = path("blocks.json");
    learn(&blocks, "--quantizer ggml --candidates 4,5,8");
    let plans = path("plans");
    let project =
        ["project", "--scores", &blocks, "--budget", "5.5bpw", "--engine", "llama.cpp", "--out", &plans];
    assert!(gamma(&project).status.success());
    let none = refusal(&["project", "--scores", &blocks, "--budget", "5.5bpw", "--engine", "vllm"]);
    assert!(none.contains("model.layers.0.self_attn.q_proj") && none.contains("--symmetric"), "{none}");

    let (plan, gguf) = (path("plans/plan-5.5bpw.json"), path("fable.gguf"));
    let mut export = vec!["export", &plan, "--model", &model, "--target", "gguf", "--out", &gguf];
    assert!(refusal(&export).contains("--calibration"), "the blocks were weighted");
    export.extend(data);
    export.extend(["--keep", "model.embed_tokens=q8_0"]);
    let output = gamma(&export);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let bytes = fs::metadata(&gguf).expect("written").len();
    assert!(output.status.success() && told.contains(&format!("{bytes} bytes")), "{told}");
    assert!(refusal(&export).contains("exists"));

    let folder = path("folder");
    let other = ["export", &plan, "--model", &model, "--target", "compressed-tensors", "--out", &folder];
    let refused = refusal(&other);
    for word in ["model.layers.0.", "ggml-", "symmetric integers", "nothing was quantized", "--engine"] {
        assert!(refused.contains(word), "no `{word}` in {refused}");
    }
    assert!(!Path::new(&folder).exists());
    let types = path("types.txt");
    assert!(gamma(&["export", &plan, "--recipe", "llama-quantize", "--out", &types]).status.success());
    assert!(fs::read_to_string(&types).expect("written").starts_with("^blk\\.0\\."));
    assert!(
        refusal(&["export", &plan, "--recipe", "gptqmodel", "--out", &path("none.json")])
            .contains("integers")
    );

    let integers = path("integers.json");
    learn(&integers, "--quantizer rtn --symmetric --group-size 32 --candidates 3,4,8");
    let project =
        ["project", "--scores", &integers, "--budget", "4.5bpw", "--engine", "vllm", "--out", &plans];
    assert!(gamma(&project).status.success());
    let plan = path("plans/plan-4.5bpw.json");
    for (target, file) in [("compressed-tensors", "model.safetensors"), ("mlx", "config.json")] {
        let out = path(target);
        let output = gamma(&["export", &plan, "--model", &model, "--target", target, "--out", &out]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && Path::new(&out).join(file).exists(), "{target}: {told}");
    }
    assert!(refusal(&["export", &plan, "--model", &model, "--target", "awq", "--out", "x"]).contains("gptq"));
}
