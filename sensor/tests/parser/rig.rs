//! What the parser's tests stand on: a packet builder, one service, and records as values that can be compared.

use std::collections::BTreeMap;

use sensor::capture::offline::Offline;
use sensor::capture::tables::Tables;
use sensor::collect::decode::{Head, Record, decode};
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::{Key, hash128};
use sensor_ebpf::wire::{
    Credential, ListenKey, Name, RouteConfig, RouteState, ServiceConfig, Settings, anomaly, capture, credential_flag,
    service_flag,
};

pub const KEY: Key = Key { k0: 0x0123_4567_89ab_cdef, k1: 0xfedc_ba98_7654_3210 };
pub const PORT: u16 = 8080;
pub const SYN: u8 = 2;
pub const FIN: u8 = 1;
pub const ACK: u8 = 16;

/// Both ends of a test conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// A service on [`PORT`] with a credential place of every kind.
pub fn tables() -> Tables {
    let name = |text: &str| Name::new(text.as_bytes(), false).unwrap();
    let mut service = ServiceConfig {
        flags: service_flag::AUTHORIZATION
            | service_flag::QUERY
            | service_flag::COOKIES
            | service_flag::HEADERS
            | service_flag::RESPONSE_HEADERS,
        ..ServiceConfig::default()
    };
    service.cookies[0] = name("SESSION");
    service.cookies[1] = name("__Host-a-rather-long-cookie-name");
    service.headers[0] = name("x-api-key");
    service.response_headers[0] = name("x-new-token");
    service.query[0] = name("access_token");
    service.query[1] = name("t");
    let mut tables = Tables {
        key: KEY,
        settings: Settings { head_bytes: 64 << 10, tunnels: 1 },
        ports: vec![PORT],
        services: vec![service],
        ..Tables::default()
    };
    tables.listens.insert(ListenKey { address: [0; 16], port: PORT, reserved: [0; 6] }, 0);
    tables.states.push(RouteState::default());
    tables.routes.insert(0, RouteConfig::default());
    tables
}

pub fn engine() -> Offline {
    Offline::new(tables(), false, 1024, 64, Limits::default())
}

pub fn fingerprint(canonical: &[u8]) -> [u8; 16] {
    hash128(KEY, canonical)
}

/// A TCP segment over IPv4 and Ethernet between the client and the service.
pub fn segment_of(client_port: u16, from: From, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (source, destination, sport, dport) = match from {
        From::Client => (client, server, client_port, PORT),
        From::Server => (server, client, PORT, client_port),
    };
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    let total = u16::try_from(40 + payload.len()).unwrap();
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(tcp(sport, dport, sequence, flags));
    frame.extend(payload);
    frame
}

/// A TCP header without options.
pub fn tcp(sport: u16, dport: u16, sequence: u32, flags: u8) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(sport.to_be_bytes());
    header.extend(dport.to_be_bytes());
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// One head as a value: everything but the time and where in the capture area things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub request: bool,
    pub txn: u32,
    pub offset: u64,
    pub head_bytes: u32,
    pub status: u16,
    pub route: u16,
    pub method: u8,
    pub version: u8,
    pub framing: u8,
    pub flags: u8,
    pub content_length: u64,
    pub user_agent: u64,
    pub anomalies: u32,
    pub proxied: ([u8; 16], u16),
    pub captures: Vec<Option<Vec<u8>>>,
    pub credentials: Vec<Found>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub fingerprint: [u8; 16],
    pub len: u32,
    pub place: u8,
    pub index: u8,
    pub scheme: u8,
    pub dots: u8,
    pub cut_at: u16,
    pub flags: u16,
    pub claims: Option<Vec<u8>>,
}

impl Seen {
    /// What is odd about it, but for a `Host` that most of these tests do without.
    pub fn odd(&self) -> u32 {
        self.anomalies & !anomaly::ODD_HOST
    }

    pub fn line(&self) -> &str {
        std::str::from_utf8(self.captures[capture::LINE].as_deref().unwrap_or_default()).unwrap()
    }
}

fn seen(head: &Head<'_>, request: bool) -> Seen {
    let fixed = &head.fixed;
    let found = |one: Credential| Found {
        fingerprint: one.fingerprint,
        len: one.len,
        place: one.place,
        index: one.index,
        scheme: one.scheme,
        dots: one.dots,
        cut_at: one.cut_at,
        flags: one.flags,
        claims: head.claims(&one).map(<[u8]>::to_vec),
    };
    Seen {
        request,
        txn: fixed.head.txn,
        offset: fixed.head.offset,
        head_bytes: fixed.head_bytes,
        status: fixed.status,
        route: fixed.route,
        method: fixed.method,
        version: fixed.version,
        framing: fixed.framing,
        flags: fixed.flags,
        content_length: fixed.content_length,
        user_agent: fixed.user_agent,
        anomalies: fixed.anomalies,
        proxied: (fixed.proxied, fixed.proxied_port),
        captures: (0..capture::COUNT).map(|which| head.capture(which).map(<[u8]>::to_vec)).collect(),
        credentials: head.credentials().map(found).collect(),
    }
}

/// Everything that came out of an engine since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub heads: Vec<Seen>,
    /// Direction, transaction, kind, body bytes, complete.
    pub ends: Vec<(u8, u32, u8, u64, u32)>,
    /// Teed bytes by direction and transaction.
    pub teed: BTreeMap<(u8, u32), Vec<u8>>,
    pub closes: usize,
    /// What retransmissions said of requests that were not answered yet.
    pub versions: Vec<Seen>,
}

impl Output {
    /// Takes one record.
    pub fn note(&mut self, bytes: &[u8]) {
        match decode(bytes).expect("the parser writes whole records") {
            Record::Request(head) => self.heads.push(seen(&head, true)),
            Record::Response(head) => self.heads.push(seen(&head, false)),
            Record::Version(head) => self.versions.push(seen(&head, true)),
            Record::End(end) | Record::TeeEnd(end) => {
                self.ends.push((end.head.direction, end.head.txn, end.head.kind, end.body_bytes, end.complete));
            }
            Record::Tee(head, bytes) => {
                let body = self.teed.entry((head.direction, head.txn)).or_default();
                assert_eq!(head.offset, body.len() as u64, "teed bytes follow each other");
                body.extend(bytes);
            }
            Record::Close(_) => self.closes += 1,
            Record::AnswerLost(_) => {}
        }
    }
}

pub fn drain(engine: &mut Offline) -> Output {
    let mut output = Output::default();
    engine.settle(|bytes| output.note(bytes));
    output
}

pub fn count(engine: &Offline, counter: Counter) -> u64 {
    engine.totals()[counter as usize]
}

/// The three identities of the totals.
pub fn check_identities(engine: &Offline) {
    let sum = |counters: &[Counter]| counters.iter().map(|one| count(engine, *one)).sum::<u64>();
    assert_eq!(count(engine, Counter::PacketsSeen), sum(Counter::PACKET_DISPOSITIONS), "packets");
    assert_eq!(count(engine, Counter::BytesNew), sum(Counter::BYTE_DISPOSITIONS), "bytes");
    assert_eq!(count(engine, Counter::HeadsCompleted), sum(Counter::HEAD_DISPOSITIONS), "heads");
}

/// A connection whose ends take turns.
pub struct Conversation {
    pub engine: Offline,
    next: [u32; 2],
    client_port: u16,
}

impl Conversation {
    pub fn open() -> Self {
        Self::over(engine())
    }

    pub fn over(engine: Offline) -> Self {
        // Sequence numbers wrap in the middle of every test.
        let mut conversation = Self { engine, next: [0xffff_ff00, 0x7fff_ff00], client_port: 40_000 };
        conversation.send(From::Client, SYN, b"");
        conversation.send(From::Server, SYN | ACK, b"");
        conversation
    }

    pub fn send(&mut self, from: From, flags: u8, payload: &[u8]) {
        let sequence = self.next[from as usize];
        let frame = segment_of(self.client_port, from, sequence, flags, payload);
        self.raw(&frame);
        let extra = u32::from(flags & (SYN | FIN) != 0);
        self.next[from as usize] = sequence.wrapping_add(u32::try_from(payload.len()).unwrap()).wrapping_add(extra);
    }

    /// The same bytes again, from `back` bytes before the end of what was sent.
    pub fn overlap(&mut self, from: From, back: u32, payload: &[u8]) {
        let sequence = self.next[from as usize].wrapping_sub(back);
        let frame = segment_of(self.client_port, from, sequence, ACK, payload);
        self.raw(&frame);
        let end = sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
        if end.wrapping_sub(self.next[from as usize]) < 1 << 31 {
            self.next[from as usize] = end;
        }
    }

    /// Bytes that were sent and never seen.
    pub fn skip(&mut self, from: From, bytes: u32) {
        let next = &mut self.next[from as usize];
        *next = next.wrapping_add(bytes);
    }

    pub fn raw(&mut self, frame: &[u8]) {
        self.engine.ethernet(1, frame, u32::try_from(frame.len()).unwrap());
    }

    pub fn data(&mut self, from: From, payload: &[u8]) {
        self.send(from, ACK, payload);
    }

    pub fn output(&mut self) -> Output {
        check_identities(&self.engine);
        drain(&mut self.engine)
    }
}

/// The heads of one request's bytes, sent as one segment.
pub fn request(bytes: &[u8]) -> Output {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, bytes);
    conversation.output()
}

/// The one credential of a request with the header line `line`.
pub fn credential_of(line: &str) -> Option<Found> {
    let output = request(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n").as_bytes());
    assert_eq!(output.heads.len(), 1, "{line:?}");
    assert!(output.heads[0].credentials.len() < 2, "{line:?}");
    output.heads[0].credentials.first().cloned()
}

pub const WHOLE: u16 = credential_flag::THREE_PARTS | credential_flag::CLAIMS;
