//! Hand-over and resume on the real object: what the kernel and the daemon's slow path make of packets together is what
//! the host makes of them, and what an undisturbed stream says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

#[path = "kernel_slow/ends.rs"]
mod ends;
#[path = "kernel_slow/holes.rs"]
mod holes;
#[path = "kernel_slow/losses.rs"]
mod losses;
#[path = "kernel_slow/resuming.rs"]
mod resuming;
#[path = "kernel_slow/versions.rs"]
mod versions;

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use sensor::capture::tables::Tables;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;
use support::packets::{Connection, Segment};
use support::paths::{Both, Made, Object};
use support::shop::{self, address};
use support::sides::{KEY, config};

/// Both with the shop's configuration; none if the kernel cannot be used.
fn loaded(name: &str) -> Option<Both> {
    static OBJECT: OnceLock<Mutex<Object>> = OnceLock::new();
    support::kernel(name).then(|| {
        let config = config(shop::CONFIG);
        let tables = || Tables::new(&config, KEY).unwrap();
        let object = OBJECT.get_or_init(|| Mutex::new(Object::load(&tables(), &config.bounds, &local())));
        // What a failed test left there does not matter: every test has connections of its own.
        let object = object.lock().unwrap_or_else(PoisonError::into_inner);
        Both::new(object, tables, &config.bounds)
    })
}

/// The addresses of the shop's host.
fn local() -> [IpAddr; 2] {
    [address("192.0.2.10"), address("2001:db8::10")]
}

/// A connection after its handshake, both halves between messages on the fast path.
fn opened(both: &mut Both, port: u16) -> Connection {
    let mut peers = shop::client(port);
    both.run(&peers.open());
    peers
}

/// The bytes of a request in three pieces, cut at `first` and `second`.
fn request(peers: &mut Connection, bytes: &[u8], first: usize, second: usize) -> [Segment; 3] {
    [&bytes[..first], &bytes[first..second], &bytes[second..]].map(|part| peers.request(part))
}

fn response(peers: &mut Connection, bytes: &[u8], first: usize, second: usize) -> [Segment; 3] {
    [&bytes[..first], &bytes[first..second], &bytes[second..]].map(|part| peers.response(part))
}

/// The pieces as the network may bring them: the last before the middle one.
fn swapped([first, second, third]: [Segment; 3]) -> [Segment; 3] {
    [first, third, second]
}

/// A flow that the slow path follows and that rests between two messages.
fn handed_over(both: &mut Both, port: u16) -> Connection {
    let mut peers = opened(both, port);
    let made = both.run(&swapped(request(&mut peers, &shop::read("1", "t"), 30, 60)));
    assert_eq!(made.count(Counter::HalvesHandedOver), 1);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
    let made = both.run(&[peers.response(&shop::answer(10))]);
    assert_eq!(made.count(Counter::HalvesHandedOver), 1, "the other half follows");
    assert_eq!(made.told.exchanges(), [(kind::RESPONSE, 0)]);
    peers
}

/// The next exchange of a connection is read by the kernel, as transaction `number`.
fn goes_on_in_the_kernel(both: &mut Both, peers: &mut Connection, number: u32) -> Made {
    let made = both.run(&[peers.request(&shop::read("7", "t7")), peers.response(&shop::answer(40))]);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, number), (kind::RESPONSE, number)]);
    assert_eq!(made.slow_heads(), 0, "the kernel reads");
    assert_eq!(made.count(Counter::PacketData), 2);
    assert_eq!(made.count(Counter::PacketSlow), 0);
    made
}

/// That, and the kernel took the connection back for it.
fn is_taken_back(both: &mut Both, peers: &mut Connection, number: u32) {
    let made = goes_on_in_the_kernel(both, peers, number);
    assert_eq!(made.count(Counter::FlowsResumed), 1);
}
