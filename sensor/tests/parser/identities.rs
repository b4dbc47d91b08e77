//! What must hold whatever arrives: the totals add up, nothing panics, and no flow sees another's bytes.

use proptest::prelude::*;
use sensor::capture::offline::Offline;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::anomaly;

use super::rig::{
    ACK, Conversation, FIN, From, SYN, check_identities, count, drain, engine, fingerprint, segment_of, tables,
};

/// Two halves of a head, on the connection with that client port.
fn halves(engine: &mut Offline, port: u16, first: &[u8], second: Option<&[u8]>) {
    let mut send = |sequence, flags, bytes: &[u8]| {
        let frame = segment_of(port, From::Client, sequence, flags, bytes);
        engine.ethernet(u64::from(port), &frame, u32::try_from(frame.len()).unwrap());
    };
    if !first.is_empty() {
        send(0, SYN, b"");
        send(1, ACK, first);
    }
    if let Some(second) = second {
        send(1000, ACK, second);
    }
}

#[test]
fn a_head_without_a_slot_gets_nothing_of_another() {
    let mut engine = Offline::new(tables(), false, 64, 1, Limits::default());
    let pad = |text: &str| format!("{text}{}\r\n", "x".repeat(999 - text.len() - 2)).into_bytes();
    halves(&mut engine, 1, &pad("GET /first HTTP/1.1\r\nAuthorization: Bearer one\r\nHost: one\r\nX: "), None);
    // The only slot is taken: this head is suspended without one.
    halves(&mut engine, 2, &pad("GET /second HTTP/1.1\r\nAuthorization: Bearer two\r\nHost: two\r\nX: "), None);
    assert_eq!(count(&engine, Counter::HeadSlotLost), 1);
    // Another flow's head is in the scratch area when it goes on.
    halves(&mut engine, 3, b"GET /third HTTP/1.1\r\nAuthorization: Bearer three\r\nHost: three\r\n\r\n", None);
    halves(&mut engine, 2, b"", Some(b"Cookie: SESSION=late\r\n\r\n"));
    halves(&mut engine, 1, b"", Some(b"\r\n"));
    let output = drain(&mut engine);
    check_identities(&engine);
    let [third, second, first] = output.heads.as_slice() else { panic!("{output:?}") };
    assert_eq!(third.line(), "GET /third HTTP/1.1");
    assert_eq!(second.captures.iter().flatten().count(), 0, "{second:?}");
    assert_eq!(second.anomalies & anomaly::CAPTURES_LOST, anomaly::CAPTURES_LOST);
    assert_eq!(second.credentials.len(), 1);
    assert_eq!(second.credentials[0].fingerprint, fingerprint(b"late"));
    assert_eq!(first.line(), "GET /first HTTP/1.1");
    assert_eq!(first.credentials[0].fingerprint, fingerprint(b"one"));
    assert_eq!(first.odd(), 0);
}

/// A request line that goes on without its slot is not captured in part, under whatever name.
#[test]
fn a_line_without_a_slot_is_not_captured() {
    let mut engine = Offline::new(tables(), false, 64, 1, Limits::default());
    let long = format!("GET /{}", "a".repeat(994));
    halves(&mut engine, 1, long.as_bytes(), None);
    halves(&mut engine, 2, long.as_bytes(), None);
    halves(&mut engine, 2, b"", Some(b"?access_token=secret&x=1 HTTP/1.1\r\nHost: h\r\n\r\n"));
    let output = drain(&mut engine);
    assert_eq!(output.heads[0].captures.iter().flatten().collect::<Vec<_>>(), [b"h"]);
    assert_eq!(output.heads[0].credentials[0].fingerprint, fingerprint(b"secret"));
}

/// Connections that end in the middle of a head give their slots back.
#[test]
fn slots_are_given_back() {
    let mut engine = Offline::new(tables(), false, 8, 2, Limits::default());
    for port in 1..200 {
        halves(&mut engine, port, b"GET / HTTP/1.1\r\nHost: h", None);
        let frame = segment_of(port, From::Client, 24, 4, b"");
        engine.ethernet(u64::from(port), &frame, 60);
    }
    assert_eq!(count(&engine, Counter::FlowsDeleted), 199);
    assert_eq!(count(&engine, Counter::HeadSlotLost), 0);
    // Flows that are pushed out, too.
    let mut engine = Offline::new(tables(), false, 1, 2, Limits::default());
    for port in 1..200 {
        halves(&mut engine, port, b"GET / HTTP/1.1\r\nHost: h", None);
    }
    assert_eq!(count(&engine, Counter::HeadSlotLost), 0);
    check_identities(&engine);
}

/// Bytes that were never seen inside a body, to its end or not, leave the parser where it was.
#[test]
fn holes_in_bodies() {
    for (headers, sent, lost, then) in [
        ("Content-Length: 10", "abc", 4, "hij"),
        ("Content-Length: 10", "abc", 7, ""),
        ("Content-Length: 10", "", 10, ""),
        ("Transfer-Encoding: chunked", "a\r\nab", 4, "ghij\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "a\r\nab", 8, "\r\n0\r\n\r\n"),
    ] {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, format!("POST /a HTTP/1.1\r\n{headers}\r\n\r\n{sent}").as_bytes());
        conversation.skip(From::Client, lost);
        conversation.data(From::Client, format!("{then}GET /b HTTP/1.1\r\n\r\n").as_bytes());
        let output = conversation.output();
        assert_eq!(output.heads.len(), 2, "{headers}, {sent:?}, {lost} lost");
        assert_eq!((output.heads[1].txn, output.heads[1].odd()), (1, 0));
        assert_eq!(count(&conversation.engine, Counter::Desynchronised), 0);
        let gap = count(&conversation.engine, Counter::BytesGap)
            + conversation.engine.slow_totals()[Counter::BytesGap as usize];
        assert_eq!(gap, u64::from(lost));
    }
}

/// Anywhere else the place is lost until a whole request line begins a segment.
#[test]
fn holes_in_heads() {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bear");
    conversation.skip(From::Client, 3);
    conversation.data(From::Client, b"abc\r\n\r\nGET /inside HTTP/1.1\r\n\r\n");
    conversation.data(From::Client, b"GET /cut HTTP/1.");
    conversation.data(From::Client, b"1\r\n\r\n");
    conversation.data(From::Client, b"GET /whole HTTP/1.1\r\nAuthorization: Bearer ");
    conversation.data(From::Client, b"abc\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
    let output = conversation.output();
    let lines: Vec<(&str, u32)> = output.heads.iter().map(|head| (head.line(), head.odd())).collect();
    assert_eq!(lines, [("GET /whole HTTP/1.1", anomaly::PICKED_UP), ("GET /next HTTP/1.1", 0)]);
    assert_eq!(output.heads[0].credentials[0].fingerprint, fingerprint(b"abc"));
}

/// A body until the connection closes is complete when it does; a shorter one than stated is not.
#[test]
fn bodies_that_the_end_ends() {
    for (headers, how) in [("", 1), ("Content-Length: 9\r\n", 0), ("Transfer-Encoding: chunked\r\n", 0)] {
        let mut conversation = Conversation::open();
        // In absolute form: the answer is teed.
        conversation.data(From::Client, b"GET http://h/ HTTP/1.1\r\n\r\n");
        conversation.data(From::Server, format!("HTTP/1.1 200 OK\r\n{headers}\r\n3\r\nab").as_bytes());
        conversation.send(From::Server, FIN | ACK, b"");
        let output = conversation.output();
        let ends: Vec<u32> = output.ends.iter().map(|end| end.4).collect();
        assert_eq!(ends, [how], "{headers:?}");
    }
}

/// A head that never ends is given up, and counted.
#[test]
fn endless_head() {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, b"GET / HTTP/1.1\r\n");
    for _ in 0..300 {
        conversation.data(From::Client, format!("X: {}\r\n", "y".repeat(1000)).as_bytes());
    }
    conversation.data(From::Client, b"GET /next HTTP/1.1\r\n\r\n");
    let output = conversation.output();
    assert_eq!(count(&conversation.engine, Counter::HeadTooLong), 1);
    assert_eq!(output.heads.iter().map(super::rig::Seen::line).collect::<Vec<_>>(), ["GET /next HTTP/1.1"]);
}

/// Pieces of traffic, from well-formed to garbage.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    prop_oneof![
        4 => Just(text("GET /a/b?access_token=eyJh.eyJz.c2ln&t=1&t=\"2 HTTP/1.1\r\n")),
        2 => Just(text("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        2 => Just(text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: SESSION=a%2\r\n\r\nhello")),
        1 => Just(text("HTTP/1.1 101 Switching Protocols\r\n\r\n")),
        1 => Just(text("CONNECT a:1 HTTP/1.1\r\n\r\n")),
        1 => Just(text("Content-Length: 99999999999999999999\r\nContent-Length: 123456789012345678\r\n")),
        1 => Just(text("ffffffffffffffff\r\nfffffffffffffff\r\n")),
        4 => Just(text("Authorization: Bearer eyJh.eyJz.c2ln\r\n")),
        2 => Just(text("Authorization: eyJh.eyJz.c2ln\r\n \t x\r\n")),
        2 => Just(text("Cookie: SESSION=\"a.b.c\"; SESSION=.a.b; SESSION=a..b;SESSION=%2e%2;\r\n")),
        4 => Just(text("\r\n\r\n")),
        2 => Just(text("\n")),
        2 => "[ -~]{0,80}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..120),
        1 => (0usize..9000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

#[derive(Clone, Debug)]
struct Step {
    port: u16,
    server: bool,
    payload: Vec<u8>,
    flags: u8,
    /// Added to the sequence number that would be next.
    shift: i32,
    flip: Option<(usize, u8)>,
    cut: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![16 => Just(ACK), 1 => Just(SYN), 1 => Just(SYN | ACK), 1 => Just(FIN | ACK), 1 => Just(4u8), 1 => any::<u8>()];
    let shift = prop_oneof![12 => Just(0), 2 => -200..200i32, 1 => any::<i32>()];
    let flip = proptest::option::weighted(0.15, (any::<usize>(), 1..=255u8));
    let cut = proptest::option::weighted(0.05, any::<usize>());
    let payload = proptest::collection::vec(piece(), 0..4).prop_map(|pieces| pieces.concat());
    (1u16..4, any::<bool>(), payload, flags, shift, flip, cut).prop_map(
        |(port, server, payload, flags, shift, flip, cut)| Step { port, server, payload, flags, shift, flip, cut },
    )
}

fn drive(engine: &mut Offline, steps: &[Step], swaps: &[(usize, usize)]) {
    let mut next = [[7u32; 2]; 4];
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for one in steps {
        let place = &mut next[usize::from(one.port)][usize::from(one.server)];
        let sequence = place.wrapping_add_signed(one.shift);
        let from = if one.server { From::Server } else { From::Client };
        let mut frame = segment_of(one.port, from, sequence, one.flags, &one.payload);
        let extra = u32::from(one.flags & (SYN | FIN) != 0);
        *place = sequence.wrapping_add(u32::try_from(one.payload.len()).unwrap()).wrapping_add(extra);
        if let Some((at, mask)) = one.flip {
            let at = at % frame.len();
            frame[at] ^= mask;
        }
        if let Some(cut) = one.cut {
            frame.truncate(cut % frame.len());
        }
        frames.push(frame);
    }
    for (one, other) in swaps {
        let len = frames.len();
        frames.swap(one % len, other % len);
    }
    for (at, frame) in frames.iter().enumerate() {
        engine.ethernet(at as u64, frame, u32::try_from(frame.len()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn totals_add_up(
        steps in proptest::collection::vec(step(), 1..40),
        swaps in proptest::collection::vec((any::<usize>(), any::<usize>()), 0..4),
        all_tcp: bool,
    ) {
        let mut engine = Offline::new(tables(), all_tcp, 2, 2, Limits::default());
        drive(&mut engine, &steps, &swaps);
        check_identities(&engine);
        let output = drain(&mut engine);
        prop_assert_eq!(output.heads.len() as u64, count(&engine, Counter::RecordsEmitted));
        prop_assert!(engine.flows() <= 2);
    }

    /// Frames of no sense at all.
    #[test]
    fn garbage(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..30), stated: u32) {
        let mut engine = engine();
        for frame in &frames {
            engine.ethernet(0, frame, stated);
            engine.network(0, frame, 0x0800, 0, stated);
            engine.network(0, frame, 0x86dd, 0, u32::try_from(frame.len()).unwrap());
        }
        check_identities(&engine);
    }
}
