//! IP fragments, live: the real object and the slow path make of a conversation in fragments what replay makes of it,
//! and what both make of it uncut.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use sensor::capture::kernel::{Kernel, KernelResume};
use sensor::capture::offline::Offline;
use sensor::capture::ring::Ring;
use sensor::capture::tables::Tables;
use sensor::slow::SlowPath;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::kind;
use support::fragments::{cut, payload, piece, split};
use support::net::{CLIENT_END, Net, SERVER_END, inside, link, run, set};
use support::packets::{Connection, Segment, token};
use support::shop::{self, CONFIG, socket};
use support::sides::{KEY, NEXT, Record, Totals, assert_identities, config, grown};

/// What was made of some frames: heads and ends without what differs by nature (times, epochs), and teed bytes joined.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    heads: Vec<Record>,
    ends: Vec<(u8, u32, (u64, bool))>,
    teed: Vec<(u8, u32, Vec<u8>)>,
    closes: usize,
}

impl Told {
    fn add(&mut self, record: &[u8]) {
        let mut bytes = record.to_vec();
        bytes[8..24].fill(0);
        bytes[36..40].fill(0);
        let record = Record(bytes);
        let (way, transaction) = (record.0[5], record.transaction());
        match record.kind() {
            kind::REQUEST | kind::RESPONSE => self.heads.push(record),
            kind::END | kind::TEE_END => self.ends.push((record.kind(), transaction, record.end())),
            kind::TEE => match self.teed.last_mut().filter(|last| (last.0, last.1) == (way, transaction)) {
                Some(last) => last.2.extend(record.teed()),
                None => self.teed.push((way, transaction, record.teed().to_vec())),
            },
            kind::CLOSE => self.closes += 1,
            // A retransmission that the fast path had compared, and that says the same.
            kind::VERSION => {}
            other => panic!("kind {other} is not for the pipeline"),
        }
    }

    fn sorted(mut self) -> Self {
        self.heads.sort_by_key(|head| (head.transaction(), head.kind()));
        self.ends.sort_unstable();
        self
    }

    fn kinds(&self) -> Vec<u8> {
        self.heads.iter().map(Record::kind).collect()
    }
}

/// The kernel's side as the daemon runs it: rings, and the slow path behind them.
struct Live {
    kernel: Kernel,
    rings: (Ring, Ring),
    resume: KernelResume,
    slow: SlowPath,
}

impl Live {
    fn new(text: &str) -> Self {
        let config = config(text);
        let tables = Tables::new(&config, KEY).unwrap();
        let mut kernel = Kernel::load(sensor::object::embedded().unwrap(), &config.bounds).unwrap();
        kernel.configure(&tables).unwrap();
        kernel.set_local_addresses(&[shop::address("192.0.2.10"), shop::address("2001:db8::10")]).unwrap();
        let rings = kernel.rings(&config.bounds).unwrap();
        let resume = kernel.resumer().unwrap();
        let slow = SlowPath::new(&tables, (&config.bounds).into());
        Self { kernel, rings, resume, slow }
    }

    fn run(&mut self, frame: &[u8]) {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = self.kernel.program("authsensor_ingress").unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, NEXT);
    }

    fn read(&mut self, told: &mut Told) {
        let (slow, resume) = (&mut self.slow, &mut self.resume);
        self.rings.0.read(self.rings.0.produced(), |record| told.add(record));
        self.rings
            .1
            .read(self.rings.1.produced(), |record| slow.record(record, resume, &mut |record| told.add(record)));
    }

    /// All `frames`, with the rings read behind each `every` of them.
    fn tell(&mut self, frames: &[Vec<u8>], every: usize) -> (Told, Totals) {
        let before = self.totals();
        let mut told = Told::default();
        for (number, frame) in frames.iter().enumerate() {
            self.run(frame);
            if number % every == every - 1 {
                self.read(&mut told);
            }
        }
        self.read(&mut told);
        let counts = grown(&before, &self.totals());
        assert_identities(&counts);
        (told.sorted(), counts)
    }

    fn totals(&self) -> Totals {
        self.slow.with_fast(&self.kernel.totals().unwrap())
    }
}

/// What replay makes of the frames.
fn replayed(frames: &[Vec<u8>]) -> (Told, Totals) {
    let config = config(CONFIG);
    let mut engine = Offline::new(Tables::new(&config, KEY).unwrap(), false, 64, 64, (&config.bounds).into());
    let mut told = Told::default();
    for (at, frame) in (1..).zip(frames) {
        engine.ethernet(at, frame, u32::try_from(frame.len()).unwrap());
        engine.drain(|record| told.add(record));
    }
    (told.sorted(), engine.totals())
}

/// A connection of either IP version, from its own port.
fn peers(six: bool, port: u16) -> Connection {
    if six {
        Connection::new(socket(&format!("[2001:db8::7]:{port}")), socket("[2001:db8::10]:80"))
    } else {
        shop::client(port)
    }
}

fn tagged(mut segment: Segment, tag: bool) -> Vec<u8> {
    if tag {
        segment.tags.push((0x8100, 7));
    }
    segment.frame()
}

/// Orders of `count` things: all, or of many some.
fn orders(count: usize) -> Vec<Vec<usize>> {
    fn all(rest: &[usize]) -> Vec<Vec<usize>> {
        if rest.is_empty() {
            return vec![Vec::new()];
        }
        let heads = rest.iter().enumerate();
        heads
            .flat_map(|(index, head)| {
                let others = [&rest[..index], &rest[index + 1..]].concat();
                all(&others).into_iter().map(move |tail| [&[*head][..], &tail].concat())
            })
            .collect()
    }
    let plain: Vec<usize> = (0..count).collect();
    if count <= 4 {
        return all(&plain);
    }
    let strides = [1, 3, 5, 7].into_iter().filter(|stride| !count.is_multiple_of(*stride) || *stride == 1);
    let mut some: Vec<Vec<usize>> =
        strides.map(|stride| plain.iter().map(|index| index * stride % count).collect()).collect();
    some.push(plain.into_iter().rev().collect());
    some
}

const BOTH: [u8; 2] = [kind::REQUEST, kind::RESPONSE];

#[test]
fn a_request_in_fragments_of_any_order_is_the_request() {
    if !support::kernel("a_request_in_fragments_of_any_order_is_the_request") {
        return;
    }
    let mut live = Live::new(CONFIG);
    let mut port = 1000;
    for (six, tag) in [(false, false), (false, true), (true, false), (true, true)] {
        for count in 2..=8 {
            for order in orders(count) {
                port += 1;
                let mut peers = peers(six, port);
                let mut frames: Vec<Vec<u8>> = peers.open().into_iter().map(|segment| tagged(segment, tag)).collect();
                let mut whole = frames.clone();
                // The last segment before the answer.
                let request = tagged(peers.request(&shop::read("4711", &shop::bearer())), tag);
                let answer = tagged(peers.response(&shop::answer(100)), tag);
                let pieces = split(&request, port, count);
                assert_eq!(pieces.len(), count);
                frames.extend(order.iter().map(|index| pieces[*index].clone()));
                whole.push(request);
                for list in [&mut frames, &mut whole] {
                    list.push(answer.clone());
                    list.extend(peers.clone().close().into_iter().map(|segment| tagged(segment, tag)));
                }
                let (told, counts) = live.tell(&frames, 1 + usize::from(port) % 7);
                let what = format!("ipv6 {six} tag {tag} order {order:?}");
                assert_eq!(told.kinds(), BOTH, "{what}");
                assert_eq!(counts[Counter::FragmentsReassembled as usize], 1, "{what}");
                assert_eq!(counts[Counter::PacketFragment as usize], count as u64, "{what}");
                assert_eq!(counts[Counter::Unsolicited as usize], 0, "{what}");
                assert_eq!(told, replayed(&whole).0, "{what}");
                assert_eq!(told, replayed(&frames).0, "{what}");
            }
        }
    }
}

#[test]
fn heads_and_login_bodies_that_go_on_in_fragments() {
    if !support::kernel("heads_and_login_bodies_that_go_on_in_fragments") {
        return;
    }
    let mut live = Live::new(CONFIG);
    let issued = token("https://auth.shop.example", "member-1", 1_790_000_000);
    let answer = shop::login_answer(&issued);
    let mut port = 2000;
    for six in [false, true] {
        // The head in one segment and the rest in fragments, all in fragments, and with the TCP header cut through.
        for at in [0, 40, shop::body_at(&answer), shop::body_at(&answer) + 9] {
            for pieces in [&[8][..], &[16, 24], &[64, 128], &[8, 16, 24, 32]] {
                port += 1;
                let mut peers = peers(six, port);
                let mut whole: Vec<Vec<u8>> = peers.open().iter().map(Segment::frame).collect();
                let login = shop::login();
                let (first, rest) = login.split_at(20);
                whole.push(peers.request(first).frame());
                let asked = whole.len();
                whole.push(peers.request(rest).frame());
                if at > 0 {
                    whole.push(peers.response(&answer[..at]).frame());
                }
                let answered = whole.len();
                whole.push(peers.response(&answer[at..]).frame());
                for member in 0..4 {
                    whole.push(peers.request(&shop::read(&member.to_string(), &issued)).frame());
                    whole.push(peers.response(&shop::answer(300)).frame());
                }
                whole.extend(peers.close().iter().map(Segment::frame));
                let mut frames = Vec::new();
                for (index, frame) in whole.iter().enumerate() {
                    if index == asked || index == answered {
                        frames.extend(cut(frame, port, pieces).into_iter().rev());
                    } else {
                        frames.push(frame.clone());
                    }
                }
                let (told, counts) = live.tell(&frames, 1);
                let what = format!("ipv6 {six} answer from {at} cut at {pieces:?}");
                assert_eq!(counts[Counter::FragmentsReassembled as usize], 2, "{what}");
                assert_eq!(counts[Counter::FragmentsUnclaimed as usize], 0, "{what}");
                assert_eq!(told.heads.len(), 10, "{what}");
                let teed: Vec<u8> = told.teed.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
                assert_eq!(teed, answer[shop::body_at(&answer)..], "{what}");
                assert_eq!(told, replayed(&whole).0, "{what}");
                assert_eq!(told, replayed(&frames).0, "{what}");
                assert!(counts[Counter::FlowsResumed as usize] > 0, "the fast path has it back: {what}");
            }
        }
    }
}

#[test]
fn fragments_make_void_what_was_offered_before_them() {
    if !support::kernel("fragments_make_void_what_was_offered_before_them") {
        return;
    }
    let mut live = Live::new(CONFIG);
    let mut peers = shop::client(2900);
    let exchange = |peers: &mut Connection, member: &str| {
        [peers.request(&shop::read(member, "t")).frame(), peers.response(&shop::answer(50)).frame()]
    };
    let mut whole: Vec<Vec<u8>> = peers.open().iter().map(Segment::frame).collect();
    let open = whole.len();
    whole.extend(exchange(&mut peers, "1"));
    whole.extend(exchange(&mut peers, "2"));
    whole.extend(exchange(&mut peers, "3"));
    whole.extend(exchange(&mut peers, "4"));
    let expected = replayed(&whole).0;
    // The first exchange, and one more, leave the flow on the slow path and offered.
    let mut told = Told::default();
    let mut frames = whole[..open].to_vec();
    frames.extend(split(&whole[open], 1, 2));
    frames.extend_from_slice(&whole[open + 1..open + 2]);
    for frame in &frames {
        live.run(frame);
    }
    live.read(&mut told);
    live.run(&whole[open + 2]);
    live.run(&whole[open + 3]);
    live.read(&mut told);
    // What comes next comes in fragments, and again whole before anybody heard of them.
    for frame in split(&whole[open + 4], 2, 2).iter().chain(&whole[open + 4..open + 6]) {
        live.run(frame);
    }
    live.read(&mut told);
    assert_eq!(live.totals()[Counter::FlowsResumed as usize], 0, "the fragments came first");
    for frame in &whole[open + 6..] {
        live.run(frame);
        live.read(&mut told);
    }
    assert_eq!(live.totals()[Counter::FlowsResumed as usize], 1);
    assert_eq!(told.sorted(), expected);
}

#[test]
fn duplicates_and_overlaps_are_what_they_are_in_replay() {
    if !support::kernel("duplicates_and_overlaps_are_what_they_are_in_replay") {
        return;
    }
    let mut live = Live::new(CONFIG);
    let same = [Counter::FragmentsReassembled, Counter::FragmentsConflicting, Counter::FragmentsDropped];
    for (six, port) in [(false, 3000), (true, 3100)] {
        for case in 0..4 {
            let mut peers = peers(six, port + case);
            let mut frames: Vec<Vec<u8>> = peers.open().iter().map(Segment::frame).collect();
            let request = peers.request(&shop::read("4711", &shop::bearer())).frame();
            let pieces = cut(&request, 9, &[80, 160]);
            let again = |change: u8| {
                let bytes: Vec<u8> = payload(&request)[40..120].iter().map(|byte| byte ^ change).collect();
                piece(&request, 9, 40, true, &bytes)
            };
            match case {
                // Each twice, before the datagram is whole.
                0 => frames.extend([&pieces[2], &pieces[2], &pieces[1], &pieces[1], &pieces[0]].map(Clone::clone)),
                // The whole datagram twice.
                1 => frames.extend([pieces.clone(), pieces.clone()].concat()),
                // An overlap that says the same, and one that says something else.
                2 => frames.extend([pieces[0].clone(), again(0), pieces[1].clone(), pieces[2].clone()]),
                _ => frames.extend([pieces[0].clone(), again(1), pieces[1].clone(), pieces[2].clone()]),
            }
            frames.push(peers.response(&shop::answer(100)).frame());
            let (told, counts) = live.tell(&frames, 2);
            let (expected, totals) = replayed(&frames);
            assert_eq!(told, expected, "ipv6 {six} case {case}");
            for counter in same {
                let what = format!("{} of ipv6 {six} case {case}", counter.label());
                assert_eq!(counts[counter as usize], totals[counter as usize], "{what}");
            }
            // RFC 5722: an IPv6 datagram of two versions is none.
            let refused = six && case == 3;
            assert_eq!(told.kinds().contains(&kind::REQUEST), !refused, "ipv6 {six} case {case}");
            let conflicting = u64::from(!six && case == 3);
            assert_eq!(counts[Counter::FragmentsConflicting as usize], conflicting, "ipv6 {six} case {case}");
        }
    }
}

#[test]
fn fragments_of_no_service_and_of_no_flow_change_nothing() {
    if !support::kernel("fragments_of_no_service_and_of_no_flow_change_nothing") {
        return;
    }
    let mut live = Live::new(CONFIG);
    // Nobody listens there: nothing leaves the kernel.
    let mut others = Connection::new(socket("198.51.100.7:4000"), socket("203.0.113.1:80"));
    let request = others.request(&shop::read("1", "t")).frame();
    for frame in split(&request, 1, 3) {
        live.run(&frame);
    }
    assert_eq!(live.rings.1.unread(), 0);
    // One does, but the flow is not known; and a SYN in fragments opens none.
    let mut unknown = shop::client(4001);
    let mut syn = unknown.syn();
    syn.tcp_options = 20;
    let mut frames = cut(&syn.frame(), 1, &[24]);
    frames.extend(split(&unknown.request(&shop::read("1", "t")).frame(), 2, 3));
    let (told, counts) = live.tell(&frames, 1);
    assert_eq!(told, Told::default());
    assert_eq!(counts[Counter::FlowsCreated as usize], 0);
    assert_eq!(counts[Counter::FragmentsReassembled as usize], 2);
    let mut told = Told::default();
    live.slow.finish(u64::MAX, &mut live.resume, &mut |record| told.add(record));
    assert_eq!(live.totals()[Counter::FragmentsUnclaimed as usize], 2);
}

/// What the configuration gives the byte ring.
const RING: usize = 1 << 20;

#[test]
fn a_flood_of_fragments_leaves_half_of_the_ring() {
    if !support::kernel("a_flood_of_fragments_leaves_half_of_the_ring") {
        return;
    }
    let mut live = Live::new(CONFIG);
    let mut flood = shop::client(5000);
    let frame = flood.request(&[b'f'; 2000]).frame();
    let piece = &cut(&frame, 1, &[1480])[0];
    for _ in 0..1000 {
        live.run(piece);
    }
    let unread = usize::try_from(live.rings.1.unread()).unwrap();
    assert!((RING / 2..RING / 2 + 4096).contains(&unread), "{unread} bytes wait");
    let lost = live.kernel.totals().unwrap()[Counter::LostFragment as usize];
    assert!((1..1000).contains(&lost), "{lost} fragments were left out");
    // Others have room for what they say.
    let mut peers = shop::client(5001);
    let issued = token("https://auth.shop.example", "member-1", 1_790_000_000);
    let mut frames: Vec<Vec<u8>> = peers.open().iter().map(Segment::frame).collect();
    frames.push(peers.request(&shop::login()).frame());
    frames.push(peers.response(&shop::login_answer(&issued)).frame());
    let (told, counts) = live.tell(&frames, frames.len());
    assert_eq!(told, replayed(&frames).0);
    assert!(!told.teed.is_empty());
    assert_eq!(counts[Counter::LostByteRing as usize] + counts[Counter::LostSegment as usize], 0);
}

/// A namespace, gone when the value is dropped.
struct Far(String);

impl Drop for Far {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// A client behind the client's namespace, which forwards to the server over a link of 600 bytes: its large packets, sent
/// without "don't fragment", come in fragments.
fn behind(net: &Net) -> Far {
    let far = Far(format!("{}-far", net.client));
    run(&["ip", "netns", "add", &far.0]);
    let (near, name) = (&net.client, &far.0);
    link((name, "as-far"), (near, "as-near"));
    run(&["ip", "-n", near, "addr", "add", "198.51.100.1/24", "dev", "as-near"]);
    run(&["ip", "-n", near, "link", "set", "as-near", "mtu", "9000", "up"]);
    run(&["ip", "-n", near, "link", "set", CLIENT_END, "mtu", "600"]);
    run(&["ip", "-n", name, "addr", "add", "198.51.100.7/24", "dev", "as-far"]);
    run(&["ip", "-n", name, "link", "set", "as-far", "mtu", "9000", "up"]);
    // Answers must fit the small link.
    run(&["ip", "-n", name, "route", "add", "192.0.2.0/24", "via", "198.51.100.1", "advmss", "500"]);
    run(&["ip", "-n", &net.server, "route", "add", "198.51.100.0/24", "via", "192.0.2.7"]);
    set(near, "ipv4/ip_forward", "1");
    set(name, "ipv4/ip_no_pmtu_disc", "1");
    far
}

#[test]
fn requests_that_a_router_fragments_on_their_way_to_a_real_server() {
    const EXCHANGES: usize = 40;
    const PATIENCE: Duration = Duration::from_secs(10);
    if !support::kernel("requests_that_a_router_fragments_on_their_way_to_a_real_server") {
        return;
    }
    let net = Net::new();
    let far = behind(&net);
    let mut live = Live::new(CONFIG);
    inside(&net.server, || live.kernel.attach(SERVER_END).unwrap());
    let tokens: Vec<String> = (0..EXCHANGES).map(|number| token("i", "s", number as u64)).collect();
    // Every other one fits a packet of the small link.
    let request = |number: usize| {
        let filler = "f".repeat(if number.is_multiple_of(2) { 2500 } else { 0 });
        let token = &tokens[number];
        format!(
            "GET /members/{number} HTTP/1.1\r\nHost: shop\r\nX-Filler: {filler}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let answer = shop::answer(100);
    let mut told = Told::default();
    inside(&net.server, || {
        let listener = TcpListener::bind("192.0.2.10:80").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE * support::slowness())).unwrap();
                for number in 0..EXCHANGES {
                    stream.read_exact(&mut vec![0; request(number).len()]).unwrap();
                    stream.write_all(&answer).unwrap();
                }
            });
            inside(&far.0, || {
                let mut stream = TcpStream::connect("192.0.2.10:80").unwrap();
                stream.set_read_timeout(Some(PATIENCE * support::slowness())).unwrap();
                stream.set_nodelay(true).unwrap();
                for number in 0..EXCHANGES {
                    stream.write_all(request(number).as_bytes()).unwrap();
                    stream.read_exact(&mut vec![0; answer.len()]).unwrap();
                    live.read(&mut told);
                }
            });
        });
    });
    live.read(&mut told);
    let told = told.sorted();
    let totals = live.totals();
    assert!(totals[Counter::PacketFragment as usize] >= EXCHANGES as u64, "the router cut packets");
    assert_eq!(told.heads.len(), 2 * EXCHANGES, "every request, every answer, once");
    for (number, pair) in told.heads.chunks_exact(2).enumerate() {
        assert_eq!((pair[0].kind(), pair[1].kind()), (kind::REQUEST, kind::RESPONSE));
        assert_eq!((pair[0].transaction(), pair[1].transaction()), (pair[0].transaction(), pair[0].transaction()));
        let known = sensor_ebpf::siphash::hash128(KEY, tokens[number].as_bytes());
        assert_eq!(pair[0].credentials()[0].fingerprint, known, "request {number}");
        assert_eq!(pair[1].head().anomalies, 0, "answer {number}");
    }
    for counter in [Counter::Unsolicited, Counter::Desynchronised, Counter::LostFragment, Counter::FragmentsUnclaimed] {
        assert_eq!(totals[counter as usize], 0, "{}", counter.label());
    }
}
