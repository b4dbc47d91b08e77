//! A flood of SYNs does not push live connections out of the flow table, in the kernel's LRU map as on the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sensor_ebpf::reason::Counter;
use support::packets::Connection;
use support::shop;
use support::sides::{Sides, Totals, config, grown};

/// Flows that the table holds.
const TABLE: u32 = 8192;
/// Connections that live through the flood, each in the middle of a head.
const LIVE: u16 = 2000;
/// SYNs of the flood for each packet of a live connection.
const EACH: u32 = 2;
/// Packets that each live connection sends while the flood lasts.
const ROUNDS: usize = 12;

/// A connection attempt of the flood, from an address of its own.
fn attempt(number: u32) -> Connection {
    let client = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
    Connection::new(SocketAddr::new(client, 40_000), shop::socket("192.0.2.10:80"))
}

/// What the two sides counted while live connections went through a flood of SYNs, to which the server answered or not.
fn flood(answered: bool) -> [Totals; 2] {
    let config = config(shop::CONFIG);
    let mut bounds = config.bounds.clone();
    bounds.flows = TABLE;
    bounds.split_heads = 4096;
    let mut sides = shop::sides(&config, &bounds);
    let run = |sides: &mut Sides, frame: Vec<u8>| {
        sides.run_program(&frame);
        sides.run_host(&frame);
    };
    let before = sides.kernel.totals().unwrap();
    let mut live: Vec<Connection> = (0..LIVE).map(|number| shop::client(1024 + number)).collect();
    for peers in &mut live {
        for segment in peers.open() {
            run(&mut sides, segment.frame());
        }
        run(&mut sides, peers.request(b"GET /products/1 HTTP/1.1\r\n").frame());
    }
    let mut attempts = 0;
    for round in 0..ROUNDS {
        for peers in &mut live {
            for _ in 0..EACH {
                let mut attempt = attempt(attempts);
                attempts += 1;
                run(&mut sides, attempt.syn().frame());
                if answered {
                    run(&mut sides, attempt.syn_ack().frame());
                }
            }
            run(&mut sides, peers.request(format!("X-Round: {round}\r\n").as_bytes()).frame());
        }
    }
    for peers in &mut live {
        run(&mut sides, peers.request(b"\r\n").frame());
    }
    assert!(attempts >= 2 * TABLE, "the flood is a multiple of the table");
    [grown(&before, &sides.kernel.totals().unwrap()), sides.host_totals()]
}

#[test]
fn a_flood_of_syns_evicts_no_live_flow() {
    if !support::kernel("a_flood_of_syns_evicts_no_live_flow") {
        return;
    }
    for answered in [false, true] {
        let [kernel, host] = flood(answered);
        let count = |counts: &Totals, counter: Counter| counts[counter as usize];
        assert_eq!(count(&host, Counter::HeadsRequest), u64::from(LIVE), "answered: {answered}");
        assert_eq!(count(&host, Counter::FlowsPickedUp), 0, "answered: {answered}");
        // The kernel's LRU is an approximation: after 128 entries in a row that were all used, it drops the next one.
        // With live connections in a row, as here, that is less than one in a hundred.
        let heads = count(&kernel, Counter::HeadsRequest);
        assert!(heads >= u64::from(LIVE - LIVE / 100), "answered: {answered}: {heads} of {LIVE} survive");
        // What is dropped is not lost unseen: it is picked up, and counted.
        assert_eq!(count(&kernel, Counter::FlowsPickedUp), u64::from(LIVE) - heads, "answered: {answered}");
    }
}
