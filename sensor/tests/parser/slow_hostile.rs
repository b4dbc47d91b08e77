//! A client that bends TCP so that the sensor reads something else than the server: segments that the server drops or
//! reads otherwise must neither hide a request nor leave it beyond doubt.

use sensor::capture::offline::Offline;
use sensor::collect::decode::{Record, decode};
use sensor::slow::Limits;
use sensor_ebpf::wire::{anomaly, capture, head_flag};

use crate::rig::{ACK, FIN, From, SYN, segment_of, tables};

const RST: u8 = 4;
const GET: &[u8] = b"GET /members/7/addresses HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What came out: targets of requests and of versions, and transactions of which there may be another version.
#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    versions: Vec<String>,
    doubted: Vec<u32>,
    answers: usize,
    /// Targets of requests that only another version has.
    more: Vec<String>,
    /// Kinds of what came, in order.
    order: Vec<&'static str>,
}

struct Talk {
    engine: Offline,
    at: u64,
    client: u32,
    server: u32,
    /// Last byte of the client's address, if not the usual one.
    address: u8,
    port: u16,
    seen: Seen,
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

impl Talk {
    fn with(limits: Limits) -> Self {
        let engine = Offline::new(tables(), false, 1024, 64, limits);
        let (at, client, server, port) = (0, 1000, 5000, 40_000);
        let mut talk = Self { engine, at, client, server, address: 0, port, seen: Seen::default() };
        talk.connect(40_000);
        talk
    }

    fn open() -> Self {
        Self::with(Limits::default())
    }

    fn connect(&mut self, port: u16) {
        (self.client, self.server, self.port) = (1000, 5000, port);
        self.packet(From::Client, 999, 0, SYN, b"");
        self.packet(From::Server, 4999, 1000, SYN | ACK, b"");
    }

    fn packet(&mut self, from: From, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) {
        self.at += 1;
        let mut frame = segment_of(self.port, from, sequence, flags, payload);
        frame[42..46].copy_from_slice(&acknowledged.to_be_bytes());
        if self.address > 0 {
            frame[if from == From::Client { 29 } else { 33 }] = self.address;
        }
        self.engine.ethernet(self.at, &frame, u32::try_from(frame.len()).unwrap());
        let seen = &mut self.seen;
        self.engine.drain(|record| seen.note(record));
    }

    /// From the client, `ahead` of where it is; it stays there.
    fn beside(&mut self, ahead: u32, flags: u8, payload: &[u8]) {
        self.packet(From::Client, self.client.wrapping_add(ahead), self.server, flags, payload);
    }

    fn request(&mut self, payload: &[u8]) {
        self.beside(0, ACK, payload);
        self.client = self.client.wrapping_add(len(payload));
    }

    fn answer(&mut self, payload: &[u8]) {
        self.packet(From::Server, self.server, self.client, ACK, payload);
        self.server = self.server.wrapping_add(len(payload));
    }

    /// A request whose two halves come in the wrong order: the slow path has the flow.
    fn swapped(&mut self, payload: &[u8]) {
        let (first, second) = payload.split_at(payload.len() / 2);
        self.beside(len(first), ACK, second);
        self.beside(0, ACK, first);
        self.client = self.client.wrapping_add(len(payload));
    }

    fn finish(mut self) -> Seen {
        let seen = &mut self.seen;
        self.engine.finish(|record| seen.note(record));
        self.seen
    }
}

impl Seen {
    fn note(&mut self, record: &[u8]) {
        let line = |head: &sensor::collect::decode::Head<'_>| {
            head.capture(capture::LINE).map(|line| String::from_utf8_lossy(line).split(' ').nth(1).unwrap().to_owned())
        };
        let record = decode(record).unwrap();
        self.order.extend(match record {
            Record::Request(_) => Some("request"),
            Record::Version(_) => Some("version"),
            Record::Response(_) => Some("response"),
            Record::Close(_) => Some("close"),
            Record::AnswerLost(_) => Some("lost"),
            _ => None,
        });
        match record {
            Record::Request(head) => self.requests.push(line(&head).unwrap()),
            Record::Version(head) => {
                if let Some(line) = line(&head) {
                    let of_its_own = head.flag(head_flag::MORE);
                    if of_its_own { &mut self.more } else { &mut self.versions }.push(line);
                } else {
                    assert!(head.anomaly(anomaly::CONFLICT));
                    self.doubted.push(head.fixed.head.txn);
                }
            }
            Record::Response(head) if head.fixed.head.txn != u32::MAX => self.answers += 1,
            _ => {}
        }
    }
}

fn get(target: &str, filler: usize) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\nX-A: {}\r\n\r\n", "a".repeat(filler)).into_bytes()
}

/// RFC 5961 §3.2: a reset that does not stand exactly at the next byte is dropped, whether data waits behind a hole or not.
#[test]
fn a_reset_from_elsewhere_hides_nothing_on_the_slow_path() {
    for (ahead, hole) in [(1 << 20, 0), (u32::MAX - 5, 0), (200, 200), (100, 200)] {
        let mut talk = Talk::open();
        talk.swapped(GET);
        if hole > 0 {
            // Something waits behind a hole, and the reset stands behind that.
            talk.beside(hole - 10, ACK, b"0123456789");
        }
        talk.beside(ahead, RST | ACK, b"");
        talk.answer(OK);
        for piece in get("/second", 200).chunks(3) {
            talk.request(piece);
        }
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!(seen.requests, ["/members/7/addresses", "/second"], "{ahead} {hole}");
        assert_eq!(seen.answers, 2, "{ahead} {hole}");
    }
}

#[test]
fn a_reset_where_the_stream_stands_ends_the_flow() {
    for fin in [false, true] {
        let mut talk = Talk::open();
        talk.swapped(GET);
        talk.beside(0, if fin { FIN | ACK } else { ACK }, b"");
        talk.beside(u32::from(fin), RST | ACK, b"");
        assert_eq!(talk.engine.slow().flows, 0, "fin {fin}");
        assert_eq!(talk.finish().requests.len(), 1);
    }
}

/// Four harmless versions use up what is kept of them; the fifth is the one that the server reads.
#[test]
fn one_contradiction_too_many_leaves_doubt() {
    let mut talk = Talk::open();
    let decoy = get("/mine/1", 60);
    talk.swapped(&decoy);
    let start = talk.client.wrapping_sub(len(&decoy));
    for at in [40, 44, 48, 52] {
        talk.packet(From::Client, start + at, 5000, ACK, b"b");
    }
    talk.packet(From::Client, start, 5000, ACK, &get("/other/", 60)[..10]);
    talk.answer(OK);
    assert_eq!(talk.finish().doubted, [0]);
}

/// More unanswered requests than are remembered.
#[test]
fn what_is_not_remembered_leaves_doubt() {
    let mut talk = Talk::with(Limits { head_bytes: 1024, ..Limits::default() });
    talk.swapped(&get("/1", 600));
    talk.request(&get("/2", 600));
    let decoy = get("/mine", 600);
    let start = talk.client;
    talk.request(&decoy);
    talk.packet(From::Client, start, 5000, ACK, &get("/they", 600));
    talk.answer(OK);
    let seen = talk.finish();
    assert!(seen.doubted.contains(&2), "{:?}", seen.doubted);
}

#[test]
fn a_body_that_is_sent_again_leaves_no_doubt() {
    let mut talk = Talk::with(Limits { head_bytes: 1024, ..Limits::default() });
    let head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 6000\r\n\r\n";
    talk.swapped(head);
    for _ in 0..6 {
        talk.request(&[b'x'; 1000]);
    }
    for back in [5000, 3000, 1000] {
        talk.beside(0_u32.wrapping_sub(back), ACK, &[b'x'; 1000]);
    }
    talk.answer(OK);
    let seen = talk.finish();
    assert_eq!((seen.requests.len(), seen.doubted, seen.versions.len()), (1, vec![], 0));
}

/// Who lets much wait behind holes does not push others out.
#[test]
fn a_hoarder_gives_up_its_own() {
    let limits = Limits { held_bytes: 1 << 20, half_bytes: 1 << 20, ..Limits::default() };
    let mut talk = Talk::with(limits);
    // Half of a head, the half in front of it missing.
    talk.beside(10, ACK, &GET[10..]);
    for port in 0..4 {
        talk.connect(50_000 + port);
        for at in 0..800_u32 {
            talk.beside(10 + at * 1000, ACK, &[b'x'; 1000]);
        }
    }
    assert_eq!(talk.engine.slow().evicted, 0);
    assert!(talk.engine.slow().held <= 1 << 20);
    (talk.port, talk.client) = (40_000, 1000);
    talk.beside(0, ACK, &GET[..10]);
    assert_eq!(talk.finish().requests, ["/members/7/addresses"]);
}

/// Far behind the window and far ahead of it, right behind the handshake: the server drops the decoy.
#[test]
fn a_decoy_outside_the_window_takes_no_connection_along() {
    for ahead in [0_u32.wrapping_sub(1 << 27), 1 << 27, 0_u32.wrapping_sub(500)] {
        let mut talk = Talk::open();
        talk.beside(ahead, ACK, &get("/decoy", 0));
        for piece in GET.chunks(3) {
            talk.request(piece);
        }
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!((seen.requests, seen.answers), (vec!["/members/7/addresses".to_owned()], 1), "{ahead}");
    }
}

/// A SYN in a connection is answered with the place where the server is (RFC 5961 §4.2).
#[test]
fn a_decoy_behind_a_forged_syn_takes_no_connection_along() {
    for (ahead, decoy) in [(1 << 27, true), (5000, true), (1 << 29, false)] {
        let mut talk = Talk::open();
        talk.request(GET);
        talk.answer(OK);
        talk.beside(ahead - 1, SYN, b"");
        if decoy {
            talk.beside(ahead, ACK, &get("/decoy", 0));
        }
        talk.answer(b"");
        for piece in get("/second", 0).chunks(3) {
            talk.request(piece);
        }
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!(seen.requests.last().unwrap(), "/second", "{ahead}");
    }
}

/// A request that is not the last one, sent again with other bytes while nothing was answered.
#[test]
fn an_earlier_unanswered_request_that_is_sent_again_leaves_doubt() {
    let mut talk = Talk::open();
    let start = talk.client;
    talk.request(&get("/mine", 10));
    talk.request(&get("/2", 10));
    talk.packet(From::Client, start, 5000, ACK, &get("/they", 10));
    talk.answer(OK);
    let seen = talk.finish();
    assert!(seen.doubted.contains(&0) || seen.versions == ["/they"], "{:?} {:?}", seen.doubted, seen.versions);
}

/// What a loss probe repeats of a head in two segments: the last of them, because the server takes its time.
#[test]
fn a_part_of_a_head_that_is_sent_again_as_it_was_leaves_no_doubt() {
    for at in [3, 20, GET.len() - 2] {
        let (first, last) = GET.split_at(at);
        let mut talk = Talk::open();
        for txn in 0..2 {
            let start = talk.client;
            talk.request(first);
            talk.packet(From::Client, start, talk.server, ACK, first);
            talk.request(last);
            talk.packet(From::Client, start + len(first), talk.server, ACK, last);
            talk.packet(From::Client, start, talk.server, ACK, first);
            if txn == 0 {
                talk.answer(OK);
            }
        }
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!((seen.requests.len(), seen.versions.len(), seen.answers), (2, 0, 2), "{at}");
        assert_eq!(seen.doubted, Vec::<u32>::new(), "{at}");
    }
}

/// And what it could hide: the same part with one byte that differs, the same bytes from another place, other borders.
#[test]
fn a_part_of_a_head_that_is_sent_again_otherwise_leaves_doubt() {
    let (first, last) = GET.split_at(20);
    let other = |part: &[u8], at: usize| {
        let mut other = part.to_vec();
        other[at] ^= 1;
        other
    };
    let again = [
        (20, other(last, 0)),
        (20, other(last, last.len() - 5)),
        (0, other(first, 6)),
        (20, last[..last.len() - 1].to_vec()),
        (21, last[1..].to_vec()),
        (26, last.to_vec()),
    ];
    for (from, bytes) in again {
        let mut talk = Talk::open();
        let start = talk.client;
        talk.request(first);
        talk.request(last);
        let fits = (GET.len() - from as usize).min(bytes.len());
        talk.packet(From::Client, start + from, talk.server, ACK, &bytes[..fits]);
        talk.answer(OK);
        assert_eq!(talk.finish().doubted, [0], "{from} {}", bytes.len());
    }
    // A head in one segment is not remembered: its last part, known from an earlier head, does not speak for it.
    let mut talk = Talk::open();
    talk.request(first);
    talk.request(last);
    talk.answer(OK);
    talk.request(&[&other(first, 6), last].concat());
    talk.packet(From::Client, talk.client - len(last), talk.server, ACK, last);
    talk.answer(OK);
    assert_eq!(talk.finish().doubted, [1]);
}

/// Sent again with other bytes, and longer than before: neither all known nor all new.
#[test]
fn another_version_that_is_longer_is_judged() {
    for more in ["\r\n", "GET /x HTTP/1.1\r\n"] {
        let mut talk = Talk::open();
        let start = talk.client;
        talk.request(&get("/mine", 10));
        let longer = [get("/they", 10), more.as_bytes().to_vec()].concat();
        talk.packet(From::Client, start, 5000, ACK, &longer);
        talk.client = start + len(&longer);
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!(seen.versions.first().map(String::as_str), Some("/they"), "{more:?} {:?}", seen.doubted);
    }
}

/// A request in what the first version calls a body, on either path: it is told as one that only the other version has.
#[test]
fn a_pipelined_request_is_not_hidden_in_another_version() {
    let hidden = get("/users/7", 0);
    let body = vec![b'x'; hidden.len()];
    let post = |path: &str, body_len: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {body_len}\r\n\r\n").into_bytes()
    };
    let first = [post("/mine", body.len()), body].concat();
    // The same length, so that nothing else gives it away.
    let other = [post("/mine", 0), vec![b'\n'; first.len() - post("/mine", 0).len() - hidden.len()], hidden].concat();
    assert_eq!(first.len(), other.len());
    for slow in [false, true] {
        let mut talk = Talk::open();
        if slow {
            talk.swapped(GET);
            talk.answer(OK);
        }
        let start = talk.client;
        talk.request(&first);
        talk.packet(From::Client, start, talk.server, ACK, &other);
        talk.answer(OK);
        talk.request(&get("/next", 0));
        talk.answer(OK);
        let seen = talk.finish();
        assert_eq!((seen.versions, seen.more), (vec!["/mine".to_owned()], vec!["/users/7".to_owned()]), "{slow}");
        assert_eq!((seen.requests.len(), seen.answers), (2 + usize::from(slow), 2 + usize::from(slow)));
    }
}

/// Behind a hole, two versions of what is there; the answer shows that nothing will fill it.
#[test]
fn a_version_comes_in_front_of_the_answer_to_its_request() {
    let mut talk = Talk::open();
    talk.swapped(GET);
    let (mine, they) = (get("/mine", 10), get("/they", 10));
    talk.beside(100, ACK, &mine);
    talk.beside(100, ACK, &they);
    talk.client += 100 + len(&mine);
    talk.answer(&[OK, OK].concat());
    let seen = talk.finish();
    assert_eq!((&*seen.requests[1], seen.versions), ("/mine", vec!["/they".to_owned()]));
    assert_eq!(seen.order, ["request", "request", "version", "response", "response"]);
}

/// Halves of heads come in the wrong order on more connections than are followed. Those that went speak again first; what
/// is still awaited comes nevertheless.
#[test]
fn who_went_does_not_push_out_who_waits() {
    let mut talk = Talk::with(Limits { flows: 16, ..Limits::default() });
    let connect = |talk: &mut Talk, number: u8| {
        talk.address = number;
        talk.connect(41_000 + u16::from(number));
    };
    let (first, second) = GET.split_at(20);
    for number in 10..74 {
        connect(&mut talk, number);
        talk.beside(len(first), ACK, second);
    }
    assert_eq!((talk.engine.slow().flows, talk.engine.slow().evicted), (16, 48));
    for number in 10..74 {
        (talk.address, talk.port) = (number, 41_000 + u16::from(number));
        talk.beside(0, ACK, first);
    }
    let counts = talk.engine.slow();
    assert_eq!((counts.flows, counts.evicted, counts.evicted_found), (16, 96, 48));
    assert_eq!(talk.finish().requests.len(), 16);
}

/// One client opens many connections with a hole each: the others' stay, until they are all that there is room for.
#[test]
fn one_client_does_not_push_out_the_others() {
    let mut talk = Talk::with(Limits { flows: 16, ..Limits::default() });
    let (first, second) = GET.split_at(20);
    let connect = |talk: &mut Talk, address: u8, port: u16| {
        talk.address = address;
        talk.connect(port);
        talk.beside(len(first), ACK, second);
    };
    for address in 11..19 {
        connect(&mut talk, address, 41_000);
    }
    for port in 0..100 {
        connect(&mut talk, 99, 42_000 + port);
    }
    let counts = talk.engine.slow();
    assert_eq!((counts.flows, counts.evicted, counts.evicted_share), (16, 92, 92));
    for address in 11..19 {
        (talk.address, talk.port) = (address, 41_000);
        talk.beside(0, ACK, first);
    }
    assert_eq!(talk.finish().requests.len(), 8);
}

/// Bytes of the server that nobody will send again: the request that waits may have been answered there.
#[test]
fn an_answer_that_may_be_lost_is_told() {
    for outstanding in [true, false] {
        let mut talk = Talk::open();
        talk.request(GET);
        if !outstanding {
            talk.answer(OK);
        }
        talk.server += 300;
        talk.answer(OK);
        // The client has what is missing.
        talk.request(b"");
        talk.packet(From::Client, talk.client, talk.server, ACK, &get("/next", 0));
        let seen = talk.finish();
        let lost: Vec<&str> = seen.order.iter().copied().filter(|what| *what == "lost").collect();
        assert_eq!(lost.len(), usize::from(outstanding), "{:?}", seen.order);
    }
}

/// The server closes, and what it said before was never seen; or comes after its end.
#[test]
fn an_answer_that_is_missing_in_front_of_the_end_is_told() {
    for late in [false, true] {
        let mut talk = Talk::open();
        talk.request(GET);
        let end = talk.server + len(OK);
        talk.packet(From::Server, end, talk.client, FIN | ACK, b"");
        if late {
            talk.answer(OK);
        }
        let seen = talk.finish();
        let expected = if late { ["request", "response"] } else { ["request", "lost"] };
        assert_eq!(seen.order, expected);
    }
}
