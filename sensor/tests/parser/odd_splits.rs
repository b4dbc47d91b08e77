//! Odd heads and bodies, cut anywhere: the same observations as in one piece.

use proptest::prelude::*;
use sensor_ebpf::reason::Counter;

use super::rig::{Conversation, From, Output, count};

const LINES: &[&str] = &[
    "GET /a HTTP/1.1\r\n",
    "POST  /a?x=1;access_token=abc.def.ghi&y=2 HTTP/1.1\r\n",
    "PUT\t/a?%74=se%63ret#frag\tHTTP/1.1 \r\n",
    " GET /?%access_token=a&%7%34=b&t=c#t=raw http/1.1\r\n",
    "DELETE http://h/a#b c HTTP/1.1\n",
];
const HEADERS: &[&str] = &[
    "Host: h\r\n",
    "Host : h\r\n g\r\n",
    "Authorization \t: Bearer abc\r\n",
    "Authorization:\r\n Basic\r\n  dXNlcjpwYXNz\r\n",
    "Cookie: a=b;\r\n SESSION=x%41y; t=\"q\"\r\n",
    "X-Forwarded-For: 192.0.2.1,\r\n\t10.0.0.1 \r\n",
    "Content-Type: a/b;\r\n \r\n c=d\r\n",
    "no colon\r\n",
    ": no name\r\n",
    "\rodd: x\r\n",
    "X-Api-Key  : key\r\n",
    "Expect: 100-continue\r\n",
    "X: y\r\n z\r\n",
];
/// Framing, and a body that it takes.
const BODIES: &[(&str, &str)] = &[
    ("", ""),
    ("Content-Length: 0000005, 5 ,\r\n 5\r\n", "01234"),
    ("Content-Length:\r\n 000000000000\r\n", ""),
    ("Content-Length : 12\r\nContent-Length: 12\r\n", "0123456789ab"),
    ("Content-Length: 000000000000000000000123456789\r\n\r\nGET", ""),
    ("Content-Length:\r\n", ""),
    ("Transfer-Encoding:\r\n gzip,\r\n chunked \r\n", "5;a=\"b\\\"c\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    ("Transfer-Encoding: a, b, c, d, e, f, g, h, i, j, k, chunked\r\n", "5\nhello\n00000000000000000000\n\n"),
    ("Transfer-Encoding: chunked\r\n", " 5 \r\nhello3 ;x\r\nabc\r0\r\n\r\n"),
    ("Transfer-Encoding: chun\rked\r\nContent-Length: 3\r\n", "abc"),
];

fn output(bytes: &[u8], cuts: &[usize]) -> (Output, u64) {
    let mut conversation = Conversation::open();
    let mut from = 0;
    for &cut in cuts {
        conversation.data(From::Client, &bytes[from..cut]);
        from = cut;
    }
    conversation.data(From::Client, &bytes[from..]);
    let output = conversation.output();
    (output, count(&conversation.engine, Counter::Desynchronised))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn cut_anywhere_the_same(
        messages in proptest::collection::vec(
            (0..LINES.len(), proptest::collection::vec(0..HEADERS.len(), 0..5), 0..BODIES.len()), 1..4),
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        every in any::<bool>(),
    ) {
        let mut text = String::new();
        for (line, headers, body) in messages {
            text.push_str(LINES[line]);
            for header in headers {
                text.push_str(HEADERS[header]);
            }
            let (framing, body) = BODIES[body];
            text = text + framing + "\r\n" + body;
        }
        let mut cuts: Vec<usize> = if every { (1..text.len()).collect() } else { at.iter().map(|at| at.index(text.len())).collect() };
        cuts.sort_unstable();
        let (whole, lost) = output(text.as_bytes(), &[]);
        prop_assert_eq!(lost, 0, "{:?}", text);
        let (parts, lost) = output(text.as_bytes(), &cuts);
        prop_assert_eq!(lost, 0);
        for (part, head) in parts.heads.iter().zip(&whole.heads) {
            // What a query credential's claims are is only known where they stand in one segment.
            let mut part = part.clone();
            for (one, other) in part.credentials.iter_mut().zip(&head.credentials) {
                one.flags = other.flags;
                one.claims.clone_from(&other.claims);
            }
            prop_assert_eq!(&part, head, "{:?}", text);
        }
        prop_assert_eq!(parts.heads.len(), whole.heads.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Values about as long as what is gathered of one, with folds: where they are cut off is their own matter.
    #[test]
    fn long_lengths_and_codings_cut_anywhere_the_same(
        coding in any::<bool>(),
        value in "(chunked|gzip,|[a-c]{2}|[0-9]{1,3}|, ?| |\r\n |;){4,14}(chunked|[0-9]{2})?",
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        every in any::<bool>(),
    ) {
        let name = if coding { "Transfer-Encoding" } else { "Content-Length" };
        let text = format!("GET / HTTP/1.1\r\n{name}:{value}\r\nHost: h\r\n\r\n");
        let mut cuts: Vec<usize> = if every { (1..text.len()).collect() } else { at.iter().map(|at| at.index(text.len())).collect() };
        cuts.sort_unstable();
        let (whole, _) = output(text.as_bytes(), &[]);
        let (parts, _) = output(text.as_bytes(), &cuts);
        prop_assert_eq!(&parts.heads, &whole.heads, "{:?}", text);
    }
}
