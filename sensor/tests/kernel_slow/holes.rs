//! Missing bytes, by where they are missing.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::{anomaly, kind};

use super::support::shop::{self, body_at};
use super::support::sides::KEY;
use super::{is_taken_back, loaded, opened, request, response, swapped};

#[test]
fn a_hole_in_a_head() {
    let Some(mut both) = loaded("a_hole_in_a_head") else { return };
    let token = shop::bearer();
    let head = shop::read("4711", &token);
    // Of the middle piece once a line, once a part of the token; then everything but the last byte.
    let inside = head.windows(7).position(|part| part == b"Bearer ").unwrap() + 40;
    for (port, first, second) in
        [(1000, 30, 200), (1001, inside, inside + 60), (1002, 1, 2), (1003, 10, head.len() - 1)]
    {
        let mut peers = opened(&mut both, port);
        let made = both.run(&swapped(request(&mut peers, &head, first, second)));
        assert_eq!(made.told.exchanges(), [(kind::REQUEST, 0)]);
        let [session, bearer] = &made.told.events[0].credentials()[..] else { panic!("{:?}", made.told) };
        assert_eq!(session.fingerprint, hash128(KEY, shop::COOKIE.as_bytes()));
        assert_eq!(bearer.fingerprint, hash128(KEY, token.as_bytes()), "cut at {first} and {second}");
        assert_eq!(made.told.events[0].head().anomalies & (anomaly::CAPTURES_LOST | anomaly::PICKED_UP), 0);
        assert_eq!((made.count(Counter::HalvesHandedOver), made.slow_heads()), (1, 1));
        assert_eq!(made.count(Counter::PacketSlow), 2, "the first piece was the kernel's");
        both.run(&[peers.response(&shop::answer(300))]);
        is_taken_back(&mut both, &mut peers, 1);
        both.rest();
    }
    assert_eq!(both.slow_counts().holes, 0);
}

#[test]
fn a_head_whose_captures_the_kernel_had_begun() {
    let Some(mut both) = loaded("a_head_whose_captures_the_kernel_had_begun") else { return };
    let token = shop::bearer();
    let head = shop::read("4711", &token);
    let cut = head.windows(7).position(|part| part == b"Bearer ").unwrap() + 25;
    let mut peers = opened(&mut both, 1010);
    // Two pieces in order, the second ends inside the token; then a hole in the token.
    let mut pieces = vec![peers.request(&head[..100]), peers.request(&head[100..cut])];
    let [missing, behind] = [peers.request(&head[cut..cut + 50]), peers.request(&head[cut + 50..])];
    pieces.extend([behind, missing]);
    let made = both.run(&pieces);
    assert_eq!((made.count(Counter::PacketData), made.count(Counter::PacketSlow)), (2, 2));
    let record = &made.told.events[0];
    assert_eq!(record.capture(0), b"GET /members/4711?view=full HTTP/1.1");
    assert_eq!(record.credentials()[1].fingerprint, hash128(KEY, token.as_bytes()));
    assert_eq!(record.head().anomalies & anomaly::CAPTURES_LOST, 0);
    assert_eq!(made.told.exchanges().len(), 1);
    both.run(&[peers.response(&shop::answer(300))]);
    is_taken_back(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn a_hole_in_chunk_framing() {
    let Some(mut both) = loaded("a_hole_in_chunk_framing") else { return };
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\n\r\n";
    let body = body_at(answer);
    for (port, first, second) in
        [(1020, body + 1, body + 2), (1021, body + 5, body + 14), (1022, body, answer.len() - 1)]
    {
        let mut peers = opened(&mut both, port);
        let made = both.run(&[peers.request(&shop::read("1", "t"))]);
        assert_eq!(made.slow_heads(), 0);
        let made = both.run(&swapped(response(&mut peers, answer, first, second)));
        assert_eq!(made.count(Counter::HalvesHandedOver), 1);
        let kinds: Vec<u8> = made.told.exchanges().iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [kind::RESPONSE, kind::END]);
        assert_eq!(made.told.events[1].end(), (8, true), "cut at {first} and {second}");
        // The request half is handed over with its next segment; the one after that may be taken back.
        let made = both.run(&[peers.request(&shop::read("2", "t")), peers.response(&shop::answer(3))]);
        assert_eq!((made.count(Counter::HalvesHandedOver), made.slow_heads()), (1, 2));
        is_taken_back(&mut both, &mut peers, 2);
        both.rest();
    }
}

#[test]
fn a_hole_inside_a_body_of_known_length_stays_in_the_kernel() {
    let Some(mut both) = loaded("a_hole_inside_a_body_of_known_length_stays_in_the_kernel") else { return };
    let mut peers = opened(&mut both, 1030);
    both.run(&[peers.request(&shop::read("1", "t"))]);
    let answer = shop::answer(3000);
    let [first, missing, last] = response(&mut peers, &answer, 500, 1500);
    let made = both.run(&[first, last]);
    assert_eq!((made.count(Counter::PacketHole), made.count(Counter::BytesGap)), (1, 1000));
    assert_eq!(made.count(Counter::HalvesHandedOver), 0);
    assert_eq!(made.told.exchanges(), [(kind::RESPONSE, 0)]);
    let made = both.run(&[missing]);
    assert_eq!(made.count(Counter::PacketDuplicate), 1);
    super::goes_on_in_the_kernel(&mut both, &mut peers, 1);
    both.rest();
}

#[test]
fn a_hole_in_a_teed_body() {
    let Some(mut both) = loaded("a_hole_in_a_teed_body") else { return };
    let answer = shop::login_answer(&shop::bearer());
    let body = body_at(&answer);
    let mut peers = opened(&mut both, 1040);
    both.run(&[peers.request(&shop::login())]);
    let made = both.run(&swapped(response(&mut peers, &answer, body + 10, body + 40)));
    assert_eq!(made.count(Counter::HalvesHandedOver), 1);
    assert_eq!(made.told.teed(), &answer[body..]);
    let end = made.told.bytes.last().unwrap();
    assert_eq!((end.kind(), end.end()), (kind::TEE_END, ((answer.len() - body) as u64, true)));
    // The same with records read only at the end.
    let mut peers = opened(&mut both, 1041);
    both.run(&[peers.request(&shop::login())]);
    let made = both.run_every(&swapped(response(&mut peers, &answer, body + 10, body + 40)), 100);
    assert_eq!(made.told.teed(), &answer[body..]);
    both.rest();
}

#[test]
fn a_hole_that_nobody_fills() {
    let Some(mut both) = loaded("a_hole_that_nobody_fills") else { return };
    let mut peers = opened(&mut both, 1050);
    let [first, _, last] = request(&mut peers, &shop::read("1", "t"), 30, 60);
    let made = both.run(&[first, last]);
    assert_eq!(made.told.exchanges(), []);
    let made = both.rest();
    assert_eq!((made.slow[Counter::BytesGap as usize], made.count(Counter::Desynchronised)), (30, 1));
    assert_eq!(both.slow_counts().holes, 1);
    // The half finds its place again, and the connection comes back.
    both.run(&[peers.request(&shop::read("2", "t")), peers.response(&shop::answer(5))]);
    let made = both.rest();
    assert_eq!(made.told.exchanges(), []);
}
