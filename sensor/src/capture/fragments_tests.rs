//! Reassembly against every order, overlap and flood that an attacker may choose.

use proptest::prelude::*;
use sensor_ebpf::packet::{Address, SliceHeaders, ethertype, mapped, network};

use super::fragments::{Counts, Datagram, Piece, Reassembler};

const SECOND: u64 = 1_000_000_000;
const SIX: [Address; 2] = [[1, 2], [1, 3]];

fn four() -> [Address; 2] {
    [mapped(u32::from_ne_bytes([10, 0, 0, 1])), mapped(u32::from_ne_bytes([10, 0, 0, 2]))]
}

fn piece(ends: [Address; 2], identification: u32, at: u32, more: bool, bytes: &[u8]) -> Piece<'_> {
    Piece { source: ends[0], destination: ends[1], protocol: 6, identification, at, more, bytes }
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

fn reassembler() -> Reassembler {
    Reassembler::new(16, 1 << 20)
}

/// The payload cut at multiples of `unit`, as (offset, more, bytes).
fn cut(payload: &[u8], unit: usize) -> Vec<(u32, bool, Vec<u8>)> {
    payload
        .chunks(unit)
        .enumerate()
        .map(|(index, bytes)| {
            let at = index * unit;
            (u32::try_from(at).unwrap(), at + bytes.len() < payload.len(), bytes.to_vec())
        })
        .collect()
}

fn whole(datagram: Option<Datagram>) -> Option<(Vec<u8>, bool)> {
    datagram.map(|datagram| (datagram.payload.to_vec(), datagram.conflicting))
}

#[test]
fn pieces_in_any_order_make_the_datagram() {
    let payload = text(45);
    for ends in [four(), SIX] {
        let mut pieces = cut(&payload, 8);
        for turn in 0..pieces.len() {
            pieces.rotate_left(turn);
            let mut fragments = reassembler();
            let mut done = Vec::new();
            for (at, more, bytes) in &pieces {
                done.extend(whole(fragments.push(1, &piece(ends, 9, *at, *more, bytes))));
            }
            assert_eq!(done, [(payload.clone(), false)]);
            assert_eq!(fragments.counts(), Counts { reassembled: 1, ..Counts::default() });
            assert_eq!((fragments.waiting(), fragments.bytes()), (0, 0), "nothing is left behind");
        }
    }
}

#[test]
fn datagrams_are_kept_apart() {
    let mut fragments = reassembler();
    let mut udp = piece(four(), 1, 0, true, &[1; 8]);
    udp.protocol = 17;
    let others = [
        piece(four(), 2, 0, true, &[2; 8]),
        piece([four()[1], four()[0]], 1, 0, true, &[3; 8]),
        udp,
        piece(four(), 1, 0, true, &[4; 8]),
    ];
    for other in &others {
        assert!(fragments.push(1, other).is_none());
    }
    assert_eq!(fragments.waiting(), 4);
    let done = fragments.push(1, &piece(four(), 1, 8, false, &[5])).unwrap();
    assert_eq!((done.protocol, done.payload.to_vec()), (6, vec![4, 4, 4, 4, 4, 4, 4, 4, 5]));
}

#[test]
fn the_first_fragment_names_the_protocol_of_ipv6() {
    let mut fragments = reassembler();
    let mut last = piece(SIX, 1, 8, false, &[5; 3]);
    last.protocol = 17;
    assert!(fragments.push(1, &last).is_none());
    assert_eq!(fragments.push(1, &piece(SIX, 1, 0, true, &[4; 8])).unwrap().protocol, 6);
}

#[test]
fn repeated_and_overlapping_pieces_that_agree_are_fine() {
    let payload = text(40);
    for ends in [four(), SIX] {
        let mut fragments = reassembler();
        for (from, to) in [(8, 24), (8, 24), (16, 32), (0, 16)] {
            let at = u32::try_from(from).unwrap();
            assert!(fragments.push(1, &piece(ends, 1, at, true, &payload[from..to])).is_none());
        }
        let done = whole(fragments.push(1, &piece(ends, 1, 8, false, &payload[8..])));
        assert_eq!(done, Some((payload.clone(), false)));
    }
}

#[test]
fn of_two_versions_ipv4_takes_the_first_and_ipv6_none() {
    let run = |ends| {
        let mut fragments = reassembler();
        assert!(fragments.push(1, &piece(ends, 1, 8, true, b"BBBBBBBB")).is_none());
        assert!(fragments.push(1, &piece(ends, 1, 0, true, b"AAAAAAAAxxxxxxxxCCCCCCCC")).is_none());
        let done = whole(fragments.push(1, &piece(ends, 1, 24, false, b"D")));
        (done, fragments.counts(), fragments.bytes())
    };
    let (done, counts, bytes) = run(four());
    assert_eq!(done, Some((b"AAAAAAAABBBBBBBBCCCCCCCCD".to_vec(), true)));
    assert_eq!((counts.reassembled, counts.conflicting, bytes), (1, 1, 0));
    let (done, counts, bytes) = run(SIX);
    assert_eq!(done, None, "RFC 5722: also what comes later is thrown away");
    assert_eq!((counts.reassembled, counts.dropped), (0, 2));
    assert!(bytes < 100, "only the reminder is kept: {bytes}");
}

#[test]
fn an_end_that_contradicts_another_is_not_believed() {
    for ends in [four(), SIX] {
        let mut fragments = reassembler();
        assert!(fragments.push(1, &piece(ends, 1, 16, false, b"EEEE")).is_none());
        assert!(fragments.push(1, &piece(ends, 1, 8, false, b"ZZ")).is_none());
        assert!(fragments.push(1, &piece(ends, 1, 24, true, b"ZZZZZZZZ")).is_none());
        let done = whole(fragments.push(1, &piece(ends, 1, 0, true, b"AAAAAAAABBBBBBBB")));
        let four = ends != SIX;
        assert_eq!(done, four.then(|| (b"AAAAAAAABBBBBBBBEEEE".to_vec(), true)));
    }
}

#[test]
fn what_fits_nowhere_is_counted() {
    let mut fragments = reassembler();
    // Empty; beyond the longest datagram; an offset that wraps; no multiple of eight.
    for (at, more, len) in [(0, true, 0), (0, false, 0), (65_528, false, 9), (u32::MAX, false, 8), (8, true, 7)] {
        assert!(fragments.push(1, &piece(SIX, 1, at, more, &vec![0; len])).is_none());
    }
    assert!(fragments.push(1, &piece(four(), 1, 65_512, false, &[0; 4])).is_none());
    assert_eq!((fragments.counts().dropped, fragments.waiting()), (6, 0));
    // Of an IPv4 fragment that is no multiple of eight, receivers take what is.
    assert!(fragments.push(1, &piece(four(), 1, 0, true, b"0123456789")).is_none());
    let done = whole(fragments.push(1, &piece(four(), 1, 8, false, b"XY")));
    assert_eq!(done, Some((b"01234567XY".to_vec(), false)));
}

#[test]
fn the_longest_datagrams_fit() {
    for (ends, len) in [(four(), 65_515), (SIX, 65_535)] {
        let payload = text(len);
        let mut fragments = reassembler();
        let mut done = None;
        for (at, more, bytes) in cut(&payload, 1480) {
            done = fragments.push(1, &piece(ends, 1, at, more, &bytes));
        }
        let mut packet = Vec::new();
        let datagram = done.unwrap();
        let kind = datagram.packet(&mut packet);
        assert_eq!(packet.len(), len + if ends == SIX { 40 } else { 20 });
        assert!(packet.ends_with(&payload));
        let mut out = sensor_ebpf::packet::Packet::default();
        let all = u32::try_from(packet.len()).unwrap();
        // Not TCP at all, but the addresses must be those.
        let _ = network(&SliceHeaders(&packet), kind, 0, all, &mut out);
        assert_eq!(kind, if ends == SIX { ethertype::IPV6 } else { ethertype::IPV4 });
    }
}

#[test]
fn the_packet_made_of_a_datagram_has_its_addresses() {
    for ends in [four(), SIX] {
        let mut tcp = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 16, 0, 0, 0, 0, 0, 0];
        tcp.extend(b"GET / HT");
        let mut fragments = reassembler();
        assert!(fragments.push(1, &piece(ends, 1, 8, false, &tcp[8..])).is_none());
        let datagram = fragments.push(1, &piece(ends, 1, 0, true, &tcp[..8])).unwrap();
        let mut bytes = Vec::new();
        let kind = datagram.packet(&mut bytes);
        let mut out = sensor_ebpf::packet::Packet::default();
        network(&SliceHeaders(&bytes), kind, 0, u32::try_from(bytes.len()).unwrap(), &mut out).unwrap();
        assert_eq!(([out.source, out.destination], out.source_port, out.destination_port), (ends, 40_000, 80));
        assert_eq!((out.sequence, out.acknowledgement, out.payload_len), (1, 2, 8));
    }
}

#[test]
fn waiting_has_an_end() {
    let mut fragments = reassembler();
    assert!(fragments.push(SECOND, &piece(four(), 1, 0, true, &[0; 8])).is_none());
    assert!(fragments.push(31 * SECOND, &piece(four(), 2, 0, true, &[0; 8])).is_none());
    assert_eq!((fragments.waiting(), fragments.counts().dropped), (2, 0));
    assert!(fragments.push(31 * SECOND + 1, &piece(four(), 3, 0, true, &[0; 8])).is_none());
    assert_eq!((fragments.waiting(), fragments.counts().dropped), (2, 1));
    // The rest comes too late: it waits for the beginning in vain.
    assert!(fragments.push(32 * SECOND, &piece(four(), 1, 8, false, &[0; 8])).is_none());
    // Time that goes backwards is no time.
    assert!(fragments.push(0, &piece(four(), 4, 0, true, &[0; 8])).is_none());
    assert_eq!(fragments.waiting(), 4);
}

#[test]
fn floods_push_the_oldest_out() {
    let mut fragments = Reassembler::new(4, 1 << 20);
    for identification in 0..10_000 {
        assert!(fragments.push(1, &piece(four(), identification, 0, true, &[0; 8])).is_none());
        assert!(fragments.waiting() <= 4);
    }
    assert_eq!(fragments.counts().dropped, 9_996);
    assert!(whole(fragments.push(1, &piece(four(), 9_999, 8, false, b"!"))).is_some(), "the newest are there");

    // One datagram of tiny pieces, each between others: what an entry costs counts as well.
    let mut fragments = Reassembler::new(1000, 64 << 10);
    for identification in 0..20 {
        for at in (0..65_000).step_by(16) {
            assert!(fragments.push(1, &piece(SIX, identification, at, true, &[0; 8])).is_none());
            assert!(fragments.bytes() <= 64 << 10, "{}", fragments.bytes());
        }
    }
    assert!(fragments.counts().dropped > 0);
}

proptest! {
    /// Whatever comes: bounds hold, a finished datagram has every byte from a piece of it, and nothing panics.
    #[test]
    fn hostile_pieces_stay_in_bounds(
        pieces in proptest::collection::vec(
            (0..3_u32, prop_oneof![0..12_u32, 8180..8200_u32, any::<u32>()], any::<bool>(), any::<bool>(), 0..40_usize, any::<u8>()),
            0..200,
        ),
    ) {
        let mut fragments = Reassembler::new(2, 4096);
        for (identification, unit, more, six, len, fill) in pieces {
            let ends = if six { SIX } else { four() };
            let bytes = vec![fill; len];
            let pushed = fragments.push(1, &piece(ends, identification, unit.saturating_mul(8), more, &bytes));
            prop_assert!(fragments.waiting() <= 2);
            prop_assert!(fragments.bytes() <= 4096);
            if let Some(datagram) = pushed {
                prop_assert!(!datagram.payload.is_empty() && datagram.payload.len() <= 65_535);
            }
        }
    }

    /// Any cut, any order, any repetition of one payload gives that payload.
    #[test]
    fn reassembly_is_exact(
        len in 1..600_usize,
        cuts in proptest::collection::vec((0..75_usize, 1..75_usize), 0..30),
        order in any::<u64>(),
        six in any::<bool>(),
    ) {
        let payload = text(len);
        let ends = if six { SIX } else { four() };
        let mut pieces: Vec<(usize, usize)> = cuts
            .iter()
            .map(|(at, units)| (at * 8, ((at + units) * 8).min(len)))
            .filter(|(from, to)| from < to)
            .collect();
        pieces.extend((0..len).step_by(64).map(|at| (at, (at + 64).min(len))));
        let turn = usize::try_from(order % pieces.len() as u64).unwrap();
        pieces.rotate_left(turn);
        let mut fragments = reassembler();
        let mut done = None;
        for (from, to) in pieces {
            let at = u32::try_from(from).unwrap();
            let pushed = fragments.push(1, &piece(ends, 7, at, to < len, &payload[from..to]));
            done = done.or(whole(pushed));
        }
        prop_assert_eq!(done, Some((payload, false)));
    }
}
