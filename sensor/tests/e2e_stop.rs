//! However the daemon ends, nothing of it stays on the interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;

use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use support::daemon::{Daemon, WATCHES};
use support::net::{Net, SERVER_END, inside};
use support::shop;

fn attached(net: &Net) -> Vec<u32> {
    inside(&net.server, || {
        let ids = |way| SchedClassifier::query_tcx(SERVER_END, way).unwrap().1.into_iter().map(|program| program.id());
        ids(TcAttachType::Ingress).chain(ids(TcAttachType::Egress)).collect()
    })
}

#[test]
fn nothing_is_left_attached_however_the_daemon_ends() {
    let name = "nothing_is_left_attached_however_the_daemon_ends";
    if !support::kernel(name) {
        return;
    }
    if !support::tcx(name, "this kernel has no TCX to ask what is attached") {
        return;
    }
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let metrics = "rules = []\nmetrics.listen = \"127.0.0.1:9464\"\n";
    fs::write(folder.path().join("authsensor.toml"), format!("{metrics}{}", shop::CONFIG)).unwrap();
    for (signal, code) in [(Signal::SIGINT, Some(0)), (Signal::SIGTERM, Some(0)), (Signal::SIGKILL, None)] {
        let daemon = Daemon::start(&net, folder.path(), &[], WATCHES);
        let programs = attached(&net);
        assert_eq!(programs.len(), 2, "{signal}");
        let (ended, said) = daemon.end(signal);
        assert_eq!(ended, code, "{signal}: {said}");
        assert_eq!(said.contains("nothing is left attached"), code.is_some(), "{signal}: {said}");
        assert!(attached(&net).is_empty(), "{signal}");
        support::programs::assert_unloaded(&programs);
    }
}
