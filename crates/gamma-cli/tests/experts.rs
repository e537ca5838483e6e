//! What the command says aloud about a model with experts.

use std::{fs, path::Path, process::Command};

#[test]
fn weights_outside_of_plans_and_experts_with_few_tokens_are_announced_and_reported() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let (model, fable) = (tests.join("golden/qwen3-moe-random"), tests.join("fixtures/fable"));
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");
    let gamma = |words: &str, paths: &[(&str, &Path)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gamma"));
        command.args(words.split(' '));
        for (name, path) in paths {
            command.arg(name).arg(path);
        }
        let output = command.output().expect("starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        (told, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (told, printed) = gamma(
        "run --sequences 3 --length 32 --group-size 16 --rounds 0 --windows 4 --candidates 2,3,4 --budget 3 \
         --quantizer rtn --no-refine",
        &[
            ("--model", &model),
            ("--calibration", &fable.join("calibration.txt")),
            ("--evaluation", &fable.join("evaluation.txt")),
            ("--out", &out),
        ],
    );
    let report = fs::read_to_string(out.join("report.md")).expect("written");
    for text in [&told, &report] {
        // Embedding and head have 64 tokens of 32 channels, the router 6 experts.
        for words in ["NOT ALLOCATED: ", "embeddings 2048 (4.0 KiB)", "output head 2048", "routers 192"] {
            assert!(text.contains(words), "no `{words}` in {text}");
        }
        for words in
            ["FEW TOKENS: ", " of 6 experts saw fewer than 32 of the 96", "model.layers.1.mlp.experts."]
        {
            assert!(text.contains(words), "no `{words}` in {text}");
        }
    }
    assert_eq!(printed.matches("experts.down_proj").count(), 1, "{printed}");
    // Whoever plans from the scores is told as well.
    let (told, _) = gamma("project --budget 2.5", &[("--scores", &out.join("scores.json"))]);
    assert!(told.contains("FEW TOKENS: "), "{told}");
    // So is whoever compares ways to score, and once.
    for words in ["compare --methods depth,weights", "ablate --only mixed"] {
        let common = "--sequences 3 --length 32 --group-size 16 --rounds 0 --windows 4 --candidates 2,3,4 \
                      --budget 3 --quantizer rtn";
        let (told, _) = gamma(
            &format!("{words} {common}"),
            &[
                ("--model", &model),
                ("--calibration", &fable.join("calibration.txt")),
                ("--evaluation", &fable.join("evaluation.txt")),
                ("--out", &scratch.path().join(&words[..7])),
            ],
        );
        assert_eq!(told.matches("FEW TOKENS: ").count(), 1, "{words}: {told}");
    }
}
