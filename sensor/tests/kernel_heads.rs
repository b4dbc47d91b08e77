//! Heads and bodies through the real object and the host's parser: whatever way a stream is cut into segments, the
//! records are the same, and equal to those of one segment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::{anomaly, capture, credential_flag, framing, head_flag, kind, place, scheme};
use support::packets::{Connection, Segment, signature};
use support::shop::{self, answer, answer_head, client, login, login_answer};
use support::sides::{KEY, Record, Sides};

/// The client ports of this test program's flows: each flow its own.
struct Ports(u16);

impl Ports {
    fn peers(&mut self) -> Connection {
        self.0 += 1;
        client(self.0)
    }
}

/// What does not depend on the connection.
fn same_flow(record: &Record) -> Record {
    let mut bytes = record.0.clone();
    bytes[24..28].fill(0); // the flow's hash of addresses and ports
    if matches!(record.kind(), kind::REQUEST | kind::RESPONSE) {
        bytes[48 + 32..48 + 34].fill(0); // client port
    }
    Record(bytes)
}

fn alike(records: &[Record]) -> Vec<Record> {
    records.iter().map(same_flow).collect()
}

#[test]
fn a_request_head_cut_anywhere_gives_the_same_record() {
    if !support::kernel("a_request_head_cut_anywhere_gives_the_same_record") {
        return;
    }
    let mut sides = shop::loaded();
    let token = shop::bearer();
    let head = shop::read("4711", &token);
    let mut ports = Ports(10_000);
    let mut peers = ports.peers();
    sides.run(&peers.open());
    let whole = sides.run(&[peers.request(&head)]).records;
    assert_eq!(whole.kinds(), [kind::REQUEST]);
    for at in 1..head.len() {
        let mut peers = ports.peers();
        sides.run(&[peers.syn()]);
        let first = sides.expect(&peers.request(&head[..at]), Counter::PacketData);
        assert!(first.records.events.is_empty(), "cut at {at}: not complete yet");
        let second = sides.expect(&peers.request(&head[at..]), Counter::PacketData);
        assert_eq!(alike(&second.records.events), alike(&whole.events), "cut at {at}");
        let parsed = first.count(Counter::BytesParsed) + second.count(Counter::BytesParsed);
        assert_eq!(parsed, head.len() as u64, "cut at {at}");
        assert!(!second.records.hold(shop::COOKIE) && !second.records.hold(signature(&token)), "cut at {at}");
    }
    let [session, bearer] = &whole.events[0].credentials()[..] else { panic!("{whole:?}") };
    assert_eq!((session.place, session.fingerprint), (place::COOKIE, hash128(KEY, shop::COOKIE.as_bytes())));
    assert_eq!((bearer.place, bearer.fingerprint), (place::AUTHORIZATION, hash128(KEY, token.as_bytes())));
    assert_eq!(bearer.flags & credential_flag::CLAIMS, credential_flag::CLAIMS);
}

#[test]
fn what_ends_a_cookie_and_what_repeats_a_credential() {
    if !support::kernel("what_ends_a_cookie_and_what_repeats_a_credential") {
        return;
    }
    let mut sides = shop::loaded();
    let own = format!("SESSION={}; ", shop::COOKIE);
    let token = shop::bearer();
    let request = format!(
        "GET /members/1 HTTP/1.1\r\nHost: shop.example\r\nCookie: {}\r\nAuthorization: Digest a=\"b\"\r\n\
         Authorization: NTLM c\r\nAuthorization: Bearer {token}\r\n\r\n",
        own.repeat(9)
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: {own}Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure\r\n\
         Set-Cookie: {own}Max-Age=0\r\nSet-Cookie: {own}max-age=10;Expires=Fri, 1-Jan-2100 00:00:00 GMT\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let mut ports = Ports(30_000);
    for at in 1..response.len() {
        let mut peers = ports.peers();
        sides.run(&[peers.syn(), peers.syn_ack()]);
        // Both sides are compared in all they say.
        let asked = sides.run(&[peers.request(request.as_bytes())]).records;
        let places: Vec<_> = asked.events[0].credentials().iter().map(|one| (one.place, one.scheme)).collect();
        let bearer = (place::AUTHORIZATION, scheme::BEARER);
        assert_eq!(places, [(place::COOKIE, scheme::BARE), (place::AUTHORIZATION, scheme::DIGEST), bearer]);
        assert_eq!(asked.events[0].head().anomalies & anomaly::MORE_CREDENTIALS, 0);
        let (first, second) = response.as_bytes().split_at(at);
        let told = sides.run(&[peers.response(first), peers.response(second)]).records;
        let flags: Vec<_> = told.events[0].credentials().iter().map(|one| one.flags).collect();
        let lasting = credential_flag::LASTS | credential_flag::EXPIRES;
        assert_eq!(flags, [credential_flag::EXPIRES, credential_flag::DELETED, lasting], "cut at {at}");
    }
}

#[test]
fn a_response_cut_anywhere_gives_the_same_records() {
    if !support::kernel("a_response_cut_anywhere_gives_the_same_records") {
        return;
    }
    let mut sides = shop::loaded();
    let token = shop::bearer();
    let message = login_answer(&token);
    let body = &message[shop::body_at(&message)..];
    let mut ports = Ports(20_000);
    for at in 0..message.len() {
        let mut peers = ports.peers();
        sides.run(&[peers.syn(), peers.syn_ack(), peers.request(&login())]);
        let (first, second) = message.split_at(at);
        let segments: Vec<Segment> =
            [first, second].iter().filter(|part| !part.is_empty()).map(|part| peers.response(part)).collect();
        let told = sides.run(&segments).records;
        let [response] = &told.events[..] else { panic!("cut at {at}: {told:?}") };
        let record = response.head();
        assert_eq!((record.status, record.route, record.anomalies), (200, shop::LOGIN, 0), "cut at {at}");
        assert_eq!(record.flags & head_flag::TEE, head_flag::TEE);
        let [set] = &response.credentials()[..] else { panic!("cut at {at}: {response:?}") };
        assert_eq!((set.place, set.fingerprint), (place::SET_COOKIE, hash128(KEY, shop::COOKIE.as_bytes())), "at {at}");
        assert_eq!(response.capture(capture::CONTENT_TYPE), b"application/json", "cut at {at}");
        let (end, tees) = told.bytes.split_last().unwrap();
        assert_eq!((end.kind(), end.end()), (kind::TEE_END, (body.len() as u64, true)), "cut at {at}");
        let copied: Vec<u8> = tees.iter().flat_map(|tee| tee.teed().to_vec()).collect();
        assert_eq!(copied, body, "cut at {at}");
        assert!(!told.events.iter().any(|event| event.0.windows(8).any(|part| part == b"SESSION-")), "cut at {at}");
    }
}

#[test]
fn byte_by_byte_is_no_different() {
    if !support::kernel("byte_by_byte_is_no_different") {
        return;
    }
    let mut sides = shop::loaded();
    let head = shop::read("4711", &shop::bearer());
    let mut ports = Ports(30_000);
    let mut peers = ports.peers();
    sides.run(&peers.open());
    let whole = sides.run(&[peers.request(&head)]).records.events;
    for size in [1, 2, 3, 7, 64, 127] {
        let mut peers = ports.peers();
        sides.run(&peers.open());
        let segments: Vec<Segment> = head.chunks(size).map(|part| peers.request(part)).collect();
        let told = sides.run(&segments);
        assert_eq!(alike(&told.records.events), alike(&whole), "{size} bytes a segment");
        assert_eq!(told.count(Counter::PacketData), segments.len() as u64);
    }
}

#[test]
fn several_heads_in_one_segment() {
    if !support::kernel("several_heads_in_one_segment") {
        return;
    }
    let mut sides = shop::loaded();
    let mut peers = client(40_000);
    sides.run(&peers.open());
    let (first, second) = (shop::read("1", "t"), shop::read("2", "t"));
    let told = sides.expect(&peers.request(&[first.clone(), second].concat()), Counter::PacketData);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::REQUEST]);
    let lines: Vec<&[u8]> = told.records.events.iter().map(|event| event.capture(capture::LINE)).collect();
    assert_eq!(lines[0], b"GET /members/1?view=full HTTP/1.1");
    assert_eq!(lines[1], b"GET /members/2?view=full HTTP/1.1");
    let transactions: Vec<u32> = told.records.events.iter().map(Record::transaction).collect();
    assert_eq!(transactions, [0, 1]);
    assert_eq!(told.records.events[1].head().head.offset, first.len() as u64);

    // Both answers and their bodies in one segment, paired in order.
    let told = sides
        .run(&[peers.response(&[answer(7), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()].concat())]);
    // Of a body whose length the head does not tell (here: none at all) the end is told.
    assert_eq!(told.records.kinds(), [kind::RESPONSE, kind::RESPONSE, kind::END]);
    assert_eq!(told.records.events[2].end(), (0, true));
    let answers: Vec<(u32, u16, u64)> = told.records.events[..2]
        .iter()
        .map(|event| (event.transaction(), event.head().status, event.head().content_length))
        .collect();
    assert_eq!(answers, [(0, 200, 7), (1, 404, 0)]);

    // A head, its body, the next head, and half of a third.
    let upload = b"POST /products/9 HTTP/1.1\r\nContent-Length: 11\r\n\r\nhello world";
    let third = shop::read("3", "t");
    let told = sides.run(&[
        peers.request(&[upload.to_vec(), shop::read("2", "t"), third[..33].to_vec()].concat()),
        peers.request(&third[33..]),
    ]);
    assert_eq!(told.records.kinds(), [kind::REQUEST; 3]);
    assert_eq!(told.count(Counter::BytesSkipped), 11);
}

#[test]
fn bodies_are_delimited_as_their_heads_say() {
    if !support::kernel("bodies_are_delimited_as_their_heads_say") {
        return;
    }
    let mut sides = shop::loaded();
    let mut ports = Ports(41_000);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n\
        5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\nX-Trailer: yes\r\n\r\n";
    for cut in shop::body_at(chunked)..chunked.len() {
        let mut peers = ports.peers();
        sides.run(&peers.open());
        let told = sides.run(&[
            peers.request(&shop::read("1", "t")),
            peers.response(&chunked[..cut]),
            peers.response(&chunked[cut..]),
            // What follows shows that the end was found.
            peers.request(&shop::read("2", "t")),
            peers.response(&answer(1)),
        ]);
        let kinds = [kind::REQUEST, kind::RESPONSE, kind::END, kind::REQUEST, kind::RESPONSE];
        assert_eq!(told.records.kinds(), kinds, "cut at {cut}");
        assert_eq!(told.records.events[1].head().framing, framing::CHUNKED);
        assert_eq!(told.records.events[2].end(), (15, true), "cut at {cut}");
        assert_eq!(told.count(Counter::BytesSkipped), 16, "cut at {cut}: chunk data and one byte of body");
    }
    // No body: to HEAD, and 304.
    let mut peers = ports.peers();
    sides.run(&peers.open());
    let told = sides.run(&[
        peers.request(b"HEAD /members/1 HTTP/1.1\r\n\r\nGET /members/2 HTTP/1.1\r\n\r\n"),
        peers.response(
            &[answer_head(500), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n".to_vec()].concat(),
        ),
    ]);
    let framings: Vec<u8> =
        told.records.events.iter().skip(2).filter(|r| r.kind() == kind::RESPONSE).map(|r| r.head().framing).collect();
    assert_eq!(framings, [framing::NONE, framing::NONE]);
    assert_eq!(told.count(Counter::Desynchronised), 0);
    // 100 Continue is not the answer.
    let mut peers = ports.peers();
    sides.run(&peers.open());
    let told = sides.run(&[
        peers.request(&login()),
        peers.response(b"HTTP/1.1 100 Continue\r\n\r\n"),
        peers.response(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let statuses: Vec<u16> = told.records.events.iter().map(|event| event.head().status).collect();
    assert_eq!(statuses, [0, 401]);
}

#[test]
fn bodies_of_login_and_refresh_are_teed_and_no_others() {
    if !support::kernel("bodies_of_login_and_refresh_are_teed_and_no_others") {
        return;
    }
    let mut sides = shop::loaded();
    let teed = |sides: &mut Sides, segments: &[Segment]| {
        let told = sides.run(segments).records;
        let bytes: Vec<u8> =
            told.bytes.iter().filter(|record| record.kind() == kind::TEE).flat_map(|tee| tee.teed().to_vec()).collect();
        let ends: Vec<(u64, bool)> =
            told.bytes.iter().filter(|record| record.kind() == kind::TEE_END).map(Record::end).collect();
        (String::from_utf8(bytes).unwrap(), ends)
    };
    // The request of a refresh, in two segments, and its chunked answer, the coding removed.
    let mut peers = client(42_000);
    sides.run(&peers.open());
    let form = r#"{"refresh_token":"the-old-one-5f2a"}"#;
    let request = format!("POST /token HTTP/1.1\r\nContent-Length: {}\r\n\r\n{form}", form.len());
    let (first, second) = request.as_bytes().split_at(request.len() - 9);
    let told = teed(&mut sides, &[peers.request(first), peers.request(second)]);
    assert_eq!(told, (form.to_owned(), vec![(form.len() as u64, true)]));
    let told = teed(
        &mut sides,
        &[peers.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"ac\r\n3\r\ncess\r\n")],
    );
    // The chunk says 3, four letters follow: the framing is wrong there, and the half gives up instead of guessing.
    assert_eq!(told.0, "{\"acces");
    // A login's request names nobody (its body is not wanted); its answer is longer than one record.
    let mut peers = client(42_001);
    sides.run(&peers.open());
    let told = teed(&mut sides, &[peers.request(&login())]);
    assert_eq!(told, (String::new(), Vec::new()));
    let body = "abcdefghij".repeat(250);
    let mut segments = vec![peers.response(&answer_head(body.len()))];
    segments.extend(body.as_bytes().chunks(1300).map(|part| peers.response(part)));
    assert_eq!(teed(&mut sides, &segments), (body.clone(), vec![(2500, true)]));
    // An account read is not teed.
    let told = teed(&mut sides, &[peers.request(&shop::read("1", "t")), peers.response(&answer(900))]);
    assert_eq!(told, (String::new(), Vec::new()));
    // Cut short by the end of the connection: said so.
    sides.run(&[peers.request(&login()), peers.response(&answer_head(100))]);
    let mut last = peers.response(b"only this");
    last.flags |= support::packets::FIN;
    assert_eq!(teed(&mut sides, &[last]), ("only this".to_owned(), vec![(9, false)]));
}

#[test]
fn a_long_head_over_many_segments() {
    if !support::kernel("a_long_head_over_many_segments") {
        return;
    }
    let mut sides = shop::loaded();
    let mut peers = client(43_000);
    sides.run(&peers.open());
    let filler = format!("X-Filler: {}\r\n", "f".repeat(900));
    let mut head = b"GET /members/77 HTTP/1.1\r\nHost: shop\r\n".to_vec();
    for _ in 0..40 {
        head.extend(filler.as_bytes());
    }
    head.extend(format!("Cookie: SESSION={}\r\n\r\n", shop::COOKIE).as_bytes());
    let segments: Vec<Segment> = head.chunks(1448).map(|part| peers.request(part)).collect();
    let told = sides.run(&segments);
    let [request] = &told.records.events[..] else { panic!("{told:?}") };
    assert_eq!((request.head().head_bytes as usize, request.head().anomalies), (head.len(), 0));
    assert_eq!(request.credentials()[0].fingerprint, hash128(KEY, shop::COOKIE.as_bytes()));

    // Beyond the bound it is given up, and the half finds its place again at the next start line.
    let mut peers = client(43_001);
    sides.run(&peers.open());
    let mut told = sides.run(&[peers.request(b"GET /members/1 HTTP/1.1\r\n")]);
    for _ in 0..200 {
        told = sides.run(&[peers.request(filler.repeat(2).as_bytes())]);
        if told.count(Counter::HeadTooLong) > 0 {
            break;
        }
    }
    assert_eq!((told.count(Counter::HeadTooLong), told.count(Counter::Desynchronised)), (1, 1));
    let told = sides.run(&[peers.request(&shop::read("2", "t"))]);
    assert_eq!((told.count(Counter::Resynchronised), told.records.kinds()), (1, vec![kind::REQUEST]));
    assert_ne!(told.records.events[0].head().anomalies & anomaly::PICKED_UP, 0);
}

#[test]
fn flows_that_are_not_http_1_are_passed_over() {
    if !support::kernel("flows_that_are_not_http_1_are_passed_over") {
        return;
    }
    let mut sides = shop::loaded();
    for (port, start, counter) in [
        (44_000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), Counter::PassedTls),
        (44_001, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Counter::PassedH2),
    ] {
        let mut peers = client(port);
        sides.run(&peers.open());
        let told = sides.run(&[peers.request(start), peers.request(&[0; 100])]);
        assert_eq!(told.count(counter), 1);
        assert!(told.records.events.is_empty());
        assert_eq!(told.count(Counter::PacketPassed), 1);
    }
    let mut peers = client(44_002);
    sides.run(&peers.open());
    let told = sides.run(&[
        peers.request(b"GET /products/1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        peers.response(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"),
        peers.request(b"GET / HTTP/1.1 in a web socket\r\n\r\n"),
    ]);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE]);
    assert_eq!((told.count(Counter::FlowsUpgraded), told.count(Counter::PacketPassed)), (1, 1));
}

/// What servers read differently, the kernel and the host read alike: whole and in pieces of every size.
#[test]
fn odd_heads_and_bodies() {
    if !support::kernel("odd_heads_and_bodies") {
        return;
    }
    let stream = b"POST\t/members/7?%74=x;a=b#frag  http/1.1 \r\nHost : a\r\n b\r\nno colon\r\nX-Forwarded-For: 192.0.2.1,\r\n \
        10.0.0.1\r\nContent-Length: 0000000000000000005, 5\r\n\r\n01234\
        POST /members/8 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n5 ;a=\"b\nhello0\r\nT: u\r\n\r\n\
        GET HTTP/1.1\r\nAuthorization\t: Bearer abc\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n\
        GET /members/9 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut sides = shop::loaded();
    let mut whole = None;
    for (port, step) in (45_000..).zip([stream.len(), 1, 2, 3, 7, 8, 9, 31, 64, 100]) {
        let mut peers = client(port);
        sides.run(&peers.open());
        let segments: Vec<Segment> = stream.chunks(step).map(|part| peers.request(part)).collect();
        let told = sides.run(&segments);
        let seen: Vec<(u32, u8, u64)> = told
            .records
            .events
            .iter()
            .map(|record| {
                (record.head().anomalies & !anomaly::PICKED_UP, record.head().framing, record.head().content_length)
            })
            .collect();
        // Behind the request of unknown length, the next is found in the same segment, or where it begins one.
        let known = seen.get(..3).map(<[_]>::to_vec);
        assert!(known.is_some(), "{step}: {told:?}");
        assert_eq!(known, *whole.get_or_insert(known.clone()), "{step}");
    }
    let odd = anomaly::ODD_LINE | anomaly::ODD_HEADER | anomaly::OBS_FOLD;
    let unknown = anomaly::ODD_LINE | anomaly::ODD_HEADER | anomaly::BAD_LENGTH | anomaly::ODD_HOST;
    assert_eq!(
        whole.flatten().unwrap(),
        [
            (odd, framing::LENGTH, 5),
            (anomaly::OBS_FOLD, framing::CHUNKED, u64::MAX),
            (unknown | anomaly::AFTER_ODD_BODY, framing::UNKNOWN, u64::MAX),
        ]
    );
}
