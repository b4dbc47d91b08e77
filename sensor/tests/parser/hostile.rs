//! Packets that a server drops, or answers without a change, must not make the sensor lose its connection.

use sensor::capture::offline::Offline;
use sensor::collect::decode::{Record, decode};

use crate::rig::{ACK, From, SYN, engine, segment_of};

const RST: u8 = 4;
const PORT: u16 = 40_000;
const GET: &[u8] = b"GET /members/7/addresses HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Talk {
    engine: Offline,
    at: u64,
    client: u32,
    server: u32,
}

impl Talk {
    fn open() -> Self {
        let mut talk = Self { engine: engine(), at: 0, client: 1000, server: 5000 };
        talk.packet(From::Client, 999, SYN, b"");
        talk.packet(From::Server, 4999, SYN | ACK, b"");
        talk
    }

    fn packet(&mut self, from: From, sequence: u32, flags: u8, payload: &[u8]) {
        self.at += 1;
        let frame = segment_of(PORT, from, sequence, flags, payload);
        self.engine.ethernet(self.at, &frame, u32::try_from(frame.len()).unwrap());
    }

    fn exchange(&mut self) {
        self.packet(From::Client, self.client, ACK, GET);
        self.client += u32::try_from(GET.len()).unwrap();
        self.packet(From::Server, self.server, ACK, OK);
        self.server += u32::try_from(OK.len()).unwrap();
    }

    /// Request heads and answered responses that came out.
    fn seen(mut self) -> (usize, usize) {
        let (mut requests, mut answers) = (0, 0);
        self.engine.drain(|record| match decode(record) {
            Ok(Record::Request(_)) => requests += 1,
            Ok(Record::Response(head)) if head.fixed.head.txn != u32::MAX => answers += 1,
            _ => {}
        });
        (requests, answers)
    }
}

#[test]
fn a_segment_far_ahead_blinds_nothing() {
    let mut talk = Talk::open();
    talk.exchange();
    talk.packet(From::Client, talk.client + 40_000_000, ACK, b"x");
    talk.exchange();
    talk.exchange();
    assert_eq!(talk.seen(), (3, 3));
}

#[test]
fn a_syn_in_a_connection_blinds_nothing() {
    let mut talk = Talk::open();
    talk.exchange();
    talk.packet(From::Client, talk.client + (1 << 30), SYN, b"");
    talk.exchange();
    talk.exchange();
    assert_eq!(talk.seen(), (3, 3));
}

#[test]
fn a_reset_from_elsewhere_in_the_stream_ends_nothing() {
    let mut talk = Talk::open();
    talk.exchange();
    for _ in 0..3 {
        talk.packet(From::Client, talk.client + (1 << 29), RST, b"");
        let (start, rest) = GET.split_at(4);
        talk.packet(From::Client, talk.client, ACK, start);
        talk.packet(From::Client, talk.client + 4, ACK, rest);
        talk.client += u32::try_from(GET.len()).unwrap();
        talk.packet(From::Server, talk.server, ACK, OK);
        talk.server += u32::try_from(OK.len()).unwrap();
    }
    assert_eq!(talk.seen(), (4, 4));
}

#[test]
fn an_odd_request_hides_nothing_behind_it() {
    for odd in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.01\r\nHost: x\r\n\r\n"]
    {
        let mut talk = Talk::open();
        let both = [odd.as_bytes(), GET].concat();
        talk.packet(From::Client, talk.client, ACK, &both);
        assert_eq!(talk.seen().0, 2, "{odd}");
    }
}

/// RFC 6749 §4.2.2: an access token in the fragment of a redirect.
#[test]
fn of_a_redirect_only_the_path_is_captured() {
    let mut talk = Talk::open();
    talk.packet(From::Client, talk.client, ACK, GET);
    let answer = b"HTTP/1.1 302 Found\r\nLocation: /cb#access_token=RAWTOKEN\r\nContent-Length: 0\r\n\r\n";
    talk.packet(From::Server, talk.server, ACK, answer);
    let mut all = Vec::new();
    talk.engine.drain(|record| all.extend_from_slice(record));
    assert!(all.windows(3).any(|part| part == b"/cb"));
    assert!(!all.windows(8).any(|part| part == b"RAWTOKEN"));
}
