//! A new fingerprint key without a blind day: a second daemon with the new key, and a ledger of its own, watches the same
//! interface for as long as the longest lifetime; then the first one stops.

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
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Daemon, WATCHES};
use support::keys;
use support::net::{Net, inside};
use support::packets::token;
use support::shop;
use support::site::{self, read_member};

const ISSUER: &str = r#"
[[service.issuer]]
name = "members"
kind = "jwt"
iss = "https://auth.shop.example"
max_lifetime = "1h"
"#;

/// A daemon with a folder of its own.
struct Watch {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Watch {
    /// With keys of its own, which `seed` tells apart.
    fn start(net: &Net, seed: char, metrics_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        keys::write(folder.path(), &seed.to_string().repeat(32), &format!("{seed}0").repeat(16));
        let config = format!(
            "rules = []\nmetrics.listen = \"127.0.0.1:{metrics_port}\"\nledger.store = \"./ledger\"\n\
             keys = {{ fingerprint = \"fingerprint.key\", account = \"account.key\" }}\n{}{ISSUER}",
            shop::CONFIG
        );
        fs::write(folder.path().join("authsensor.toml"), config).unwrap();
        let words = ["--transactions", "transactions"];
        Self { daemon: Daemon::start(net, folder.path(), &words, WATCHES), folder }
    }

    /// Fingerprint and provenance of the credential of each read, once there are `count` transactions.
    fn reads(&self, count: usize) -> Vec<(String, String)> {
        let lines = || read(&self.folder.path().join("transactions"));
        for _ in 0..500 {
            if lines().len() >= count {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let lines = lines();
        assert_eq!(lines.len(), count, "{lines:?}");
        let text = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let reads = lines.iter().filter(|line| text(line, "method") == "GET");
        reads.map(|line| (text(&line["credentials"][0], "fingerprint"), text(line, "provenance"))).collect()
    }

    fn stop(self) {
        let (ended, said) = self.daemon.end(Signal::SIGTERM);
        assert_eq!(ended, Some(0), "{said}");
    }
}

fn read(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Answers a login with the token that its `User-Agent` names, and anything else with an empty object.
fn answer(head: &str) -> String {
    let token = head.lines().find_map(|line| line.strip_prefix("User-Agent: ")).unwrap_or_default();
    if head.starts_with("POST") { format!("{{\"access_token\":\"{token}\"}}") } else { "{}".to_owned() }
}

fn log_in(token: &str) {
    site::ask(&format!("POST /login HTTP/1.1\r\nHost: x\r\nUser-Agent: {token}\r\nContent-Length: 0\r\n\r\n"));
}

#[test]
fn two_daemons_with_two_keys_hand_over_without_a_gap() {
    let name = "two_daemons_with_two_keys_hand_over_without_a_gap";
    if !support::kernel(name) {
        return;
    }
    if !support::tcx(name, "without TCX the second daemon takes the first one's place") {
        return;
    }
    let net = Net::new();
    let server = site::serve(&net, 6, answer);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (early, late) =
        (token("https://auth.shop.example", "17", now), token("https://auth.shop.example", "17", now + 1));

    let old = Watch::start(&net, 'a', 9464);
    inside(&net.client, || {
        log_in(&early);
        read_member(&early);
    });
    let new = Watch::start(&net, 'b', 9465);
    inside(&net.client, || {
        log_in(&late);
        read_member(&late);
        read_member(&early);
    });

    let (by_old, by_new) = (old.reads(5), new.reads(3));
    let provenances = |reads: &[(String, String)]| reads.iter().map(|(_, word)| word.clone()).collect::<Vec<_>>();
    assert_eq!(provenances(&by_old), ["issued", "issued", "issued"]);
    // The new one did not see the first login: it does not accuse what may be older than itself.
    assert_eq!(provenances(&by_new), ["issued", "unverifiable"]);
    assert_ne!(by_old[1].0, by_new[0].0, "each has its own fingerprint of the same token");

    old.stop();
    inside(&net.client, || read_member(&late));
    assert_eq!(new.reads(4).last().unwrap().1, "issued");
    new.stop();
    server.join().unwrap();
}
