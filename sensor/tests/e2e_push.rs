//! The daemon judges requests by what a source pushed over the network before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

#[path = "push/rig.rs"]
mod rig;
mod support;

use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::Signal;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rig::{Pki, SOURCES, dns, leaf, token};
use support::daemon::Daemon;
use support::net::{Net, inside};
use support::site;

#[test]
fn a_pushed_token_is_issued_and_another_is_not() {
    if !support::kernel("a_pushed_token_is_issued_and_another_is_not") {
        return;
    }
    let net = Net::new();
    let pki = Pki::new("listen = \"192.0.2.10:9465\"", SOURCES);
    let folder = pki.folder.path();
    let listens = "push      https://192.0.2.10:9465/v1/issuances (3 sources)\n";
    let daemon = Daemon::start(&net, folder, &["--transactions", "transactions"], listens);
    let server = site::serve(&net, 2, |_| "{}".to_owned());
    let (issued, other) = (token("gate", "g1", "issued"), token("gate", "g1", "other"));
    let source = pki
        .client("192.0.2.10:9465".parse().unwrap(), Some(&leaf(&pki.sources_ca, vec![dns("sso.example")], ClientAuth)));
    let answer = inside(&net.client, || {
        let answer = source.push(&format!("{{\"service\":\"shop\",\"credential\":\"{issued}\"}}"));
        // At once: what was accepted before a use counts for it.
        site::read_member(&issued);
        site::read_member(&other);
        answer
    });
    assert_eq!(answer.status, 202, "{}", answer.body);
    server.join().unwrap();
    let lines = || fs::read_to_string(folder.join("transactions")).unwrap_or_default();
    for _ in 0..500 {
        if lines().lines().count() == 2 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let judged: Vec<String> = lines()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["provenance"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(judged, ["issued", "unverifiable"], "{}", lines());
    let (ended, said) = daemon.end(Signal::SIGTERM);
    assert_eq!(ended, Some(0), "{said}");
    assert!(!said.contains(&issued) && !lines().contains("c2lnbmF0dXJl"), "{said}");
}
