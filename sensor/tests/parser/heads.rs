//! Heads, against `httparse` where it takes them, and by hand where it does not.

use proptest::prelude::*;
use sensor::collect::target::RequestLine;
use sensor_ebpf::wire::{NO_LENGTH, anomaly, capture, method, version};

use super::rig::{Conversation, From, Seen, request};

const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}";

/// A header line, often one that means something.
fn header() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        3 => TOKEN.prop_map(|name| name),
        1 => Just("Host".to_owned()),
        1 => Just("hOsT".to_owned()),
        1 => Just("Content-Length".to_owned()),
        1 => Just("Authorization".to_owned()),
        1 => Just("Cookie".to_owned()),
        1 => Just("User-Agent".to_owned()),
        1 => Just("Content-Lengthy".to_owned()),
        1 => Just("Content-Type".to_owned()),
        1 => Just("X-Forwarded-For".to_owned()),
    ];
    let value = prop_oneof![3 => "[!-~]([ -~\t]{0,60}[!-~])?", 1 => "[0-9]{1,6}", 1 => Just(String::new())];
    let space = prop_oneof![4 => Just(" ".to_owned()), 1 => "[ \t]{0,4}"];
    (name, space, value, "[ \t]{0,4}", prop_oneof![6 => Just("\r\n"), 1 => Just("\n")])
        .prop_map(|(name, space, value, after, end)| format!("{name}:{space}{value}{after}{end}"))
}

/// The last of that name that says anything.
fn last<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().rev().find(|one| one.name.eq_ignore_ascii_case(name) && !one.value.is_empty()).map(|one| one.value)
}

/// All of that name that say anything, as one list.
fn list(headers: &[httparse::Header<'_>], name: &str) -> Vec<u8> {
    let lines = headers.iter().filter(|one| one.name.eq_ignore_ascii_case(name) && !one.value.is_empty());
    lines.map(|one| one.value).collect::<Vec<_>>().join(&b","[..])
}

fn elements(list: &[u8]) -> Vec<&[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect()
}

/// The length by RFC 9110 §8.6: one number, given as often as anybody likes.
fn length(headers: &[httparse::Header<'_>]) -> u64 {
    let stated = headers.iter().filter(|one| one.name.eq_ignore_ascii_case("content-length") && !one.value.is_empty());
    let numbers: Vec<Option<u64>> = stated
        .map(|one| {
            let text = std::str::from_utf8(one.value).ok()?;
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
        })
        .collect();
    match numbers.as_slice() {
        [Some(first), rest @ ..] if rest.iter().all(|other| *other == Some(*first)) => *first,
        _ => NO_LENGTH,
    }
}

fn id(name: &str) -> u8 {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"];
    known.iter().position(|one| *one == name).map_or(method::OTHER, |at| u8::try_from(at + 1).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn requests_as_httparse_reads_them(
        word in prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), Just("CONNECT".to_owned()), TOKEN],
        target in "[!-~]{1,40}|/[a-z/?&=%.;]{0,60}", minor in 0u8..2, end in prop_oneof![Just("\r\n"), Just("\n")],
        headers in proptest::collection::vec(header(), 0..8), lead in "(\r\n){0,2}",
    ) {
        let text = format!("{lead}{word} {target} HTTP/1.{minor}{end}{}\r\n", headers.concat());
        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut oracle = httparse::Request::new(&mut slots);
        let Ok(httparse::Status::Complete(size)) = oracle.parse(text.as_bytes()) else { return Ok(()) };
        let output = request(text.as_bytes());
        let [head] = output.heads.as_slice() else {
            return Err(TestCaseError::fail(format!("{} heads of {text:?}", output.heads.len())));
        };
        let line = head.captures[capture::LINE].as_deref().unwrap();
        let split = RequestLine::new(line, false);
        prop_assert_eq!(split.method, oracle.method.unwrap().as_bytes());
        prop_assert_eq!(head.method, id(oracle.method.unwrap()));
        // The values of credential parameters are cut out.
        if head.credentials.iter().all(|one| one.place != sensor_ebpf::wire::place::QUERY) {
            // No fragment is captured.
            prop_assert_eq!(split.target, oracle.path.unwrap().split('#').next().unwrap().as_bytes());
        }
        prop_assert_eq!(head.version, if oracle.version == Some(1) { version::HTTP_11 } else { version::HTTP_10 });
        prop_assert_eq!(head.offset + u64::from(head.head_bytes), size as u64);
        prop_assert_eq!(head.content_length, length(oracle.headers));
        let forwarded = head.captures[capture::X_FORWARDED_FOR].as_deref().unwrap_or_default();
        let want = list(oracle.headers, "x-forwarded-for");
        prop_assert_eq!(elements(forwarded), elements(&want), "{:?}", text);
        for (which, name) in [(capture::HOST, "host"), (capture::CONTENT_TYPE, "content-type")] {
            prop_assert_eq!(head.captures[which].as_deref(), last(oracle.headers, name), "{} of {:?}", name, text);
        }
    }

    #[test]
    fn responses_as_httparse_reads_them(
        status in 200u16..1000, minor in 0u8..2, reason in "( [ -~]{0,20})?", end in prop_oneof![Just("\r\n"), Just("\n")],
        headers in proptest::collection::vec(header(), 0..8),
    ) {
        let text = format!("HTTP/1.{minor} {status}{reason}{end}{}\r\n", headers.concat());
        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut oracle = httparse::Response::new(&mut slots);
        let Ok(httparse::Status::Complete(size)) = oracle.parse(text.as_bytes()) else { return Ok(()) };
        let mut conversation = Conversation::open();
        conversation.data(From::Client, b"GET / HTTP/1.1\r\n\r\n");
        conversation.data(From::Server, text.as_bytes());
        let output = conversation.output();
        let [_, head] = output.heads.as_slice() else { return Err(TestCaseError::fail(format!("{text:?}"))) };
        prop_assert_eq!(head.status, oracle.code.unwrap());
        prop_assert_eq!(head.version, if oracle.version == Some(1) { version::HTTP_11 } else { version::HTTP_10 });
        prop_assert_eq!(head.head_bytes as usize, size);
        prop_assert_eq!(head.content_length, length(oracle.headers));
        prop_assert_eq!(head.captures[capture::CONTENT_TYPE].as_deref(), last(oracle.headers, "content-type"));
    }
}

fn one(line: &str) -> Seen {
    let output = request(format!("{line}\r\n\r\n").as_bytes());
    let [head] = output.heads.as_slice() else { panic!("{line:?}: {} heads", output.heads.len()) };
    head.clone()
}

#[test]
fn odd_request_lines() {
    for (line, code, number) in [
        ("GET /a b c HTTP/1.1", method::GET, version::HTTP_11),
        ("GET /a HTTP/1.1 ", method::GET, version::HTTP_11),
        ("GET /a  HTTP/1.0  ", method::GET, version::HTTP_10),
        ("GET /a HTTP/1.1 b HTTP/1.0", method::GET, version::HTTP_10),
        ("GET /a http/1.1", method::GET, version::HTTP_11),
        ("GET  HTTP/1.1", method::GET, version::HTTP_11),
        ("GET  Hello HTTP/1.1", method::GET, version::HTTP_11),
        ("GET http://h/a HTTP/1.1", method::GET, version::HTTP_11),
        ("CONNECT h:443 HTTP/1.1", method::CONNECT, version::HTTP_11),
        ("OPTIONS * HTTP/1.1", method::OPTIONS, version::HTTP_11),
        ("PROPFIND /a HTTP/1.1", method::OTHER, version::HTTP_11),
        ("get /a HTTP/1.1", method::OTHER, version::HTTP_11),
        ("GET /a HTTP/1.2", method::GET, 0),
        ("GET /a HTTP/3.7", method::GET, 0),
        ("AVERYLONGMETHODOFMORETHAN24 /a HTTP/1.1", method::OTHER, version::HTTP_11),
        ("SEARCH /a HTTP/2.0", method::OTHER, 0),
        ("GET /a", method::GET, version::HTTP_09),
        ("GET /a HTTP/1.12", method::GET, 0),
        ("GET /a HTTP/1.01", method::GET, 0),
        ("GET /a HTTP/1.00000000000000001", method::GET, 0),
        ("GET /a HTTP/1.1 b", method::GET, version::HTTP_11),
        ("POST /a", method::POST, version::HTTP_09),
        ("GET\t/a HTTP/1.1", method::GET, version::HTTP_11),
        ("GET /a\tHTTP/1.1", method::GET, version::HTTP_11),
        ("GET \t /a\x0b\x0cHTTP/1.1", method::GET, version::HTTP_11),
    ] {
        let head = one(line);
        assert_eq!((head.method, head.version), (code, number), "{line:?}");
        assert_eq!(head.line(), line.trim_end(), "{line:?}");
    }
    for line in ["GET", "GET ", "GET\t", "FOO /a", "OPTIONS /a RTSP/1.0", "/a HTTP/1.1"] {
        assert_eq!(request(format!("{line}\r\n\r\n").as_bytes()).heads, [], "{line:?}");
    }
}

#[test]
fn pairing_beyond_the_queue() {
    let mut conversation = Conversation::open();
    for _ in 0..40 {
        conversation.data(From::Client, b"HEAD / HTTP/1.1\r\n\r\n");
    }
    for _ in 0..40 {
        conversation.data(From::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    let output = conversation.output();
    let answers: Vec<&Seen> = output.heads.iter().filter(|head| !head.request).collect();
    assert_eq!(answers.iter().map(|head| head.txn).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    for (at, answer) in answers.iter().enumerate() {
        let overflowed = answer.anomalies & anomaly::QUEUE_OVERFLOW != 0;
        // The oldest keep their place: nothing that comes later can change what answers them.
        assert_eq!(overflowed, at >= 32, "{at}");
        assert_eq!(answer.method == method::HEAD, !overflowed, "{at}");
    }
}

#[test]
fn early_and_unsolicited_responses() {
    let mut conversation = Conversation::open();
    conversation.data(From::Server, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    conversation.data(From::Client, b"POST /a HTTP/1.1\r\nHost: h\r\n");
    conversation.data(From::Server, b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n");
    conversation.data(From::Client, b"\r\nGET /b HTTP/1.1\r\n\r\n");
    conversation.data(From::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let seen: Vec<(bool, u32, u32)> =
        conversation.output().heads.iter().map(|head| (head.request, head.txn, head.odd())).collect();
    assert_eq!(
        seen,
        [
            (false, u32::MAX, anomaly::UNSOLICITED),
            (false, 0, anomaly::EARLY),
            (true, 0, 0),
            (true, 1, 0),
            (false, 1, 0),
        ]
    );
}
