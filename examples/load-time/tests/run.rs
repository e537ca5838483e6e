//! The program as a user starts it, with the score file that it brings along.

use std::process::{Command, Output};

fn load_time(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load-time"));
    command.args(args).output().expect("the program starts")
}

fn succeed(args: &[&str]) -> String {
    let output = load_time(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn fail(args: &[&str]) -> String {
    let output = load_time(args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

/// The number before ` bytes` in the line that starts with `word`.
fn bytes(text: &str, word: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "bytes").expect("a number of bytes");
    words[at - 1].parse().expect("a number")
}

/// The formats of the modules with this role, block by block.
fn formats<'t>(text: &'t str, role: &str) -> &'t str {
    text.lines().find_map(|line| line.trim().strip_prefix(role)).expect("a line for the role").trim()
}

#[test]
fn the_model_with_its_cache_fits_what_the_reserve_leaves() {
    let mut former = 0;
    for (free, reserve, usable) in
        [("420000", "10", 378_000), ("420000", "0", 420_000), ("500000", "1", 495_000)]
    {
        let text = succeed(&["--free", free, "--reserve", reserve, "--context", "128", "--batch", "2"]);
        assert!(text.contains("optimal"), "{text}");
        let total = bytes(&text, "total");
        assert!(total <= usable && total > former, "{text}");
        // Two numbers of 16 bits for 6 blocks of 2 heads with 16 channels, 256 tokens.
        assert_eq!(bytes(&text, "key-value cache"), 256 * 6 * 2 * 16 * 2 * 2);
        assert_eq!(bytes(&text, "embeddings"), 512 * 64 * 2);
        former = total;
    }
}

#[test]
fn too_little_memory_is_refused_with_the_least_that_would_do() {
    // Below what no plan changes, and between that and the smallest plan.
    for free in ["1000", "300000"] {
        for rules in [&[] as &[&str], &["--rule", "min * 3"]] {
            let start = |free: &str, run: fn(&[&str]) -> String| {
                run(&[&["--free", free, "--reserve", "20", "--context", "256"], rules].concat())
            };
            let error = start(free, fail);
            let needed =
                error.split(" bytes must be free").next().and_then(|text| text.split(' ').next_back());
            let needed: u64 = needed.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{error}"));
            start(&needed.to_string(), succeed);
            start(&(needed - 1).to_string(), fail);
        }
    }
}

#[test]
fn rules_hold() {
    let text = succeed(&["--free", "500000", "--context", "256", "--rule", "tie vllm", "--rule", "max * 4"]);
    assert_eq!(formats(&text, "q_proj"), formats(&text, "k_proj"));
    assert_eq!(formats(&text, "q_proj"), formats(&text, "v_proj"));
    assert_eq!(formats(&text, "gate_proj"), formats(&text, "up_proj"));
    assert!(!text.contains("int5"), "{text}");
    let text = succeed(&["--free", "800000", "--context", "0", "--rule", "exclude *.o_proj"]);
    assert_eq!(bytes(&text, "modules left as they are"), 6 * 64 * 64 * 2);
}

#[test]
fn wrong_arguments_are_named() {
    for (args, word) in [
        (&["--reserve", "100"] as &[&str], "100 %"),
        (&["--free", "much"], "--free much"),
        (&["--rule", "tie vlmm"], "vllm"),
        (&["--context"], "needs a value"),
        (&["no-such-file.json"], "no-such-file.json"),
        (&["--slow"], "usage"),
    ] {
        let error = fail(args);
        assert!(error.contains(word), "{args:?}: {error}");
    }
}
