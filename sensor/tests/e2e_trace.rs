//! `replay --observations` of the built program: a story as a trace is judged as the same story in packets would be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::packets::{signature, token};
use support::program::authsensor;
use support::shop;

const START: u64 = 1_790_000_000;
const ISSUER: &str = "https://auth.shop.example";

fn config(folder: &Path) {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection");
    let issuer = format!(
        "[[service.issuer]]\nname = \"tokens\"\nkind = \"jwt\"\niss = \"{ISSUER}\"\nmax_lifetime = \"2h\"\n\
         observed = \"all\"\nconfirmed = {{ sight = 0.99, by = \"kim\", on = 2026-01-31 }}\n"
    );
    fs::write(folder.join("authsensor.toml"), format!("rules = [\"{rules}\"]\n{}{issuer}", shop::CONFIG)).unwrap();
}

fn read(at: f64, client: &str, member: u64, token: &str) -> Value {
    json!({"t": at, "client": client, "service": "shop", "method": "GET", "path": format!("/members/{member}"),
        "host": "shop.example", "status": 200, "bytes": 900, "credentials": {"bearer": token},
        "request_json": null, "set_cookies": {}, "response_json": null, "_who": "ignored"})
}

/// Members log in and read; then somebody reads with tokens of his own, issued (as they say) at `forged_at`.
fn story(forged_at: u64) -> (String, Vec<String>) {
    let (mut lines, mut tokens) = (Vec::new(), Vec::new());
    for member in 0..6u64 {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let at = (START + 10 + member) as f64;
        let own = token(ISSUER, &member.to_string(), START + 10 + member);
        lines.push(json!({"t": at, "client": "198.51.100.7", "service": "shop", "method": "POST", "path": "/login",
            "status": 200, "set_cookies": {"SESSION": format!("s{member}")}, "response_json": {"access_token": own}}));
        // In the same instant: the order of the lines counts.
        lines.push(read(at, "198.51.100.7", member, &own));
        tokens.push(own);
    }
    for victim in 0..12u64 {
        let forged = token(ISSUER, &(100 + victim).to_string(), forged_at + victim);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        lines.push(read((START + 400 + victim) as f64 + 0.5, &format!("203.0.113.{victim}"), 100 + victim, &forged));
        tokens.push(forged);
    }
    // A little out of order.
    lines.swap(14, 15);
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    (text.join("\n"), tokens)
}

#[test]
fn forged_reads_are_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path());
    let (trace, tokens) = story(START + 400);
    fs::write(folder.path().join("trace.ndjson"), &trace).unwrap();
    let first = authsensor(folder.path(), &["replay", "--observations", "trace.ndjson"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert_eq!(first.out.lines().count(), 1, "{}", first.out);
    let finding: Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!(finding["finding_info"]["title"], "Bulk account reads with tokens that no login issued");
    assert!(
        first.err.contains("24 lines, 24 observations, 12 issuances, 1 findings opened; 0 lines came late"),
        "{}",
        first.err
    );
    for token in &tokens {
        assert!(!first.out.contains(signature(token)) && !first.err.contains(signature(token)));
    }
    // In two files, and from standard input: the same, byte for byte.
    let lines: Vec<&str> = trace.lines().collect();
    fs::write(folder.path().join("a"), lines[..9].join("\n")).unwrap();
    fs::write(folder.path().join("b"), lines[9..].join("\n")).unwrap();
    let split = authsensor(folder.path(), &["replay", "--config", "authsensor.toml", "--observations", "a", "b"]);
    assert_eq!(split.out, first.out);
    let mut piped = Command::new(env!("CARGO_BIN_EXE_authsensor"));
    piped.args(["replay", "--observations", "-"]).current_dir(folder.path());
    piped.stdin(Stdio::from(fs::File::open(folder.path().join("trace.ndjson")).unwrap()));
    assert_eq!(String::from_utf8(piped.output().unwrap().stdout).unwrap(), first.out);
}

#[test]
fn a_complete_ledger_believes_no_early_iat() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path());
    fs::write(folder.path().join("trace.ndjson"), story(START - 600).0).unwrap();
    let cold = authsensor(folder.path(), &["replay", "--observations", "trace.ndjson"]);
    assert_eq!((cold.code, cold.out.as_str()), (Some(0), ""), "older than the horizon: {}", cold.err);
    let warm = authsensor(folder.path(), &["replay", "--warm", "--observations", "trace.ndjson"]);
    assert_eq!((warm.code, warm.out.lines().count()), (Some(0), 1), "{}", warm.err);
}

#[test]
fn mistakes_are_named_by_file_line_and_fix() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path());
    let good = read(1000.0, "198.51.100.7", 1, "t").to_string();
    for (line, want) in [
        (
            r#"{"t":1001,"path":"/","credentails":{}}"#,
            "trace:2:34: unknown key `credentails`. Did you mean `credentials`.",
        ),
        (r#"{"t":900,"path":"/"}"#, "trace:2:1: `t` lies 100 s before that of an earlier line. Sort the trace by `t`;"),
        (r#"{"t":1001,"path":"/","service":"store"}"#, "trace:2:1: the configuration has no service `store`."),
    ] {
        fs::write(folder.path().join("trace"), format!("{good}\n{line}\n")).unwrap();
        let ended = authsensor(folder.path(), &["replay", "--observations", "trace"]);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(want), "{}", ended.err);
    }
    let missing = authsensor(folder.path(), &["replay", "--observations", "nowhere"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains("cannot read the trace nowhere"), "{}", missing.err);
}
