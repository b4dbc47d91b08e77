//! What most targets stand on: a service with a credential place of every kind, one connection to it, and the records
//! that come out, as values that can be compared.

use std::collections::BTreeMap;

use sensor::capture::host::HostEngine;
use sensor::capture::tables::Tables;
use sensor::collect::decode::{Head, Record, decode};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    Credential, EndRecord, HeadRecord, ListenKey, Name, RouteConfig, RouteState, ServiceConfig, Settings, Span,
    anomaly, capture, credential_flag, direction, place, service_flag,
};

use crate::frames::{ACK, FIN, Numbers, SYN, segment};
use crate::script::{Cut, Event};

/// The fingerprint key, as bytes: what the reference hash takes.
pub const KEY: &[u8; 16] = b"a key for tests!";
/// Where the service listens.
pub const PORT: u16 = 8080;
/// Bytes of the longest segment (an IPv4 packet has at most 65,535).
const SEGMENT_MAX: usize = 65_000;

/// An end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asks.
    Client,
    /// Who answers.
    Server,
}

impl Side {
    /// The one across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A service on [`PORT`] with a credential place of every kind; `flags` of `service_flag` in addition.
pub fn tables(flags: u32) -> Tables {
    let name = |text: &str, fold| Name::new(text.as_bytes(), fold).unwrap();
    let mut service = ServiceConfig {
        flags: service_flag::AUTHORIZATION
            | service_flag::QUERY
            | service_flag::COOKIES
            | service_flag::HEADERS
            | service_flag::RESPONSE_HEADERS
            | flags,
        ..ServiceConfig::default()
    };
    service.cookies[0] = name("SESSION", false);
    service.cookies[1] = name("__Host-a-rather-long-cookie-name", false);
    service.headers[0] = name("x-api-key", true);
    service.response_headers[0] = name("x-new-token", true);
    service.query[0] = name("access_token", false);
    service.query[1] = name("t", false);
    let mut tables = Tables {
        key: Key::from_bytes(KEY),
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

/// One head: everything but where in the capture area things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The fixed part; its spans are 0.
    pub fixed: HeadRecord,
    /// What the captures hold.
    pub captures: Vec<Option<Vec<u8>>>,
    /// The credentials, their spans 0, and of a JWT header and payload.
    pub credentials: Vec<(Credential, Option<Vec<u8>>)>,
}

impl Seen {
    fn new(head: &Head<'_>) -> Self {
        let claimed =
            |one: Credential| (Credential { claims: Span::default(), ..one }, head.claims(&one).map(<[u8]>::to_vec));
        let mut fixed = head.fixed;
        fixed.captures = [Span::default(); capture::COUNT];
        fixed.captures_len = 0;
        fixed.head.size = 0;
        Self {
            fixed,
            captures: (0..capture::COUNT).map(|which| head.capture(which).map(<[u8]>::to_vec)).collect(),
            credentials: head.credentials().map(claimed).collect(),
        }
    }

    /// True for a request.
    pub fn is_request(&self) -> bool {
        self.fixed.head.direction == direction::REQUEST
    }

    /// True if one of the bits of `mask` (of `anomaly`) is set.
    pub fn odd(&self, mask: u32) -> bool {
        self.fixed.anomalies & mask != 0
    }
}

/// What came out of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Heads, in order.
    pub heads: Vec<Seen>,
    /// Ends of bodies, in order.
    pub ends: Vec<EndRecord>,
    /// Teed bytes by direction and transaction.
    pub teed: BTreeMap<(u8, u32), Vec<u8>>,
    /// Other records.
    pub others: usize,
    /// The bytes of every record.
    pub raw: Vec<u8>,
}

/// Takes what came out. Every record must be whole.
#[allow(clippy::match_wildcard_for_single_variants, reason = "further kinds of records are counted alike")]
pub fn drain(engine: &mut HostEngine) -> Output {
    let mut output = Output::default();
    engine.drain(|bytes| {
        output.raw.extend_from_slice(bytes);
        match decode(bytes).expect("the parser writes whole records") {
            Record::Request(head) | Record::Response(head) => output.heads.push(Seen::new(&head)),
            Record::End(end) | Record::TeeEnd(end) => output.ends.push(end),
            Record::Tee(head, bytes) => {
                let body = output.teed.entry((head.direction, head.txn)).or_default();
                // (A transaction number is not unique among answers that nobody asked for.)
                assert!(head.txn == u32::MAX || head.offset == body.len() as u64, "teed bytes follow each other");
                body.extend(bytes);
            }
            _ => output.others += 1,
        }
    });
    output
}

/// The total of one counter.
pub fn count(engine: &HostEngine, counter: Counter) -> u64 {
    engine.totals()[counter as usize]
}

/// The three identities of the totals.
pub fn check_identities(engine: &HostEngine) {
    let sum = |counters: &[Counter]| counters.iter().map(|one| count(engine, *one)).sum::<u64>();
    assert_eq!(count(engine, Counter::PacketsSeen), sum(Counter::PACKET_DISPOSITIONS), "packets");
    assert_eq!(count(engine, Counter::BytesNew), sum(Counter::BYTE_DISPOSITIONS), "bytes");
    assert_eq!(count(engine, Counter::HeadsCompleted), sum(Counter::HEAD_DISPOSITIONS), "heads");
}

/// One connection to the service.
pub struct Connection {
    /// The parser.
    pub engine: HostEngine,
    next: [u32; 2],
}

impl Connection {
    /// Opens it.
    pub fn open(tables: Tables) -> Self {
        // Sequence numbers wrap in the middle of whatever is said.
        let mut connection = Self { engine: HostEngine::new(tables, false, 64, 16), next: [0xffff_ff00, 0x7fff_ff00] };
        connection.send(Side::Client, SYN, &[]);
        connection.send(Side::Server, SYN | ACK, &[]);
        connection
    }

    /// The next bytes of one end.
    pub fn send(&mut self, from: Side, flags: u8, payload: &[u8]) {
        self.overlapping(from, flags, 0, payload);
    }

    /// A segment that begins `again` bytes in front of what comes next.
    fn overlapping(&mut self, from: Side, flags: u8, again: usize, payload: &[u8]) {
        let back = u32::try_from(again).expect("scripts are short");
        let numbers = Numbers {
            sequence: self.next[from as usize].wrapping_sub(back),
            acknowledged: self.next[from.other() as usize],
        };
        let frame = segment(from, numbers, flags, payload);
        self.engine.ethernet(1, &frame, u32::try_from(frame.len()).expect("frames are short"));
        let len = u32::try_from(payload.len()).expect("frames are short") + u32::from(flags & (SYN | FIN) != 0);
        self.next[from as usize] = numbers.sequence.wrapping_add(len);
    }

    /// What one end says, cut as it is told.
    pub fn say(&mut self, from: Side, bytes: &[u8], cuts: &[Cut]) {
        let (mut begin, mut again) = (0, 0);
        let end = Cut { at: bytes.len(), again: 0 };
        for cut in cuts.iter().chain([&end]) {
            // An empty segment is none; what it would have repeated, the next one repeats.
            if cut.at > begin {
                self.piece(from, &bytes[begin - again..cut.at], again);
                again = 0;
            }
            begin = cut.at;
            again = again.max(cut.again);
        }
    }

    fn piece(&mut self, from: Side, bytes: &[u8], again: usize) {
        let (first, rest) = bytes.split_at(bytes.len().min(SEGMENT_MAX));
        self.overlapping(from, ACK, again, first);
        for more in rest.chunks(SEGMENT_MAX) {
            self.send(from, ACK, more);
        }
    }
}

/// What a script came to.
#[derive(Debug)]
pub struct Played {
    /// The records.
    pub output: Output,
    /// Halves that lost their place: what they find again depends on where segments begin.
    pub lost: u64,
    /// Totals that no cut may change.
    pub totals: Vec<u64>,
}

/// Totals that no cut may change.
const SAME: &[Counter] = &[
    Counter::BytesNew,
    Counter::BytesGap,
    Counter::HeadsCompleted,
    Counter::HeadsRequest,
    Counter::RecordsEmitted,
    Counter::Unsolicited,
    Counter::FlowsCreated,
    Counter::FlowsDeleted,
    Counter::FlowsUpgraded,
    Counter::PassedTls,
    Counter::PassedH2,
    Counter::PairingOverflow,
    Counter::HeadTooLong,
];

/// Plays a script: with its cuts, or each turn in one piece.
pub fn play(tables: Tables, events: &[Event], cut: bool) -> Played {
    let mut connection = Connection::open(tables);
    for event in events {
        match event {
            Event::Say(side, bytes, cuts) => connection.say(*side, bytes, if cut { cuts } else { &[] }),
            Event::Fin(side) => connection.send(*side, FIN | ACK, &[]),
        }
    }
    check_identities(&connection.engine);
    let totals = SAME.iter().map(|counter| count(&connection.engine, *counter)).collect();
    let lost = count(&connection.engine, Counter::Desynchronised);
    Played { output: drain(&mut connection.engine), lost, totals }
}

/// Header and payload of a JWT in a query are only taken when it stands in one segment as a whole: the one thing that
/// may depend on how a stream is cut.
fn without_query_claims(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    for (credential, claims) in &mut seen.credentials {
        if credential.place == place::QUERY {
            *claims = None;
            credential.flags &= !(credential_flag::CLAIMS | credential_flag::CLAIMS_CUT);
        }
    }
    seen
}

/// The same conversation, cut and uncut, must give the same records and totals.
///
/// A half that lost its place (what it was sent is no HTTP) looks for a start line at the start of each segment, so what
/// it finds there depends on the cuts by design. Then only the requests in front of that are compared.
pub fn check_invariance(uncut: &Played, cut: &Played) {
    assert_eq!(uncut.lost == 0, cut.lost == 0, "lost its place: {} times uncut, {} times cut", uncut.lost, cut.lost);
    let heads = |played: &Played| -> Vec<Seen> {
        let all = played.output.heads.iter();
        if played.lost == 0 {
            return all.map(without_query_claims).collect();
        }
        all.filter(|head| head.is_request())
            .take_while(|head| !head.odd(anomaly::PICKED_UP))
            .map(without_query_claims)
            .collect()
    };
    assert_eq!(heads(uncut), heads(cut), "heads, uncut and cut");
    if uncut.lost == 0 {
        assert_eq!(uncut.output.ends, cut.output.ends, "ends of bodies, uncut and cut");
        assert_eq!(uncut.output.teed, cut.output.teed, "teed bytes, uncut and cut");
        assert_eq!(uncut.output.others, cut.output.others, "other records, uncut and cut");
        assert_eq!(uncut.totals, cut.totals, "totals, uncut and cut: {SAME:?}");
    }
}
