//! Runs that are killed, and go on.
#![cfg(unix)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

/// A short learning run that saves its state as often as it can, on a few lines of `text`, which is
/// made if it is not there.
fn learn(text: &Path, out: &Path, rounds: usize) -> Command {
    learn_of("2,4", text, out, rounds)
}

/// The same with other candidates.
fn learn_of(candidates: &str, text: &Path, out: &Path, rounds: usize) -> Command {
    if !text.exists() {
        let whole = fs::read_to_string(fable().join("calibration.txt")).expect("reads");
        fs::write(text, whole.lines().take(30).collect::<Vec<_>>().join("\n")).expect("writes");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_gamma"));
    let brief = "learn --sequences 6 --length 32 --group-size 64 --steps 2 \
                 --quantizer rtn --save-every 0";
    command
        .args(brief.split_whitespace())
        .args(["--rounds", &rounds.to_string(), "--candidates", candidates])
        .arg("--device")
        .arg(env::var_os("GAMMA_TEST_DEVICE").unwrap_or_else(|| "cpu".into()))
        .arg("--model")
        .arg(fable())
        .arg("--calibration")
        .arg(text)
        .arg("--out")
        .arg(out)
        .stderr(Stdio::piped());
    command
}

const ROUNDS: usize = 6;

/// What a process says until it ends, and whether it succeeded.
fn ending(mut child: Child) -> (bool, String) {
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (child.wait().expect("ends").success(), said)
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Kills the command `kills` times at random moments and goes on each time; whenever a run gets to its
/// end, its scores are those of one that nobody disturbed.
fn check(kills: usize) {
    let scratch = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let undisturbed = scratch.path().join("undisturbed.json");
    let text = scratch.path().join("text");
    let (success, said) = ending(learn(&text, &undisturbed, ROUNDS).spawn().expect("starts"));
    assert!(success, "{said}");
    let (whole, expected) = (start.elapsed(), fs::read(&undisturbed).expect("written"));

    let (mut killed, mut resumed, mut finished) = (0, 0, 0);
    // Moments between a tenth of a run and its whole, far from each other: multiples of the golden
    // ratio.
    let moment = |n: usize| whole.mul_f64(0.1 + 0.9 * (n as f64 * 0.618_034 + 0.3).fract());
    while killed < kills || finished == 0 {
        let folder = scratch.path().join(format!("disturbed-{finished}"));
        let out = folder.join("scores.json");
        let mut child = learn(&text, &out, ROUNDS).spawn().expect("starts");
        if killed < kills {
            thread::sleep(moment(killed));
            if child.try_wait().expect("a child").is_none() {
                child.kill().expect("SIGKILL");
                killed += 1;
            }
        }
        let (success, said) = ending(child);
        resumed += usize::from(said.contains("going on after step"));
        if success {
            assert!(fs::read(&out).expect("written") == expected, "other scores after a kill: {said}");
            assert_eq!(files(&folder), ["scores.json"]);
            finished += 1;
        } else {
            // Drivers have complaints of their own, such as a missing XDG_RUNTIME_DIR.
            let own = |line: &str| line.starts_with("error") && !line.contains("XDG_RUNTIME_DIR");
            assert!(!said.lines().any(own), "{said}");
            assert!(!out.exists() || fs::read(&out).expect("written") == expected);
        }
    }
    assert!(resumed > 0, "no run has gone on");
}

#[test]
fn killed_runs_go_on_to_the_same_scores() {
    check(2);
}

#[test]
#[ignore = "takes a minute; run it after changes of what a state holds"]
fn twenty_kills_change_nothing() {
    check(20);
}

#[test]
fn ctrl_c_saves_the_state_and_only_the_same_run_goes_on_from_it() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (text, folder) = (scratch.path().join("text"), scratch.path().join("out"));
    let out = folder.join("scores.json");
    let mut child = learn(&text, &out, 30_000).spawn().expect("starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    said.read_line(&mut String::new()).expect("the model is introduced before the work begins");
    // Once the first state is there, learning is under way.
    let state = folder.join("scores.json.state");
    let start = Instant::now();
    while !state.exists() {
        assert!(start.elapsed() < Duration::from_mins(1), "no state is saved");
        thread::sleep(Duration::from_millis(20));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("ends").code(), Some(130), "{rest}");
    assert!(rest.contains("the same command goes on from there"), "{rest}");
    assert_eq!(files(&folder), ["scores.json.state"]);

    let (success, said) = ending(learn(&text, &out, ROUNDS).spawn().expect("starts"));
    assert!(!success && said.contains("another run; rounds: `30000` then, `6` now"), "{said}");
    assert_eq!(files(&folder), ["scores.json.state"]);
    let (success, said) = ending(learn(&text, &out, ROUNDS).arg("--fresh").spawn().expect("starts"));
    assert!(success && files(&folder) == ["scores.json"], "{said}");
    let (success, said) = ending(learn(&text, &out, ROUNDS).arg("--resume").spawn().expect("starts"));
    assert!(!success && said.contains("no interrupted run"), "{said}");
}

#[test]
fn candidates_are_added_to_the_state_that_was_kept() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (text, out, more) = (scratch.path().join("text"), scratch.path().join("a"), scratch.path().join("b"));
    let (success, said) = ending(learn(&text, &out, 1).arg("--keep-state").spawn().expect("starts"));
    assert!(success, "{said}");
    let state = scratch.path().join("a.state");
    let extend = |candidates: &str| {
        ending(learn_of(candidates, &text, &more, 1).arg("--extend").arg(&state).spawn().expect("starts"))
    };
    let (success, said) = extend("2,3,4");
    assert!(success && said.contains("going on after step"), "{said}");
    let scores = fs::read_to_string(&more).expect("written");
    assert!(scores.contains("int3:") && scores.contains("extended from"), "{scores}");
    let (success, said) = extend("3,4");
    assert!(!success && said.contains("formats: `"), "{said}");
    assert_eq!(files(scratch.path()), ["a", "a.state", "b", "text"]);
}
