//! Live = offline = server log: real servers, real clients, and the sensor between them.
//!
//! nginx, Apache and haproxy stand in a namespace; curl, wrk and clients of this test's own reach them over a veth pair,
//! with segmentation and receive offloads and without. The daemon watches the servers' end, and tcpdump writes the same
//! packets down. Then, connection by connection and in order: the daemon's transactions are the server's access log, and
//! `replay` of the capture gives the daemon's transactions. Where a log must differ, `exceptions` says why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

#[path = "e2e_wire/aborts.rs"]
mod aborts;
#[path = "e2e_wire/bytes.rs"]
mod bytes;
#[path = "e2e_wire/exceptions.rs"]
mod exceptions;
#[path = "e2e_wire/origin.rs"]
mod origin;
#[path = "e2e_wire/process.rs"]
mod process;
#[path = "e2e_wire/reordered.rs"]
mod reordered;
#[path = "e2e_wire/rows.rs"]
mod rows;
#[path = "e2e_wire/servers.rs"]
mod servers;
#[path = "e2e_wire/tools.rs"]
mod tools;
#[path = "e2e_wire/sensor.rs"]
mod watch;

use std::collections::BTreeMap;
use std::path::Path;

use process::missing_program;
use rows::Rows;
use servers::{Kind, Server};
use support::net::Net;
use watch::Watch;

/// Requests of curl, wrk and the test's own clients must all be among the rows, so that nothing can agree emptily.
const LEAST_ROWS: usize = 4000;

/// What a connection of the load generator asks for in all.
const WRK_REQUESTS: usize = 1000;
const WRK_CONNECTIONS: usize = 4;

fn play(name: &str, kind: Kind, offloads: bool) {
    if !support::kernel(name) {
        return;
    }
    if let Some(program) = missing_program(kind) {
        support::skip(name, &format!("{program} is not installed; `cargo xtask setup --tests` installs it"));
        return;
    }
    let net = Net::new();
    net.set_mtu(1500);
    net.set_offloads(offloads);
    let folder = tempfile::tempdir().unwrap();
    process::open_to_everybody(folder.path());
    let mut server = Server::start(kind, &net, folder.path());
    let mut watch = Watch::start(&net, folder.path());

    tools::curl(&net, folder.path());
    bytes::pipelines(&net);
    bytes::slow_senders(&net);
    tools::wrk(&net, folder.path(), WRK_CONNECTIONS, WRK_REQUESTS, &|| server.lines_with("?wrk="));
    let upgraded = bytes::upgrades(&net);
    let gave_up = aborts::all(&net);
    watch.settle(server.log_file());

    watch.assert_nothing_lost(&net, upgraded);
    let seen = watch.stop();
    server.stop();
    let told = exceptions::applied(kind, &server.log(), &gave_up);
    compare(&told, &seen, folder.path());
}

fn compare(told: &Rows, seen: &watch::Seen, folder: &Path) {
    let live = Rows::of_transactions(&seen.live);
    assert!(live.len() >= LEAST_ROWS, "only {} transactions", live.len());
    for status in [101, 200, 204, 206, 302, 304, 404, 416] {
        assert!(live.has_status(status), "no answer with {status}");
    }
    told.assert_equal(&live, "the access log", "the sensor");
    let offline = watch::replay(folder);
    watch::assert_same_transactions(&seen.live, &offline);
}

#[test]
fn segments_in_any_order() {
    const NAME: &str = "segments_in_any_order";
    if !support::kernel(NAME) {
        return;
    }
    if let Some(program) = missing_program(Kind::Nginx) {
        support::skip(NAME, &format!("{program} is not installed; `cargo xtask setup --tests` installs it"));
        return;
    }
    let net = Net::new();
    net.set_mtu(1500);
    let folder = tempfile::tempdir().unwrap();
    process::open_to_everybody(folder.path());
    let mut server = Server::start(Kind::Nginx, &net, folder.path());
    let mut watch = Watch::start(&net, folder.path());
    let requests = reordered::scrambled(&net);
    watch.settle(server.log_file());
    watch.assert_nothing_lost(&net, 0);
    for metric in ["halves_handed_over", "flows_resumed"] {
        let count = watch.metric(&net, &format!("authsensor_{metric}_total"));
        assert!(count > 10, "{metric}: {count}");
    }
    let seen = watch.stop();
    server.stop();
    let told = exceptions::applied(Kind::Nginx, &server.log(), &BTreeMap::new());
    let live = Rows::of_transactions(&seen.live);
    assert_eq!(told.len(), requests, "the server heard every request");
    told.assert_equal(&live, "the access log", "the sensor");
    watch::assert_same_transactions(&seen.live, &watch::replay(folder.path()));
}

#[test]
fn nginx_with_offloads() {
    play("nginx_with_offloads", Kind::Nginx, true);
}

#[test]
fn nginx_without_offloads() {
    play("nginx_without_offloads", Kind::Nginx, false);
}

#[test]
fn apache_with_offloads() {
    play("apache_with_offloads", Kind::Apache, true);
}

#[test]
fn apache_without_offloads() {
    play("apache_without_offloads", Kind::Apache, false);
}

#[test]
fn haproxy_with_offloads() {
    play("haproxy_with_offloads", Kind::Haproxy, true);
}

#[test]
fn haproxy_without_offloads() {
    play("haproxy_without_offloads", Kind::Haproxy, false);
}
