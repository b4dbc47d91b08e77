//! Where a message ends: lengths, codings, chunks, and what happens when they are not what they should be.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{NO_LENGTH, anomaly, framing, method};

use super::rig::{Conversation, From, Output, Seen, count, request};

const BAD: (u8, u64, u32) = (framing::UNKNOWN, NO_LENGTH, anomaly::BAD_LENGTH);
const NONE: (u8, u64) = (framing::NONE, NO_LENGTH);
const CHUNKED: (u8, u64) = (framing::CHUNKED, NO_LENGTH);

/// Framing, length and what is odd of a request with these header lines.
fn framed(version: &str, headers: &str) -> (u8, u64, u32) {
    let output = request(format!("POST / HTTP/{version}\r\n{headers}\r\n").as_bytes());
    let [head] = output.heads.as_slice() else { panic!("{headers:?}") };
    (head.framing, head.content_length, head.odd())
}

#[test]
fn lengths() {
    let nine = "9".repeat(19);
    let zeros = format!("Content-Length: {}7\r\n", "0".repeat(300));
    let long = format!("Content-Length: {nine}\r\n");
    for (headers, want) in [
        ("", (framing::NONE, NO_LENGTH, 0)),
        ("Content-Length: 0\r\n", (framing::NONE, 0, 0)),
        ("Content-Length: 12\r\n", (framing::LENGTH, 12, 0)),
        ("Content-Length:12\t \r\n", (framing::LENGTH, 12, 0)),
        ("Content-Length: 12345678\r\n", (framing::LENGTH, 12_345_678, 0)),
        ("Content-Length: 123456789\r\n", (framing::LENGTH, 123_456_789, 0)),
        ("Content-Length: 00\r\n", (framing::NONE, 0, 0)),
        ("Content-Length: 007\n", (framing::LENGTH, 7, 0)),
        (&zeros, (framing::LENGTH, 7, 0)),
        (&long, (framing::LENGTH, 9_999_999_999_999_999_999, 0)),
        ("Content-Length: 18446744073709551615\r\n", BAD),
        ("Content-Length: 18446744073709551616\r\n", BAD),
        ("Content-Length: 123456789012345678901234567890123456789\r\n", BAD),
        ("Content-Length: 12\r\nContent-Length: 12\r\n", (framing::LENGTH, 12, 0)),
        ("Content-Length: 5, 5\r\n", (framing::LENGTH, 5, 0)),
        ("Content-Length: 5,05 ,  5\r\n", (framing::LENGTH, 5, 0)),
        ("Content-Length: 0, 0\r\n", (framing::NONE, 0, 0)),
        ("Content-Length: 12\r\nContent-Length: 13\r\n", BAD),
        ("Content-Length: 12\r\nX: y\r\nContent-Length: 13\r\nContent-Length: 12\r\n", BAD),
        ("Content-Length: 5, 6\r\n", BAD),
        ("Content-Length: 5,\r\n", BAD),
        ("Content-Length: ,5\r\n", BAD),
        ("Content-Length: +1\r\n", BAD),
        ("Content-Length: -1\r\n", BAD),
        ("Content-Length: 0x10\r\n", BAD),
        ("Content-Length: 1 2\r\n", BAD),
        ("Content-Length: 0 5\r\n", BAD),
        ("Content-Length: 5 5, 5\r\n", BAD),
        ("Content-Length: 1\x0b\r\n", BAD),
        ("Content-Length: \x0b1\r\n", BAD),
        ("Content-Length: 1\r2\r\n", BAD),
        ("Content-Length: 1.0\r\n", BAD),
        ("Content-Length: \"1\"\r\n", BAD),
        ("Content-Length: \u{0661}\r\n", BAD),
        // None states a length: servers refuse it or read on as if it were not there.
        ("Content-Length:\r\n", (framing::NONE, NO_LENGTH, anomaly::BAD_LENGTH)),
        ("Content-Length: \r\nContent-Length: 4\r\n", (framing::LENGTH, 4, anomaly::BAD_LENGTH)),
        ("Content-Length:\r\n 12\r\n", (framing::LENGTH, 12, anomaly::OBS_FOLD)),
        ("Content-Length: 12\r\n\t\r\n", (framing::LENGTH, 12, anomaly::OBS_FOLD)),
        ("Content-Length: 1\r\n 2\r\n", (framing::UNKNOWN, NO_LENGTH, anomaly::BAD_LENGTH | anomaly::OBS_FOLD)),
        ("Content-Length : 12\r\n", (framing::LENGTH, 12, anomaly::ODD_HEADER)),
    ] {
        assert_eq!(framed("1.1", headers), want, "{headers:?}");
    }
}

#[test]
fn codings() {
    let odd = |(how, length): (u8, u64)| (how, length, anomaly::ODD_CODING);
    let fine = |(how, length): (u8, u64)| (how, length, 0);
    for (value, want) in [
        (" chunked", fine(CHUNKED)),
        ("CHUNKED \t", fine(CHUNKED)),
        ("\tchunked", fine(CHUNKED)),
        (" gzip,CHUNKED ", fine(CHUNKED)),
        (" deflate, gzip, chunked", fine(CHUNKED)),
        (" identity, chunked", odd(CHUNKED)),
        (" chunked, chunked", odd(CHUNKED)),
        (" chunked, identity", odd(CHUNKED)),
        (" chunked;q=1", odd(CHUNKED)),
        (" a, b, c, d, e, f, g, h, i, j, k, l, m, n, chunked", odd(CHUNKED)),
        (" foo chunked", odd(CHUNKED)),
        (" xchunked", odd(NONE)),
        (" chunkedx", odd(NONE)),
        (" \"chunked\"", odd(NONE)),
        (" 'chunked'", odd(NONE)),
        (" \x0bchunked", odd(NONE)),
        (" chunked\x0b", odd(NONE)),
        (" chunked\0", odd(NONE)),
        (" chun\rked", odd(NONE)),
        (" gzip", odd(NONE)),
        (" identity", odd(NONE)),
        ("", odd(NONE)),
    ] {
        assert_eq!(framed("1.1", &format!("Transfer-Encoding:{value}\r\n")), want, "{value:?}");
    }
    for (headers, (how, length), flags) in [
        ("Transfer-Encoding:\r\n chunked\r\n", CHUNKED, anomaly::OBS_FOLD),
        ("Transfer-Encoding: gzip,\r\n chunked\r\n", CHUNKED, anomaly::OBS_FOLD),
        ("Transfer-Encoding: chunked\r\n , identity\r\n", CHUNKED, anomaly::OBS_FOLD | anomaly::ODD_CODING),
        ("Transfer-Encoding: chun\r\n ked\r\n", NONE, anomaly::OBS_FOLD | anomaly::ODD_CODING),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", CHUNKED, anomaly::ODD_CODING),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED, anomaly::ODD_CODING),
        ("Transfer-Encoding : chunked\r\n", CHUNKED, anomaly::ODD_HEADER),
        ("Transfer-Encoding\t: chunked\r\n", CHUNKED, anomaly::ODD_HEADER),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", (framing::CHUNKED, 3), anomaly::LENGTH_AND_CODING),
        (
            "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
            CHUNKED,
            anomaly::LENGTH_AND_CODING | anomaly::BAD_LENGTH,
        ),
    ] {
        assert_eq!(framed("1.1", headers), (how, length, flags), "{headers:?}");
    }
    assert_eq!(framed("1.0", "Transfer-Encoding: chunked\r\n"), (framing::CHUNKED, NO_LENGTH, anomaly::ODD_CODING));
}

/// The body behind the head, then another request in the same segment; a third in a segment of its own.
fn behind(head: &str, body: &[u8]) -> (Output, [u64; 2]) {
    let mut conversation = Conversation::open();
    let first = format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n");
    let bytes = [first.as_bytes(), body, b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    conversation.data(From::Client, &bytes);
    conversation.data(From::Client, b"GET /third HTTP/1.1\r\nHost: h\r\n\r\n");
    let output = conversation.output();
    let counted = [Counter::AnomalyOddChunk, Counter::Desynchronised].map(|one| count(&conversation.engine, one));
    (output, counted)
}

/// A length that cannot be said is not guessed: the half waits for the next start line at the start of a segment, or takes
/// one that stands where a server that reads no body would look for it.
#[test]
fn a_length_that_cannot_be_said_is_not_guessed() {
    for head in ["Content-Length: 0\r\nContent-Length: 31\r\n", "Content-Length: 0x1f\r\n", "Content-Length: 0, 31\r\n"]
    {
        let (output, [_, lost]) = behind(head, b"a=b");
        let lines: Vec<&str> = output.heads.iter().map(Seen::line).collect();
        assert_eq!(lines, ["POST / HTTP/1.1", "GET /third HTTP/1.1"], "{head:?}");
        assert_eq!((output.heads[0].anomalies, lost), (anomaly::BAD_LENGTH, 1));
        let (output, [_, lost]) = behind(head, b"");
        let seen: Vec<(&str, u32)> = output.heads.iter().map(|head| (head.line(), head.anomalies)).collect();
        assert_eq!(
            seen,
            [
                ("POST / HTTP/1.1", anomaly::BAD_LENGTH),
                ("GET /next HTTP/1.1", anomaly::AFTER_ODD_BODY | anomaly::PICKED_UP),
                ("GET /third HTTP/1.1", 0)
            ],
            "{head:?}"
        );
        assert_eq!(lost, 0);
    }
}

#[test]
fn chunks() {
    let ext = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a=b;".repeat(5000));
    let trailers = format!("0\r\n{}\r\n", "Name: value\r\n".repeat(500));
    let zeros = format!("{}5\r\nhello\r\n{}\r\n\r\n", "0".repeat(500), "0".repeat(500));
    // Heads seen, and whether the body was odd.
    for (body, heads, odd) in [
        ("5\r\nhello\r\n0\r\n\r\n", 3, 0),
        ("A\r\n0123456789\r\n0\r\n\r\n", 3, 0),
        (zeros.as_str(), 3, 0),
        (&ext, 3, 0),
        (&trailers, 3, 0),
        ("5;a=\"b\\\"c;\"\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n", 3, 0),
        ("5 ; a=\"b\"\r\nhello\r\n0\r\n\r\n", 3, 0),
        ("5;a\r\nhello\r\n0;\r\n\r\n", 3, 0),
        // Read as most read it, and said.
        ("5\nhello\n0\n\n", 3, 1),
        ("5;a\nhello\r\n0\r\n\r\n", 3, 1),
        ("5;a=\"b\r\nhello\r\n0\r\n\r\n", 3, 1),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", 3, 1),
        ("5  \r\nhello\r\n0\r\n\r\n", 3, 1),
        (" 5\r\nhello\r\n0\r\n\r\n", 3, 1),
        ("5\r\nhello0\r\n\r\n", 3, 1),
        ("5\r\nhello\r0\r\n\r\n", 3, 1),
        ("1\r\na\n1\r\nb\n1\nc0\n\n", 3, 1),
        // Not to be read with any certainty: given up until the next segment begins with a start line.
        ("0x10\r\n\r\n", 2, 1),
        ("5 5\r\nhello\r\n0\r\n\r\n", 2, 1),
        ("5\r5\r\nhello\r\n0\r\n\r\n", 2, 1),
        ("5,\r\nhello\r\n0\r\n\r\n", 2, 1),
        ("10000000000000000\r\n\r\n", 3, 1),
        ("1000000000000000000000000000000000000\r\n\r\n", 3, 1),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", 2, 1),
        ("ffffffffffffffff\r\n\r\n", 2, 1),
        ("8000000000000000\r\n\r\n", 2, 1),
        ("\r\n", 2, 1),
        (";a\r\n", 2, 1),
        ("x\r\n\r\n", 2, 1),
        ("-1\r\n\r\n", 2, 1),
        ("+5\r\nhello\r\n0\r\n\r\n", 2, 1),
        ("5\r\nhelloworld\r\n0\r\n\r\n", 2, 1),
    ] {
        let (output, [counted, lost]) = behind("Transfer-Encoding: chunked\r\n", body.as_bytes());
        let text = &body[..body.len().min(60)];
        assert_eq!(output.heads.len(), heads, "{text:?}");
        assert_eq!(counted, odd, "{text:?}");
        assert_eq!(lost, u64::from(heads == 2), "{text:?}");
        // The head behind an odd body says so, and only that one.
        assert_eq!(output.heads[0].anomalies, 0, "{text:?}");
        assert_eq!(output.heads[1].anomalies & anomaly::AFTER_ODD_BODY != 0, odd == 1, "{text:?}");
        assert_eq!(output.heads.get(2).map_or(0, |head| head.anomalies), 0, "{text:?}");
    }
}

/// A chunk of 2^63 - 1 bytes is one.
#[test]
fn the_largest_chunk() {
    let (output, counted) = behind("Transfer-Encoding: chunked\r\n", b"7fffffffffffffff\r\n");
    assert_eq!((output.heads.len(), counted), (1, [0, 0]));
}

fn answer(word: &str, answer: &str) -> Vec<Seen> {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, format!("{word} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    conversation.data(From::Client, b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    conversation.data(From::Server, format!("{answer}HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n").as_bytes());
    conversation.output().heads.into_iter().filter(|head| !head.request).collect()
}

#[test]
fn responses_without_a_body() {
    for (word, first) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No\r\nContent-Length: 500\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Same\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        ("GET", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 205 Reset\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 W\r\n\r\nHTTP/1.1 103 H\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        ),
    ] {
        let seen = answer(word, first);
        assert_eq!(
            seen.iter().map(|head| (head.txn, head.status == 299)).collect::<Vec<_>>(),
            [(0, false), (1, true)],
            "{first:?}"
        );
    }
    // Without a length, until the connection closes (RFC 9112 §6.3); so is a 205 without one.
    for first in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 205 Reset\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"]
    {
        let seen = answer("GET", first);
        assert_eq!(seen.iter().map(|head| head.framing).collect::<Vec<_>>(), [framing::CLOSE], "{first:?}");
    }
}

#[test]
fn upgrades_leave_http_and_refused_ones_stay() {
    let next = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    for (ask, answer, stays) in [
        (
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
            "HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", "HTTP/1.1 200 Yes\r\nContent-Length: 10\r\n\r\n", false),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", "HTTP/1.1 204 Yes\r\n\r\n", false),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", "HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno", true),
        (
            "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
    ] {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, ask.as_bytes());
        conversation.data(From::Server, answer.as_bytes());
        conversation.data(From::Client, next);
        assert_eq!(conversation.output().heads.len(), if stays { 3 } else { 2 }, "{answer:?}");
        assert_eq!(count(&conversation.engine, Counter::FlowsUpgraded), u64::from(!stays), "{answer:?}");
    }
}

/// The body of a request goes on behind its answer.
#[test]
fn early_answers() {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n0123456789");
    conversation.data(From::Server, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    conversation.data(From::Client, b"GET /in-the-body HTTP/1.1\r\n\r\n");
    conversation.data(From::Client, b"\rGET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    conversation.data(From::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let heads = conversation.output().heads;
    let seen: Vec<(bool, u32, u8)> = heads.iter().map(|head| (head.request, head.txn, head.method)).collect();
    assert_eq!(
        seen,
        [(true, 0, method::POST), (false, 0, method::POST), (true, 1, method::GET), (false, 1, method::GET)]
    );
}

const EXPECTING: &[u8] = b"PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 29\r\n\r\n";
const IN_THE_BODY: &[u8] = b"GET /in-the-body HTTP/1.1\r\n\r\n";
const NEXT: &[u8] = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn expected_bodies_that_come() {
    for answer in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b""] {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, EXPECTING);
        conversation.data(From::Server, answer);
        conversation.data(From::Client, IN_THE_BODY);
        conversation.data(From::Client, NEXT);
        assert_eq!(conversation.output().heads.len(), 2);
    }
}

#[test]
fn expected_bodies_that_do_not_come() {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, EXPECTING);
    conversation.data(From::Server, b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    conversation.data(From::Client, NEXT);
    conversation.data(From::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let seen: Vec<(u32, u16)> = conversation.output().heads.iter().map(|head| (head.txn, head.status)).collect();
    assert_eq!(seen, [(0, 0), (0, 401), (1, 0), (1, 200)]);
}
