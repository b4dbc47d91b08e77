//! The object on a real interface: sockets of the kernel's own TCP over a veth pair, with super-packets and without,
//! and frames as only a wire has them: tagged, or with headers outside the linear part of the packet.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use sensor::capture::kernel::Kernel;
use sensor::capture::tables::Tables;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::{anomaly, kind};
use support::net::{CLIENT_END, Net, RawSocket, SERVER_END, inside, stay_on_one_processor};
use support::packets::{Connection, Segment, token};
use support::shop;
use support::sides::{KEY, Outcome, Sides, Totals, assert_identities, config, grown};

const MSS: u64 = 1448;
/// For the other side of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request that does not fit a packet: 20 KB of headers, 64 KB of body, the credentials last.
fn large_request(token: &str) -> Vec<u8> {
    let mut request = b"POST /products/1 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 65536\r\n".to_vec();
    for number in 0..20 {
        request.extend(format!("X-Filler-{number}: {}\r\n", "f".repeat(1000)).as_bytes());
    }
    request.extend(format!("Cookie: SESSION={}\r\nAuthorization: Bearer {token}\r\n\r\n", shop::COOKIE).as_bytes());
    request.extend(vec![b'b'; 65536]);
    request
}

fn answer_all(listener: &TcpListener, exchanges: usize) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE * support::slowness())).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let request = large_request(&token("i", "s", 0)).len();
    for _ in 0..exchanges {
        let mut left = request;
        while left > 0 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the client hung up");
            left -= read;
        }
        stream.write_all(&shop::answer(50_000)).unwrap();
    }
}

/// Sends `exchanges` large requests over one connection, each in one write, and reads the answers.
fn converse(net: &Net, server: SocketAddr, exchanges: usize) -> Vec<String> {
    let tokens: Vec<String> = (0..exchanges).map(|number| token("i", "s", number as u64 % 10)).collect();
    inside(&net.server, || {
        stay_on_one_processor();
        let listener = TcpListener::bind(server).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| answer_all(&listener, exchanges));
            inside(&net.client, || {
                let mut stream = TcpStream::connect_timeout(&server, PATIENCE * support::slowness()).unwrap();
                stream.set_read_timeout(Some(PATIENCE * support::slowness())).unwrap();
                let mut answer = vec![0; shop::answer(50_000).len()];
                for token in &tokens {
                    stream.write_all(&large_request(token)).unwrap();
                    stream.read_exact(&mut answer).unwrap();
                }
            });
        });
    });
    tokens
}

/// Packets with payload that came in or went out during a conversation.
fn watched_conversation(net: &Net, server: &str) -> Totals {
    const EXCHANGES: usize = 6;
    let config = config(shop::CONFIG);
    let mut kernel = Kernel::load(sensor::object::embedded().unwrap(), &config.bounds).unwrap();
    kernel.configure(&Tables::new(&config, KEY).unwrap()).unwrap();
    let (mut events, _bytes) = kernel.rings(&config.bounds).unwrap();
    inside(&net.server, || kernel.attach(SERVER_END).unwrap());
    let tokens = converse(net, shop::socket(server), EXCHANGES);

    let mut records = Vec::new();
    events.read(events.produced(), |record| records.push(support::sides::Record(record.to_vec())));
    let requests: Vec<_> = records.iter().filter(|record| record.kind() == kind::REQUEST).collect();
    assert_eq!(requests.len(), EXCHANGES, "requests seen are requests sent: {records:?}");
    assert_eq!(records.iter().filter(|record| record.kind() == kind::RESPONSE).count(), EXCHANGES);
    for (request, token) in requests.iter().zip(&tokens) {
        let [session, bearer] = &request.credentials()[..] else { panic!("{request:?}") };
        assert_eq!(session.fingerprint, hash128(KEY, shop::COOKIE.as_bytes()));
        assert_eq!(bearer.fingerprint, hash128(KEY, token.as_bytes()));
        assert_eq!(request.head().anomalies & !anomaly::VALUE_CUT, 0);
        assert_eq!(request.head().content_length, 65536);
    }
    let totals = kernel.totals().unwrap();
    assert_identities(&totals);
    for counter in [Counter::PacketHole, Counter::Desynchronised, Counter::PacketMalformed, Counter::PacketBusy] {
        assert_eq!(totals[counter as usize], 0, "{}", counter.label());
    }
    totals
}

/// Over both families. Packets with payload on the server's side, by bytes of the stream.
fn both_families(net: &Net) -> (u64, u64) {
    let mut sum = (0, 0);
    for server in ["192.0.2.10:80", "[2001:db8::10]:80"] {
        let totals = watched_conversation(net, server);
        sum.0 += totals[Counter::PacketData as usize];
        sum.1 += totals[Counter::BytesNew as usize];
    }
    sum
}

#[test]
fn super_packets_and_non_linear_packets_of_real_sockets() {
    if !support::kernel("super_packets_and_non_linear_packets_of_real_sockets") {
        return;
    }
    let net = Net::new();
    net.set_mtu(1500);
    net.set_offloads(true);
    let (packets, bytes) = both_families(&net);
    assert!(packets < bytes / MSS / 2, "offloads on, super-packets are seen: {packets} packets, {bytes} bytes");
}

#[test]
fn segments_of_real_sockets_without_offloads() {
    if !support::kernel("segments_of_real_sockets_without_offloads") {
        return;
    }
    let net = Net::new();
    net.set_mtu(1500);
    net.set_offloads(false);
    let (packets, bytes) = both_families(&net);
    // Answers leave the server's socket before the interface's segmentation: requests alone make these many.
    let requests = bytes * 86 / (86 + 50);
    assert!(packets > requests * 9 / 10 / MSS, "one segment a packet: {packets} packets, {bytes} bytes");
}

/// Sends the frames of `segments` out of the client's end, and gives what the sensor there (egress) and the one on the
/// server's end (ingress) made of them. Both must be what the host's parser makes of them.
fn over_the_wire(segments: &[Segment], linear: u16) -> Outcome {
    let net = Net::new();
    let config = config(shop::CONFIG);
    let mut ends = [shop::sides(&config, &config.bounds), shop::sides(&config, &config.bounds)];
    inside(&net.client, || ends[0].kernel.attach(CLIENT_END).unwrap());
    inside(&net.server, || ends[1].kernel.attach(SERVER_END).unwrap());
    let before = ends.each_ref().map(|end| end.kernel.totals().unwrap());
    inside(&net.client, || {
        stay_on_one_processor();
        let socket = RawSocket::new(CLIENT_END).unwrap();
        for segment in segments {
            socket.send(&segment.frame(), linear).unwrap();
        }
    });
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (end, before) in ends.iter_mut().zip(&before) {
        outcomes.push(compared(end, before, segments));
    }
    assert_eq!(outcomes[0].records, outcomes[1].records, "leaving and arriving are alike");
    outcomes.remove(0)
}

fn compared(end: &mut Sides, before: &Totals, segments: &[Segment]) -> Outcome {
    for segment in segments {
        end.run_host(&segment.frame());
    }
    let host = end.host_totals();
    // veth hands packets over by a softirq: soon, not at once.
    let dispositions = |totals: &Totals| {
        let foreign = [Counter::PacketNotIp, Counter::PacketNotTcp];
        let ours = Counter::PACKET_DISPOSITIONS.iter().filter(|counter| !foreign.contains(counter));
        ours.map(|counter| totals[*counter as usize]).collect::<Vec<u64>>()
    };
    for _ in 0..100 * support::slowness() {
        if dispositions(&grown(before, &end.kernel.totals().unwrap())) == dispositions(&host) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let counts = grown(before, &end.kernel.totals().unwrap());
    // The namespaces' own neighbour discovery is not IP, or not TCP.
    assert_eq!(dispositions(&counts), dispositions(&host));
    let records = end.drain_kernel();
    assert_eq!(records, end.drain_host());
    let outcome = Outcome { records, counts };
    outcome.assert_identities();
    outcome
}

/// A connection with one exchange of `body` bytes.
fn exchange(client: &str, server: &str, body: usize) -> Vec<Segment> {
    let mut peers = Connection::new(shop::socket(client), shop::socket(server));
    let mut segments = peers.open();
    let head = shop::read("4711", &shop::bearer());
    let (first, second) = head.split_at(300);
    segments.extend([peers.request(first), peers.request(second), peers.response(&shop::answer(body))]);
    segments.extend(peers.close());
    segments
}

#[test]
fn tagged_frames_over_the_wire() {
    if !support::kernel("tagged_frames_over_the_wire") {
        return;
    }
    let mut segments = exchange("192.0.2.7:1001", "192.0.2.10:80", 500);
    for segment in &mut segments {
        segment.tags = vec![(0x8100, 7)];
    }
    let mut double = exchange("[2001:db8::7]:1002", "[2001:db8::10]:80", 500);
    for segment in &mut double {
        segment.tags = vec![(0x88a8, 7), (0x8100, 9)];
    }
    segments.extend(double);
    // Leaving, the outer tag stands in the frame; arriving, the kernel has put it beside the packet.
    let told = over_the_wire(&segments, 0);
    assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE, kind::REQUEST, kind::RESPONSE]);
    assert_eq!((told.count(Counter::FlowsCreated), told.count(Counter::FlowsDeleted)), (2, 2));
}

#[test]
fn headers_outside_the_linear_part() {
    if !support::kernel("headers_outside_the_linear_part") {
        return;
    }
    // Longer than a page, so that what is beyond the Ethernet header stands in fragments of the packet.
    let mut segments = Vec::new();
    for (client, server) in [("192.0.2.7:1003", "192.0.2.10:80"), ("[2001:db8::7]:1004", "[2001:db8::10]:80")] {
        let mut peers = Connection::new(shop::socket(client), shop::socket(server));
        segments.extend(peers.open());
        let mut head = format!("GET /products/1 HTTP/1.1\r\nX-Filler: {}\r\n", "f".repeat(5000)).into_bytes();
        head.extend(format!("Cookie: SESSION={}\r\n\r\n", shop::COOKIE).as_bytes());
        segments.extend([peers.request(&head), peers.response(&shop::answer(6000))]);
    }
    for linear in [14, 20, 40] {
        let told = over_the_wire(&segments, linear);
        assert_eq!(told.records.kinds(), [kind::REQUEST, kind::RESPONSE, kind::REQUEST, kind::RESPONSE], "{linear}");
        for request in [&told.records.events[0], &told.records.events[2]] {
            assert_eq!(request.credentials()[0].fingerprint, hash128(KEY, shop::COOKIE.as_bytes()), "{linear}");
        }
        assert_eq!(told.count(Counter::PacketData), 4, "{linear}");
    }
}
