//! One head, a request's or a response's, cut anywhere.
//!
//! What must hold: cuts change nothing; and where `httparse`, which takes less than servers do, understands the head, its
//! reading is the parser's too.

use sensor_ebpf::wire::{anomaly, capture, framing, place, version};

use crate::jwt::reference_hash;
use crate::rig::{Played, Seen, Side, check_invariance, play, tables};
use crate::script::{self, Event};

/// Headers that the reference takes; heads with more are not compared.
const HEADERS_MAX: usize = 64;

/// The first byte says whose head it is; the rest is a [`script`] of that side alone.
pub fn target(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let side = if mode & 1 == 0 { Side::Client } else { Side::Server };
    let mut events: Vec<Event> = script::read(side, rest)
        .into_iter()
        .filter(|event| matches!(event, Event::Say(of, ..) if *of == side))
        .collect();
    let text: Vec<u8> = events
        .iter()
        .flat_map(|event| if let Event::Say(_, bytes, _) = event { bytes.clone() } else { Vec::new() })
        .collect();
    if side == Side::Server {
        events.insert(0, Event::Say(Side::Client, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), Vec::new()));
    }
    let uncut = play(tables(0), &events, false);
    let cut = play(tables(0), &events, true);
    check_invariance(&uncut, &cut);
    match side {
        Side::Client => check_request(&text, &cut),
        Side::Server => check_response(&text, &cut),
    }
}

fn check_request(text: &[u8], played: &Played) {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut oracle = httparse::Request::new(&mut slots);
    let Ok(httparse::Status::Complete(size)) = oracle.parse(text) else { return };
    let head = played.output.heads.iter().find(|head| head.is_request()).expect("a request that httparse takes");
    check_common(head, size, oracle.version, oracle.headers);
    let (method, path) = (oracle.method.unwrap_or_default(), oracle.path.unwrap_or_default());
    let whole = !head.odd(anomaly::LINE_CUT) && head.credentials.iter().all(|(one, _)| one.place != place::QUERY);
    if whole {
        // A fragment, which no client sends, is not kept: it may be a credential.
        let path = path.split('#').next().unwrap_or_default();
        let line = format!("{method} {path} HTTP/1.{}", oracle.version.unwrap_or(0));
        let captured = head.captures[capture::LINE].as_deref().map(String::from_utf8_lossy);
        assert_eq!(captured.as_deref(), Some(line.as_str()), "request line");
    }
    if let Some(host) = only(oracle.headers, "host").filter(|value| !value.is_empty() && !head.odd(anomaly::VALUE_CUT))
    {
        assert_eq!(head.captures[capture::HOST].as_deref(), Some(host), "Host");
    }
    check_bearer(head, oracle.headers);
}

fn check_response(text: &[u8], played: &Played) {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut oracle = httparse::Response::new(&mut slots);
    let Ok(httparse::Status::Complete(size)) = oracle.parse(text) else { return };
    let status = oracle.code.unwrap_or(0);
    // An interim response leaves no record.
    if (100..200).contains(&status) && status != 101 {
        return;
    }
    let head = played.output.heads.iter().find(|head| !head.is_request()).expect("a response that httparse takes");
    check_common(head, size, oracle.version, oracle.headers);
    assert_eq!(head.fixed.status, status, "status");
}

fn check_common(head: &Seen, size: usize, minor: Option<u8>, headers: &[httparse::Header<'_>]) {
    assert_eq!(head.fixed.head.offset + u64::from(head.fixed.head_bytes), size as u64, "end of the head");
    let expected = if minor == Some(1) { version::HTTP_11 } else { version::HTTP_10 };
    assert_eq!(head.fixed.version, expected, "version");
    let coded = headers.iter().any(|one| one.name.eq_ignore_ascii_case("transfer-encoding"));
    if let Some(length) = only(headers, "content-length").and_then(number).filter(|_| !coded) {
        assert_eq!(head.fixed.content_length, length, "Content-Length");
    }
    let length = headers.iter().any(|one| one.name.eq_ignore_ascii_case("content-length"));
    let chunked = only(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
    if chunked && !length && head.is_request() && minor == Some(1) {
        assert_eq!(head.fixed.framing, framing::CHUNKED, "framing");
    }
}

/// The fingerprint of a plain bearer token is that of its bytes.
fn check_bearer(head: &Seen, headers: &[httparse::Header<'_>]) {
    let Some(token) = only(headers, "authorization").and_then(|value| value.strip_prefix(b"Bearer ")) else { return };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if token.is_empty() || !token.iter().all(plain) || head.odd(anomaly::MORE_CREDENTIALS | anomaly::CAPTURES_LOST) {
        return;
    }
    let found = head.credentials.iter().find(|(one, _)| one.place == place::AUTHORIZATION);
    assert_eq!(found.map(|(one, _)| one.fingerprint), Some(reference_hash(token)), "bearer token");
}

/// The value of the header that stands there once.
fn only<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = headers.iter().filter(|one| one.name.eq_ignore_ascii_case(name)).map(|one| one.value);
    values.next().filter(|_| values.next().is_none())
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}
