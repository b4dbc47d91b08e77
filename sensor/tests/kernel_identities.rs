//! The three identities over a random mix of packets, on the real object and on the host, also when rings overflow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::net::SocketAddr;

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{HeadRecord, TeeRecord, kind};
use support::packets::{ACK, Connection, FIN, RST, Segment};
use support::shop::{self, address, answer, client, login, login_answer};
use support::sides::{Sides, Totals, assert_identities, config, grown};

/// Numbers from a seed (xorshift64*): the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }
    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// Segments of one connection: exchanges cut at random, some segments lost, repeated, swapped or broken.
fn conversation(random: &mut Random, number: u16) -> Vec<Segment> {
    let client = address(if random.one_in(4) { "2001:db8::7" } else { "198.51.100.7" });
    let server = if client.is_ipv6() { "[2001:db8::10]:80" } else { "192.0.2.10:80" };
    let mut peers = Connection::new(SocketAddr::new(client, 1024 + number), shop::socket(server));
    peers.client_next = u32::try_from(random.next() & 0xffff_ffff).unwrap();
    let mut segments = if random.one_in(5) { Vec::new() } else { peers.open() };
    for _ in 0..=random.below(4) {
        let token = support::packets::token("https://auth.shop.example", &format!("m{number}"), random.next());
        let (request, response) = match random.below(6) {
            0 => (login(), login_answer(&token)),
            1 => (
                shop::read("1", &token),
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            ),
            2 => ([shop::read("1", &token), shop::read("2", &token)].concat(), [answer(30), answer(0)].concat()),
            3 => (vec![u8::try_from(random.below(256)).unwrap(); 300], Vec::new()),
            _ => (shop::read("1", &token), answer(random.below(4000))),
        };
        for (bytes, from_client) in [(request, true), (response, false)] {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(1400)));
                segments.push(if from_client { peers.request(now) } else { peers.response(now) });
                rest = later;
            }
        }
    }
    if random.one_in(3) {
        let flags = if random.one_in(2) { RST | ACK } else { FIN | ACK };
        segments.push(Segment::new(peers.server, peers.client, peers.server_next, flags, b""));
    } else if random.one_in(2) {
        segments.extend(peers.close());
    }
    disturb(random, segments)
}

fn disturb(random: &mut Random, segments: Vec<Segment>) -> Vec<Segment> {
    let mut disturbed: Vec<Segment> = Vec::new();
    for segment in segments {
        match random.below(30) {
            0 => {}
            1 => disturbed.extend([segment.clone(), segment]),
            2 => {
                let mut overlap = segment.clone();
                overlap.sequence = overlap.sequence.wrapping_sub(7);
                overlap.payload = [b"overlap".to_vec(), overlap.payload].concat();
                disturbed.extend([overlap, segment]);
            }
            3 if !disturbed.is_empty() => {
                let before = disturbed.pop().unwrap();
                disturbed.extend([segment, before]);
            }
            _ => disturbed.push(segment),
        }
    }
    disturbed
}

/// Conversations interleaved; some frames damaged.
fn mix(seed: u64, conversations: u16) -> Vec<Vec<u8>> {
    let mut random = Random(seed);
    let mut waiting: Vec<std::vec::IntoIter<Segment>> =
        (0..conversations).map(|number| conversation(&mut random, number).into_iter()).collect();
    let mut frames = Vec::new();
    while !waiting.is_empty() {
        let index = random.below(waiting.len());
        let Some(segment) = waiting[index].next() else {
            waiting.swap_remove(index);
            continue;
        };
        let mut frame = segment.frame();
        if random.one_in(40) {
            let at = 12 + random.below(frame.len() - 12);
            frame[at] ^= 1 << random.below(8);
        }
        if random.one_in(60) {
            // Not below what the kernel's test run asks for.
            frame.truncate(60.max(random.below(frame.len())).min(frame.len()));
        }
        frames.push(frame);
    }
    frames
}

#[test]
fn a_random_mix_adds_up_and_both_sides_agree() {
    if !support::kernel("a_random_mix_adds_up_and_both_sides_agree") {
        return;
    }
    for seed in [1, 0x5eed, 0xfeed_beef] {
        let mut sides = shop::loaded();
        let frames = mix(seed, 300);
        let whole = frames.iter().filter(|frame| frame.len() >= 54).count();
        let told = sides.run_frames(&frames);
        assert_eq!(told.count(Counter::PacketsSeen), frames.len() as u64);
        assert!(
            whole > 1000 && told.records.events.len() > 300,
            "the mix is a mix: {whole} {}",
            told.records.events.len()
        );
        for counter in [
            Counter::PacketMalformed,
            Counter::PacketNoService,
            Counter::PacketEmpty,
            Counter::PacketSyn,
            Counter::PacketData,
            Counter::PacketDuplicate,
            Counter::PacketHole,
            Counter::BytesGap,
            Counter::FlowsPickedUp,
            Counter::FlowsDeleted,
            Counter::Desynchronised,
            Counter::Resynchronised,
        ] {
            assert!(told.count(counter) > 0, "seed {seed:#x}: the mix has no {}", counter.label());
        }
    }
}

/// Records of the kernel that the host also made, and those that it lost, by kind.
fn losses(sides: &mut Sides, frames: &[Vec<u8>]) -> (Totals, Vec<usize>, Vec<usize>) {
    let before = sides.kernel.totals().unwrap();
    for frame in frames {
        sides.run_program(frame);
        sides.run_host(frame);
    }
    let counts = grown(&before, &sides.kernel.totals().unwrap());
    let by_kind = |records: &support::sides::Records| {
        let mut kinds = vec![0; usize::from(kind::VERSION) + 1];
        for record in records.events.iter().chain(&records.bytes) {
            kinds[usize::from(record.kind())] += 1;
        }
        kinds
    };
    let kernel = sides.drain_kernel();
    let host = sides.drain_host();
    (counts, by_kind(&kernel), by_kind(&host))
}

#[test]
fn full_rings_lose_records_and_count_each() {
    if !support::kernel("full_rings_lose_records_and_count_each") {
        return;
    }
    let config = config(shop::CONFIG);
    let mut bounds = config.bounds.clone();
    (bounds.event_ring_bytes, bounds.byte_ring_bytes) = (4096, 4096);
    let mut sides = shop::sides(&config, &bounds);
    let (counts, kernel, host) = losses(&mut sides, &mix(7, 200));
    assert_identities(&counts);
    let count = |counter: Counter| usize::try_from(counts[counter as usize]).unwrap();
    let heads = |kinds: &[usize]| kinds[usize::from(kind::REQUEST)] + kinds[usize::from(kind::RESPONSE)];
    let ends =
        |kinds: &[usize]| [kind::END, kind::TEE_END, kind::CLOSE].iter().map(|k| kinds[usize::from(*k)]).sum::<usize>();
    let tees = |kinds: &[usize]| kinds[usize::from(kind::TEE)];
    // What arrived and what was counted as lost is what the host, which loses nothing, has.
    assert_eq!(heads(&kernel), count(Counter::RecordsEmitted));
    assert_eq!(heads(&kernel) + count(Counter::LostEventRing), heads(&host));
    assert_eq!(ends(&kernel) + count(Counter::LostEnd), ends(&host));
    assert_eq!(tees(&kernel) + count(Counter::LostByteRing), tees(&host));
    assert!(count(Counter::LostEventRing) > 100 && count(Counter::LostEnd) > 0 && count(Counter::LostByteRing) > 0);
    // Apart from the losses themselves, parsing is not disturbed: all other totals are the host's.
    let host_totals = sides.host_totals();
    let lost = [
        Counter::RecordsEmitted,
        Counter::LostEventRing,
        Counter::LostEnd,
        Counter::LostByteRing,
        Counter::LostByteRingBytes,
    ];
    for counter in Counter::ALL.iter().filter(|counter| !lost.contains(counter)) {
        assert_eq!(counts[*counter as usize], host_totals[*counter as usize], "{}", counter.label());
    }

    // Read again, the ring takes records again.
    let mut peers = client(65_000);
    let (counts, kernel, _) = losses(&mut sides, &[peers.syn().frame(), peers.request(&shop::read("1", "t")).frame()]);
    assert_eq!((heads(&kernel), counts[Counter::LostEventRing as usize]), (1, 0));
}

#[test]
fn a_ring_of_one_page_takes_exactly_what_fits() {
    if !support::kernel("a_ring_of_one_page_takes_exactly_what_fits") {
        return;
    }
    let config = config(shop::CONFIG);
    let mut bounds = config.bounds.clone();
    bounds.event_ring_bytes = 4096;
    let mut sides = shop::sides(&config, &bounds);
    let mut peers = client(50_000);
    sides.run(&peers.open());
    let first = sides.run(&[peers.request(b"GET /products/1 HTTP/1.1\r\n\r\n")]);
    let size = first.records.events[0].0.len();
    assert_eq!(size, size_of::<HeadRecord>() + "GET /products/1 HTTP/1.1".len());
    // Each record has a header of 8 bytes and is rounded up to 8; the ring keeps one byte free of the whole.
    let each = (size + 8).next_multiple_of(8);
    let fits = (4096 - 1) / each;
    let many = 60;
    let frames: Vec<Vec<u8>> = (0..many).map(|_| peers.request(b"GET /products/1 HTTP/1.1\r\n\r\n").frame()).collect();
    let (counts, kernel, _) = losses(&mut sides, &frames);
    assert_eq!(kernel[usize::from(kind::REQUEST)], fits);
    assert_eq!(counts[Counter::LostEventRing as usize], (many - fits) as u64);
    assert_eq!(counts[Counter::HeadsRequest as usize], many as u64);
    assert_identities(&counts);
}

#[test]
fn lost_tee_records_count_their_bytes() {
    if !support::kernel("lost_tee_records_count_their_bytes") {
        return;
    }
    let config = config(shop::CONFIG);
    let mut bounds = config.bounds.clone();
    bounds.byte_ring_bytes = 4096;
    let mut sides = shop::sides(&config, &bounds);
    let mut peers = client(51_000);
    let body = 20_000;
    let mut segments = vec![peers.syn(), peers.request(&login()), peers.response(&shop::answer_head(body))];
    segments.extend(vec![b'b'; body].chunks(1000).map(|part| peers.response(part)));
    let before = sides.kernel.totals().unwrap();
    for segment in segments {
        sides.run_program(&segment.frame());
    }
    let counts = grown(&before, &sides.kernel.totals().unwrap());
    let kept: usize = sides
        .drain_kernel()
        .bytes
        .iter()
        .filter(|record| record.kind() == kind::TEE)
        .map(|record| record.0.len() - size_of::<TeeRecord>())
        .sum();
    assert!(kept > 0 && counts[Counter::LostByteRing as usize] > 0);
    assert_eq!(kept as u64 + counts[Counter::LostByteRingBytes as usize], body as u64);
    // The login's head stands on the other ring, and is not lost with the bytes.
    assert_eq!(counts[Counter::LostEventRing as usize], 0);
}
