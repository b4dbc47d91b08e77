//! What tests that need root and a kernel share: the protocol by which they say that they could not run.
//!
//! `cargo xtask test` reads the file that [`SKIPS`] names, tells which tests were skipped, and does not count them as
//! passed. With `REQUIRE_KERNEL=1` nothing may be skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of tests that cannot do its work must make the test fail"
)]
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod capture;
pub mod daemon;
pub mod fragments;
pub mod keys;
pub mod net;
pub mod packets;
pub mod paths;
pub mod program;
pub mod programs;
pub mod shop;
pub mod sides;
pub mod site;
pub mod tunnels;

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

/// The environment variable that names the file to which skipped tests write a line.
pub const SKIPS: &str = "AUTHSENSOR_SKIPS";

/// How many times longer than on an ordinary machine things may take: `AUTHSENSOR_SLOW_MACHINE`, which `cargo xtask vm`
/// sets where the processor is emulated. It multiplies what tests wait at most, never what they expect.
#[must_use]
pub fn slowness() -> u32 {
    env::var("AUTHSENSOR_SLOW_MACHINE").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Says that the test `name` cannot run. The caller returns afterwards.
///
/// # Panics
/// With `REQUIRE_KERNEL=1`, where a skip is a failure, and when the skip cannot be written down.
pub fn skip(name: &str, reason: &str) {
    assert!(env::var_os("REQUIRE_KERNEL").is_none_or(|value| value != "1"), "{name} must run, but {reason}");
    eprintln!("skipped: {name}: {reason}");
    if let Some(path) = env::var_os(SKIPS) {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).expect("the skip file opens");
        // One write, so that lines of tests that run at once stay whole.
        file.write_all(format!("{name}: {reason}\n").as_bytes()).expect("the skip file takes a line");
    }
}

/// Whether the test `name` can load programs into the kernel; if not, it is skipped and must return.
#[must_use]
pub fn kernel(name: &str) -> bool {
    let reason = if env::var_os("AUTHSENSOR_NO_KERNEL").is_some_and(|value| value == "1") {
        "left out by --no-kernel"
    } else if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if sensor::object::embedded().is_err() {
        "the BPF object is a stub"
    } else {
        return true;
    };
    skip(name, reason);
    false
}

/// Whether the kernel has TCX, which the test `name` needs; if not, it is skipped for `reason` and must return.
#[must_use]
pub fn tcx(name: &str, reason: &str) -> bool {
    let there = sensor::capture::kernel::has_tcx();
    if !there {
        skip(name, reason);
    }
    there
}
