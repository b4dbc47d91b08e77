//! The ledger's folder: what survives a kill, and what the command line does with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sensor::collect::Keys;
use sensor::config::model::Config;
use sensor::ledger::{Issuance, Ledger, Presented};
use sensor::observation::{Fingerprint, Instant, Provenance, ServiceId};
use sensor_ebpf::siphash::{Key, hash128};
use sensor_ebpf::wire::place;
use support::keys;
use support::program::{Ended, authsensor, ended};

const SERVICE: &str = r#"
rules = []
[keys]
fingerprint = "fingerprint.key"
account = "account.key"
[ledger]
store = "./ledger"
[[service]]
name = "shop"
listen = 80
[service.credentials]
cookies = ["sid"]
[[service.route]]
class = "login"
methods = "POST"
path = "/login"
issues = "set-cookie:sid"
[[service.issuer]]
name = "session"
kind = "opaque"
max_lifetime = "1h"
observed = "all"
confirmed = { sight = 1.0, by = "kim", on = 2026-01-31 }
"#;
const FINGERPRINT_KEY: &str = "000102030405060708090a0b0c0d0e0f";
const ACCOUNT_KEY: &str = "101112131415161718191a1b1c1d1e1f";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("authsensor.toml"), SERVICE).unwrap();
    keys::write(folder.path(), FINGERPRINT_KEY, ACCOUNT_KEY);
    folder
}

fn key(hex: &str) -> Key {
    let bytes: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
    Key::from_bytes(bytes.as_slice().try_into().unwrap())
}

fn keys() -> Keys {
    Keys { fingerprint: key(FINGERPRINT_KEY), account: key(ACCOUNT_KEY) }
}

fn config(folder: &Path) -> Config {
    sensor::config::load(&folder.join("authsensor.toml")).unwrap()
}

fn now() -> Instant {
    let unix_ns = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    // A monotonic clock that both processes share.
    Instant { monotonic_ns: unix_ns - 1_700_000_000_000_000_000, unix_ns }
}

fn fingerprint(text: &str) -> Fingerprint {
    Fingerprint(hash128(key(FINGERPRINT_KEY), text.as_bytes()))
}

fn login(n: u64, at: Instant) -> Issuance {
    Issuance {
        service: ServiceId(0),
        fingerprint: fingerprint(&n.to_string()),
        place: place::SET_COOKIE,
        index: 0,
        at,
        account: None,
        expires: None,
        inherits: None,
        binds: false,
    }
}

fn cookie(text: &str) -> Presented<'static> {
    Presented {
        service: ServiceId(0),
        place: place::COOKIE,
        index: 0,
        scheme: 0,
        fingerprint: fingerprint(text),
        flags: 0,
        claims: None,
        spends: true,
    }
}

/// Not a test by itself: what the next one kills. Issues without end, and says after each hundred how many and when.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os("LEDGER_TEST_FOLDER") else { return };
    let mut ledger = Ledger::open(&config(Path::new(&folder)), &keys(), now()).unwrap();
    let mut out = std::io::stdout();
    for n in 0u64.. {
        ledger.issue(login(n, now()));
        if n % 100 == 99 {
            std::thread::sleep(Duration::from_millis(20));
            writeln!(out, "\nwrote {n} {}", now().unix_ns).unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn a_kill_loses_at_most_the_last_second_and_says_so() {
    let folder = folder();
    for run in 0..2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env("LEDGER_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut wrote: Vec<(u64, u64)> = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((n, at)) = line.strip_prefix("wrote ").and_then(|rest| rest.split_once(' ')) else { continue };
            wrote.push((n.parse().unwrap(), at.parse().unwrap()));
            if wrote.last().unwrap().1 - wrote[0].1 > 2_500_000_000 {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        let killed = wrote.last().unwrap().1;
        let second = 1_000_000_000 * u64::from(support::slowness());
        let safe = wrote.iter().rev().find(|(_, at)| killed - at > second).unwrap().0;

        let started = now();
        let mut ledger = Ledger::open(&config(folder.path()), &keys(), started).unwrap();
        assert!(ledger.loaded().issuances > safe, "run {run}: {:?}", ledger.loaded());
        let mut lost = 0;
        for n in 0..=wrote.last().unwrap().0 {
            let known = ledger.judge(&cookie(&n.to_string()), now()).provenance == Provenance::Issued;
            assert!(known || n > safe, "run {run}: {n} of {safe} is lost");
            lost += u64::from(!known);
        }
        let stats = ledger.stats();
        assert_eq!(stats.gaps, 1, "run {run}");
        assert!(stats.gap_lost >= lost.max(1), "run {run}: {lost} lost, and the gap excuses {}", stats.gap_lost);
        // Closed in order, the next start finds no new one.
        ledger.close(now());
        drop(ledger);
        fs::remove_dir_all(folder.path().join("ledger")).unwrap();
    }
}

fn ledger(folder: &Path, words: &[&str]) -> Ended {
    authsensor(folder, &[&["ledger"], words].concat())
}

fn piped(folder: &Path, words: &[&str], text: &[u8]) -> Ended {
    let input = folder.join("input");
    fs::write(&input, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_authsensor"));
    command.arg("ledger").args(words).current_dir(folder).stdin(fs::File::open(&input).unwrap());
    ended(&mut command)
}

#[test]
fn imported_issuances_are_issued_and_come_out_again_without_anything_raw() {
    let folder = folder();
    let path = folder.path();
    let raw = b"canary-token-1\nBearer canary-token-2\tmember-17\r\n\n  \"canary-token-3\"";
    let words = ["import", "--raw", "--service", "shop", "--issuer", "session", "--expires", "2100-01-01"];
    let done = piped(path, &words, raw);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "3 issuances are new, 0 were known\n"), "{}", done.err);
    let line = format!(
        "{{\"service\":\"shop\",\"fingerprint\":\"{}\",\"account_id\":\"17\",\"expires\":4102444800}}\n",
        fingerprint("another")
    );
    let done = piped(path, &["import"], line.as_bytes());
    assert_eq!(done.out, "1 issuances are new, 0 were known\n", "{}", done.err);

    let exported = ledger(path, &["export"]);
    assert_eq!((exported.code, exported.out.lines().count()), (Some(0), 4), "{}", exported.err);
    let expected = format!("\"fingerprint\":\"{}\",\"issuer\":\"session\",\"account\":", fingerprint("canary-token-2"));
    assert!(exported.out.contains(&expected), "{}", exported.out);
    assert!(!exported.out.contains("canary") && !exported.out.contains("member-17"));
    // What was exported can be imported, there and elsewhere.
    let again = piped(path, &["import", "-"], exported.out.as_bytes());
    assert_eq!(again.out, "0 issuances are new, 4 were known\n", "{}", again.err);

    let stats = ledger(path, &["stats"]);
    for part in ["4 issuances,", "service   shop: 4 issuances (issued 4)", "with an account 2, presented 0, ended 0"] {
        assert!(stats.out.contains(part), "{part}\n---\n{}{}", stats.out, stats.err);
    }
    let mut watching = Ledger::open(&config(path), &keys(), now()).unwrap();
    for token in ["canary-token-1", "canary-token-2", "canary-token-3", "another"] {
        assert_eq!(watching.judge(&cookie(token), now()).provenance, Provenance::Issued, "{token}");
    }
    let busy = ledger(path, &["stats"]);
    assert_eq!(busy.code, Some(2));
    assert!(busy.err.contains("is in use by another authsensor"), "{}", busy.err);
    drop(watching);
    // No file in the folder holds a raw credential or account.
    for needle in [&b"canary"[..], b"member-17"] {
        let mut folders = vec![path.join("ledger")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    let bytes = fs::read(&entry).unwrap();
                    assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", entry.display());
                }
            }
        }
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path.join("ledger")), 0o700);
}

#[test]
fn a_mistake_names_its_line_and_nothing_is_imported() {
    let folder = folder();
    let path = folder.path();
    let good = format!("{{\"service\":\"shop\",\"fingerprint\":\"{}\",\"expires\":4102444800}}\n", fingerprint("a"));
    let bad = [
        (good.replace("shop", "shpo"), "2:1: unknown service `shpo`"),
        (good.replace("\"expires\"", "\"expire\""), "2:"),
        (good.replace("4102444800", "\"tomorrow\""), "2:1: `expires` `tomorrow` is not a time from 1970 to 2106"),
        (good.replace("\"fingerprint\":\"", "\"fingerprint\":\"x"), "2:1: `fingerprint` `x"),
        ("token-in-the-wrong-place\n".to_owned(), "2:2: this is no issuance: expected"),
    ];
    for (line, expected) in bad {
        let done = piped(path, &["import"], format!("{good}{line}{good}").as_bytes());
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{line}: {}", done.err);
        let expected = format!("standard input:{expected}");
        assert!(done.err.contains(&expected), "{expected}\n---\n{}", done.err);
        assert!(done.err.contains("nothing was imported"), "{}", done.err);
        assert!(!done.err.contains("token-in-the-wrong-place"), "{}", done.err);
        assert!(!path.join("ledger").exists(), "nothing was even begun");
    }
    let done = piped(path, &["import", "--raw", "--service", "shop", "--expires", "never"], b"x");
    assert!(done.code == Some(2) && done.err.contains("`expires` `never` is not a time"), "{}", done.err);
    let none = ledger(path, &["stats"]);
    assert!(none.code == Some(2) && none.err.contains("there is no ledger at"), "{}", none.err);

    let done = piped(path, &["import"], good.as_bytes());
    assert_eq!(done.code, Some(0), "{}", done.err);
    fs::write(path.join("fingerprint.key"), ACCOUNT_KEY.replace("10", "99")).unwrap();
    let wrong = ledger(path, &["stats"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("was written under another fingerprint key"), "{}", wrong.err);
}
