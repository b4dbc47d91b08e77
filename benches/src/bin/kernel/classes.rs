//! The packet classes, and what each must do to the totals, so that a figure never stands for another path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use benches::frames::{self, Connection, End};
use benches::heads;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::bench_mode;

/// A limit that the project set itself.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Times the empty program.
    pub empty: f64,
    /// Times the bare program.
    pub bare: Option<f64>,
}

/// ACKs and bodies are nearly all of the packets.
const FAST: Option<Limit> = Some(Limit { empty: 3.5, bare: Some(1.4) });
/// A head with a credential.
const HEAD: Option<Limit> = Some(Limit { empty: 75.0, bare: None });

/// For a client port: the frames that come first (a connection, a request), then the one that is timed.
type Frames = fn(u16) -> (Vec<Vec<u8>>, Vec<u8>);

/// One class.
pub struct Class {
    /// Its name in the table.
    pub name: &'static str,
    /// The program that is timed.
    pub program: &'static str,
    /// How [`sensor_ebpf::wire::BenchStream`] is set.
    pub mode: u32,
    /// Bytes of the first of two segments, or 0.
    pub cut: u32,
    /// What every run counts, beside the packet itself.
    pub counts: &'static [(Counter, u32)],
    /// Runs in one call: bounded by the event ring where runs emit.
    pub repeat: u32,
    /// Its limit.
    pub limit: Option<Limit>,
    /// Its frames.
    pub frames: Frames,
}

/// The entry that makes a stream of one packet.
pub const STREAM: &str = "bench_stream";
/// ACKs by the shipped entry.
pub const ACK: &str = "ACK";
/// ACKs by [`STREAM`]: the difference is what that entry costs.
pub const ACK_STREAM: &str = "ACK, by the bench's entry";

const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const SERVICE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));

/// Addresses that count as this host's.
pub const LOCAL: [IpAddr; 2] = [SERVICE, SERVICE6];

fn connection(port: u16) -> Connection {
    Connection {
        client: End { address: Ipv4Addr::new(203, 0, 113, 9).into(), port },
        service: End { address: SERVICE, port: 8080 },
    }
}

fn connection6(port: u16) -> Connection {
    Connection {
        client: End { address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into(), port },
        service: End { address: SERVICE6, port: 8080 },
    }
}

fn open(connection: &Connection) -> Vec<Vec<u8>> {
    vec![connection.syn(), connection.syn_ack()]
}

fn no_service(port: u16) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut other = connection(port);
    other.service.port = 5432;
    (Vec::new(), other.request(0, &[0; 64]))
}

fn ack(port: u16) -> (Vec<Vec<u8>>, Vec<u8>) {
    let connection = connection(port);
    (open(&connection), connection.request(0, &[]))
}

fn ack6(port: u16) -> (Vec<Vec<u8>>, Vec<u8>) {
    let connection = connection6(port);
    (open(&connection), connection.request(0, &[]))
}

fn body(port: u16) -> (Vec<Vec<u8>>, Vec<u8>) {
    let connection = connection(port);
    let head = heads::upload(1 << 50);
    let mut first = open(&connection);
    first.push(connection.request(0, &head));
    (first, connection.request(head.len(), &[b'x'; 1448]))
}

fn request(port: u16, payload: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let connection = connection(port);
    (open(&connection), connection.request(0, payload))
}

fn response(port: u16) -> (Vec<Vec<u8>>, Vec<u8>) {
    let connection = connection(port);
    let mut first = open(&connection);
    first.push(connection.request(0, &heads::with_jwt()));
    (first, connection.response(0, &heads::response(0)))
}

/// Every class, in the order of the table. The first two are what the others are compared with.
pub const CLASSES: &[Class] = &[
    plain("empty program", "bench_empty", &[], None, ack),
    plain("bare: headers and one flow lookup", "bench_bare", &[], None, ack),
    plain("not IP", "authsensor_ingress", &[(Counter::PacketNotIp, 1)], None, |_| (Vec::new(), frames::arp())),
    plain("not a service", "authsensor_ingress", &[(Counter::PacketNoService, 1)], None, no_service),
    plain(ACK, "authsensor_ingress", &[(Counter::PacketEmpty, 1)], FAST, ack),
    plain("ACK, IPv6", "authsensor_ingress", &[(Counter::PacketEmpty, 1)], FAST, ack6),
    plain(ACK_STREAM, STREAM, &[(Counter::PacketEmpty, 1)], None, ack),
    Class {
        mode: bench_mode::PLAIN,
        ..plain(
            "body segment, 1,448 bytes",
            STREAM,
            &[(Counter::PacketData, 1), (Counter::BytesSkipped, 1448), (Counter::BytesParsed, 0)],
            FAST,
            body,
        )
    },
    head("head, 824 bytes, JWT of 400", HEAD, |port| request(port, &heads::with_jwt())),
    head("head, 824 bytes, session cookie", None, |port| request(port, &heads::with_session())),
    head("head, 824 bytes, no credential", None, |port| request(port, &heads::without_credential())),
    Class {
        counts: &[(Counter::PacketData, 1), (Counter::HeadsCompleted, 2), (Counter::RecordsEmitted, 2)],
        repeat: 15_000,
        ..head("two heads with JWT in one segment", None, |port| {
            request(port, &[heads::with_jwt(), heads::with_jwt()].concat())
        })
    },
    Class {
        cut: 412,
        counts: &[(Counter::PacketData, 2), (Counter::HeadsCompleted, 1), (Counter::RecordsEmitted, 1)],
        ..head("head with JWT split in two, per segment", None, |port| request(port, &heads::with_jwt()))
    },
    Class { mode: bench_mode::ASKED, ..head("response head, 300 bytes", None, response) },
    Class {
        mode: bench_mode::FRESH,
        ..plain(
            "SYN flood, every one a new flow",
            STREAM,
            // A few that an earlier call left in the table begin with the same SYN, and are kept.
            &[(Counter::PacketSyn, 1)],
            None,
            |port| (Vec::new(), connection(port).syn()),
        )
    },
];

/// A class whose runs leave no records.
const fn plain(
    name: &'static str,
    program: &'static str,
    counts: &'static [(Counter, u32)],
    limit: Option<Limit>,
    frames: Frames,
) -> Class {
    Class { name, program, mode: bench_mode::PLAIN, cut: 0, counts, repeat: 100_000, limit, frames }
}

/// A class of which every run completes a head.
const fn head(name: &'static str, limit: Option<Limit>, frames: Frames) -> Class {
    let counts = &[(Counter::PacketData, 1), (Counter::HeadsCompleted, 1), (Counter::RecordsEmitted, 1)];
    let class = plain(name, STREAM, counts, limit, frames);
    Class { mode: bench_mode::ANSWERED, repeat: 30_000, ..class }
}
