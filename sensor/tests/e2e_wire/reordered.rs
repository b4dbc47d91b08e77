//! A client whose segments arrive in any order: its own TCP, over a packet socket, against the server's real one.
//!
//! Its address is nobody's, so that no kernel answers for it. It cuts its requests anywhere, sends the pieces out of
//! order, and acknowledges what the server says. (It sends nothing twice: what a part of an unanswered head says when it
//! comes again can be told on the slow path and is in doubt on the fast path, so that would depend on the time.)

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::bytes::some_requests;
use crate::servers::V4;
use crate::support::net::{CLIENT_END, Net, RawSocket, SERVER_END, inside, run};
use crate::support::packets::{ACK, Connection, FIN, SYN, Segment};

/// An address of the veth pair's network that neither end has.
const ADDRESS: &str = "192.0.2.77";
/// Who has it, and who the server is, in Ethernet: as in every frame of `packets`.
const CLIENT_MAC: &str = "02:00:00:00:00:01";
const SERVER_MAC: &str = "02:00:00:00:00:02";
/// Connections, groups of requests on each, and requests of a group: never more at once than the sensor pairs.
const CONNECTIONS: u16 = 24;
const GROUPS: usize = 6;
const REQUESTS: usize = 5;
/// Behind the last byte of an answer.
const QUIET: Duration = Duration::from_millis(15);

/// Numbers from a seed (xorshift64*): the same disorder in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// The requests of all connections; how many.
pub fn scrambled(net: &Net) -> usize {
    run(&["ip", "-n", &net.server, "link", "set", SERVER_END, "address", SERVER_MAC]);
    let neighbour = ["neigh", "replace", ADDRESS, "lladdr", CLIENT_MAC, "dev", SERVER_END, "nud", "permanent"];
    run(&[&["ip", "-n", &net.server][..], &neighbour].concat());
    inside(&net.client, || {
        for number in 0..CONNECTIONS {
            Client::open(20_000 + number).converse();
        }
    });
    usize::from(CONNECTIONS) * GROUPS * REQUESTS
}

/// What a frame of the server says.
struct Heard {
    sequence: u32,
    flags: u8,
    len: u32,
}

struct Client {
    socket: RawSocket,
    peers: Connection,
    /// Pieces of the answers that arrived before those in front of them: length and end by place.
    ahead: BTreeMap<u32, (u32, bool)>,
    /// The server hung up.
    ended: bool,
    random: Random,
}

impl Client {
    fn open(port: u16) -> Self {
        let own = SocketAddr::new(ADDRESS.parse().unwrap(), port);
        let socket = RawSocket::receiving(CLIENT_END, QUIET).unwrap();
        let peers = Connection::new(own, V4.parse().unwrap());
        let random = Random(0x5eed_0000 + u64::from(port));
        let mut client = Self { socket, peers, ahead: BTreeMap::new(), ended: false, random };
        let syn = client.peers.syn();
        client.send(&syn);
        let since = Instant::now();
        let answer = loop {
            assert!(since.elapsed() < Duration::from_secs(5), "the server does not answer");
            if let Some(heard) = client.hear().filter(|heard| heard.flags & SYN != 0) {
                break heard;
            }
        };
        client.peers.server_next = answer.sequence.wrapping_add(1);
        client.acknowledge(ACK);
        client
    }

    fn converse(mut self) {
        for group in 0..GROUPS {
            let tag = format!("any-order-{}-{group}", self.peers.client.port());
            let bytes = some_requests(REQUESTS, &tag, group + 1 == GROUPS);
            self.scramble(&bytes);
            self.listen();
        }
        let since = Instant::now();
        while !self.ended {
            assert!(since.elapsed() < Duration::from_secs(10), "the server does not hang up");
            self.listen();
        }
        self.acknowledge(FIN | ACK);
        self.peers.client_next = self.peers.client_next.wrapping_add(1);
        self.listen();
    }

    /// Sends `bytes` cut anywhere and in any order.
    fn scramble(&mut self, bytes: &[u8]) {
        let mut parts: Vec<(usize, Segment)> = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let len = (1 + self.random.below(250)).min(bytes.len() - from);
            let segment = self.peers.request(&bytes[from..from + len]);
            let delay = if self.random.one_in(3) { 1 + self.random.below(4) } else { 0 };
            parts.push((parts.len() + delay, segment));
            from += len;
        }
        parts.sort_by_key(|(place, _)| *place);
        for (_, mut segment) in parts {
            segment.acknowledged = self.peers.server_next;
            self.send(&segment);
            if self.random.one_in(6) {
                thread::sleep(Duration::from_millis(3));
            }
        }
    }

    /// Takes and acknowledges what the server says, until it says nothing for a while.
    fn listen(&mut self) {
        while let Some(heard) = self.hear() {
            self.ahead.insert(heard.sequence, (heard.len, heard.flags & FIN != 0));
            self.ahead.retain(|at, (len, _)| at.wrapping_add(*len).wrapping_sub(self.peers.server_next) < 1 << 31);
            while let Some((len, end)) = self.ahead.remove(&self.peers.server_next) {
                self.ended |= end;
                self.peers.server_next = self.peers.server_next.wrapping_add(len + u32::from(end));
            }
            if heard.len > 0 || heard.flags & FIN != 0 {
                self.acknowledge(ACK);
            }
        }
    }

    fn acknowledge(&self, flags: u8) {
        let mut segment = Segment::new(self.peers.client, self.peers.server, self.peers.client_next, flags, b"");
        segment.acknowledged = self.peers.server_next;
        self.send(&segment);
    }

    fn send(&self, segment: &Segment) {
        self.socket.send(&checked(segment.frame()), 0).unwrap();
    }

    /// The next frame of this connection; none if none comes for a while.
    fn hear(&self) -> Option<Heard> {
        let SocketAddr::V4(own) = self.peers.client else { panic!("IPv4") };
        loop {
            let frame = self.socket.receive()?;
            let ip = frame.get(14..)?;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let tcp = &ip[usize::from(ip[0] & 15) * 4..total];
            if ip[9] != 6 || ip[16..20] != own.ip().octets() || tcp[2..4] != own.port().to_be_bytes() {
                continue;
            }
            let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            let len = u32::try_from(tcp.len() - usize::from(tcp[12] >> 4) * 4).unwrap();
            return Some(Heard { sequence, flags: tcp[13], len });
        }
    }
}

/// The frame of an untagged IPv4 segment with its checksums.
fn checked(mut frame: Vec<u8>) -> Vec<u8> {
    let header = sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    // The pseudo-header: addresses, protocol and length.
    let len = u32::try_from(frame.len() - 34).unwrap();
    let addresses = frame[26..34].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum::<u32>();
    let tcp = sum(&frame[34..], addresses + 6 + len);
    frame[50..52].copy_from_slice(&tcp.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0)));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
