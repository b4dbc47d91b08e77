//! FIN and RST of flows that the slow path follows.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;

use super::support::packets::{ACK, FIN, RST, Segment};
use super::support::shop;
use super::support::sides::Record;
use super::{handed_over, loaded, opened, response, swapped};

#[test]
fn an_end_that_overtakes_its_bytes() {
    let Some(mut both) = loaded("an_end_that_overtakes_its_bytes") else { return };
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end";
    let mut peers = opened(&mut both, 4000);
    both.run(&[peers.request(&shop::read("1", "t"))]);
    let [first, second, mut third] = response(&mut peers, answer, 10, answer.len() - 4);
    third.flags |= FIN;
    let made = both.run(&[first, third]);
    assert_eq!(made.told.exchanges(), []);
    let made = both.run(&[second]);
    assert_eq!(made.told.exchanges(), [(kind::RESPONSE, 0), (kind::END, 0)]);
    assert_eq!(made.told.events[1].end(), (13, true), "the body is whole");
    both.run(&[Segment::new(peers.client, peers.server, peers.client_next, FIN | ACK, b"")]);
    assert_eq!(both.slow_counts().flows, 0, "both ended");
    both.rest();
}

#[test]
fn a_reset_while_the_slow_path_follows() {
    let Some(mut both) = loaded("a_reset_while_the_slow_path_follows") else { return };
    let mut peers = handed_over(&mut both, 4010);
    let made = both.run(&swapped(super::request(&mut peers, &shop::read("2", "t"), 30, 60)));
    // The kernel takes it back, and hands it over again.
    assert_eq!(made.told.exchanges(), [(kind::REQUEST, 1)]);
    let made = both.run(&[Segment::new(peers.server, peers.client, peers.server_next, RST | ACK, b"")]);
    let kinds: Vec<u8> = made.told.events.iter().map(Record::kind).collect();
    assert_eq!(kinds, [kind::CLOSE]);
    // Whether the reset stands where the stream does is not for the kernel to say.
    assert_eq!((made.count(Counter::FlowsDeleted), both.slow_counts().flows), (0, 0));
    both.rest();
}

#[test]
fn a_reset_from_elsewhere_ends_nothing() {
    let Some(mut both) = loaded("a_reset_from_elsewhere_ends_nothing") else { return };
    let mut peers = handed_over(&mut both, 4020);
    for ahead in [5000_u32, 5000_u32.wrapping_neg(), 1 << 30] {
        let place = peers.server_next.wrapping_add(ahead);
        let made = both.run(&[Segment::new(peers.server, peers.client, place, RST | ACK, b"")]);
        assert_eq!((made.told.exchanges(), made.count(Counter::FlowsDeleted)), (vec![], 0));
        assert_eq!(both.slow_counts().flows, 1, "it is followed on");
    }
    super::is_taken_back(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn an_end_in_order_while_the_slow_path_follows() {
    let Some(mut both) = loaded("an_end_in_order_while_the_slow_path_follows") else { return };
    let mut peers = handed_over(&mut both, 4030);
    let made = both.run(&peers.close());
    assert_eq!((made.count(Counter::FlowsResumed), made.count(Counter::FlowsDeleted)), (1, 1), "it was at rest");

    let mut peers = opened(&mut both, 4031);
    both.run(&swapped(super::request(&mut peers, &shop::read("1", "t"), 30, 60)));
    let mut answer = peers.response(&shop::answer(20));
    answer.flags |= FIN;
    peers.server_next = peers.server_next.wrapping_add(1);
    both.run(&[Segment::new(peers.client, peers.server, peers.client_next, FIN | ACK, b""), answer]);
    assert_eq!(both.slow_counts().flows, 0, "both ended");
    // The end once more, as after a lost acknowledgement: nothing is followed for its sake.
    let again = Segment::new(peers.server, peers.client, peers.server_next.wrapping_sub(1), FIN | ACK, b"");
    both.run(&[again]);
    assert_eq!(both.slow_counts().flows, 0);
    both.rest();
}
