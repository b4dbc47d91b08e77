//! What most targets stand on: a service with a credential place of every kind, one connection to it, and the records
//! that come out, as values that can be compared.

use std::collections::BTreeMap;

use sensor::capture::offline::Offline;
use sensor::capture::tables::Tables;
use sensor::collect::decode::{Head, Malformed, Record, decode};
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    Credential, EndRecord, HeadRecord, ListenKey, Name, RouteConfig, RouteState, ServiceConfig, Settings, Span,
    anomaly, capture, credential_flag, direction, framing, head_flag, place, service_flag,
};

use crate::frames::{ACK, FIN, Numbers, SYN, segment};
use crate::script::{Cut, Event};

/// The fingerprint key, as bytes: what the reference hash takes.
pub const KEY: &[u8; 16] = b"a key for tests!";
/// Where the service listens.
pub const PORT: u16 = 8080;
/// Bytes of the longest segment (an IPv4 packet has at most 65,535).
const SEGMENT_MAX: usize = 65_000;

/// Where a record says its kind.
const KIND: usize = 4;

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
        // How often the slow path took the flow: that depends on the cuts.
        fixed.head.epoch = 0;
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

    /// True if nobody can know where the message ends: contradicting lengths, or a body that its client may keep to itself
    /// because it was not told to continue.
    fn ends_somewhere(&self) -> bool {
        self.fixed.framing == framing::UNKNOWN || self.fixed.flags & head_flag::EXPECT != 0
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
    /// Requests as bytes that were sent again say them.
    pub versions: Vec<Seen>,
    /// Ends of bodies, in order.
    pub ends: Vec<EndRecord>,
    /// Teed bytes by direction and transaction.
    pub teed: BTreeMap<(u8, u32), Vec<u8>>,
    /// Teed bytes did not follow each other.
    pub torn: bool,
    /// Kinds of other records, in order.
    pub others: Vec<u8>,
    /// The bytes of every record.
    pub raw: Vec<u8>,
}

impl Output {
    /// Ends of bodies by direction, without what depends on the cuts.
    fn ends(&self) -> Vec<EndRecord> {
        let mut ends = self.ends.clone();
        for end in &mut ends {
            end.head.epoch = 0;
        }
        ends.sort_by_key(|end| (end.head.direction, end.head.txn));
        ends
    }
}

/// Bounds of the slow path: small enough that a fuzzer can reach them.
pub fn limits() -> Limits {
    Limits { flows: 4, held_bytes: 256 << 10, half_bytes: 64 << 10, head_bytes: 64 << 10, ..Limits::default() }
}

/// Takes what came out, for good: what is missing is not waited for. Every record must be whole.
pub fn settle(engine: &mut Offline) -> Output {
    let mut output = Output::default();
    take(engine, &mut output, true);
    output
}

/// Takes what came out so far.
fn take(engine: &mut Offline, output: &mut Output, last: bool) {
    let each = |bytes: &[u8]| {
        output.raw.extend_from_slice(bytes);
        let record = match decode(bytes) {
            Err(Malformed::Kind(_)) => None,
            other => Some(other.expect("the parser writes whole records")),
        };
        match record {
            Some(Record::Request(head) | Record::Response(head)) => output.heads.push(Seen::new(&head)),
            Some(Record::Version(head)) => output.versions.push(Seen::new(&head)),
            Some(Record::End(end) | Record::TeeEnd(end)) => output.ends.push(end),
            Some(Record::Tee(head, bytes)) => {
                let body = output.teed.entry((head.direction, head.txn)).or_default();
                // (A transaction number is not unique among answers that nobody asked for.)
                output.torn |= head.txn != u32::MAX && head.offset != body.len() as u64;
                body.extend(bytes);
            }
            // Of what was lost for good, however it was cut.
            Some(Record::AnswerLost(_)) => {}
            _ => output.others.extend(bytes.get(KIND)),
        }
    };
    if last {
        engine.settle(each);
    } else {
        engine.drain(each);
    }
}

/// The total of one counter.
pub fn count(engine: &Offline, counter: Counter) -> u64 {
    engine.totals()[counter as usize]
}

/// The three identities of the totals.
pub fn check_identities(engine: &Offline) {
    let sum = |counters: &[Counter]| counters.iter().map(|one| count(engine, *one)).sum::<u64>();
    assert_eq!(count(engine, Counter::PacketsSeen), sum(Counter::PACKET_DISPOSITIONS), "packets");
    assert_eq!(count(engine, Counter::BytesNew), sum(Counter::BYTE_DISPOSITIONS), "bytes");
    assert_eq!(count(engine, Counter::HeadsCompleted), sum(Counter::HEAD_DISPOSITIONS), "heads");
    let slow = |counter: Counter| engine.slow_totals()[counter as usize];
    let parsed: u64 = Counter::BYTE_DISPOSITIONS.iter().map(|one| slow(*one)).sum();
    assert_eq!(slow(Counter::BytesNew), parsed, "bytes on the slow path");
}

/// One connection to the service.
pub struct Connection {
    /// The parser.
    pub engine: Offline,
    next: [u32; 2],
    output: Output,
    /// Segments between two looks at what came out, and segments so far.
    every: usize,
    sent: usize,
}

impl Connection {
    /// Opens it.
    pub fn open(tables: Tables, every: usize) -> Self {
        // Sequence numbers wrap in the middle of whatever is said.
        let engine = Offline::new(tables, false, 64, 16, limits());
        let mut connection =
            Self { engine, next: [0xffff_ff00, 0x7fff_ff00], output: Output::default(), every, sent: 0 };
        connection.send(Side::Client, SYN, &[]);
        connection.send(Side::Server, SYN | ACK, &[]);
        connection
    }

    /// The next bytes of one end.
    pub fn send(&mut self, from: Side, flags: u8, payload: &[u8]) {
        let sequence = self.next[from as usize];
        self.segment(from, sequence, flags, payload);
        let len = u32::try_from(payload.len()).expect("scripts are short") + u32::from(flags & (SYN | FIN) != 0);
        self.next[from as usize] = sequence.wrapping_add(len);
    }

    fn segment(&mut self, from: Side, sequence: u32, flags: u8, payload: &[u8]) {
        let numbers = Numbers { sequence, acknowledged: self.next[from.other() as usize] };
        let frame = segment(from, numbers, flags, payload);
        self.engine.ethernet(1, &frame, u32::try_from(frame.len()).expect("frames are short"));
        self.sent += 1;
        if self.sent.is_multiple_of(self.every) {
            take(&mut self.engine, &mut self.output, false);
        }
    }

    /// What one end says, cut as it is told.
    pub fn say(&mut self, from: Side, bytes: &[u8], cuts: &[Cut]) {
        let start = self.next[from as usize];
        let place = |at: usize| start.wrapping_add(u32::try_from(at).expect("scripts are short"));
        // A late segment comes behind the one after it.
        let mut waiting: Option<(usize, usize)> = None;
        for (begin, end, late) in pieces(bytes.len(), cuts) {
            if late && waiting.is_none() {
                waiting = Some((begin, end));
                continue;
            }
            for (begin, end) in [Some((begin, end)), waiting.take()].into_iter().flatten() {
                self.segment(from, place(begin), ACK, &bytes[begin..end]);
            }
        }
        if let Some((begin, end)) = waiting {
            self.segment(from, place(begin), ACK, &bytes[begin..end]);
        }
        self.next[from as usize] = place(bytes.len());
    }

    /// It is over: what came out of it.
    pub fn finish(mut self) -> (Output, Offline) {
        take(&mut self.engine, &mut self.output, true);
        (self.output, self.engine)
    }
}

/// The segments of `len` bytes: begin, end, and whether each comes late.
fn pieces(len: usize, cuts: &[Cut]) -> Vec<(usize, usize, bool)> {
    let mut pieces = Vec::new();
    let (mut begin, mut again) = (0, 0);
    let end = Cut { at: len, again: 0, late: false };
    for cut in cuts.iter().chain([&end]) {
        // Between two cuts at one place stands nothing; what the second one repeats, the next segment does.
        if cut.at > begin {
            let mut from = begin - again;
            while cut.at - from > SEGMENT_MAX {
                pieces.push((from, from + SEGMENT_MAX, false));
                from += SEGMENT_MAX;
            }
            pieces.push((from, cut.at, cut.late));
            again = 0;
        }
        begin = cut.at;
        again = again.max(cut.again);
    }
    pieces
}

/// What a script came to.
#[derive(Debug)]
pub struct Played {
    /// The records.
    pub output: Output,
    /// Halves that lost their place: what they find again depends on where segments begin.
    pub lost: u64,
    /// The flow left HTTP: what a half that lost its place finds may decide that for both.
    pub upgraded: bool,
    /// Totals that no cut may change.
    pub totals: Vec<u64>,
}

/// Totals that no cut may change.
const SAME: &[Counter] = &[
    Counter::HeadsCompleted,
    Counter::HeadsRequest,
    Counter::RecordsEmitted,
    Counter::Unsolicited,
    Counter::FlowsCreated,
    Counter::FlowsUpgraded,
    Counter::PassedTls,
    Counter::PassedH2,
    Counter::PairingOverflow,
    Counter::HeadTooLong,
];

/// Plays a script: with its cuts, or each turn in one piece.
pub fn play(tables: Tables, events: &[Event], cut: bool) -> Played {
    let cuts: usize = events.iter().map(|event| if let Event::Say(_, _, cuts) = event { cuts.len() } else { 0 }).sum();
    let every = if cut { [1, 2, 5, 20][cuts % 4] } else { 1 };
    let mut connection = Connection::open(tables, every);
    for event in events {
        match event {
            Event::Say(side, bytes, cuts) => connection.say(*side, bytes, if cut { cuts } else { &[] }),
            Event::Fin(side) => connection.send(*side, FIN | ACK, &[]),
        }
    }
    let (output, engine) = connection.finish();
    check_identities(&engine);
    let totals = SAME.iter().map(|counter| count(&engine, *counter)).collect();
    let upgraded = count(&engine, Counter::FlowsUpgraded) > 0;
    Played { output, lost: count(&engine, Counter::Desynchronised), upgraded, totals }
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

impl Played {
    /// True when where segments begin decides by design how a half goes on: one that lost its place (what it was sent is no
    /// HTTP), or that cannot know how long a body is, looks for a start line there.
    fn unsure(&self) -> bool {
        self.lost > 0 || self.output.heads.iter().any(Seen::ends_somewhere)
    }
}

/// The same conversation, cut and uncut, must give the same records and totals.
///
/// Where the cuts decide by design, only the requests in front of that are compared.
pub fn check_invariance(uncut: &Played, cut: &Played) {
    let unsure = uncut.unsure() || cut.unsure();
    if !uncut.output.heads.iter().chain(&cut.output.heads).any(Seen::ends_somewhere) {
        assert_eq!(
            uncut.lost == 0,
            cut.lost == 0,
            "lost its place: {} times uncut, {} times cut",
            uncut.lost,
            cut.lost
        );
    }
    if unsure {
        // What such a half finds may take the whole flow out of HTTP.
        if !uncut.upgraded && !cut.upgraded {
            assert_eq!(first_requests(uncut), first_requests(cut), "requests in front, uncut and cut");
        }
        return;
    }
    for version in cut.output.versions.iter().filter(|version| version.fixed.head_bytes > 0) {
        // (One without a head says that bytes came again of which not enough is known.)
        check_version(version, cut);
    }
    assert!(!uncut.output.torn && !cut.output.torn, "teed bytes follow each other");
    for direction in [direction::REQUEST, direction::RESPONSE] {
        assert_eq!(heads(uncut, direction), heads(cut, direction), "heads, uncut and cut");
    }
    assert_eq!(uncut.output.ends(), cut.output.ends(), "ends of bodies, uncut and cut");
    assert_eq!(uncut.output.teed, cut.output.teed, "teed bytes, uncut and cut");
    assert_eq!(uncut.output.others, cut.output.others, "other records, uncut and cut");
    assert_eq!(uncut.totals, cut.totals, "totals, uncut and cut: {SAME:?}");
}

/// Nothing was sent in two versions: bytes that came again say what they said.
fn check_version(version: &Seen, played: &Played) {
    let same = |head: &&Seen| head.is_request() && head.fixed.head.txn == version.fixed.head.txn;
    let first = played.output.heads.iter().find(same).expect("a version of a request");
    let (first, version) = (without_query_claims(first), without_query_claims(version));
    assert_eq!(first.captures, version.captures, "captures of a request and of its repetition");
    assert_eq!(first.credentials, version.credentials, "credentials of a request and of its repetition");
}

/// The heads of one direction.
fn heads(played: &Played, direction: u8) -> Vec<Seen> {
    let all = played.output.heads.iter().filter(|head| head.fixed.head.direction == direction);
    all.map(without_query_claims).collect()
}

/// The requests up to the first behind which the cuts decide.
fn first_requests(played: &Played) -> Vec<Seen> {
    let mut found = Vec::new();
    for mut head in heads(played, direction::REQUEST) {
        if head.odd(anomaly::PICKED_UP) {
            break;
        }
        let last = head.ends_somewhere();
        // How many answers were found by then.
        head.fixed.anomalies &= !anomaly::QUEUE_OVERFLOW;
        found.push(head);
        if last {
            break;
        }
    }
    found
}
