use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Sequence numbers wrap in every test.
const START: u32 = u32::MAX - 9;
const LIMIT: usize = 1 << 20;

fn stream() -> Stream {
    Stream::new(START, LIMIT)
}

fn at(offset: u32) -> u32 {
    START.wrapping_add(offset)
}

/// Everything that is in order now: bytes, and whether they were contradicted.
fn drain(stream: &mut Stream) -> Vec<(Vec<u8>, bool)> {
    let mut pieces = Vec::new();
    while stream.next(|piece| pieces.push((piece.bytes.to_vec(), piece.conflict))) {}
    pieces
}

fn text(stream: &mut Stream) -> String {
    drain(stream).into_iter().map(|(bytes, _)| String::from_utf8(bytes).unwrap()).collect()
}

fn versions(stream: &mut Stream) -> Vec<String> {
    let mut all: Vec<_> =
        stream.conflicts().map(|version| String::from_utf8(version.bytes.to_vec()).unwrap()).collect();
    all.sort();
    all
}

#[test]
fn segments_in_order_come_out_one_by_one() {
    let mut stream = stream();
    assert_eq!(stream.push(at(0), b"GET / HTTP/1.1\r\n", false, 5), Pushed::InOrder);
    let mut time = 0;
    assert!(stream.next(|piece| time = piece.time));
    assert_eq!(time, 5);
    assert_eq!(stream.push(at(16), b"\r\n", false, 6), Pushed::InOrder);
    assert_eq!(text(&mut stream), "\r\n");
    assert_eq!(stream.next_sequence(), 8);
    assert!(!stream.finished());
}

#[test]
fn what_lies_behind_a_hole_waits_and_keeps_its_segments() {
    let mut stream = stream();
    assert_eq!(stream.push(at(8), b"cc", false, 10), Pushed::Held);
    assert_eq!(stream.push(at(4), b"bbbb", false, 20), Pushed::Held);
    assert!(!stream.next(|_| panic!("a hole is next")));
    assert_eq!(stream.hole(), Some(Hole { missing: 4, since: 10 }));
    assert_eq!(stream.push(at(0), b"aaaa", false, 30), Pushed::InOrder);
    assert_eq!(stream.hole(), None);
    let mut pieces = Vec::new();
    while stream.next(|piece| pieces.push((piece.bytes.to_vec(), piece.time))) {}
    assert_eq!(pieces, [(b"aaaa".to_vec(), 30), (b"bbbb".to_vec(), 30), (b"cc".to_vec(), 30)]);
    assert_eq!(stream.next_sequence(), 0);
}

#[test]
fn a_second_hole_counts_from_the_last_progress() {
    let mut stream = stream();
    stream.push(at(8), b"c", false, 10);
    stream.push(at(4), b"bb", false, 20);
    stream.push(at(0), b"aaaa", false, 30);
    assert_eq!(text(&mut stream), "aaaabb");
    assert_eq!(stream.hole(), Some(Hole { missing: 2, since: 30 }));
}

#[test]
fn a_hole_can_be_given_up() {
    let mut stream = stream();
    assert_eq!(stream.skip(), 0);
    stream.push(at(0), b"GET", false, 1);
    assert_eq!(text(&mut stream), "GET");
    stream.push(at(100), b"HEAD", true, 2);
    assert_eq!(stream.skip(), 97);
    assert_eq!(text(&mut stream), "HEAD");
    assert!(stream.finished());
    // The hole's bytes come after all: too late.
    assert_eq!(stream.push(at(3), &[b'x'; 97], false, 3), Pushed::Duplicate);
    assert_eq!(stream.take_counts().uncompared, 1);
}

#[test]
fn duplicates_and_equal_overlaps_are_nothing() {
    let mut stream = stream();
    stream.push(at(0), b"0123456789abcdef", false, 1);
    assert_eq!(text(&mut stream), "0123456789abcdef");
    let before = stream.held();
    assert_eq!(stream.push(at(0), b"0123456789abcdef", false, 2), Pushed::Duplicate);
    assert_eq!(stream.push(at(4), b"456", false, 2), Pushed::Duplicate);
    assert_eq!(stream.push(at(4), b"", false, 2), Pushed::Duplicate);
    assert_eq!(stream.held(), before);
    assert_eq!(stream.push(at(12), b"cdefgh", false, 3), Pushed::InOrder);
    assert_eq!(text(&mut stream), "gh");
    assert_eq!(stream.push(at(20), b"kl", false, 4), Pushed::Held);
    assert_eq!(stream.push(at(20), b"kl", false, 5), Pushed::Duplicate);
    assert_eq!(stream.push(at(16), b"ghijklmn", false, 6), Pushed::InOrder);
    assert_eq!(drain(&mut stream), [(b"ij".to_vec(), false), (b"kl".to_vec(), false), (b"mn".to_vec(), false)]);
    assert!(!stream.conflicted());
    assert_eq!(stream.take_counts(), Counts::default());
}

#[test]
fn what_is_far_away_does_not_belong() {
    let mut stream = stream();
    for far in [1 << 27, 1 << 31, (1 << 31) - 1, (1_u32 << 27).wrapping_neg(), (1 << 31) + 1] {
        assert_eq!(stream.push(at(far), b"x", true, 1), Pushed::OutOfWindow, "{far}");
    }
    assert_eq!((stream.held(), stream.hole()), (0, None));
    assert!(!stream.finished());
}

#[test]
fn the_end_is_where_the_stream_gets_to() {
    let mut stream = stream();
    assert_eq!(stream.push(at(4), b"ef", true, 1), Pushed::Held);
    // Somebody else's idea of the end: passed by.
    assert_eq!(stream.push(at(2), b"", true, 1), Pushed::Held);
    assert_eq!(stream.push(at(0), b"ab", false, 1), Pushed::InOrder);
    assert_eq!(text(&mut stream), "ab");
    assert!(stream.finished(), "a FIN stands here, and nothing is known beyond");
    assert_eq!(stream.push(at(2), b"cd", false, 1), Pushed::InOrder);
    assert!(!stream.finished());
    assert_eq!(text(&mut stream), "cdef");
    assert!(stream.finished());
    assert_eq!(stream.push(at(4), b"ef", true, 1), Pushed::Duplicate);
    assert_eq!(stream.push(at(6), b"", true, 1), Pushed::Duplicate);
    let mut stream = Stream::new(START, LIMIT);
    assert_eq!(stream.push(at(0), b"", true, 1), Pushed::InOrder);
    assert!(stream.finished());
}

#[test]
fn a_head_that_was_delivered_and_comes_again_differently_is_another_version() {
    let mut stream = stream();
    stream.push(at(0), b"GET /a HTTP/1.1\r\n", false, 1);
    drain(&mut stream);
    assert_eq!(stream.push(at(0), b"GET /b HTTP/1.1\r\n", false, 2), Pushed::Duplicate);
    stream.push(at(17), b"\r\n", false, 3);
    drain(&mut stream);
    assert!(stream.conflicted());
    let mut all = stream.conflicts();
    let version = all.next().unwrap();
    assert_eq!((version.sequence, version.bytes.as_slice()), (START, &b"GET /b HTTP/1.1\r\n\r\n"[..]));
    assert!(all.next().is_none());
    drop(all);
    assert!(!stream.conflicted());
    // Once is enough.
    stream.push(at(0), b"GET /b HTTP/1.1\r\n", false, 4);
    assert_eq!(versions(&mut stream), [""; 0]);
    assert_eq!(stream.take_counts(), Counts { conflicts: 2, unjudged: 0, uncompared: 0 });
}

#[test]
fn a_contradiction_of_what_waits_shows_when_it_is_delivered() {
    let mut stream = stream();
    stream.push(at(4), b"/a HTTP", false, 1);
    assert_eq!(stream.push(at(4), b"/b HTTP/1.1", false, 2), Pushed::Held);
    assert!(!stream.conflicted(), "not delivered yet");
    stream.push(at(0), b"GET ", false, 3);
    assert_eq!(drain(&mut stream), [(b"GET ".to_vec(), false), (b"/a HTTP".to_vec(), true), (b"/1.1".to_vec(), false)]);
    assert_eq!(versions(&mut stream), ["GET /b HTTP/1.1"]);
}

#[test]
fn a_contradiction_that_reaches_beyond_brings_the_rest() {
    let mut stream = stream();
    stream.push(at(0), b"GET /a", false, 1);
    drain(&mut stream);
    assert_eq!(stream.push(at(4), b"/bcd", false, 2), Pushed::InOrder);
    assert_eq!(text(&mut stream), "cd");
    assert_eq!(versions(&mut stream), ["GET /bcd"]);
}

#[test]
fn contradictions_are_combined() {
    let mut stream = stream();
    stream.push(at(0), b"abcdefgh", false, 1);
    drain(&mut stream);
    stream.push(at(1), b"B", false, 2);
    stream.push(at(5), b"F", false, 3);
    stream.push(at(4), b"eF", false, 3);
    assert_eq!(versions(&mut stream), ["aBcdeFgh", "aBcdefgh", "abcdeFgh"]);
    // A third for a place that has two: combined with the other place's.
    stream.push(at(1), b"1", false, 4);
    assert_eq!(versions(&mut stream), ["a1cdeFgh", "a1cdefgh"]);
}

#[test]
fn a_head_that_comes_again_byte_by_byte_is_seen_whole() {
    let mut stream = stream();
    let (first, again) = (b"GET /one-and-this HTTP", b"PUT /two-and-that http");
    for (index, byte) in (0_u32..).zip(first) {
        stream.push(at(index), &[*byte], false, 1);
        drain(&mut stream);
    }
    for (index, byte) in (0_u32..).zip(again) {
        stream.push(at(index), &[*byte], false, 2);
    }
    let all = versions(&mut stream);
    assert!(all.len() < 1 << PATCHES_MAX);
    assert!(stream.take_counts().unjudged > 0);
    let mut stream = Stream::new(START, LIMIT);
    stream.push(at(0), b"abcdefgh", false, 1);
    drain(&mut stream);
    for (index, byte) in (0_u32..).zip(b"ABCDEFGH") {
        stream.push(at(index), &[*byte], false, 2);
    }
    assert!(versions(&mut stream).contains(&"ABCDEFGH".to_owned()));
    assert_eq!(stream.take_counts().unjudged, 0);
}

#[test]
fn a_mark_forgets() {
    let mut stream = stream();
    stream.push(at(0), b"one two ", false, 1);
    drain(&mut stream);
    stream.mark_at(at(4));
    stream.push(at(0), b"ONE TWO ", false, 2);
    assert_eq!(versions(&mut stream), ["TWO "]);
    assert_eq!(stream.take_counts(), Counts { conflicts: 1, unjudged: 0, uncompared: 1 });
    // Not a place between the mark and the next byte.
    for odd in [0, 9, 1 << 31] {
        stream.mark_at(at(odd));
    }
    stream.push(at(4), b"too ", false, 2);
    assert!(stream.conflicted());
    stream.mark();
    assert!(!stream.conflicted());
    assert_eq!(stream.take_counts(), Counts { conflicts: 1, unjudged: 1, uncompared: 0 }, "nobody asked in time");
    stream.push(at(4), b"tow ", false, 2);
    assert_eq!(stream.take_counts(), Counts { conflicts: 0, unjudged: 0, uncompared: 1 });
    stream.push(at(8), b"three", false, 3);
    stream.push(at(8), b"THREE", false, 3);
    drain(&mut stream);
    assert_eq!(versions(&mut stream), ["THREE"]);
}

#[test]
fn the_first_bytes_are_remembered_up_to_the_bound() {
    let mut stream = stream().remembering(8);
    stream.push(at(0), b"0123456789", false, 1);
    drain(&mut stream);
    stream.push(at(0), b"0123x56789", false, 1);
    assert_eq!(versions(&mut stream), ["0123x567"]);
    stream.push(at(8), b"x", false, 1);
    assert_eq!(stream.take_counts(), Counts { conflicts: 1, unjudged: 0, uncompared: 2 });
    stream.mark();
    stream.push(at(10), b"abc", false, 1);
    drain(&mut stream);
    stream.push(at(10), b"xbc", false, 1);
    assert_eq!(versions(&mut stream), ["xbc"]);
    let mut stream = Stream::new(START, LIMIT).remembering(0);
    stream.push(at(0), b"abc", false, 1);
    drain(&mut stream);
    stream.push(at(0), b"xyz", false, 1);
    assert_eq!((stream.held(), versions(&mut stream).len()), (0, 0));
}

#[test]
fn single_bytes_behind_a_hole_fill_the_bound() {
    let mut stream = Stream::new(START, 10 * (OVERHEAD + 1));
    for index in 0..10 {
        assert_eq!(stream.push(at(2 * index + 2), b"x", false, 1), Pushed::Held);
    }
    assert_eq!(stream.push(at(100), b"x", false, 1), Pushed::Full);
    assert_eq!(stream.push(at(2), b"x", false, 1), Pushed::Duplicate);
    assert_eq!(stream.held(), 10 * (OVERHEAD + 1));
    // What fills the holes is taken.
    assert_eq!(stream.push(at(0), &[b'x'; 30], false, 1), Pushed::InOrder);
    assert_eq!(text(&mut stream), "x".repeat(30));
    assert_eq!(stream.push(at(100), b"x", false, 1), Pushed::Held);
    // And nothing more until it was fetched.
    let mut stream = Stream::new(START, 2 * OVERHEAD);
    assert_eq!(stream.push(at(0), b"a", false, 1), Pushed::InOrder);
    assert_eq!(stream.push(at(0), b"ab", false, 1), Pushed::Full);
}

#[test]
fn what_was_forgotten_gives_its_room_back() {
    let mut stream = stream();
    for round in 0_u32..100 {
        stream.push(stream.next_sequence(), &[7; 3000], false, 1);
        drain(&mut stream);
        if round % 7 == 0 {
            stream.mark_at(stream.next_sequence().wrapping_sub(10));
        }
    }
    assert!(stream.held() <= 2 * HISTORY, "{}", stream.held());
    stream.mark();
    assert!(stream.held() <= 4096, "{}", stream.held());
}

/// A segment of a generated stream: from where to where, and how late it comes.
#[derive(Clone, Debug)]
struct Cut {
    from: usize,
    len: usize,
    late: usize,
}

/// Segments that cover `len` bytes, more than once here and there, in an order disturbed within a window.
fn cuts(len: usize) -> impl Strategy<Value = Vec<Cut>> {
    let extra = vec((0..len, 1..40_usize, 0..20_usize), 0..20);
    (vec((1..30_usize, 0..12_usize), len..=len), extra).prop_map(move |(whole, extra)| {
        let mut from = 0;
        let mut all = Vec::new();
        for (size, late) in whole {
            if from < len {
                all.push(Cut { from, len: size.min(len - from), late });
                from += size;
            }
        }
        for (from, size, late) in extra {
            all.push(Cut { from, len: size.min(len - from), late: late + from / 15 });
        }
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|index| index + all[*index].late);
        order.into_iter().map(|index| all[index].clone()).collect()
    })
}

proptest! {
    #[test]
    fn any_order_of_the_same_bytes_gives_the_same_bytes(
        (bytes, cuts) in vec(any::<u8>(), 1..400).prop_flat_map(|bytes| { let len = bytes.len(); (Just(bytes), cuts(len)) }),
        start in prop_oneof![Just(START), (u32::MAX - 400)..u32::MAX, any::<u32>()],
        marks in vec(any::<bool>(), 1..8),
    ) {
        let mut stream = Stream::new(start, LIMIT);
        let mut out = Vec::new();
        for (now, cut) in cuts.iter().enumerate() {
            let end = cut.from + cut.len;
            let sequence = start.wrapping_add(u32::try_from(cut.from).unwrap());
            let pushed = stream.push(sequence, &bytes[cut.from..end], end == bytes.len(), now as u64);
            prop_assert!(!matches!(pushed, Pushed::OutOfWindow | Pushed::Full));
            let before = out.len();
            let mut last = 0;
            while stream.next(|piece| {
                out.extend_from_slice(piece.bytes);
                assert!(!piece.conflict && piece.time >= last && piece.time <= now as u64);
                last = piece.time;
            }) {}
            prop_assert!(pushed == Pushed::InOrder || out.len() == before);
            prop_assert_eq!(stream.next_sequence(), start.wrapping_add(u32::try_from(out.len()).unwrap()));
            if marks[now % marks.len()] {
                stream.mark();
            }
            prop_assert!(!stream.conflicted());
        }
        prop_assert_eq!(out, bytes);
        prop_assert!(stream.finished());
        let counts = stream.take_counts();
        prop_assert_eq!((counts.conflicts, counts.unjudged), (0, 0));
    }

    #[test]
    fn what_came_first_is_delivered_and_what_differs_is_noticed(
        pushes in vec((0..60_usize, vec(0..3_u8, 1..20)), 1..40),
    ) {
        let mut stream = stream();
        let mut first: Vec<Option<u8>> = vec![None; 80];
        let mut out = Vec::new();
        for (from, bytes) in &pushes {
            let place = first[*from..].iter_mut().zip(bytes);
            let differs = place.fold(false, |differs, (known, byte)| *known.get_or_insert(*byte) != *byte || differs);
            let before = stream.take_counts().conflicts;
            prop_assert_eq!(before, 0);
            stream.push(at(u32::try_from(*from).unwrap()), bytes, false, 1);
            prop_assert_eq!(stream.take_counts().conflicts, u32::from(differs));
            for (piece, _) in drain(&mut stream) {
                out.extend(piece);
            }
        }
        let expected: Vec<u8> = first.iter().map_while(|byte| *byte).collect();
        prop_assert_eq!(&out, &expected);
        for version in stream.conflicts() {
            prop_assert_eq!(version.bytes.len(), expected.len());
            prop_assert_ne!(version.bytes.as_slice(), expected.as_slice());
            // Every byte of a version was sent for its place.
            for (index, byte) in version.bytes.iter().enumerate() {
                let sent = |(from, bytes): &(usize, Vec<u8>)| index.checked_sub(*from).and_then(|at| bytes.get(at)) == Some(byte);
                prop_assert!(pushes.iter().any(sent));
            }
        }
    }

    #[test]
    fn hostile_segments_stay_within_the_bound(
        pushes in vec((any::<Index>(), 0..3_u8, 0..300_usize, any::<bool>(), 0..10_u8), 1..300),
    ) {
        let (limit, history, longest) = (4000, 700, 300);
        let mut stream = Stream::new(START, limit).remembering(history);
        for (place, range, len, fin, action) in pushes {
            let ahead = match range {
                0 => u32::try_from(place.index(2000)).unwrap().wrapping_sub(700),
                1 => u32::try_from(place.index(1 << 28)).unwrap().wrapping_sub(1 << 27),
                _ => u32::try_from(place.index(1 << 32)).unwrap(),
            };
            let bytes: Vec<u8> = (0..len).map(|byte| u8::try_from((byte * len) % 251).unwrap()).collect();
            let next = stream.next_sequence();
            stream.push(next.wrapping_add(ahead), &bytes, fin, 1);
            let most = 2 * limit + longest + 3 * history.next_power_of_two() + PATCHES_MAX * OVERHEAD;
            prop_assert!(stream.held() <= most, "{}", stream.held());
            match action {
                0 => { drain(&mut stream); }
                1 => { stream.skip(); }
                2 => stream.mark(),
                3 => stream.mark_at(next.wrapping_sub(u32::try_from(len).unwrap())),
                4 => prop_assert!(stream.conflicts().all(|version| version.bytes.len() <= history)),
                5 => { while stream.skip() > 0 { drain(&mut stream); } }
                _ => {}
            }
            let (hole, finished) = (stream.hole(), stream.finished());
            prop_assert!(hole.is_none_or(|hole| hole.missing > 0));
            prop_assert!(!(finished && stream.next(|_| ())));
        }
    }
}
