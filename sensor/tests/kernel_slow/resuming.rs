//! The way back to the kernel.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;

use super::support::shop;
use super::{handed_over, is_taken_back, loaded, opened, request, response, swapped};

#[test]
fn the_kernel_takes_a_flow_back_where_it_rests() {
    let Some(mut both) = loaded("the_kernel_takes_a_flow_back_where_it_rests") else { return };
    let mut peers = handed_over(&mut both, 2000);
    is_taken_back(&mut both, &mut peers, 1);
    assert_eq!(both.slow_counts().flows, 0, "and the slow path forgets it");
    super::goes_on_in_the_kernel(&mut both, &mut peers, 2);
    let made = both.run(&peers.close());
    assert_eq!(made.count(Counter::FlowsDeleted), 1);
    both.rest();
}

#[test]
fn a_second_hand_over_is_another_epoch() {
    let Some(mut both) = loaded("a_second_hand_over_is_another_epoch") else { return };
    let mut peers = handed_over(&mut both, 2010);
    is_taken_back(&mut both, &mut peers, 1);
    for round in 0..3 {
        let number = 2 + 2 * round;
        let made = both.run(&swapped(request(&mut peers, &shop::read("1", "t"), 25, 50)));
        assert_eq!(made.told.exchanges(), [(kind::REQUEST, number)]);
        assert_eq!(u32::from_le_bytes(made.told.events[0].0[36..40].try_into().unwrap()), round + 2, "epoch");
        both.run(&swapped(response(&mut peers, &shop::answer(30), 20, 60)));
        is_taken_back(&mut both, &mut peers, number + 1);
    }
    both.rest();
}

#[test]
fn what_came_before_the_offer_stays_with_the_slow_path() {
    let Some(mut both) = loaded("what_came_before_the_offer_stays_with_the_slow_path") else { return };
    let mut peers = opened(&mut both, 2020);
    // Nothing is read until all of it has come.
    let mut segments = swapped(request(&mut peers, &shop::read("1", "t"), 30, 60)).to_vec();
    segments.extend([
        peers.response(&shop::answer(5)),
        peers.request(&shop::read("2", "t")),
        peers.response(&shop::answer(6)),
    ]);
    let made = both.run_every(&segments, 100);
    assert_eq!(made.count(Counter::FlowsResumed), 0);
    assert_eq!(made.slow_heads(), 4);
    is_taken_back(&mut both, &mut peers, 2);
    both.rest();
}

#[test]
fn an_offer_is_refused_when_new_bytes_came_meanwhile() {
    let Some(mut both) = loaded("an_offer_is_refused_when_new_bytes_came_meanwhile") else { return };
    // Bytes of the server that nobody asked for: the place of the response half is not the offered one.
    let mut peers = handed_over(&mut both, 2030);
    let unasked = peers.response(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    let next = [unasked, peers.request(&shop::read("2", "t")), peers.response(&shop::answer(5))];
    let made = both.run_every(&next, 100);
    assert_eq!((made.count(Counter::FlowsResumed), made.count(Counter::PacketSlow)), (0, 3));
    both.rest();

    // The half that is offered lies behind a hole.
    let mut peers = handed_over(&mut both, 2031);
    let [first, second, third] = request(&mut peers, &shop::read("2", "t"), 30, 60);
    let made = both.run_every(&[second, first, third], 100);
    assert_eq!((made.count(Counter::FlowsResumed), made.told.exchanges()), (0, vec![(kind::REQUEST, 1)]));
    both.run(&[peers.response(&shop::answer(5))]);
    is_taken_back(&mut both, &mut peers, 2);
    both.rest();
}

#[test]
fn half_a_request_takes_the_offer_away() {
    let Some(mut both) = loaded("half_a_request_takes_the_offer_away") else { return };
    let mut peers = handed_over(&mut both, 2040);
    // Seen again, a piece of the old request changes nothing; the flow is still offered.
    let mut again = peers.request(b"");
    again.sequence = again.sequence.wrapping_sub(10);
    again.payload = shop::read("1", "t")[shop::read("1", "t").len() - 10..].to_vec();
    let made = both.run(&[again]);
    assert_eq!(made.count(Counter::PacketSlow), 1);
    is_taken_back(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn a_flow_that_leaves_http_on_the_slow_path_is_passed_over() {
    let Some(mut both) = loaded("a_flow_that_leaves_http_on_the_slow_path_is_passed_over") else { return };
    let ask = b"GET /socket HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let granted = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut peers = opened(&mut both, 2050);
    both.run(&swapped(request(&mut peers, ask, 20, 40)));
    let made = both.run(&swapped(response(&mut peers, granted, 20, 40)));
    assert_eq!((made.count(Counter::FlowsUpgraded), made.told.exchanges()), (1, vec![(kind::RESPONSE, 0)]));
    let made = both.run(&[
        peers.request(b"GET /not-http HTTP/1.1\r\n\r\n"),
        peers.response(b"HTTP/1.1 200 OK\r\n\r\n"),
        peers.request(b"\x81\x05hello"),
    ]);
    assert_eq!(made.told.exchanges(), []);
    assert_eq!((made.count(Counter::PacketPassed), made.count(Counter::PacketSlow)), (3, 0));
    let made = both.run(&peers.close());
    assert_eq!((made.count(Counter::FlowsDeleted), made.told.exchanges()), (1, vec![]));
    both.rest();
}

#[test]
fn a_new_connection_of_the_same_ports() {
    let Some(mut both) = loaded("a_new_connection_of_the_same_ports") else { return };
    // Once offered, once in the middle of a head.
    handed_over(&mut both, 2060);
    let mut peers = opened(&mut both, 2061);
    let [first, _, last] = request(&mut peers, &shop::read("1", "t"), 30, 60);
    both.run(&[first, last]);
    for port in [2060, 2061] {
        let mut peers = shop::client(port);
        peers.client_next = 0x1000;
        peers.server_next = 0x2000;
        let made = both.run(&peers.open());
        assert_eq!(made.count(Counter::FlowsCreated), 1);
        super::goes_on_in_the_kernel(&mut both, &mut peers, 0);
        let made = both.run(&swapped(request(&mut peers, &shop::read("3", "t"), 30, 60)));
        assert_eq!(made.told.exchanges(), [(kind::REQUEST, 1)]);
        both.run(&[peers.response(&shop::answer(9))]);
        is_taken_back(&mut both, &mut peers, 2);
    }
    both.rest();
}
