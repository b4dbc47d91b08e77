//! Everything that can stand around TCP, through the real object and the host's parser: the same records and totals on
//! both sides, with tunnels followed and without, and for frames that are cut or changed anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;
use support::packets::Connection;
use support::shop::{self, CONFIG, client, socket};
use support::sides::{Sides, config};
use support::tunnels::{IN_FRAME, IN_IP, frame};

fn following() -> Sides {
    let config = config(&format!("tunnels = true\n{CONFIG}"));
    shop::sides(&config, &config.bounds)
}

/// A connection of either IP version, from its own port.
fn peers(six: bool, port: u16) -> Connection {
    if six {
        Connection::new(socket(&format!("[2001:db8::7]:{port}")), socket("[2001:db8::10]:80"))
    } else {
        client(port)
    }
}

/// The shortest frame that `BPF_PROG_TEST_RUN` takes.
const SHORTEST: usize = 55;

#[test]
fn every_tunnel_leads_to_the_request_in_the_kernel() {
    if !support::kernel("every_tunnel_leads_to_the_request_in_the_kernel") {
        return;
    }
    let mut sides = following();
    let mut port = 1000;
    for six in [false, true] {
        for (outer, around) in IN_FRAME {
            for (name, tunnel) in IN_IP.iter().chain(&[("nothing", (|inner| inner) as fn(Vec<u8>) -> Vec<u8>)]) {
                port += 1;
                let mut peers = peers(six, port);
                let wrapped = |segment: Vec<u8>| around(tunnel(segment[14..].to_vec()));
                sides.expect_frame(&wrapped(peers.syn().frame()), Counter::PacketSyn);
                let head = shop::read("4711", "t");
                let asked = sides.expect_frame(&wrapped(peers.request(&head).frame()), Counter::PacketData);
                assert_eq!(asked.records.kinds(), [kind::REQUEST], "{outer} {name}");
                assert_eq!(asked.count(Counter::BytesParsed), head.len() as u64, "{outer} {name}");
            }
        }
    }
}

#[test]
fn four_tunnels_in_each_other_are_followed_in_the_kernel() {
    if !support::kernel("four_tunnels_in_each_other_are_followed_in_the_kernel") {
        return;
    }
    let mut sides = following();
    for (index, (name, tunnel)) in (0..).zip(IN_IP) {
        let mut peers = client(2000 + index);
        sides.expect(&peers.syn(), Counter::PacketSyn);
        let mut packet = peers.request(&shop::read("1", "t")).frame()[14..].to_vec();
        for level in 1..=5 {
            packet = tunnel(packet);
            let told = sides.run_frames(&[frame(packet.clone())]);
            let teredo = name.starts_with("teredo");
            let found = level <= if teredo { 2 } else { 4 };
            let first = level == 1;
            let want = match (found, first) {
                (true, true) => Counter::PacketData,
                (true, false) => Counter::PacketDuplicate,
                (false, _) => Counter::PacketNotTcp,
            };
            assert_eq!(told.count(want), 1, "{name} at {level}");
        }
    }
}

#[test]
fn without_leave_the_kernel_reads_nothing_inside_a_tunnel() {
    if !support::kernel("without_leave_the_kernel_reads_nothing_inside_a_tunnel") {
        return;
    }
    let mut sides = shop::loaded();
    for (index, (name, tunnel)) in (0..).zip(IN_IP) {
        let request = client(3000 + index).request(&shop::read("1", "t")).frame()[14..].to_vec();
        let told = sides.expect_frame(&frame(tunnel(request)), Counter::PacketNotTcp);
        assert!(told.records.events.is_empty(), "{name}");
    }
    for (index, (name, around)) in (0..).zip(IN_FRAME) {
        let request = client(4000 + index).request(&shop::read("1", "t")).frame()[14..].to_vec();
        let want = if *name == "pseudowire" { Counter::PacketNotIp } else { Counter::PacketData };
        sides.expect_frame(&around(request), want);
    }
}

#[test]
fn cut_and_changed_frames_are_the_same_to_kernel_and_host() {
    if !support::kernel("cut_and_changed_frames_are_the_same_to_kernel_and_host") {
        return;
    }
    let mut sides = following();
    for (index, (_, tunnel)) in (0..).zip(IN_IP) {
        let packet = client(5000 + index).request(b"GET / HTTP/1.1\r\n\r\n").frame()[14..].to_vec();
        let whole = frame(tunnel(packet));
        let cut: Vec<Vec<u8>> = (SHORTEST..whole.len()).map(|len| whole[..len].to_vec()).collect();
        let changed = (14..whole.len()).flat_map(|at| {
            [0x00, 0xff, 0x41].map(|byte| {
                let mut frame = whole.clone();
                frame[at] ^= byte;
                frame
            })
        });
        let frames: Vec<Vec<u8>> = cut.into_iter().chain(changed).collect();
        sides.run_frames(&frames);
    }
}
