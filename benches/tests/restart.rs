//! A sensor that is killed in the middle of a scenario, by SIGKILL and in a process of its own, says what one says that is
//! left alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in what its functions share")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// An hour of a small service; forged tokens in order of the accounts from twenty addresses, each too slow to be found
/// again from nothing after the kill.
const SCENARIO: &str = "\
days = 0.03
members = 2_000
crawlers = 0
[attack]
kind = \"forged_tokens\"
start_day = 0.005
span_s = 2100
accounts = 1600
addresses = 20
requests_per_second = 0.8
nonexistent_per_second = 0.3
";

/// The shipped configuration with tables for a small service: snapshots of large ones take time without optimisation.
fn config(folder: &Path) -> PathBuf {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/config");
    let text = std::fs::read_to_string(scenarios.join("storefront.toml")).unwrap();
    let absolute = |name: &str| format!("\"{}\"", scenarios.join(name).display());
    let text = text
        .replace("\"../../../rules/detection\"", &absolute("../../../rules/detection"))
        .replace("\"exceptions.yml\"", &absolute("exceptions.yml"))
        .replace("max_issuances = 60_000_000", "max_issuances = 100_000")
        .replace("max_seen = 4_000_000", "max_seen = 100_000")
        .replace("claims_cache = 1_048_576", "claims_cache = 65_536");
    let small = "[estimate]\nwalks = 1024\nmisses = 1024\nmembers = 1024\nknown_clients = 65536\n\n";
    let path = folder.join("small-storefront.toml");
    std::fs::write(&path, text.replace("[[service]]\n", &format!("{small}[[service]]\n"))).unwrap();
    path
}

/// The exit code and the line of `simulate` with `arguments`.
fn simulate(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let scenario = folder.join("small.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.arg(&scenario).arg("--config").arg(config(folder)).args(arguments);
    if Path::new("/dev/shm").is_dir() {
        // This is about a killed process, not about a dead machine: nothing has to reach a disk.
        command.env("TMPDIR", "/dev/shm");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), line)
}

#[test]
fn a_kill_in_the_middle_costs_no_more_than_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (code, verdict) = simulate(folder.path(), &["--kill-at", "0.0151", "--kill-at", "0.0225"]);
    assert_eq!((code, &verdict["ok"]), (Some(0), &true.into()), "{verdict:#}");
    assert!(verdict["findings"].as_u64().unwrap() > 20, "{verdict:#}");
    assert_eq!(verdict["new"].as_array().map(Vec::len), Some(0), "{verdict:#}");
    // Four seconds each, and up to half a second that was not on disk.
    let seconds = verdict["gap"]["seconds"].as_f64().unwrap();
    assert!((8.0..10.0).contains(&seconds), "{verdict:#}");
    assert!(verdict["gap"]["requests"].as_u64().unwrap() > 0, "traffic went on meanwhile: {verdict:#}");
    let before = verdict["ledger"]["issuances_before"].as_array().unwrap();
    assert!(before.len() == 2 && before.iter().all(|count| count.as_u64() > Some(10)), "{verdict:#}");
}
