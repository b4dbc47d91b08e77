//! Which answer belongs to which request where packets are missing, come twice, or come before what they answer.

use sensor::capture::offline::Offline;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::anomaly;

use super::rig::{ACK, FIN, From, Output, SYN, check_identities, count, engine, segment_of};

/// Where the bytes of each side begin.
const FIRST: [u32; 2] = [1_000, 0xffff_fff0];

/// A connection whose packets say where they stand and what they acknowledge, both counted from the first byte.
struct Wire(Offline);

impl Wire {
    /// A connection whose opening was seen.
    fn opened() -> Self {
        let mut wire = Self(engine());
        wire.raw(From::Client, FIRST[0].wrapping_sub(1), SYN, 0, b"");
        wire.raw(From::Server, FIRST[1].wrapping_sub(1), SYN | ACK, FIRST[0], b"");
        wire
    }

    fn raw(&mut self, from: From, sequence: u32, flags: u8, acknowledges: u32, payload: &[u8]) {
        let mut frame = segment_of(40_000, from, sequence, flags, payload);
        frame[42..46].copy_from_slice(&acknowledges.to_be_bytes());
        self.0.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
    }

    fn send(&mut self, from: From, at: u32, flags: u8, acknowledges: u32, payload: &[u8]) {
        let (own, other) = if from == From::Client { (0, 1) } else { (1, 0) };
        let sequence = FIRST[own].wrapping_add(at);
        self.raw(from, sequence, ACK | flags, FIRST[other].wrapping_add(acknowledges), payload);
    }

    /// What came out without anybody giving up on what is missing.
    fn seen(&mut self) -> Output {
        check_identities(&self.0);
        let mut output = Output::default();
        self.0.drain(|bytes| output.note(bytes));
        output
    }
}

/// Transaction and anomalies of each head, requests first.
fn pairs(output: &Output) -> (Vec<u32>, Vec<(u32, u32)>) {
    let of = |request: bool| output.heads.iter().filter(move |head| head.request == request);
    let odd = anomaly::UNSOLICITED | anomaly::EARLY;
    (of(true).map(|head| head.txn).collect(), of(false).map(|head| (head.txn, head.anomalies & odd)).collect())
}

fn get(path: &str) -> Vec<u8> {
    format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// A body and the two bytes behind it are missing: too few for another answer. Three requests wait.
#[test]
fn the_answer_behind_a_missing_body_is_the_next_in_turn() {
    let mut wire = Wire::opened();
    let requests = [get("1"), get("2"), get("3")].concat();
    let (asked, head) = (len(&requests), len(HEAD));
    wire.send(From::Client, 0, 0, 0, &requests);
    wire.send(From::Server, 0, 0, asked, HEAD);
    let next = head + 14;
    wire.send(From::Server, next, 0, asked, WHOLE);
    wire.send(From::Server, next + len(WHOLE), 0, asked, WHOLE);
    wire.send(From::Client, asked, 0, next + 2 * len(WHOLE), &get("4"));
    assert_eq!(pairs(&wire.seen()), (vec![0, 1, 2, 3], vec![(0, 0), (1, 0), (2, 0)]));
}

/// Where a whole answer may hide in what is missing, the next one belongs to the newest request.
#[test]
fn the_answer_behind_more_than_a_body_is_the_newest_ones() {
    let mut wire = Wire::opened();
    let requests = [get("1"), get("2"), get("3")].concat();
    let (asked, head) = (len(&requests), len(HEAD));
    wire.send(From::Client, 0, 0, 0, &requests);
    wire.send(From::Server, 0, 0, asked, HEAD);
    let next = head + 12 + len(WHOLE);
    wire.send(From::Server, next, 0, asked, WHOLE);
    wire.send(From::Client, asked, 0, next + len(WHOLE), &get("4"));
    assert_eq!(pairs(&wire.seen()), (vec![0, 1, 2, 3], vec![(0, 0), (2, 0)]));
}

/// The packet that says that nobody misses the missing bytes is itself a request: the answer was there before it.
#[test]
fn an_answer_does_not_find_a_later_request() {
    let mut wire = Wire::opened();
    let (one, two) = (get("1"), get("2"));
    wire.send(From::Client, 0, 0, 0, &one);
    wire.send(From::Server, 0, 0, len(&one), HEAD);
    // Its body is missing, and the head of another answer.
    let gap = len(HEAD) + 12 + 100;
    wire.send(From::Client, len(&one), 0, gap, &two);
    let asked = len(&one) + len(&two);
    wire.send(From::Server, gap, 0, asked, WHOLE);
    wire.send(From::Client, asked, 0, gap + len(WHOLE), &get("3"));
    assert_eq!(pairs(&wire.seen()), (vec![0, 1, 2], vec![(0, 0), (1, 0)]));
}

/// The opening of a connection comes again behind its first request, as from a mirror that sends packets twice.
#[test]
fn a_syn_that_comes_again_begins_nothing_anew() {
    let mut wire = Wire::opened();
    let one = get("1");
    wire.send(From::Client, 0, 0, 0, &one);
    wire.raw(From::Client, FIRST[0].wrapping_sub(1), SYN, 0, b"");
    wire.raw(From::Server, FIRST[1].wrapping_sub(1), SYN | ACK, FIRST[0], b"");
    wire.send(From::Client, 0, 0, 0, &one);
    wire.send(From::Server, 0, 0, len(&one), WHOLE);
    assert_eq!(pairs(&wire.seen()), (vec![0], vec![(0, 0)]));
    assert_eq!(count(&wire.0, Counter::FlowsCreated), 1);
    // Another one is another connection.
    wire.raw(From::Client, 5, SYN, 0, b"");
    assert_eq!(count(&wire.0, Counter::FlowsCreated), 2);
}

/// The same while the slow path follows the connection.
#[test]
fn a_syn_that_comes_again_does_not_end_the_slow_path() {
    let mut wire = Wire::opened();
    let one = get("1");
    let (front, rest) = one.split_at(10);
    wire.send(From::Client, 10, 0, 0, rest);
    assert!(wire.seen().heads.is_empty());
    wire.raw(From::Client, FIRST[0].wrapping_sub(1), SYN, 0, b"");
    wire.send(From::Client, 0, 0, 0, front);
    wire.send(From::Server, 0, 0, len(&one), WHOLE);
    assert_eq!(pairs(&wire.seen()), (vec![0], vec![(0, 0)]));
}

/// Both ends are closed, and the client sends its last bytes again, because nobody acknowledged them.
#[test]
fn what_a_closed_connection_sends_again_is_no_request() {
    let mut wire = Wire::opened();
    let one = get("1");
    wire.send(From::Client, 0, 0, 0, &one);
    wire.send(From::Server, 0, FIN, 0, b"");
    wire.send(From::Client, len(&one), FIN, 1, b"");
    assert_eq!(pairs(&wire.seen()), (vec![0], vec![]));
    wire.send(From::Client, 0, FIN, 1, &one);
    wire.send(From::Client, 0, FIN, 1, &one);
    assert!(wire.seen().heads.is_empty());
    assert_eq!(count(&wire.0, Counter::FlowsPickedUp), 0);
}

/// A server that talks before it was asked: its client takes that for the answer.
#[test]
fn the_first_answer_of_a_connection_may_come_before_its_request() {
    let mut wire = Wire::opened();
    wire.send(From::Server, 0, 0, 0, WHOLE);
    wire.send(From::Server, len(WHOLE), 0, 0, WHOLE);
    wire.send(From::Client, 0, 0, 2 * len(WHOLE), &get("1"));
    let expected = vec![(0, anomaly::EARLY), (u32::MAX, anomaly::UNSOLICITED)];
    assert_eq!(pairs(&wire.seen()), (vec![0], expected));
}

/// But not where it acknowledges a request that was missed.
#[test]
fn an_answer_to_a_missed_request_waits_for_no_other() {
    let mut wire = Wire::opened();
    let (one, two) = (get("1"), get("2"));
    wire.send(From::Server, 0, 0, len(&one), WHOLE);
    wire.send(From::Client, len(&one), 0, len(WHOLE), &two);
    wire.send(From::Server, len(WHOLE), 0, len(&one) + len(&two), WHOLE);
    let mut output = wire.seen();
    let behind = {
        let mut last = Output::default();
        wire.0.settle(|bytes| last.note(bytes));
        last
    };
    output.heads.extend(behind.heads);
    assert_eq!(pairs(&output).1[0], (u32::MAX, anomaly::UNSOLICITED));
    assert_eq!(pairs(&output).0, [0]);
    assert_eq!(pairs(&output).1[1], (0, 0));
}
