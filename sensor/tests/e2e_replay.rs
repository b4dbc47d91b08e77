//! `replay` and `check` of the built program, on a capture that the test writes: members log in and read, then somebody
//! with the signing key reads what he likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;
use support::capture::{pcap, timed};
use support::packets::{Connection, signature, token};
use support::program::authsensor;
use support::shop;

const START: u64 = 1_790_000_000;
/// Later than the clock leeway of the configuration: these tokens cannot be older than the sensor.
const FORGED_FROM: u64 = START + 400;
const ISSUER: &str = "https://auth.shop.example";
const MEMBERS: u64 = 6;
const FORGED: u64 = 12;
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../authsensor.toml");

/// The shop, with an issuer that is confirmed, or only hoped to be wholly observed.
fn config(folder: &Path, name: &str, confirmed: bool) {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection");
    let confirmation = if confirmed { "confirmed = { sight = 0.99, by = \"kim\", on = 2026-01-31 }" } else { "" };
    let issuer = format!(
        "[[service.issuer]]\nname = \"tokens\"\nkind = \"jwt\"\niss = \"{ISSUER}\"\nmax_lifetime = \"2h\"\n\
         observed = \"all\"\n{confirmation}\n"
    );
    fs::write(folder.join(name), format!("rules = [\"{rules}\"]\n{}{issuer}", shop::CONFIG)).unwrap();
}

fn connection(address: [u8; 4], port: u16) -> Connection {
    Connection::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port), shop::socket("192.0.2.10:80"))
}

/// A read with nothing but a token.
fn read(member: u64, token: &str) -> Vec<u8> {
    format!("GET /members/{member} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\n\r\n").into()
}

/// The story, and every token in it.
fn story() -> (Vec<u8>, Vec<String>) {
    let (mut frames, mut tokens) = (Vec::new(), Vec::new());
    for member in 0..MEMBERS {
        let at = START + 10 + member;
        let own = token(ISSUER, &format!("{member}"), at);
        let mut peers = connection([198, 51, 100, 7], 2000 + u16::try_from(member).unwrap());
        let mut segments = peers.open();
        segments.extend([peers.request(&shop::login()), peers.response(&shop::login_answer(&own))]);
        for _ in 0..3 {
            segments.extend([peers.request(&read(member, &own)), peers.response(&shop::answer(40))]);
        }
        segments.extend(peers.close());
        frames.extend(timed(at, &segments));
        tokens.push(own);
    }
    for victim in 0..FORGED {
        let at = FORGED_FROM + victim;
        let forged = token(ISSUER, &format!("{}", 100 + victim), at);
        let mut peers = connection([203, 0, 113, u8::try_from(victim).unwrap()], 3000);
        let mut segments = peers.open();
        segments.extend([peers.request(&read(100 + victim, &forged)), peers.response(&shop::answer(40))]);
        segments.extend(peers.close());
        frames.extend(timed(at, &segments));
        tokens.push(forged);
    }
    (pcap(&frames), tokens)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn forged_reads_are_one_finding_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "confirmed.toml", true);
    let (capture, tokens) = story();
    fs::write(folder.path().join("story.pcap"), capture).unwrap();
    let replay = || authsensor(folder.path(), &["replay", "--config", "confirmed.toml", "story.pcap"]);
    let first = replay();
    assert_eq!(first.code, Some(0), "{}", first.err);
    let findings = lines(&first.out);
    assert_eq!(findings.len(), 1, "{}", first.out);
    let finding = &findings[0];
    assert_eq!(finding["class_uid"], 2004, "OCSF Detection Finding");
    assert_eq!(finding["finding_info"]["title"], "Bulk account reads with tokens that no login issued");
    assert_eq!(first.out, replay().out, "byte for byte");
    for token in &tokens {
        assert!(!first.out.contains(signature(token)) && !first.err.contains(signature(token)));
    }
}

#[test]
fn members_alone_are_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "confirmed.toml", true);
    config(folder.path(), "hoped.toml", false);
    let (capture, _) = story();
    fs::write(folder.path().join("story.pcap"), &capture).unwrap();
    // Without the confirmation an unknown token is unverifiable, which this rule does not look at.
    let hoped = authsensor(folder.path(), &["replay", "--config", "hoped.toml", "story.pcap"]);
    assert_eq!((hoped.code, hoped.out.as_str()), (Some(0), ""), "{}", hoped.err);
    let (mut members, mut position) = (Vec::from(&capture[..24]), 24);
    while position < capture.len() {
        let word = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap());
        let end = position + 16 + word(position + 8) as usize;
        if u64::from(word(position)) < FORGED_FROM {
            members.extend(&capture[position..end]);
        }
        position = end;
    }
    fs::write(folder.path().join("members.pcap"), members).unwrap();
    let quiet = authsensor(folder.path(), &["replay", "--config", "confirmed.toml", "members.pcap"]);
    assert_eq!((quiet.code, quiet.out.as_str()), (Some(0), ""), "{}", quiet.err);
}

#[test]
fn transactions_are_lines_with_every_key() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "confirmed.toml", true);
    let (capture, tokens) = story();
    fs::write(folder.path().join("story.pcap"), capture).unwrap();
    let ended = authsensor(folder.path(), &["replay", "--config", "confirmed.toml", "--transactions", "story.pcap"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let transactions = lines(&ended.out);
    // Requests in the capture are transactions, each once.
    assert_eq!(transactions.len() as u64, MEMBERS * 4 + FORGED);
    let keys: BTreeSet<&str> = [
        "ts",
        "src",
        "sport",
        "dst",
        "dport",
        "service",
        "method",
        "host",
        "uri",
        "version",
        "status",
        "credentials",
        "provenance",
        "route",
        "class",
        "outcome",
        "account",
        "client",
        "anomalies",
    ]
    .into();
    let of = |wanted: &str| transactions.iter().filter(move |line| line["provenance"] == wanted).count() as u64;
    for line in &transactions {
        let have: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(have, keys);
        assert_eq!(
            (&line["dst"], &line["dport"], &line["service"]),
            (&"192.0.2.10".into(), &80.into(), &"shop".into())
        );
        assert_eq!(line["status"], 200);
        let credential_keys: BTreeSet<&str> = ["kind", "fingerprint", "provenance", "validity"].into();
        for credential in line["credentials"].as_array().unwrap() {
            let have: BTreeSet<&str> = credential.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(have, credential_keys);
        }
    }
    assert_eq!((of("issued"), of("unissued"), of("none")), (MEMBERS * 3, FORGED, MEMBERS));
    let forged = transactions.last().unwrap();
    assert_eq!(forged["uri"], "/members/111");
    assert_eq!((&forged["class"], &forged["outcome"]), (&"account_read".into(), &"read".into()));
    assert_eq!((&forged["src"], &forged["sport"]), (&"203.0.113.11".into(), &3000.into()));
    assert_eq!(forged["credentials"][0]["kind"], "bearer");
    for secret in tokens.iter().map(|token| signature(token)).chain([shop::COOKIE]) {
        assert!(!ended.out.contains(secret), "a raw credential is printed");
    }
}

#[test]
fn all_tcp_needs_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (capture, _) = story();
    fs::write(folder.path().join("story.pcap"), capture).unwrap();
    let ended = authsensor(folder.path(), &["replay", "--all-tcp", "--transactions", "story.pcap"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let transactions = lines(&ended.out);
    assert_eq!(transactions.len() as u64, MEMBERS * 4 + FORGED);
    assert!(transactions.iter().all(|line| line["service"].is_null() && line["status"] == 200));
}

#[test]
fn the_shipped_configuration_is_usable() {
    let shipped = Path::new(SHIPPED);
    let ended = authsensor(shipped.parent().unwrap(), &["check", "--config", "authsensor.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    for part in
        ["is usable", "service   storefront", "rule      Bulk account reads with tokens that no login issued (high; "]
    {
        assert!(ended.out.contains(part), "{part:?} is not in: {}", ended.out);
    }
}

#[test]
fn routes_of_a_capture_are_told() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "confirmed.toml", true);
    fs::write(folder.path().join("story.pcap"), story().0).unwrap();
    let ended = authsensor(folder.path(), &["routes", "--config", "confirmed.toml", "story.pcap"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let reads = MEMBERS * 3 + FORGED;
    let line = ended.out.lines().find(|line| line.contains("/members/{member}")).unwrap();
    assert!(line.split('\t').any(|field| field == reads.to_string()), "{line}");
}
