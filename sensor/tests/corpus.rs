//! Captures from the test suites of other sensors, replayed by the program: every transaction that a peer expects must be
//! printed, and no other where the peer lists them all.
//!
//! The captures are no part of this repository. They are looked for in `AUTHSENSOR_CORPORA`, or in `shared/corpora` beside
//! the checkout; without them the test says so and passes. Where we differ on purpose, `docs/agreement.md` says how and
//! why: a case that stands there must differ, and one that differs must stand there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail the test"
)]

#[path = "bundles/agreement.rs"]
mod agreement;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// HTTP/2 is not read yet.
const LATER: &str = "http2";

#[test]
fn agrees_with_the_captures_of_other_sensors() {
    let folder = std::env::var_os("AUTHSENSOR_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"), PathBuf::from);
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("skipped: no captures in {}", folder.display());
        return;
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort_unstable();
    // Peer, and the cases of it that differ.
    let mut peers: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut run = 0;
    for case in &cases {
        let Ok(meta) = fs::read_to_string(case.join("meta.json")) else { continue };
        let meta: Value = serde_json::from_str(&meta).unwrap();
        if meta["classes"].as_array().unwrap().iter().any(|class| class == LATER) {
            continue;
        }
        run += 1;
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let differ = peers.entry(peer_of(&name)).or_default();
        if let Err(what) = compare(case, &meta) {
            differ.push((name, what));
        }
    }
    assert!(run > 100, "{run} captures in {}", folder.display());
    for (peer, differ) in &peers {
        agreement::check(peer, differ);
    }
}

/// The peer stands before the first hyphen of a case's name.
fn peer_of(name: &str) -> String {
    name.split('-').next().unwrap().to_owned()
}

fn compare(case: &Path, meta: &Value) -> Result<(), String> {
    let expected: Vec<Value> = serde_json::from_slice(&fs::read(case.join("expected.json")).unwrap()).unwrap();
    let capture = ["capture.pcap", "capture.pcapng"].map(|name| case.join(name)).into_iter().find(|path| path.exists());
    let mut ours = replay(&capture.expect("a case has a capture"));
    // An answer alone is printed without a method; the peers count transactions by requests.
    ours.retain(|one| !one["method"].is_null());
    for want in expected.iter().filter(|row| row["kind"] != "unparsed" && row["kind"] != "response-only") {
        let Some(at) = ours.iter().position(|one| fits(want, one, meta)) else {
            return Err(format!("missing {} {} -> {}", want["method"], want["uri"], want["status"]));
        };
        ours.remove(at);
    }
    match ours.first() {
        Some(one) if meta["complete"] == true => {
            Err(format!("{} more, first {} {}", ours.len(), one["method"], one["uri"]))
        }
        _ => Ok(()),
    }
}

fn replay(capture: &Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_authsensor"))
        .args(["replay", "--transactions", "--all-tcp"])
        .arg(capture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", capture.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// True when what the peer says of a transaction (null: nothing) is what we say.
fn fits(want: &Value, ours: &Value, meta: &Value) -> bool {
    let said = |key: &str| want.get(key).filter(|value| !value.is_null());
    let text = |key: &str| ours[key].as_str().unwrap_or_default().to_owned();
    let address = |key| said(key).is_none_or(|want| want.as_str().unwrap().eq_ignore_ascii_case(&text(key)));
    let same = |key| said(key).is_none_or(|want| want == &ours[key]);
    address("src")
        && address("dst")
        && ["sport", "dport", "method", "status"].into_iter().all(same)
        && said("uri").is_none_or(|want| uris(&text("uri"), &meta["uri_form"]).iter().any(|uri| want == uri))
        && said("host").is_none_or(|want| {
            let listed =
                said("host_alternatives").map_or_else(|| vec![want], |list| list.as_array().unwrap().iter().collect());
            let listed: Vec<&str> = listed.into_iter().map(|host| host.as_str().unwrap()).collect();
            hosts(&text("host"))
                .iter()
                .any(|host| listed.iter().any(|one| one == host || one.to_ascii_lowercase() == *host))
        })
        && (meta["version_of"] != "request" || same("version"))
}

/// Our host as a peer may say it: with its port or without, as sent or in lower case.
fn hosts(host: &str) -> Vec<String> {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let lower = bare.to_ascii_lowercase();
    let plain = lower.trim_matches(['[', ']']).to_owned();
    vec![host.to_owned(), host.to_ascii_lowercase(), bare.to_owned(), lower, plain]
}

/// Our URI as a peer may say it: as sent, percent-decoded once, or without scheme and host.
fn uris(uri: &str, form: &Value) -> Vec<String> {
    let form = form.as_str().unwrap_or_default();
    let mut all = vec![uri.to_owned()];
    if form == "percent-decoded" {
        let latin = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
        // What is no UTF-8 is said as Latin-1.
        all.push(String::from_utf8(decoded(uri.as_bytes())).unwrap_or_else(|odd| latin(odd.as_bytes())));
    }
    if form.contains("host prefix cut off")
        && let Some((_, rest)) = uri.split_once("://")
    {
        all.push(format!("/{}", rest.split_once('/').map_or("", |(_, path)| path)));
    }
    all
}

/// With each `%` and two digits as the byte that they stand for.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|pair| first == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        all.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    all
}
