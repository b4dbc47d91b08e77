//! Bounds that are reached: records are lost, and counted, and nothing is told twice.

use std::collections::BTreeSet;

use sensor::capture::tables::Tables;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;

use super::support::packets::Segment;
use super::support::paths::{Live, Object, Told};
use super::support::sides::{KEY, assert_identities, config};
use super::support::{self, shop};
use super::{request, swapped};

/// A shop whose byte ring has one page.
fn small() -> Live {
    let config = config(shop::CONFIG);
    let mut bounds = config.bounds.clone();
    bounds.byte_ring_bytes = 4096;
    let tables = Tables::new(&config, KEY).unwrap();
    let object = Object::load(&tables, &bounds, &super::local()).alone();
    Live::new(object, &tables, (&bounds).into())
}

#[test]
fn a_full_byte_ring_loses_segments_and_counts_them() {
    if !support::kernel("a_full_byte_ring_loses_segments_and_counts_them") {
        return;
    }
    let mut live = small();
    let mut records: Vec<Vec<u8>> = Vec::new();
    // Forty connections, out of order, the rings read now and then only.
    let mut packets: Vec<Segment> = Vec::new();
    let mut connections: Vec<_> = (0..40).map(|number| shop::client(5000 + number)).collect();
    for peers in &mut connections {
        packets.extend(peers.open());
    }
    for round in 0..12 {
        for peers in &mut connections {
            let head = shop::read(&round.to_string(), &"t".repeat(600));
            packets.extend(swapped(request(peers, &head, 30, 60)));
            packets.push(peers.response(&shop::answer(700)));
        }
    }
    for (number, packet) in packets.iter().enumerate() {
        live.packet(&packet.frame());
        if number % 7 == 0 {
            live.turn(|record| records.push(record.to_vec()));
        }
    }
    live.settle(|record| records.push(record.to_vec()));
    let totals = live.totals();
    assert_identities(&totals);
    assert!(totals[Counter::LostSegment as usize] > 30, "{}", totals[Counter::LostSegment as usize]);
    assert_eq!(totals[Counter::LostEventRing as usize], 0);
    let mut told = BTreeSet::new();
    for record in Told::new(&records).events {
        let flow = record.0[16..28].to_vec();
        if matches!(record.kind(), kind::REQUEST | kind::RESPONSE) && record.transaction() != u32::MAX {
            assert!(told.insert((flow, record.kind(), record.transaction())), "told twice: {record:?}");
        }
    }
    assert!(told.len() > 20, "some requests were seen: {}", told.len());

    // With room again, a new connection is followed as ever. (The captures of an open head would not fit a page.)
    let mut peers = shop::client(6000);
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut segments = peers.open();
    let [first, second, third] = request(&mut peers, &shop::read("1", "t"), 30, 60);
    segments.extend([second, first, third]);
    segments.push(peers.response(&shop::answer(700)));
    for segment in segments {
        live.packet(&segment.frame());
        live.turn(|record| records.push(record.to_vec()));
    }
    assert_eq!(Told::new(&records).exchanges(), [(kind::REQUEST, 0), (kind::RESPONSE, 0)]);
}
