//! Bytes that come twice.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::{anomaly, kind};

use super::support::shop;
use super::support::sides::KEY;
use super::{goes_on_in_the_kernel, handed_over, is_taken_back, loaded, opened, request, swapped};

#[test]
fn an_unanswered_request_sent_again_as_it_was() {
    let Some(mut both) = loaded("an_unanswered_request_sent_again_as_it_was") else { return };
    let mut peers = opened(&mut both, 3000);
    let segment = peers.request(&shop::read("1", "first"));
    let made = both.run(&[segment.clone(), segment.clone()]);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
    assert_eq!((made.count(Counter::SegmentsCompared), made.count(Counter::PacketDuplicate)), (1, 1));
    // What it says is what was said, so the collector finds no difference.
    let [version] = &made.told.versions[..] else { panic!("{:?}", made.told) };
    let first = &made.told.events[0];
    assert_eq!((version.credentials(), version.capture(0)), (first.credentials(), first.capture(0)));
    assert_eq!(version.transaction(), 0);
    assert_eq!((both.slow_counts().conflicts, both.slow_counts().unjudged), (0, 0));
    // It stays the kernel's.
    assert_eq!(made.count(Counter::HalvesHandedOver), 0);
    both.run(&[peers.response(&shop::answer(10))]);
    let made = both.run(&[segment]);
    assert_eq!((made.count(Counter::SegmentsCompared), made.count(Counter::PacketDuplicate)), (0, 1), "answered");
    goes_on_in_the_kernel(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn an_unanswered_request_sent_again_otherwise() {
    let Some(mut both) = loaded("an_unanswered_request_sent_again_otherwise") else { return };
    let mut peers = opened(&mut both, 3010);
    let segment = peers.request(&shop::read("1", "first"));
    let mut other = segment.clone();
    other.payload = shop::read("2", "other");
    let made = both.run(&[segment, other]);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
    let [version] = &made.told.versions[..] else { panic!("{:?}", made.told) };
    assert_eq!(version.capture(0), b"GET /members/2?view=full HTTP/1.1");
    assert_eq!(version.credentials()[1].fingerprint, hash128(KEY, b"other"));
    assert_eq!((version.transaction(), both.slow_counts().versions), (0, 1));
    both.run(&[peers.response(&shop::answer(10))]);
    goes_on_in_the_kernel(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn a_part_of_a_head_sent_again() {
    let Some(mut both) = loaded("a_part_of_a_head_sent_again") else { return };
    // Shorter than a step of the digest, a whole number of them, and more than a window.
    for (port, cut, filler) in [(3050, 40, 0), (3051, 64, 0), (3052, 100, 2500)] {
        let mut peers = opened(&mut both, port);
        let head = shop::read("1", "first");
        let line = head.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        let padding = format!("X-Padding: {}\r\n", "p".repeat(filler));
        let head = [&head[..line], padding.as_bytes(), &head[line..]].concat();
        let (first, last) = (peers.request(&head[..cut]), peers.request(&head[cut..]));
        let made = both.run(&[first.clone(), first.clone(), last.clone(), last.clone(), first.clone()]);
        assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
        assert_eq!(made.count(Counter::SegmentsCompared), 3);
        assert!(made.told.versions.is_empty(), "the same bytes: nothing is in doubt");
        for (known, at) in [(&first, 5), (&last, 0), (&last, last.payload.len() - 5)] {
            let mut other = known.clone();
            other.payload[at] ^= 1;
            let made = both.run(&[other]);
            let doubts: Vec<u32> = made.told.versions.iter().map(|version| version.head().anomalies).collect();
            assert_eq!(doubts, [anomaly::CONFLICT], "{cut} {at}");
        }
        both.run(&[peers.response(&shop::answer(10))]);
        goes_on_in_the_kernel(&mut both, &mut peers, 1);
    }
    both.rest();
}

#[test]
fn an_overlap_that_says_the_same_and_more() {
    let Some(mut both) = loaded("an_overlap_that_says_the_same_and_more") else { return };
    let head = shop::read("1", "t");
    let mut peers = opened(&mut both, 3020);
    let first = peers.request(&head[..100]);
    let mut rest = peers.request(&head[100..]);
    rest.sequence = rest.sequence.wrapping_sub(40);
    rest.payload = head[60..].to_vec();
    let made = both.run(&[first, rest]);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
    // A part of the head came again, and the first bytes are nowhere to be compared with: that is in doubt.
    let doubts: Vec<u32> = made.told.versions.iter().map(|version| version.head().anomalies).collect();
    assert_eq!(doubts, [anomaly::CONFLICT]);
    both.run(&[peers.response(&shop::answer(10))]);
    both.run(&[peers.request(&shop::read("2", "t")), peers.response(&shop::answer(10))]);
    assert_eq!(both.slow_counts().conflicts, 0);
    both.rest();
}

#[test]
fn an_overlap_that_says_something_else_and_more() {
    let Some(mut both) = loaded("an_overlap_that_says_something_else_and_more") else { return };
    let mut peers = opened(&mut both, 3025);
    let whole = peers.request(&shop::read("1", "first"));
    // Other bytes for the same place, and a byte more: new to the fast path, which has nothing to compare them with.
    let mut other = whole.clone();
    other.payload = [shop::read("2", "other"), b"G".to_vec()].concat();
    let rest = b"ET /products/1 HTTP/1.1\r\n\r\n";
    peers.client_next = peers.client_next.wrapping_add(1);
    let made = both.run(&[whole, other, peers.request(rest)]);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0), (kind::REQUEST, 1)]);
    let [version] = &made.told.versions[..] else { panic!("{:?}", made.told) };
    assert_eq!(version.credentials()[1].fingerprint, hash128(KEY, b"other"));
    assert_eq!(version.transaction(), 0);
    both.rest();
}

#[test]
fn on_the_slow_path_other_bytes_are_a_conflict() {
    let Some(mut both) = loaded("on_the_slow_path_other_bytes_are_a_conflict") else { return };
    let mut peers = handed_over(&mut both, 3030);
    let pieces = request(&mut peers, &shop::read("1", "first"), 30, 260);
    let mut other = pieces[1].clone();
    let at = other.payload.windows(5).position(|part| part == b"first").unwrap();
    other.payload[at..at + 5].copy_from_slice(b"other");
    let [first, second, third] = pieces;
    // Held: first the one, then the other; the one that came first is what is read.
    let made = both.run_every(&[second, other.clone(), first, third], 100);
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 1)]);
    assert_eq!(made.told.events[0].credentials()[1].fingerprint, hash128(KEY, b"first"));
    let [version] = &made.told.versions[..] else { panic!("{:?}", made.told) };
    assert_eq!(version.credentials()[1].fingerprint, hash128(KEY, b"other"));
    assert_eq!((both.slow_counts().conflicts, version.transaction()), (1, 1));
    both.run(&[peers.response(&shop::answer(10))]);
    is_taken_back(&mut both, &mut peers, 2);
    both.rest();
}

#[test]
fn both_directions_out_of_order_at_once() {
    let Some(mut both) = loaded("both_directions_out_of_order_at_once") else { return };
    for (port, every) in [(3040, 1), (3041, 2), (3042, 3), (3043, 100)] {
        let mut peers = opened(&mut both, port);
        let mut segments = swapped(request(&mut peers, &shop::login(), 30, 60)).to_vec();
        segments.extend(swapped(super::response(&mut peers, &shop::login_answer("opaque"), 100, 220)));
        let [one, two] = [shop::read("1", "t"), shop::read("2", "t")].map(|bytes| peers.request(&bytes));
        let [three, four] = [shop::answer(700), shop::answer(0)].map(|bytes| peers.response(&bytes));
        segments.extend([two, one.clone(), four, one, three.clone(), three]);
        let made = both.run_every(&segments, every);
        let mut told = made.told.exchanges();
        told.retain(|(kind, _)| *kind != kind::END);
        told.sort_unstable();
        assert_eq!(
            told,
            [0, 1, 2]
                .map(|number| (kind::REQUEST, number))
                .into_iter()
                .chain([0, 1, 2].map(|number| (kind::RESPONSE, number)))
                .collect::<Vec<_>>()
        );
        let body = &shop::login_answer("opaque")[shop::body_at(&shop::login_answer("opaque"))..];
        assert_eq!(made.told.teed(), body);
        is_taken_back(&mut both, &mut peers, 3);
        both.rest();
    }
}
