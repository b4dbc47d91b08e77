//! A sensor that is killed in the middle of a scenario, by SIGKILL and in a process of its own, says what one says that is
//! left alone.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// An hour of a small service; forged tokens in order of the accounts from twenty addresses, each too slow to be found
/// again from nothing after the kill.
const SCENARIO: &str = "\
days = 0.04
members = 2_000
crawlers = 0
[attack]
kind = \"forged_tokens\"
start_day = 0.005
span_s = 2900
accounts = 600
addresses = 20
requests_per_second = 0.3
nonexistent_per_second = 0.1
";

/// The exit code and the line of `simulate` with `arguments`.
fn simulate(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let scenario = folder.join("small.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_simulate")).arg(&scenario).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), line)
}

#[test]
fn a_kill_in_the_middle_costs_no_more_than_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (code, verdict) = simulate(folder.path(), &["--kill-at", "0.0201", "--kill-at", "0.0302"]);
    assert_eq!((code, &verdict["ok"]), (Some(0), &true.into()), "{verdict:#}");
    assert!(verdict["findings"].as_u64().unwrap() > 20, "{verdict:#}");
    assert_eq!((verdict["missing"].as_array().unwrap().len(), verdict["new"].as_array().unwrap().len()), (0, 0));
    // Four seconds each, and up to half a second that was not on disk.
    let seconds = verdict["gap"]["seconds"].as_f64().unwrap();
    assert!((8.0..10.0).contains(&seconds), "{verdict:#}");
    assert!(verdict["gap"]["requests"].as_u64().unwrap() > 0, "traffic went on meanwhile: {verdict:#}");
    let before = verdict["ledger"]["issuances_before"].as_array().unwrap();
    assert!(before.len() == 2 && before.iter().all(|count| count.as_u64() > Some(10)), "{verdict:#}");
}
