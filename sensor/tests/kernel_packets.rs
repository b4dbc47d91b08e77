//! Every class of packet through the real object (`BPF_PROG_TEST_RUN`) and the host's parser: the disposition that it
//! must have, and the same records and totals on both sides.
//!
//! Not testable this way: a frame shorter than an Ethernet header, which `BPF_PROG_TEST_RUN` refuses. Different by
//! design: a capture file does not say whose host it is, so the host takes every address for local.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{capture, kind};
use support::packets::{ACK, Connection, FIN, PLAIN_HEADERS, RST, SYN, Segment};
use support::shop::{self, address, answer, answer_head, client, login, socket};
use support::sides::Record;

#[test]
fn what_is_no_tcp_of_a_service_is_named() {
    if !support::kernel("what_is_no_tcp_of_a_service_is_named") {
        return;
    }
    let mut sides = shop::loaded();
    let frame = client(1000).request(&shop::read("1", "t")).frame();

    let mut arp = frame.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    sides.expect_frame(&arp, Counter::PacketNotIp);
    let mut udp = frame.clone();
    udp[14 + 9] = 17;
    sides.expect_frame(&udp, Counter::PacketNotTcp);

    let (from, here) = (socket("198.51.100.7:1000"), socket("192.0.2.10:80"));
    let elsewhere = Segment::new(from, socket("192.0.2.11:80"), 1, ACK, b"GET / HTTP/1.1\r\n\r\n");
    sides.expect(&elsewhere, Counter::PacketNoService);
    sides.expect(&Segment::new(from, socket("192.0.2.10:81"), 1, ACK, b"GET"), Counter::PacketNoService);
    sides.expect(&Segment::new(from, socket("192.0.2.11:80"), 1, SYN, b""), Counter::PacketNoService);
    // The service's host connects out from the service's port.
    sides.expect(&Segment::new(here, from, 1, SYN, b""), Counter::PacketNoService);
    sides.expect(&Segment::new(from, here, 1, ACK, b""), Counter::PacketNoFlow);

    // The first fragment has ports, the others have not; neither is reassembled here.
    for fragment in [0x2000, 0x00b9] {
        let mut segment = client(1000).request(b"GET / HTTP/1.1\r\n\r\n");
        segment.fragment = fragment;
        sides.expect(&segment, Counter::PacketFragment);
    }
    // "Don't fragment" is no fragment.
    let mut whole = client(1001).syn();
    whole.fragment = 0x4000;
    sides.expect(&whole, Counter::PacketSyn);
}

#[test]
fn a_listener_on_every_address_means_those_of_this_host() {
    if !support::kernel("a_listener_on_every_address_means_those_of_this_host") {
        return;
    }
    let mut sides = shop::loaded();
    let connect = |server: &str| Connection::new(socket("198.51.100.7:2000"), socket(server)).syn();
    sides.expect(&connect("192.0.2.10:8080"), Counter::PacketSyn);
    // Forwarded through this host, to another one.
    let before = sides.kernel.totals().unwrap();
    sides.run_program(&connect("203.0.113.80:8080").frame());
    let after = sides.kernel.totals().unwrap();
    assert_eq!(after[Counter::PacketNoService as usize] - before[Counter::PacketNoService as usize], 1);
}

#[test]
fn headers_cut_short_or_contradicting_each_other_are_malformed() {
    if !support::kernel("headers_cut_short_or_contradicting_each_other_are_malformed") {
        return;
    }
    let mut sides = shop::loaded();
    let four = client(1000).request(b"").frame();
    let mut six = Connection::new(socket("[2001:db8::7]:1000"), socket("[2001:db8::10]:80"));
    let mut extended = six.request(b"");
    extended.extensions = vec![(0, vec![0; 7]), (60, vec![0; 7])];
    for (frame, from) in [(four.clone(), 35), (six.request(b"").frame(), 55), (extended.frame(), 55)] {
        // Shorter ones are refused by the kernel's test run itself, which wants a whole IP header.
        for len in from..frame.len() {
            sides.expect_frame(&frame[..len], Counter::PacketMalformed);
        }
        sides.expect_frame(&frame, Counter::PacketNoFlow);
    }
    let changed = |at: usize, byte: u8| {
        let mut frame = four.clone();
        frame[at] = byte;
        frame
    };
    sides.expect_frame(&changed(14, 0x44), Counter::PacketMalformed); // IPv4 header of 16 bytes
    sides.expect_frame(&changed(14, 0x65), Counter::PacketMalformed); // version 6 in an IPv4 frame
    sides.expect_frame(&changed(46, 0x40), Counter::PacketMalformed); // TCP header of 16 bytes
    sides.expect_frame(&changed(46, 0xf0), Counter::PacketMalformed); // TCP header beyond the packet
    sides.expect_frame(&changed(17, 39), Counter::PacketMalformed); // total length below the headers
}

#[test]
fn a_packet_longer_than_its_frame_is_not_of_the_stream() {
    if !support::kernel("a_packet_longer_than_its_frame_is_not_of_the_stream") {
        return;
    }
    // Its receiver drops it; were its bytes counted, anyone could make the sensor lose its place.
    let mut sides = shop::loaded();
    let mut peers = client(2500);
    sides.run(&peers.open());
    let segment = peers.request(&shop::read("1", "t"));
    let frame = segment.frame();
    let told = sides.expect_frame(&frame[..frame.len() - 1], Counter::PacketMalformed);
    assert_eq!(told.count(Counter::BytesNew), 0);
    assert_eq!(sides.expect(&segment, Counter::PacketData).records.kinds(), [kind::REQUEST]);
}

#[test]
fn a_connection_has_one_disposition_a_packet() {
    if !support::kernel("a_connection_has_one_disposition_a_packet") {
        return;
    }
    let mut sides = shop::loaded();
    for server in ["192.0.2.10:80", "[2001:db8::10]:80"] {
        let from = if server.starts_with('[') { "[2001:db8::7]:40000" } else { "198.51.100.7:40000" };
        let mut peers = Connection::new(socket(from), socket(server));
        let opened = sides.expect(&peers.syn(), Counter::PacketSyn);
        assert_eq!(opened.count(Counter::FlowsCreated), 1);
        let answered = sides.expect(&peers.syn_ack(), Counter::PacketSyn);
        assert_eq!(answered.count(Counter::FlowsCreated), 0);
        sides.expect(&peers.ack(), Counter::PacketEmpty);

        let token = shop::bearer();
        let head = shop::read("4711", &token);
        let asked = sides.expect(&peers.request(&head), Counter::PacketData);
        assert_eq!(asked.count(Counter::BytesParsed), head.len() as u64);
        let [request] = &asked.records.events[..] else { panic!("{asked:?}") };
        assert_request(request, server, &head, &token);
        assert!(asked.records.bytes.is_empty());
        assert!(!asked.records.hold(support::packets::signature(&token)) && !asked.records.hold(shop::COOKIE));

        let told = sides.expect(&peers.response(&answer_head(3000)), Counter::PacketData);
        assert_eq!(told.records.kinds(), [kind::RESPONSE]);
        let body = sides.expect(&peers.response(&[b'x'; 1400]), Counter::PacketData);
        assert_eq!((body.count(Counter::BytesSkipped), body.count(Counter::BytesParsed)), (1400, 0));
        assert!(body.records.events.is_empty());
        // The last bytes end the message, whose length its head told already.
        let last = sides.expect(&peers.response(&[b'x'; 1600]), Counter::PacketData);
        assert!(last.records.events.is_empty());

        let [from_client, from_server, ack] = &peers.close()[..] else { panic!() };
        assert_eq!(sides.expect(from_client, Counter::PacketEmpty).count(Counter::FlowsDeleted), 0);
        let over = sides.expect(from_server, Counter::PacketEmpty);
        assert_eq!(over.count(Counter::FlowsDeleted), 0, "what is sent again still finds its flow");
        assert!(over.records.events.is_empty(), "every request was answered");
        let gone = sides.expect(ack, Counter::PacketEmpty);
        assert_eq!((gone.count(Counter::FlowsDeleted), gone.records.events.len()), (1, 0));
        sides.expect(ack, Counter::PacketNoFlow);
    }
}

fn assert_request(request: &Record, server: &str, head: &[u8], token: &str) {
    use sensor_ebpf::siphash::hash128;
    let record = request.head();
    let expected = socket(server);
    assert_eq!((record.head.kind, record.route, record.server_port), (kind::REQUEST, shop::MEMBER, 80));
    assert_eq!(record.server, sensor::capture::tables::mapped(expected.ip()));
    assert_eq!(record.client_port, 40000);
    assert_eq!(record.head_bytes as usize, head.len());
    assert_eq!(record.anomalies, 0);
    assert_eq!(request.capture(capture::LINE), b"GET /members/4711?view=full HTTP/1.1");
    assert_eq!(request.capture(capture::HOST), b"shop.example");
    assert_eq!(request.capture(capture::X_FORWARDED_FOR), b"203.0.113.9");
    let prints: Vec<[u8; 16]> = request.credentials().iter().map(|credential| credential.fingerprint).collect();
    let key = support::sides::KEY;
    assert_eq!(prints, [hash128(key, shop::COOKIE.as_bytes()), hash128(key, token.as_bytes())]);
}

#[test]
fn closes_resets_and_half_closes() {
    if !support::kernel("closes_resets_and_half_closes") {
        return;
    }
    let mut sides = shop::loaded();
    // Reset while a request waits: CLOSE says that it stays unanswered.
    let mut peers = client(3000);
    sides.run(&peers.open());
    sides.run(&[peers.request(&shop::read("1", "t"))]);
    let reset = Segment::new(peers.server, peers.client, peers.server_next, RST | ACK, b"");
    let gone = sides.expect(&reset, Counter::PacketEmpty);
    assert_eq!((gone.records.kinds(), gone.count(Counter::FlowsDeleted)), (vec![kind::CLOSE], 1));

    // FIN with the last bytes of a body that lasts until the connection closes.
    let mut peers = client(3001);
    sides.run(&peers.open());
    sides.run(&[peers.request(&shop::read("1", "t")), peers.response(b"HTTP/1.0 200 OK\r\n\r\nfirst")]);
    let mut last = peers.response(b"second");
    last.flags |= FIN;
    let told = sides.expect(&last, Counter::PacketData);
    assert_eq!(told.records.kinds(), [kind::END]);
    assert_eq!(told.records.events[0].end(), (11, true));

    // FIN in the middle of a chunk: not complete.
    let mut peers = client(3002);
    sides.run(&peers.open());
    let mut cut = peers.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n0123456789");
    cut.flags |= FIN;
    let told = sides.run(&[peers.request(&shop::read("1", "t")), cut]);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE, kind::END]);
    assert_eq!(told.records.events[2].end(), (10, false));

    // The same ports again: a fresh flow, whatever stood there.
    let mut again = client(3002);
    again.client_next = 5;
    let told = sides.run(&[again.syn(), again.request(&shop::read("2", "t"))]);
    assert_eq!((told.count(Counter::FlowsCreated), told.records.kinds()), (1, vec![kind::REQUEST]));
}

#[test]
fn what_was_seen_before_is_not_parsed_again() {
    if !support::kernel("what_was_seen_before_is_not_parsed_again") {
        return;
    }
    let mut sides = shop::loaded();
    let mut peers = client(4000);
    sides.run(&peers.open());
    let first = peers.request(&shop::read("1", "t"));
    sides.expect(&first, Counter::PacketData);
    // Of a request that waits for its answer, the second version goes out to be compared.
    let again = sides.expect(&first, Counter::PacketDuplicate);
    assert!(again.records.events.is_empty() && again.count(Counter::BytesNew) == 0);
    assert_eq!(again.count(Counter::SegmentsCompared), 1);
    let [compared] = &again.records.bytes[..] else { panic!("{again:?}") };
    assert!(compared.kind() == kind::AGAIN && compared.0.ends_with(&first.payload), "{compared:?}");

    // A retransmit that carries on: only its new bytes count.
    let (head, again) = carrying_on(&answer(2), |part| peers.response(part));
    sides.expect(&head, Counter::PacketData);
    let told = sides.expect(&again, Counter::PacketData);
    assert_eq!(told.count(Counter::BytesNew), answer(2).len() as u64 - 40);
    assert_eq!((told.records.kinds(), told.records.events[0].head().status), (vec![kind::RESPONSE], 200));
    // What was answered is not compared.
    let again = sides.expect(&first, Counter::PacketDuplicate);
    assert_eq!((again.count(Counter::SegmentsCompared), again.records.bytes.len()), (0, 0));

    // In a request that waits, the slow path compares the bytes that were seen, and goes on with the new ones.
    let request = shop::read("2", "t");
    let (head, again) = carrying_on(&request, |part| peers.request(part));
    sides.expect(&head, Counter::PacketData);
    let told = sides.expect(&again, Counter::PacketSlow);
    assert_eq!(told.count(Counter::BytesNew), request.len() as u64 - 40);
    assert_eq!(told.count(Counter::BytesHandedOver), request.len() as u64 - 40);
    assert!(told.records.events.is_empty());
    let [state, segment] = &told.records.bytes[..] else { panic!("{told:?}") };
    assert_eq!((state.kind(), segment.kind()), (kind::HANDOVER, kind::SEGMENT));
    assert!(segment.0.ends_with(&again.payload), "whole, as it came");
}

/// The first 40 bytes of a message, and what repeats 25 of them and carries on.
fn carrying_on(message: &[u8], mut send: impl FnMut(&[u8]) -> Segment) -> (Segment, Segment) {
    let (old, new) = message.split_at(40);
    let first = send(old);
    let mut overlap = send(new);
    overlap.sequence = overlap.sequence.wrapping_sub(25);
    overlap.payload = [&old[15..], new].concat();
    (first, overlap)
}

#[test]
fn holes_in_heads_and_in_bodies() {
    if !support::kernel("holes_in_heads_and_in_bodies") {
        return;
    }
    let mut sides = shop::loaded();
    // In a body of known length a hole changes nothing but the count.
    let mut peers = client(5000);
    sides.run(&peers.open());
    sides.run(&[peers.request(&shop::read("1", "t")), peers.response(&answer_head(3000))]);
    peers.response(&[b'x'; 1000]);
    let told = sides.expect(&peers.response(&[b'x'; 500]), Counter::PacketHole);
    assert_eq!((told.count(Counter::BytesGap), told.count(Counter::BytesSkipped)), (1000, 500));
    let told =
        sides.run(&[peers.response(&[b'x'; 1500]), peers.request(&shop::read("2", "t")), peers.response(&answer(2))]);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE]);
    assert_eq!(told.records.events[1].transaction(), 1);

    // In a head: what is missing may still come, and the slow path waits for it.
    let head = shop::read("3", "t");
    sides.run(&[peers.request(&head[..50])]);
    peers.request(&head[50..90]);
    let told = sides.expect(&peers.request(&head[90..]), Counter::PacketSlow);
    assert_eq!((told.count(Counter::HalvesHandedOver), told.count(Counter::Desynchronised)), (1, 0));
    let handed = head.len() as u64 - 50;
    assert_eq!((told.count(Counter::BytesHandedOver), told.count(Counter::BytesGap)), (handed, 0));
    assert!(told.records.events.is_empty());
    let kinds = |records: &[Record]| records.iter().map(Record::kind).collect::<Vec<u8>>();
    assert_eq!(kinds(&told.records.bytes), [kind::HANDOVER, kind::SEGMENT]);
    // Nobody gives the flow back here: what follows goes there too, the other half's state with its first segment.
    let told = sides.run(&[peers.request(&shop::read("4", "t")), peers.response(&answer(2))]);
    assert_eq!((told.count(Counter::PacketSlow), told.count(Counter::HalvesHandedOver)), (2, 1));
    assert_eq!(kinds(&told.records.bytes), [kind::SEGMENT, kind::HANDOVER, kind::SEGMENT]);
    assert!(told.records.events.is_empty());

    // Where the place is lost already, nothing is waited for until a start line begins a segment.
    let mut lost = client(5001);
    sides.expect(&lost.request(b"the end of some upload"), Counter::PacketData);
    lost.request(&[b'x'; 40]);
    let told = sides.expect(&lost.request(b"more of it"), Counter::PacketHole);
    assert_eq!((told.count(Counter::BytesGap), told.count(Counter::BytesSkipped)), (40, 10));
    assert!(told.records.events.is_empty() && told.records.bytes.is_empty());
    lost.request(&[b'x'; 40]);
    let told = sides.run(&[lost.request(&shop::read("5", "t")), lost.response(&answer(2))]);
    assert_eq!((told.count(Counter::PacketHole), told.count(Counter::Resynchronised)), (1, 2));
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE]);

    // Beyond every window: not of this stream.
    for peers in [&mut peers, &mut lost] {
        let mut far = peers.request(b"GET / HTTP/1.1\r\n\r\n");
        far.sequence = far.sequence.wrapping_add(1 << 30);
        let told = sides.expect(&far, Counter::PacketHole);
        assert_eq!(told.count(Counter::BytesNew), 0);
        assert!(told.records.bytes.is_empty());
    }
}

#[test]
fn a_flow_whose_beginning_was_missed_is_picked_up() {
    if !support::kernel("a_flow_whose_beginning_was_missed_is_picked_up") {
        return;
    }
    let mut sides = shop::loaded();
    let mut peers = client(6000);
    let told = sides.expect(&peers.request(b"the end of some upload"), Counter::PacketData);
    assert_eq!((told.count(Counter::FlowsPickedUp), told.count(Counter::BytesSkipped)), (1, 22));
    let told = sides.run(&[peers.request(&shop::read("1", "t")), peers.response(&answer(5))]);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE]);
    let picked_up = sensor_ebpf::wire::anomaly::PICKED_UP;
    assert_ne!(told.records.events[0].head().anomalies & picked_up, 0);
}

/// What is put around a segment.
type Change = fn(&mut Segment);

#[test]
fn whatever_stands_around_the_segment_changes_nothing() {
    if !support::kernel("whatever_stands_around_the_segment_changes_nothing") {
        return;
    }
    let mut sides = shop::loaded();
    let plain = |_: &mut Segment| {};
    let tag = |segment: &mut Segment| segment.tags = vec![(0x8100, 7)];
    let two_tags = |segment: &mut Segment| segment.tags = vec![(0x88a8, 7), (0x8100, 8)];
    let ip_options = |segment: &mut Segment| segment.ip_options = 40;
    let tcp_options = |segment: &mut Segment| segment.tcp_options = 40;
    let padding = |segment: &mut Segment| segment.padding = 6;
    let hop_by_hop = |segment: &mut Segment| segment.extensions = vec![(0, vec![0; 7])];
    let four_extensions = |segment: &mut Segment| {
        // Hop-by-hop of 16 bytes, routing, an atomic fragment (RFC 6946), destination options.
        segment.extensions =
            vec![(0, [vec![1], vec![0; 14]].concat()), (43, vec![0; 7]), (44, vec![0; 7]), (60, vec![0; 7])];
    };
    let authenticated = |segment: &mut Segment| segment.extensions = vec![(51, [vec![4], vec![0; 22]].concat())];
    let (four, six) = (("198.51.100.7", "192.0.2.10:80"), ("2001:db8::7", "[2001:db8::10]:80"));
    let cases: [(&str, (&str, &str), Change); 11] = [
        ("IPv4", four, plain),
        ("VLAN", four, tag),
        ("QinQ", four, two_tags),
        ("IPv4 options", four, ip_options),
        ("TCP options", four, tcp_options),
        ("padding", four, padding),
        ("IPv6", six, plain),
        ("IPv6 in VLAN", six, tag),
        ("hop-by-hop", six, hop_by_hop),
        ("four extensions", six, four_extensions),
        ("authentication", six, authenticated),
    ];
    let token = shop::bearer();
    for (index, (name, (from, server), change)) in cases.into_iter().enumerate() {
        let port = 7000 + u16::try_from(index).unwrap();
        let mut peers = Connection::new(std::net::SocketAddr::new(address(from), port), socket(server));
        let mut segments = peers.open();
        segments.push(peers.request(&shop::read("4711", &token)));
        segments.push(peers.response(&answer(20)));
        segments.extend(peers.close());
        segments.iter_mut().for_each(change);
        let told = sides.run(&segments);
        assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE], "{name}");
        let request = &told.records.events[0];
        assert_eq!((request.head().route, request.credentials().len()), (shop::MEMBER, 2), "{name}");
        assert_eq!(request.capture(capture::LINE), b"GET /members/4711?view=full HTTP/1.1", "{name}");
        assert_eq!((told.count(Counter::FlowsCreated), told.count(Counter::FlowsDeleted)), (1, 1), "{name}");
    }
    // A real fragment of IPv6; and what carries something other than TCP.
    let mut peers = Connection::new(socket("[2001:db8::7]:7100"), socket("[2001:db8::10]:80"));
    let mut fragment = peers.request(b"GET / HTTP/1.1\r\n\r\n");
    fragment.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 1])];
    sides.expect(&fragment, Counter::PacketFragment);
    let mut icmp = peers.request(b"").frame();
    icmp[14 + 6] = 58;
    sides.expect_frame(&icmp, Counter::PacketNotTcp);
}

#[test]
fn data_in_the_syn_is_parsed() {
    if !support::kernel("data_in_the_syn_is_parsed") {
        return;
    }
    let mut sides = shop::loaded();
    let mut peers = client(8000);
    let mut syn = peers.syn();
    syn.payload = login();
    peers.client_next = peers.client_next.wrapping_add(u32::try_from(syn.payload.len()).unwrap());
    let told = sides.expect(&syn, Counter::PacketSyn);
    assert_eq!(told.records.kinds(), [kind::REQUEST]);
    let told = sides.run(&[peers.syn_ack(), peers.response(&answer(2))]);
    assert_eq!(told.records.kinds(), [kind::RESPONSE]);
    assert_eq!(syn.frame().len(), PLAIN_HEADERS + syn.payload.len());
}
